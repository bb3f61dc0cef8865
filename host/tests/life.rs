//! The life of a volume: repeats, other ways, bad targets, dead mounts, growth, stats.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may print and panic"
)]

mod rig;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use host::staging::{self, Access, PublishRequest, StageRequest, Usage};
use host::{FsType, mountinfo};
use rig::{MIB, Rig, digest, has_tool, make_image, run, size_of, text};
use types::{Classify, ErrorKind};

fn kind_of<T: std::fmt::Debug>(result: host::Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

#[test]
fn every_call_can_be_repeated() {
    let Some(rig) = Rig::new() else { return };
    for access in [
        Access::Mount {
            fs_type: None,
            flags: Vec::new(),
        },
        Access::Block,
    ] {
        let volume = rig.volume("repeat", 32 * MIB);
        let staged = StageRequest {
            access,
            ..rig.mount_request(&volume, None)
        };
        let published = rig.publish_request(&staged, &rig.target("pod"));
        let first = rig.stage(&staged);
        assert!(
            first.direct_io,
            "a plain file on this disk can do direct I/O"
        );
        assert_eq!(rig.stage(&staged), first);
        let left = rig.left();
        for _ in 0..3 {
            staging::publish(&published).unwrap();
            rig.stage(&staged);
        }
        assert_eq!(
            rig.left(),
            (left.0 + 1, left.1),
            "a repeat mounted or attached again"
        );
        for _ in 0..3 {
            staging::unpublish(&volume.name, &published.target_path).unwrap();
        }
        assert!(!published.target_path.exists());
        assert_eq!(rig.left(), left);
        for _ in 0..3 {
            rig.unstage(&staged);
        }
        rig.assert_clean();
        assert_eq!(
            kind_of(staging::publish(&published)),
            ErrorKind::FailedPrecondition
        );
        rig.assert_clean();
    }
}

#[test]
fn calls_on_unknown_volumes_and_paths_are_success_or_the_right_error() {
    let Some(rig) = Rig::new() else { return };
    let volume = rig.volume("unknown", 32 * MIB);
    let name = &volume.name;
    for path in [rig.path("no/such/dir"), rig.path("nothing")] {
        staging::unstage(name, &path).unwrap();
        staging::unpublish(name, &path).unwrap();
        assert_eq!(kind_of(staging::stats(name, &path)), ErrorKind::NotFound);
        assert_eq!(kind_of(staging::expand(name, &path)), ErrorKind::NotFound);
    }
    assert_eq!(
        kind_of(staging::stats(name, Path::new("relative"))),
        ErrorKind::NotFound
    );
    for path in ["relative", "/a/../b", "/"] {
        assert_eq!(
            kind_of(staging::unstage(name, Path::new(path))),
            ErrorKind::InvalidArgument
        );
        assert_eq!(
            kind_of(staging::unpublish(name, Path::new(path))),
            ErrorKind::InvalidArgument
        );
    }
    rig.assert_clean();
}

#[test]
fn the_same_volume_in_another_way_is_refused() {
    let Some(rig) = Rig::new() else { return };
    let volume = rig.volume("way", 32 * MIB);
    let staged = rig.mount_request(&volume, None);
    rig.stage(&staged);
    let others = [
        rig.block_request(&volume),
        rig.mount_request(&volume, Some(FsType::Xfs)),
        StageRequest {
            read_only: true,
            ..staged.clone()
        },
        StageRequest {
            access: Access::Mount {
                fs_type: None,
                flags: vec!["noatime".into()],
            },
            ..staged.clone()
        },
        StageRequest {
            staging_path: rig.target("elsewhere"),
            ..staged.clone()
        },
    ];
    for other in others {
        let result = staging::stage(&other);
        assert_eq!(kind_of(result), ErrorKind::AlreadyExists, "{other:?}");
    }
    rig.stage(&rig.mount_request(&volume, Some(FsType::Ext4)));
    let published = rig.publish_request(&staged, &rig.target("pod"));
    staging::publish(&published).unwrap();
    let read_only = PublishRequest {
        read_only: true,
        ..published.clone()
    };
    assert_eq!(
        kind_of(staging::publish(&read_only)),
        ErrorKind::AlreadyExists
    );
    let block = PublishRequest {
        access: Access::Block,
        ..published.clone()
    };
    assert_eq!(kind_of(staging::publish(&block)), ErrorKind::AlreadyExists);
    // While it is published it cannot be unstaged, and nothing is harmed by trying.
    let in_use = staging::unstage(&volume.name, &staged.staging_path).unwrap_err();
    assert_eq!(in_use.kind(), ErrorKind::FailedPrecondition);
    assert!(
        in_use.to_string().contains(text(&published.target_path)),
        "{in_use}"
    );
    staging::publish(&published).unwrap();
    staging::unpublish(&volume.name, &published.target_path).unwrap();
    rig.unstage(&staged);
    let block = rig.block_request(&volume);
    rig.stage(&block);
    assert_eq!(kind_of(staging::stage(&staged)), ErrorKind::AlreadyExists);
    let other = StageRequest {
        read_only: true,
        ..block.clone()
    };
    assert_eq!(kind_of(staging::stage(&other)), ErrorKind::AlreadyExists);
    rig.unstage(&block);
    rig.assert_clean();
}

#[test]
fn a_single_writer_has_one_target() {
    let Some(rig) = Rig::new() else { return };
    for access in [
        Access::Mount {
            fs_type: None,
            flags: Vec::new(),
        },
        Access::Block,
    ] {
        let volume = rig.volume("single", 32 * MIB);
        let staged = StageRequest {
            access,
            ..rig.mount_request(&volume, None)
        };
        rig.stage(&staged);
        let first = PublishRequest {
            single_writer: true,
            ..rig.publish_request(&staged, &rig.target("first"))
        };
        let second = PublishRequest {
            target_path: rig.target("second"),
            ..first.clone()
        };
        staging::publish(&first).unwrap();
        staging::publish(&first).unwrap();
        let refused = staging::publish(&second).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::FailedPrecondition);
        assert!(
            refused.to_string().contains(text(&first.target_path)),
            "{refused}"
        );
        assert!(!second.target_path.exists());
        let many = PublishRequest {
            single_writer: false,
            ..second.clone()
        };
        staging::publish(&many).unwrap();
        for target in [&first.target_path, &second.target_path] {
            staging::unpublish(&volume.name, target).unwrap();
        }
        rig.unstage(&staged);
    }
    rig.assert_clean();
}

