//! Backups to an object store that is well, and to one that has quirks: never a false success, never a storm of
//! requests, and what is there already is used by the next attempt.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use e2e::backup_site::{BLOCK, BackupSite, block_keys};
use e2e::manager::{Options, new_backup};
use e2e::s3::{self, Answer, Ask, ObjectStore, QuirkServer};
use e2e::{Manager, Need, Sandbox, needs, wait};
use proto::storage::v1 as pb;

/// Retries of one request that end, and a few requests beside it.
const PATIENCE: usize = 60;

fn here() -> Option<String> {
    needs::missing(&[Need::Root, Need::FileSystem("xfs"), Need::Tool("s3-server")])
}

struct Case {
    backups: BackupSite,
    server: QuirkServer,
    store: ObjectStore,
    sandbox: Sandbox,
}

fn case(name: &str) -> Option<Case> {
    if let Some(missing) = here() {
        needs::skip(&missing);
        return None;
    }
    let sandbox = Sandbox::new(name);
    let store = ObjectStore::start(&sandbox);
    let server = QuirkServer::start(&store);
    let backups = BackupSite::on_objects(&sandbox, &server);
    backups.volume(&sandbox, "vol", &[0, 1, 2, 5, 7]);
    Some(Case {
        backups,
        server,
        store,
        sandbox,
    })
}

impl Case {
    fn back_up(&self, name: &str) -> pb::Backup {
        self.backups
            .manager
            .make_backup(new_backup("vol", name))
            .unwrap()
    }

    #[track_caller]
    fn succeeds(&self, name: &str) -> pb::Backup {
        let backup = self.back_up(name);
        assert_eq!(backup.state(), pb::BackupState::Complete, "{backup:?}");
        backup
    }

    /// What a backup says that fails, which the store does not have afterwards.
    #[track_caller]
    fn fails(&self, name: &str) -> pb::Backup {
        let backup = self.back_up(name);
        assert_eq!(backup.state(), pb::BackupState::Failed, "{backup:?}");
        assert_ne!(backup.failure_code, 0, "{backup:?}");
        assert!(!backup.message.is_empty(), "{backup:?}");
        self.server.behave(|_| Answer::Pass);
        assert!(!self.backups.complete().unwrap().contains(&name.to_owned()));
        backup
    }

    fn restores(&self, backup: &str) {
        let bytes = self.backups.restored("restored", "vol", backup);
        assert!(bytes.unwrap() == self.backups.bytes("vol"), "other bytes");
    }
}

fn blocks<'a>(asks: &'a [Ask], method: &str) -> Vec<&'a str> {
    let asks = asks.iter();
    let asks = asks.filter(|ask| ask.is_of_a_block() && ask.method == method);
    asks.map(|ask| ask.path.as_str()).collect()
}

#[test]
fn row_370_a_backup_asks_for_no_more_than_it_must() {
    let Some(it) = case("backup-s3") else { return };
    let first = it.succeeds("first");
    assert!(!first.incremental);
    assert_eq!(first.size, 5 * BLOCK);
    let asks = it.server.asks();
    let put = blocks(&asks, "PUT");
    assert_eq!(put.len(), 5, "each block is put once: {put:?}");
    assert_eq!(put.iter().collect::<BTreeSet<_>>().len(), 5);
    it.restores("first");

    it.backups.change("vol", 2, 77);
    it.server.forget();
    let second = it.succeeds("second");
    assert!(second.incremental);
    assert_eq!(second.size, 5 * BLOCK);
    let asks = it.server.asks();
    let touched: BTreeSet<&str> = ["PUT", "HEAD", "GET", "DELETE"]
        .iter()
        .flat_map(|method| blocks(&asks, method))
        .collect();
    assert_eq!(
        touched.len(),
        1,
        "the blocks of the parent are known: {touched:?}"
    );
    assert_eq!(block_keys(&it.store).len(), 6);
    it.restores("second");

    it.server.forget();
    it.succeeds("third");
    assert_eq!(
        blocks(&it.server.asks(), "PUT").len(),
        0,
        "nothing has changed"
    );
}

