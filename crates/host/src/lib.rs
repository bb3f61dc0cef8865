//! This Linux node: loop devices, mounts, file systems, and the whole node side life of a volume.
//!
//! Blocking, privileged (needs `CAP_SYS_ADMIN`), and shared by the CSI node plugin and the
//! FlexVolume executable, so that attach, probe, mount and grow exist once. It parses no image and
//! no layer, runs nothing through a shell, and knows nothing of async, gRPC or Kubernetes.
//!
//! | module | owns |
//! |---|---|
//! | [`staging`] | stage, publish, unpublish, unstage, expand, stats: what the programs call |
//! | [`filesystem`] | format (blank volumes only), check, grow |
//! | [`mounts`] | mounting a device, binding, unmounting; the allow-list of mount flags |
//! | [`mountinfo`] | the parser of `/proc/self/mountinfo` |
//! | [`loopdev`] | loop devices |
//! | [`paths`] | places to mount at, opened so that nobody can swap them |
//! | [`drbd`] | replicated volumes: DRBD 9 of this node's kernel |
//! | [`disks`] | the disks of this node, and the files of volumes on them |
//! | [`confine`] | what a privileged process gives up at its start |
//! | [`command`] | running the few external tools |
//! | [`shares`] | shares of a network, mounted where backups are looked for |
//! | [`target`] | volumes as iSCSI targets: the control of tgtd |
//! | [`requirements`] | what a node must have |
//!
//! Needs Linux 5.12 (`mount_setattr`; `LOOP_CONFIGURE` is 5.8, the mount API 5.2).

mod bounded;
pub mod command;
pub mod confine;
mod device;
pub mod disks;
pub mod drbd;
mod error;
pub mod filesystem;
mod holder;
pub mod loopdev;
pub mod mountinfo;
pub mod mounts;
pub mod paths;
pub mod requirements;
pub mod shares;
pub mod staging;
pub mod target;

pub use device::{BlockDevice, DeviceNumber};
pub use disks::Disks;
pub use error::{Error, Result};
pub use holder::Holder;
pub use probe::FsType;
