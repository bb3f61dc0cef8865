//! File systems that ask the node for more than to be mounted: of other devices (140), by the options in
//! their superblock (141), and what the kernel says when it has not what they need (146).

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may print and panic"
)]

mod rig;

use std::fs::File;

use host::staging;
use rig::{MIB, Rig, digest, has_tool, run, text};
use types::{Classify, ErrorKind};

/// Two images that are one btrfs together.
fn halves(rig: &Rig) -> [std::path::PathBuf; 2] {
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
fn scan(device: &std::path::Path) {
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
        let request = staging::StageRequest {
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
