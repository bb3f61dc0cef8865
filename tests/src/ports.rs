//! TCP ports of this machine for servers that cannot choose one themselves.

use std::fmt::Debug;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::wait;

/// Below what the kernel gives to connections (`ip_local_port_range`), so that none of those takes a port
/// before its server does; and below Longhorn's own range, which begins at 30001.
const FIRST: u32 = 10_000;
const COUNT: u32 = 20_000;
/// Ports between the first of one process and that of the next: test programs run beside each other.
const APART: u32 = 251;

/// An address of this machine that nobody listens at, and that is not given twice.
pub fn free() -> SocketAddr {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let first = process::id() % COUNT * APART;
    (0..COUNT)
        .map(|_| FIRST + (first + GIVEN.fetch_add(1, Ordering::Relaxed)) % COUNT)
        .filter_map(|port| u16::try_from(port).ok())
        .map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        .find(|address| TcpListener::bind(address).is_ok())
        .expect("this machine has a free port")
}

/// A port of Longhorn's own range, in which receivers listen, that nobody listens at now. Managers take them
/// from its beginning.
pub fn of_receiver() -> u16 {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let first = process::id() * 37;
    (0..700)
        .map(|_| 30_301 + (first + GIVEN.fetch_add(1, Ordering::Relaxed)) % 700)
        .filter_map(|port| u16::try_from(port).ok())
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .expect("the range has a free port")
}

/// The first of `count` ports one after the other that nobody listens at.
pub fn free_range(count: u16) -> u16 {
    (0..COUNT)
        .map(|_| free().port())
        .find(|first| {
            let mut ports = *first..=first.saturating_add(count - 1);
            ports.all(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
        })
        .expect("this machine has free ports")
}

/// Returns as soon as nobody listens at `address`. It may be one that another test is given too, for as
/// long as that test runs: who must have given it up fails the test by keeping it.
#[track_caller]
pub fn wait_free(address: impl ToSocketAddrs + Debug) {
    wait::until(&format!("nobody listens at {address:?}"), || {
        TcpListener::bind(&address).ok()
    });
}
