//! The requested file system against the actual one, with images created by the real tools (rows 73
//! and 74).

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may print and panic"
)]

mod rig;

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use host::staging::{self, Access, StageRequest};
use host::{Error, FsType};
use rig::{MIB, Rig, digest, has_tool, make_image, run, text};
use types::{Classify, ErrorKind};

/// A file system and the least convenient size that its tool makes.
const FILE_SYSTEMS: [(&str, u64); 5] = [
    ("ext2", 32),
    ("ext3", 32),
    ("ext4", 32),
    ("xfs", 300),
    ("btrfs", 128),
];

fn refused(request: &StageRequest, kind: ErrorKind) -> String {
    let before = digest(&request.volume.file);
    let error = staging::stage(request).unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    assert_eq!(
        digest(&request.volume.file),
        before,
        "a refused volume was written to"
    );
    types::report(&error).to_string()
}

#[test]
fn row_73_a_file_system_is_mounted_as_itself_and_never_as_another() {
    let Some(rig) = Rig::new() else { return };
    for (name, size) in FILE_SYSTEMS {
        let fs_type: FsType = name.parse().unwrap();
        let image = rig.path(&format!("{name}.img"));
        make_image(&image, name, size * MIB);
        let volume = rig.clone_of(&image, name, size * MIB);
        let other = if name == "ext4" {
            FsType::Xfs
        } else {
            FsType::Ext4
        };
        let said = refused(
            &rig.mount_request(&volume, Some(other)),
            ErrorKind::FailedPrecondition,
        );
        assert!(
            said.contains(name) && said.contains(other.as_str()),
            "{said}"
        );
        assert_eq!(rig.left(), (0, 0), "{name}");
        for asked in [None, Some(fs_type)] {
            let request = rig.mount_request(&volume, asked);
            let staged = rig.stage(&request);
            assert_eq!(staged.fs_type, Some(fs_type));
            File::create(request.staging_path.join("x"))
                .unwrap()
                .write_all(b"x")
                .unwrap();
            rig.unstage(&request);
            rig.assert_clean();
        }
    }
}

#[test]
fn row_73_a_read_only_file_system_is_for_readers() {
    let Some(rig) = Rig::new() else { return };
    if !has_tool("mksquashfs") {
        return;
    }
    let image = rig.path("squashfs.img");
    make_image(&image, "squashfs", MIB);
    let size = fs::metadata(&image).unwrap().len().next_multiple_of(4096);
    let volume = rig.clone_of(&image, "squashfs", size);
    let mut request = rig.mount_request(&volume, None);
    refused(&request, ErrorKind::FailedPrecondition);
    request.read_only = true;
    let staged = rig.stage(&request);
    assert_eq!(staged.fs_type, Some(FsType::Squashfs));
    assert!(request.staging_path.read_dir().unwrap().next().is_some());
    rig.unstage(&request);
    rig.assert_clean();
}

#[test]
fn row_73_vfat_is_mounted_where_the_kernel_has_it_and_never_formatted() {
    let Some(rig) = Rig::new() else { return };
    if !has_tool("mkfs.vfat") {
        return;
    }
    let image = rig.path("vfat.img");
    make_image(&image, "vfat", 32 * MIB);
    let volume = rig.clone_of(&image, "vfat", 32 * MIB);
    let said = refused(
        &rig.mount_request(&volume, Some(FsType::Ext4)),
        ErrorKind::FailedPrecondition,
    );
    assert!(said.contains("vfat") && said.contains("ext4"), "{said}");
    let request = rig.mount_request(&volume, None);
    let before = digest(&volume.file);
    match staging::stage(&request) {
        Ok(staged) => {
            assert_eq!(staged.fs_type, Some(FsType::Vfat));
            File::create(request.staging_path.join("x")).unwrap();
            rig.unstage(&request);
        }
        // A kernel without it.
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{error}");
            assert!(error.to_string().contains("vfat"), "{error}");
            assert_eq!(digest(&volume.file), before);
        }
    }
    rig.assert_clean();
}

