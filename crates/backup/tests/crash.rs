//! A process is killed after every step in which a backup is made, restored from, deleted and collected;
//! the same calls then finish, and what they made restores bit for bit.
//!
//! The process that dies is this test binary itself, started again for the test `child`.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test may print and panic"
)]

mod fixture;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use backup::{Error, Item, Job, NewBackingImage, RestoreOptions, Sample};
use fixture::{
    BLOCK, MIB, Memory, Wish, age, files, name, noise, open, overwrite, restore, restore_on, sha512,
};

/// Where the child works.
const DIR: &str = "BACKUP_CRASH_DIR";

/// The volume at its `n`-th snapshot: one block stays, one changes, one comes.
fn volume(n: u64) -> Vec<u8> {
    let mut bytes = noise(100, BLOCK);
    bytes.extend(noise(n, BLOCK));
    bytes.extend(noise(n + 50, n * MIB));
    bytes
}

fn image() -> (NewBackingImage, Vec<u8>) {
    let bytes = noise(33, 3 * MIB);
    let new = NewBackingImage {
        name: name("img"),
        size: bytes.len() as u64,
        checksum: sha512(&bytes),
        compression: backup::Compression::None,
        labels: std::collections::BTreeMap::new(),
        secret: String::new(),
        secret_namespace: String::new(),
    };
    (new, bytes)
}

/// Everything that is done with a store, each call as often as a caller repeats it who was not answered.
async fn live(root: &Path) {
    let store = open(root);
    let job = Job::silent();
    let vol = name("vol");
    let made = store.backups(&vol).await.is_ok_and(|backups| {
        backups
            .items
            .iter()
            .any(|backup| backup.name == name("two") && backup.created_at.is_some())
    });
    if !made {
        Wish::new("vol", "one", &volume(1))
            .at("2026-11-01T00:00:00Z")
            .make(&store)
            .await
            .unwrap();
        Wish::new("vol", "two", &volume(2))
            .at("2026-11-02T00:00:00Z")
            .make(&store)
            .await
            .unwrap();
    }
    let (new, bytes) = image();
    store
        .backup_backing_image(new, Arc::new(Memory(bytes)), &job)
        .await
        .unwrap();
    // What a collection finds: a backup that was begun long ago, half a file, and blocks of a deleted one.
    let begun = Wish::new("vol", "begun", &volume(3)).at("2026-11-03T00:00:00Z");
    drop(store.begin_backup(begun.new, &job).await.unwrap());
    age(&files(root, "backup_begun.cfg")[0], 25);
    let blocks = files(root, ".blk");
    let block = blocks
        .iter()
        .find(|path| path.to_str().unwrap().contains("/vol/"));
    let half = block.unwrap().with_extension("blk.tmp.1790000000000000000");
    overwrite(&half, b"half");
    age(&half, 25);
    store.delete_backup(&vol, &name("one"), &job).await.unwrap();
    Wish::new("gone", "one", &volume(4))
        .make(&store)
        .await
        .unwrap();
    store.delete_volume(&name("gone"), &job).await.unwrap();
}

/// What must be true whenever the process died: what is complete restores, and nothing else does.
async fn check(root: &Path, at: &str) {
    let store = open(root);
    for (backup, bytes) in [("one", volume(1)), ("two", volume(2))] {
        match restore(&store, "vol", backup).await {
            Ok(restored) => assert!(restored == bytes, "{at}: {backup} has other bytes"),
            Err(Error::NoObject { .. } | Error::Incomplete { .. }) => {}
            Err(error) => panic!("{at}: {backup}: {}", types::report(&error)),
        }
    }
}

/// What must be true once the calls have been answered.
async fn finished(root: &Path, at: &str) {
    let store = open(root);
    let vol = name("vol");
    assert!(
        restore(&store, "vol", "two").await.unwrap() == volume(2),
        "{at}"
    );
    let report = store
        .verify(&vol, Sample::All, &Job::silent())
        .await
        .unwrap();
    assert!(
        report.is_whole() && report.unfinished.is_empty(),
        "{at}: {report:?}"
    );
    assert_eq!(report.backups, [name("two")], "{at}");
    let info = store.volume(&vol).await.unwrap();
    assert_eq!(info.last_backup, Some(name("two")), "{at}");
    assert_eq!(info.block_count, report.blocks, "{at}");
    let item = Item::BackingImage(name("img"));
    let restored = restore_on(&store, &item, &RestoreOptions::default(), &[])
        .await
        .unwrap();
    assert!(restored.bytes == image().1, "{at}");
    let volumes = store.volumes().await.unwrap();
    let names: Vec<_> = volumes
        .items
        .iter()
        .map(|volume| volume.name.as_str())
        .collect();
    assert_eq!(names, ["vol"], "{at}");
    assert_eq!(
        files(root, ".blk").len() as u64,
        report.blocks + 2,
        "{at}: no block is left over"
    );
}

#[test]
fn child() {
    let Ok(dir) = std::env::var(DIR) else {
        return;
    };
    types::crash::init();
    runtime().block_on(live(Path::new(&dir)));
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// Where the sources of the crate say that a step is done.
fn points() -> BTreeSet<String> {
    fn sources(dir: &Path, points: &mut BTreeSet<String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, points);
            } else {
                let text = fs::read_to_string(&path).unwrap();
                let names = text.split("crash_point!(\"").skip(1);
                points.extend(names.filter_map(|rest| rest.split('"').next().map(str::to_owned)));
            }
        }
    }
    let mut points = BTreeSet::new();
    sources(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &mut points,
    );
    points
}

/// The locks of who died expire after 150 s; a test does not sit that out.
fn expire_locks(root: &Path) {
    for lock in files(root, ".lck") {
        age(&lock, 1);
    }
}

async fn killed_at(point: &str) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().to_owned();
    let command = (point.to_owned(), root.clone());
    let output = tokio::task::spawn_blocking(move || {
        Command::new(std::env::current_exe().unwrap())
            .args(["child", "--exact", "--nocapture"])
            .env(DIR, command.1)
            .env("FAILPOINTS", format!("{}=return", command.0))
            .output()
            .unwrap()
    });
    let output = output.await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        output.status.signal(),
        Some(9),
        "{point} was not reached: {said}"
    );
    expire_locks(&root);
    check(&root, point).await;
    live(&root).await;
    finished(&root, point).await;
}

#[test]
fn kill_9_at_every_step_loses_nothing_and_the_same_calls_finish() {
    if !cfg!(feature = "failpoints") {
        eprintln!("skipped: needs the feature failpoints");
        return;
    }
    let points = points();
    assert!(points.len() >= 12, "{points:?}");
    // Most of the time is that of locks, so all at once.
    runtime().block_on(async {
        let tries: Vec<_> = points
            .into_iter()
            .map(|point| tokio::spawn(async move { killed_at(&point).await }))
            .collect();
        for tried in tries {
            tried.await.unwrap();
        }
    });
}
