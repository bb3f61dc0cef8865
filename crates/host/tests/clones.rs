//! Several volumes of one image: same UUIDs (91), dirty journals (92), discarded blocks (93).

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may print and panic"
)]

mod rig;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use host::staging::{self, Access, NodeVolume, StageRequest};
use rig::{MIB, ReflinkDisk, Rig, digest, make_image, run, text};
use types::{Classify, ErrorKind};

/// A volume on the reflink disk that shares every block with `image`.
fn reflink(rig: &Rig, disk: &Path, image: &Path, name: &str, size: u64) -> NodeVolume {
    let mut volume = rig.volume_on(disk, name, 0);
    run("cp", &["--reflink=always", text(image), text(&volume.file)]);
    File::options()
        .write(true)
        .open(&volume.file)
        .unwrap()
        .set_len(size)
        .unwrap();
    volume.size = types::ByteSize(size);
    volume.has_source = true;
    volume
}

#[test]
fn row_91_two_clones_of_one_image_are_mounted_side_by_side() {
    let Some(rig) = Rig::new() else { return };
    let Some(disk) = ReflinkDisk::new(&rig) else {
        return;
    };
    let device_count = rig::loops_below(&disk.point).len();
    for (name, size) in [("ext4", 32), ("xfs", 300), ("btrfs", 128)] {
        let image = disk.point.join(format!("{name}.img"));
        make_image(&image, name, size * MIB);
        let before = digest(&image);
        let requests: Vec<StageRequest> = ["a", "b"]
            .map(|letter| {
                let name = format!("{name}-{letter}");
                let volume = reflink(&rig, &disk.point, &image, &name, size * MIB);
                rig.mount_request(&volume, None)
            })
            .into();
        rig.stage(&requests[0]);
        match staging::stage(&requests[1]) {
            Ok(_) => {}
            // Before Linux 6.7 the kernel cannot, and the error says so.
            Err(error) if name == "btrfs" => {
                assert!(error.to_string().contains("6.7"), "{error}");
                assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
                rig.unstage(&requests[0]);
                continue;
            }
            Err(error) => panic!("{name}: {}", types::report(&error)),
        }
        for (request, letter) in requests.iter().zip(["a", "b"]) {
            let mut file = File::create(request.staging_path.join("who")).unwrap();
            file.write_all(letter.as_bytes()).unwrap();
            file.sync_all().unwrap();
        }
        for (request, letter) in requests.iter().zip(["a", "b"]) {
            let who = fs::read_to_string(request.staging_path.join("who")).unwrap();
            assert_eq!(who, letter, "{name}: the clones are not apart");
            rig.unstage(request);
        }
        assert_eq!(digest(&image), before, "{name}: the image was written to");
    }
    assert_eq!(rig::loops_below(&disk.point).len(), device_count);
}

/// An image whose journal was not replayed: written to, synced to the journal, and copied while it
/// was mounted.
fn dirty_image(rig: &Rig, name: &str, size: u64) -> PathBuf {
    let image = rig.path(&format!("{name}.img"));
    let live = rig.path(&format!("{name}.live"));
    make_image(&live, name, size);
    let point = rig.path(&format!("{name}.mnt"));
    fs::create_dir(&point).unwrap();
    run("mount", &["-o", "loop", text(&live), text(&point)]);
    let mut file = File::create(point.join("journaled")).unwrap();
    file.write_all(b"only in the journal").unwrap();
    file.sync_all().unwrap();
    drop(file);
    // As a power cut leaves it: the journal is written, what it describes is not.
    run("cp", &["--sparse=always", text(&live), text(&image)]);
    run("umount", &[text(&point)]);
    image
}

