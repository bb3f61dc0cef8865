//! The device of a replicated volume on this node: what staging mounts, and what is told of it.

use std::path::{Path, PathBuf};

use replication::{Connection, DiskState, Role};
use types::{ByteSize, VolumeName};

use super::status::{self, Peer, Resource};
use super::{parts, resource_name, tools};
use crate::device::BlockDevice;
use crate::{Error, Result};

/// Without the module nothing is of DRBD, and `drbdsetup` is not asked.
const MODULE: &str = "/sys/module/drbd";

/// The device of a replicated volume on every node.
pub fn device_path(minor: u32) -> PathBuf {
    PathBuf::from(format!("/dev/drbd{minor}"))
}

/// Whether a name in `/dev` is that of such a device.
pub(crate) fn is_name(name: &str) -> bool {
    let digits = name.strip_prefix("drbd").unwrap_or_default();
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// The minor number of the device at a path in `/dev`; `None`: it is no device of DRBD.
pub(crate) fn minor_of(path: &Path) -> Option<u32> {
    let name = path.strip_prefix("/dev").ok()?.to_str()?;
    name.strip_prefix("drbd")
        .filter(|_| is_name(name))?
        .parse()
        .ok()
}

/// The device, which must be there. It is not opened: that is refused where the volume was taken over, and keeps
/// everybody from giving it back.
pub(crate) fn device(minor: u32) -> Result<BlockDevice> {
    let path = device_path(minor);
    let device = BlockDevice::named(&format!("drbd{minor}"))?;
    device.ok_or_else(|| {
        let missing = std::io::ErrorKind::NotFound;
        Error::io("find", &path)(std::io::Error::from(missing))
    })
}

/// The volume whose device has this minor number; `None`: it is not one of ours.
pub(crate) fn volume_of(minor: u32) -> Result<Option<VolumeName>> {
    if !Path::new(MODULE).exists() {
        return Ok(None);
    }
    let resources = status::states(None)?;
    let of_minor = |resource: &Resource| {
        resource
            .device
            .as_ref()
            .is_some_and(|one| one.minor == minor)
    };
    let found = resources.iter().find(|(_, resource)| of_minor(resource));
    Ok(found.and_then(|(name, _)| parts::volume_of(name)))
}

/// Whether the device with this minor number is that of the volume, and its users may read or write here.
pub(crate) fn is_attached(minor: u32, volume: &VolumeName) -> Result<bool> {
    if !Path::new(MODULE).exists() {
        return Ok(false);
    }
    let name = resource_name(volume);
    let resource = status::ask(Some(&name))?.remove(&name);
    Ok(resource.is_some_and(|resource| {
        let is_its = resource
            .device
            .as_ref()
            .is_some_and(|device| device.minor == minor);
        is_its && !resource.fails && (resource.role == Role::Primary || resource.auto_promote)
    }))
}

/// Gives the right to write to a volume back; one that this node does not have is a success.
///
/// # Errors
/// [`Error::Drbd`] while somebody has the device open, with who that is.
pub(crate) fn release(volume: &VolumeName) -> Result<()> {
    if !Path::new(MODULE).exists() {
        return Ok(());
    }
    let name = resource_name(volume);
    let Some(resource) = status::states(Some(&name))?.remove(&name) else {
        return Ok(());
    };
    if resource.role != Role::Secondary {
        tools::change(volume, "detach", &["secondary", &name])?;
    }
    let promote = ["resource-options", &name, "--auto-promote=no"];
    tools::change(volume, "detach", &promote)
}

/// What is wrong with the replicas of a volume, as this node sees it. Empty: all are current.
///
/// # Errors
/// The kernel does not say.
pub(crate) fn troubles(volume: &VolumeName) -> Result<Vec<String>> {
    let name = resource_name(volume);
    let resource = status::states(Some(&name))?.remove(&name);
    Ok(resource.as_ref().map_or_else(
        || vec!["DRBD does not know the volume on this node any more".to_owned()],
        describe,
    ))
}

fn describe(resource: &Resource) -> Vec<String> {
    let mut all = Vec::new();
    if resource.fails {
        all.push(
            "another node has taken the volume over: everything fails here until its users have closed it".to_owned(),
        );
    }
    if resource.suspended {
        all.push(if resource.suspended_by_user {
            "its writes are stopped for a snapshot".to_owned()
        } else {
            "its I/O waits: no majority of its replicas can be reached".to_owned()
        });
    }
    let own = resource.device.as_ref().filter(|device| !device.is_client);
    let replicas: Vec<&Peer> = (resource.peers.iter())
        .filter(|peer| peer.link.replica)
        .collect();
    let count = replicas.len() + usize::from(own.is_some());
    let is_current = |disk| disk == DiskState::UpToDate;
    let current = replicas
        .iter()
        .filter(|peer| is_current(peer.link.disk))
        .count()
        + usize::from(own.is_some_and(|device| is_current(device.disk)));
    if current < count {
        let mut why = Vec::new();
        match own {
            Some(device) if device.disk == DiskState::Diskless => {
                why.push("the one of this node is not attached".to_owned());
            }
            Some(device) if !is_current(device.disk) => {
                why.push(format!("the one of this node is {}", device.disk.as_str()));
            }
            _ => {}
        }
        why.extend(replicas.into_iter().filter_map(lacking));
        all.push(format!(
            "degraded: {current} of {count} replicas are current ({})",
            why.join(", ")
        ));
    }
    all
}

/// What a replica of another node lacks; `None`: nothing.
fn lacking(peer: &Peer) -> Option<String> {
    let (link, node) = (&peer.link, &peer.link.node);
    match (link.connection, link.disk) {
        (Connection::Connected, DiskState::UpToDate) => None,
        (Connection::Connected, DiskState::Diskless) => Some(format!("{node}'s is not attached")),
        (Connection::Connected, disk) if link.out_of_sync == ByteSize(0) => {
            Some(format!("{node}'s is {}", disk.as_str()))
        }
        (Connection::Connected, _) => Some(format!("{node} lacks {} bytes", link.out_of_sync)),
        _ => Some(format!("{node} is not connected")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_devices_are_read_back() {
        assert_eq!(minor_of(&device_path(1000)), Some(1000));
        for other in [
            "/dev/drbd",
            "/dev/drbd1a",
            "/dev/loop1",
            "/dev/drbd/1",
            "drbd1",
            "/x/drbd1",
        ] {
            assert_eq!(minor_of(Path::new(other)), None, "{other}");
        }
    }

    #[test]
    fn the_condition_says_how_many_replicas_are_current_and_why_not_all() {
        let read = |text: &str| {
            status::parse(text.as_bytes())
                .unwrap()
                .pop_first()
                .unwrap()
                .1
        };
        let well = read(include_str!("../../tests/drbd/status-primary.json"));
        assert!(describe(&well).is_empty());
        let cut_off = read(include_str!("../../tests/drbd/status-no-quorum.json"));
        assert_eq!(
            describe(&cut_off),
            [
                "its I/O waits: no majority of its replicas can be reached",
                "degraded: 1 of 3 replicas are current (node2 is not connected, node3 is not connected)"
            ]
        );
        let mut filling = well;
        filling.peers[0].link.disk = DiskState::Inconsistent;
        filling.peers[0].link.out_of_sync = ByteSize(4096);
        filling.peers[1].link.replica = false;
        filling.device.as_mut().unwrap().is_client = true;
        assert_eq!(
            describe(&filling),
            ["degraded: 0 of 1 replicas are current (node2 lacks 4096 (4Ki) bytes)"]
        );
    }
}