#[test]
fn row_371_requests_are_as_every_provider_takes_them() {
    let Some(it) = case("backup-s3-wire") else {
        return;
    };
    it.succeeds("first");
    it.restores("first");
    let delete = pb::GetBackupRequest {
        target: None,
        volume: "vol".into(),
        name: "first".into(),
    };
    it.backups.manager.delete_backup(delete).unwrap();
    assert_eq!(
        block_keys(&it.store).len(),
        0,
        "the last backup takes its blocks along"
    );
    let asks = it.server.asks();
    assert!(asks.len() > 20);
    for ask in &asks {
        let names: Vec<&str> = ask.headers.iter().map(|(name, _)| name.as_str()).collect();
        for unwanted in [
            "x-amz-trailer",
            "x-amz-sdk-checksum-algorithm",
            "transfer-encoding",
        ] {
            assert!(!names.contains(&unwanted), "{ask:?}");
        }
        let checksum = names.iter().find(|name| name.starts_with("x-amz-checksum"));
        assert_eq!(checksum, None, "{ask:?}");
        let encoding = ask.header("content-encoding").unwrap_or_default();
        assert!(!encoding.contains("aws-chunked"), "{ask:?}");
        let authorization = ask.header("authorization").unwrap_or_default();
        assert!(authorization.starts_with("AWS4-HMAC-SHA256 "), "{ask:?}");
        assert!(authorization.contains(s3::ACCESS_KEY), "{ask:?}");
        // A proxy between us and the store may write it anew.
        let signed = authorization
            .split("SignedHeaders=")
            .nth(1)
            .unwrap_or_default();
        let signed = signed.split(',').next().unwrap_or_default();
        for changeable in ["accept-encoding", "user-agent", "connection", "expect"] {
            assert!(!signed.split(';').any(|name| name == changeable), "{ask:?}");
        }
        let query = ask.path.split_once('?').map_or("", |(_, query)| query);
        assert!(
            !query.contains("uploads") && !query.contains("partNumber"),
            "{ask:?}"
        );
        // One key after the other, and nothing by its beginning.
        assert!(ask.method != "POST", "{ask:?}");
        let text = format!("{ask:?}");
        assert!(!text.contains(s3::SECRET_KEY), "{text}");
    }
    let log = it.backups.manager.process.log();
    assert!(!log.contains(s3::SECRET_KEY), "the log has the secret");
    let command =
        std::fs::read(format!("/proc/{}/cmdline", it.backups.manager.process.id())).unwrap();
    let environment =
        std::fs::read(format!("/proc/{}/environ", it.backups.manager.process.id())).unwrap();
    for place in [command, environment] {
        assert!(!String::from_utf8_lossy(&place).contains(s3::SECRET_KEY));
    }
}

/// Whoever may ask for a backup cannot have it sent elsewhere with the operator's credentials, nor to a directory.
#[test]
fn row_371_credentials_of_a_target_go_to_its_own_address_alone() {
    let Some(it) = case("backup-s3-elsewhere") else {
        return;
    };
    it.succeeds("first");
    it.server.forget();
    let directory = it.sandbox.make_dir("elsewhere");
    let elsewhere = [
        s3::address("other/path"),
        format!("vfs://{}", directory.display()),
        "nfs://127.0.0.1:/export".to_owned(),
    ];
    for address in elsewhere {
        let target = pb::BackupTarget {
            address: address.clone(),
            ..Default::default()
        };
        let request = pb::CreateBackupRequest {
            target: Some(target.clone()),
            ..new_backup("vol", "stolen")
        };
        let refused = it.backups.manager.create_backup(request).unwrap_err();
        assert!(refused.message().contains("target"), "{address}: {refused}");
        let refused = it.backups.manager.list_backups_in(target).unwrap_err();
        assert!(refused.message().contains("target"), "{address}: {refused}");
    }
    assert_eq!(it.server.asks().len(), 0, "nothing is asked");
    assert_eq!(std::fs::read_dir(directory).unwrap().count(), 0);
}

#[test]
fn row_372_a_busy_store_is_asked_again_and_not_for_ever() {
    let Some(it) = case("backup-s3-busy") else {
        return;
    };
    it.server.behave(s3::busy(3));
    it.succeeds("patient");
    it.server.forget();
    it.server.behave(|ask| {
        if ask.is_of_a_block() && ask.writes() {
            Answer::Refuse(503, "SlowDown")
        } else {
            Answer::Pass
        }
    });
    it.backups.change("vol", 0, 100);
    let failed = it.fails("busy");
    assert!(
        failed.message.contains("does not answer"),
        "{}",
        failed.message
    );
    let asked = it.server.asks().len();
    assert!(asked < PATIENCE, "{asked} requests");
    it.succeeds("busy");
    it.restores("busy");
}