/// What is not a file system, made by the tool that makes it.
fn make_other(path: &Path, what: &str) -> bool {
    let file = File::create(path).unwrap();
    file.set_len(20 * MIB).unwrap();
    let feed = |tool: &str, input: &[u8]| {
        let mut child = std::process::Command::new(tool)
            .arg(path)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        assert!(child.wait().unwrap().success());
    };
    match what {
        "dos" => feed("sfdisk", b"label: dos\n,,83\n"),
        "gpt" => feed("sfdisk", b"label: gpt\n,,L\n"),
        "swap" => drop(run("mkswap", &[text(path)])),
        "crypto_LUKS" => {
            if !has_tool("cryptsetup") {
                return false;
            }
            let options = [
                "luksFormat",
                "-q",
                "--pbkdf",
                "pbkdf2",
                "--pbkdf-force-iterations",
            ];
            let options = [&options[..], &["1000", "-d", "/etc/hostname", text(path)]].concat();
            run("cryptsetup", &options);
        }
        "LVM2_member" => {
            // As pvcreate writes it into the second sector, with a checksum that blkid checks.
            let mut label = [0u8; 512];
            label[..8].copy_from_slice(b"LABELONE");
            label[8..16].copy_from_slice(&1u64.to_le_bytes());
            label[20..24].copy_from_slice(&32u32.to_le_bytes());
            label[24..32].copy_from_slice(b"LVM2 001");
            label[32..64].copy_from_slice(b"abcdefghijklmnopqrstuvwxyz012345");
            let sum = lvm_crc(&label[20..]);
            label[16..20].copy_from_slice(&sum.to_le_bytes());
            rig::patch(path, &label, 512);
        }
        "two signatures" => {
            run("mkfs.ext4", &["-q", "-F", text(path)]);
            let swap = path.with_extension("swap");
            make_image(&swap, "btrfs", 128 * MIB);
            let btrfs = fs::read(&swap).unwrap();
            rig::patch(path, &btrfs[64 << 10..68 << 10], 64 << 10);
        }
        "random" => {
            let mut noise = vec![0; 4096];
            File::open("/dev/urandom")
                .and_then(|mut f| {
                    use std::io::Read;
                    f.read_exact(&mut noise)
                })
                .unwrap();
            rig::patch(path, &noise, 0);
        }
        "one byte" => rig::patch(path, &[1], 9 * MIB + 77),
        other => panic!("no way to make {other}"),
    }
    true
}

/// LVM's CRC of a label: CRC-32 with this start value and no final inversion.
fn lvm_crc(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0xf597_a6cf, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 }
        })
    })
}

#[test]
fn row_74_what_cannot_be_mounted_is_named_and_never_formatted() {
    let Some(rig) = Rig::new() else { return };
    let kinds = [
        "dos",
        "gpt",
        "swap",
        "crypto_LUKS",
        "LVM2_member",
        "two signatures",
        "random",
        "one byte",
    ];
    for (number, what) in kinds.into_iter().enumerate() {
        let image = rig.path(&format!("{number}.img"));
        if !make_other(&image, what) {
            continue;
        }
        for has_source in [false, true] {
            let mut volume = rig.clone_of(&image, &format!("v{number}"), 20 * MIB);
            volume.has_source = has_source;
            for asked in [None, Some(FsType::Ext4), Some(FsType::Xfs)] {
                for read_only in [false, true] {
                    let request = StageRequest {
                        read_only,
                        ..rig.mount_request(&volume, asked)
                    };
                    let said = refused(&request, ErrorKind::FailedPrecondition);
                    match what {
                        "two signatures" => assert!(said.contains("signature"), "{said}"),
                        "random" | "one byte" => assert!(said.contains("unknown"), "{said}"),
                        _ => assert!(said.contains(what), "{what}: {said}"),
                    }
                }
            }
            // As a raw block device it is welcome, whatever it holds.
            let request = rig.block_request(&volume);
            rig.stage(&request);
            rig.unstage(&request);
        }
    }
    rig.assert_clean();
}

