//! Row 80: many volumes, one after the other: nothing is left of them, in memory or on the machine.
//! `make bench` does the same with 500, and prints whether the calls get slower.
#![allow(clippy::unwrap_used, reason = "a test")]

use e2e::churn::{Held, churn};
use e2e::{FileSystem, Need, Node, Sandbox, needs};

/// Volumes of one round.
const VOLUMES: usize = 40;
/// Allocators keep what they got; a leak of one volume's record in each call would be more.
const MEMORY_SLACK: u64 = 4 << 20;

#[test]
fn row_80_volumes_come_and_go_without_a_trace() {
    needs!(Need::Root, Need::FileSystem("xfs"));
    let sandbox = Sandbox::new("csi-churn");
    let node = Node::new(&sandbox, FileSystem::Xfs);
    let (plugin, disk) = (&node.plugin, &node.disk);
    let held = || [&plugin.process, &node.manager.process].map(Held::by);
    // The first round fills what is filled once: pools of threads, caches, the allocator.
    churn(plugin, VOLUMES);
    let (used, before) = (disk.used(), held());
    churn(plugin, VOLUMES);
    churn(plugin, VOLUMES);
    for (before, after) in before.into_iter().zip(held()) {
        assert!(
            after.memory <= before.memory + MEMORY_SLACK
                && after.descriptors <= before.descriptors + 2,
            "{before:?} has become {after:?}"
        );
    }
    assert!(
        disk.used() <= used + (1 << 20),
        "{used} bytes in use have become {}",
        disk.used()
    );
    node.assert_empty(&sandbox);
}
