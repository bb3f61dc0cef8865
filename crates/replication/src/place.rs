//! On which disks a volume's replicas are: distinct nodes, then zones as far as there are, then the most room,
//! counting what is promised. The same disks for the same question.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use types::{ByteSize, DiskUuid, NodeId, VolumeName};

use crate::{DiskView, Member, MemberId, View};

/// What a new volume needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its name, which spreads volumes over disks.
    pub volume: VolumeName,
    /// On how many disks.
    pub replicas: u32,
    /// Fewer are an error.
    pub require_all: bool,
    /// Bytes of each replica.
    pub size: ByteSize,
}

/// There are fewer disks than asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("volume {volume}: {found} of {wanted} replicas can be placed{}", shown(.why))]
pub struct Shortage {
    /// Of which volume.
    pub volume: VolumeName,
    /// Replicas that it asks for.
    pub wanted: u32,
    /// Those that there is a disk for.
    pub found: u32,
    /// What is wrong with the others, for people.
    pub why: Vec<String>,
}

fn shown(why: &[String]) -> String {
    if why.is_empty() {
        return "; add disks on other nodes, or ask for fewer replicas".to_owned();
    }
    format!(": {}", why.join("; "))
}

/// The most replicas of a volume with the engine: each keeps a bitmap for seven others (`volume`, `PEERS`), of which
/// one is for whoever takes another's place.
pub(crate) const REPLICAS_MAX: u32 = 7;

/// Where a volume that there is not yet shall be: as many disks as it asks for, or as there are, each of another node
/// with the engine: it has one member on each node. One is enough: others join it while it is used. Where no node has
/// the engine, it is on one disk without it, and that node alone reaches it.
///
/// # Errors
/// No disk can take it; or fewer than it asks for, and it requires all.
pub fn place(wanted: &Wanted, view: &View) -> Result<Vec<DiskUuid>, Shortage> {
    let new = |disk: &DiskView| disk.file.is_none();
    let able = Search {
        volume: &wanted.volume,
        size: wanted.size,
        usable: &|_, disk| new(disk) && view.able(&disk.node).is_some(),
    };
    let most = wanted.replicas.min(REPLICAS_MAX);
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let count = usize::try_from(wanted.replicas).unwrap_or(usize::MAX);
    let mut found = able.find(view, &[], most);
    if found.is_empty() {
        let any = Search {
            usable: &|_, disk| new(disk),
            ..able
        };
        found = any.find(view, &[], 1);
    }
    let shortage = || Shortage {
        volume: wanted.volume.clone(),
        wanted: wanted.replicas,
        found: u32::try_from(found.len()).unwrap_or(u32::MAX),
        why: unusable(view, wanted.size),
    };
    if found.is_empty() || (wanted.require_all && found.len() < count) {
        return Err(shortage());
    }
    Ok(found)
}

/// The first members of a volume on these disks. One whose node has no address of its own, because the volume does
/// without DRBD, gets [`Member::NOWHERE`].
pub fn founders(disks: &[DiskUuid], view: &View) -> Vec<Member> {
    let known = disks
        .iter()
        .filter_map(|disk| Some((disk, view.disks.get(disk)?)));
    let member = |(id, (disk, seen)): (u8, (&DiskUuid, &DiskView))| Member {
        id: MemberId(id),
        node: seen.node.clone(),
        address: view.able(&seen.node).unwrap_or(Member::NOWHERE),
        disk: Some(disk.clone()),
        create: true,
        as_first: false,
        apart: false,
    };
    (0..=MemberId::MAX.0).zip(known).map(member).collect()
}

/// What is looked for.
#[derive(Clone, Copy)]
pub(crate) struct Search<'a> {
    pub(crate) volume: &'a VolumeName,
    pub(crate) size: ByteSize,
    /// Whether a disk may be taken at all.
    pub(crate) usable: &'a dyn Fn(&DiskUuid, &DiskView) -> bool,
}

