//! One node of a cluster: a disk, the manager that serves it, and the CSI plugin beside it.

use crate::csi::Plugin;
use crate::manager::{Options, init_disk};
use crate::{Disk, FileSystem, Manager, Sandbox};

/// Everything that a volume needs, in the order in which it is ended.
#[derive(Debug)]
pub struct Node {
    /// The plugin.
    pub plugin: Plugin,
    /// The manager of its only disk.
    pub manager: Manager,
    /// The disk.
    pub disk: Disk,
}

impl Node {
    /// One with an empty disk of 1 GiB.
    #[track_caller]
    pub fn new(sandbox: &Sandbox, file_system: FileSystem) -> Self {
        let disk = Disk::new(sandbox, "disk", file_system, 1 << 30);
        Self::start(sandbox, disk, |options| options)
    }

    /// One with this empty disk, and what the manager is told besides.
    #[track_caller]
    pub fn start(sandbox: &Sandbox, disk: Disk, tell: impl FnOnce(Options) -> Options) -> Self {
        init_disk(disk.dir());
        let manager = Manager::start(sandbox, &tell(Options::new(disk.dir())));
        let plugin = Plugin::start(sandbox, &manager, disk.dir());
        Self {
            plugin,
            manager,
            disk,
        }
    }

    /// Nothing is left of any volume, on the disk or in the kernel.
    #[track_caller]
    pub fn assert_empty(&self, sandbox: &Sandbox) {
        assert_eq!(self.manager.list_volumes().unwrap(), Vec::new());
        let volumes = self.disk.dir().join("volumes");
        sandbox.assert_nothing_attached(&volumes);
        sandbox.assert_nothing_attached(self.plugin.kubelet_dir());
        let left = std::fs::read_dir(volumes).unwrap().count();
        assert_eq!(left, 0, "directories of deleted volumes");
    }
}
