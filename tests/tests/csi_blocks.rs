//! The blocks of snapshots: those that hold data, and those that changed between two, checked against the
//! bytes.
#![allow(
    clippy::unwrap_used,
    clippy::single_range_in_vec_init,
    reason = "a test, and ranges are what is listed"
)]

use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use e2e::csi::{Claim, block, claim, refused};
use e2e::{FileSystem, Need, Node, Sandbox, block_on, needs};
use proto::csi::v1 as csi;
use proto::storage::v1 as pb;
use tonic::{Code, Status, Streaming};

const MIB: u64 = 1 << 20;
const BLOCK: u64 = 4096;
const SIZE: u64 = 64 * MIB;

type Ranges = Vec<Range<u64>>;
/// The ranges of each message.
type Pages = Vec<Ranges>;

/// All messages of a stream; each says the same of the volume.
async fn pages<T>(
    mut stream: Streaming<T>,
    read: impl Fn(T) -> (i32, i64, Vec<csi::BlockMetadata>),
) -> Result<Pages, Status> {
    let mut pages = Pages::new();
    while let Some(message) = stream.message().await? {
        let (kind, capacity, ranges) = read(message);
        assert_eq!(kind, i32::from(csi::BlockMetadataType::VariableLength));
        assert_eq!(capacity, SIZE.cast_signed());
        let ranges = ranges.iter().map(|one| {
            let start = one.byte_offset.cast_unsigned();
            start..start + one.size_bytes.cast_unsigned()
        });
        pages.push(ranges.collect());
    }
    Ok(pages)
}

fn allocated(node: &Node, snapshot: &str, from: i64, most: i32) -> Result<Pages, Status> {
    let request = csi::GetMetadataAllocatedRequest {
        snapshot_id: snapshot.into(),
        starting_offset: from,
        max_results: most,
        ..Default::default()
    };
    block_on(async {
        let mut client = node.plugin.snapshot_metadata();
        let stream = client.get_metadata_allocated(request).await?.into_inner();
        let read = |m: csi::GetMetadataAllocatedResponse| {
            (
                m.block_metadata_type,
                m.volume_capacity_bytes,
                m.block_metadata,
            )
        };
        pages(stream, read).await
    })
}

fn delta(node: &Node, base: &str, target: &str, from: i64, most: i32) -> Result<Pages, Status> {
    let request = csi::GetMetadataDeltaRequest {
        base_snapshot_id: base.into(),
        target_snapshot_id: target.into(),
        starting_offset: from,
        max_results: most,
        ..Default::default()
    };
    block_on(async {
        let mut client = node.plugin.snapshot_metadata();
        let stream = client.get_metadata_delta(request).await?.into_inner();
        let read = |m: csi::GetMetadataDeltaResponse| {
            (
                m.block_metadata_type,
                m.volume_capacity_bytes,
                m.block_metadata,
            )
        };
        pages(stream, read).await
    })
}

/// A volume for a block device, and the device.
fn device(node: &Node, name: &str, size: u64) -> (Claim, PathBuf) {
    let mut request = claim(name, size, &[]);
    request.volume_capabilities = vec![block()];
    let mut claim = node.plugin.provision(&request).unwrap();
    let device = node.plugin.run_pod(&mut claim, "pod").unwrap();
    (claim, device)
}

/// Blocks of bytes that are not zeros.
fn write(device: &File, blocks: impl IntoIterator<Item = u64>, byte: u8) {
    for block in blocks {
        device.write_all_at(&[byte; 4096], block * BLOCK).unwrap();
    }
    device.sync_all().unwrap();
}

/// What a snapshot holds, as it lies on the disk.
fn bytes(node: &Node, snapshot: &str) -> Vec<u8> {
    let images = fs::read_dir(node.disk.dir().join("backing-images")).unwrap();
    let is_it = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.rsplit_once('-')
            .is_some_and(|(name, _)| name == snapshot)
    };
    let mut images = images.map(|entry| entry.unwrap().path()).filter(is_it);
    fs::read(images.next().unwrap().join("backing")).unwrap()
}