#[test]
fn row_92_a_dirty_journal_is_replayed_into_the_clone_and_never_into_the_image() {
    let Some(rig) = Rig::new() else { return };
    for (name, size) in [("ext4", 32 * MIB), ("xfs", 320 * MIB)] {
        let image = dirty_image(&rig, name, size);
        let before = digest(&image);
        let volume = rig.clone_of(&image, &format!("{name}-rw"), size);
        let writer = rig.mount_request(&volume, None);
        rig.stage(&writer);
        assert!(writer.staging_path.join("journaled").exists(), "{name}");
        rig.unstage(&writer);

        // A reader's journal is replayed as well, into its own clone.
        let volume = rig.clone_of(&image, &format!("{name}-ro"), size);
        let reader = StageRequest {
            read_only: true,
            ..rig.mount_request(&volume, None)
        };
        rig.stage(&reader);
        assert!(reader.staging_path.join("journaled").exists(), "{name}");
        let refused = File::create(reader.staging_path.join("x")).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EROFS));
        rig.unstage(&reader);

        // Unless it is to be left alone: then not a byte of the volume changes.
        let volume = rig.clone_of(&image, &format!("{name}-skip"), size);
        let skip = StageRequest {
            access: Access::Mount {
                fs_type: None,
                flags: vec!["norecovery".to_owned()],
            },
            read_only: true,
            ..rig.mount_request(&volume, None)
        };
        rig.stage(&skip);
        // Which also proves that the journal was dirty.
        assert!(!skip.staging_path.join("journaled").exists(), "{name}");
        rig.unstage(&skip);
        assert_eq!(
            digest(&volume.file),
            before,
            "{name}: norecovery wrote to the volume"
        );
        assert_eq!(digest(&image), before, "{name}: the image was written to");
    }
    rig.assert_clean();
}

#[test]
fn row_93_discarded_blocks_of_a_clone_read_as_zeros_and_their_space_returns() {
    let Some(rig) = Rig::new() else { return };
    let Some(disk) = ReflinkDisk::new(&rig) else {
        return;
    };
    let (size, length) = (256 * MIB, 64 * MIB);
    let image = disk.point.join("base.img");
    make_image(&image, "ext4", size);
    let loader = reflink(&rig, &disk.point, &image, "loader", size);
    let request = rig.mount_request(&loader, None);
    rig.stage(&request);
    let noise: Vec<u8> = (0..length).map(|at| (at % 251) as u8 | 1).collect();
    File::create(request.staging_path.join("base-data"))
        .unwrap()
        .write_all(&noise)
        .unwrap();
    rig.unstage(&request);
    fs::rename(&loader.file, &image).unwrap();
    let before = digest(&image);

    let clone = reflink(&rig, &disk.point, &image, "clone", size);
    let request = rig.mount_request(&clone, None);
    rig.stage(&request);
    let start = disk.used();
    let data = request.staging_path.join("base-data");
    let file = File::options().write(true).open(&data).unwrap();
    // The clone gets blocks of its own …
    file.write_all_at(&noise.iter().map(|byte| byte ^ 0x80).collect::<Vec<_>>(), 0)
        .unwrap();
    file.sync_all().unwrap();
    let written = disk.used();
    assert!(written >= start + length / 2, "{start} → {written}");
    // … gives half of them back by a hole, and the rest by deleting the file and trimming.
    let flags = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&file, flags, 0, length / 2).unwrap();
    file.sync_all().unwrap();
    let mut hole = vec![1; 4096];
    File::open(&data)
        .unwrap()
        .read_exact_at(&mut hole, 4096)
        .unwrap();
    assert!(hole.iter().all(|byte| *byte == 0), "a hole shows old data");
    drop(file);
    fs::remove_file(&data).unwrap();
    run("sync", &["-f", text(&request.staging_path)]);
    run("fstrim", &[text(&request.staging_path)]);
    let trimmed = disk.used();
    assert!(
        trimmed <= start + length / 8,
        "{start} → {written} → {trimmed}: no space returned"
    );
    rig.unstage(&request);

    // On the raw device too: a discarded range is zeros, and not what the image holds there.
    let raw = reflink(&rig, &disk.point, &image, "raw", size);
    let request = rig.block_request(&raw);
    let staged = rig.stage(&request);
    let full = File::open(&staged.device).unwrap();
    let mut block = vec![0; 1 << 20];
    let at = (0..size).step_by(1 << 20).find(|at| {
        full.read_exact_at(&mut block, *at).unwrap();
        block.iter().all(|byte| *byte != 0)
    });
    let at = at.expect("the image holds data");
    drop(full);
    let range = [at.to_string(), (1u64 << 20).to_string()];
    run(
        "blkdiscard",
        &["-o", &range[0], "-l", &range[1], text(&staged.device)],
    );
    File::open(&staged.device)
        .unwrap()
        .read_exact_at(&mut block, at)
        .unwrap();
    assert!(
        block.iter().all(|byte| *byte == 0),
        "a discarded block shows old data"
    );
    rig.unstage(&request);
    assert_eq!(digest(&image), before, "the image was written to");
}
