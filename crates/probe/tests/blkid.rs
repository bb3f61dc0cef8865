//! Agreement with `blkid -p` on images that the real tools make. Needs no root.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may panic and print"
)]

use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

use probe::{Content, FileDisk, FsType};

/// One image: its name, its size in MiB, and the command that fills `IMAGE`.
type Case = (&'static str, u64, &'static str);

const CASES: &[Case] = &[
    ("ext2", 8, "mkfs.ext2 -q -L boot IMAGE"),
    ("ext3", 16, "mkfs.ext3 -q IMAGE"),
    ("ext4", 64, "mkfs.ext4 -q -L data IMAGE"),
    (
        "ext4 of 4 KiB blocks, no journal",
        32,
        "mkfs.ext4 -q -b 4096 -O ^has_journal IMAGE",
    ),
    (
        "ext4 without checksums",
        32,
        "mkfs.ext4 -q -O ^metadata_csum,^64bit IMAGE",
    ),
    (
        "ext4 of today",
        32,
        "mkfs.ext4 -q -O metadata_csum,64bit,casefold IMAGE",
    ),
    ("ext3 with 256 byte inodes", 16, "mkfs.ext3 -q -I 256 IMAGE"),
    ("external journal", 16, "mkfs.ext4 -q -O journal_dev IMAGE"),
    ("xfs", 300, "mkfs.xfs -q -L system IMAGE"),
    (
        "xfs of 4 KiB sectors",
        300,
        "mkfs.xfs -q -s size=4096 IMAGE",
    ),
    ("xfs version 4", 300, "mkfs.xfs -q -m crc=0 IMAGE"),
    ("btrfs", 150, "mkfs.btrfs -q -L pool IMAGE"),
    (
        "btrfs with xxhash",
        150,
        "mkfs.btrfs -q --csum xxhash IMAGE",
    ),
    ("FAT12", 8, "mkfs.vfat -F 12 -n TWELVE IMAGE"),
    ("FAT16", 32, "mkfs.vfat -F 16 IMAGE"),
    ("FAT32", 64, "mkfs.vfat -F 32 -n THIRTYTWO IMAGE"),
    ("FAT without a label", 1, "mkfs.vfat IMAGE"),
    ("FAT of 4 KiB sectors", 64, "mkfs.vfat -S 4096 IMAGE"),
    (
        "squashfs",
        0,
        "mksquashfs DIR IMAGE -noappend -quiet -no-progress",
    ),
    ("cramfs", 0, "mkfs.cramfs DIR IMAGE"),
    ("iso9660", 0, "genisoimage -quiet -V CDROM -o IMAGE DIR"),
    (
        "iso9660 by xorriso",
        0,
        "xorriso -as mkisofs -quiet -V CDROM -o IMAGE DIR",
    ),
    ("swap", 8, "mkswap -L swapper IMAGE"),
    ("swap of 64 KiB pages", 8, "mkswap -p 65536 IMAGE"),
    (
        "LUKS 1",
        8,
        "cryptsetup luksFormat -q --type luks1 --pbkdf-force-iterations 1000 IMAGE KEY",
    ),
    (
        "LUKS 2",
        32,
        "cryptsetup luksFormat -q --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 IMAGE KEY",
    ),
    (
        "LUKS 2, first header lost",
        32,
        "cryptsetup luksFormat -q --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 IMAGE KEY && dd if=/dev/zero of=IMAGE bs=4096 count=1 conv=notrunc",
    ),
    ("verity hash tree", 8, "veritysetup format DATA IMAGE"),
    ("MBR", 8, "echo ,4M,83 | sfdisk -q IMAGE"),
    (
        "MBR with logical partitions",
        64,
        "printf 'label: dos\\n,8M,83\\n,,5\\n,8M,83\\n,8M,83\\n' | sfdisk -q IMAGE",
    ),
    (
        "MBR without partitions",
        8,
        "echo 'label: dos' | sfdisk -q IMAGE",
    ),
    ("GPT", 8, "sfdisk -q IMAGE < LABEL_GPT"),
    (
        "GPT, first header lost",
        8,
        "sfdisk -q IMAGE < LABEL_GPT && dd if=/dev/zero of=IMAGE bs=512 seek=1 count=1 conv=notrunc",
    ),
    (
        "protective MBR alone",
        8,
        "sfdisk -q IMAGE < LABEL_GPT && truncate -s 4M IMAGE && dd if=/dev/zero of=IMAGE bs=512 seek=1 count=1 conv=notrunc",
    ),
    (
        "ext4 with boot code",
        32,
        "mkfs.ext4 -q IMAGE && printf '\\125\\252' | dd of=IMAGE bs=1 seek=510 conv=notrunc",
    ),
    (
        "ext4 over a stale second GPT header",
        32,
        "sfdisk -q IMAGE < LABEL_GPT && dd if=/dev/zero of=IMAGE bs=512 count=34 conv=notrunc && mkfs.ext4 -q -F IMAGE",
    ),
    (
        "LVM2",
        8,
        // The label of a physical volume: sector number 1, its checksum, the header at 32.
        "printf '\\114\\101\\102\\105\\114\\117\\116\\105\\001\\000\\000\\000\\000\\000\\000\\000\\163\\254\\250\\050\\040\\000\\000\\000\\114\\126\\115\\062\\040\\060\\060\\061' | dd of=IMAGE bs=1 seek=512 conv=notrunc",
    ),
    (
        "ext4 and xfs",
        300,
        "mkfs.ext4 -q IMAGE && mkfs.xfs -q -f DATA && dd if=DATA of=IMAGE bs=512 count=1 conv=notrunc",
    ),
    (
        "ext4 and btrfs",
        150,
        "mkfs.btrfs -q IMAGE && mkfs.ext4 -q -F DATA && dd if=DATA of=IMAGE bs=1024 skip=1 seek=1 count=1 conv=notrunc",
    ),
    (
        "ext4 and swap",
        32,
        "mkfs.ext4 -q IMAGE && printf SWAPSPACE2 | dd of=IMAGE bs=1 seek=4086 conv=notrunc",
    ),
    (
        "ext4 behind a partition table",
        64,
        "mkfs.ext4 -q IMAGE && echo ,8M,83 | sfdisk -q --wipe never --force IMAGE",
    ),
    ("zeros", 8, "true"),
    (
        "text",
        8,
        "yes some text | dd of=IMAGE bs=4096 count=8 iflag=fullblock conv=notrunc",
    ),
    ("less than a sector", 0, "printf XFSB > IMAGE"),
];

