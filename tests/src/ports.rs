//! TCP ports of this machine for servers that cannot choose one themselves.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// An address of this machine that nobody listens at. The kernel does not give the same port twice
/// in a row, so that tests beside each other do not meet.
pub fn free() -> SocketAddr {
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind a port of the kernel's choice");
    listener
        .local_addr()
        .expect("a bound socket has an address")
}