#[test]
fn row_373_a_store_that_refuses_or_is_full_is_said_at_once() {
    let Some(it) = case("backup-s3-refuse") else {
        return;
    };
    it.server.behave(s3::read_only());
    let failed = it.fails("refused");
    assert!(
        failed.message.contains("permission denied"),
        "{}",
        failed.message
    );
    assert!(
        failed.message.contains("AccessDenied"),
        "{}",
        failed.message
    );
    let asked = it.server.asks().len();
    assert!(asked < PATIENCE, "an answer is no fault: {asked} requests");
    // It fills up in the middle.
    let put = AtomicUsize::new(0);
    it.server.behave(move |ask| {
        let block = ask.is_of_a_block() && ask.method == "PUT";
        if block && put.fetch_add(1, Ordering::SeqCst) >= 2 {
            Answer::Refuse(507, "QuotaExceeded")
        } else {
            Answer::Pass
        }
    });
    let failed = it.fails("refused");
    assert!(failed.message.contains("is full"), "{}", failed.message);
    it.server.forget();
    it.succeeds("refused");
    let put = blocks(&it.server.asks(), "PUT").len();
    assert_eq!(put, 3, "two were there already");
    it.restores("refused");
}

#[test]
fn row_374_bodies_that_end_too_early_are_noticed() {
    let Some(it) = case("backup-s3-cut") else {
        return;
    };
    // A put whose answer is lost, and one that is cut, are done again.
    let odd = AtomicUsize::new(0);
    it.server.behave(move |ask| {
        if !ask.is_of_a_block() {
            return Answer::Pass;
        }
        match odd.fetch_add(1, Ordering::SeqCst) {
            0 => Answer::CutReply,
            1 => Answer::CutRequest,
            _ => Answer::Pass,
        }
    });
    it.succeeds("first");
    let once = AtomicBool::new(true);
    it.server.behave(move |ask| {
        let block = ask.is_of_a_block() && ask.method == "GET";
        if block && once.swap(false, Ordering::SeqCst) {
            Answer::CutAnswer
        } else {
            Answer::Pass
        }
    });
    it.restores("first");
    it.server.forget();
    it.server.behave(|ask| {
        if ask.is_of_a_block() && ask.method == "GET" {
            Answer::CutAnswer
        } else {
            Answer::Pass
        }
    });
    let failed = it.backups.restored("never", "vol", "first").unwrap_err();
    assert!(
        failed.contains(".blk") || failed.contains("block"),
        "{failed}"
    );
    assert!(it.server.asks().len() < PATIENCE);
    let volumes = it.backups.manager.create_volume("never", "never", 0);
    assert!(volumes.is_err(), "nothing comes out of half a restore");
}

#[test]
fn row_375_a_store_without_conditional_put_or_bulk_delete_is_enough() {
    let Some(it) = case("backup-s3-simple") else {
        return;
    };
    let (put, delete) = (s3::no_conditional_put(), s3::no_bulk_delete());
    it.server.behave(move |ask| match put(ask) {
        Answer::Pass => delete(ask),
        refused => refused,
    });
    it.succeeds("first");
    it.backups.change("vol", 5, 55);
    it.succeeds("second");
    let delete = pb::GetBackupRequest {
        target: None,
        volume: "vol".into(),
        name: "first".into(),
    };
    it.backups.manager.delete_backup(delete).unwrap();
    assert_eq!(it.backups.complete().unwrap(), ["second"]);
    assert_eq!(
        block_keys(&it.store).len(),
        5,
        "the block that only the first had is gone"
    );
    it.restores("second");
}

#[test]
fn row_376_the_clock_of_a_store_may_be_wrong() {
    let Some(it) = case("backup-s3-clock") else {
        return;
    };
    for (name, seconds) in [("ahead", 3600), ("behind", -600)] {
        it.server.behave(s3::clock_moved(seconds));
        it.succeeds(name);
        it.backups.change("vol", 1, seconds.unsigned_abs());
    }
    let locks: Vec<String> = it.store.keys("some/path/");
    let locks: Vec<&String> = locks.iter().filter(|key| key.contains("/locks/")).collect();
    assert_eq!(locks, Vec::<&String>::new(), "locks are let go");
}

#[test]
fn row_377_an_authority_of_the_operators_own_vouches_for_a_store() {
    if let Some(missing) = here() {
        return needs::skip(&missing);
    }
    let sandbox = Sandbox::new("backup-s3-tls");
    let store = ObjectStore::start(&sandbox);
    let server = QuirkServer::start_tls(&sandbox, &store);
    let site = BackupSite::on_objects(&sandbox, &server);
    site.volume(&sandbox, "vol", &[0, 3]);
    let make = |name| site.manager.make_backup(new_backup("vol", name)).unwrap();
    assert_eq!(make("trusted").state(), pb::BackupState::Complete);
    // A new Secret counts at the next use.
    std::fs::remove_file(sandbox.path("backup-credentials/default/AWS_CERT")).unwrap();
    let failed = make("stranger");
    assert_eq!(failed.state(), pb::BackupState::Failed, "{failed:?}");
    let message = failed.message.to_lowercase();
    assert!(
        message.contains("certificate") || message.contains("issuer"),
        "{message}"
    );
}

