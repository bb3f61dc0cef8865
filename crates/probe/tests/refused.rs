//! File systems that are whole and yet never mounted, made by their own tools. Needs no root.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may panic and print"
)]

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

use probe::{Content, FileDisk, FsType};

/// A name, the command that makes `IMAGE` of 320 MiB, and a word of why it is refused; empty: it is not.
const CASES: &[(&str, &str, &str)] = &[
    (
        "btrfs of two",
        "mkfs.btrfs -q -f -d raid0 -m raid1 IMAGE OTHER",
        "2 devices",
    ),
    (
        "the second of two",
        "mkfs.btrfs -q -f -d raid0 -m raid1 OTHER IMAGE",
        "2 devices",
    ),
    (
        "btrfs that was given a second one later",
        "mkfs.btrfs -q IMAGE && FORGE 0x10088 02",
        "2 devices",
    ),
    (
        "btrfs of none",
        "mkfs.btrfs -q IMAGE && FORGE 0x10088 00",
        "0 devices",
    ),
    (
        "btrfs of two that says it is one",
        "mkfs.btrfs -q -f -d raid0 -m raid1 IMAGE OTHER && FORGE 0x10088 01",
        "more devices than its own",
    ),
    (
        "the target of a replacement",
        "mkfs.btrfs -q IMAGE && FORGE 0x100c9 00",
        "more devices than its own",
    ),
    (
        "a device of another btrfs",
        "mkfs.btrfs -q IMAGE && FORGE 0x1011b 00",
        "more devices than its own",
    ),
    (
        "a seed",
        "mkfs.btrfs -q IMAGE && btrfstune -f -S 1 IMAGE",
        "seed",
    ),
    (
        "btrfs of metadata only",
        "mkfs.btrfs -q IMAGE && FORGE 0x1003c 02",
        "dump of metadata",
    ),
    (
        "a change of UUID",
        "mkfs.btrfs -q IMAGE && FORGE 0x1003c 08",
        "interrupted",
    ),
    (
        "btrfs cut short",
        "mkfs.btrfs -q IMAGE && truncate -s 200M IMAGE",
        "335544320 bytes",
    ),
    (
        "btrfs with another UUID",
        "mkfs.btrfs -q IMAGE && btrfstune -f -m IMAGE",
        "",
    ),
    ("btrfs", "mkfs.btrfs -q IMAGE", ""),
    (
        "XFS log elsewhere",
        "mkfs.xfs -q -l logdev=OTHER IMAGE",
        "log is on another",
    ),
    (
        "XFS with a realtime device",
        "mkfs.xfs -q -r rtdev=OTHER IMAGE",
        "realtime",
    ),
    (
        "XFS half made",
        "mkfs.xfs -q IMAGE && POKE 126 01",
        "did not finish",
    ),
    (
        "XFS to be repaired",
        "mkfs.xfs -q IMAGE && POKE 219 1b",
        "xfs_repair",
    ),
    (
        "XFS cut short",
        "mkfs.xfs -q IMAGE && truncate -s 200M IMAGE",
        "335544320 bytes",
    ),
    ("XFS of the future", "mkfs.xfs -q IMAGE && POKE 216 80", ""),
    ("XFS", "mkfs.xfs -q IMAGE", ""),
    (
        "ext4 journal elsewhere",
        "mkfs.ext4 -q IMAGE && debugfs -w -R 'ssv journal_dev 0x800' IMAGE",
        "journal is on another",
    ),
    (
        "ext4 journal nowhere",
        "mkfs.ext4 -q IMAGE && debugfs -w -R 'ssv journal_inum 0' IMAGE",
        "journal is on another",
    ),
    (
        "ext2 with a journal's device",
        "mkfs.ext2 -q IMAGE && debugfs -w -R 'ssv journal_dev 0x800' IMAGE",
        "journal is on another",
    ),
    (
        "ext4 with options",
        "mkfs.ext4 -q IMAGE && tune2fs -E mount_opts=errors=panic IMAGE",
        "(errors=panic)",
    ),
    (
        "ext4 with harmless options",
        "mkfs.ext4 -q IMAGE && tune2fs -E mount_opts=noatime IMAGE",
        "(noatime)",
    ),
    (
        "ext4 whose options were cleared",
        "mkfs.ext4 -q IMAGE && tune2fs -E mount_opts=noatime IMAGE && tune2fs -E mount_opts= IMAGE",
        "",
    ),
    ("ext4 shared by nodes", "mkfs.ext4 -q -O mmp IMAGE", ""),
    (
        "ext4 that waits",
        "mkfs.ext4 -q -O mmp IMAGE && tune2fs -f -E mmp_update_interval=299 IMAGE",
        "299 seconds",
    ),
    (
        "ext4 that waits by its own block",
        "mkfs.ext4 -q -O ^metadata_csum,mmp IMAGE && debugfs -w -R 'smmp check_interval 4000' IMAGE",
        "4000 seconds",
    ),
    (
        "ext4 cut short",
        "mkfs.ext4 -q IMAGE && truncate -s 200M IMAGE",
        "335544320 bytes",
    ),
    (
        "ext4 of the future",
        "mkfs.ext4 -q IMAGE && POKE 1123 80",
        "",
    ),
    ("ext4", "mkfs.ext4 -q -O casefold IMAGE", ""),
    ("ext3", "mkfs.ext3 -q IMAGE", ""),
    (
        "erofs with data elsewhere",
        "rm IMAGE && mkfs.erofs --quiet IMAGE /etc/apt && POKE 1104 08 && POKE 1110 01",
        "1 more devices",
    ),
    ("erofs", "rm IMAGE && mkfs.erofs --quiet IMAGE /etc/apt", ""),
];