impl Search<'_> {
    /// At most `count` disks of distinct nodes, none of them one of `taken`; the best first.
    pub(crate) fn find(&self, view: &View, taken: &[&NodeId], count: usize) -> Vec<DiskUuid> {
        let mut taken: Vec<&NodeId> = taken.to_vec();
        let mut chosen = Vec::new();
        while chosen.len() < count {
            let mut zones: BTreeMap<&str, usize> = BTreeMap::new();
            for node in &taken {
                *zones.entry(zone(view, node)).or_default() += 1;
            }
            let fits = |(uuid, disk): &(&DiskUuid, &DiskView)| {
                let room = disk.answers && disk.creatable >= self.size;
                room && !taken.contains(&&disk.node) && (self.usable)(uuid, disk)
            };
            let rank = |(uuid, disk): &(&DiskUuid, &DiskView)| {
                let others = zones.get(zone(view, &disk.node)).copied();
                let preferred = disk.preferred.unwrap_or(usize::MAX);
                (others.unwrap_or(0), preferred, self.share(uuid, disk))
            };
            let compare = |one: &(&DiskUuid, &DiskView), other: &(&DiskUuid, &DiskView)| {
                let ((a, b, share), (c, d, larger)) = (rank(one), rank(other));
                let order: Ordering = (a, b).cmp(&(c, d));
                order
                    .then(larger.total_cmp(&share))
                    .then(one.0.cmp(other.0))
            };
            let Some((uuid, disk)) = view.disks.iter().filter(fits).min_by(compare) else {
                break;
            };
            chosen.push(uuid.clone());
            taken.push(&disk.node);
        }
        chosen
    }

    /// Weighted rendezvous hashing: of all names, each disk has the largest share for as many as its free space is
    /// of all free space.
    #[expect(clippy::cast_precision_loss, reason = "a weight, not a size")]
    fn share(&self, uuid: &DiskUuid, disk: &DiskView) -> f64 {
        let mut hasher = DefaultHasher::new();
        (self.volume.as_str(), uuid).hash(&mut hasher);
        // In (0, 1): 53 bits are what a float holds.
        let draw = ((hasher.finish() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        disk.creatable.bytes() as f64 / -draw.ln()
    }
}

/// A node without a zone is one by itself.
fn zone<'a>(view: &'a View, node: &'a NodeId) -> &'a str {
    let zone = view.nodes.get(node).and_then(|node| node.zone.as_deref());
    zone.unwrap_or(node.as_str())
}

/// Nodes that are named of those with one and the same trouble. A cluster may have thousands, and what is said of them
/// stands in each record.
const NAMED: usize = 5;

/// Why nodes and disks are not used for replicas, for people: each trouble once, with the nodes that have it.
pub(crate) fn unusable(view: &View, size: ByteSize) -> Vec<String> {
    let mut troubles: Vec<(String, Vec<&NodeId>)> = Vec::new();
    for (name, node) in &view.nodes {
        let mut disks = view.disks.values().filter(|disk| disk.node == *name);
        let trouble = if !node.answers {
            "no answer".to_owned()
        } else if let Err(trouble) = &node.engine {
            trouble.clone()
        } else if node.address.is_none() {
            "no address for replication".to_owned()
        } else if disks.clone().next().is_none() {
            "no disk".to_owned()
        } else if disks.all(|disk| !disk.answers || disk.creatable < size) {
            format!("no disk with {size} to give")
        } else {
            continue;
        };
        match troubles.iter_mut().find(|(known, _)| *known == trouble) {
            Some((_, nodes)) => nodes.push(name),
            None => troubles.push((trouble, vec![name])),
        }
    }
    let shown = |(trouble, nodes): (String, Vec<&NodeId>)| {
        let named: Vec<&str> = nodes.iter().take(NAMED).map(|node| node.as_str()).collect();
        let plural = if nodes.len() > 1 { "s" } else { "" };
        let more = match nodes.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!("node{plural} {}{more}: {trouble}", named.join(", "))
    };
    troubles.into_iter().map(shown).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;
    use crate::NodeView;

    #[test]
    fn a_trouble_of_many_nodes_is_said_once() {
        let mut view = View::default();
        for n in 0..1000 {
            let node = NodeView {
                answers: n != 3,
                engine: Err("no module".to_owned()),
                address: None,
                zone: None,
                part: None,
            };
            let name = NodeId::new(&format!("n{n:03}")).unwrap();
            view.nodes.insert(name, node);
        }
        let expected = [
            "nodes n000, n001, n002, n004, n005 and 994 more: no module",
            "node n003: no answer",
        ];
        assert_eq!(unusable(&view, ByteSize(1)), expected);
    }

    fn wanted(name: &str, replicas: u32) -> Wanted {
        Wanted {
            volume: VolumeName::new(name).unwrap(),
            replicas,
            require_all: false,
            size: ByteSize(1 << 30),
        }
    }

    /// Nodes with these zones and a disk of so many GiB each.
    fn view(nodes: &[(&str, u64)]) -> View {
        let mut view = View::default();
        for (index, (zone, room)) in nodes.iter().enumerate() {
            let node = NodeId::new(&format!("n{index}")).unwrap();
            let disk = DiskView {
                node: node.clone(),
                answers: true,
                creatable: ByteSize(room << 30),
                file: None,
                preferred: None,
            };
            view.disks
                .insert(DiskUuid::new(&format!("d{index}")).unwrap(), disk);
            let seen = NodeView {
                answers: true,
                engine: Ok("9.3.3".to_owned()),
                address: Some("10.0.0.1".parse().unwrap()),
                zone: Some((*zone).to_owned()),
                part: None,
            };
            view.nodes.insert(node, seen);
        }
        view
    }

    #[test]
    fn replicas_are_in_as_many_zones_as_there_are() {
        let view = view(&[("a", 10), ("a", 10), ("a", 10), ("b", 2), ("c", 2)]);
        for volume in 0..100 {
            let disks = place(&wanted(&format!("v{volume}"), 3), &view).unwrap();
            let zones = disks.iter().map(|disk| zone(&view, &view.disks[disk].node));
            let zones: std::collections::BTreeSet<_> = zones.collect();
            assert_eq!(zones.len(), 3, "{disks:?}");
            assert_eq!(
                place(&wanted(&format!("v{volume}"), 3), &view).unwrap(),
                disks
            );
        }
    }

    #[test]
    fn volumes_are_spread_as_room_is() {
        let view = view(&[("a", 30), ("b", 10)]);
        let first = |volume: u32| place(&wanted(&format!("v{volume}"), 1), &view).unwrap();
        let large = (0..1000).filter(|volume| first(*volume)[0].as_str() == "d0");
        let large = large.count();
        assert!(
            (680..820).contains(&large),
            "{large} of 1000, and 750 are expected"
        );
    }

    #[test]
    fn nodes_without_the_engine_have_no_replica_of_several_and_say_why() {
        let mut view = view(&[("a", 10), ("b", 10), ("c", 10)]);
        let node = |name: &str| NodeId::new(name).unwrap();
        view.nodes.get_mut(&node("n1")).unwrap().engine = Err("no DRBD".to_owned());
        let all = Wanted {
            require_all: true,
            ..wanted("v", 3)
        };
        assert_eq!(place(&wanted("v", 3), &view).unwrap().len(), 2);
        let shortage = place(&all, &view).unwrap_err().to_string();
        assert!(
            shortage.contains("2 of 3") && shortage.contains("n1: no DRBD"),
            "{shortage}"
        );
        for name in ["n0", "n2"] {
            view.nodes.get_mut(&node(name)).unwrap().engine = Err("no DRBD".to_owned());
        }
        assert_eq!(place(&wanted("v", 3), &view).unwrap().len(), 1);
    }

    #[test]
    fn the_preferred_disk_is_the_first() {
        let mut view = view(&[("a", 10), ("b", 10), ("c", 10)]);
        let second = DiskUuid::new("d1").unwrap();
        view.disks.get_mut(&second).unwrap().preferred = Some(0);
        for volume in 0..20 {
            let disks = place(&wanted(&format!("v{volume}"), 2), &view).unwrap();
            assert_eq!(disks[0], second);
        }
        view.disks.get_mut(&second).unwrap().creatable = ByteSize(1);
        assert!(!place(&wanted("v", 3), &view).unwrap().contains(&second));
    }
}
