//! A small model of DRBD 9 on a few machines, after `drbd_state.c` and `drbd_receiver.c` of 9.3 and what was seen
//! of it: votes, the breaker of ties, generations, what two replicas do that meet, and filling. Data is a tree of
//! states: a write makes one of another, so that each replica says which acknowledged writes it has.
//!
//! Where the kernel has reasons to be more generous (peers that are known to be outdated) the model is not.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use replication::{
    Begins, Connection, DiskState, Layout, Link, MemberId, Part, Replication, Role, Verb, converge,
};
use types::{ByteSize, DiskUuid, NodeId, VolumeName};

use crate::random::Random;

/// A tree: the parent of each.
#[derive(Debug, Default)]
pub(crate) struct Tree(Vec<usize>);

impl Tree {
    pub(crate) fn grow(&mut self, parent: usize) -> usize {
        self.0.push(parent);
        self.0.len()
    }

    /// Whether one is the other or comes before it. 0 is the root.
    pub(crate) fn is_before(&self, one: usize, other: usize) -> bool {
        let mut at = other;
        while at > one {
            at = self.0[at - 1];
        }
        at == one
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Meta {
    pub(crate) me: u8,
    pub(crate) fresh: bool,
    pub(crate) whole: bool,
    pub(crate) outdated: bool,
    pub(crate) generation: usize,
    /// Members that have a vote, as the metadata remember.
    pub(crate) known: u32,
    /// Of the device, as agreed.
    pub(crate) size: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct File {
    pub(crate) size: u64,
    pub(crate) replica: bool,
    pub(crate) meta: Option<Meta>,
    pub(crate) data: usize,
}

#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) node: usize,
    pub(crate) replica: bool,
    pub(crate) link: Connection,
}

#[derive(Debug, Clone)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "a kernel has many states that depend on each other little"
)]
pub(crate) struct Kernel {
    pub(crate) me: u8,
    pub(crate) primary: bool,
    /// A pod uses it.
    pub(crate) open: bool,
    pub(crate) attached: bool,
    pub(crate) quorum: bool,
    majority: bool,
    size: u64,
    backing: u64,
    peers: BTreeMap<u8, Peer>,
    /// From whom, and how long still.
    fill: Option<(u8, u8)>,
    /// Who had the last write.
    with: u32,
    in_flight: bool,
    /// The generation that a holder has seen.
    seen: usize,
}

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is switched by itself")]
pub(crate) struct Machine {
    pub(crate) name: NodeId,
    pub(crate) disk: DiskUuid,
    pub(crate) address: IpAddr,
    pub(crate) on: bool,
    /// Whether the controllers reach it.
    pub(crate) reachable: bool,
    pub(crate) has_disk: bool,
    pub(crate) engine: bool,
    /// Machines of one group reach each other.
    pub(crate) group: u8,
    pub(crate) file: Option<File>,
    pub(crate) kept: Option<Layout>,
    pub(crate) kernel: Option<Kernel>,
}

#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) machines: Vec<Machine>,
    pub(crate) states: Tree,
    pub(crate) generations: Tree,
    /// With which the first replicas begin.
    pub(crate) day_zero: usize,
    pub(crate) acknowledged: usize,
    /// Whether the kernel lets an old holder go by itself when it meets newer data.
    pub(crate) polite: bool,
    pub(crate) wrong: Vec<String>,
}

fn bit(id: u8) -> u32 {
    1 << id
}

impl Machine {
    fn meta(&self) -> Option<&Meta> {
        self.file.as_ref()?.meta.as_ref()
    }

    fn meta_mut(&mut self) -> Option<&mut Meta> {
        self.file.as_mut()?.meta.as_mut()
    }

    /// Of its replica in the kernel.
    pub(crate) fn state(&self) -> DiskState {
        let attached = self.kernel.as_ref().is_some_and(|kernel| kernel.attached);
        match self.meta().filter(|_| attached) {
            None => DiskState::Diskless,
            Some(meta) if !meta.whole => DiskState::Inconsistent,
            Some(meta) if meta.outdated => DiskState::Outdated,
            Some(_) => DiskState::UpToDate,
        }
    }

    fn is_primary(&self) -> bool {
        self.kernel.as_ref().is_some_and(|kernel| kernel.primary)
    }
}

