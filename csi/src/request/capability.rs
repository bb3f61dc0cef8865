//! Volume capabilities: how a volume is going to be used.

use csi::volume_capability::access_mode::Mode as WireMode;
use csi::volume_capability::{AccessType, MountVolume};
use host::FsType;
use host::staging::Access;
use proto::csi::v1 as csi;

use crate::error::{Error, Result};

/// What `mount_flags` may hold in all (CSI specification, MountVolume).
const FLAGS_BYTES: usize = 4096;

/// Who may use a volume at once. Modes in which several nodes write are not offered: one volume
/// lies on one node, and no file system here could bear two writers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    SingleNodeWriter,
    SingleNodeReader,
    /// One target on one node writes: ReadWriteOncePod.
    SingleNodeSingleWriter,
    /// Several targets on one node write.
    SingleNodeMultiWriter,
    /// Every node that holds the data reads.
    MultiNodeReader,
}

impl Mode {
    /// Whether nothing may be written.
    pub(crate) const fn read_only(self) -> bool {
        matches!(self, Self::SingleNodeReader | Self::MultiNodeReader)
    }

    /// Whether several nodes may use the volume at once.
    pub(crate) const fn multi_node(self) -> bool {
        matches!(self, Self::MultiNodeReader)
    }

    /// Whether a second target is refused. The plugin declares SINGLE_NODE_MULTI_WRITER, and with
    /// that SINGLE_NODE_WRITER allows several targets on its node.
    pub(crate) const fn single_writer(self) -> bool {
        matches!(self, Self::SingleNodeSingleWriter)
    }
}

#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Capability {
    /// As a file system or as a block device.
    pub(crate) access: Access,
    pub(crate) mode: Mode,
}

impl Capability {
    /// Checks one capability; `field` is its name in the request.
    pub(crate) fn parse(field: &'static str, wire: Option<csi::VolumeCapability>) -> Result<Self> {
        let wire = wire.ok_or(Error::Missing { field })?;
        let mode = mode(
            wire.access_mode
                .map_or(WireMode::Unknown, |mode| mode.mode()),
        )?;
        let access = match wire.access_type.ok_or(Error::Missing {
            field: "access_type",
        })? {
            AccessType::Block(_) => Access::Block,
            AccessType::Mount(mount) => parse_mount(mount)?,
        };
        Ok(Self { access, mode })
    }

    /// Checks the capabilities that a volume must all suit; there is at least one.
    pub(crate) fn parse_all(wire: Vec<csi::VolumeCapability>) -> Result<Vec<Self>> {
        if wire.is_empty() {
            return Err(Error::Missing {
                field: "volume_capabilities",
            });
        }
        wire.into_iter()
            .map(|one| Self::parse("volume_capabilities", Some(one)))
            .collect()
    }

    /// The file system asked for, if any is.
    pub(crate) const fn fs_type(&self) -> Option<FsType> {
        match &self.access {
            Access::Mount { fs_type, .. } => *fs_type,
            Access::Block => None,
        }
    }

    /// Whether it is to be mounted.
    pub(crate) const fn is_mount(&self) -> bool {
        matches!(self.access, Access::Mount { .. })
    }
}

fn mode(wire: WireMode) -> Result<Mode> {
    Ok(match wire {
        WireMode::SingleNodeWriter => Mode::SingleNodeWriter,
        WireMode::SingleNodeReaderOnly => Mode::SingleNodeReader,
        WireMode::SingleNodeSingleWriter => Mode::SingleNodeSingleWriter,
        WireMode::SingleNodeMultiWriter => Mode::SingleNodeMultiWriter,
        WireMode::MultiNodeReaderOnly => Mode::MultiNodeReader,
        WireMode::MultiNodeSingleWriter | WireMode::MultiNodeMultiWriter => {
            let why = "several nodes cannot write to one volume; use ReadWriteOnce, \
                       ReadWriteOncePod or ReadOnlyMany";
            return Err(Error::Invalid {
                field: "access_mode",
                why,
            });
        }
        WireMode::Unknown => {
            return Err(Error::Missing {
                field: "access_mode",
            });
        }
    })
}

fn parse_mount(mount: MountVolume) -> Result<Access> {
    if !mount.volume_mount_group.is_empty() {
        let why = "this plugin does not declare VOLUME_MOUNT_GROUP";
        return Err(Error::Invalid {
            field: "volume_mount_group",
            why,
        });
    }
    if mount.mount_flags.iter().map(String::len).sum::<usize>() > FLAGS_BYTES {
        let why = "they hold more than the CSI specification allows";
        return Err(Error::Invalid {
            field: "mount_flags",
            why,
        });
    }
    let fs_type = fs_type("fs_type", &mount.fs_type)?;
    host::mounts::check_flags(&mount.mount_flags, fs_type)?;
    Ok(Access::Mount {
        fs_type,
        flags: mount.mount_flags,
    })
}

