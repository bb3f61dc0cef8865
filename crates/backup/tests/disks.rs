//! Stores in directories whose file system is full or may only be read.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod fixture;

use std::io::Write as _;
use std::path::Path;

use backup::{Error, Job, Sample};
use e2e::Need;
use e2e::command::run;
use fixture::{BLOCK, Wish, name, noise, open, restore};
use types::{Classify as _, ErrorKind};

/// A file system in memory, unmounted when dropped.
struct Memory(tempfile::TempDir);

impl Memory {
    fn mount(options: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_str().unwrap();
        run("mount", ["-t", "tmpfs", "-o", options, "memory", path]);
        Self(dir)
    }

    fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        run("mount", ["-o", &options, self.path().to_str().unwrap()]);
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        run("umount", [self.path().to_str().unwrap()]);
    }
}

#[test]
fn a_full_store_is_said_and_what_fits_later_is_finished() {
    e2e::needs!(Need::Root);
    let disk = Memory::mount("size=6m");
    runtime().block_on(async {
        let store = open(disk.path());
        let bytes = noise(1, 5 * BLOCK);
        let error = Wish::new("vol", "one", &bytes)
            .make(&store)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error}");
        let info = store.backup(&name("vol"), &name("one")).await.unwrap();
        assert_eq!(info.created_at, None, "it does not count as complete");
        disk.remount("size=64m");
        Wish::new("vol", "one", &bytes).make(&store).await.unwrap();
        assert!(restore(&store, "vol", "one").await.unwrap() == bytes);
        let report = store
            .verify(&name("vol"), Sample::All, &Job::silent())
            .await
            .unwrap();
        assert!(report.is_whole() && report.blocks == 5);
    });
}

#[test]
fn a_full_store_can_be_deleted_from() {
    e2e::needs!(Need::Root);
    let disk = Memory::mount("size=32m");
    runtime().block_on(async {
        let store = open(disk.path());
        let (one, two) = (noise(1, 3 * BLOCK), noise(2, 3 * BLOCK));
        Wish::new("vol", "one", &one).make(&store).await.unwrap();
        Wish::new("vol", "two", &two).make(&store).await.unwrap();
        fill(disk.path());
        let error = store
            .collect(&name("vol"), false, &Job::silent())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error}");
        let job = Job::silent();
        let (volume, backup) = (name("vol"), name("one"));
        let gone = store.delete_backup(&volume, &backup, &job).await.unwrap();
        assert_eq!(gone.kept, Vec::<String>::new());
        assert!(restore(&store, "vol", "two").await.unwrap() == two);
        assert!(store.backup(&name("vol"), &name("one")).await.is_err());
        let report = store.verify(&name("vol"), Sample::All, &job).await.unwrap();
        assert!(report.is_whole() && report.blocks == 3);
        // What it took is free again.
        let mut more = std::fs::File::create(disk.path().join("more")).unwrap();
        more.write_all(&noise(3, 3 * BLOCK - 4096)).unwrap();
    });
}

/// Leaves no free byte.
fn fill(dir: &Path) {
    let mut file = std::fs::File::create(dir.join("fill")).unwrap();
    for piece in [1 << 20, 4096] {
        let piece = vec![7; piece];
        while file.write_all(&piece).is_ok() {}
    }
}

#[test]
fn a_read_only_store_is_restored_from_and_takes_nothing() {
    e2e::needs!(Need::Root);
    let disk = Memory::mount("size=64m");
    runtime().block_on(async {
        let store = open(disk.path());
        let bytes = noise(1, 2 * BLOCK);
        Wish::new("vol", "one", &bytes).make(&store).await.unwrap();
        disk.remount("ro");
        assert!(restore(&store, "vol", "one").await.unwrap() == bytes);
        let job = Job::silent();
        let report = store.verify(&name("vol"), Sample::All, &job).await.unwrap();
        assert!(report.is_whole());
        let errors = [
            Wish::new("vol", "two", &bytes)
                .make(&store)
                .await
                .unwrap_err(),
            store.collect(&name("vol"), false, &job).await.unwrap_err(),
            store.delete_volume(&name("vol"), &job).await.unwrap_err(),
        ];
        for error in errors {
            assert!(matches!(error, Error::File { .. }), "{error}");
            assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{error}");
        }
        let refused = store.check().await;
        let refused = refused.iter().filter(|check| check.refused.is_some());
        let refused: Vec<_> = refused.map(|check| check.step).collect();
        assert!(refused.contains(&"put"), "{refused:?}");
    });
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().unwrap()
}
