//! What a node still has to do until its part of a volume is what the layout says. It looks at this node alone: no
//! other node, no record and no clock.

use types::NodeId;

use crate::{Connection, DiskState, Layout, Member, Part, Role, Verb};

/// The steps from a part (`None`: the kernel has none) to the layout, in their order; none: it is what it should
/// be, as far as this node can make it so. What comes after a step that failed is not done, with one exception: a node
/// whose disk cannot be attached is connected all the same, and uses the replicas of others.
pub fn converge(layout: &Layout, node: &NodeId, part: Option<&Part>) -> Vec<Verb> {
    let part = part.filter(|part| part.up);
    let mut verbs = Vec::new();
    if part.is_some_and(|part| part.role == Role::Primary && !layout.admits(node)) {
        // Before anything that connects it to the others: connected as a second holder both sides refuse each
        // other.
        verbs.push(Verb::LetGo);
    }
    let Some(me) = layout.member(node) else {
        verbs.extend(part.map(|_| Verb::Down));
        return verbs;
    };
    match part {
        None => verbs.extend(from_nothing(layout, me)),
        // It was removed and is back under another number: nothing of the old part is of use.
        Some(part) if part.me != me.id => {
            verbs.push(Verb::Down);
            verbs.extend(from_nothing(layout, me));
        }
        Some(part) => verbs.extend(adapt(layout, me, part)),
    }
    verbs
}

/// Those that a member connects to. One whose metadata are still to be made is not counted by the others yet: if it
/// came to nothing they would lack its vote.
fn peers<'a>(layout: &'a Layout, me: &'a Member) -> impl Iterator<Item = &'a Member> {
    let others = layout.members.iter().filter(|member| member.id != me.id);
    others.filter(|member| me.create || !member.create)
}

fn from_nothing(layout: &Layout, me: &Member) -> Vec<Verb> {
    let mut verbs = vec![Verb::Create];
    verbs.extend(peers(layout, me).cloned().map(Verb::AddPeer));
    // Attached before it is connected: peers that see no disk would take it for one that failed.
    verbs.extend(
        me.disk
            .as_ref()
            .map(|_| Verb::AttachDisk { create: me.create }),
    );
    let met = peers(layout, me).filter(|peer| may_meet(me, peer));
    verbs.extend(met.map(|peer| Verb::Connect(peer.id)));
    verbs
}

fn adapt(layout: &Layout, me: &Member, part: &Part) -> Vec<Verb> {
    let mut verbs = Vec::new();
    if part.majority_is_current != layout.majority_is_current() {
        verbs.push(Verb::SetQuorum);
    }
    if me.disk.is_none() && part.disk != DiskState::Diskless {
        verbs.push(Verb::DetachDisk);
    }
    // Whether a peer has a vote is settled when it is made known.
    let fits = |peer: &&Member| {
        let link = part.link(peer.id);
        link.is_some_and(|link| {
            link.replica == peer.disk.is_some() && link.node == peer.node.as_str()
        })
    };
    let kept: Vec<&Member> = peers(layout, me).filter(fits).collect();
    let linked = |peer: &&&Member| {
        let link = part.link(peer.id);
        link.is_some_and(|link| link.connection != Connection::StandAlone)
    };
    let parted = kept
        .iter()
        .filter(|peer| !may_meet(me, peer))
        .filter(linked);
    verbs.extend(parted.map(|peer| Verb::Disconnect(peer.id)));
    let is_kept = |id| kept.iter().any(|peer| peer.id == id);
    let gone = part.links.iter().filter(|link| !is_kept(link.peer));
    verbs.extend(gone.map(|link| Verb::RemovePeer(link.peer)));
    let added = || peers(layout, me).filter(|peer| !is_kept(peer.id));
    verbs.extend(added().cloned().map(Verb::AddPeer));
    if me.disk.is_some() {
        if part.disk == DiskState::Diskless {
            verbs.push(Verb::AttachDisk { create: me.create });
        } else if part.backing < layout.size {
            verbs.push(Verb::GrowDisk);
        }
    }
    let alone = |peer: &&Member| {
        let link = part.link(peer.id);
        !is_kept(peer.id) || link.is_some_and(|link| link.connection == Connection::StandAlone)
    };
    let unconnected = peers(layout, me).filter(alone);
    let unconnected = unconnected.filter(|peer| may_meet(me, peer));
    verbs.extend(unconnected.map(|peer| Verb::Connect(peer.id)));
    verbs
}