#[test]
fn what_is_published_read_only_cannot_be_written_to() {
    let Some(rig) = Rig::new() else { return };
    let volume = rig.volume("readonly", 32 * MIB);
    let staged = rig.mount_request(&volume, None);
    rig.stage(&staged);
    let target = rig.target("pod");
    let read_only = PublishRequest {
        read_only: true,
        ..rig.publish_request(&staged, &target)
    };
    staging::publish(&read_only).unwrap();
    staging::publish(&read_only).unwrap();
    let error = File::create(target.join("x")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EROFS));
    File::create(staged.staging_path.join("x")).unwrap();
    let mounts = mountinfo::read().unwrap();
    let options = &mountinfo::at(&mounts, &target).unwrap().options;
    assert!(
        options.contains("nosuid") && options.contains("nodev"),
        "{options}"
    );
    staging::unpublish(&volume.name, &target).unwrap();
    rig.unstage(&staged);

    // A device that is shared for writing cannot be read-only for one of its users.
    let staged = rig.block_request(&volume);
    rig.stage(&staged);
    let published = PublishRequest {
        read_only: true,
        ..rig.publish_request(&staged, &target)
    };
    assert_eq!(
        kind_of(staging::publish(&published)),
        ErrorKind::FailedPrecondition
    );
    rig.unstage(&staged);
    let staged = StageRequest {
        read_only: true,
        ..staged
    };
    rig.stage(&staged);
    staging::publish(&published).unwrap();
    let device = File::options().write(true).open(&target);
    assert!(
        device
            .and_then(|mut device| device.write_all(&[1; 512]))
            .is_err()
    );
    staging::unpublish(&volume.name, &target).unwrap();
    rig.unstage(&staged);
    rig.assert_clean();
}

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
fn row_77_targets_that_are_no_empty_place_are_refused() {
    let Some(rig) = Rig::new() else { return };
    let volume = rig.volume("targets", 32 * MIB);
    let staged = rig.mount_request(&volume, None);
    rig.stage(&staged);
    let link = rig.target("link");
    std::os::unix::fs::symlink("/etc", &link).unwrap();
    let file = rig.target("file");
    File::create(&file).unwrap();
    let full = rig.target("full");
    fs::create_dir(&full).unwrap();
    File::create(full.join("precious")).unwrap();
    let missing = rig.path("no-such-pod/mount");
    for (target, kind) in [
        (&link, ErrorKind::FailedPrecondition),
        (&file, ErrorKind::FailedPrecondition),
        (&full, ErrorKind::FailedPrecondition),
        (&missing, ErrorKind::NotFound),
    ] {
        let left = rig.left();
        assert_eq!(
            kind_of(staging::publish(&rig.publish_request(&staged, target))),
            kind
        );
        assert_eq!(rig.left(), left);
    }
    // Nothing of it is removed either.
    for target in [&link, &full] {
        assert!(staging::unpublish(&volume.name, target).is_err());
    }
    assert!(link.symlink_metadata().unwrap().is_symlink() && full.join("precious").exists());
    // A target that kubelet made already is taken; one removed by hand is made again.
    let empty = rig.target("empty");
    fs::create_dir(&empty).unwrap();
    staging::publish(&rig.publish_request(&staged, &empty)).unwrap();
    run("umount", &[text(&empty)]);
    fs::remove_dir(&empty).unwrap();
    staging::publish(&rig.publish_request(&staged, &empty)).unwrap();
    assert!(empty.join("lost+found").exists());
    staging::unpublish(&volume.name, &empty).unwrap();
    // A link at the staging path is refused as well.
    let other = rig.volume("linked", 32 * MIB);
    let request = rig.mount_request(&other, None);
    std::os::unix::fs::symlink(rig.dir(), &request.staging_path).unwrap();
    assert_eq!(
        kind_of(staging::stage(&request)),
        ErrorKind::FailedPrecondition
    );
    fs::remove_file(&request.staging_path).unwrap();
    rig.unstage(&staged);
    rig.assert_clean();
}

