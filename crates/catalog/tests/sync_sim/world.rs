//! A run: its hosts, its faults and their times, and the conditions at its end.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use catalog::Lifecycle;
use tokio::sync::Notify;
use types::Sha512;

use crate::disk::{self, CHUNK, Copy, Disk};
use crate::host::{self, Host};

const TICK: Duration = Duration::from_millis(10);
/// Until then things fail.
const FAULTY: Duration = Duration::from_secs(4);
/// So long after that everything must be ready.
const HEALED: Duration = Duration::from_secs(40);

/// SplitMix64.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, below: u64) -> u64 {
        self.next() % below.max(1)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// What all hosts of a run write to.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    trace: Mutex<Vec<String>>,
    wrong: Mutex<Vec<String>>,
    faulty: AtomicBool,
}

impl Shared {
    pub(crate) fn note(&self, line: String) {
        self.trace.lock().unwrap().push(line);
    }

    pub(crate) fn wrong(&self, what: String) {
        self.note(format!("WRONG {what}"));
        self.wrong.lock().unwrap().push(what);
    }

    pub(crate) fn is_faulty(&self) -> bool {
        self.faulty.load(Ordering::Relaxed)
    }
}

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Every event, in order.
    pub trace: Vec<String>,
    /// What must not have been.
    pub wrong: Vec<String>,
}

/// An image of some chunks, some of them holes.
fn image(random: &mut Random) -> Vec<u8> {
    let chunks = 1 + random.below(40);
    let tail = 1 + random.below(u64::from(CHUNK));
    let size = usize::try_from((chunks - 1) * u64::from(CHUNK) + tail).unwrap();
    let mut bytes = vec![0; size];
    for chunk in bytes.chunks_mut(CHUNK as usize) {
        if !random.one_in(4) {
            for byte in chunk {
                *byte = u8::try_from(random.below(256)).unwrap();
            }
        }
    }
    bytes
}

/// The copy of a host that holds one: right, damaged by its disk, or a lie.
fn copy(good: &[u8], kind: Kind, random: &mut Random) -> Copy {
    let mut copy = Copy::of(good.to_vec());
    let at = usize::try_from(random.below(good.len() as u64)).unwrap();
    match kind {
        Kind::Rotten => copy.bytes[at] ^= 0x20,
        Kind::Liar => {
            // Its chunks are what its manifest says, and its manifest says a SHA-512 that they have not.
            let checksum = copy.manifest.checksum;
            copy.bytes[at] ^= 0x20;
            copy = Copy::of(copy.bytes);
            copy.manifest.checksum = checksum;
        }
        Kind::Honest | Kind::Empty => {}
    }
    copy
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Honest,
    Rotten,
    Liar,
    Empty,
}

fn hosts(seed: u64, gullible: bool, shared: &Arc<Shared>) -> Vec<Arc<Host>> {
    let mut random = Random::new(seed);
    let good = image(&mut random);
    // One source is honest, so that there is something to heal from.
    let mut kinds = vec![Kind::Honest];
    for _ in 0..random.below(3) {
        kinds.push(match random.below(3) {
            0 => Kind::Honest,
            1 => Kind::Rotten,
            _ => Kind::Liar,
        });
    }
    let sources = kinds.len();
    kinds.extend((0..=random.below(3)).map(|_| Kind::Empty));
    let name = |n: usize| format!("h{n}");
    (0..)
        .zip(kinds)
        .map(|(n, kind)| {
            let mut given: Vec<String> = (1..sources)
                .filter(|other| *other != n && random.one_in(2))
                .map(name)
                .collect();
            let at = usize::try_from(random.below(given.len() as u64 + 1)).unwrap();
            given.insert(at, name(0));
            let complete = (kind != Kind::Empty).then(|| copy(&good, kind, &mut random));
            Arc::new(Host {
                name: name(n),
                given,
                expected: Sha512::of(&good),
                liar: kind == Kind::Liar,
                spoiled: complete
                    .as_ref()
                    .map(|copy| Sha512::of(&copy.bytes))
                    .filter(|sum| *sum != Sha512::of(&good)),
                gullible,
                disk: Mutex::new(Disk {
                    complete,
                    ..Disk::default()
                }),
                life: Mutex::new(Lifecycle::Pending),
                doubted: Notify::new(),
                random: Mutex::new(Random::new(random.next())),
                sockets: Arc::default(),
                shared: shared.clone(),
            })
        })
        .collect()
}

