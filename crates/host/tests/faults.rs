//! Disks that fail or lack features: read errors, large sectors, no direct I/O, read-only.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may print and panic"
)]

mod rig;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use host::FsType;
use host::staging::{self, NodeVolume, StageRequest};
use rig::{MIB, Rig, digest, has_tool, make_image, run, text};
use types::{Classify, ErrorKind};

/// A file that answers reads of one sector with EIO: QEMU's blkdebug behind a FUSE export.
struct FaultyFile {
    daemon: Child,
    path: PathBuf,
}

impl FaultyFile {
    fn new(rig: &Rig, backing: &Path, sector: u64) -> Option<Self> {
        if !has_tool("qemu-storage-daemon") || !Path::new("/dev/fuse").exists() {
            println!("skipped: needs qemu-storage-daemon and FUSE");
            return None;
        }
        let path = rig.path("faulty/volume");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        File::create(&path).unwrap();
        let size = fs::metadata(backing).unwrap().len();
        let daemon = Command::new("qemu-storage-daemon")
            .arg("--blockdev")
            .arg(format!(
                "driver=file,node-name=f0,filename={}",
                text(backing)
            ))
            .arg("--blockdev")
            .arg(format!(
                "driver=blkdebug,node-name=bd,image=f0,inject-error.0.event=none,\
                 inject-error.0.iotype=read,inject-error.0.errno=5,\
                 inject-error.0.sector={sector},inject-error.0.once=off"
            ))
            .arg("--export")
            .arg(format!(
                "type=fuse,id=e0,node-name=bd,mountpoint={},writable=on,growable=off",
                text(&path)
            ))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let faulty = Self { daemon, path };
        let deadline = Instant::now() + Duration::from_mins(5);
        while fs::metadata(&faulty.path).unwrap().len() != size {
            assert!(Instant::now() < deadline, "the export does not appear");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(faulty)
    }
}

impl Drop for FaultyFile {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).output();
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

#[test]
fn row_74_a_disk_that_cannot_be_read_is_never_blank() {
    let Some(rig) = Rig::new() else { return };
    for (number, sector) in [0, 2, 128, 5000].into_iter().enumerate() {
        // All zeros, and written: a hole would not be read at all.
        let backing = rig.path(&format!("zeros{number}"));
        File::create(&backing)
            .unwrap()
            .write_all(&vec![0; 4 << 20])
            .unwrap();
        let Some(faulty) = FaultyFile::new(&rig, &backing, sector) else {
            return;
        };
        let volume = NodeVolume {
            file: faulty.path.clone(),
            ..rig.volume("faulty", 4 * MIB)
        };
        for asked in [None, Some(FsType::Ext4)] {
            let error = staging::stage(&rig.mount_request(&volume, asked)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{sector}: {error}");
        }
        drop(faulty);
        assert!(fs::read(&backing).unwrap().iter().all(|byte| *byte == 0));
        let beside: Vec<_> = fs::read_dir(rig.path("faulty")).unwrap().collect();
        assert_eq!(beside.len(), 1, "{beside:?}");
    }
    rig.assert_clean();
}

/// Stages and checks a blank volume, which gets this file system, on the disk that is mounted at `disk`.
/// Returns whether its I/O is direct.
fn works_on(rig: &Rig, disk: &Path, fs_type: FsType, mkfs_options: &str) -> bool {
    let mut volume = rig.volume_on(disk, "unusual", 320 * MIB);
    let request = StageRequest {
        mkfs_options: mkfs_options.to_owned(),
        ..rig.mount_request(&volume, Some(fs_type))
    };
    let staged = rig.stage(&request);
    File::create(request.staging_path.join("x"))
        .unwrap()
        .write_all(b"x")
        .unwrap();
    rig.unstage(&request);
    volume.has_source = true;
    rig.stage(&request);
    assert_eq!(fs::read(request.staging_path.join("x")).unwrap(), b"x");
    rig.unstage(&request);
    staged.direct_io
}

#[test]
fn a_disk_with_large_sectors_gets_direct_io_where_the_file_system_allows_it() {
    let Some(rig) = Rig::new() else { return };
    let (image, disk) = (rig.path("disk.img"), rig.path("disk"));
    make_image(&image, "ext4", 512 * MIB);
    let options = [
        "-f",
        "--show",
        "--sector-size",
        "4096",
        "--direct-io=on",
        text(&image),
    ];
    let device = run("losetup", &options);
    let device = device.trim();
    run("mkfs.ext4", &["-q", "-F", device]);
    fs::create_dir(&disk).unwrap();
    run("mount", &[device, text(&disk)]);
    for (fs_type, mkfs_options, direct) in [
        (FsType::Ext4, "-b 1024", false),
        (FsType::Ext4, "-b 4096", true),
        (FsType::Xfs, "-s size=512", false),
        (FsType::Xfs, "-s size=4096", true),
        (FsType::Xfs, "", true),
        (FsType::Btrfs, "", true),
    ] {
        let found = works_on(&rig, &disk, fs_type, mkfs_options);
        assert_eq!(found, direct, "{fs_type} {mkfs_options}");
        fs::remove_dir_all(disk.join("volumes")).unwrap();
    }
    run("umount", &[text(&disk)]);
    run("losetup", &["-d", device]);
}

#[test]
fn a_disk_in_memory_works() {
    let Some(rig) = Rig::new() else { return };
    let disk = rig.path("disk");
    fs::create_dir(&disk).unwrap();
    run(
        "mount",
        &["-t", "tmpfs", "-o", "size=400m", "memory", text(&disk)],
    );
    println!("direct I/O: {}", works_on(&rig, &disk, FsType::Ext4, ""));
    run("umount", &[text(&disk)]);
}

#[test]
fn a_disk_that_cannot_be_written_to_serves_readers() {
    let Some(rig) = Rig::new() else { return };
    let disk = rig.path("disk");
    fs::create_dir(&disk).unwrap();
    run(
        "mount",
        &["-t", "tmpfs", "-o", "size=200m", "memory", text(&disk)],
    );
    let image = rig.path("image");
    make_image(&image, "ext4", 32 * MIB);
    let mut volume = rig.volume_on(&disk, "reader", 32 * MIB);
    run("cp", &["--sparse=always", text(&image), text(&volume.file)]);
    volume.has_source = true;
    let before = digest(&volume.file);
    run("mount", &["-o", "remount,ro", text(&disk)]);
    let writer = rig.mount_request(&volume, None);
    assert_eq!(
        staging::stage(&writer).unwrap_err().kind(),
        ErrorKind::FailedPrecondition
    );
    let reader = StageRequest {
        read_only: true,
        ..writer
    };
    rig.stage(&reader);
    assert!(reader.staging_path.join("lost+found").exists());
    rig.unstage(&reader);
    assert_eq!(digest(&volume.file), before);
    run("umount", &[text(&disk)]);
    rig.assert_clean();
}