/// Whether a range is in one of others.
fn is_in(range: &Range<u64>, ranges: &[Range<u64>]) -> bool {
    ranges
        .iter()
        .any(|one| one.start <= range.start && range.end <= one.end)
}

/// The blocks in which two contents differ, each as a range.
fn differing(old: &[u8], new: &[u8]) -> Ranges {
    let blocks = old.chunks(4096).zip(new.chunks(4096)).enumerate();
    blocks
        .filter(|(_, (old, new))| old != new)
        .map(|(number, _)| number as u64 * BLOCK..(number as u64 + 1) * BLOCK)
        .collect()
}

fn lists_blocks(file_system: FileSystem, shares: bool) {
    let sandbox = Sandbox::new("csi-blocks");
    let node = Node::new(&sandbox, file_system);
    let plugin = &node.plugin;
    let (claim, path) = device(&node, "source", SIZE);
    let device = File::options().read(true).write(true).open(path).unwrap();
    let take = |name: &str| {
        if !shares {
            // Nothing on a disk that cannot share extents is cloned while it is in use.
            plugin.end_pod(&claim, "pod").unwrap();
        }
        plugin.snapshot(name, "source").unwrap();
    };
    write(&device, [3, 4, 5, 1000, 16383], 1);
    if !shares {
        drop(device);
        take("one");
        take("two");
        let found = delta(&node, "one", "two", 0, 0).unwrap().concat();
        let written = [3 * BLOCK..6 * BLOCK, 1000 * BLOCK..1001 * BLOCK];
        assert!(
            written.iter().all(|range| is_in(range, &found)),
            "{found:?}"
        );
        plugin.delete_snapshot("one").unwrap();
        plugin.delete_snapshot("two").unwrap();
        plugin.delete(&claim).unwrap();
        return node.assert_empty(&sandbox);
    }
    take("one");
    write(&device, [4, 5, 7, 999], 2);
    take("two");
    write(&device, [4], 3);
    take("three");

    let (one, two, three) = (
        bytes(&node, "one"),
        bytes(&node, "two"),
        bytes(&node, "three"),
    );
    let zeros = vec![0; one.len()];
    for (name, bytes) in [("one", &one), ("two", &two), ("three", &three)] {
        let found = allocated(&node, name, 0, 0).unwrap().concat();
        let data = differing(&zeros, bytes);
        assert!(data.iter().all(|range| is_in(range, &found)), "{found:?}");
    }
    for (base, target, old, new, expected) in [
        ("one", "two", &one, &two, vec![4..6_u64, 7..8, 999..1000]),
        ("two", "three", &two, &three, vec![4..5]),
        ("one", "three", &one, &three, vec![4..6, 7..8, 999..1000]),
        ("two", "one", &two, &one, vec![4..6, 7..8, 999..1000]),
        ("two", "two", &two, &two, vec![]),
    ] {
        let expected: Ranges = expected
            .into_iter()
            .map(|range| range.start * BLOCK..range.end * BLOCK)
            .collect();
        let found = delta(&node, base, target, 0, 0).unwrap().concat();
        assert_eq!(found, expected, "{base} to {target}");
        assert!(differing(old, new).iter().all(|range| is_in(range, &found)));
    }
    pages_and_refusals(&node);

    for name in ["one", "two", "three"] {
        plugin.delete_snapshot(name).unwrap();
    }
    drop(device);
    plugin.end_pod(&claim, "pod").unwrap();
    plugin.delete(&claim).unwrap();
    node.assert_empty(&sandbox);
}

