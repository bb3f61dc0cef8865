//! What happens around the kernels: two controllers with a record, pods that move, and everything that fails.

use std::collections::BTreeMap;

use replication::{
    Address, DiskView, FileView, Generation, Layout, MemberId, NodeView, Origin, Plan, Record,
    Step, View, Wanted, founders, judge, place, plan, usable,
};
use types::{ByteSize, DiskUuid, NodeId};

use crate::kernel::{Cluster, File, Machine, Tree, volume};
use crate::random::Random;

const SIZE: u64 = 1 << 30;
/// Minutes.
const PATIENCE: u32 = 1;

/// What was played.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// What must never be.
    pub(crate) wrong: Vec<String>,
    pub(crate) trace: Vec<String>,
    /// What happened how often, to see that the simulation does what it is for.
    pub(crate) counts: BTreeMap<&'static str, u64>,
}

/// A controller between looking and doing.
#[derive(Debug, Default)]
struct Controller {
    seen: Option<(Record, u64, View)>,
}

/// Something on its way to a node.
#[derive(Debug, Clone)]
enum Call {
    Put(usize, Layout),
    Make(usize, u64, bool, usize),
    GrowFile(usize, u64),
    Initialize(usize),
    Grow(usize),
    Rejoin(usize),
    Remove(usize),
    Delete(usize),
}

#[derive(Debug)]
struct World {
    random: Random,
    now: i64,
    cluster: Cluster,
    /// In the Kubernetes API, with its version.
    record: Option<Record>,
    version: u64,
    controllers: [Controller; 2],
    calls: Vec<Call>,
    /// Disks that are gone for good, beyond what a volume survives.
    hopeless: bool,
    /// In percent of what may be.
    faults: usize,
    /// Events until it gets calmer.
    hot: usize,
    origin: usize,
    outcome: Outcome,
}

