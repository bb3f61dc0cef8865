//! The sizes of blank volumes, compared with the limits of mkfs.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs::File;

use host::FsType;
use types::{Classify as _, ErrorKind, VolumeName};

#[test]
fn row_130_the_least_sizes_are_what_mkfs_takes() {
    let volume = VolumeName::new("v").unwrap();
    for fs_type in [
        FsType::Ext2,
        FsType::Ext3,
        FsType::Ext4,
        FsType::Xfs,
        FsType::Btrfs,
    ] {
        if host::filesystem::tools(fs_type).is_err() {
            eprintln!("skipped: needs the tools of {fs_type}");
            continue;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("volume");
        let least = *host::filesystem::sizes(fs_type).start();
        let file = File::create(&path).unwrap();
        file.set_len(least - 4096).unwrap();
        let small = host::filesystem::format(&volume, &path, fs_type, &[]).unwrap_err();
        assert_eq!(small.kind(), ErrorKind::OutOfRange, "{fs_type}: {small}");
        file.set_len(least).unwrap();
        host::filesystem::format(&volume, &path, fs_type, &[]).unwrap();
        if fs_type.as_str().starts_with("ext") {
            let disk = probe::FileDisk::open(&path).unwrap();
            let most = probe::grows_to(&disk).unwrap().unwrap();
            assert!(
                most > 10 << 40,
                "{fs_type} of {least} bytes grows to {most}"
            );
        }
    }
}