/// Goes on with snapshots `one` and `two`, between which the blocks 4, 5, 7 and 999 changed.
fn pages_and_refusals(node: &Node) {
    let changed = [4 * BLOCK..6 * BLOCK, 7 * BLOCK..8 * BLOCK];
    let last = 999 * BLOCK..1000 * BLOCK;
    let found = delta(node, "one", "two", 0, 1).unwrap();
    let single: Pages = changed
        .iter()
        .chain([&last])
        .map(|r| vec![r.clone()])
        .collect();
    assert_eq!(found, single);
    // From the block in which the offset lies.
    let from = (5 * BLOCK + 1).cast_signed();
    let found = delta(node, "one", "two", from, 2).unwrap();
    let second = vec![5 * BLOCK..6 * BLOCK, 7 * BLOCK..8 * BLOCK];
    assert_eq!(found, [second, vec![last.clone()]]);
    let end = SIZE.cast_signed();
    assert_eq!(delta(node, "one", "two", end, 0).unwrap(), [vec![]]);
    let from = (1000 * BLOCK + 1).cast_signed();
    let found = allocated(node, "one", from, 0).unwrap().concat();
    assert_eq!(found.first().unwrap().start, 1000 * BLOCK);
    assert!(is_in(&(16383 * BLOCK..SIZE), &found), "{found:?}");

    let plugin = &node.plugin;
    let other = plugin.provision(&claim("other", SIZE, &[])).unwrap();
    plugin.snapshot("foreign", "other").unwrap();
    for (result, code, says) in [
        (allocated(node, "none", 0, 0), Code::NotFound, "none"),
        (delta(node, "none", "two", 0, 0), Code::NotFound, "none"),
        (delta(node, "one", "../x", 0, 0), Code::NotFound, "../x"),
        (
            allocated(node, "", 0, 0),
            Code::InvalidArgument,
            "snapshot_id",
        ),
        (
            delta(node, "one", "two", -1, 0),
            Code::InvalidArgument,
            "starting_offset",
        ),
        (
            allocated(node, "one", 0, -1),
            Code::InvalidArgument,
            "max_results",
        ),
        (
            delta(node, "foreign", "two", 0, 0),
            Code::InvalidArgument,
            "other",
        ),
        (
            allocated(node, "one", end + 1, 0),
            Code::OutOfRange,
            "67108864",
        ),
        (
            delta(node, "one", "two", end + 1, 0),
            Code::OutOfRange,
            "67108864",
        ),
        (
            delta(node, "bak://source/one", "two", 0, 0),
            Code::FailedPrecondition,
            "backup",
        ),
    ] {
        refused(result, code, &[says]);
    }
    plugin.delete_snapshot("foreign").unwrap();
    plugin.delete(&other).unwrap();
}

#[test]
fn blocks_of_snapshots_on_xfs_are_those_that_were_written() {
    needs!(Need::Root, Need::FileSystem("xfs"));
    lists_blocks(FileSystem::Xfs, true);
}

#[test]
fn blocks_of_snapshots_on_btrfs_are_those_that_were_written() {
    needs!(Need::Root, Need::FileSystem("btrfs"));
    lists_blocks(FileSystem::Btrfs, true);
}

#[test]
fn where_extents_are_not_shared_every_block_with_data_has_changed() {
    needs!(Need::Root, Need::FileSystem("ext4"));
    lists_blocks(FileSystem::Ext4, false);
}

/// A caller that does not read on keeps no snapshot from being deleted, and learns that it has not got all.
#[test]
fn a_snapshot_is_deleted_though_its_blocks_are_being_listed() {
    needs!(Need::Root, Need::FileSystem("xfs"));
    let sandbox = Sandbox::new("csi-blocks-delete");
    let node = Node::new(&sandbox, FileSystem::Xfs);
    let (claim, path) = device(&node, "source", 128 * MIB);
    let device = File::options().write(true).open(path).unwrap();
    write(&device, (0..24_000).step_by(3), 1);
    node.plugin.snapshot("one", "source").unwrap();
    let request = pb::ListSnapshotBlocksRequest {
        snapshot: "one".into(),
        max_ranges: 1,
        ..Default::default()
    };
    let mut images = node.manager.images();
    let mut stream = block_on(images.list_snapshot_blocks(request))
        .unwrap()
        .into_inner();
    let first = block_on(stream.message()).unwrap().unwrap();
    assert_eq!(first.size, 128 * MIB);
    node.manager.delete_image("one").unwrap();
    let ended = block_on(async {
        loop {
            match stream.message().await {
                Ok(Some(_)) => {}
                ended => break ended,
            }
        }
    });
    // An end without an error would look as if this were all.
    assert_eq!(ended.unwrap_err().code(), Code::Aborted);
    drop(device);
    node.plugin.end_pod(&claim, "pod").unwrap();
    node.plugin.delete(&claim).unwrap();
    node.assert_empty(&sandbox);
}
