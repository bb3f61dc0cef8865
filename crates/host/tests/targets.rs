//! Targets of volumes: one or many, read-only, invalid, dead mounts.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may print and panic"
)]

mod rig;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use host::staging::{self, Access, PublishRequest, StageRequest};
use host::{FsType, mountinfo};
use rig::{MIB, Rig, has_tool, run, text};
use types::{Classify, ErrorKind};

fn kind_of<T: std::fmt::Debug>(result: host::Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
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

    rig.assert_clean();
}

/// A device is the same at all of its targets: read-only when the first one is, until the last one went.
#[test]
fn a_block_device_is_read_only_for_all_or_for_none() {
    let Some(rig) = Rig::new() else { return };
    let volume = rig.volume("block", 16 * MIB);
    let staged = rig.block_request(&volume);
    let (first, second) = (rig.target("first"), rig.target("second"));
    let request = |target: &Path, read_only| PublishRequest {
        read_only,
        single_writer: false,
        ..rig.publish_request(&staged, target)
    };
    let writes = |target: &Path| {
        let device = File::options().write(true).open(target);
        device.and_then(|device| {
            device.write_all_at(&[1; 512], 0)?;
            device.sync_data()
        })
    };
    rig.stage(&staged);
    for (there, other) in [(true, false), (false, true)] {
        staging::publish(&request(&first, there)).unwrap();
        staging::publish(&request(&first, there)).unwrap();
        assert_eq!(writes(&first).is_err(), there);
        let error = staging::publish(&request(&second, other)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{error}");
        assert!(error.to_string().contains(text(&first)), "{error}");
        staging::publish(&request(&second, there)).unwrap();
        assert_eq!(writes(&second).is_err(), there);
        for target in [&first, &second] {
            staging::unpublish(&volume.name, target).unwrap();
        }
    }
    // The next volume may get the same device.
    staging::publish(&request(&first, true)).unwrap();
    staging::unpublish(&volume.name, &first).unwrap();
    rig.unstage(&staged);
    rig.stage(&staged);
    staging::publish(&request(&first, false)).unwrap();
    writes(&first).unwrap();
    staging::unpublish(&volume.name, &first).unwrap();
    rig.unstage(&staged);

    let staged = StageRequest {
        read_only: true,
        ..staged
    };
    rig.stage(&staged);
    staging::publish(&PublishRequest {
        read_only: true,
        ..rig.publish_request(&staged, &first)
    })
    .unwrap();
    writes(&first).unwrap_err();
    staging::unpublish(&volume.name, &first).unwrap();
    rig.unstage(&staged);
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
