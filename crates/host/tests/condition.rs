//! The condition of a volume (142), and when it counts as grown (145, 148).

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may print and panic"
)]

mod rig;

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use host::staging::{self, NodeVolume, StageRequest};
use rig::{MIB, Rig, has_tool, make_image, run, size_of, text};
use types::{ByteSize, Classify, ErrorKind};

/// The condition of a volume: what is wrong, or nothing.
fn trouble(request: &StageRequest) -> Option<String> {
    let stats = staging::stats(&request.volume.name, &request.staging_path).unwrap();
    stats.condition.abnormal.then_some(stats.condition.message)
}

#[track_caller]
fn assert_says(request: &StageRequest, words: &[&str]) {
    let said = trouble(request).expect("the volume is not well");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
}

/// Lets the kernel find an error in the mounted ext4 on `device`, by its own switch.
fn make_error(device: &Path) -> bool {
    let name = device.file_name().unwrap().to_str().unwrap();
    let switch = format!("/sys/fs/ext4/{name}/trigger_fs_error");
    let made = File::options().write(true).open(&switch);
    let is_made = made.and_then(|mut file| file.write_all(b"1")).is_ok();
    if !is_made {
        println!("skipped: needs {switch}");
    }
    is_made
}

#[test]
fn row_142_an_ext4_that_went_read_only_is_not_well() {
    let Some(rig) = Rig::new() else { return };
    let volume = rig.volume("aborted", 64 * MIB);
    let request = rig.mount_request(&volume, None);
    let staged = rig.stage(&request);
    assert_eq!(trouble(&request), None);
    let target = rig.target("pod");
    staging::publish(&rig.publish_request(&request, &target)).unwrap();
    if !make_error(&staged.device) {
        return;
    }
    assert!(File::create(request.staging_path.join("x")).is_err());
    assert_says(&request, &["went read-only after an error", "1 errors"]);
    let stats = staging::stats(&volume.name, &target).unwrap();
    assert!(stats.condition.abnormal && stats.usage.is_some());
    staging::unpublish(&volume.name, &target).unwrap();
    rig.unstage(&request);
    // The next stage checks it, and then it is well.
    rig.stage(&request);
    assert_eq!(trouble(&request), None);
    rig.unstage(&request);
    rig.assert_clean();
}

#[test]
fn row_142_errors_that_btrfs_counts_are_told() {
    let Some(rig) = Rig::new() else { return };
    let volume = rig.volume("rotten", 256 * MIB);
    let request = rig.mount_request(&volume, Some(host::FsType::Btrfs));
    rig.stage(&request);
    let pattern = b"a pattern that stands nowhere else".repeat(4096);
    let path = request.staging_path.join("data");
    let mut file = File::create(&path).unwrap();
    file.write_all(&pattern).unwrap();
    file.sync_all().unwrap();
    drop(file);
    rig.unstage(&request);
    let content = fs::read(&volume.file).unwrap();
    let at = content
        .windows(64)
        .position(|window| *window == pattern[..64]);
    rig::patch(
        &volume.file,
        b"ROT",
        at.expect("the data lie in the volume") as u64,
    );
    rig.stage(&request);
    assert_eq!(trouble(&request), None);
    let read = File::open(&path).unwrap().read_to_end(&mut Vec::new());
    assert_eq!(read.unwrap_err().raw_os_error(), Some(libc::EIO));
    assert_says(&request, &["blocks were corrupt", "scrub"]);
    rig.unstage(&request);
    rig.assert_clean();
}