#[test]
fn row_378_a_backup_goes_on_after_kill_9_with_what_the_store_has() {
    let Some(mut it) = case("backup-s3-kill") else {
        return;
    };
    let put = AtomicUsize::new(0);
    it.server.behave(move |ask| {
        let block = ask.is_of_a_block() && ask.method == "PUT";
        if block && put.fetch_add(1, Ordering::SeqCst) >= 2 {
            Answer::Hold
        } else {
            Answer::Pass
        }
    });
    it.backups
        .manager
        .create_backup(new_backup("vol", "first"))
        .unwrap();
    wait::until("two blocks are there and the third is under way", || {
        let asks = it.server.asks();
        (block_keys(&it.store).len() == 2 && blocks(&asks, "PUT").len() >= 3).then_some(())
    });
    it.backups.crash_and_restart(&it.sandbox);
    it.server.behave(|_| Answer::Pass);
    assert_eq!(it.backups.complete().unwrap(), Vec::<String>::new());
    let unfinished = it.backups.restored("early", "vol", "first").unwrap_err();
    assert!(
        unfinished.contains("not complete") || unfinished.contains("cannot find"),
        "{unfinished}"
    );
    it.backups.manager.delete_image("early").unwrap();
    it.server.forget();
    it.succeeds("first");
    let asks = it.server.asks();
    assert_eq!(blocks(&asks, "PUT").len(), 3, "two were there already");
    it.server.release();
    it.restores("first");
    assert_eq!(it.backups.complete().unwrap(), ["first"]);
}

/// A damaged or missing block ends a restore with its place, and nothing of it is used.
#[test]
fn row_379_a_block_that_is_lost_or_short_is_named_and_uploaded_again() {
    let Some(it) = case("backup-s3-lost") else {
        return;
    };
    it.succeeds("first");
    let keys = block_keys(&it.store);
    let short = it.store.get(&keys[0]).unwrap();
    it.store.put(&keys[0], &short[..short.len() / 2]);
    it.store.delete(&keys[1]);
    it.server.forget();
    let failed = it.backups.restored("lost", "vol", "first").unwrap_err();
    let named = keys[..2].iter().any(|key| {
        let name = key.rsplit('/').next().unwrap().trim_end_matches(".blk");
        failed.contains(name)
    });
    assert!(
        named && failed.contains("vol") && failed.contains("offset"),
        "{failed}"
    );
    assert!(it.server.asks().len() < PATIENCE, "an answer is no fault");
    it.backups.manager.delete_image("lost").unwrap();
    let full = pb::CreateBackupRequest {
        mode: "full".into(),
        ..new_backup("vol", "second")
    };
    let second = it.backups.manager.make_backup(full).unwrap();
    assert_eq!(second.state(), pb::BackupState::Complete, "{second:?}");
    it.restores("second");
    it.restores("first");
}

/// Two clusters back up to one store, at once.
#[test]
fn row_380_two_managers_share_a_store() {
    let Some(it) = case("backup-s3-two") else {
        return;
    };
    let disk = e2e::Disk::new(&it.sandbox, "other", e2e::FileSystem::Xfs, 1 << 30);
    e2e::manager::init_disk(disk.dir());
    let options = Options::new(disk.dir())
        .on_node("node-2")
        .with("--import-dir", it.sandbox.make_dir("import"))
        .with(
            "--backup-target",
            format!("default={}", s3::address("some/path")),
        )
        .with(
            "--backup-credentials",
            it.sandbox.path("backup-credentials"),
        );
    let other = BackupSite {
        manager: Manager::start(&it.sandbox, &options),
        disk,
        options,
    };
    other.volume(&it.sandbox, "other", &[1, 2, 4]);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| it.succeeds("first"));
        let made = other
            .manager
            .make_backup(new_backup("other", "other-1"))
            .unwrap();
        assert_eq!(made.state(), pb::BackupState::Complete, "{made:?}");
        first.join().unwrap();
    });
    let theirs = it.backups.restored("theirs", "other", "other-1").unwrap();
    assert!(theirs == other.bytes("other"), "other bytes");
    let ours = other.restored("ours", "vol", "first").unwrap();
    assert!(ours == it.backups.bytes("vol"), "other bytes");
}