impl Cluster {
    /// The numbers by which two machines know each other.
    fn acquainted(&self, one: usize, other: usize) -> Option<(u8, u8)> {
        let (a, b) = (&self.machines[one], &self.machines[other]);
        let (x, y) = (a.kernel.as_ref()?, b.kernel.as_ref()?);
        let there = x.peers.get(&y.me).is_some_and(|peer| peer.node == other);
        let back = y.peers.get(&x.me).is_some_and(|peer| peer.node == one);
        (there && back && a.on && b.on && a.group == b.group).then_some((x.me, y.me))
    }

    pub(crate) fn is_connected(&self, one: usize, other: usize) -> bool {
        let Some((_, id)) = self.acquainted(one, other) else {
            return false;
        };
        let kernel = self.machines[one].kernel.as_ref().unwrap();
        kernel.peers[&id].link == Connection::Connected
    }

    fn set_link(&mut self, one: usize, other: usize, link: Connection) {
        let Some((mine, yours)) = self.acquainted(one, other) else {
            return;
        };
        for (node, id) in [(one, yours), (other, mine)] {
            let kernel = self.machines[node].kernel.as_mut().unwrap();
            kernel.peers.get_mut(&id).unwrap().link = link;
        }
    }

    fn connected(&self, node: usize) -> impl Iterator<Item = usize> + '_ {
        (0..self.machines.len())
            .filter(move |other| *other != node && self.is_connected(node, *other))
    }

    /// All that are connected, directly or not.
    fn component(&self, node: usize) -> BTreeSet<usize> {
        let mut found = BTreeSet::from([node]);
        let mut todo = vec![node];
        while let Some(next) = todo.pop() {
            for other in self.connected(next) {
                if found.insert(other) {
                    todo.push(other);
                }
            }
        }
        found
    }

    /// Lets the kernels find each other, compare what they have, and count.
    pub(crate) fn settle(&mut self, random: &mut Random) {
        let count = self.machines.len();
        for node in 0..count {
            let links: Vec<(u8, usize)> = match &self.machines[node].kernel {
                Some(kernel) => kernel
                    .peers
                    .iter()
                    .map(|(id, peer)| (*id, peer.node))
                    .collect(),
                None => Vec::new(),
            };
            for (id, other) in links {
                let mutual = self
                    .acquainted(node, other)
                    .is_some_and(|(_, yours)| yours == id);
                let back = mutual && self.is_connected(other, node);
                let kernel = self.machines[node].kernel.as_mut().unwrap();
                let peer = kernel.peers.get_mut(&id).unwrap();
                if peer.link == Connection::Connected && !back {
                    peer.link = Connection::Connecting;
                }
            }
        }
        // Who was lost is not counted with who is found: a tie is kept only without an interruption.
        self.count_votes();
        for one in 0..count {
            for other in one + 1..count {
                self.meet(one, other, random);
            }
        }
        for node in 0..count {
            self.refill(node, random);
        }
        self.reconcile();
        self.count_votes();
        for node in 0..count {
            let with = Self::mask(&self.current_for(node));
            let kernel = self.machines[node].kernel.as_mut();
            // Who was filled is of this generation; when it is lost, the next write begins another.
            if let Some(kernel) = kernel.filter(|kernel| kernel.primary && kernel.with != 0) {
                kernel.with |= with;
            }
        }
    }

    fn mask(nodes: &[usize]) -> u32 {
        nodes.iter().fold(0, |all, one| all | (1_u32 << *one))
    }

    fn link(&self, node: usize, id: u8) -> Connection {
        self.machines[node].kernel.as_ref().unwrap().peers[&id].link
    }

    fn attached(&self, node: usize) -> Option<Meta> {
        let machine = &self.machines[node];
        let attached = machine
            .kernel
            .as_ref()
            .is_some_and(|kernel| kernel.attached);
        machine.meta().filter(|_| attached).cloned()
    }

    fn meet(&mut self, one: usize, other: usize, random: &mut Random) {
        let Some((mine, yours)) = self.acquainted(one, other) else {
            return;
        };
        let waits = |link| link == Connection::Connecting;
        if !waits(self.link(one, yours)) || !waits(self.link(other, mine)) {
            return;
        }
        let takes = |node: usize, id: u8, peer: usize| {
            let kernel = self.machines[node].kernel.as_ref().unwrap();
            let attached = self.machines[peer].kernel.as_ref().unwrap().attached;
            kernel.peers[&id].replica || !attached
        };
        if !takes(one, yours, other) || !takes(other, mine, one) {
            return;
        }
        if self.machines[one].is_primary() && self.machines[other].is_primary() && !self.polite {
            self.set_link(one, other, Connection::StandAlone);
            return;
        }
        if let (Some(a), Some(b)) = (self.attached(one), self.attached(other))
            && !(a.fresh || b.fresh || a.generation == b.generation)
        {
            let older = self.generations.is_before(a.generation, b.generation);
            let newer = self.generations.is_before(b.generation, a.generation);
            if !older && !newer {
                // Until something is written members may still be given up.
                if self.acknowledged > 0 {
                    self.wrong.push(format!(
                            "{one} and {other} have generations {} and {}, of which none is before the other",
                            a.generation, b.generation
                        ));
                }
                self.set_link(one, other, Connection::StandAlone);
                return;
            }
            let (old, source) = if older { (one, b) } else { (other, a) };
            if !source.whole {
                // The one with the newer data is not whole: the old one is of no use, and learns it.
                self.machines[old].meta_mut().unwrap().outdated = true;
                return;
            }
            let holds = self.machines[old].is_primary()
                && self.machines[old].state() == DiskState::UpToDate;
            if holds && !self.let_old_go(old) {
                self.set_link(one, other, Connection::StandAlone);
                return;
            }
            self.machines[old].meta_mut().unwrap().outdated = true;
        }
        for (holder, peer) in [(one, other), (other, one)] {
            if !self.fits_holder(holder, peer) {
                self.set_link(one, other, Connection::StandAlone);
                return;
            }
        }
        if self.machines[one].is_primary() && self.machines[other].is_primary() {
            self.set_link(one, other, Connection::StandAlone);
            return;
        }
        let current = |meta: &Meta| meta.whole && !meta.outdated && !meta.fresh;
        let pair = (
            self.attached(one).filter(current),
            self.attached(other).filter(current),
        );
        if let (Some(a), Some(b)) = pair
            && a.generation == b.generation
        {
            self.equal_generations(one, other, random);
        }
        self.set_link(one, other, Connection::Connected);
        self.agree_on_size(one, other);
    }

    /// A node without current data of its own remembers the newest that it has seen: older data is of no use, and
    /// by newer a holder is overtaken.
    fn fits_holder(&mut self, holder: usize, peer: usize) -> bool {
        let machine = &self.machines[holder];
        let seen = machine.kernel.as_ref().unwrap().seen;
        let Some(meta) = self.attached(peer).filter(|meta| meta.whole) else {
            return true;
        };
        let attached = machine.kernel.as_ref().unwrap().attached;
        let remembers = machine.is_primary() || !attached;
        if !remembers || machine.state() == DiskState::UpToDate || seen == meta.generation {
            return true;
        }
        if self.generations.is_before(seen, meta.generation) {
            if machine.is_primary() {
                return self.let_old_go(holder);
            }
            self.machines[holder].kernel.as_mut().unwrap().seen = meta.generation;
            return true;
        }
        self.machines[peer].meta_mut().unwrap().outdated = true;
        true
    }

    /// A holder whose I/O waits meets newer data. Returns whether it gave up the right to write.
    fn let_old_go(&mut self, node: usize) -> bool {
        let kernel = self.machines[node].kernel.as_mut().unwrap();
        if kernel.quorum {
            self.wrong
                .push(format!("{node} may write to data that is old"));
        }
        if !self.polite {
            return false;
        }
        kernel.primary = false;
        kernel.open = false;
        kernel.in_flight = false;
        true
    }

    /// A write was under way when they parted: it is on one of them.
    fn equal_generations(&mut self, one: usize, other: usize, random: &mut Random) {
        let data = |node: usize| self.machines[node].file.as_ref().unwrap().data;
        let (a, b) = (data(one), data(other));
        if a == b {
            return;
        }
        let source = match (
            self.machines[one].is_primary(),
            self.machines[other].is_primary(),
        ) {
            (true, _) => one,
            (_, true) => other,
            _ => *random.pick(&[one, other]),
        };
        let target = if source == one { other } else { one };
        self.machines[target].file.as_mut().unwrap().data = data(source);
    }

    fn agree_on_size(&mut self, one: usize, other: usize) {
        let fresh = |node: usize| self.machines[node].meta().is_some_and(|meta| meta.fresh);
        let attached = |node: usize| self.machines[node].kernel.as_ref().unwrap().attached;
        let size = |node: usize| self.machines[node].kernel.as_ref().unwrap().size;
        let agreed = match (attached(one), attached(other)) {
            (true, true) if fresh(one) && !fresh(other) => size(other),
            (true, true) if fresh(other) && !fresh(one) => size(one),
            (true, true) => size(one).min(size(other)),
            (true, false) => size(one),
            (false, true) => size(other),
            (false, false) => return,
        };
        for node in [one, other] {
            self.machines[node].kernel.as_mut().unwrap().size = agreed;
            if let Some(meta) = self.machines[node].meta_mut() {
                meta.size = agreed;
            }
        }
    }

    /// Whether a holder is connected to it only through others: it gets no writes.
    fn is_weak(&self, node: usize) -> bool {
        let component = self.component(node);
        component.into_iter().any(|other| {
            other != node && self.machines[other].is_primary() && !self.is_connected(node, other)
        })
    }

    fn source_of(&self, node: usize) -> Option<usize> {
        let target = self.machines[node].meta()?;
        self.connected(node).find(|peer| {
            let current = self.machines[*peer].state() == DiskState::UpToDate;
            let generation = self.machines[*peer]
                .meta()
                .map_or(0, |meta| meta.generation);
            let newer = target.fresh || self.generations.is_before(target.generation, generation);
            current && newer
        })
    }

    /// Begins or ends the filling of a replica that is not current.
    fn refill(&mut self, node: usize, random: &mut Random) {
        let state = self.machines[node].state();
        let behind = matches!(state, DiskState::Inconsistent | DiskState::Outdated);
        if !behind {
            if let Some(kernel) = &mut self.machines[node].kernel {
                kernel.fill = None;
            }
            return;
        }
        let source = self.source_of(node).filter(|_| !self.is_weak(node));
        let source = source.map(|peer| self.machines[peer].kernel.as_ref().unwrap().me);
        let time = 1 + u8::try_from(random.below(3)).unwrap();
        let machine = &mut self.machines[node];
        let kernel = machine.kernel.as_mut().unwrap();
        match (source, kernel.fill) {
            (Some(peer), Some((from, _))) if peer == from => {}
            (Some(peer), _) => {
                kernel.fill = Some((peer, time));
                machine.meta_mut().unwrap().whole = false;
            }
            (None, _) => kernel.fill = None,
        }
    }

    /// Time passes for the filling of a replica.
    pub(crate) fn fill(&mut self, node: usize) {
        let Some(kernel) = &mut self.machines[node].kernel else {
            return;
        };
        match &mut kernel.fill {
            None => return,
            Some((_, time)) if *time > 0 => {
                *time -= 1;
                return;
            }
            Some(_) => {}
        }
        let Some(source) = self.source_of(node).filter(|_| !self.is_weak(node)) else {
            return;
        };
        self.machines[node].kernel.as_mut().unwrap().fill = None;
        let from = self.machines[source].file.clone().unwrap();
        let file = self.machines[node].file.as_mut().unwrap();
        file.data = from.data;
        let meta = file.meta.as_mut().unwrap();
        meta.whole = true;
        meta.fresh = false;
        meta.outdated = false;
        meta.generation = from.meta.unwrap().generation;
    }

    /// Replicas that stay connected when their holder dies in a write agree on it; one that is older learns it.
    fn reconcile(&mut self) {
        let count = self.machines.len();
        for node in 0..count {
            let kernel = self.machines[node].kernel.as_ref();
            let seen = kernel
                .filter(|kernel| !kernel.attached)
                .map(|kernel| kernel.seen);
            let Some(mut seen) = seen else {
                continue;
            };
            let peers = self.current_for(node);
            let generation = |peer: &usize| self.machines[*peer].meta().unwrap().generation;
            let generations: Vec<usize> = peers.iter().map(generation).collect();
            for newer in &generations {
                if self.generations.is_before(seen, *newer) {
                    seen = *newer;
                }
            }
            self.machines[node].kernel.as_mut().unwrap().seen = seen;
            for (peer, generation) in peers.into_iter().zip(generations) {
                let older = seen != generation && self.generations.is_before(generation, seen);
                self.machines[peer].meta_mut().unwrap().outdated |= older;
            }
        }
        for one in 0..count {
            for other in 0..count {
                let current = |node: usize| self.machines[node].state() == DiskState::UpToDate;
                if one == other
                    || !current(one)
                    || !current(other)
                    || !self.is_connected(one, other)
                {
                    continue;
                }
                let generation = |node: usize| self.machines[node].meta().unwrap().generation;
                let (a, b) = (generation(one), generation(other));
                let data = |node: usize| self.machines[node].file.as_ref().unwrap().data;
                if a != b {
                    if self.generations.is_before(a, b) {
                        self.machines[one].meta_mut().unwrap().outdated = true;
                    }
                } else if data(one) != data(other) && self.states.is_before(data(one), data(other))
                {
                    self.machines[one].file.as_mut().unwrap().data = data(other);
                }
            }
        }
    }

    fn count_votes(&mut self) {
        for diskless in [false, true] {
            for node in 0..self.machines.len() {
                let Some(kernel) = &self.machines[node].kernel else {
                    continue;
                };
                if kernel.attached == diskless {
                    continue;
                }
                let quorum = self.has_quorum(node, kernel);
                self.machines[node].kernel.as_mut().unwrap().quorum = quorum;
            }
        }
    }

    fn has_quorum(&self, node: usize, kernel: &Kernel) -> bool {
        let machine = &self.machines[node];
        let known = machine.meta().filter(|_| kernel.attached);
        let known = known.map_or(0, |meta| meta.known & !bit(kernel.me));
        let (mut current, mut present, mut unknown) = (0, 0, 0);
        let (mut diskless, mut away) = (0, 0);
        let mut of_peer = false;
        let has_vote = machine
            .kept
            .as_ref()
            .and_then(|kept| kept.member(&machine.name));
        match machine.state() {
            DiskState::UpToDate => current += 1,
            DiskState::Diskless if has_vote.is_some_and(|member| member.disk.is_some()) => {
                unknown += 1;
            }
            DiskState::Diskless => diskless += 1,
            _ => present += 1,
        }
        for id in 0..32 {
            let peer = kernel.peers.get(&id);
            match peer {
                None if known & bit(id) != 0 => unknown += 1,
                None => {}
                Some(peer) if peer.link != Connection::Connected => {
                    *(if peer.replica {
                        &mut unknown
                    } else {
                        &mut away
                    }) += 1;
                }
                Some(peer) => match self.machines[peer.node].state() {
                    DiskState::UpToDate => {
                        current += 1;
                        let theirs = self.machines[peer.node].kernel.as_ref();
                        of_peer |= !kernel.attached && theirs.is_some_and(|theirs| theirs.quorum);
                    }
                    DiskState::Diskless if !peer.replica => diskless += 1,
                    // One whose disk failed counts as one that is there.
                    _ => present += 1,
                },
            }
        }
        let voters = current + present + unknown;
        let needed = voters / 2 + 1;
        let redundant = !kernel.majority || current >= needed;
        if of_peer || (current + present >= needed && redundant) {
            return true;
        }
        let tie = voters != 0 && voters % 2 == 0 && current + present == needed - 1;
        tie && diskless * 2 > diskless + away && kernel.quorum
    }

    /// The replicas that a node's writes go to, or its reads come from.
    fn current_for(&self, node: usize) -> Vec<usize> {
        let own = std::iter::once(node).chain(self.connected(node));
        own.filter(|one| self.machines[*one].state() == DiskState::UpToDate)
            .collect()
    }

    /// The right to write, for a pod.
    pub(crate) fn promote(&mut self, node: usize) -> bool {
        let Some(kernel) = &self.machines[node].kernel else {
            return false;
        };
        if kernel.primary {
            return true;
        }
        let others = self.component(node);
        let other = others.iter().any(|one| self.machines[*one].is_primary());
        if !kernel.quorum || other || self.current_for(node).is_empty() {
            return false;
        }
        self.check_data(node);
        let current = self.current_for(node)[0];
        let seen = self.machines[current].meta().unwrap().generation;
        let kernel = self.machines[node].kernel.as_mut().unwrap();
        kernel.primary = true;
        kernel.open = true;
        kernel.seen = seen;
        kernel.with = 0;
        true
    }

    /// What a holder sees has everything that was acknowledged.
    fn check_data(&mut self, node: usize) {
        for one in self.current_for(node) {
            let data = self.machines[one].file.as_ref().unwrap().data;
            if !self.states.is_before(self.acknowledged, data) {
                self.wrong.push(format!(
                    "{node} sees state {data} of {one} without the acknowledged {}",
                    self.acknowledged
                ));
            }
        }
    }

    pub(crate) fn close(&mut self, node: usize) {
        if let Some(kernel) = &mut self.machines[node].kernel {
            kernel.open = false;
            kernel.primary = false;
            kernel.in_flight = false;
        }
    }

    /// A write of the pod on a node; `dies`: its node loses power when some replicas have it.
    pub(crate) fn write(&mut self, node: usize, dies: bool, random: &mut Random) {
        let machine = &self.machines[node];
        let Some(kernel) = machine
            .kernel
            .as_ref()
            .filter(|kernel| kernel.primary && kernel.open)
        else {
            return;
        };
        let targets = self.current_for(node);
        let Some(first) = targets.first() else {
            return;
        };
        if !kernel.quorum {
            if machine.state() == DiskState::UpToDate && !kernel.in_flight {
                // It is on the disk of the holder, and nobody is told.
                let data = machine.file.as_ref().unwrap().data;
                let next = self.states.grow(data);
                self.machines[node].file.as_mut().unwrap().data = next;
                self.machines[node].kernel.as_mut().unwrap().in_flight = true;
            }
            return;
        }
        let (first, before) = (*first, kernel.with);
        self.check_data(node);
        let base = self.machines[first].file.as_ref().unwrap().data;
        let with = Self::mask(&targets);
        if before != with {
            let generation = self.machines[first].meta().unwrap().generation;
            let next = self.generations.grow(generation);
            for one in &targets {
                let meta = self.machines[*one].meta_mut().unwrap();
                if meta.generation != generation {
                    self.wrong
                        .push(format!("{node} writes to replicas of two generations"));
                }
                meta.generation = next;
            }
            let kernel = self.machines[node].kernel.as_mut().unwrap();
            kernel.with = with;
            kernel.seen = next;
            for one in self.connected(node).collect::<Vec<_>>() {
                let kernel = self.machines[one].kernel.as_mut().unwrap();
                kernel.seen = next;
            }
        }
        let next = self.states.grow(base);
        for one in self.component(node) {
            let current = self.machines[one].state() == DiskState::UpToDate;
            if current && !targets.contains(&one) {
                self.machines[one].meta_mut().unwrap().outdated = true;
            }
        }
        for one in &targets {
            if !dies || random.chance(50) {
                self.machines[*one].file.as_mut().unwrap().data = next;
            }
        }
        if dies {
            self.power_off(node);
        } else {
            self.machines[node].kernel.as_mut().unwrap().in_flight = false;
            self.acknowledged = next;
        }
    }

    pub(crate) fn power_off(&mut self, node: usize) {
        let machine = &mut self.machines[node];
        machine.on = false;
        machine.kernel = None;
    }

    /// The disk is replaced by an empty one.
    pub(crate) fn destroy(&mut self, node: usize) {
        let machine = &mut self.machines[node];
        machine.file = None;
        if let Some(kernel) = &mut machine.kernel {
            kernel.attached = false;
            kernel.fill = None;
        }
    }

    /// The kernel of a node is brought to the layout that it keeps, as far as it goes; `stops`: the program is
    /// killed after so many steps.
    pub(crate) fn adapt(&mut self, node: usize, stops: usize, random: &mut Random) {
        let machine = &self.machines[node];
        let Some(layout) = machine
            .kept
            .clone()
            .filter(|_| machine.on && machine.engine)
        else {
            return;
        };
        let part = self.part(node);
        let verbs = converge(&layout, &machine.name, part.as_ref());
        for verb in verbs.into_iter().take(stops) {
            let may_fail = matches!(verb, Verb::AttachDisk { .. });
            if !self.run(node, &layout, verb) && !may_fail {
                break;
            }
            self.settle(random);
        }
    }

    #[expect(clippy::too_many_lines, reason = "one arm for each verb")]
    fn run(&mut self, node: usize, layout: &Layout, verb: Verb) -> bool {
        let index = |name: &NodeId| {
            self.machines
                .iter()
                .position(|machine| machine.name == *name)
        };
        let member = layout.member(&self.machines[node].name).cloned();
        match verb {
            Verb::LetGo => {
                if layout.admits(&self.machines[node].name) {
                    self.wrong
                        .push(format!("{node} lets go of what it may have"));
                }
                self.close(node);
            }
            Verb::Create => {
                self.machines[node].kernel = Some(Kernel {
                    me: member.unwrap().id.0,
                    primary: false,
                    open: false,
                    attached: false,
                    quorum: false,
                    majority: layout.majority_is_current(),
                    size: 0,
                    backing: 0,
                    peers: BTreeMap::new(),
                    fill: None,
                    with: 0,
                    in_flight: false,
                    seen: 0,
                });
            }
            Verb::Down => {
                let machine = &mut self.machines[node];
                if machine.kernel.as_ref().is_some_and(|kernel| kernel.open) {
                    return false;
                }
                machine.kernel = None;
            }
            Verb::SetQuorum => {
                let kernel = self.machines[node].kernel.as_mut().unwrap();
                kernel.majority = layout.majority_is_current();
            }
            Verb::AddPeer(peer) => {
                let other = index(&peer.node).unwrap();
                let machine = &mut self.machines[node];
                let replica = peer.disk.is_some();
                let kernel = machine.kernel.as_mut().unwrap();
                let link = Connection::StandAlone;
                kernel.peers.insert(
                    peer.id.0,
                    Peer {
                        node: other,
                        replica,
                        link,
                    },
                );
                if kernel.attached && replica {
                    machine.meta_mut().unwrap().known |= bit(peer.id.0);
                }
            }
            Verb::RemovePeer(id) => {
                let machine = &mut self.machines[node];
                machine.kernel.as_mut().unwrap().peers.remove(&id.0);
                if let Some(meta) = machine.meta_mut() {
                    meta.known &= !bit(id.0);
                }
            }
            Verb::AttachDisk { create } => {
                let begins = layout.begins(&member.unwrap());
                return self.attach(node, create, begins);
            }
            Verb::DetachDisk => self.machines[node].kernel.as_mut().unwrap().attached = false,
            Verb::GrowDisk => {
                let machine = &mut self.machines[node];
                let size = machine.file.as_ref().map_or(0, |file| file.size);
                machine.kernel.as_mut().unwrap().backing = size;
            }
            Verb::Disconnect(id) => {
                let kernel = self.machines[node].kernel.as_mut().unwrap();
                kernel.peers.get_mut(&id.0).unwrap().link = Connection::StandAlone;
            }
            Verb::Connect(id) => {
                let kernel = self.machines[node].kernel.as_mut().unwrap();
                kernel.peers.get_mut(&id.0).unwrap().link = Connection::Connecting;
            }
        }
        true
    }

    fn attach(&mut self, node: usize, create: bool, begins: Begins) -> bool {
        let day_zero = self.day_zero;
        let machine = &mut self.machines[node];
        let kernel = machine.kernel.as_mut().unwrap();
        let Some(file) = machine.file.as_mut().filter(|file| file.replica) else {
            return false;
        };
        if file.meta.is_none() && create {
            file.meta = Some(Meta {
                me: kernel.me,
                fresh: begins == Begins::Unknown,
                whole: begins != Begins::Unknown,
                outdated: matches!(begins, Begins::Behind(_)),
                generation: if begins == Begins::Unknown {
                    0
                } else {
                    day_zero
                },
                known: 0,
                size: file.size,
            });
        }
        let Some(meta) = file.meta.as_mut().filter(|meta| meta.me == kernel.me) else {
            return false;
        };
        meta.known = 0;
        for (id, peer) in &kernel.peers {
            if peer.replica {
                meta.known |= bit(*id);
            }
        }
        kernel.attached = true;
        kernel.backing = file.size;
        kernel.size = meta.size;
        for peer in kernel.peers.values_mut() {
            // A kernel that was connected without a disk tells the others by connecting again.
            if peer.link == Connection::Connected {
                peer.link = Connection::Connecting;
            }
        }
        true
    }

    /// What the node says of its part.
    pub(crate) fn part(&self, node: usize) -> Option<Part> {
        let machine = &self.machines[node];
        if machine.kept.is_none() && machine.kernel.is_none() {
            // A node tells of metadata on its disks too, whoever left it there.
            let left = machine.file.as_ref().filter(|file| file.replica);
            let me = |file: &File| MemberId(file.meta.as_ref().map_or(0, |meta| meta.me));
            return left.map(|file| Part {
                me: me(file),
                ..Part::absent(volume())
            });
        }
        let kept = machine.kept.as_ref();
        let own = kept.and_then(|kept| kept.member(&machine.name));
        let own = own.map_or(MemberId(31), |member| member.id);
        let kernel = machine.kernel.as_ref();
        let links = kernel.into_iter().flat_map(|kernel| &kernel.peers);
        let links = links.map(|(id, peer)| self.seen(node, *id, peer)).collect();
        let suspended = |kernel: &Kernel| kernel.primary && !kernel.quorum;
        Some(Part {
            volume: volume(),
            generation: kept.map_or(0, |kept| kept.generation),
            me: kernel.map_or(own, |kernel| MemberId(kernel.me)),
            up: kernel.is_some(),
            role: if machine.is_primary() {
                Role::Primary
            } else {
                Role::Secondary
            },
            disk: machine.state(),
            quorum: kernel.is_some_and(|kernel| kernel.quorum),
            suspended: kernel.is_some_and(suspended),
            open: kernel.is_some_and(|kernel| kernel.open),
            size: ByteSize(kernel.map_or(0, |kernel| kernel.size)),
            backing: ByteSize(
                kernel.map_or(0, |kernel| if kernel.attached { kernel.backing } else { 0 }),
            ),
            fresh: machine.meta().is_some_and(|meta| meta.fresh),
            majority_is_current: kernel.is_some_and(|kernel| kernel.majority),
            links,
            troubles: Vec::new(),
        })
    }

    fn seen(&self, node: usize, id: u8, peer: &Peer) -> Link {
        let connected = peer.link == Connection::Connected;
        let other = &self.machines[peer.node];
        let target = |kernel: &Kernel| kernel.fill.is_some_and(|(from, _)| from == id);
        let kernel = self.machines[node].kernel.as_ref();
        let role = if other.is_primary() {
            Role::Primary
        } else {
            Role::Secondary
        };
        let replication = match (connected, kernel.is_some_and(target)) {
            (false, _) => Replication::Off,
            (true, true) => Replication::SyncTarget,
            (true, false) => Replication::Established,
        };
        Link {
            peer: MemberId(id),
            node: other.name.to_string(),
            connection: peer.link,
            role: if connected { role } else { Role::Unknown },
            disk: if connected {
                other.state()
            } else {
                DiskState::Unknown
            },
            replication,
            out_of_sync: ByteSize(0),
            replica: peer.replica,
        }
    }

    /// Declares the connected replicas equal, as the node service does it.
    pub(crate) fn initialize(&mut self, node: usize) {
        if self.machines[node].state() != DiskState::Inconsistent {
            return;
        }
        let is_fresh = |node: usize| self.machines[node].meta().is_some_and(|meta| meta.fresh);
        let peers: Vec<usize> = self.connected(node).collect();
        let attached = |one: &usize| self.machines[*one].kernel.as_ref().unwrap().attached;
        let equal: Vec<usize> = peers.into_iter().filter(attached).chain([node]).collect();
        if !equal.iter().all(|one| is_fresh(*one)) {
            return;
        }
        let generation = self.generations.grow(0);
        let data = self.machines[node].file.as_ref().unwrap().data;
        for one in equal {
            let file = self.machines[one].file.as_mut().unwrap();
            if file.data != data {
                self.wrong
                    .push(format!("{node} declares {one} equal, which it is not"));
            }
            let meta = file.meta.as_mut().unwrap();
            meta.fresh = false;
            meta.whole = true;
            meta.generation = generation;
        }
    }

    /// The device gets the size of its files; refused while a replica is away.
    pub(crate) fn resize(&mut self, node: usize) {
        let Some(kernel) = &self.machines[node].kernel else {
            return;
        };
        let all: BTreeSet<usize> = self.connected(node).chain([node]).collect();
        let replicas = kernel.peers.values().filter(|peer| peer.replica);
        if !replicas.clone().all(|peer| all.contains(&peer.node)) {
            return;
        }
        let backing = |one: &usize| {
            let kernel = self.machines[*one].kernel.as_ref().unwrap();
            kernel.attached.then_some(kernel.backing)
        };
        let Some(size) = all.iter().filter_map(backing).min() else {
            return;
        };
        for one in all {
            self.machines[one].kernel.as_mut().unwrap().size = size;
            if let Some(meta) = self.machines[one].meta_mut() {
                meta.size = size;
            }
        }
    }

    /// Gives up what only this node has, as the node service does it.
    pub(crate) fn rejoin(&mut self, node: usize) {
        let machine = &self.machines[node];
        let admitted = |kept: &Layout| kept.admits(&machine.name);
        if machine.is_primary() || machine.kept.as_ref().is_none_or(admitted) {
            return;
        }
        let Some(file) = &machine.file else { return };
        let only = self.machines.iter().all(|other| {
            let data = other.file.as_ref().map_or(0, |file| file.data);
            other.name == machine.name || !self.states.is_before(self.acknowledged, data)
        });
        if only && self.states.is_before(self.acknowledged, file.data) {
            self.wrong
                .push(format!("{node} gives up what was acknowledged"));
        }
        if let Some(meta) = self.machines[node].meta_mut() {
            meta.outdated = true;
            meta.generation = 0;
        }
        if let Some(kernel) = &mut self.machines[node].kernel {
            for peer in kernel.peers.values_mut() {
                peer.link = Connection::Connecting;
            }
        }
    }
}

pub(crate) fn volume() -> VolumeName {
    VolumeName::new("v").unwrap()
}
