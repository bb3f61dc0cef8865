//! Calls of the node service about replicated volumes: layouts go out, parts come back.

use std::net::IpAddr;

use proto::node::v1 as wire;
use replication::{
    Connection, DiskState, Generation, Layout, Link, Member, MemberId, Part, Replication, Role,
    Secret,
};
use types::{ByteSize, DiskUuid, NodeId, VolumeName};

use crate::{Node, Result};

/// A node's part of a volume, and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What the kernel says of it.
    pub part: Part,
    /// What the node keeps; `None`: nothing, and the part is left from before.
    pub layout: Option<Layout>,
    /// The disk with DRBD's metadata of it.
    pub disk: Option<DiskUuid>,
    /// The current UUID of its data, in hexadecimal; empty: unknown.
    pub data_uuid: String,
}

impl Node {
    /// Makes the node's part of a volume what the layout says, and lets the node keep it.
    pub async fn put_replica(&self, layout: &Layout, secret: &Secret) -> Result<Found> {
        let request = wire::PutReplicaRequest {
            layout: Some(show(layout)),
            shared_secret: secret.expose().to_owned(),
        };
        let mut stub = self.stub();
        let answer = stub.put_replica(request);
        let part = self.call("prepare the replica", answer).await?;
        // It was asked about this one, and answers about it.
        Ok(found(&layout.volume, part))
    }

    /// Takes the node's part down; one that is not there is a success.
    pub async fn remove_replica(&self, volume: &VolumeName) -> Result<()> {
        let mut stub = self.stub();
        let answer = stub.remove_replica(of(volume));
        self.call("take the replica down", answer).await.map(drop)
    }

    /// All parts of the node. What has no valid name is nobody's.
    pub async fn replicas(&self) -> Result<Vec<Found>> {
        let mut stub = self.stub();
        let answer = stub.list_replicas(wire::ListReplicasRequest {});
        let list = self.call("list its replicas", answer).await?;
        let named = |part: wire::ReplicaPart| {
            let volume = VolumeName::new(&part.volume).ok()?;
            Some(found(&volume, part))
        };
        Ok(list.parts.into_iter().filter_map(named).collect())
    }

    /// Declares the connected replicas equal.
    pub async fn initialize_replicas(&self, volume: &VolumeName) -> Result<()> {
        let mut stub = self.stub();
        let answer = stub.initialize_replicas(of(volume));
        let operation = "declare the replicas equal";
        self.call(operation, answer).await.map(drop)
    }

    /// Lets the device have the size of its files.
    pub async fn grow_replicas(&self, volume: &VolumeName) -> Result<()> {
        let mut stub = self.stub();
        let answer = stub.grow_replicas(of(volume));
        self.call("grow the device", answer).await.map(drop)
    }

    /// Lets the node join the others again and give up what only it has.
    pub async fn rejoin_replica(&self, volume: &VolumeName) -> Result<()> {
        let mut stub = self.stub();
        let answer = stub.rejoin_replica(of(volume));
        self.call("join the replicas again", answer).await.map(drop)
    }

    /// Stops all writes to the volume, for at most this many seconds.
    pub async fn suspend_volume(&self, volume: &VolumeName, seconds: u32) -> Result<()> {
        let request = wire::SuspendVolumeRequest {
            volume: volume.to_string(),
            seconds,
        };
        let mut stub = self.stub();
        let answer = stub.suspend_volume(request);
        self.call("stop the writes", answer).await.map(drop)
    }

    /// Lets writes go on; fine where they do.
    pub async fn resume_volume(&self, volume: &VolumeName) -> Result<()> {
        let mut stub = self.stub();
        let answer = stub.resume_volume(of(volume));
        self.call("let the writes go on", answer).await.map(drop)
    }
}

fn of(volume: &VolumeName) -> wire::ReplicaRequest {
    wire::ReplicaRequest {
        volume: volume.to_string(),
    }
}

/// A layout on the wire.
fn show(layout: &Layout) -> wire::ReplicaLayout {
    let member = |member: &Member| wire::ReplicaMember {
        id: member.id.0.into(),
        node_id: member.node.to_string(),
        address: member.address.to_string(),
        disk_uuid: (member.disk.as_ref()).map_or_else(String::new, ToString::to_string),
        create: member.create,
        as_first: member.as_first,
        apart: member.apart,
    };
    wire::ReplicaLayout {
        volume: layout.volume.to_string(),
        generation: layout.generation,
        size: layout.size.bytes(),
        minor: layout.minor,
        port: layout.port.into(),
        members: layout.members.iter().map(member).collect(),
        holder: (layout.holder.as_ref()).map_or_else(String::new, ToString::to_string),
        readers: layout.readers.iter().map(ToString::to_string).collect(),
        tls: layout.tls,
        day_zero: (layout.day_zero.as_ref()).map_or_else(String::new, ToString::to_string),
        initialized: layout.initialized,
    }
}