/// The first superblock of a btrfs with a right checksum again.
fn seal_btrfs(image: &Path) {
    let file = File::options().read(true).write(true).open(image).unwrap();
    let mut block = [0; 4096];
    file.read_exact_at(&mut block, 64 << 10).unwrap();
    let crc = block[0x20..].iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 }
        })
    });
    file.write_all_at(&(!crc).to_le_bytes(), 64 << 10).unwrap();
}

/// Makes the image of one case, or says why it cannot.
fn make(directory: &Path, command: &str) -> Option<std::path::PathBuf> {
    let (image, other) = (directory.join("image"), directory.join("other"));
    for file in [&image, &other] {
        let _ = std::fs::remove_file(file);
        File::create(file).unwrap().set_len(320 << 20).unwrap();
    }
    for step in command.split(" && ") {
        if let Some(change) = step.strip_prefix("POKE ").or(step.strip_prefix("FORGE ")) {
            let (at, byte) = change.split_once(' ').unwrap();
            let at = match at.strip_prefix("0x") {
                Some(hex) => u64::from_str_radix(hex, 16).unwrap(),
                None => at.parse().unwrap(),
            };
            let byte = u8::from_str_radix(byte, 16).unwrap();
            let file = File::options().write(true).open(&image).unwrap();
            file.write_all_at(&[byte], at).unwrap();
            if step.starts_with("FORGE") {
                seal_btrfs(&image);
            }
            continue;
        }
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let step = step
            .replace("IMAGE", &text(&image))
            .replace("OTHER", &text(&other));
        let output = Command::new("sh").args(["-c", &step]).output().unwrap();
        if output.status.code() == Some(127) {
            println!(
                "skipped in part: needs {}",
                step.split(' ').next().unwrap_or_default()
            );
            return None;
        }
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{step}: {said}");
    }
    Some(image)
}

#[test]
fn row_140_a_file_system_that_asks_for_more_than_its_device_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    for (name, command, why) in CASES {
        let Some(image) = make(directory.path(), command) else {
            continue;
        };
        let content = probe::probe(&FileDisk::open(&image).unwrap()).unwrap();
        let Content::FileSystem { refused, .. } = &content else {
            panic!("{name}: {content:?}");
        };
        match refused {
            None => assert_eq!(*why, "", "{name} is not refused"),
            Some(said) => assert!(!why.is_empty() && said.contains(why), "{name}: {said}"),
        }
    }
}

#[test]
fn row_146_features_that_a_kernel_may_lack_have_names() {
    let directory = tempfile::tempdir().unwrap();
    for (command, fs_type, expected) in [
        ("mkfs.ext4 -q IMAGE", FsType::Ext4, &[][..]),
        (
            "mkfs.ext4 -q -O casefold,quota,verity IMAGE",
            FsType::Ext4,
            &["casefold", "quota", "verity"],
        ),
        (
            "mkfs.ext4 -q IMAGE && POKE 1123 80",
            FsType::Ext4,
            &["an unknown incompatible feature (0x80000000)"],
        ),
        (
            "mkfs.xfs -q -m crc=0 IMAGE",
            FsType::Xfs,
            &["the format of version 4 (crc=0)"],
        ),
        (
            "mkfs.xfs -q -i nrext64=0 IMAGE && POKE 216 80",
            FsType::Xfs,
            &["an unknown incompatible feature (0x80000000)"],
        ),
        (
            "mkfs.btrfs -q IMAGE && FORGE 0x100b4 0b",
            FsType::Btrfs,
            &["block-group-tree"],
        ),
    ] {
        let Some(image) = make(directory.path(), command) else {
            continue;
        };
        let disk = FileDisk::open(&image).unwrap();
        assert_eq!(
            probe::features(&disk, fs_type).unwrap(),
            expected,
            "{command}"
        );
    }
}