#[test]
fn row_77_foreign_mounts_are_named_and_left_alone() {
    let Some(rig) = Rig::new() else { return };
    let volume = rig.volume("foreign", 32 * MIB);
    let staged = rig.mount_request(&volume, None);
    fs::create_dir(&staged.staging_path).unwrap();
    run(
        "mount",
        &["-t", "tmpfs", "stranger", text(&staged.staging_path)],
    );
    for result in [
        staging::stage(&staged).map(drop),
        staging::unstage(&volume.name, &staged.staging_path),
        staging::unpublish(&volume.name, &staged.staging_path),
    ] {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
        assert!(error.to_string().contains("stranger"), "{error}");
    }
    assert_eq!(rig.left(), (1, 0));
    run("umount", &[text(&staged.staging_path)]);
    rig.assert_clean();
    rig.stage(&staged);
    let target = rig.target("pod");
    fs::create_dir(&target).unwrap();
    run("mount", &["-t", "tmpfs", "stranger", text(&target)]);
    let result = staging::publish(&rig.publish_request(&staged, &target));
    assert!(result.unwrap_err().to_string().contains("stranger"));
    run("umount", &[text(&target)]);
    rig.unstage(&staged);
    rig.assert_clean();
}

#[test]
fn row_77_a_dead_mount_of_ours_is_taken_away_and_made_anew() {
    let Some(rig) = Rig::new() else { return };
    if !has_tool("xfs_io") {
        return;
    }
    let volume = rig.volume("dead", 320 * MIB);
    let staged = rig.mount_request(&volume, Some(FsType::Xfs));
    let target = rig.target("pod");
    let published = rig.publish_request(&staged, &target);
    rig.stage(&staged);
    File::create(staged.staging_path.join("kept"))
        .unwrap()
        .sync_all()
        .unwrap();
    staging::publish(&published).unwrap();
    run(
        "xfs_io",
        &["-x", "-c", "shutdown -f", text(&staged.staging_path)],
    );
    let stats = staging::stats(&volume.name, &target).unwrap();
    assert!(stats.condition.abnormal, "{stats:?}");
    // The target still holds the dead file system: its late writes could meet those of a new mount.
    assert_eq!(
        kind_of(staging::stage(&staged)),
        ErrorKind::FailedPrecondition
    );
    staging::unpublish(&volume.name, &target).unwrap();
    rig.stage(&staged);
    staging::publish(&published).unwrap();
    assert!(target.join("kept").exists());
    File::create(target.join("writable")).unwrap();
    staging::unpublish(&volume.name, &target).unwrap();
    rig.unstage(&staged);
    rig.assert_clean();
}