#[test]
fn row_142_a_file_that_is_cut_or_deleted_in_use_is_told() {
    let Some(rig) = Rig::new() else { return };
    for block in [false, true] {
        let volume = rig.volume("cut", 64 * MIB);
        let request = if block {
            rig.block_request(&volume)
        } else {
            rig.mount_request(&volume, None)
        };
        rig.stage(&request);
        assert_eq!(trouble(&request), None);
        let file = File::options().write(true).open(&volume.file).unwrap();
        file.set_len(48 * MIB).unwrap();
        assert_says(&request, &["truncated to 50331648 bytes"]);
        file.set_len(64 * MIB).unwrap();
        assert_eq!(trouble(&request), None);
        fs::remove_file(&volume.file).unwrap();
        assert_says(&request, &["deleted"]);
        rig.unstage(&request);
    }
    rig.assert_clean();
}

/// A disk of 256 MiB in a file.
fn small_disk(rig: &Rig, fs_type: &str) -> std::path::PathBuf {
    let (image, disk) = (rig.path("disk.img"), rig.path("disk"));
    make_image(&image, fs_type, 320 * MIB);
    fs::create_dir_all(&disk).unwrap();
    run("mount", &["-o", "loop", text(&image), text(&disk)]);
    disk
}

#[test]
fn row_142_a_disk_that_is_nearly_full_makes_its_volumes_abnormal() {
    let Some(rig) = Rig::new() else { return };
    for fs_type in ["ext4", "xfs"] {
        let disk = small_disk(&rig, fs_type);
        let volumes: [NodeVolume; 2] =
            ["file", "block"].map(|name| rig.volume_on(&disk, name, 300 * MIB));
        let requests = [
            rig.mount_request(&volumes[0], None),
            rig.block_request(&volumes[1]),
        ];
        for request in &requests {
            rig.stage(request);
            assert_eq!(trouble(request), None, "{fs_type}");
        }
        fill(&disk);
        for request in &requests {
            assert_says(request, &["the disk below the volume is nearly full"]);
        }
        fs::remove_file(disk.join("filler")).unwrap();
        run("sync", &["-f", text(&disk)]);
        for request in &requests {
            assert_eq!(trouble(request), None, "{fs_type}");
            rig.unstage(request);
        }
        run("umount", &[text(&disk)]);
    }
    rig.assert_clean();
}

/// Leaves about 2 MiB of a disk.
fn fill(disk: &Path) {
    let stat = rustix::fs::statvfs(disk).unwrap();
    let free = stat.f_bavail * stat.f_frsize;
    let filler = File::create(disk.join("filler")).unwrap();
    let length = free.saturating_sub(2 * MIB);
    rustix::fs::fallocate(&filler, rustix::fs::FallocateFlags::empty(), 0, length).unwrap();
    // btrfs counts with the next transaction.
    run("sync", &["-f", text(disk)]);
}

#[test]
fn row_142_a_disk_is_looked_at_also_when_its_path_is_not_the_one_of_the_stage() {
    let Some(rig) = Rig::new() else { return };
    let fs_types = [("ext4", true), ("btrfs", has_tool("mkfs.btrfs"))];
    for (fs_type, _) in fs_types.into_iter().filter(|(_, is_there)| *is_there) {
        let disk = small_disk(&rig, fs_type);
        // As the disk of a container that is gone.
        let before = rig.path("before");
        fs::create_dir_all(&before).unwrap();
        run("mount", &["--bind", text(&disk), text(&before)]);
        let volume = rig.volume_on(&before, "moved", 300 * MIB);
        let request = rig.block_request(&volume);
        rig.stage(&request);
        run("umount", &["-l", text(&before)]);
        assert_eq!(trouble(&request), None, "{fs_type}");
        fill(&disk);
        assert_says(&request, &["the disk below the volume is nearly full"]);
        rig.unstage(&request);
        run("umount", &[text(&disk)]);
    }
    rig.assert_clean();
}

#[test]
fn row_142_a_disk_that_went_read_only_below_its_volumes_is_told() {
    let Some(rig) = Rig::new() else { return };
    let disk = small_disk(&rig, "ext4");
    let volume = rig.volume_on(&disk, "below", 64 * MIB);
    let request = rig.block_request(&volume);
    rig.stage(&request);
    let source = run("findmnt", &["-no", "SOURCE", text(&disk)]);
    run("mount", &["-o", "remount,errors=remount-ro", text(&disk)]);
    if make_error(Path::new(source.trim())) {
        assert_says(&request, &["the disk below the volume"]);
    }
    rig.unstage(&request);
}