/// Plays a seed to its end.
pub(crate) fn play(seed: u64) -> Outcome {
    let mut world = World::new(seed);
    world.create();
    if world.random.chance(80) {
        world.calm(30);
    }
    let events = 100 + world.random.below(300);
    for _ in 0..events {
        if world.is_wrong() {
            break;
        }
        world.event();
    }
    if !world.is_wrong() {
        world.heal();
    }
    let mut outcome = world.outcome;
    outcome.wrong.extend(world.cluster.wrong);
    outcome
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let count = 3 + random.below(3);
        let machine = |index: usize, random: &mut Random| Machine {
            name: NodeId::new(&format!("n{index}")).unwrap(),
            disk: DiskUuid::new(&format!("d{index}")).unwrap(),
            address: format!("10.0.0.{}", index + 1).parse().unwrap(),
            on: true,
            reachable: true,
            has_disk: index == 0 || random.chance(80),
            engine: index < 3 || random.chance(80),
            group: 0,
            file: None,
            kept: None,
            kernel: None,
        };
        let machines = (0..count)
            .map(|index| machine(index, &mut random))
            .collect();
        let polite = random.chance(50);
        let faults = *random.pick(&[10, 30, 60, 100]);
        let mut generations = Tree::default();
        let cluster = Cluster {
            machines,
            states: Tree::default(),
            day_zero: generations.grow(0),
            generations,
            acknowledged: 0,
            polite,
            wrong: Vec::new(),
        };
        Self {
            random,
            now: 1_000_000,
            cluster,
            record: None,
            version: 0,
            controllers: [Controller::default(), Controller::default()],
            calls: Vec::new(),
            hopeless: false,
            faults,
            hot: 0,
            origin: 0,
            outcome: Outcome::default(),
        }
    }

    fn say(&mut self, text: impl FnOnce(&Self) -> String) {
        if crate::TRACED.get() {
            let line = format!("{:5} {}", self.now - 1_000_000, text(self));
            self.outcome.trace.push(line);
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.outcome.counts.entry(what).or_default() += 1;
    }

    fn is_wrong(&self) -> bool {
        !self.cluster.wrong.is_empty() || !self.outcome.wrong.is_empty()
    }

    fn index(&self, node: &NodeId) -> Option<usize> {
        let mut machines = self.cluster.machines.iter();
        machines.position(|machine| machine.name == *node)
    }

    fn of_disk(&self, disk: &DiskUuid) -> Option<usize> {
        let mut machines = self.cluster.machines.iter();
        machines.position(|machine| machine.disk == *disk)
    }

    /// A volume that there is not yet.
    fn create(&mut self) {
        let view = self.view();
        let replicas = 2 + u32::try_from(self.random.below(3)).unwrap();
        let wanted = Wanted {
            volume: volume(),
            replicas,
            require_all: false,
            size: ByteSize(SIZE),
        };
        let disks = place(&wanted, &view).unwrap();
        let plain = disks.len() == 1;
        let record = Record {
            volume: volume(),
            generation: 1,
            size: ByteSize(SIZE),
            number_of_replicas: replicas,
            stale_replica_timeout: PATIENCE,
            origin: Origin::Blank,
            address: (!plain).then_some(Address {
                minor: 1000,
                port: 7000,
            }),
            members: founders(&disks, &view),
            initialized: false,
            day_zero: None,
            whole: Vec::new(),
            holder: None,
            readers: Vec::new(),
            lost: Vec::new(),
            evacuate: Vec::new(),
            leftovers: Vec::new(),
            tls: false,
            deleting: false,
        };
        let mut record = record;
        if !plain && self.random.chance(70) {
            record.day_zero = Some(Generation::random(self.cluster.day_zero as u64));
            for member in &mut record.members {
                member.as_first = true;
            }
        }
        self.say(|_| format!("created: {}", shown(&record)));
        self.record = Some(record);
    }

    /// What a controller sees of everything that it reaches.
    fn view(&self) -> View {
        let mut view = View {
            now: self.now,
            free: Some(Address {
                minor: 1000,
                port: 7000,
            }),
            may_fill: true,
            ..View::default()
        };
        for (index, machine) in self.cluster.machines.iter().enumerate() {
            let answers = machine.on && machine.reachable;
            let engine = machine.engine.then(|| "9.3.3".to_owned());
            let node = NodeView {
                answers,
                engine: engine.ok_or_else(|| "no DRBD".to_owned()),
                address: Some(machine.address),
                zone: None,
                part: if answers {
                    self.cluster.part(index)
                } else {
                    None
                },
            };
            view.nodes.insert(machine.name.clone(), node);
            if machine.has_disk {
                // All disks are asked when it is to be deleted.
                let concerned = self.record.as_ref().is_some_and(|record| {
                    if record.deleting {
                        return true;
                    }
                    let mut members = record.members.iter().chain(&record.leftovers);
                    members.any(|member| member.disk.as_ref() == Some(&machine.disk))
                });
                let file = machine.file.as_ref().filter(|_| concerned);
                let file = file.map(|file| FileView {
                    size: ByteSize(file.size),
                    replica: file.replica,
                });
                let disk = DiskView {
                    node: machine.name.clone(),
                    answers,
                    creatable: ByteSize(SIZE * 100),
                    file,
                    preferred: None,
                };
                view.disks.insert(machine.disk.clone(), disk);
            }
        }
        view
    }

    fn event(&mut self) {
        self.now += i64::try_from(self.random.below(6)).unwrap();
        let count = self.cluster.machines.len();
        let node = self.random.below(count);
        if self.hot > 0 {
            self.hot -= 1;
            self.attack(node);
            self.cluster.settle(&mut self.random);
            self.say(Self::replicas);
            return;
        }
        match self.random.below(100) {
            0..22 => {
                let which = self.random.below(2);
                self.control(which);
            }
            22..45 => self.deliver(),
            45..57 => self.adapt(node),
            57..69 => self.write(),
            69..74 => self.cluster.fill(node),
            74..85 => self.pod(node),
            85..91 if self.random.chance(self.faults) => self.fail(node),
            85..94 => self.recover(node),
            94 => self.now += i64::try_from(self.random.below(120)).unwrap(),
            95..98 => self.edit(node),
            _ => self.destroy(node),
        }
        self.cluster.settle(&mut self.random);
    }

    /// What may go wrong while members come and go, all at once.
    fn attack(&mut self, node: usize) {
        match self.random.below(100) {
            0..20 => {
                let which = self.random.below(2);
                self.control(which);
            }
            20..45 => self.deliver(),
            45..55 => self.adapt(node),
            55..75 => self.write(),
            75..80 => self.cluster.fill(node),
            80..90 => self.move_pod(node),
            90..95 => {
                for machine in &mut self.cluster.machines {
                    machine.group = u8::try_from(self.random.below(2)).unwrap();
                }
                self.say(|world| {
                    let groups = world.cluster.machines.iter().map(|machine| machine.group);
                    format!("networks: {:?}", groups.collect::<Vec<_>>())
                });
            }
            95 | 96 => {
                self.cluster.power_off(node);
                self.say(|_| format!("n{node} loses power"));
            }
            97 => {
                let machine = &mut self.cluster.machines[node];
                machine.reachable = !machine.reachable;
            }
            _ => {
                for machine in &mut self.cluster.machines {
                    machine.on = true;
                    machine.group = 0;
                }
                self.say(|_| "the network and the power are back".to_owned());
            }
        }
    }

    /// Kubernetes moves the pod at once: without asking a node that does not answer.
    fn move_pod(&mut self, node: usize) {
        let Some(record) = self.record.clone() else {
            return;
        };
        let name = self.cluster.machines[node].name.clone();
        if !record.initialized || record.address.is_none() || record.member(&name).is_none() {
            return;
        }
        let holder = record.holder.as_ref().and_then(|holder| self.index(holder));
        if let Some(at) = holder.filter(|at| self.cluster.machines[*at].reachable) {
            self.cluster.close(at);
        }
        let mut next = record;
        next.holder = Some(name.clone());
        self.edit_to(next);
        let layout = self.record.as_ref().and_then(Record::layout);
        if let Some(layout) = layout {
            self.call(&Call::Put(node, layout));
        }
        let kept = self.cluster.machines[node].kept.as_ref();
        if kept.is_some_and(|kept| kept.holder.as_ref() == Some(&name)) {
            let started = self.cluster.promote(node);
            self.count(if started { "moves" } else { "moves refused" });
            self.say(|_| format!("pod moves to {name}: {started}"));
        }
    }

    /// A controller looks, and some time later does what follows.
    fn control(&mut self, which: usize) {
        let Some((record, version, view)) = self.controllers[which].seen.take() else {
            if let Some(record) = self.record.clone() {
                let view = self.view();
                self.controllers[which].seen = Some((record, self.version, view));
            }
            return;
        };
        // A controller that was held up looks again: no call of it is as old as that.
        if self.now - view.now > 20 {
            return;
        }
        let next = plan(&record, &view);
        if self.random.chance(10) {
            let _ = judge(&record, &view);
        }
        self.execute(which, &record, version, &view, next);
    }

    fn execute(&mut self, which: usize, record: &Record, version: u64, view: &View, plan: Plan) {
        for step in plan.steps {
            self.say(|_| format!("controller {which}: {}", step_shown(&step)));
            let node = |node: &NodeId| self.index(node).unwrap();
            let disk = |disk: &DiskUuid| self.of_disk(disk).unwrap();
            let call = match step {
                Step::Change(next) => {
                    self.change(record, version, view, *next);
                    return;
                }
                Step::Release => {
                    if version == self.version {
                        self.released();
                    }
                    return;
                }
                Step::MakeFile { disk: at } => {
                    let replica = record.address.is_some();
                    Call::Make(disk(&at), record.size.bytes(), replica, self.origin)
                }
                Step::GrowFile { disk: at, size } => Call::GrowFile(disk(&at), size.bytes()),
                Step::Put { node: at } => Call::Put(node(&at), record.layout().unwrap()),
                Step::Initialize { node: at } => Call::Initialize(node(&at)),
                Step::Grow { node: at } => Call::Grow(node(&at)),
                Step::Rejoin { node: at } => Call::Rejoin(node(&at)),
                Step::Remove { node: at } => Call::Remove(node(&at)),
                Step::DeleteFile { disk: at } => Call::Delete(disk(&at)),
            };
            match self.random.below(10) {
                0 => {}
                1 => self.calls.extend([call.clone(), call]),
                _ => self.calls.push(call),
            }
        }
    }

    /// Compare-and-swap.
    fn change(&mut self, record: &Record, version: u64, view: &View, next: Record) {
        if version != self.version {
            self.count("conflicts");
            return;
        }
        self.check_change(record, view, &next);
        self.say(|_| format!("  {}", shown(&next)));
        self.record = Some(next);
        self.version += 1;
    }

    /// No replica that was whole goes while the rest has no majority with everything that was acknowledged.
    fn check_change(&mut self, record: &Record, view: &View, next: &Record) {
        let voters = |record: &Record| {
            let members = record.members.iter();
            let voters = members.filter(|member| member.disk.is_some() && !member.create);
            voters.map(|member| member.id).collect::<Vec<MemberId>>()
        };
        let (before, after) = (voters(record), voters(next));
        let changed = before.iter().filter(|id| !after.contains(id)).count()
            + after.iter().filter(|id| !before.contains(id)).count();
        let parted = |record: &Record| {
            let members = record.members.iter();
            members.filter(|member| member.apart).count()
        };
        if changed > 0 || parted(record) != parted(next) {
            self.hot = self.random.below(80);
        }
        if record.initialized && changed > 1 {
            self.outcome
                .wrong
                .push(format!("two voters change at once: {}", shown(next)));
        }
        for id in before.iter().filter(|id| !after.contains(id)) {
            self.count("replicas removed");
            let current = record
                .members
                .iter()
                .filter(|member| after.contains(&member.id) && view.is_current(member));
            let current = current.count();
            if current * 2 <= after.len() || current < after.len() {
                let text =
                    format!("member {id} is removed while {current} of the others are current");
                self.outcome.wrong.push(text);
            }
            let holding = record.members.iter().filter(|member| {
                let index = self.index(&member.node).unwrap();
                let file = self.cluster.machines[index].file.as_ref();
                let data = file.map(|file| file.data);
                let all = |data| {
                    self.cluster
                        .states
                        .is_before(self.cluster.acknowledged, data)
                };
                after.contains(&member.id) && data.is_some_and(all)
            });
            if holding.count() == 0 {
                let text =
                    format!("member {id} is removed, and no other has all that was acknowledged");
                self.outcome.wrong.push(text);
            }
        }
        if after.iter().any(|id| !before.contains(id)) && record.initialized {
            self.count("replicas added");
        }
        if !next.lost.is_empty() && record.lost.is_empty() {
            self.count("losses noted");
        }
    }

    fn released(&mut self) {
        self.record = None;
        self.version += 1;
        self.count("deleted");
    }

    /// A call arrives, in any order.
    fn deliver(&mut self) {
        if self.calls.is_empty() {
            return;
        }
        let which = self.random.below(self.calls.len());
        let call = self.calls.swap_remove(which);
        self.call(&call);
    }

    fn call(&mut self, call: &Call) {
        let (Call::Put(node, _)
        | Call::Make(node, ..)
        | Call::GrowFile(node, _)
        | Call::Initialize(node)
        | Call::Grow(node)
        | Call::Rejoin(node)
        | Call::Remove(node)
        | Call::Delete(node)) = *call;
        let machine = &mut self.cluster.machines[node];
        if !machine.on || !machine.reachable {
            return;
        }
        match call {
            Call::Put(_, layout) => {
                let older = |kept: &Layout| kept.generation > layout.generation;
                if machine.kept.as_ref().is_some_and(older) {
                    return;
                }
                machine.kept = Some(layout.clone());
                self.adapt(node);
            }
            Call::Make(_, size, replica, data) => {
                if machine.has_disk {
                    let file = machine.file.get_or_insert(File {
                        size: *size,
                        replica: false,
                        meta: None,
                        data: *data,
                    });
                    file.replica |= replica;
                }
            }
            Call::GrowFile(_, size) => {
                if let Some(file) = &mut machine.file {
                    file.size = file.size.max(*size);
                }
            }
            Call::Initialize(_) => self.cluster.initialize(node),
            Call::Grow(_) => {
                self.cluster.resize(node);
                self.count("grown");
            }
            Call::Rejoin(_) => {
                self.cluster.rejoin(node);
                self.count("rejoined");
            }
            Call::Remove(_) => {
                let used = machine.kernel.as_ref().is_some_and(|kernel| kernel.open);
                if !used {
                    machine.kernel = None;
                    machine.kept = None;
                }
            }
            Call::Delete(_) => machine.file = None,
        }
        self.say(|_| format!("done: {call:?}"));
        self.cluster.settle(&mut self.random);
    }

    /// The node service of a node, which may be killed between any two commands.
    fn adapt(&mut self, node: usize) {
        let stops = if self.random.chance(80) {
            usize::MAX
        } else {
            self.random.below(6)
        };
        self.cluster.adapt(node, stops, &mut self.random);
    }

    fn write(&mut self) {
        for node in 0..self.cluster.machines.len() {
            let before = self.cluster.acknowledged;
            let dies = self.random.chance(4);
            self.cluster.write(node, dies, &mut self.random);
            if self.cluster.machines[node]
                .kernel
                .as_ref()
                .is_some_and(|kernel| kernel.open)
                || dies
            {
                let now = self.cluster.acknowledged;
                self.say(|world| {
                    format!(
                        "n{node} writes: {before} to {now} {dies} {}",
                        world.replicas()
                    )
                });
            }
            if self.cluster.acknowledged > before {
                self.count("writes");
            }
        }
        self.plain_write();
    }

    /// The data, generation, state and majority of each, for the trace.
    fn replicas(&self) -> String {
        let each = self.cluster.machines.iter().map(|machine| {
            let file = machine.file.as_ref();
            let data = file.map(|file| file.data);
            let generation = file.and_then(|file| Some(file.meta.as_ref()?.generation));
            let state = machine.state().as_str();
            let kernel = machine.kernel.as_ref();
            let [quorum, primary] = [
                kernel.map(|kernel| kernel.quorum),
                kernel.map(|kernel| kernel.primary),
            ];
            let mark = |is: Option<bool>, mark| if is == Some(true) { mark } else { "" };
            let number =
                |number: Option<usize>| number.map_or("-".to_owned(), |one| one.to_string());
            let marks = format!("{}{}", mark(quorum, " q"), mark(primary, " P"));
            format!("[{}/{} {state}{marks}]", number(data), number(generation))
        });
        each.collect::<Vec<_>>().join(" ")
    }

    /// Without DRBD the node with the file writes to it.
    fn plain_write(&mut self) {
        let Some(record) = self
            .record
            .as_ref()
            .filter(|record| record.address.is_none())
        else {
            return;
        };
        let Some(node) = record.holder.clone().and_then(|node| self.index(&node)) else {
            return;
        };
        if let Some(file) = &mut self.cluster.machines[node].file {
            let next = self.cluster.states.grow(file.data);
            file.data = next;
            self.cluster.acknowledged = next;
        }
    }

    /// Pods come and go, as Kubernetes orders it.
    fn pod(&mut self, node: usize) {
        let Some(record) = &self.record else { return };
        let mut next = record.clone();
        match record.holder.clone() {
            None if record.initialized && !record.deleting => {
                let name = self.cluster.machines[node].name.clone();
                if record.address.is_none() && record.member(&name).is_none() {
                    return;
                }
                let replica = record
                    .member(&name)
                    .is_some_and(|member| member.disk.is_some());
                if self.cluster.machines[node].engine && (replica || self.random.chance(40)) {
                    next.holder = Some(name);
                }
            }
            None => {}
            Some(holder) => {
                let at = self.index(&holder).unwrap();
                let machine = &self.cluster.machines[at];
                let layout = machine.kept.as_ref().and_then(|kept| kept.holder.clone());
                let open = machine.kernel.as_ref().is_some_and(|kernel| kernel.open);
                if layout.as_ref() == Some(&holder) && !open && self.random.chance(85) {
                    // NodeStage.
                    let ready = usable(record, &self.view(), &holder).is_ok();
                    let started = self.cluster.promote(at);
                    self.count(match (started, ready) {
                        (true, _) => "promotions",
                        (false, true) => "promotions refused of what is said to be usable",
                        (false, false) => "promotions refused",
                    });
                    self.say(|_| format!("pod on {holder} starts: {started}"));
                    return;
                }
                if self.random.chance(60) {
                    return;
                }
                let machine = &self.cluster.machines[at];
                if machine.on && (machine.reachable || self.random.chance(50)) {
                    self.cluster.close(at);
                    self.say(|_| format!("pod on {holder} ends"));
                } else {
                    // Force detach: nobody asks the node.
                    self.count("forced detaches");
                }
                next.holder = None;
            }
        }
        self.edit_to(next);
    }

    fn edit_to(&mut self, next: Record) {
        let Some(next) = self.record.as_ref().and_then(|record| record.changed(next)) else {
            return;
        };
        self.say(|_| format!("edited: {}", shown(&next)));
        self.record = Some(next);
        self.version += 1;
    }

    /// What people ask for.
    fn edit(&mut self, node: usize) {
        let Some(record) = &self.record else { return };
        let mut next = record.clone();
        let name = self.cluster.machines[node].name.clone();
        match self.random.below(4) {
            0 => next.number_of_replicas = 1 + u32::try_from(self.random.below(4)).unwrap(),
            1 => next.size = ByteSize(record.size.bytes() + SIZE),
            2 if next.evacuate.is_empty() => next.evacuate.push(name),
            _ => next.evacuate.clear(),
        }
        self.edit_to(next);
    }

    fn fail(&mut self, node: usize) {
        match self.random.below(5) {
            0 | 1 => {
                self.cluster.power_off(node);
                self.say(|_| format!("n{node} loses power"));
            }
            2 | 3 => {
                self.cluster.machines[node].group = u8::try_from(self.random.below(2)).unwrap();
                let group = self.cluster.machines[node].group;
                self.say(|_| format!("n{node} is in network {group}"));
            }
            _ => {
                self.cluster.machines[node].reachable = false;
                self.say(|_| format!("n{node} is not reached by controllers"));
            }
        }
    }

    fn recover(&mut self, node: usize) {
        let machine = &mut self.cluster.machines[node];
        machine.on = true;
        machine.group = 0;
        machine.reachable = true;
        if self.random.chance(5) {
            machine.has_disk = true;
        }
        self.say(|_| format!("n{node} recovers"));
    }

    /// A disk is lost for good: one at a time, and only when the others are enough; rarely any.
    fn destroy(&mut self, node: usize) {
        let Some(record) = &self.record else { return };
        let file = self.cluster.machines[node].file.is_some();
        let excess = self.random.chance(3);
        let voters = record.members.iter();
        let voters = voters.filter(|member| member.disk.is_some() && !member.create);
        let others: Vec<bool> = voters
            .filter(|member| self.index(&member.node) != Some(node))
            .map(|member| {
                let index = self.index(&member.node).unwrap();
                let file = self.cluster.machines[index].file.as_ref();
                let whole = |file: &&File| {
                    let all = self
                        .cluster
                        .states
                        .is_before(self.cluster.acknowledged, file.data);
                    all && file
                        .meta
                        .as_ref()
                        .is_some_and(|meta| meta.whole && !meta.fresh)
                };
                file.as_ref().is_some_and(whole)
            })
            .collect();
        let member = record.member(&self.cluster.machines[node].name);
        let count =
            others.len() + usize::from(member.is_some_and(|one| one.disk.is_some() && !one.create));
        let good = others.iter().filter(|good| **good).count();
        let enough = record.address.is_some() && good == others.len() && good * 2 > count;
        if !file || !(enough || excess) || self.random.chance(30) {
            return;
        }
        self.hopeless |= !enough;
        self.cluster.destroy(node);
        let has_all = |machine: &Machine| {
            let data = machine.file.as_ref().map(|file| file.data);
            data.is_some_and(|data| {
                self.cluster
                    .states
                    .is_before(self.cluster.acknowledged, data)
            })
        };
        if !self.cluster.machines.iter().any(has_all) {
            // The only copy of the last writes: nobody can have them any more.
            self.cluster.acknowledged = 0;
            self.count("data lost");
        }
        self.count("disks destroyed");
        self.say(|_| format!("the disk of n{node} is replaced by an empty one"));
    }

    /// Everybody does what they should, in time.
    fn calm(&mut self, rounds: usize) -> bool {
        let mut quiet = 0;
        for _ in 0..rounds {
            self.now += 7;
            for node in 0..self.cluster.machines.len() {
                self.cluster.adapt(node, usize::MAX, &mut self.random);
                self.cluster.fill(node);
                self.cluster.settle(&mut self.random);
            }
            let Some(record) = self.record.clone() else {
                return true;
            };
            let view = self.view();
            let next = plan(&record, &view);
            quiet = if next.steps.is_empty() { quiet + 1 } else { 0 };
            if quiet > 8 && record.lost.is_empty() {
                return true;
            }
            let version = self.version;
            self.say(Self::replicas);
            self.execute(0, &record, version, &view, next);
            for call in std::mem::take(&mut self.calls) {
                self.call(&call);
            }
            if self.is_wrong() {
                return false;
            }
        }
        false
    }

    /// All faults end. What must be then?
    fn heal(&mut self) {
        self.say(|_| "everything recovers".to_owned());
        self.calls.clear();
        for machine in &mut self.cluster.machines {
            machine.on = true;
            machine.group = 0;
            machine.reachable = true;
        }
        self.cluster.settle(&mut self.random);
        self.end_pods();
        self.calm(150);
        if self.is_wrong() {
            return;
        }
        if !self.hopeless {
            self.check_end();
        }
        if !self.is_wrong() && self.random.chance(30) {
            self.delete();
        }
    }

    /// A volume that is deleted leaves nothing anywhere, also when some are away at first.
    fn delete(&mut self) {
        self.end_pods();
        let Some(mut next) = self.record.clone() else {
            return;
        };
        next.deleting = true;
        self.edit_to(next);
        let away = self.random.below(self.cluster.machines.len());
        self.cluster.machines[away].reachable = self.random.chance(50);
        self.calm(12);
        // Of a call that was late; it is empty, and nobody knows of it.
        let stray = |machine: &Machine| {
            machine
                .file
                .as_ref()
                .is_some_and(|file| file.meta.is_none())
        };
        let hides =
            self.cluster.machines[away].file.is_some() && !stray(&self.cluster.machines[away]);
        if self.record.is_none() && !self.cluster.machines[away].reachable && hides {
            let text = format!("n{away} has a file when the record is gone");
            self.outcome.wrong.push(text);
        }
        self.cluster.machines[away].reachable = true;
        self.calm(30);
        let left = |machine: &&Machine| {
            let file = machine.file.is_some() && !stray(machine);
            file || machine.kernel.is_some() || machine.kept.is_some()
        };
        let left = self.cluster.machines.iter().filter(left).count();
        if self.record.is_some() || left > 0 {
            let record = self.record.as_ref().map(shown);
            self.outcome
                .wrong
                .push(format!("{left} nodes have something left of {record:?}"));
        }
    }

    /// Kubernetes ends pods whose volume is gone, and detaches.
    fn end_pods(&mut self) {
        for at in 0..self.cluster.machines.len() {
            self.cluster.close(at);
        }
        if let Some(record) = &self.record {
            let mut next = record.clone();
            next.holder = None;
            self.edit_to(next);
        }
    }

    fn check_end(&mut self) {
        let Some(record) = self.record.clone() else {
            return;
        };
        let view = self.view();
        let able = self.cluster.machines.iter().filter(|machine| {
            machine.has_disk && machine.engine && !record.evacuate.contains(&machine.name)
        });
        let able = able.count();
        let wanted = usize::try_from(record.number_of_replicas).unwrap();
        let status = judge(&record, &view);
        if record.address.is_some() {
            let current = usize::try_from(status.current).unwrap();
            let expected = wanted.min(able);
            let evacuated = record.evacuate.len();
            let enough = current >= expected && current <= expected.max(1) + evacuated;
            if !enough || !record.leftovers.is_empty() || !record.lost.is_empty() {
                let waiting = plan(&record, &view).waiting;
                self.outcome.wrong.push(format!(
                    "{current} of {expected} replicas at the end: {}; waiting: {waiting:?}",
                    shown(&record)
                ));
                return;
            }
        }
        let mut evacuated = record
            .replicas()
            .filter(|one| record.evacuate.contains(&one.node));
        if evacuated.next().is_some() && able >= wanted && record.address.is_some() {
            self.outcome.wrong.push(format!(
                "an evacuated node keeps a replica: {}",
                shown(&record)
            ));
        }
        for member in record.replicas() {
            let index = self.index(&member.node).unwrap();
            let file = self.cluster.machines[index].file.as_ref();
            let all = |file: &File| {
                self.cluster
                    .states
                    .is_before(self.cluster.acknowledged, file.data)
            };
            if !file.is_some_and(all) {
                self.outcome
                    .wrong
                    .push(format!("{} lacks what was acknowledged", member.node));
            }
            let size = self.cluster.part(index).map(|part| part.size);
            if record.address.is_some() && size != Some(record.size) {
                self.outcome.wrong.push(format!(
                    "{} has {size:?} and not {}",
                    member.node, record.size
                ));
            }
        }
        if let Some(node) = record
            .replicas()
            .next()
            .and_then(|member| self.index(&member.node))
            && record.address.is_some()
            && !self.cluster.promote(node)
        {
            self.outcome
                .wrong
                .push(format!("n{node} cannot have it: {}", shown(&record)));
        }
        if status.health != replication::Health::Healthy
            && able >= wanted
            && record.address.is_some()
        {
            self.outcome
                .wrong
                .push(format!("in good order, and said to be {status:?}"));
        }
    }
}

