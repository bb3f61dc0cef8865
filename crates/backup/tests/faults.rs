//! Faults of stores and of programs that share them: what Longhorn's library makes of each is in its
//! name or beside it, and what happens here is what is asserted.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod fixture;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use backup::{
    BaseImage, Begin, BlockChecksum, BlockError, Error, Item, Job, Mode, NewBackingImage, Phase,
    Progress, RestoreOptions, Sample,
};
use fixture::{
    BLOCK, MIB, Memory, Wish, age, empty, files, mapped, name, noise, open, overwrite, restore,
    restore_on, said, sha512,
};

/// Four blocks: data, other data, a hole, the first again.
fn volume() -> Vec<u8> {
    let mut bytes = noise(1, BLOCK);
    bytes.extend(noise(2, BLOCK));
    bytes.resize(bytes.len() + usize::try_from(BLOCK).unwrap(), 0);
    bytes.extend(noise(1, BLOCK));
    bytes
}

/// The same with other bytes in its second block.
fn changed() -> Vec<u8> {
    let mut bytes = volume();
    let at = usize::try_from(BLOCK).unwrap();
    bytes[at..2 * at].copy_from_slice(&noise(3, BLOCK));
    bytes
}

fn cfg(root: &Path, backup: &str) -> std::path::PathBuf {
    let found = files(root, &format!("/backup_{backup}.cfg"));
    found.into_iter().next().unwrap()
}

/// Does something when a phase begins.
struct When<F>(Phase, F);

impl<F> std::fmt::Debug for When<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl<F: Fn() + Send + Sync> Progress for When<F> {
    fn phase(&self, phase: Phase, _: u64) {
        if phase == self.0 {
            self.1();
        }
    }
    fn advance(&self, _: u64) {}
}

