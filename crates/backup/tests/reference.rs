//! A store that Longhorn's library wrote restores bit for bit, the same volumes backed up by us give the
//! same store, and each of its damaged copies is handled as it must be.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod fixture;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use backup::{
    Address, BaseImage, BlockError, Compression, Error, Item, Job, Mode, NewBackingImage,
    RestoreOptions, Sample, Store,
};
use fixture::{
    BLOCK, Fixture, Memory, Wish, empty, files, mapped, name, open, restore, restore_on, said,
    sha256, sha512,
};
use serde_json::Value;

/// The name of a block of 2 MiB of zeros.
const ZEROS: &str = "731859029215873fdac1c9f2f8bd25a334abf0f3a9e1b057cf2cacc2826d86b0";

fn read(path: impl AsRef<Path>) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn item(store: &Path, query: &str) -> Item {
    let address: Address = format!("vfs://{}{query}", store.display()).parse().unwrap();
    address.item.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_backup_restores_bit_for_bit() {
    let fixture = Fixture::unpack();
    let path = fixture.path("longhorn-store");
    let store = open(&path);
    let expected = read(fixture.path("expected.json"));
    let image = fixture.volume("bi.img");
    let volumes = expected["volumes"].as_array().unwrap();
    assert_eq!(volumes.len(), 8);
    let how = RestoreOptions::default();
    let restores = volumes.iter().map(|expected| async {
        let url = expected["url"].as_str().unwrap();
        let base = expected["base"].as_str();
        let on: &[u8] = if base.is_some() { &image } else { &[] };
        let item = item(&path, url);
        let restored = restore_on(&store, &item, &how, on).await.unwrap();
        assert_eq!(
            restored.bytes.len() as u64,
            expected["restored_size"].as_u64().unwrap()
        );
        let size = usize::try_from(expected["size"].as_u64().unwrap()).unwrap();
        let (bytes, behind) = restored.bytes.split_at(size);
        assert_eq!(sha256(bytes), expected["sha256"].as_str().unwrap(), "{url}");
        assert!(behind.iter().all(|byte| *byte == 0), "{url}");
        // The size that the volume had then is what the caller knows.
        let exact = RestoreOptions {
            size: Some(size as u64),
            ..how
        };
        let restored = restore_on(&store, &item, &exact, on).await.unwrap();
        assert!(restored.bytes == bytes, "{url}");
    });
    futures_util::future::join_all(restores).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_backing_image_restores_with_its_short_last_block() {
    let fixture = Fixture::unpack();
    let path = fixture.path("longhorn-store");
    let store = open(&path);
    let expected = &read(fixture.path("expected.json"))["backing_images"][0];
    let item = item(&path, expected["url"].as_str().unwrap());
    let how = RestoreOptions::default();
    let plan = store
        .plan_restore(&item, &how, &Job::silent())
        .await
        .unwrap();
    let checksum = plan.checksum().unwrap().to_owned();
    let restored = restore_on(&store, &item, &how, &[]).await.unwrap();
    assert_eq!(
        restored.bytes.len() as u64,
        expected["size"].as_u64().unwrap()
    );
    assert_eq!(
        sha256(&restored.bytes),
        expected["sha256"].as_str().unwrap()
    );
    assert_eq!(sha512(&restored.bytes), checksum);
}

#[tokio::test]
async fn everything_in_the_store_is_listed() {
    let fixture = Fixture::unpack();
    let store = open(&fixture.path("longhorn-store"));
    let volumes = store.volumes().await.unwrap();
    assert_eq!(volumes.problems, [] as [String; 0]);
    let names: Vec<_> = volumes
        .items
        .iter()
        .map(|volume| volume.name.as_str())
        .collect();
    assert_eq!(
        names,
        ["vol-gzip", "vol-lz4", "vol-none-16m", "vol-on-base"]
    );
    let on_base = &volumes.items[3];
    assert_eq!(on_base.base.as_ref().unwrap().name, "img-a");
    assert_eq!(on_base.block_count, 3);
    let backups = store.backups(&name("vol-lz4")).await.unwrap();
    assert_eq!(backups.problems, [] as [String; 0]);
    let facts: Vec<_> = backups
        .items
        .iter()
        .map(|backup| (backup.name.as_str(), backup.incremental, backup.reuploaded))
        .collect();
    let expected = [
        ("backup-00000000000000a1", false, 0),
        ("backup-00000000000000a2", true, 0),
        ("backup-00000000000000a3", true, 0),
        ("backup-00000000000000a4", false, 62530),
    ];
    assert_eq!(facts, expected);
    let images = store.backing_images().await.unwrap();
    assert_eq!(images.problems, [] as [String; 0]);
    assert_eq!(images.items.len(), 1);
    assert_eq!(
        (images.items[0].size, images.items[0].block_count),
        (7_340_544, 2)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_block_of_the_store_is_whole() {
    let fixture = Fixture::unpack();
    let store = open(&fixture.path("longhorn-store"));
    let volumes = ["vol-gzip", "vol-lz4", "vol-none-16m", "vol-on-base"];
    let blocks = volumes.map(|volume| {
        let store = store.clone();
        async move {
            let report = store
                .verify(&name(volume), Sample::All, &Job::silent())
                .await
                .unwrap();
            assert!(report.is_whole(), "{report:?}");
            assert_eq!(report.read, report.blocks);
            report.blocks
        }
    });
    assert_eq!(futures_util::future::join_all(blocks).await, [3, 9, 1, 3]);
}

/// One of their backups, to be made again from the same bytes.
fn wish(fixture: &Fixture, volume: &str, backup: &str, file: &str) -> Wish {
    let theirs = cfg(&fixture.path("longhorn-store"), volume, backup);
    let config = volume_cfg(&fixture.path("longhorn-store"), volume);
    let labels = |value: &Value| -> BTreeMap<String, String> {
        serde_json::from_value(value.clone()).unwrap()
    };
    let nested =
        |key: &str| -> String { serde_json::from_str(config[key].as_str().unwrap()).unwrap() };
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut wish =
        Wish::new(volume, backup, &fixture.volume(file)).at(&text(&theirs["SnapshotCreatedAt"]));
    wish.new.snapshot = text(&theirs["SnapshotName"]);
    wish.new.compression = text(&theirs["CompressionMethod"]).parse().unwrap();
    wish.new.labels = labels(&theirs["Labels"]);
    wish.new.volume.labels = labels(&config["Labels"]);
    wish.new.volume.storage_class = nested("StorageClassName");
    if let Some(bytes) = theirs["Parameters"]["backup-block-size"].as_str() {
        wish.new.block_size = Some(backup::BlockSize::new(bytes.parse().unwrap()).unwrap());
    }
    if theirs["Parameters"]["backup-mode"] == "full" {
        wish.new.mode = Mode::Full;
    }
    let base = nested("BackingImageName");
    if !base.is_empty() {
        wish.new.volume.base = Some(BaseImage {
            name: base,
            checksum: nested("BackingImageChecksum"),
        });
    }
    wish
}

fn only(root: &Path, suffix: &str) -> Value {
    let found = files(root, suffix);
    assert_eq!(found.len(), 1, "{suffix}: {found:?}");
    read(&found[0])
}

fn cfg(store: &Path, volume: &str, backup: &str) -> Value {
    only(store, &format!("{volume}/backups/backup_{backup}.cfg"))
}

fn volume_cfg(store: &Path, volume: &str) -> Value {
    only(store, &format!("{volume}/volume.cfg"))
}

/// A cfg without what differs from one maker to the next: times of its own, sizes of packed blocks, noise.
/// Without a base image our backups have no blocks of zeros.
fn comparable(mut cfg: Value, without_zeros: bool) -> Value {
    let block = match cfg["Parameters"]["backup-block-size"].as_str() {
        Some(bytes) => bytes.parse().unwrap(),
        None => BLOCK,
    };
    let map = cfg.as_object_mut().unwrap();
    for key in ["CreatedTime", "ProcessingBlocks"] {
        map.remove(key).unwrap();
    }
    for key in ["NewlyUploadedDataSize", "ReUploadedDataSize"] {
        let bytes = map.remove(key).unwrap();
        let some = bytes.as_str().unwrap() != "0";
        map.insert(key.to_owned(), Value::Bool(some));
    }
    let parameters = map["Parameters"].as_object_mut().unwrap();
    parameters.remove("volume-size");
    if parameters.is_empty() {
        // An older writer says nothing of what is the default.
        parameters.insert("backup-block-size".to_owned(), BLOCK.to_string().into());
        parameters.insert("backup-mode".to_owned(), "incremental".into());
    }
    if without_zeros {
        let blocks = map["Blocks"].as_array_mut().unwrap();
        blocks.retain(|block| block["BlockChecksum"] != ZEROS);
        let size = blocks.len() as u64 * block;
        map.insert("Size".to_owned(), size.to_string().into());
    }
    cfg
}

fn block_names(store: &Path, of: &str) -> BTreeSet<String> {
    let found = files(store, ".blk").into_iter();
    let found = found.filter(|path| path.to_str().unwrap().contains(of));
    found
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect()
}

/// Makes the backups of one volume again, in this order, and compares everything.
async fn made_again(fixture: &Fixture, volume: &str, chain: &[(&str, &str)]) {
    let theirs = fixture.path("longhorn-store");
    let (dir, store) = empty();
    let on_base = volume_cfg(&theirs, volume)["BackingImageName"] != "\"\"";
    for (backup, file) in chain {
        let mut wish = wish(fixture, volume, backup, file);
        if on_base {
            // Where the volume differs from the image.
            wish.mapped = Some(differing(&wish.bytes, &fixture.volume("bi.img")));
        }
        wish.make(&store).await.unwrap();
        assert_eq!(
            comparable(cfg(dir.path(), volume, backup), !on_base),
            comparable(cfg(&theirs, volume, backup), !on_base),
            "{volume} {backup}"
        );
    }
    let names = |store| {
        let mut names = block_names(store, volume);
        if !on_base {
            names.remove(&format!("{ZEROS}.blk"));
        }
        names
    };
    assert_eq!(names(dir.path()), names(&theirs), "{volume}");
    let verified = store
        .verify(&name(volume), Sample::All, &Job::silent())
        .await
        .unwrap();
    assert!(verified.is_whole(), "{verified:?}");
    let (mut ours, mut theirs) = (volume_cfg(dir.path(), volume), volume_cfg(&theirs, volume));
    for cfg in [&mut ours, &mut theirs] {
        cfg.as_object_mut().unwrap().remove("CreatedTime");
        cfg.as_object_mut().unwrap().remove("BlockCount");
    }
    assert_eq!(ours, theirs, "{volume}");
    let count = store.volume(&name(volume)).await.unwrap().block_count;
    assert_eq!(count, names(dir.path()).len() as u64);
    if !on_base {
        let (backup, file) = chain.last().unwrap();
        let restored = restore(&store, volume, backup).await.unwrap();
        assert!(restored == fixture.volume(file), "{volume}");
    }
}

fn differing(bytes: &[u8], base: &[u8]) -> backup::BlockSet {
    let mut same = bytes.to_vec();
    for (at, byte) in same.iter_mut().enumerate() {
        *byte ^= base.get(at).copied().unwrap_or(0);
    }
    mapped(&same, backup::BlockSize::MIB2)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_backups_made_again_are_the_same() {
    let fixture = Fixture::unpack();
    let lz4 = [
        ("backup-00000000000000a1", "a1.img"),
        ("backup-00000000000000a2", "a2.img"),
        ("backup-00000000000000a3", "a3.img"),
        ("backup-00000000000000a4", "a3.img"),
    ];
    let gzip = [
        ("backup-00000000000000b1", "b1.img"),
        ("backup-00000000000000b2", "b2.img"),
    ];
    tokio::join!(
        made_again(&fixture, "vol-lz4", &lz4),
        made_again(&fixture, "vol-gzip", &gzip),
        made_again(
            &fixture,
            "vol-none-16m",
            &[("backup-00000000000000c1", "c1.img")]
        ),
        made_again(
            &fixture,
            "vol-on-base",
            &[("backup-00000000000000d1", "d1.img")]
        ),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_backing_image_made_again_is_the_same() {
    let fixture = Fixture::unpack();
    let theirs = fixture.path("longhorn-store");
    let (dir, store) = empty();
    let bytes = fixture.volume("bi.img");
    let new = NewBackingImage {
        name: name("img-a"),
        size: bytes.len() as u64,
        checksum: sha512(&bytes),
        compression: Compression::Lz4,
        labels: [("made-by".to_owned(), "fixture".to_owned())].into(),
        secret: String::new(),
        secret_namespace: String::new(),
    };
    let source = std::sync::Arc::new(Memory(bytes.clone()));
    let job = Job::silent();
    store
        .backup_backing_image(new.clone(), source.clone(), &job)
        .await
        .unwrap();
    let comparable = |store: &Path| {
        let mut cfg = only(store, "img-a/backing-image.cfg");
        for key in ["CreatedTime", "CompleteTime", "ProcessingBlocks"] {
            cfg.as_object_mut().unwrap().remove(key).unwrap();
        }
        cfg
    };
    assert_eq!(comparable(dir.path()), comparable(&theirs));
    let pool = "backing-images/blocks";
    assert_eq!(block_names(dir.path(), pool), block_names(&theirs, pool));
    let item = Item::BackingImage(name("img-a"));
    let restored = restore_on(&store, &item, &RestoreOptions::default(), &[])
        .await
        .unwrap();
    assert!(restored.bytes == bytes);
    // Once more is done at once; other bytes under the same name are not.
    store
        .backup_backing_image(new.clone(), source.clone(), &job)
        .await
        .unwrap();
    let other = NewBackingImage {
        checksum: sha512(b"other"),
        ..new
    };
    let error = store
        .backup_backing_image(other, source, &job)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Exists { .. }), "{error}");
}

/// What comes of restoring b1 of a damaged store.
enum Must {
    Restore,
    /// The plan refuses, and says this.
    Refuse(&'static [&'static str]),
    /// The block of that offset ends it at once.
    Fail(u64, fn(&BlockError) -> bool),
}

fn must(store: &str) -> Must {
    use Must::{Fail, Refuse, Restore};
    const CFG: &str = "backups/backup_backup-00000000000000b1.cfg";
    match store {
        "truncated-block" => Fail(0, |why| {
            matches!(
                why,
                BlockError::CutShort { .. } | BlockError::Damaged { .. }
            )
        }),
        "flipped-bit" => Fail(0, |why| {
            matches!(
                why,
                BlockError::Damaged { .. } | BlockError::Checksum { .. }
            )
        }),
        "empty-block" => Fail(0, |why| matches!(why, BlockError::CutShort { .. })),
        "missing-block" => Fail(0, |why| *why == BlockError::Missing),
        "gzip-bomb" => Fail(0, |why| matches!(why, BlockError::TooMuch { .. })),
        "lz4-block-in-gzip-volume"
        | "raw-block-in-gzip-volume"
        | "legacy-no-compression-field"
        | "unquoted-strings"
        | "leftover-tmp" => Restore,
        "in-progress" => Refuse(&[CFG, "not complete"]),
        "empty-backup-cfg" => Refuse(&[CFG, "empty"]),
        "cut-backup-cfg" => Refuse(&[CFG, "cut short"]),
        "no-volume-cfg" => Refuse(&["vol-gzip/volume.cfg"]),
        "checksum-is-a-path" | "checksum-too-short" => Refuse(&[CFG, "64"]),
        "offset-past-the-end" => Refuse(&["behind"]),
        "offset-not-aligned" => Refuse(&[CFG, "multiple"]),
        "offset-negative" => Refuse(&[CFG]),
        "size-not-a-multiple" => Refuse(&["multiple"]),
        "huge-size" => Refuse(&["volume.cfg"]),
        other => panic!("nothing is known of {other}"),
    }
}

async fn attempt(store: &Store, b1: &str, hostile: &str) {
    let result = restore(store, "vol-gzip", "backup-00000000000000b1").await;
    match (must(hostile), result) {
        (Must::Restore, Ok(bytes)) => assert_eq!(sha256(&bytes), b1, "{hostile}"),
        (Must::Refuse(words), Err(error)) => {
            assert!(!matches!(error, Error::Block { .. }), "{hostile}: {error}");
            let text = said(&error);
            for word in words {
                assert!(
                    text.contains(word),
                    "{hostile}: {text:?} does not say {word:?}"
                );
            }
        }
        (
            Must::Fail(at, fits),
            Err(Error::Block {
                volume,
                offset,
                source,
                ..
            }),
        ) => {
            assert_eq!(
                (volume.as_str(), offset),
                ("volume vol-gzip", at),
                "{hostile}"
            );
            assert!(fits(&source), "{hostile}: {source:?}");
        }
        (_, Ok(_)) => panic!("{hostile} was restored"),
        (_, Err(error)) => panic!("{hostile}: {}", said(&error)),
    }
}

/// Tries b1 of one damaged store.
async fn hostile(of: &str) {
    let fixture = Fixture::unpack();
    let expected = read(fixture.path("expected.json"));
    let volumes = expected["volumes"].as_array().unwrap();
    let is_b1 = |one: &&Value| one["url"].as_str().unwrap().contains("b1");
    let b1 = volumes.iter().find(is_b1).unwrap()["sha256"]
        .as_str()
        .unwrap();
    let store = open(&fixture.path("hostile").join(of));
    attempt(&store, b1, of).await;
}

/// One test for each damaged store, named after what must happen.
macro_rules! hostile {
    ($($test:ident: $of:literal,)*) => {
        $(#[tokio::test(flavor = "multi_thread")]
        async fn $test() {
            hostile($of).await;
        })*

        #[test]
        fn every_hostile_store_has_a_test() {
            let fixture = Fixture::unpack();
            let listed = fs::read_to_string(fixture.path("expected-hostile.txt")).unwrap();
            let listed = listed.lines().skip(1).filter_map(|line| line.split_whitespace().next());
            let tried: BTreeSet<&str> = [$($of),*].into();
            assert_eq!(listed.collect::<BTreeSet<_>>(), tried);
            assert_eq!(tried.len(), 21);
        }
    };
}

hostile! {
    a_block_cut_short_ends_the_restore_at_once: "truncated-block",
    a_flipped_bit_ends_the_restore_at_once: "flipped-bit",
    an_empty_block_ends_the_restore_at_once: "empty-block",
    a_missing_block_is_a_final_answer: "missing-block",
    a_block_packed_by_another_method_is_restored: "lz4-block-in-gzip-volume",
    a_block_that_is_not_packed_is_restored_if_its_checksum_fits: "raw-block-in-gzip-volume",
    a_gzip_bomb_is_bounded_before_it_is_unpacked: "gzip-bomb",
    an_unfinished_backup_is_not_restored_as_zeros: "in-progress",
    an_empty_cfg_is_refused_by_name: "empty-backup-cfg",
    a_cut_cfg_is_refused_by_name: "cut-backup-cfg",
    a_volume_without_a_record_is_refused: "no-volume-cfg",
    no_word_of_compression_means_gzip: "legacy-no-compression-field",
    numbers_without_quotes_are_read: "unquoted-strings",
    a_checksum_that_is_a_path_is_refused: "checksum-is-a-path",
    a_checksum_of_two_characters_is_refused_without_a_panic: "checksum-too-short",
    an_offset_past_the_end_grows_no_file: "offset-past-the-end",
    an_offset_that_is_not_aligned_is_refused: "offset-not-aligned",
    a_negative_offset_is_refused_before_anything_is_written: "offset-negative",
    a_size_that_blocks_do_not_divide_is_refused: "size-not-a-multiple",
    a_huge_size_is_refused: "huge-size",
    half_written_files_are_not_read: "leftover-tmp",
}

#[tokio::test(flavor = "multi_thread")]
async fn half_written_files_are_not_listed() {
    let fixture = Fixture::unpack();
    let store = open(&fixture.path("hostile/leftover-tmp"));
    let backups = store.backups(&name("vol-gzip")).await.unwrap();
    assert_eq!(backups.items.len(), 2);
    assert_eq!(backups.problems, [] as [String; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_without_a_record_is_salvaged_if_its_size_is_given() {
    let fixture = Fixture::unpack();
    let store = open(&fixture.path("hostile/no-volume-cfg"));
    let item = Item::Backup {
        volume: name("vol-gzip"),
        backup: name("backup-00000000000000b1"),
    };
    let how = RestoreOptions {
        size: Some(8 << 20),
        salvage: true,
    };
    let restored = restore_on(&store, &item, &how, &[]).await.unwrap();
    assert!(restored.lost.is_empty());
    assert!(restored.bytes == fixture.volume("b1.img"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_lost_is_said_when_the_rest_is_salvaged() {
    let fixture = Fixture::unpack();
    let store = open(&fixture.path("hostile/missing-block"));
    let item = Item::Backup {
        volume: name("vol-gzip"),
        backup: name("backup-00000000000000b1"),
    };
    let how = RestoreOptions {
        size: None,
        salvage: true,
    };
    let restored = restore_on(&store, &item, &how, &[]).await.unwrap();
    let [(range, why)] = &restored.lost[..] else {
        panic!("{:?}", restored.lost);
    };
    assert_eq!(*range, 0..BLOCK);
    assert!(why.contains("the store does not have it"), "{why}");
    let end = usize::try_from(range.end).unwrap();
    assert!(restored.bytes[end..] == fixture.volume("b1.img")[end..]);
}