fn shown(record: &Record) -> String {
    let members = record.members.iter().map(|member| {
        let kind = match (&member.disk, member.create) {
            (None, _) => "-",
            (Some(_), true) => "+",
            (Some(_), false) => "*",
        };
        let apart = if member.apart { "/" } else { "" };
        format!("{}{kind}{}{apart}", member.id, member.node)
    });
    format!(
        "g{} [{}] of {} holder {} whole {:?} lost {:?} leftovers {:?} evacuate {:?} initialized {} size {}{}",
        record.generation,
        members.collect::<Vec<_>>().join(" "),
        record.number_of_replicas,
        record.holder.as_ref().map_or("none", NodeId::as_str),
        record.whole.iter().map(|id| id.0).collect::<Vec<_>>(),
        record
            .lost
            .iter()
            .map(|loss| (loss.member.0, loss.since - 1_000_000))
            .collect::<Vec<_>>(),
        record
            .leftovers
            .iter()
            .map(|one| format!("{}@{}", one.id, one.node))
            .collect::<Vec<_>>(),
        record
            .evacuate
            .iter()
            .map(NodeId::as_str)
            .collect::<Vec<_>>(),
        record.initialized,
        record.size.bytes() / SIZE,
        if record.address.is_none() {
            " plain"
        } else {
            ""
        },
    )
}

fn step_shown(step: &Step) -> String {
    match step {
        Step::Change(_) => "change".to_owned(),
        step => format!("{step:?}"),
    }
}