fn when(phase: Phase, then: impl Fn() + Send + Sync + 'static) -> Job {
    Job {
        progress: Arc::new(When(phase, then)),
        ..Job::silent()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_cut_short_is_found_when_it_is_reused_and_uploaded_again() {
    let (dir, store) = empty();
    Wish::new("vol", "one", &volume())
        .make(&store)
        .await
        .unwrap();
    let blocks = files(dir.path(), ".blk");
    assert_eq!(blocks.len(), 2);
    // As a crash of the server leaves it: the block is short, and nobody has come to write the cfg.
    let whole = fs::metadata(&blocks[0]).unwrap().len();
    fs::File::options()
        .write(true)
        .open(&blocks[0])
        .unwrap()
        .set_len(whole / 2)
        .unwrap();
    fs::remove_file(cfg(dir.path(), "one")).unwrap();
    let info = Wish::new("vol", "one", &volume())
        .make(&store)
        .await
        .unwrap();
    assert_eq!((info.uploaded, info.reuploaded), (0, whole));
    assert!(restore(&store, "vol", "one").await.unwrap() == volume());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_backup_heals_blocks_that_have_rotted() {
    let (dir, store) = empty();
    Wish::new("vol", "one", &volume())
        .make(&store)
        .await
        .unwrap();
    for block in files(dir.path(), ".blk") {
        let mut bytes = fs::read(&block).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        overwrite(&block, &bytes);
    }
    let error = restore(&store, "vol", "one").await.unwrap_err();
    assert!(matches!(error, Error::Block { .. }), "{error}");
    let info = Wish::new("vol", "two", &volume())
        .full()
        .make(&store)
        .await
        .unwrap();
    assert!(info.reuploaded > 0 && !info.incremental);
    assert!(restore(&store, "vol", "one").await.unwrap() == volume());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_block_is_named_with_its_volume_and_offset() {
    let (dir, store) = empty();
    Wish::new("vol", "one", &changed())
        .make(&store)
        .await
        .unwrap();
    let checksum = BlockChecksum::of(&noise(3, BLOCK)).to_string();
    let block = files(dir.path(), &format!("{checksum}.blk"));
    fs::remove_file(&block[0]).unwrap();
    let text = said(&restore(&store, "vol", "one").await.unwrap_err());
    for word in [
        "volume vol",
        "offset 2097152",
        &checksum,
        "the store does not have it",
    ] {
        assert!(text.contains(word), "{text:?} does not say {word:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_crashed_backup_does_not_end_all_collection() {
    let (dir, store) = empty();
    let job = Job::silent();
    Wish::new("vol", "one", &volume())
        .make(&store)
        .await
        .unwrap();
    let two = Wish::new("vol", "two", &changed()).at("2026-11-02T00:00:00Z");
    two.make(&store).await.unwrap();
    // One is begun and never finished.
    let crashed = Wish::new("vol", "crashed", &volume()).at("2026-11-03T00:00:00Z");
    drop(store.begin_backup(crashed.new, &job).await.unwrap());
    let volume = name("vol");
    let kept = store
        .delete_backup(&volume, &name("two"), &job)
        .await
        .unwrap();
    assert_eq!((kept.blocks, kept.set_aside.len()), (0, 0));
    assert!(
        kept.kept[0].contains("backup crashed was begun and is not finished"),
        "{kept:?}"
    );
    assert_eq!(files(dir.path(), ".blk").len(), 3);
    // A day later, by the server's clock.
    age(&cfg(dir.path(), "crashed"), 25);
    let dry = store.collect(&volume, true, &job).await.unwrap();
    assert_eq!(
        files(dir.path(), ".blk").len(),
        3,
        "a dry run removes nothing"
    );
    let collected = store.collect(&volume, false, &job).await.unwrap();
    assert_eq!(collected, dry);
    assert_eq!(
        (collected.blocks, &collected.set_aside[..]),
        (1, &[name("crashed")][..])
    );
    assert!(collected.bytes > BLOCK / 2 && collected.kept.is_empty());
    assert_eq!(files(dir.path(), ".blk").len(), 2);
    assert!(restore(&store, "vol", "one").await.unwrap() == self::volume());
    let info = store.volume(&volume).await.unwrap();
    assert_eq!((info.block_count, info.last_backup), (2, Some(name("one"))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cfg_that_cannot_be_read_keeps_all_blocks_and_says_so() {
    let (dir, store) = empty();
    Wish::new("vol", "one", &volume())
        .make(&store)
        .await
        .unwrap();
    Wish::new("vol", "two", &changed())
        .make(&store)
        .await
        .unwrap();
    let path = cfg(dir.path(), "one");
    let bytes = fs::read(&path).unwrap();
    overwrite(&path, &bytes[..bytes.len() / 2]);
    age(&path, 1000);
    let collected = store
        .delete_backup(&name("vol"), &name("two"), &Job::silent())
        .await
        .unwrap();
    assert_eq!(collected.blocks, 0);
    assert!(
        collected.kept[0].contains("backup_one.cfg"),
        "{collected:?}"
    );
    assert_eq!(files(dir.path(), ".blk").len(), 3);
    let listed = store.backups(&name("vol")).await.unwrap();
    assert!(listed.items.is_empty() && listed.problems[0].contains("backup_one.cfg"));
    let error = Wish::new("vol", "one", &volume())
        .make(&store)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Exists { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn half_written_files_are_collected_by_age() {
    let (dir, store) = empty();
    Wish::new("vol", "one", &volume())
        .make(&store)
        .await
        .unwrap();
    let block = &files(dir.path(), ".blk")[0];
    let old = block.with_extension("blk.tmp.1790000000000000000");
    let new = block.with_extension("blk.tmp.1790000000000000001");
    let other = block.with_file_name("notes.txt");
    for path in [&old, &new, &other] {
        overwrite(path, b"half");
    }
    age(&old, 25);
    age(&other, 25);
    let collected = store
        .collect(&name("vol"), false, &Job::silent())
        .await
        .unwrap();
    assert_eq!(
        (
            collected.leftovers,
            collected.leftover_bytes,
            collected.blocks
        ),
        (1, 4, 0)
    );
    assert!(!old.exists() && new.exists() && other.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_lock_is_noticed_before_the_final_cfg() {
    let (dir, store) = empty();
    let root = dir.path().to_owned();
    let job = when(Phase::Finishing, move || {
        for lock in files(&root, ".lck") {
            fs::remove_file(lock).unwrap();
        }
    });
    let error = Wish::new("vol", "one", &volume())
        .make_for(&store, &job)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::LockLost { .. }), "{error}");
    let info = store.backup(&name("vol"), &name("one")).await.unwrap();
    assert_eq!(info.created_at, None, "it does not count as complete");
    Wish::new("vol", "one", &volume())
        .make(&store)
        .await
        .unwrap();
    assert!(restore(&store, "vol", "one").await.unwrap() == volume());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_lock_is_noticed_before_blocks_are_removed() {
    let (dir, store) = empty();
    Wish::new("vol", "one", &volume())
        .make(&store)
        .await
        .unwrap();
    fs::remove_file(cfg(dir.path(), "one")).unwrap();
    let root = dir.path().to_owned();
    let job = when(Phase::Collecting, move || {
        // Somebody frees the volume while the lock's owner is frozen, and begins a backup.
        for lock in files(&root, ".lck") {
            let text = fs::read_to_string(&lock).unwrap();
            overwrite(
                &lock.with_file_name("lock-00000000000000aa.lck"),
                text.replace("\"Type\":2", "\"Type\":1").as_bytes(),
            );
        }
    });
    let error = store.collect(&name("vol"), false, &job).await.unwrap_err();
    assert!(matches!(error, Error::LockLost { .. }), "{error}");
    assert_eq!(files(dir.path(), ".blk").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unfinished_backup_is_refused_also_for_salvage() {
    let (_dir, store) = empty();
    let job = Job::silent();
    let wish = Wish::new("vol", "one", &volume());
    let begun = store.begin_backup(wish.new, &job).await.unwrap();
    assert!(matches!(begun, Begin::Started(_)));
    drop(begun);
    let item = Item::Backup {
        volume: name("vol"),
        backup: name("one"),
    };
    for salvage in [false, true] {
        let how = RestoreOptions {
            size: None,
            salvage,
        };
        let error = store.plan_restore(&item, &how, &job).await.unwrap_err();
        assert!(matches!(error, Error::Incomplete { .. }), "{error}");
    }
    let report = store.verify(&name("vol"), Sample::All, &job).await.unwrap();
    assert_eq!(report.unfinished, [name("one")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crashed_backup_of_a_backing_image_is_finished() {
    let (dir, store) = empty();
    let bytes = noise(7, 5 * MIB + 512);
    let new = NewBackingImage {
        name: name("img"),
        size: bytes.len() as u64,
        checksum: sha512(&bytes),
        compression: backup::Compression::Lz4,
        labels: std::collections::BTreeMap::new(),
        secret: String::new(),
        secret_namespace: String::new(),
    };
    let source = Arc::new(Memory(bytes.clone()));
    let job = Job::silent();
    let cancel = job.cancel.clone();
    let ended = when(Phase::Uploading, move || cancel.cancel());
    let ended = Job {
        cancel: job.cancel.clone(),
        ..ended
    };
    let error = store
        .backup_backing_image(new.clone(), source.clone(), &ended)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{error}");
    let begun = store.backing_images().await.unwrap();
    assert_eq!(begun.items[0].completed_at, None);
    let item = Item::BackingImage(name("img"));
    let how = RestoreOptions::default();
    let error = store
        .plan_restore(&item, &how, &Job::silent())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Incomplete { .. }), "{error}");
    store
        .backup_backing_image(new, source, &Job::silent())
        .await
        .unwrap();
    assert!(restore_on(&store, &item, &how, &[]).await.unwrap().bytes == bytes);
    // Deleted, it leaves no block and no cfg.
    let collected = store
        .delete_backing_image(&name("img"), &Job::silent())
        .await
        .unwrap();
    assert_eq!((collected.blocks, collected.kept.len()), (3, 0));
    assert_eq!(
        files(dir.path(), ".blk").len() + files(dir.path(), ".cfg").len(),
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clusters_back_up_to_one_store_at_once_and_to_one_volume() {
    let (dir, first) = empty();
    let second = open(dir.path());
    let (one, two) = tokio::join!(
        Wish::new("vol", "one", &volume()).make(&first),
        Wish::new("vol", "two", &changed()).make(&second),
    );
    assert!(!one.unwrap().incremental && !two.unwrap().incremental);
    let (other, third) = tokio::join!(
        Wish::new("other", "one", &changed()).make(&first),
        Wish::new("vol", "three", &changed()).make(&second),
    );
    other.unwrap();
    assert!(third.unwrap().incremental);
    let restores = tokio::join!(
        restore(&first, "vol", "one"),
        restore(&first, "vol", "two"),
        restore(&second, "vol", "three"),
        restore(&second, "other", "one"),
    );
    assert!(restores.0.unwrap() == volume());
    assert!(restores.1.unwrap() == changed());
    assert!(restores.2.unwrap() == changed());
    assert!(restores.3.unwrap() == changed());
    assert_eq!(first.volumes().await.unwrap().items.len(), 2);
    assert!(first.locks(&name("vol")).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_removed_while_a_backup_is_made() {
    let (_dir, store) = empty();
    let job = Job::silent();
    let wish = Wish::new("vol", "one", &volume());
    let begun = store.begin_backup(wish.new, &job).await.unwrap();
    let volume = name("vol");
    let (collect, delete, all) = tokio::join!(
        store.collect(&volume, false, &job),
        store.delete_backup(&volume, &volume, &job),
        store.delete_volume(&volume, &job),
    );
    for error in [collect.unwrap_err(), delete.unwrap_err(), all.unwrap_err()] {
        assert!(matches!(error, Error::Locked { .. }), "{error}");
    }
    drop(begun);
}

/// Ends the job after so many bytes.
#[derive(Debug)]
struct EndsAfter(AtomicU64, Job);

impl Progress for EndsAfter {
    fn phase(&self, _: Phase, _: u64) {}
    fn advance(&self, bytes: u64) {
        if self.0.fetch_sub(bytes, Ordering::Relaxed) == bytes {
            self.1.cancel.cancel();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_backup_goes_on_with_what_is_there() {
    let (dir, store) = empty();
    let bytes = noise(5, 16 * BLOCK);
    let ended = Job::silent();
    let job = Job {
        cancel: ended.cancel.clone(),
        progress: Arc::new(EndsAfter(AtomicU64::new(8 * BLOCK), ended)),
    };
    let error = Wish::new("vol", "one", &bytes)
        .make_for(&store, &job)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{error}");
    let there = files(dir.path(), ".blk").len() as u64;
    assert!(there >= 8, "{there} blocks");
    let info = Wish::new("vol", "one", &bytes).make(&store).await.unwrap();
    assert_eq!(info.reuploaded, 0);
    assert!(info.uploaded < 9 * BLOCK, "{} bytes", info.uploaded);
    assert!(restore(&store, "vol", "one").await.unwrap() == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_taken_by_the_snapshot_that_has_it() {
    let (_dir, store) = empty();
    let made = Wish::new("vol", "one", &volume())
        .make(&store)
        .await
        .unwrap();
    let again = Wish::new("vol", "one", &volume())
        .make(&store)
        .await
        .unwrap();
    assert_eq!(made, again, "it is the answer");
    let mut other = Wish::new("vol", "one", &changed());
    other.new.snapshot = "other".to_owned();
    let later = Wish::new("vol", "one", &changed()).at("2026-11-09T00:00:00Z");
    for wish in [other, later] {
        let error = wish.make(&store).await.unwrap_err();
        assert!(matches!(error, Error::Exists { .. }), "{error}");
    }
    assert!(restore(&store, "vol", "one").await.unwrap() == volume());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_has_backups_on_one_base_only() {
    let (_dir, store) = empty();
    Wish::new("vol", "one", &volume())
        .make(&store)
        .await
        .unwrap();
    let mut on_base = Wish::new("vol", "two", &volume());
    on_base.new.volume.base = Some(BaseImage {
        name: "base".to_owned(),
        checksum: sha512(b"base"),
    });
    let text = said(&on_base.make(&store).await.unwrap_err());
    assert!(
        text.contains("without a base image") && text.contains("on base image base"),
        "{text}"
    );
    assert!(store.backups(&name("vol")).await.unwrap().items.len() == 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn zeros_above_a_base_are_stored_and_others_are_left_out() {
    let (dir, store) = empty();
    let base = noise(9, 3 * BLOCK);
    let mut bytes = base.clone();
    bytes[..usize::try_from(BLOCK).unwrap()].fill(0);
    let mut wish = Wish::new("vol", "one", &bytes);
    wish.new.volume.base = Some(BaseImage {
        name: "base".to_owned(),
        checksum: sha512(&base),
    });
    let mut set = backup::BlockSet::new(3 * BLOCK, backup::BlockSize::MIB2);
    set.insert(0..BLOCK);
    wish.mapped = Some(set.clone());
    let info = wish.make(&store).await.unwrap();
    assert_eq!(
        (info.size, info.base.unwrap().name),
        (BLOCK, "base".to_owned())
    );
    let item = Item::Backup {
        volume: name("vol"),
        backup: name("one"),
    };
    let restored = restore_on(&store, &item, &RestoreOptions::default(), &base)
        .await
        .unwrap();
    assert!(restored.bytes == bytes);
    // Without a base the same block is not needed.
    let mut whole = Wish::new(
        "whole",
        "one",
        &vec![0; usize::try_from(3 * BLOCK).unwrap()],
    );
    whole.mapped = Some(set);
    assert_eq!(whole.make(&store).await.unwrap().size, 0);
    assert_eq!(files(dir.path(), ".blk").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_is_restored_to_the_size_that_it_had() {
    let (_dir, store) = empty();
    let small = noise(1, 5 * MIB + 512);
    let mut large = small.clone();
    large.extend(noise(2, 4 * MIB));
    Wish::new("vol", "small", &small)
        .make(&store)
        .await
        .unwrap();
    Wish::new("vol", "large", &large)
        .make(&store)
        .await
        .unwrap();
    assert!(restore(&store, "vol", "small").await.unwrap() == small);
    assert!(restore(&store, "vol", "large").await.unwrap() == large);
    let size = store.volume(&name("vol")).await.unwrap().size;
    assert_eq!(size, 10 * MIB, "others restore every backup to this size");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_size_that_cuts_data_off_is_refused() {
    let fixture = fixture::Fixture::unpack();
    let store = open(&fixture.path("longhorn-store"));
    let item = Item::Backup {
        volume: name("vol-gzip"),
        backup: name("backup-00000000000000b1"),
    };
    for size in [6 * MIB, 6 * MIB + 512] {
        let how = RestoreOptions {
            size: Some(size),
            salvage: false,
        };
        let error = restore_on(&store, &item, &how, &[]).await.err().unwrap();
        assert!(said(&error).contains("behind"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_backup_takes_its_blocks_along_and_no_others() {
    let (dir, store) = empty();
    let job = Job::silent();
    let volume = name("vol");
    // Made in another order than that of their snapshots.
    let one = Wish::new("vol", "one", &self::volume()).at("2026-11-03T00:00:00Z");
    let two = Wish::new("vol", "two", &changed()).at("2026-11-01T00:00:00Z");
    let three = Wish::new("vol", "three", &noise(8, 4 * BLOCK)).at("2026-11-02T00:00:00Z");
    for wish in [one, two, three] {
        wish.make(&store).await.unwrap();
    }
    assert_eq!(files(dir.path(), ".blk").len(), 7);
    let collected = store
        .delete_backup(&volume, &name("three"), &job)
        .await
        .unwrap();
    assert_eq!((collected.blocks, collected.kept.len()), (4, 0));
    let info = store.volume(&volume).await.unwrap();
    assert_eq!(
        (info.block_count, info.last_backup),
        (3, Some(name("one"))),
        "the newest snapshot"
    );
    assert!(restore(&store, "vol", "one").await.unwrap() == self::volume());
    assert!(restore(&store, "vol", "two").await.unwrap() == changed());
    let again = store
        .delete_backup(&volume, &name("three"), &job)
        .await
        .unwrap();
    assert_eq!(again, backup::Collected::default(), "fine if there is none");
    store.delete_volume(&volume, &job).await.unwrap();
    assert_eq!(files(dir.path(), ""), [] as [std::path::PathBuf; 0]);
    store.delete_volume(&volume, &job).await.unwrap();
    assert!(store.volumes().await.unwrap().items.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_names_what_is_damaged_and_repair_heals_it() {
    let (dir, store) = empty();
    let vol = name("vol");
    let job = Job::silent();
    Wish::new("vol", "one", &volume())
        .make(&store)
        .await
        .unwrap();
    Wish::new("vol", "two", &changed())
        .make(&store)
        .await
        .unwrap();
    let first = BlockChecksum::of(&noise(1, BLOCK));
    let third = BlockChecksum::of(&noise(3, BLOCK));
    let path = |checksum: &BlockChecksum| files(dir.path(), &format!("{checksum}.blk")).remove(0);
    let mut bytes = fs::read(path(&first)).unwrap();
    bytes[1000] ^= 4;
    overwrite(&path(&first), &bytes);
    fs::remove_file(path(&third)).unwrap();
    let report = store.verify(&vol, Sample::All, &job).await.unwrap();
    assert!(!report.is_whole());
    assert_eq!(
        (report.blocks, report.read, report.backups.len()),
        (3, 3, 2)
    );
    let of = |checksum| {
        report
            .damaged
            .iter()
            .find(|one| one.checksum == checksum)
            .unwrap()
    };
    assert_eq!(
        (of(first).uses, of(first).places.len()),
        (4, 2),
        "at two offsets of two backups"
    );
    assert_eq!(of(first).places, [(name("one"), 0), (name("two"), 0)]);
    assert_eq!(of(third).places, [(name("two"), BLOCK)]);
    assert_eq!(of(third).why, BlockError::Missing);
    // A sample looks for all blocks, and reads a few.
    let sample = store.verify(&vol, Sample::Percent(0), &job).await.unwrap();
    assert_eq!((sample.read, sample.damaged.len()), (1, 1));
    assert_eq!(sample.damaged[0].checksum, third);
    let wrong = store
        .repair_block(&vol, &first, noise(2, BLOCK).into())
        .await
        .unwrap_err();
    assert!(matches!(wrong, Error::Request { .. }), "{wrong}");
    store
        .repair_block(&vol, &first, noise(1, BLOCK).into())
        .await
        .unwrap();
    store
        .repair_block(&vol, &third, noise(3, BLOCK).into())
        .await
        .unwrap();
    let report = store.verify(&vol, Sample::All, &job).await.unwrap();
    assert!(report.is_whole(), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_cannot_be_some_are_said_and_hide_nothing() {
    let (dir, store) = empty();
    Wish::new("vol", "one", &volume())
        .make(&store)
        .await
        .unwrap();
    let folder = cfg(dir.path(), "one").parent().unwrap().to_owned();
    overwrite(&folder.join("backup_x.cfg"), b"{}");
    overwrite(&folder.join("backup_-bad.cfg"), b"{}");
    let place = folder.parent().unwrap().parent().unwrap();
    fs::create_dir_all(place.join("-odd")).unwrap();
    fs::create_dir_all(place.join("misplaced")).unwrap();
    overwrite(&place.join("misplaced/volume.cfg"), b"{}");
    let backups = store.backups(&name("vol")).await.unwrap();
    assert_eq!(
        (backups.items.len(), backups.problems.len()),
        (1, 2),
        "{backups:?}"
    );
    let volumes = store.volumes().await.unwrap();
    assert_eq!(
        (volumes.items.len(), volumes.problems.len()),
        (1, 2),
        "{volumes:?}"
    );
    assert!(matches!(
        store.backups(&name("none")).await,
        Err(Error::NoObject { .. })
    ));
}

#[tokio::test]
async fn a_check_tries_everything_and_leaves_nothing() {
    let (dir, store) = empty();
    let checks = store.check().await;
    let steps: Vec<_> = checks.iter().map(|check| check.step).collect();
    assert_eq!(steps, ["put", "get", "list", "conditional put", "delete"]);
    for check in &checks {
        assert_eq!(check.refused, None, "{}", check.step);
    }
    assert_eq!(files(dir.path(), ""), [] as [std::path::PathBuf; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_uploads_only_what_has_changed_and_every_link_stands_alone() {
    let (dir, store) = empty();
    Wish::new("vol", "one", &volume())
        .make(&store)
        .await
        .unwrap();
    let mut two = Wish::new("vol", "two", &changed());
    let mut set = backup::BlockSet::new(4 * BLOCK, backup::BlockSize::MIB2);
    set.insert(BLOCK..BLOCK + 1);
    two.changed = Some(set);
    let two = two.make(&store).await.unwrap();
    assert!(two.incremental && two.uploaded < BLOCK + MIB && two.size == 3 * BLOCK);
    // What is a hole now is in no later map, though nothing says so in the format.
    let mut holed = changed();
    holed[..usize::try_from(BLOCK).unwrap()].fill(0);
    let mut three = Wish::new("vol", "three", &holed);
    three.changed = Some(backup::BlockSet::new(4 * BLOCK, backup::BlockSize::MIB2));
    let three = three.make(&store).await.unwrap();
    assert_eq!((three.uploaded, three.size), (0, 2 * BLOCK));
    store
        .delete_backup(&name("vol"), &name("one"), &Job::silent())
        .await
        .unwrap();
    assert!(restore(&store, "vol", "two").await.unwrap() == changed());
    assert!(restore(&store, "vol", "three").await.unwrap() == holed);
    assert_eq!(files(dir.path(), ".blk").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_with_other_blocks_than_the_last_has_no_parent() {
    let (_dir, store) = empty();
    Wish::new("vol", "one", &volume())
        .make(&store)
        .await
        .unwrap();
    let mut wish = Wish::new("vol", "two", &volume());
    wish.new.block_size = Some(backup::BlockSize::MIB16);
    let two = wish.make(&store).await.unwrap();
    assert!(!two.incremental);
    // Not said, it is that of the last.
    let three = Wish::new("vol", "three", &changed())
        .make(&store)
        .await
        .unwrap();
    assert!(three.incremental && three.block_size == backup::BlockSize::MIB16);
    assert!(restore(&store, "vol", "one").await.unwrap() == volume());
    assert!(restore(&store, "vol", "three").await.unwrap() == changed());
}

#[tokio::test(flavor = "multi_thread")]
async fn contents_of_another_size_are_refused() {
    let (_dir, store) = empty();
    let mut wish = Wish::new("vol", "one", &volume());
    wish.mapped = Some(mapped(&volume()[..4096], backup::BlockSize::MIB2));
    let error = wish.make(&store).await.unwrap_err();
    assert!(matches!(error, Error::Request { .. }), "{error}");
    assert_eq!(Wish::new("vol", "one", &[]).new.mode, Mode::Incremental);
    let error = Wish::new("vol", "one", &[]).make(&store).await.unwrap_err();
    assert!(matches!(error, Error::Request { .. }), "{error}");
}
