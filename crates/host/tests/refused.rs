//! What a volume may ask of the node: other devices (140), options in its superblock (141), a tool that knows it
//! (144), a kernel that knows it (146), another file than its own (149).

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may print and panic"
)]

mod rig;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use host::staging::{self, StageRequest};
use rig::{MIB, Rig, digest, has_tool, make_image, run, text};
use types::{Classify, ErrorKind};

/// Two images that are one btrfs together.
fn halves(rig: &Rig) -> [PathBuf; 2] {
    let halves = ["1.img", "2.img"].map(|name| rig.path(name));
    for half in &halves {
        File::create(half).unwrap().set_len(256 * MIB).unwrap();
    }
    let [one, two] = [text(&halves[0]), text(&halves[1])];
    run(
        "mkfs.btrfs",
        &["-q", "-d", "raid0", "-m", "raid1", one, two],
    );
    halves
}

/// A scan as udev does it for each new block device of a host.
fn scan(device: &Path) {
    run("btrfs", &["device", "scan", text(device)]);
}

#[test]
fn row_140_half_a_file_system_never_joins_another_volume() {
    let Some(rig) = Rig::new() else { return };
    if !has_tool("mkfs.btrfs") {
        return;
    }
    let [one, two] = halves(&rig);
    // Somebody has the second half as a block device, and the host has seen it.
    let raw = rig.clone_of(&two, "raw", 256 * MIB);
    let held = rig.block_request(&raw);
    let device = rig.stage(&held).device;
    scan(&device);
    let before = digest(&raw.file);
    // The first half: as it comes in an image, and as its user writes it into a blank volume.
    let image = rig.clone_of(&one, "image", 256 * MIB);
    let written = rig.volume("written", 256 * MIB);
    let request = rig.block_request(&written);
    let own = rig.stage(&request).device;
    run(
        "dd",
        &[
            "status=none",
            "bs=1M",
            "conv=fsync",
            &format!("if={}", text(&one)),
            &format!("of={}", text(&own)),
        ],
    );
    rig.unstage(&request);
    for (volume, read_only) in [(&image, false), (&image, true), (&written, false)] {
        let request = StageRequest {
            read_only,
            ..rig.mount_request(volume, None)
        };
        let error = staging::stage(&request).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{error}");
        assert!(error.to_string().contains("2 devices"), "{error}");
    }
    assert_eq!(digest(&raw.file), before, "another volume was written to");
    run("btrfs", &["device", "scan", "--forget", text(&device)]);
    rig.unstage(&held);
    rig.assert_clean();
}

/// The options that are in force for the ext file system on `device`.
fn in_force(device: &Path) -> Vec<String> {
    let name = device.file_name().unwrap().to_str().unwrap();
    let text = fs::read_to_string(format!("/proc/fs/ext4/{name}/options")).unwrap();
    text.lines().map(ToOwned::to_owned).collect()
}

#[test]
fn row_141_options_of_the_superblock_that_weaken_the_node_are_overridden() {
    let Some(rig) = Rig::new() else { return };
    let weak = ["-o", "journal_data_writeback,nobarrier"];
    for (name, make, tune) in [
        ("ext4", &["-e", "panic"][..], &weak[..]),
        ("ext3", &["-e", "panic"], &weak),
        ("ext2", &["-e", "panic"], &[]),
        (
            "ext4",
            &["-e", "panic", "-O", "^has_journal"],
            &["-o", "nobarrier"],
        ),
        ("ext4", &["-e", "continue"], &["-o", "journal_data"]),
    ] {
        let image = rig.path("image");
        File::create(&image).unwrap().set_len(64 * MIB).unwrap();
        run(
            &format!("mkfs.{name}"),
            &[&["-q", "-F"], make, &[text(&image)]].concat(),
        );
        if !tune.is_empty() {
            run("tune2fs", &[tune, &[text(&image)]].concat());
        }
        let volume = rig.clone_of(&image, "weak", 64 * MIB);
        for read_only in [false, true] {
            let request = StageRequest {
                read_only,
                ..rig.mount_request(&volume, None)
            };
            let staged = rig.stage(&request);
            let options = in_force(&staged.device);
            let has = |option: &str| options.iter().any(|one| one == option);
            assert!(has("errors=remount-ro"), "{name} {make:?}: {options:?}");
            assert!(
                !has("data=writeback") && !has("nobarrier"),
                "{name}: {options:?}"
            );
            // What weakens nothing is its author's choice.
            assert!(
                has("data=journal") || !tune.contains(&"journal_data"),
                "{options:?}"
            );
            rig.unstage(&request);
        }
    }
    rig.assert_clean();
}