#[test]
fn a_lost_record_and_a_lost_mount_are_found_again() {
    let Some(rig) = Rig::new() else { return };
    let volume = rig.volume("lost", 32 * MIB);
    let staged = rig.mount_request(&volume, None);
    let record = staged
        .staging_path
        .with_file_name(format!("{}.longhorn.json", volume.name));
    let target = rig.target("pod");
    // The record is gone: everything still works, and unstage leaves nothing.
    rig.stage(&staged);
    fs::remove_file(&record).unwrap();
    staging::publish(&rig.publish_request(&staged, &target)).unwrap();
    fs::remove_file(&record).unwrap();
    staging::unpublish(&volume.name, &target).unwrap();
    rig.unstage(&staged);
    rig.assert_clean();
    let block = rig.block_request(&volume);
    rig.stage(&block);
    fs::remove_file(&record).unwrap();
    rig.unstage(&block);
    rig.assert_clean();
    // The staging mount was taken away by hand while a pod runs: the same device is mounted again.
    rig.stage(&staged);
    staging::publish(&rig.publish_request(&staged, &target)).unwrap();
    run("umount", &[text(&staged.staging_path)]);
    rig.stage(&staged);
    assert_eq!(rig.left(), (2, 1));
    File::create(target.join("x")).unwrap();
    assert!(staged.staging_path.join("x").exists());
    staging::unpublish(&volume.name, &target).unwrap();
    rig.unstage(&staged);
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
fn a_volume_that_is_worked_on_is_busy() {
    let Some(rig) = Rig::new() else { return };
    let volume = rig.volume("busy", 64 * MIB);
    let staged = rig.mount_request(&volume, None);
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| staging::stage(&staged)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert!(results.iter().any(Result::is_ok));
    for error in results.into_iter().filter_map(Result::err) {
        assert_eq!(error.kind(), ErrorKind::Aborted, "{error}");
    }
    assert_eq!(rig.left(), (1, 1));
    rig.unstage(&staged);
    rig.assert_clean();
}

#[test]
fn a_file_deleted_in_use_is_told() {
    let Some(rig) = Rig::new() else { return };
    let volume = rig.volume("deleted", 32 * MIB);
    let staged = rig.mount_request(&volume, None);
    rig.stage(&staged);
    fs::remove_file(&volume.file).unwrap();
    let stats = staging::stats(&volume.name, &staged.staging_path).unwrap();
    assert!(stats.condition.abnormal && stats.condition.message.contains("deleted"));
    assert_eq!(
        staging::volume_at(&staged.staging_path).unwrap(),
        Some(volume.name.clone())
    );
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
fn a_start_tells_what_earlier_processes_staged() {
    use staging::SurvivorState::{Interrupted, Staged};

    let Some(rig) = Rig::new() else { return };
    let plugins = rig.path("plugins");
    assert_eq!(staging::survey(&plugins).unwrap(), []);
    let (mounted, block) = (rig.volume("mounted", 32 * MIB), rig.volume("block", MIB));
    let (mounted, block) = (rig.mount_request(&mounted, None), rig.block_request(&block));
    rig.stage(&mounted);
    rig.stage(&block);
    File::create(plugins.join("empty.longhorn.json")).unwrap();
    let survey = || {
        let mut survivors = staging::survey(&plugins).unwrap();
        survivors.sort_by(|a, b| a.volume.cmp(&b.volume));
        survivors
            .into_iter()
            .map(|s| (s.staging_path, s.state))
            .collect::<Vec<_>>()
    };
    let (at_block, at_mounted) = (block.staging_path.clone(), mounted.staging_path.clone());
    assert_eq!(
        survey(),
        [(at_block.clone(), Staged), (at_mounted.clone(), Staged)]
    );
    assert!(!plugins.join("empty.longhorn.json").exists());
    // As after a reboot.
    run("umount", &[text(&at_mounted)]);
    for device in rig.loops() {
        run("losetup", &["-d", text(&device)]);
    }
    assert_eq!(
        survey(),
        [(at_block, Interrupted), (at_mounted, Interrupted)]
    );
    rig.unstage(&mounted);
    rig.unstage(&block);
    rig.assert_clean();
}
