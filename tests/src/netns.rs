//! Several machines in one: network namespaces on a bridge, each with its own rate-limited link.

use std::net::Ipv4Addr;

use crate::command::{output, run};

/// A network of namespaces; dropping it takes it away, and kills what runs there.
#[derive(Debug)]
pub struct Network {
    bridge: String,
    machines: Vec<Machine>,
}

/// One namespace with its address.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The name below `/run/netns`.
    pub namespace: String,
    /// Its address; this test reaches it too.
    pub address: Ipv4Addr,
}

impl Network {
    /// `count` machines, each with a link of `megabits` per second.
    pub fn new(count: u8, megabits: u32) -> Self {
        // Names of interfaces are short, and global on this machine.
        let id = std::process::id();
        let tag = format!("e{:x}", id % 0xf_ffff);
        let (high, low) = (id / 250 % 100 + 100, id % 250);
        let octet = |number: u32| u8::try_from(number).expect("below 256");
        let address = |n: u8| Ipv4Addr::new(10, octet(high), octet(low), n);
        let bridge = format!("{tag}b");
        ip(&["link", "add", &bridge, "type", "bridge"]);
        let mut network = Self {
            bridge,
            machines: Vec::new(),
        };
        let gateway = format!("{}/24", address(254));
        ip(&["addr", "add", &gateway, "dev", &network.bridge]);
        ip(&["link", "set", &network.bridge, "up"]);
        for n in 0..count {
            let machine = Machine {
                namespace: format!("{tag}n{n}"),
                address: address(n + 1),
            };
            network.add(&format!("{tag}v{n}"), machine, megabits);
        }
        network
    }

    fn add(&mut self, link: &str, machine: Machine, megabits: u32) {
        let namespace = machine.namespace.clone();
        let address = format!("{}/24", machine.address);
        ip(&["netns", "add", &namespace]);
        self.machines.push(machine);
        let peer = ["type", "veth", "peer", "name", "eth0", "netns", &namespace];
        ip(&[["link", "add", link].as_slice(), &peer].concat());
        ip(&["link", "set", link, "master", &self.bridge]);
        ip(&["link", "set", link, "up"]);
        ip(&["-n", &namespace, "addr", "add", &address, "dev", "eth0"]);
        ip(&["-n", &namespace, "link", "set", "eth0", "up"]);
        ip(&["-n", &namespace, "link", "set", "lo", "up"]);
        let rate = format!("{megabits}mbit");
        let limit = |device: &str| {
            let tbf = [
                "root", "tbf", "rate", &rate, "burst", "256k", "latency", "50ms",
            ];
            let words = [["qdisc", "add", "dev", device].as_slice(), &tbf].concat();
            words.into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        run("tc", limit(link));
        let inside = ["-n", &namespace].map(str::to_owned);
        run("tc", inside.into_iter().chain(limit("eth0")));
    }

    /// The machines.
    pub fn machines(&self) -> &[Machine] {
        &self.machines
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for machine in &self.machines {
            // Its end of the link goes with it, and the other end with that.
            let _ = output("ip", ["netns", "del", &machine.namespace]);
        }
        let _ = output("ip", ["link", "del", &self.bridge]);
    }
}

fn ip(arguments: &[&str]) {
    run("ip", arguments);
}
