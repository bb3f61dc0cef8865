//! What the kernel tells: `drbdsetup status --json` for the states, `drbdsetup events2 --now` for what that leaves out
//! (paths, and the device below a replica), `drbdsetup show --json` for one option. The words are read so that one which is not known permits least.

use std::collections::BTreeMap;

use replication::{Connection, DiskState, Link, MemberId, Replication, Role};
use serde::Deserialize;
use types::ByteSize;

use super::tools;
use crate::command::Outcome;
use crate::{Error, Result};

/// The resources of the kernel, by name.
pub(super) type Resources = BTreeMap<String, Resource>;

/// A resource as the kernel has it.
#[expect(clippy::struct_excessive_bools, reason = "the words of the kernel")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resource {
    pub(super) me: MemberId,
    pub(super) role: Role,
    /// Whether I/O waits, for whatever reason.
    pub(super) suspended: bool,
    /// Whether it waits because somebody said so.
    pub(super) suspended_by_user: bool,
    /// Whether it was made Secondary while somebody had the device open, who has it open still.
    pub(super) fails: bool,
    /// Whether it needs a majority of current replicas.
    pub(super) majority_is_current: bool,
    /// Whether it may be opened on a Secondary.
    pub(super) auto_promote: bool,
    /// `None`: a crash came before it was made.
    pub(super) device: Option<Device>,
    pub(super) peers: Vec<Peer>,
}

/// Its device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Device {
    pub(super) minor: u32,
    pub(super) disk: DiskState,
    /// Whether it is to have no replica.
    pub(super) is_client: bool,
    pub(super) quorum: bool,
    pub(super) size: ByteSize,
    /// The device below, for example `/dev/loop3`; `None` without a replica.
    pub(super) backing: Option<String>,
}

/// A peer of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) link: Link,
    /// Addresses of both ends, as `drbdsetup` spells them.
    pub(super) paths: Vec<(String, String)>,
}

impl Resource {
    pub(super) fn peer(&self, id: MemberId) -> Option<&Peer> {
        self.peers.iter().find(|peer| peer.link.peer == id)
    }
}

/// Asks the kernel for the states of one resource, or of all: without paths, devices below, and options.
pub(super) fn states(name: Option<&str>) -> Result<Resources> {
    let status = ["status", "--json", "--verbose", "--statistics"];
    let status: Vec<&str> = status.into_iter().chain(name).collect();
    parse(&tools::tell(&status)?)
}

/// The same with all that is looked at.
pub(super) fn ask(name: Option<&str>) -> Result<Resources> {
    let mut resources = states(name)?;
    if !resources.is_empty() {
        let events = ["events2", "--now", "--statistics"];
        let events: Vec<&str> = events.into_iter().chain(name).collect();
        add_events(&mut resources, &tools::tell(&events)?);
        let shown: Vec<&str> = ["show", "--json"].into_iter().chain(name).collect();
        add_options(&mut resources, &tools::tell(&shown)?)?;
    }
    Ok(resources)
}

/// KiB to bytes.
const fn kib(count: u64) -> ByteSize {
    ByteSize(count.saturating_mul(1024))
}

pub(super) fn parse(bytes: &[u8]) -> Result<Resources> {
    let all: Vec<Shown> = serde_json::from_slice(bytes).map_err(|error| not_understood(&error))?;
    Ok(all
        .into_iter()
        .map(|shown| (shown.name.clone(), shown.into()))
        .collect())
}

/// The error tells a place in the answer, and nothing of what is there.
fn not_understood(error: &serde_json::Error) -> Error {
    tools::SETUP.failed(Outcome {
        code: None,
        status: "an answer that is not understood".to_owned(),
        said: format!("line {}, column {}", error.line(), error.column()),
    })
}