/// Plays a seed.
pub(crate) fn play(seed: u64) -> Outcome {
    run(seed, false)
}

/// Plays a seed with stores that do not look at what they seal.
pub(crate) fn play_gullible(seed: u64) -> Outcome {
    run(seed, true)
}

fn run(seed: u64, gullible: bool) -> Outcome {
    let shared = Arc::new(Shared::default());
    let hosts = hosts(seed, gullible, &shared);
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .tick_duration(TICK)
        .simulation_duration(Duration::from_mins(10))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(15))
        .tcp_capacity(1024)
        .build();
    for host in &hosts {
        let host = host.clone();
        sim.host(host.name.clone(), move || host::run(host.clone()));
    }
    let mut random = Random::new(seed ^ 0x5eed);
    let mut trouble = Trouble::default();
    shared.faulty.store(true, Ordering::Relaxed);
    let healed_at = u32::try_from(FAULTY.as_millis() / TICK.as_millis()).unwrap();
    let end = healed_at + u32::try_from(HEALED.as_millis() / TICK.as_millis()).unwrap();
    for tick in 0..end {
        if tick < healed_at {
            trouble.make(&mut random, &mut sim, &hosts);
        } else if tick == healed_at {
            shared.faulty.store(false, Ordering::Relaxed);
            trouble.heal(&mut sim, &hosts);
        } else if hosts.iter().all(|host| host.is_ready()) {
            break;
        }
        if let Err(error) = sim.step() {
            shared.wrong(format!("a host ended: {error}"));
            break;
        }
    }
    for host in &hosts {
        let life = host.life.lock().unwrap().clone();
        if !matches!(life, Lifecycle::Ready(_)) {
            let late = HEALED.as_secs();
            host.wrong(format_args!(
                "not ready {late} s after all was healed: {life:?}"
            ));
        }
    }
    drop(sim);
    let trace = std::mem::take(&mut *shared.trace.lock().unwrap());
    let wrong = std::mem::take(&mut *shared.wrong.lock().unwrap());
    Outcome { trace, wrong }
}

/// What is broken now.
#[derive(Debug, Default)]
struct Trouble {
    down: BTreeSet<usize>,
}

impl Trouble {
    /// Breaks or mends something, seldom.
    fn make(&mut self, random: &mut Random, sim: &mut turmoil::Sim<'_>, hosts: &[Arc<Host>]) {
        if !random.one_in(5) {
            return;
        }
        let count = hosts.len() as u64;
        let mut pick = || usize::try_from(random.below(count)).unwrap();
        let (a, b) = (pick(), pick());
        let (one, other) = (hosts[a].name.as_str(), hosts[b].name.as_str());
        let what = random.below(13);
        let at = sim.elapsed().as_millis();
        hosts[a]
            .shared
            .note(format!("{at:>6} trouble {what} {one} {other}"));
        match what {
            0 if a != b => sim.partition(one, other),
            1 if a != b => sim.repair(one, other),
            2 if a != b => sim.hold(one, other),
            3 if a != b => sim.release(one, other),
            4 if a != b => sim.partition_oneway(one, other),
            5 if self.down.insert(a) => {
                hosts[a].sockets.crash(|| sim.crash(one));
                disk::crash(&hosts[a].disk, random.one_in(2));
            }
            6 | 7 if self.down.remove(&a) => sim.bounce(one),
            8 => hosts[a].disk().full = true,
            9 => hosts[a].disk().full = false,
            // Its image is deleted, and asked for again.
            10..=12 if hosts[a].spoiled.is_none() && a > 0 && !self.down.contains(&a) => {
                hosts[a].sockets.crash(|| sim.crash(one));
                let mut disk = hosts[a].disk();
                disk.complete = None;
                if what > 10 {
                    disk.part = None;
                }
                drop(disk);
                sim.bounce(one);
            }
            _ => {}
        }
    }

    /// Mends everything.
    fn heal(&mut self, sim: &mut turmoil::Sim<'_>, hosts: &[Arc<Host>]) {
        let at = sim.elapsed().as_millis();
        hosts[0].shared.note(format!("{at:>6} healed"));
        for (a, host) in hosts.iter().enumerate() {
            for other in &hosts[a + 1..] {
                sim.repair(host.name.as_str(), other.name.as_str());
                sim.release(host.name.as_str(), other.name.as_str());
            }
            host.disk().full = false;
            if self.down.remove(&a) {
                sim.bounce(host.name.as_str());
            }
        }
    }
}