#[test]
fn row_145_a_volume_grows_by_a_read_only_target_or_says_that_it_does_not() {
    let Some(rig) = Rig::new() else { return };
    for fs_type in ["ext4", "xfs"] {
        let mut volume = rig.volume(fs_type, 320 * MIB);
        let request = rig.mount_request(&volume, Some(fs_type.parse().unwrap()));
        rig.stage(&request);
        let target = rig.target("reader");
        let publish = staging::PublishRequest {
            read_only: true,
            ..rig.publish_request(&request, &target)
        };
        staging::publish(&publish).unwrap();
        let grow = |size: u64| {
            let file = File::options().write(true).open(&volume.file).unwrap();
            file.set_len(size).unwrap();
            staging::expand(&volume.name, &target)
        };
        if fs_type == "xfs" || rig::has_sys_resource() {
            assert_eq!(grow(640 * MIB).unwrap(), ByteSize(640 * MIB), "{fs_type}");
            assert!(size_of(&target) > 500 * MIB, "{fs_type} was not grown");
        } else {
            assert_eq!(
                grow(640 * MIB).unwrap_err().kind(),
                ErrorKind::FailedPrecondition
            );
        }
        staging::unpublish(&volume.name, &target).unwrap();
        rig.unstage(&request);
        // Nobody may write to it: nothing grows, and that is no success.
        volume.size = ByteSize(640 * MIB);
        volume.has_source = true;
        let reader = StageRequest {
            read_only: true,
            ..rig.mount_request(&volume, None)
        };
        rig.stage(&reader);
        staging::publish(&publish).unwrap();
        let file = File::options().write(true).open(&volume.file).unwrap();
        file.set_len(900 * MIB).unwrap();
        for path in [&target, &reader.staging_path] {
            let error = staging::expand(&volume.name, path).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{error}");
            assert!(
                error
                    .to_string()
                    .contains("cannot grow while it is mounted"),
                "{error}"
            );
        }
        staging::unpublish(&volume.name, &target).unwrap();
        rig.unstage(&reader);
    }
    rig.assert_clean();
}

#[test]
fn row_148_a_file_system_that_does_not_grow_is_mounted_and_said() {
    let Some(rig) = Rig::new() else { return };
    let tib = 1 << 40;
    for (fs_type, options, image_size, volume_size) in [
        // The kernel resizes no btrfs to less than 256 MiB.
        ("btrfs", &[][..], 120 * MIB, 200 * MIB),
        // Neither the kernel nor resize2fs has room for so many groups of 8 MiB.
        ("ext4", &["-b", "1024"], 64 * MIB, tib),
    ] {
        if !has_tool(&format!("mkfs.{fs_type}")) {
            continue;
        }
        let image = rig.path("image");
        File::create(&image).unwrap().set_len(image_size).unwrap();
        run(
            &format!("mkfs.{fs_type}"),
            &[&["-q"], options, &[text(&image)]].concat(),
        );
        let volume = rig.clone_of(&image, fs_type, volume_size);
        let request = rig.mount_request(&volume, None);
        for _ in 0..2 {
            rig.stage(&request);
            let present = size_of(&request.staging_path);
            if present > volume_size / 2 {
                println!("skipped in part: this kernel grows {fs_type} so far");
            } else {
                File::create(request.staging_path.join("x"))
                    .unwrap()
                    .write_all_at(b"x", 0)
                    .unwrap();
                assert_says(&request, &["smaller than the volume", "could not be grown"]);
            }
            // The same call again, and a call after all is taken away, find the same.
            rig.stage(&request);
            rig.unstage(&request);
        }
    }
    rig.assert_clean();
}
