//! The life of a volume: repeats, other ways, lost records, several callers, a start.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may print and panic"
)]

mod rig;

use std::fs::{self, File};
use std::path::Path;

use host::FsType;
use host::staging::{self, Access, PublishRequest, StageRequest};
use rig::{MIB, Rig, run, text};
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

#[test]
fn volumes_of_one_node_do_not_get_into_each_others_way() {
    let Some(rig) = Rig::new() else { return };
    std::thread::scope(|scope| {
        for number in 0..12 {
            let rig = &rig;
            scope.spawn(move || {
                let volume = rig.volume(&format!("v{number}"), 16 * MIB);
                let mut staged = rig.mount_request(&volume, None);
                if number % 3 == 0 {
                    staged.access = Access::Block;
                }
                let published = rig.publish_request(&staged, &rig.target(&number.to_string()));
                for _ in 0..5 {
                    rig.stage(&staged);
                    staging::publish(&published).unwrap();
                    staging::unpublish(&volume.name, &published.target_path).unwrap();
                    rig.unstage(&staged);
                }
            });
        }
    });
    rig.assert_clean();
}

#[test]
fn a_device_that_somebody_holds_open_is_not_handed_on() {
    let Some(rig) = Rig::new() else { return };
    let (mounted, block) = (rig.volume("held", 32 * MIB), rig.volume("held-block", MIB));
    let requests = [rig.mount_request(&mounted, None), rig.block_request(&block)];
    std::thread::scope(|scope| {
        for staged in &requests {
            let rig = &rig;
            scope.spawn(move || {
                let device = rig.stage(staged).device;
                let holder = File::open(&device).unwrap();
                let unstage = || staging::unstage(&staged.volume.name, &staged.staging_path);
                let error = unstage().unwrap_err();
                assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{error}");
                assert!(
                    error.to_string().contains(device.to_str().unwrap()),
                    "{error}"
                );
                assert!(rig.loops().contains(&device));
                // Once it is let go the same call succeeds.
                drop(holder);
                unstage().unwrap();
            });
        }
    });
    rig.assert_clean();
}