/// Reads a layout; both ends of the node service do it, so that both take the same.
///
/// # Errors
/// The field that is not valid, and why.
pub fn layout(shown: wire::ReplicaLayout) -> std::result::Result<Layout, (&'static str, String)> {
    fn text<T, E: ToString>(
        field: &'static str,
        value: std::result::Result<T, E>,
    ) -> std::result::Result<T, (&'static str, String)> {
        value.map_err(|error| (field, error.to_string()))
    }
    let node = |field, name: &str| text(field, NodeId::new(name));
    // DRBD numbers 32 nodes.
    if !(1..=32).contains(&shown.members.len()) {
        return Err(("members", "1 to 32 are expected".to_owned()));
    }
    let mut members: Vec<Member> = Vec::with_capacity(shown.members.len());
    for member in shown.members {
        let id = u8::try_from(member.id).map(MemberId).ok();
        let id = id.filter(|id| *id <= MemberId::MAX);
        let id = id.ok_or_else(|| ("members.id", format!("{} is not 0 to 31", member.id)))?;
        let node = node("members.node_id", &member.node_id)?;
        if members.iter().any(|one| one.id == id || one.node == node) {
            return Err(("members", format!("{node} or its number is there twice")));
        }
        members.push(Member {
            id,
            node,
            address: text("members.address", member.address.parse::<IpAddr>())?,
            disk: match member.disk_uuid.as_str() {
                "" => None,
                uuid => Some(text("members.disk_uuid", DiskUuid::new(uuid))?),
            },
            create: member.create,
            as_first: member.as_first,
            apart: member.apart,
        });
    }
    let holder = match shown.holder.as_str() {
        "" => None,
        name => Some(node("holder", name)?),
    };
    let readers = shown.readers.iter().map(|name| node("readers", name));
    let port = u16::try_from(shown.port).ok().filter(|port| *port > 0);
    Ok(Layout {
        volume: text("volume", VolumeName::new(&shown.volume))?,
        generation: shown.generation,
        size: ByteSize(shown.size),
        // A minor number of the kernel has 20 bits.
        minor: Some(shown.minor)
            .filter(|minor| *minor < 1 << 20)
            .ok_or_else(|| ("minor", format!("{} is no minor of a device", shown.minor)))?,
        port: port.ok_or_else(|| ("port", format!("{} is no TCP port", shown.port)))?,
        members,
        holder,
        readers: readers.collect::<std::result::Result<_, _>>()?,
        tls: shown.tls,
        day_zero: match shown.day_zero {
            none if none.is_empty() => None,
            digits => Some(text("day_zero", Generation::try_from(digits))?),
        },
        initialized: shown.initialized,
    })
}

/// Shows a part and its layout; the other direction of what [`Node::replicas`] reads.
pub fn part(found: &Found) -> wire::ReplicaPart {
    let Found {
        part,
        layout,
        disk,
        data_uuid,
    } = found;
    let link = |link: &Link| wire::ReplicaLink {
        peer: link.peer.0.into(),
        node_id: link.node.clone(),
        connection: link.connection.as_str().to_owned(),
        role: link.role.as_str().to_owned(),
        disk: link.disk.as_str().to_owned(),
        replication: link.replication.as_str().to_owned(),
        out_of_sync: link.out_of_sync.bytes(),
        replica: link.replica,
    };
    wire::ReplicaPart {
        volume: part.volume.to_string(),
        layout: layout.as_ref().map(show),
        id: part.me.0.into(),
        up: part.up,
        role: part.role.as_str().to_owned(),
        disk: part.disk.as_str().to_owned(),
        quorum: part.quorum,
        suspended: part.suspended,
        open: part.open,
        size: part.size.bytes(),
        backing: part.backing.bytes(),
        fresh: part.fresh,
        majority_is_current: part.majority_is_current,
        links: part.links.iter().map(link).collect(),
        troubles: part.troubles.clone(),
        disk_uuid: disk.as_ref().map_or_else(String::new, ToString::to_string),
        data_uuid: data_uuid.clone(),
    }
}

