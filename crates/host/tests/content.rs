//! What a volume holds: bytes of a block device, file systems that grow, are damaged or dangerous.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may print and panic"
)]

mod rig;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::process::Command;

use host::staging::{self, StageRequest, Usage};
use rig::{MIB, Rig, digest, make_image, run, size_of, text};
use types::{Classify, ErrorKind};

#[test]
fn a_block_device_is_the_volume_byte_for_byte() {
    let Some(rig) = Rig::new() else { return };
    let volume = rig.volume("block", 8 * MIB + 4096);
    rig::patch(&volume.file, b"at the start", 0);
    let staged = rig.block_request(&volume);
    let target = rig.target("pod");
    rig.stage(&staged);
    staging::publish(&rig.publish_request(&staged, &target)).unwrap();
    assert!(fs::metadata(&target).unwrap().file_type().is_block_device());
    let mut device = File::options()
        .read(true)
        .write(true)
        .open(&target)
        .unwrap();
    let mut start = [0; 12];
    device.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"at the start");
    device.write_all(b" and on").unwrap();
    device.sync_all().unwrap();
    drop(device);
    let stats = staging::stats(&volume.name, &target).unwrap();
    assert_eq!(stats.usage, Some(Usage::Block { size: volume.size }));
    assert_eq!(
        staging::stats(&volume.name, &staged.staging_path).unwrap(),
        stats
    );
    assert!(!stats.condition.abnormal);
    staging::unpublish(&volume.name, &target).unwrap();
    rig.unstage(&staged);
    assert!(
        fs::read(&volume.file)
            .unwrap()
            .starts_with(b"at the start and on")
    );
    rig.assert_clean();
}

#[test]
fn a_small_image_grows_to_its_volume_and_a_volume_grows_in_use() {
    let Some(rig) = Rig::new() else { return };
    for (name, size) in [
        ("ext2", 16),
        ("ext3", 16),
        ("ext4", 16),
        ("xfs", 300),
        ("btrfs", 128),
    ] {
        let image = rig.path(&format!("{name}.img"));
        make_image(&image, name, size * MIB);
        let mut volume = rig.clone_of(&image, name, 400 * MIB);
        // A read-only volume stays as it is.
        let staged = rig.mount_request(&volume, None);
        let reader = StageRequest {
            read_only: true,
            ..staged.clone()
        };
        rig.stage(&reader);
        assert!(size_of(&staged.staging_path) <= size * MIB);
        rig.unstage(&reader);
        rig.stage(&staged);
        assert!(
            size_of(&staged.staging_path) > 330 * MIB,
            "{name} was not grown at stage"
        );
        // And in use: the file first, then the device and the file system.
        let target = rig.target(name);
        staging::publish(&rig.publish_request(&staged, &target)).unwrap();
        File::options()
            .write(true)
            .open(&volume.file)
            .unwrap()
            .set_len(600 * MIB)
            .unwrap();
        let needs_privilege = name.starts_with("ext") && !rig::has_sys_resource();
        if needs_privilege {
            println!("skipped in part: needs CAP_SYS_RESOURCE to grow {name} in use");
            let error = staging::expand(&volume.name, &target).unwrap_err();
            assert!(error.to_string().contains("CAP_SYS_RESOURCE"), "{error}");
            staging::unpublish(&volume.name, &target).unwrap();
            volume.size = types::ByteSize(600 * MIB);
            // It grows with the next stage instead.
            rig.stage(&rig.mount_request(&volume, None));
            staging::publish(&rig.publish_request(&staged, &target)).unwrap();
        }
        for path in [&target, &staged.staging_path, &target] {
            assert_eq!(
                staging::expand(&volume.name, path).unwrap().bytes(),
                600 * MIB
            );
        }
        assert!(size_of(&target) > 520 * MIB, "{name} was not grown in use");
        let stats = staging::stats(&volume.name, &target).unwrap();
        let Some(Usage::FileSystem { bytes, .. }) = stats.usage else {
            panic!("{stats:?}")
        };
        assert_eq!(bytes.total, size_of(&target));
        assert!(bytes.used > 0 || name == "xfs" || bytes.available <= bytes.total);
        assert!(!stats.condition.abnormal);
        volume.size = types::ByteSize(600 * MIB);
        staging::unpublish(&volume.name, &target).unwrap();
        rig.unstage(&staged);
        if name.starts_with("ext") {
            run("e2fsck", &["-f", "-n", text(&volume.file)]);
        }
    }
    rig.assert_clean();
}

