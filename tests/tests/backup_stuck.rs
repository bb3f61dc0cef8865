//! A store on a server that hangs, fails or is full: backups wait or fail and say so, and nothing else notices.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::path::Path;

use e2e::backup_site::{BackupSite, SIZE};
use e2e::manager::{from_file, new_backup};
use e2e::stuck::{Health, StuckDirectory};
use e2e::{Need, Sandbox, needs, wait};
use proto::storage::v1 as pb;

struct Case {
    stuck: StuckDirectory,
    backups: BackupSite,
    sandbox: Sandbox,
}

fn case(name: &str) -> Option<Case> {
    let wanted = [Need::Root, Need::Fuse, Need::FileSystem("xfs")];
    if let Some(missing) = needs::missing(&wanted) {
        needs::skip(&missing);
        return None;
    }
    let sandbox = Sandbox::new(name);
    let stuck = StuckDirectory::mount(&sandbox, "server");
    let address = format!("vfs://{}", stuck.dir().display());
    let backups = BackupSite::start(&sandbox, &address, None);
    backups.volume(&sandbox, "vol", &[0, 1, 2, 5, 7]);
    Some(Case {
        stuck,
        backups,
        sandbox,
    })
}

impl Case {
    fn back_up(&self, name: &str) -> pb::Backup {
        let made = self.backups.manager.make_backup(new_backup("vol", name));
        made.unwrap()
    }

    #[track_caller]
    fn restores(&self, name: &str) {
        let bytes = self.backups.restored("restored", "vol", name).unwrap();
        assert!(bytes == self.backups.bytes("vol"), "other bytes");
    }
}

/// The names of the files below a directory.
fn files(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path.file_name().unwrap().to_string_lossy().into_owned());
        }
    }
    found
}

#[test]
fn row_381_a_store_that_hangs_holds_up_nothing_but_backups() {
    let Some(it) = case("backup-hang") else {
        return;
    };
    assert_eq!(it.back_up("first").state(), pb::BackupState::Complete);
    it.backups.change("vol", 1, 99);
    it.stuck.set(Health::Hangs);
    let manager = &it.backups.manager;
    manager.create_backup(new_backup("vol", "second")).unwrap();
    it.stuck.wait_for_a_victim();
    // Whoever asks the store waits for a bounded time; many of them at once, and nobody else with them.
    let listed = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..16)
            .map(|_| scope.spawn(|| it.backups.complete()))
            .collect();
        let raw = it.sandbox.write("import/other", vec![1; 1 << 20]);
        let image = manager.make_image(from_file("other", &raw)).unwrap();
        assert_eq!(image.progress, 100, "{image:?}");
        manager.create_volume("other", "other", 0).unwrap();
        assert_eq!(manager.list_volumes().unwrap().len(), 2);
        assert!(manager.list_images().unwrap().len() >= 2);
        manager.grow_volume("vol", 2 * SIZE).unwrap();
        asking
            .into_iter()
            .map(|asking| asking.join().unwrap())
            .collect::<Vec<_>>()
    });
    for answer in listed {
        let status = answer.expect_err("the store does not answer");
        let message = status.message();
        assert!(message.contains("answer"), "{message}");
    }
    let request = pb::GetBackupRequest {
        target: None,
        volume: "vol".into(),
        name: "second".into(),
    };
    let failed = manager.wait_backup(request).unwrap();
    assert_eq!(failed.state(), pb::BackupState::Failed, "{failed:?}");
    assert!(failed.message.contains("answer"), "{failed:?}");
    it.stuck.set(Health::Well);
    let again = it.back_up("second");
    assert_eq!(again.state(), pb::BackupState::Complete, "{again:?}");
}

/// It gives its stuck calls up in time, and its successor serves. The kernel keeps a process for as long as FUSE has
/// taken a call of it; of NFS and CIFS it lets one go.
#[test]
fn row_382_a_manager_ends_although_a_store_hangs() {
    let Some(mut it) = case("backup-hang-end") else {
        return;
    };
    it.stuck.set(Health::Hangs);
    let manager = &mut it.backups.manager;
    manager.create_backup(new_backup("vol", "first")).unwrap();
    it.stuck.wait_for_a_victim();
    manager.process.signal(e2e::process::Signal::TERM);
    wait::until("the manager gives up", || {
        manager
            .process
            .log()
            .contains("did not end in time")
            .then_some(())
    });
    it.stuck.set(Health::Fails);
    assert!(it.backups.manager.process.wait_end().success());
    it.stuck.set(Health::Hangs);
    it.backups.manager = e2e::Manager::start(&it.sandbox, &it.backups.options);
    assert_eq!(it.backups.manager.list_volumes().unwrap().len(), 1);
    it.stuck.set(Health::Well);
    let made = it.back_up("first");
    assert_eq!(made.state(), pb::BackupState::Complete, "{made:?}");
    it.restores("first");
}

#[test]
fn row_383_what_a_server_refuses_is_said_and_no_half_block_stays() {
    let Some(it) = case("backup-eio") else { return };
    for (health, name, word) in [
        (Health::FailsWrites, "eio", "Input/output error"),
        (Health::Full, "full", "No space left on device"),
    ] {
        it.stuck.set(health);
        let failed = it.back_up(name);
        assert_eq!(failed.state(), pb::BackupState::Failed, "{failed:?}");
        assert!(failed.message.contains(word), "{}", failed.message);
        it.stuck.set(Health::Well);
        let complete = it.backups.complete().unwrap();
        assert!(!complete.contains(&name.to_owned()), "{complete:?}");
        let made = it.back_up(name);
        assert_eq!(made.state(), pb::BackupState::Complete, "{made:?}");
        it.restores(name);
        let left = files(it.stuck.below());
        let left: Vec<_> = left.iter().filter(|name| name.contains(".tmp.")).collect();
        assert_eq!(left, Vec::<&String>::new(), "halves of files");
    }
}

#[test]
fn row_384_a_restore_from_a_server_that_fails_leaves_nothing() {
    let Some(it) = case("backup-eio-read") else {
        return;
    };
    assert_eq!(it.back_up("first").state(), pb::BackupState::Complete);
    it.stuck.set(Health::Fails);
    let failed = it.backups.restored("never", "vol", "first").unwrap_err();
    assert!(failed.contains("Input/output error"), "{failed}");
    assert!(
        it.backups
            .manager
            .create_volume("never", "never", 0)
            .is_err()
    );
    let _ = it.backups.manager.delete_image("never");
    it.stuck.set(Health::Well);
    it.restores("first");
}