fn found(volume: &VolumeName, shown: wire::ReplicaPart) -> Found {
    let id = |id: u32| u8::try_from(id).map_or(MemberId::MAX, MemberId);
    let link = |link: wire::ReplicaLink| Link {
        peer: id(link.peer),
        node: link.node_id,
        connection: Connection::of(&link.connection),
        role: Role::of(&link.role),
        disk: DiskState::of(&link.disk),
        replication: Replication::of(&link.replication),
        out_of_sync: ByteSize(link.out_of_sync),
        replica: link.replica,
    };
    let kept = shown.layout.and_then(|shown| layout(shown).ok());
    Found {
        part: Part {
            volume: volume.clone(),
            generation: kept.as_ref().map_or(0, |layout| layout.generation),
            me: id(shown.id),
            up: shown.up,
            role: Role::of(&shown.role),
            disk: DiskState::of(&shown.disk),
            quorum: shown.quorum,
            suspended: shown.suspended,
            open: shown.open,
            size: ByteSize(shown.size),
            backing: ByteSize(shown.backing),
            fresh: shown.fresh,
            majority_is_current: shown.majority_is_current,
            links: shown.links.into_iter().map(link).collect(),
            troubles: shown.troubles,
        },
        layout: kept,
        disk: DiskUuid::new(&shown.disk_uuid).ok(),
        data_uuid: shown.data_uuid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Found {
        let node = |name| NodeId::new(name).unwrap();
        let member = |id, name, disk: Option<&str>| Member {
            id: MemberId(id),
            node: node(name),
            address: "10.0.0.1".parse().unwrap(),
            disk: disk.map(|disk| DiskUuid::new(disk).unwrap()),
            create: disk.is_some(),
            as_first: disk.is_some(),
            apart: disk.is_none(),
        };
        let volume = VolumeName::new("v").unwrap();
        let layout = Layout {
            volume: volume.clone(),
            generation: 7,
            size: ByteSize(1 << 30),
            minor: 1001,
            port: 20001,
            members: vec![member(0, "a", Some("disk-a")), member(31, "b", None)],
            holder: Some(node("b")),
            readers: vec![node("a")],
            tls: true,
            day_zero: Some(Generation::random(7)),
            initialized: true,
        };
        let link = Link {
            peer: MemberId(31),
            node: "b".to_owned(),
            connection: Connection::Connected,
            role: Role::Primary,
            disk: DiskState::Diskless,
            replication: Replication::Established,
            out_of_sync: ByteSize(4096),
            replica: true,
        };
        Found {
            part: Part {
                volume,
                generation: 7,
                me: MemberId(0),
                up: true,
                role: Role::Secondary,
                disk: DiskState::UpToDate,
                quorum: true,
                suspended: false,
                open: true,
                size: ByteSize(1 << 30),
                backing: ByteSize(1 << 30),
                fresh: true,
                majority_is_current: true,
                links: vec![link],
                troubles: vec!["one".to_owned()],
            },
            layout: Some(layout),
            disk: Some(DiskUuid::new("disk-a").unwrap()),
            data_uuid: "A1B2".to_owned(),
        }
    }

    #[test]
    fn what_one_end_shows_the_other_reads() {
        let sample = sample();
        let name = sample.part.volume.clone();
        assert_eq!(found(&name, part(&sample)), sample);
    }

    #[test]
    fn a_layout_that_cannot_be_is_refused_by_its_field() {
        type Spoil = fn(&mut wire::ReplicaLayout);
        let spoilt: [(&str, Spoil); 7] = [
            ("volume", |layout| layout.volume = "../x".to_owned()),
            ("minor", |layout| layout.minor = 1 << 20),
            ("port", |layout| layout.port = 0),
            ("members", |layout| layout.members.clear()),
            ("members", |layout| layout.members[1].id = 0),
            ("members.id", |layout| layout.members[1].id = 32),
            ("members.address", |layout| {
                layout.members[0].address = "node-a".to_owned();
            }),
        ];
        let good = show(&sample().layout.unwrap());
        assert!(layout(good.clone()).is_ok());
        for (field, spoil) in spoilt {
            let mut bad = good.clone();
            spoil(&mut bad);
            assert_eq!(layout(bad).unwrap_err().0, field);
        }
    }
}