/// A file system type by its name; an empty text asks for none.
pub(super) fn fs_type(field: &'static str, text: &str) -> Result<Option<FsType>> {
    if text.is_empty() {
        return Ok(None);
    }
    let why = "this file system is not supported; use ext4, ext3, ext2, xfs or btrfs, or leave \
               it empty for the file system of the image";
    let fs_type: FsType = text.parse().map_err(|_| Error::Invalid { field, why })?;
    if host::mounts::is_supported(fs_type) {
        Ok(Some(fs_type))
    } else {
        Err(Error::Invalid { field, why })
    }
}

#[cfg(test)]
mod tests {
    use types::{Classify as _, ErrorKind};

    use super::*;

    fn mount(fs_type: &str, mode: WireMode) -> csi::VolumeCapability {
        csi::VolumeCapability {
            access_type: Some(AccessType::Mount(MountVolume {
                fs_type: fs_type.to_owned(),
                ..Default::default()
            })),
            access_mode: Some(csi::volume_capability::AccessMode { mode: mode.into() }),
        }
    }

    #[test]
    fn a_capability_needs_its_parts() {
        let writer = WireMode::SingleNodeWriter;
        for (case, capability) in [
            (
                "no type",
                csi::VolumeCapability {
                    access_type: None,
                    ..mount("", writer)
                },
            ),
            (
                "no mode",
                csi::VolumeCapability {
                    access_mode: None,
                    ..mount("", writer)
                },
            ),
            ("unknown mode", mount("", WireMode::Unknown)),
            ("two writers", mount("", WireMode::MultiNodeMultiWriter)),
            (
                "one writer, many nodes",
                mount("", WireMode::MultiNodeSingleWriter),
            ),
        ] {
            let error = Capability::parse("volume_capability", Some(capability))
                .err()
                .unwrap();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{case}: {error}");
        }
        assert!(Capability::parse("volume_capability", None).is_err());
        assert!(Capability::parse_all(Vec::new()).is_err());
    }

    #[test]
    fn row_79_only_known_file_systems_are_asked_for() {
        for name in [
            "ext4 -o loop",
            "overlay",
            "fuse.sshfs",
            "EXT4",
            "ntfs",
            "ext4;",
            " ext4",
            "null",
        ] {
            let wire = mount(name, WireMode::SingleNodeWriter);
            assert!(
                Capability::parse("volume_capability", Some(wire)).is_err(),
                "{name:?}"
            );
        }
        for name in ["", "ext2", "ext3", "ext4", "xfs", "btrfs"] {
            let wire = mount(name, WireMode::SingleNodeWriter);
            let capability = Capability::parse("volume_capability", Some(wire))
                .ok()
                .unwrap();
            assert_eq!(capability.fs_type().map_or("", FsType::as_str), name);
        }
    }

    #[test]
    fn row_79_only_known_mount_flags_are_taken() {
        for (flags, taken) in [
            (&["noatime"][..], true),
            (&["suid"], false),
            (&["dev"], false),
            (&["loop=/dev/loop0"], false),
            (&["x-systemd.automount"], false),
            (&["noatime", ";reboot"], false),
        ] {
            let mut wire = mount("", WireMode::SingleNodeWriter);
            wire.access_type = Some(AccessType::Mount(MountVolume {
                mount_flags: flags.iter().map(ToString::to_string).collect(),
                ..Default::default()
            }));
            let parsed = Capability::parse("volume_capability", Some(wire));
            assert_eq!(parsed.is_ok(), taken, "{flags:?}");
        }
    }

    #[test]
    fn modes_say_who_may_write() {
        for (wire, read_only, multi_node, single_writer) in [
            (WireMode::SingleNodeWriter, false, false, false),
            (WireMode::SingleNodeReaderOnly, true, false, false),
            (WireMode::SingleNodeSingleWriter, false, false, true),
            (WireMode::SingleNodeMultiWriter, false, false, false),
            (WireMode::MultiNodeReaderOnly, true, true, false),
        ] {
            let mode = mode(wire).unwrap();
            let told = (mode.read_only(), mode.multi_node(), mode.single_writer());
            assert_eq!(told, (read_only, multi_node, single_writer), "{wire:?}");
        }
    }
}