#[test]
fn row_74_a_blank_volume_is_formatted_once() {
    let Some(rig) = Rig::new() else { return };
    let asked = [
        None,
        Some(FsType::Ext2),
        Some(FsType::Ext3),
        Some(FsType::Xfs),
        Some(FsType::Btrfs),
    ];
    for (number, fs_type) in asked.into_iter().enumerate() {
        let volume = rig.volume(&format!("blank{number}"), 320 * MIB);
        let request = rig.mount_request(&volume, fs_type);
        let staged = rig.stage(&request);
        assert_eq!(staged.fs_type, Some(fs_type.unwrap_or(FsType::Ext4)));
        File::create(request.staging_path.join("kept")).unwrap();
        rig.unstage(&request);
        rig.stage(&request);
        assert!(
            request.staging_path.join("kept").exists(),
            "formatted twice"
        );
        rig.unstage(&request);
        assert_eq!(
            fs::read_dir(volume.file.parent().unwrap()).unwrap().count(),
            1
        );
        // XFS writes zeros over its log of 64 MiB.
        let blocks = std::os::unix::fs::MetadataExt::blocks(&fs::metadata(&volume.file).unwrap());
        assert!(
            blocks * 512 < 96 * MIB,
            "{fs_type:?} takes {blocks} sectors of a sparse volume"
        );
    }
    rig.assert_clean();
}

#[test]
fn row_74_a_blank_volume_with_a_source_is_a_block_device_and_no_more() {
    let Some(rig) = Rig::new() else { return };
    let mut volume = rig.volume("empty", 32 * MIB);
    volume.has_source = true;
    for asked in [None, Some(FsType::Ext4)] {
        let said = refused(
            &rig.mount_request(&volume, asked),
            ErrorKind::FailedPrecondition,
        );
        assert!(said.contains("raw block"), "{said}");
    }
    volume.has_source = false;
    let request = StageRequest {
        read_only: true,
        ..rig.mount_request(&volume, None)
    };
    refused(&request, ErrorKind::FailedPrecondition);
    rig.assert_clean();
}

#[test]
fn row_74_a_blank_file_that_somebody_attached_is_not_formatted() {
    let Some(rig) = Rig::new() else { return };
    let volume = rig.volume("attached", 32 * MIB);
    let device = run("losetup", &["-f", "--show", text(&volume.file)]);
    let said = refused(
        &rig.mount_request(&volume, None),
        ErrorKind::FailedPrecondition,
    );
    assert!(said.contains(device.trim()), "{said}");
    let said = refused(&rig.block_request(&volume), ErrorKind::FailedPrecondition);
    assert!(said.contains(device.trim()), "{said}");
    assert_eq!(rig.loops().len(), 1, "somebody else's device was detached");
    run("losetup", &["-d", device.trim()]);
    rig.assert_clean();
}

#[test]
fn row_74_what_is_too_small_or_missing_is_said_so() {
    let Some(rig) = Rig::new() else { return };
    let mut volume = rig.volume("small", 32 * MIB);
    let error = staging::stage(&rig.mount_request(&volume, Some(FsType::Xfs))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfRange, "{error}");
    let error = staging::stage(&rig.mount_request(&volume, Some(FsType::Squashfs))).unwrap_err();
    assert!(matches!(error, Error::UnsupportedFileSystem(_)), "{error}");
    volume.size = types::ByteSize(64 * MIB);
    let said = refused(&rig.mount_request(&volume, None), ErrorKind::DataLoss);
    assert!(said.contains("bytes"), "{said}");
    fs::remove_file(&volume.file).unwrap();
    for access in [
        Access::Block,
        Access::Mount {
            fs_type: None,
            flags: Vec::new(),
        },
    ] {
        let request = StageRequest {
            access,
            ..rig.mount_request(&volume, None)
        };
        assert_eq!(
            staging::stage(&request).unwrap_err().kind(),
            ErrorKind::NotFound
        );
    }
    rig.assert_clean();
}

#[test]
fn row_79_types_and_flags_outside_the_list_never_reach_the_kernel() {
    let Some(rig) = Rig::new() else { return };
    for bad in [
        "ext4 -o loop",
        "overlay",
        "fuse.sshfs",
        "ext4;reboot",
        "../xfs",
        "",
        "tmpfs",
        "nfs",
    ] {
        assert!(
            bad.parse::<FsType>().is_err(),
            "{bad:?} is a file system type"
        );
    }
    let volume = rig.volume("flags", 32 * MIB);
    for bad in [
        "suid",
        "dev",
        "loop=/dev/loop0",
        "x-systemd.automount",
        ";",
        "errors=panic",
        "noload",
    ] {
        let request = StageRequest {
            access: Access::Mount {
                fs_type: None,
                flags: vec![bad.to_owned()],
            },
            ..rig.mount_request(&volume, None)
        };
        let said = refused(&request, ErrorKind::InvalidArgument);
        assert!(said.contains(bad), "{said}");
    }
    rig.assert_clean();
}
