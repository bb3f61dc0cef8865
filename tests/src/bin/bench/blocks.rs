//! Which blocks changed between two snapshots: by their extents, which must not take the time of reading them.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::Instant;

use e2e::manager::{Options, from_volume, init_disk};
use e2e::{Disk, FileSystem, Manager, Need, Sandbox, block_on, command, needs};
use proto::storage::v1 as pb;

use crate::report::{Budget, Report, Runs};

const SIZE: u64 = 4 << 30;
const EXTENTS: u64 = 20_000;
const BLOCK: u64 = 4096;
/// What the comparison may take, in milliseconds.
const BUDGET: f64 = 1000.0;

/// Snapshots of 4 GiB in 20,000 extents, between which every second of them was written again.
pub(crate) fn changed(report: &mut Report) {
    for (case, file_system) in [
        ("changed-blocks-4GiB-xfs", FileSystem::Xfs),
        ("changed-blocks-4GiB-btrfs", FileSystem::Btrfs),
    ] {
        if needs::missing(&[Need::FileSystem(file_system.name())]).is_some() {
            continue;
        }
        let sandbox = Sandbox::new("bench-blocks");
        let disk = Disk::new(&sandbox, "disk", file_system, 8 << 30);
        init_disk(disk.dir());
        let manager = Manager::start(&sandbox, &Options::new(disk.dir()));
        let volume = manager.create_volume("source", "", SIZE).unwrap();
        let path = disk.dir().join(&volume.replicas[0].path);
        let file = File::options().write(true).open(path).unwrap();
        let write = |step: usize, byte: u8| {
            for extent in (0..EXTENTS).step_by(step) {
                let at = extent * (SIZE / EXTENTS) / BLOCK * BLOCK;
                file.write_all_at(&[byte; BLOCK as usize], at).unwrap();
            }
            file.sync_all().unwrap();
        };
        write(1, 1);
        manager.make_image(from_volume("one", "source")).unwrap();
        write(2, 2);
        manager.make_image(from_volume("two", "source")).unwrap();
        command::run("sync", [""; 0]);
        let listed = || {
            let begun = Instant::now();
            let found = count(&manager);
            assert_eq!(found, EXTENTS / 2 * BLOCK);
            begun.elapsed().as_secs_f64() * 1e3
        };
        let runs = Runs::interleaved(7, listed, || BUDGET);
        report.add(case, &runs, "the bound", "ms", Budget::AtMost(1.0));
    }
}

/// The bytes that differ.
fn count(manager: &Manager) -> u64 {
    let request = pb::ListSnapshotBlocksRequest {
        snapshot: "two".into(),
        base: "one".into(),
        ..Default::default()
    };
    block_on(async {
        let mut images = manager.images();
        let answer = images.list_snapshot_blocks(request).await.unwrap();
        let (mut blocks, mut bytes) = (answer.into_inner(), 0);
        while let Some(message) = blocks.message().await.unwrap() {
            bytes += message.ranges.iter().map(|one| one.length).sum::<u64>();
        }
        bytes
    })
}