fn may_meet(me: &Member, peer: &Member) -> bool {
    !me.apart && !peer.apart
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use types::{ByteSize, DiskUuid, VolumeName};

    use super::*;
    use crate::{Link, MemberId, Replication};

    const SIZE: ByteSize = ByteSize(1 << 20);

    fn node(name: &str) -> NodeId {
        NodeId::new(name).unwrap()
    }

    fn member(id: u8, name: &str, disk: bool) -> Member {
        Member {
            id: MemberId(id),
            node: node(name),
            address: "10.0.0.1".parse().unwrap(),
            disk: disk.then(|| DiskUuid::new(&format!("disk-{name}")).unwrap()),
            create: false,
            as_first: false,
            apart: false,
        }
    }

    /// Replicas on a, b and c.
    fn layout() -> Layout {
        Layout {
            volume: VolumeName::new("v").unwrap(),
            generation: 3,
            size: SIZE,
            minor: 1000,
            port: 7000,
            members: vec![
                member(0, "a", true),
                member(1, "b", true),
                member(2, "c", true),
            ],
            holder: Some(node("a")),
            readers: Vec::new(),
            tls: false,
            day_zero: None,
            initialized: true,
        }
    }

    fn link(id: u8, name: &str, replica: bool) -> Link {
        Link {
            peer: MemberId(id),
            node: name.to_owned(),
            connection: Connection::Connected,
            role: Role::Secondary,
            disk: DiskState::UpToDate,
            replication: Replication::Established,
            out_of_sync: ByteSize(0),
            replica,
        }
    }

    /// The part of a, as it should be.
    fn part() -> Part {
        Part {
            volume: VolumeName::new("v").unwrap(),
            generation: 3,
            me: MemberId(0),
            up: true,
            role: Role::Primary,
            disk: DiskState::UpToDate,
            quorum: true,
            suspended: false,
            open: true,
            size: SIZE,
            backing: SIZE,
            fresh: false,
            majority_is_current: true,
            links: vec![link(1, "b", true), link(2, "c", true)],
            troubles: Vec::new(),
        }
    }

    fn verbs(layout: &Layout, part: &Part) -> Vec<Verb> {
        converge(layout, &node("a"), Some(part))
    }

    #[test]
    fn what_is_as_it_should_be_is_left_alone() {
        assert_eq!(verbs(&layout(), &part()), []);
    }

    #[test]
    fn from_nothing_the_disk_is_attached_before_anybody_is_connected() {
        let connect = |id| Verb::Connect(MemberId(id));
        let all = [
            Verb::Create,
            Verb::AddPeer(member(1, "b", true)),
            Verb::AddPeer(member(2, "c", true)),
            Verb::AttachDisk { create: false },
            connect(1),
            connect(2),
        ];
        assert_eq!(converge(&layout(), &node("a"), None), all);
        let down = Part {
            up: false,
            ..part()
        };
        assert_eq!(verbs(&layout(), &down), all);
    }

    #[test]
    fn who_may_not_write_lets_go_before_it_connects() {
        let mut part = part();
        part.links[0].connection = Connection::StandAlone;
        let taken = Layout {
            holder: Some(node("b")),
            ..layout()
        };
        assert_eq!(
            verbs(&taken, &part),
            [Verb::LetGo, Verb::Connect(MemberId(1))]
        );
        assert_eq!(verbs(&layout(), &part), [Verb::Connect(MemberId(1))]);
    }

    #[test]
    fn a_node_without_a_part_lets_go_and_takes_it_down() {
        let mut removed = layout();
        removed.members.remove(0);
        removed.holder = None;
        assert_eq!(verbs(&removed, &part()), [Verb::LetGo, Verb::Down]);
        assert_eq!(converge(&removed, &node("a"), None), []);
    }

    #[test]
    fn peers_come_and_go() {
        let mut changed = layout();
        changed.members[2] = member(3, "d", true);
        let [gone, new] = [MemberId(2), MemberId(3)];
        let connect = Verb::Connect(new);
        let add = Verb::AddPeer(member(3, "d", true));
        assert_eq!(
            verbs(&changed, &part()),
            [Verb::RemovePeer(gone), add, connect]
        );
    }

    #[test]
    fn a_peer_whose_vote_or_node_is_wrong_is_made_again() {
        for wrong in [link(1, "b", false), link(1, "x", true)] {
            let mut part = part();
            part.links[0] = wrong;
            let id = MemberId(1);
            let add = Verb::AddPeer(member(1, "b", true));
            let all = [Verb::RemovePeer(id), add, Verb::Connect(id)];
            assert_eq!(verbs(&layout(), &part), all);
        }
    }

    #[test]
    fn row_331_a_replica_that_is_not_made_yet_is_known_only_to_itself() {
        let mut grown = layout();
        let new = Member {
            create: true,
            ..member(3, "d", true)
        };
        grown.members.push(new);
        assert_eq!(verbs(&grown, &part()), []);
        let own = converge(&grown, &node("d"), None);
        assert!(
            own.contains(&Verb::AddPeer(member(0, "a", true))),
            "{own:?}"
        );
        assert!(own.contains(&Verb::AttachDisk { create: true }), "{own:?}");
    }

    #[test]
    fn row_331_a_member_that_is_apart_counts_and_nobody_connects_to_it() {
        let mut parted = layout();
        parted.members[2].apart = true;
        assert_eq!(verbs(&parted, &part()), [Verb::Disconnect(MemberId(2))]);
        let anew = converge(&parted, &node("a"), None);
        assert!(anew.contains(&Verb::AddPeer(parted.members[2].clone())));
        assert!(!anew.contains(&Verb::Connect(MemberId(2))));
        let own = converge(&parted, &node("c"), None);
        assert!(
            !own.iter().any(|verb| matches!(verb, Verb::Connect(_))),
            "{own:?}"
        );
    }

    #[test]
    fn row_332_a_majority_must_be_current_from_three_replicas_on() {
        let mut two = layout();
        two.members.pop();
        let removed = Verb::RemovePeer(MemberId(2));
        assert_eq!(verbs(&two, &part()), [Verb::SetQuorum, removed]);
    }

    #[test]
    fn a_disk_is_attached_again_grown_and_detached() {
        let failed = Part {
            disk: DiskState::Diskless,
            ..part()
        };
        assert_eq!(
            verbs(&layout(), &failed),
            [Verb::AttachDisk { create: false }]
        );
        let grown = Layout {
            size: ByteSize(2 << 20),
            ..layout()
        };
        assert_eq!(verbs(&grown, &part()), [Verb::GrowDisk]);
        let mut without = layout();
        without.members[0].disk = None;
        assert_eq!(
            verbs(&without, &part()),
            [Verb::SetQuorum, Verb::DetachDisk]
        );
    }
}
