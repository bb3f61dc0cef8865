//! Machines that lose power and cables: guests with a kernel that has DRBD 9, for `make vm-test`.
//!
//! Each runs this project's own programs, has disks of its own and is reached by the harness at any time over a network
//! of its own, also when its storage network is cut off. Nothing is installed and nothing is left: kernel and programs
//! are in the sandbox, the networks in the namespace of the test.

mod cluster;
mod cpio;
mod kernel;
mod machine;
mod network;
mod remote;
mod system;
mod tally;

use std::sync::{Mutex, MutexGuard};

use self::kernel::Kernel;
use self::network::Network;
use self::system::System;
use crate::{Sandbox, command};

pub use self::cluster::{Cluster, Volume};
pub use self::machine::{Machine, Shape};
pub use self::network::{here, storage_address};
pub use self::remote::{Ran, Remote};
pub use self::tally::{Writers, judge, verdict};

/// The machines of a test. Guest `n` is `cluster[n]`, from one.
#[derive(Debug)]
pub struct Guests {
    machines: Vec<Machine>,
    system: System,
    network: Network,
    /// The networks have one name each, and the machine few processors.
    _alone: MutexGuard<'static, ()>,
}

/// What this machine lacks for guests, to be said after "needs"; `None`: nothing.
pub fn missing() -> Option<String> {
    if std::env::var_os("VM_TEST").is_none() {
        return Some("DRBD 9: make vm-test looks for it".to_owned());
    }
    if !rustix::process::geteuid().is_root() {
        return Some("root".to_owned());
    }
    for tool in [
        "qemu-system-x86_64",
        "busybox",
        "mksquashfs",
        "modprobe",
        "drbdsetup",
        "mkfs.xfs",
        "xz",
    ] {
        if !command::on_path(tool) {
            return Some(format!("{tool}: run scripts/deps vm"));
        }
    }
    Kernel::find().err()
}

impl Guests {
    /// Starts that many.
    #[track_caller]
    pub fn start(sandbox: &Sandbox, count: u8, shape: &Shape) -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let kernel = Kernel::find().unwrap_or_else(|missing| panic!("guests need {missing}"));
        let system = System::make(sandbox, &kernel);
        let network = Network::new(count);
        let machines = (1..=count).map(|n| Machine::new(sandbox, n, shape.clone()));
        let mut guests = Self {
            machines: machines.collect(),
            system,
            network,
            _alone: alone,
        };
        let all: Vec<u8> = (1..=count).collect();
        guests.switch_on(sandbox, &all);
        guests
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Machine> {
        self.machines.iter()
    }

    /// Switches these on and waits until they answer.
    #[track_caller]
    pub fn switch_on(&mut self, sandbox: &Sandbox, which: &[u8]) {
        for n in which {
            self.machines[usize::from(*n) - 1].switch_on(sandbox, &self.system);
        }
        for n in which {
            self.machines[usize::from(*n) - 1].wait_up();
        }
    }

    /// Cuts the power of one.
    pub fn cut_power(&mut self, n: u8) {
        self.machines[usize::from(n) - 1].cut_power();
    }

    /// Pulls its cable on the storage network.
    pub fn pull(&self, n: u8) {
        self.network.pull(n);
    }

    /// Plugs it in again.
    pub fn plug(&self, n: u8) {
        self.network.plug(n);
    }
}

impl std::ops::Index<u8> for Guests {
    type Output = Machine;

    fn index(&self, n: u8) -> &Machine {
        &self.machines[usize::from(n) - 1]
    }
}