#[test]
fn a_btrfs_that_the_kernel_does_not_grow_yet_is_used_as_it_is() {
    let Some(rig) = Rig::new() else { return };
    let image = rig.path("image");
    make_image(&image, "btrfs", 128 * MIB);
    let volume = rig.clone_of(&image, "small", 200 * MIB);
    let staged = rig.mount_request(&volume, None);
    rig.stage(&staged);
    assert_eq!(size_of(&staged.staging_path), 128 * MIB);
    // Who asks for more in use is told how much more it takes, and gets that.
    let error = staging::expand(&volume.name, &staged.staging_path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfRange);
    assert!(error.to_string().contains("268435456"), "{error}");
    let file = File::options().write(true).open(&volume.file).unwrap();
    file.set_len(256 * MIB).unwrap();
    staging::expand(&volume.name, &staged.staging_path).unwrap();
    assert_eq!(size_of(&staged.staging_path), 256 * MIB);
    rig.unstage(&staged);
    rig.assert_clean();
}

#[test]
fn a_damaged_ext4_is_repaired_or_left_to_a_person() {
    let Some(rig) = Rig::new() else { return };
    let image = rig.path("ext4.img");
    make_image(&image, "ext4", 32 * MIB);
    run(
        "debugfs",
        &["-w", "-R", "set_super_value state 2", text(&image)],
    );
    let volume = rig.clone_of(&image, "repaired", 32 * MIB);
    let staged = rig.mount_request(&volume, None);
    rig.stage(&staged);
    rig.unstage(&staged);
    // The root directory's inode is gone: e2fsck -p gives up.
    run("debugfs", &["-w", "-R", "clri <2>", text(&image)]);
    let volume = rig.clone_of(&image, "broken", 32 * MIB);
    let staged = rig.mount_request(&volume, None);
    let error = staging::stage(&staged).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DataLoss, "{error}");
    rig.assert_clean();
}

