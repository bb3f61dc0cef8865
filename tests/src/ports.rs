//! TCP ports of this machine for servers that cannot choose one themselves, or whose peers must know it before.
//!
//! Each process owns a block of ports for as long as it lives, by a lock on a file, so that two test programs
//! never choose the same. Programs of ours are told port 0 and say what they bound.

use std::fmt::Debug;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::Mutex;

use crate::wait;

/// Ports of which each process owns `size`, one after the other.
struct Range {
    name: &'static str,
    first: u16,
    end: u16,
    size: u16,
    owned: Mutex<Option<Block>>,
}

struct Block {
    /// Its lock goes with the process.
    _lock: File,
    first: u16,
    /// The place in the block of the port that is given next.
    given: u16,
}

/// Below what the kernel gives to connections (`ip_local_port_range`), so that none of those takes a port
/// before its server does; and below Longhorn's own range, which begins at 30001.
static SERVERS: Range = Range::new("servers", 10_000, 30_000, 400);
/// Of Longhorn's own range, in which receivers listen. Managers take them from its beginning.
static RECEIVERS: Range = Range::new("receivers", 30_301, 31_001, 50);

impl Range {
    const fn new(name: &'static str, first: u16, end: u16, size: u16) -> Self {
        let owned = Mutex::new(None);
        Self {
            name,
            first,
            end,
            size,
            owned,
        }
    }

    /// The next port of this process that nobody listens at.
    fn next(&self) -> u16 {
        let mut owned = self.owned.lock().expect("no test panicked in here");
        let block = owned.get_or_insert_with(|| self.block());
        (0..self.size)
            .map(|_| {
                let port = block.first + block.given;
                block.given = (block.given + 1) % self.size;
                port
            })
            .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
            .expect("a block of ports has a free one")
    }

    fn block(&self) -> Block {
        let dir = std::env::temp_dir().join("e2e-ports");
        fs::create_dir_all(&dir).unwrap_or_else(|error| panic!("make {}: {error}", dir.display()));
        (self.first..self.end)
            .step_by(self.size.into())
            .find_map(|first| {
                let path = dir.join(format!("{}-{first}", self.name));
                let lock = File::create(path).ok()?;
                lock.try_lock().ok()?;
                Some(Block {
                    _lock: lock,
                    first,
                    given: 0,
                })
            })
            .expect("no more than a dozen test programs run at once")
    }
}

/// An address of this machine that nobody listens at, and that no other process is given.
pub fn free() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, SERVERS.next()))
}

/// A port of Longhorn's own range, in which receivers listen, that nobody listens at.
pub fn of_receiver() -> u16 {
    RECEIVERS.next()
}

/// The first of `count` ports one after the other that nobody listens at, and that are not given again soon.
pub fn free_range(count: u16) -> u16 {
    let (mut first, mut length) = (0, 0);
    for _ in 0..2 * SERVERS.size {
        let port = SERVERS.next();
        if port != first + length {
            (first, length) = (port, 0);
        }
        length += 1;
        if length == count {
            return first;
        }
    }
    panic!("this machine has no {count} free ports one after the other");
}

/// Returns as soon as nobody listens at `address`. It may be one that another test is given too, for as
/// long as that test runs: who must have given it up fails the test by keeping it.
#[track_caller]
pub fn wait_free(address: impl ToSocketAddrs + Debug) {
    wait::until(&format!("nobody listens at {address:?}"), || {
        TcpListener::bind(&address).ok()
    });
}
