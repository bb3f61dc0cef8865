//! Any chain of backups of any volume restores to what the volume was, whatever is deleted of it.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod fixture;

use backup::{BlockSet, BlockSize, Compression, Job, Mode, Sample};
use fixture::{BLOCK, Wish, empty, mapped, name, noise, restore};
use proptest::prelude::*;

/// What is done to a volume between two backups.
#[derive(Debug, Clone)]
enum Change {
    /// Bytes of this seed at a place, in per mille of the volume.
    Write(u64, u16, u32),
    /// Zeros.
    Punch(u16, u32),
    Grow(u32),
}

/// A backup: what is changed before, and how it is made.
#[derive(Debug, Clone)]
struct Link {
    changes: Vec<Change>,
    full: bool,
    compression: Compression,
    /// Whether the caller knows what has changed.
    compared: bool,
}

#[derive(Debug, Clone)]
struct World {
    size: u64,
    links: Vec<Link>,
    /// Which of them is deleted in the end.
    deleted: usize,
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => (1..5_u64, 0..1000_u16, 1..3_000_000_u32)
            .prop_map(|(seed, at, length)| Change::Write(seed, at, length)),
        2 => (0..1000_u16, 1..5_000_000_u32).prop_map(|(at, length)| Change::Punch(at, length)),
        1 => (1..4_000_000_u32).prop_map(Change::Grow),
    ]
}

fn world() -> impl Strategy<Value = World> {
    let compression = prop_oneof![
        Just(Compression::None),
        Just(Compression::Gzip),
        Just(Compression::Lz4)
    ];
    let link = (
        proptest::collection::vec(change(), 0..4),
        proptest::bool::weighted(0.2),
        compression,
        any::<bool>(),
    );
    let link = link.prop_map(|(changes, full, compression, compared)| Link {
        changes,
        full,
        compression,
        compared,
    });
    let links = proptest::collection::vec(link, 2..4);
    (1..6 * BLOCK, links, 0..4_usize).prop_map(|(size, links, deleted)| World {
        size,
        deleted: deleted % links.len(),
        links,
    })
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let place = |at: u16, length: u32, bytes: &[u8]| {
            let from = bytes.len() * usize::from(at) / 1000;
            from..bytes.len().min(from + length as usize)
        };
        match *self {
            Self::Write(seed, at, length) => {
                let range = place(at, length, bytes);
                let new = noise(seed, range.len() as u64);
                bytes[range].copy_from_slice(&new);
            }
            Self::Punch(at, length) => {
                let range = place(at, length, bytes);
                bytes[range].fill(0);
            }
            Self::Grow(by) => bytes.resize(bytes.len() + by as usize, 0),
        }
    }
}

/// The blocks that differ.
fn changed(before: &[u8], after: &[u8]) -> BlockSet {
    let mut differing = after.to_vec();
    for (byte, before) in differing.iter_mut().zip(before) {
        *byte ^= before;
    }
    let mut set = mapped(&differing, BlockSize::MIB2);
    if after.len() > before.len() {
        set.insert(before.len() as u64..after.len() as u64);
    }
    set
}

async fn plays(world: World) {
    let (_dir, store) = empty();
    let mut bytes = noise(9, world.size);
    let mut made: Vec<(String, Vec<u8>)> = Vec::new();
    for (index, link) in world.links.iter().enumerate() {
        for change in &link.changes {
            change.apply(&mut bytes);
        }
        let backup = format!("backup-{index}");
        let mut wish =
            Wish::new("vol", &backup, &bytes).at(&format!("2026-11-0{}T00:00:00Z", index + 1));
        wish.new.compression = link.compression;
        if link.full {
            wish.new.mode = Mode::Full;
        }
        if let Some((_, before)) = made.last().filter(|_| link.compared) {
            wish.changed = Some(changed(before, &bytes));
        }
        let info = wish.make(&store).await.unwrap();
        assert_eq!(info.incremental, index > 0 && !link.full);
        assert_eq!(info.volume_size, Some(bytes.len() as u64));
        made.push((backup, bytes.clone()));
    }
    let (deleted, _) = made.remove(world.deleted);
    store
        .delete_backup(&name("vol"), &name(&deleted), &Job::silent())
        .await
        .unwrap();
    let restores = made.iter().map(|(backup, bytes)| {
        let store = &store;
        async move {
            assert!(
                restore(store, "vol", backup).await.unwrap() == *bytes,
                "{backup}"
            );
        }
    });
    futures_util::future::join_all(restores).await;
    let report = store
        .verify(&name("vol"), Sample::All, &Job::silent())
        .await
        .unwrap();
    assert!(report.is_whole(), "{report:?}");
    let count = store.volume(&name("vol")).await.unwrap().block_count;
    assert_eq!(
        count, report.blocks,
        "nothing is left over, and the record is right"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2, max_shrink_iters: 20, ..ProptestConfig::default() })]

    // Most of the time is that of locks, so many worlds at once.
    #[test]
    fn every_backup_of_any_chain_restores_what_the_volume_was(
        worlds in proptest::collection::vec(world(), 12)
    ) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let plays = worlds.into_iter().map(|world| tokio::spawn(plays(world)));
            for played in futures_util::future::join_all(plays).await {
                played.unwrap();
            }
        });
    }
}