#[test]
fn row_146_a_refused_mount_names_what_the_kernel_lacks() {
    let Some(rig) = Rig::new() else { return };
    for (fs_type, options, at, byte, expected) in [
        // An incompatible feature of the future: of ext4, XFS (its checksum set again below), btrfs.
        (
            "ext4",
            &["-O", "^metadata_csum"][..],
            1024 + 0x63,
            0x80,
            "an unknown incompatible feature",
        ),
        (
            "ext4",
            &["-O", "^metadata_csum"],
            1024 + 0x67,
            0x80,
            "an unknown read-only compatible",
        ),
        ("xfs", &[], 0, 0, "an unknown incompatible feature"),
    ] {
        let image = rig.path("image");
        File::create(&image).unwrap().set_len(320 * MIB).unwrap();
        run(
            &format!("mkfs.{fs_type}"),
            &[&["-q"], options, &[text(&image)]].concat(),
        );
        if fs_type == "xfs" {
            if !has_tool("xfs_db") {
                continue;
            }
            let write = "write -d features_incompat 0x8000000b";
            run("xfs_db", &["-x", "-c", "sb 0", "-c", write, text(&image)]);
        } else {
            rig::patch(&image, &[byte], at);
        }
        let volume = rig.clone_of(&image, "future", 320 * MIB);
        let before = digest(&volume.file);
        let error = staging::stage(&rig.mount_request(&volume, None)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{error}");
        let said = error.to_string();
        assert!(
            said.contains(expected) && said.contains("newer kernel"),
            "{said}"
        );
        assert_eq!(digest(&volume.file), before, "{fs_type} was written to");
    }
    rig.assert_clean();
}

#[test]
fn row_144_a_file_system_that_e2fsck_cannot_judge_is_left_to_the_kernel() {
    let Some(rig) = Rig::new() else { return };
    let image = rig.path("image");
    File::create(&image).unwrap().set_len(64 * MIB).unwrap();
    run("mkfs.ext4", &["-q", "-O", "^metadata_csum", text(&image)]);
    // A compatible feature of the future: e2fsck ends with 8 and more, and the kernel mounts it.
    rig::patch(&image, &[0x40], 1024 + 0x5f);
    let volume = rig.clone_of(&image, "newer", 64 * MIB);
    let request = rig.mount_request(&volume, None);
    rig.stage(&request);
    File::create(request.staging_path.join("x")).unwrap();
    rig.unstage(&request);
    // Who wants it proven whole is told that nobody can.
    let all = StageRequest {
        check: staging::Check::All,
        ..request.clone()
    };
    let error = staging::stage(&all).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{error}");
    assert!(error.to_string().contains("cannot check it"), "{error}");
    // A finding is one still: a directory without its block.
    make_image(&image, "ext4", 64 * MIB);
    run("debugfs", &["-w", "-R", "sif <2> mode 0", text(&image)]);
    run("debugfs", &["-w", "-R", "ssv state 2", text(&image)]);
    let volume = rig.clone_of(&image, "broken", 64 * MIB);
    let error = staging::stage(&rig.mount_request(&volume, None)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DataLoss, "{error}");
    rig.assert_clean();
}

#[test]
fn row_149_a_link_on_the_way_to_the_volume_is_never_followed() {
    let Some(rig) = Rig::new() else { return };
    let foreign = rig.path("foreign");
    fs::create_dir(&foreign).unwrap();
    for fs_type in [None, Some("ext4")] {
        let volume = rig.volume("swapped", 32 * MIB);
        let file = foreign.join("volume");
        match fs_type {
            Some(fs_type) => make_image(&file, fs_type, 32 * MIB),
            None => File::create(&file).unwrap().set_len(32 * MIB).unwrap(),
        }
        let before = digest(&file);
        // The manager, which the directory belongs to, puts a link in its place.
        let directory = volume.file.parent().unwrap();
        fs::remove_dir_all(directory).unwrap();
        std::os::unix::fs::symlink(&foreign, directory).unwrap();
        for request in [rig.mount_request(&volume, None), rig.block_request(&volume)] {
            let error = staging::stage(&request).unwrap_err();
            assert!(error.to_string().contains("swapped/volume"), "{error}");
        }
        assert_eq!(digest(&file), before);
        assert_eq!(
            fs::read_dir(&foreign).unwrap().count(),
            1,
            "something was made there"
        );
        fs::remove_file(directory).unwrap();
    }
    rig.assert_clean();
}