/// What `blkid -p` says: its exit code and its values.
fn blkid(image: &Path) -> (i32, HashMap<String, String>) {
    let output = Command::new("blkid")
        .args(["-p", "-o", "export"])
        .arg(image)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    // The export form escapes blanks and the like for a shell.
    let pairs = pairs
        .map(|(key, value)| (key.to_owned(), value.replace('\\', "")))
        .collect();
    (output.status.code().unwrap_or(-1), pairs)
}

fn check(name: &str, image: &Path, content: &Content) {
    let (code, values) = blkid(image);
    let value = |key: &str| values.get(key).map_or("", String::as_str);
    match content {
        Content::FileSystem {
            fs_type,
            label,
            uuid,
            refused,
        } => {
            assert_eq!(*refused, None, "{name}");
            assert_eq!(fs_type.as_str(), value("TYPE"), "{name}");
            assert_eq!(label, value("LABEL"), "{name}");
            assert_eq!(uuid, value("UUID"), "{name}");
        }
        Content::Other { what } => assert_eq!(*what, value("TYPE"), "{name}"),
        Content::PartitionTable { table } => {
            // What is left of a GPT is a GPT to us; blkid may name the protective MBR instead.
            let theirs = if value("PTTYPE") == "PMBR" {
                "gpt"
            } else {
                value("PTTYPE")
            };
            assert_eq!((*table, ""), (theirs, value("TYPE")), "{name}");
        }
        // blkid says 8 when signatures quarrel, or prints a type and a partition table.
        Content::Ambiguous(names) => {
            let both = !value("TYPE").is_empty() && !value("PTTYPE").is_empty();
            assert!(
                code == 8 || both,
                "{name}: {names:?}, blkid {code} {values:?}"
            );
        }
        Content::Unknown | Content::Blank => {
            assert_eq!(
                (code, value("TYPE"), value("PTTYPE")),
                (2, "", ""),
                "{name}: {values:?}"
            );
        }
    }
}

/// Makes the image of `case` in `dir`; `false` when its tool is missing.
fn make(dir: &Path, (name, mib, command): Case) -> bool {
    let image = dir.join("image");
    let words = command
        .split(['|', '&', ';'])
        .filter_map(|part| part.split_whitespace().next());
    let missing = words.clone().find(|tool| {
        let found = Command::new("sh")
            .args(["-c", &format!("command -v {tool}")])
            .output();
        !found.unwrap().status.success()
    });
    if let Some(tool) = missing {
        println!("skipped: {name}: needs {tool}");
        return false;
    }
    let _ = std::fs::remove_file(&image);
    File::create(&image).unwrap().set_len(mib << 20).unwrap();
    for (file, size) in [("data", 300 << 20), ("key", 0), ("gpt", 0)] {
        let mut made = File::create(dir.join(file)).unwrap();
        made.set_len(size).unwrap();
        match file {
            "key" => made.write_all(b"open sesame").unwrap(),
            "gpt" => made.write_all(b"label: gpt\n,2M\n,1M\n").unwrap(),
            _ => {}
        }
    }
    std::fs::create_dir_all(dir.join("dir")).unwrap();
    File::create(dir.join("dir/file"))
        .unwrap()
        .write_all(b"some bytes")
        .unwrap();
    let script = command
        .replace("IMAGE", "image")
        .replace("DIR", "dir")
        .replace("DATA", "data")
        .replace("KEY", "key")
        .replace("LABEL_GPT", "gpt");
    let output = Command::new("sh")
        .args(["-c", &script])
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {script}: {stderr}");
    true
}

