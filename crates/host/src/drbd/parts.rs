//! From what the kernel tells to [`Part`]s.

use std::path::Path;

use replication::{DiskState, Layout, Link, Part};
use types::{ByteSize, DiskUuid, NodeId, VolumeName};

use super::device::device_path;
use super::metadata::Superblock;
use super::settings::PREFIX;
use super::status::{Peer, Resource, Resources};
use super::{replica, resource_name};
use crate::Result;
use crate::disks::Disks;
use crate::loopdev::LoopDevice;
use crate::mountinfo::{self, Mount};

/// The volume of a resource of ours.
pub(super) fn volume_of(name: &str) -> Option<VolumeName> {
    VolumeName::new(name.strip_prefix(PREFIX)?).ok()
}

/// What a disk of this node has of a volume.
pub(super) type OnDisk = (VolumeName, DiskUuid, Result<Option<Superblock>>);

/// All parts of this node: of each resource of ours, and of each layout.
pub(super) fn all(
    on_disks: &[OnDisk],
    resources: &Resources,
    known: &[Layout],
    node: &NodeId,
) -> Result<Vec<Part>> {
    let mounts = mountinfo::read()?;
    let mut parts = Vec::new();
    for layout in known {
        let resource = resources.get(&resource_name(&layout.volume));
        let superblock = |disk: &DiskUuid| {
            let mut all = on_disks.iter();
            let found = all.find(|(volume, on, _)| *volume == layout.volume && on == disk);
            match found {
                Some((_, _, Ok(superblock))) => Ok(superblock.clone()),
                Some((_, _, Err(error))) => Err(types::report(error).to_string()),
                None => Err(format!("disk {disk} does not show its metadata")),
            }
        };
        parts.push(of_layout(superblock, layout, node, resource, &mounts));
    }
    for (name, resource) in resources {
        if let Some(volume) = volume_of(name)
            && !known.iter().any(|layout| layout.volume == volume)
        {
            parts.push(of_kernel(volume, Some(resource), &mounts));
        }
    }
    parts.sort_by(|a, b| a.volume.cmp(&b.volume));
    Ok(parts)
}

/// The part of one layout.
pub(super) fn part(
    disks: &Disks,
    layout: &Layout,
    node: &NodeId,
    resource: Option<&Resource>,
) -> Result<Part> {
    let superblock = |disk: &DiskUuid| {
        let found = replica::superblock(disks, &layout.volume, disk);
        found.map_err(|error| types::report(&error).to_string())
    };
    let mounts = mountinfo::read()?;
    Ok(of_layout(superblock, layout, node, resource, &mounts))
}

fn of_layout(
    superblock: impl Fn(&DiskUuid) -> Result<Option<Superblock>, String>,
    layout: &Layout,
    node: &NodeId,
    resource: Option<&Resource>,
    mounts: &[Mount],
) -> Part {
    let mut part = of_kernel(layout.volume.clone(), resource, mounts);
    part.generation = layout.generation;
    let Some(me) = layout.member(node) else {
        return part;
    };
    if !part.up {
        part.me = me.id;
    }
    if let Some(disk) = &me.disk {
        match superblock(disk) {
            // One that is current was written, or declared to be; the kernel writes its metadata a little later.
            Ok(superblock) => {
                part.fresh = part.disk != DiskState::UpToDate
                    && superblock.is_none_or(|superblock| superblock.is_fresh());
            }
            Err(why) => part.troubles.push(why),
        }
        if part.up && part.disk <= DiskState::Failed {
            part.troubles
                .push(format!("its replica on disk {disk} is not attached"));
        }
    }
    let device = resource.and_then(|resource| resource.device.as_ref());
    if let Some(minor) = device
        .map(|device| device.minor)
        .filter(|minor| *minor != layout.minor)
    {
        part.troubles.push(format!(
            "the kernel has it as {} and not as {}",
            device_path(minor).display(),
            device_path(layout.minor).display(),
        ));
    }
    part
}

fn of_kernel(volume: VolumeName, resource: Option<&Resource>, mounts: &[Mount]) -> Part {
    let mut part = Part::absent(volume);
    let Some(resource) = resource else {
        return part;
    };
    part.me = resource.me;
    part.role = resource.role;
    part.suspended = resource.suspended;
    part.majority_is_current = resource.majority_is_current;
    let link = |peer: &Peer| -> Link { peer.link.clone() };
    part.links = resource.peers.iter().map(link).collect();
    if let Some(device) = &resource.device {
        part.up = true;
        part.disk = device.disk;
        part.quorum = device.quorum;
        part.size = device.size;
        part.open = resource.fails || is_open(device.minor, mounts);
        part.backing = device.backing.as_deref().map_or(ByteSize(0), backing_size);
        if !device.quorum {
            part.troubles
                .push("it does not see the majority of its replicas".to_owned());
        }
    }
    part
}

/// The size of the device below a replica; 0: it is gone.
fn backing_size(path: &str) -> ByteSize {
    let name = path.strip_prefix("/dev/").unwrap_or_default();
    let size = LoopDevice::open(name)
        .ok()
        .flatten()
        .and_then(|device| device.size().ok());
    ByteSize(size.unwrap_or_default())
}

/// Whether the device is mounted, given to a pod, or below another device. The kernel knows more openers, and refuses
/// for them by itself.
fn is_open(minor: u32, mounts: &[Mount]) -> bool {
    let name = format!("drbd{minor}");
    let device = device_path(minor);
    let holders = Path::new("/sys/block").join(&name).join("holders");
    mounts.iter().any(|mount| {
        mount.source == device
            || matches!(mount.fs_type.as_str(), "devtmpfs" | "tmpfs")
                && mount.root == Path::new("/").join(&name)
    }) || std::fs::read_dir(holders).is_ok_and(|mut holders| holders.next().is_some())
}