#[test]
fn row_90_setuid_programs_and_device_nodes_of_an_image_are_dead() {
    let Some(rig) = Rig::new() else { return };
    let tree = rig.path("tree");
    fs::create_dir(&tree).unwrap();
    fs::copy("/usr/bin/id", tree.join("id")).unwrap();
    fs::set_permissions(&tree, fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(tree.join("id"), fs::Permissions::from_mode(0o4755)).unwrap();
    run(
        "mknod",
        &["-m", "666", text(&tree.join("null")), "c", "1", "3"],
    );
    let image = rig.path("suid.img");
    File::create(&image).unwrap().set_len(32 * MIB).unwrap();
    run("mkfs.ext4", &["-q", "-F", "-d", text(&tree), text(&image)]);
    let volume = rig.clone_of(&image, "suid", 32 * MIB);
    let staged = rig.mount_request(&volume, None);
    rig.stage(&staged);
    let target = rig.target("pod");
    staging::publish(&rig.publish_request(&staged, &target)).unwrap();
    for place in [&staged.staging_path, &target] {
        let null = File::open(place.join("null")).unwrap_err();
        assert_eq!(
            null.raw_os_error(),
            Some(libc::EACCES),
            "a device node works"
        );
        assert_eq!(
            fs::metadata(place.join("id")).unwrap().mode() & 0o4000,
            0o4000
        );
        fs::set_permissions(rig.dir(), fs::Permissions::from_mode(0o755)).unwrap();
        let id = Command::new("setpriv")
            .args([
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
                text(&place.join("id")),
                "-u",
            ])
            .output()
            .unwrap();
        // Without nosuid the effective user would be root.
        if id.status.success() {
            assert_eq!(String::from_utf8_lossy(&id.stdout).trim(), "65534");
        }
    }
    staging::unpublish(&volume.name, &target).unwrap();
    rig.unstage(&staged);
    rig.assert_clean();
}

#[test]
fn a_clean_read_only_volume_is_not_written_to() {
    let Some(rig) = Rig::new() else { return };
    for (name, size) in [
        ("ext2", 32),
        ("ext3", 32),
        ("ext4", 32),
        ("xfs", 300),
        ("btrfs", 128),
    ] {
        let image = rig.path(&format!("{name}.img"));
        make_image(&image, name, size * MIB);
        let volume = rig.clone_of(&image, name, size * MIB);
        let before = digest(&volume.file);
        let staged = StageRequest {
            read_only: true,
            ..rig.mount_request(&volume, None)
        };
        rig.stage(&staged);
        rig.unstage(&staged);
        assert_eq!(digest(&volume.file), before, "{name} was written to");
    }
    rig.assert_clean();
}

#[test]
fn an_ext4_that_cannot_grow_in_use_grows_before_it_is() {
    let Some(rig) = Rig::new() else { return };
    for (name, options) in [
        ("no-resize-inode", &["-O", "^resize_inode"][..]),
        ("1k-blocks", &["-b", "1024"]),
        ("no-64bit", &["-O", "^64bit,^metadata_csum"]),
    ] {
        let image = rig.path(&format!("{name}.img"));
        File::create(&image).unwrap().set_len(16 * MIB).unwrap();
        run(
            "mkfs.ext4",
            &[&["-q", "-F"], options, &[text(&image)]].concat(),
        );
        let volume = rig.clone_of(&image, name, 300 * MIB);
        let staged = rig.mount_request(&volume, None);
        rig.stage(&staged);
        assert!(
            size_of(&staged.staging_path) > 250 * MIB,
            "{name} was not grown"
        );
        File::create(staged.staging_path.join("x")).unwrap();
        rig.unstage(&staged);
        rig.stage(&staged);
        assert!(staged.staging_path.join("x").exists());
        rig.unstage(&staged);
        run("e2fsck", &["-f", "-n", text(&volume.file)]);
    }
    rig.assert_clean();
}

/// Row 89: who does not trust the makers of images has each file system looked at in full, by tools that
/// may crash, before the kernel sees it.
#[test]
fn row_89_a_file_system_that_is_not_whole_is_not_given_to_the_kernel() {
    let Some(rig) = Rig::new() else { return };
    for (name, size, tool) in [
        ("ext4", 32, "e2fsck"),
        ("xfs", 300, "xfs_repair"),
        ("btrfs", 128, "btrfs"),
    ] {
        if !rig::has_tool(tool) {
            continue;
        }
        let image = rig.path(&format!("{name}.img"));
        make_image(&image, name, size * MIB);
        let mut staged = rig.mount_request(&rig.clone_of(&image, name, size * MIB), None);
        staged.check = staging::Check::All;
        rig.stage(&staged);
        rig.unstage(&staged);
        // Noise behind the superblocks, where tables, inodes and trees are: btrfs has the latter twice.
        let noise: Vec<u8> = (0..1u32 << 20)
            .map(|at| at.wrapping_mul(2_654_435_761).to_be_bytes()[0])
            .collect();
        let places = if name == "btrfs" {
            (1..60).map(|at| at * MIB).collect()
        } else {
            vec![68 << 10, 5 * MIB, 13 * MIB, 21 * MIB, 30 * MIB]
        };
        for offset in places {
            rig::patch(&image, &noise, offset);
        }
        let damaged = rig.clone_of(&image, &format!("{name}-damaged"), size * MIB);
        let before = digest(&damaged.file);
        let mut request = rig.mount_request(&damaged, None);
        request.check = staging::Check::All;
        let error = staging::stage(&request).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DataLoss, "{name}: {error}");
        assert_eq!(digest(&damaged.file), before, "{name}: nothing is repaired");
        rig.assert_clean();
    }
}

#[test]
fn a_volume_is_formatted_with_the_options_that_are_asked_for() {
    let Some(rig) = Rig::new() else { return };
    let volume = rig.volume("options", 64 * MIB);
    let mut request = rig.mount_request(&volume, Some(host::FsType::Ext4));
    request.mkfs_options = "-b 1024 -O ^metadata_csum".to_owned();
    rig.stage(&request);
    rig.unstage(&request);
    let told = run("dumpe2fs", &["-h", text(&volume.file)]);
    assert!(
        told.lines()
            .any(|line| line.starts_with("Block size:") && line.ends_with("1024")),
        "{told}"
    );
    assert!(!told.contains("metadata_csum"), "{told}");
    let mut bad = rig.mount_request(&rig.volume("bad", 64 * MIB), None);
    bad.mkfs_options = "-d /etc".to_owned();
    let error = staging::stage(&bad).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    rig.assert_clean();
}
