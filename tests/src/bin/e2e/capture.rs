//! What our programs say to each other goes over the network as TLS alone: by a capture of all of it, from before the
//! first of them starts until the last has ended.

use std::net::{Ipv4Addr, SocketAddrV4};

use e2e::capture::Judge;
use e2e::cluster::Cluster;

/// Where our programs speak TLS: managers, their copies, the node service, the authority.
const TLS: std::ops::RangeInclusive<u16> = 8000..=8003;
/// Where managers take images that are sent to them (`--port-range`).
const SENT: std::ops::RangeInclusive<u16> = 30001..=31000;
/// What is plain by design: health and metrics, which the kubelet and Prometheus read; and the UI, which is closed to the
/// cluster and reached by a port-forward, or by an ingress with TLS of its own.
const PLAIN: [u16; 3] = [9500, 9501, 9503];
/// Ports that every installation uses: the controller asks managers and node services, and certifies them.
const USED: [u16; 3] = [8000, 8002, 8003];

fn is_ours(end: SocketAddrV4) -> bool {
    let is_pod = end.ip().octets()[..2] == [10, 88];
    TLS.contains(&end.port()) || (is_pod && SENT.contains(&end.port()))
}

/// Row 270: no byte in the clear at any port of ours, in either direction.
pub(crate) fn row_270_nothing_in_the_clear(cluster: &Cluster) {
    let (places, said) = cluster.captured();
    let lost = said.lines().any(|line| {
        let mut words = line.split_whitespace().skip(2);
        line.ends_with("packets dropped by kernel") && words.next() != Some("0")
    });
    assert!(!lost, "tcpdump has not seen all packets:\n{said}");
    let mut judge = Judge::new(is_ours);
    for files in &places {
        judge.read(files);
    }
    for (port, seen) in judge.seen() {
        println!(
            "  port {port}: {} streams of clients and {} of servers, {} KiB",
            seen.asked,
            seen.answered,
            seen.bytes >> 10
        );
    }
    let faults: Vec<String> = judge.faults().iter().map(ToString::to_string).collect();
    assert!(faults.is_empty(), "not TLS:\n{}", faults.join("\n"));
    for port in USED {
        let seen = judge.seen().get(&port).copied().unwrap_or_default();
        assert!(
            seen.asked > 0 && seen.answered > 0,
            "nothing was seen at port {port}: {seen:?}"
        );
    }
}

/// Row 270: what our programs and their sidecars listen at, beside their own host: the ports that are captured, and
/// those of health and metrics.
pub(crate) fn row_270_there_are_no_other_ports(cluster: &Cluster) {
    let mut found = Vec::new();
    for node in 1..=cluster.nodes() {
        // The pod of the targets is in the network of its node, whose ports are not ours.
        let tables = "for pid in $(pgrep '^(backing-image-m|longhorn-csi-pl|longhorn-ui|csi-)'); do \
                      grep -qz '^target$' /proc/$pid/cmdline && continue; cat /proc/$pid/net/tcp /proc/$pid/net/tcp6; done";
        let tables = cluster.enter(node, &["sh", "-c", tables]);
        found.extend(tables.lines().filter_map(listener));
    }
    found.sort_unstable();
    found.dedup();
    println!("  ports: {found:?}");
    for port in USED {
        assert!(found.contains(&port), "nobody listens at {port}");
    }
    let other = found
        .iter()
        .find(|port| !TLS.contains(port) && !PLAIN.contains(port));
    assert_eq!(other, None, "a port that is in no list");
}

/// The port of a line of proc_pid_net_tcp(5) whose socket listens for others than its own host.
fn listener(line: &str) -> Option<u16> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (address, port) = fields.get(1)?.split_once(':')?;
    // The address of a host of 4 bytes is one number in the byte order of the machine.
    let loopback = u32::from_ne_bytes(Ipv4Addr::LOCALHOST.octets());
    let own = u32::from_str_radix(address, 16) == Ok(loopback);
    let listens = fields.get(3) == Some(&"0A");
    (listens && !own).then(|| u16::from_str_radix(port, 16).ok())?
}