fn has_blkid() -> bool {
    let found = Command::new("blkid").arg("-V").output().is_ok();
    if !found {
        println!("skipped: needs blkid");
    }
    found
}

#[test]
fn real_images_are_told_as_blkid_tells_them() {
    if !has_blkid() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    for case in CASES {
        if make(dir.path(), *case) {
            let content = probe::probe(&FileDisk::open(&image).unwrap()).unwrap();
            println!("{}: {content:?}", case.0);
            check(case.0, &image, &content);
        }
    }
}

/// A cut image is what blkid says it is; it is never blank while bytes are left.
#[test]
fn cut_images_are_told_as_blkid_tells_them() {
    if !has_blkid() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    for case in CASES.iter().filter(|case| case.1 > 0) {
        if !make(dir.path(), *case) {
            continue;
        }
        let file = File::options().write(true).open(&image).unwrap();
        for size in [
            1 << 20,
            70_000,
            65_536,
            4097,
            4096,
            2048,
            1536,
            1025,
            1024,
            513,
            512,
            511,
            1,
        ] {
            file.set_len(size).unwrap();
            let content = probe::probe(&FileDisk::open(&image).unwrap()).unwrap();
            let (_, values) = blkid(&image);
            let place = format!("{} cut to {size}", case.0);
            // Where blkid has nothing to say (it wants more of an XFS than we do), we may.
            match (&content, values.get("TYPE").or(values.get("PTTYPE"))) {
                (Content::Ambiguous(_), _) => {}
                (Content::FileSystem { fs_type, .. }, Some(name)) => {
                    // The label may lie in the part that is gone.
                    assert_eq!(fs_type.as_str(), name, "{place}");
                }
                (_, Some(_)) => check(&place, &image, &content),
                (Content::Blank, None) => {
                    let bytes = std::fs::read(&image).unwrap();
                    assert!(bytes.iter().all(|byte| *byte == 0), "{place}");
                }
                (_, None) => {}
            }
        }
    }
}

#[test]
fn the_partitions_of_a_table_are_listed() {
    if !has_blkid() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for (name, expected) in [
        ("GPT", vec![(1, 1 << 20, 2 << 20), (2, 3 << 20, 1 << 20)]),
        (
            "GPT, first header lost",
            vec![(1, 1 << 20, 2 << 20), (2, 3 << 20, 1 << 20)],
        ),
        (
            "MBR with logical partitions",
            vec![
                (1, 1 << 20, 8 << 20),
                (2, 9 << 20, 55 << 20),
                (5, 10 << 20, 8 << 20),
                (6, 19 << 20, 8 << 20),
            ],
        ),
        ("ext4", vec![]),
    ] {
        let case = CASES.iter().find(|case| case.0 == name).unwrap();
        if make(dir.path(), *case) {
            let disk = FileDisk::open(&dir.path().join("image")).unwrap();
            let listed = probe::partitions(&disk).unwrap();
            let listed: Vec<_> = listed.iter().map(|p| (p.number, p.start, p.len)).collect();
            assert_eq!(listed, expected, "{name}");
        }
    }
}

/// The reader looks at bounded places: a 1 TiB disk with a file system costs what a small one costs.
#[test]
fn a_large_sparse_disk_is_probed_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    let file = File::create(&path).unwrap();
    file.set_len(1 << 40).unwrap();
    let before = bytes_read();
    let content = probe::probe(&FileDisk::open(&path).unwrap()).unwrap();
    assert_eq!(content, Content::Blank);
    file.write_all_at(b"x", (1 << 40) - 1).unwrap();
    let content = probe::probe(&FileDisk::open(&path).unwrap()).unwrap();
    assert_eq!(content, Content::Unknown);
    let read = bytes_read() - before;
    assert!(read < 64 << 20, "{read} bytes were read");
}

/// Bytes that this thread has read so far (`rchar` of proc_pid_io(5)).
fn bytes_read() -> u64 {
    let counters = std::fs::read_to_string("/proc/thread-self/io").unwrap();
    let read = counters
        .lines()
        .find_map(|line| line.strip_prefix("rchar: "));
    read.unwrap().parse().unwrap()
}

#[test]
fn the_matrix_names_are_those_of_blkid() {
    for name in [
        "ext2", "ext3", "ext4", "xfs", "btrfs", "vfat", "squashfs", "iso9660",
    ] {
        assert_eq!(name.parse::<FsType>().unwrap().as_str(), name);
    }
}