/// Adds what `show` tells of options. It shows secrets too, which are not even read.
fn add_options(resources: &mut Resources, bytes: &[u8]) -> Result<()> {
    #[derive(Deserialize)]
    struct Configured {
        resource: String,
        #[serde(default)]
        options: Options,
    }
    #[derive(Default, Deserialize)]
    struct Options {
        #[serde(default, rename = "quorum-minimum-redundancy")]
        redundancy: String,
        #[serde(default, rename = "auto-promote")]
        auto_promote: bool,
    }
    let all: Vec<Configured> =
        serde_json::from_slice(bytes).map_err(|error| not_understood(&error))?;
    for one in all {
        if let Some(resource) = resources.get_mut(&one.resource) {
            resource.majority_is_current = one.options.redundancy == "majority";
            resource.auto_promote = one.options.auto_promote;
        }
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Shown {
    name: String,
    node_id: u8,
    role: String,
    #[serde(default)]
    suspended: bool,
    #[serde(default)]
    suspended_user: bool,
    #[serde(default)]
    force_io_failures: bool,
    #[serde(default)]
    devices: Vec<ShownDevice>,
    #[serde(default)]
    connections: Vec<ShownConnection>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct ShownDevice {
    minor: u32,
    disk_state: String,
    #[serde(default)]
    client: bool,
    #[serde(default)]
    quorum: bool,
    #[serde(default)]
    size: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct ShownConnection {
    peer_node_id: u8,
    #[serde(default)]
    name: String,
    connection_state: String,
    peer_role: String,
    #[serde(default, rename = "peer_devices")]
    devices: Vec<ShownPeerDevice>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct ShownPeerDevice {
    replication_state: String,
    peer_disk_state: String,
    #[serde(default)]
    peer_client: bool,
    #[serde(default)]
    out_of_sync: u64,
}

impl From<Shown> for Resource {
    fn from(shown: Shown) -> Self {
        let device = shown.devices.into_iter().next().map(|device| Device {
            minor: device.minor,
            disk: DiskState::of(&device.disk_state),
            is_client: device.client,
            quorum: device.quorum,
            size: kib(device.size),
            backing: None,
        });
        let peer = |shown: ShownConnection| {
            let device = shown.devices.into_iter().next();
            let device = device.as_ref();
            Peer {
                link: Link {
                    peer: MemberId(shown.peer_node_id),
                    node: shown.name,
                    connection: Connection::of(&shown.connection_state),
                    role: Role::of(&shown.peer_role),
                    disk: device.map_or(DiskState::Unknown, |device| {
                        DiskState::of(&device.peer_disk_state)
                    }),
                    replication: device.map_or(Replication::Off, |device| {
                        Replication::of(&device.replication_state)
                    }),
                    out_of_sync: kib(device.map_or(0, |device| device.out_of_sync)),
                    replica: !device.is_some_and(|device| device.peer_client),
                },
                paths: Vec::new(),
            }
        };
        Self {
            me: MemberId(shown.node_id),
            role: Role::of(&shown.role),
            suspended: shown.suspended,
            suspended_by_user: shown.suspended_user,
            fails: shown.force_io_failures,
            majority_is_current: false,
            auto_promote: false,
            device,
            peers: shown.connections.into_iter().map(peer).collect(),
        }
    }
}

/// Adds what the lines of `events2` tell besides. A line that is not understood adds nothing.
fn add_events(resources: &mut Resources, bytes: &[u8]) {
    for line in String::from_utf8_lossy(bytes).lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some("exists"), Some(kind)) = (words.next(), words.next()) else {
            continue;
        };
        let entries: BTreeMap<&str, &str> = words.filter_map(|word| word.split_once(':')).collect();
        let entry = |key| entries.get(key).copied();
        let Some(resource) = entry("name").and_then(|name| resources.get_mut(name)) else {
            continue;
        };
        match kind {
            "device" => {
                if let Some(device) = &mut resource.device {
                    device.backing = entry("backing_dev")
                        .filter(|backing| backing.starts_with('/'))
                        .map(str::to_owned);
                }
            }
            "path" => {
                let peer = entry("peer-node-id").and_then(|id| id.parse().ok());
                let peer = resource
                    .peers
                    .iter_mut()
                    .find(|one| Some(one.link.peer.0) == peer);
                if let (Some(peer), Some(local), Some(remote)) =
                    (peer, entry("local"), entry("peer"))
                {
                    peer.paths.push((local.to_owned(), remote.to_owned()));
                }
            }
            _ => {}
        }
    }
}

/// What [`super::Drbd`] says of a resource that the kernel does not have.
pub(super) fn unknown(volume: &types::VolumeName, what: &'static str) -> Error {
    Error::Drbd {
        volume: volume.clone(),
        what,
        said: "it is not prepared on this node".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As three guests with DRBD 9.3.3 told it (`drbdsetup` of drbd-utils 9.22).
    const NO_QUORUM: &str = include_str!("../../tests/drbd/status-no-quorum.json");
    const NO_QUORUM_EVENTS: &str = include_str!("../../tests/drbd/events-no-quorum.txt");
    const WELL: &str = include_str!("../../tests/drbd/status-primary.json");

    fn only(text: &str) -> Resource {
        let mut all = parse(text.as_bytes()).unwrap();
        assert_eq!(all.len(), 1);
        all.pop_first().unwrap().1
    }

    #[test]
    fn a_holder_that_was_cut_off_is_told_as_it_is() {
        let mut all = parse(NO_QUORUM.as_bytes()).unwrap();
        add_events(&mut all, NO_QUORUM_EVENTS.as_bytes());
        let resource = &all["r0"];
        assert_eq!((resource.me, resource.role), (MemberId(1), Role::Primary));
        assert!(resource.suspended && !resource.suspended_by_user);
        let device = resource.device.as_ref().unwrap();
        assert!(!device.quorum && device.disk == DiskState::UpToDate);
        assert_eq!(device.size, ByteSize(66512 << 10));
        assert_eq!(device.backing.as_deref(), Some("/dev/loop0"));
        let peer = resource.peer(MemberId(3)).unwrap();
        assert_eq!(peer.link.connection, Connection::Connecting);
        assert_eq!(peer.link.disk, DiskState::Unknown);
        assert_eq!(peer.link.role, Role::Unknown);
        assert_eq!(peer.link.out_of_sync, ByteSize(3200 << 10));
        assert!(peer.link.replica && peer.link.node == "node3");
        let path = ("ipv4:10.77.0.1:7789", "ipv4:10.77.0.3:7789");
        assert_eq!(peer.paths, [(path.0.to_owned(), path.1.to_owned())]);
    }

    #[test]
    fn options_are_read_beside_secrets_that_are_not() {
        let mut all = parse(WELL.as_bytes()).unwrap();
        let shown = |redundancy: &str| {
            format!(
                r#"[{{"resource":"r0","options":{{"auto-promote":false,"quorum-minimum-redundancy":"{redundancy}"}},
                     "connections":[{{"net":{{"shared-secret":"geheim"}}}}]}},{{"resource":"other"}}]"#
            )
        };
        add_options(&mut all, shown("majority").as_bytes()).unwrap();
        assert!(all["r0"].majority_is_current);
        add_options(&mut all, shown("off").as_bytes()).unwrap();
        assert!(!all["r0"].majority_is_current);
        let error = add_options(&mut all, br#"["geheim"]"#).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("geheim"), "{error}");
    }

    #[test]
    fn a_volume_that_is_well_is_told_as_it_is() {
        let resource = only(WELL);
        assert!(!resource.suspended && resource.peers.len() == 2);
        for peer in &resource.peers {
            assert_eq!(peer.link.connection, Connection::Connected);
            assert_eq!(peer.link.disk, DiskState::UpToDate);
            assert_eq!(peer.link.replication, Replication::Established);
            assert_eq!(peer.link.out_of_sync, ByteSize(0));
        }
    }

    #[test]
    fn what_is_not_known_permits_nothing_and_crashes_nothing() {
        assert!(parse(b"[\n]\n").unwrap().is_empty());
        let resource = only(
            r#"[{"name":"r","node-id":0,"role":"Chief","new":{"a":[1]},"devices":[{"minor":7,"disk-state":"Splendid"}],
                "connections":[{"peer-node-id":9,"connection-state":"Warp","peer-role":"?",
                                "ap-in-flight":18446744073709551584}]}]"#,
        );
        assert_eq!(resource.role, Role::Unknown);
        let device = resource.device.clone().unwrap();
        assert!(!device.quorum && device.disk == DiskState::Unknown);
        let link = &resource.peer(MemberId(9)).unwrap().link;
        assert_eq!(link.connection, Connection::Connecting);
        assert_eq!(
            (link.disk, link.replication),
            (DiskState::Unknown, Replication::Off)
        );
        let half =
            only(r#"[{"name":"r","node-id":0,"role":"Secondary","devices":[],"connections":[]}]"#);
        assert!(half.device.is_none() && half.peers.is_empty());
        for bad in [
            "",
            "{}",
            "[1]",
            r#"[{"name":"r"}]"#,
            r#"[{"name":"r","node-id":300,"role":""}]"#,
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
        let mut all = Resources::from([("r".to_owned(), half)]);
        add_events(&mut all, b"exists path name:r peer-node-id:x local:\xff\nexists -\nchange\nexists device name:r\n");
    }
}
