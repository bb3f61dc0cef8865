//! The networks of the guests: one for storage, whose cables are pulled, and one over which the harness gives its
//! commands, which is always there. Both are bridges of the namespace that the test runs in (`scripts/isolate`).

use std::net::Ipv4Addr;

use crate::command::{output, run};

/// The address of this machine, and with it of what runs beside the guests, on each network.
const HERE: u8 = 254;
const STORAGE: &str = "vms";
const CONTROL: &str = "vmc";

/// Two bridges with a port on each for every guest. Dropping it takes them away.
#[derive(Debug)]
pub(super) struct Network {
    guests: u8,
}

/// The address on the storage network of guest `n`, or of this machine.
pub fn storage_address(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, n)
}

/// The address of this machine on the storage network: where what all guests need is served.
pub fn here() -> Ipv4Addr {
    storage_address(HERE)
}

/// The address of guest `n` for the harness.
pub(super) fn control_address(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 78, 0, n)
}

/// The ports of a guest.
pub(super) fn storage_port(n: u8) -> String {
    format!("{STORAGE}{n}")
}

pub(super) fn control_port(n: u8) -> String {
    format!("{CONTROL}{n}")
}

impl Network {
    pub(super) fn new(guests: u8) -> Self {
        let network = Self { guests };
        for (bridge, address) in [(STORAGE, here()), (CONTROL, control_address(HERE))] {
            ip(&["link", "add", bridge, "type", "bridge"]);
            ip(&["addr", "add", &format!("{address}/24"), "dev", bridge]);
            ip(&["link", "set", bridge, "up"]);
        }
        for n in 1..=guests {
            for (bridge, port) in [(STORAGE, storage_port(n)), (CONTROL, control_port(n))] {
                ip(&["tuntap", "add", "dev", &port, "mode", "tap"]);
                ip(&["link", "set", &port, "master", bridge]);
                ip(&["link", "set", &port, "up"]);
            }
        }
        network
    }

    /// Pulls the cable of a guest on the storage network. Its own end stays up, as with a dead switch.
    pub(super) fn pull(&self, n: u8) {
        assert!((1..=self.guests).contains(&n), "guest {n}");
        ip(&["link", "set", &storage_port(n), "nomaster"]);
    }

    /// Plugs it in again.
    pub(super) fn plug(&self, n: u8) {
        assert!((1..=self.guests).contains(&n), "guest {n}");
        ip(&["link", "set", &storage_port(n), "master", STORAGE]);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for n in 1..=self.guests {
            for port in [storage_port(n), control_port(n)] {
                let _ = output("ip", ["link", "del", &port]);
            }
        }
        for bridge in [STORAGE, CONTROL] {
            let _ = output("ip", ["link", "del", bridge]);
        }
    }
}

fn ip(arguments: &[&str]) {
    run("ip", arguments);
}
