//! What the kernel says of the TCP connections of this network (proc_pid_net_tcp(5)): the events that a test
//! waits for where a program is to be held by a peer that does not read, or does not ask.

use std::fs;
use std::net::SocketAddr;

/// Bytes that `local` has written and `remote` has not taken: more than none for long only when the remote's
/// buffer is full.
pub fn unsent(local: SocketAddr, remote: SocketAddr) -> u64 {
    queues(|l, r| l == local.port() && r == remote.port()).0
}

/// Connections to a listener that it has not accepted.
pub fn not_accepted(listener: SocketAddr) -> u64 {
    queues(|l, r| l == listener.port() && r == 0).1
}

/// Whether a process has a socket that listens for TCP connections.
pub fn listens(process: u32) -> bool {
    let table = fs::read_to_string("/proc/self/net/tcp").unwrap_or_default();
    let listening: Vec<String> = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields.get(3) == Some(&"0A"))
        .filter_map(|fields| Some(format!("socket:[{}]", fields.get(9)?)))
        .collect();
    let open = fs::read_dir(format!("/proc/{process}/fd"));
    open.into_iter().flatten().flatten().any(|descriptor| {
        let target = fs::read_link(descriptor.path()).unwrap_or_default();
        listening
            .iter()
            .any(|socket| target.as_os_str() == socket.as_str())
    })
}

/// The queues for sending and receiving of the sockets with these ports.
fn queues(is_meant: impl Fn(u16, u16) -> bool) -> (u64, u64) {
    let table = fs::read_to_string("/proc/self/net/tcp").unwrap_or_default();
    let lines = table.lines().skip(1);
    lines
        .filter_map(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let mut port = || {
                let (_, port) = fields.next()?.rsplit_once(':')?;
                u16::from_str_radix(port, 16).ok()
            };
            let (local, remote) = (port()?, port()?);
            let (sending, receiving) = fields.nth(1)?.split_once(':')?;
            let bytes = |hex| u64::from_str_radix(hex, 16).ok();
            is_meant(local, remote).then_some((bytes(sending)?, bytes(receiving)?))
        })
        .fold((0, 0), |sum, queue| (sum.0 + queue.0, sum.1 + queue.1))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn what_nobody_takes_is_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert!(listens(std::process::id()));
        assert_eq!(not_accepted(address), 0);
        let client = TcpStream::connect(address).unwrap();
        assert_eq!(not_accepted(address), 1);
        let (server, peer) = listener.accept().unwrap();
        assert_eq!((not_accepted(address), unsent(address, peer)), (0, 0));
        server.set_nonblocking(true).unwrap();
        while (&server).write(&[0; 8192]).is_ok() {}
        assert!(unsent(address, peer) > 0);
        drop(client);
    }
}
