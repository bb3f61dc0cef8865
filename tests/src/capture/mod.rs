//! What went over a network, as tcpdump wrote it down, and whether it was TLS.
//!
//! | module | owns |
//! |---|---|
//! | [`file`] | the file: its packets |
//! | [`segment`] | a packet: its TCP segment |
//! | [`stream`] | segments in the order of the bytes that they carry |
//! | [`records`] | whether bytes are records of TLS 1.3 |
//!
//! It knows ports and bytes, and no cluster.

pub mod file;
pub mod records;
pub mod segment;
pub mod stream;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::SocketAddrV4;
use std::path::PathBuf;

use segment::Segment;
use stream::Stream;

/// What was seen of one port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seen {
    /// Streams with bytes from clients. One that goes through several captured places, or whose address is
    /// translated on the way, is several.
    pub asked: usize,
    /// Streams with bytes from servers.
    pub answered: usize,
    /// Bytes of all of them.
    pub bytes: u64,
}

/// What is wrong with a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Who sends.
    pub from: SocketAddrV4,
    /// Who receives.
    pub to: SocketAddrV4,
    /// Seconds since 1970 of the packet in which it was seen.
    pub at: u32,
    /// What it is.
    pub what: stream::Fault,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, at, what } = self;
        write!(f, "{from} to {to}, at {at}: {what}")
    }
}

/// Who was asked for a connection, by its ends in their order.
type Servers = HashMap<[SocketAddrV4; 2], SocketAddrV4>;

/// Reads captures, and checks every TCP stream of the ports in them.
#[derive(Debug)]
pub struct Judge {
    is_port: fn(SocketAddrV4) -> bool,
    seen: BTreeMap<u16, Seen>,
    faults: Vec<Fault>,
}

impl Judge {
    /// Of the streams whose server is `is_port`; all others are passed over.
    pub const fn new(is_port: fn(SocketAddrV4) -> bool) -> Self {
        Self {
            is_port,
            seen: BTreeMap::new(),
            faults: Vec::new(),
        }
    }

    /// Reads the files that were written at one place, in the order in which they were.
    ///
    /// # Panics
    /// When a file cannot be read, or is no capture.
    pub fn read(&mut self, files: &[PathBuf]) {
        let mut servers = Servers::new();
        let mut streams: HashMap<(SocketAddrV4, SocketAddrV4), (SocketAddrV4, Stream)> =
            HashMap::new();
        for file in files {
            for packet in file::packets(file) {
                let Some(segment) = Segment::of(&packet) else {
                    continue;
                };
                let Some(server) = self.server(&segment, &mut servers) else {
                    continue;
                };
                let key = (segment.from, segment.to);
                let begins = |(_, old): &(_, Stream)| old.begins_at(&segment);
                if segment.syn && !streams.get(&key).is_some_and(begins) {
                    let old = streams.insert(key, (server, Stream::begin(&segment)));
                    if let Some((server, old)) = old {
                        self.count(server, segment.to, &old);
                    }
                    continue;
                }
                let (_, stream) = streams
                    .entry(key)
                    .or_insert_with(|| (server, Stream::unseen()));
                if let Some(what) = stream.take(&segment) {
                    self.faults.push(Fault {
                        from: segment.from,
                        to: segment.to,
                        at: packet.seconds,
                        what,
                    });
                }
            }
        }
        for ((from, to), (server, stream)) in streams {
            if let Some(what) = stream.end() {
                let at = 0;
                self.faults.push(Fault { from, to, at, what });
            }
            self.count(server, to, &stream);
        }
    }

    /// The end of ours that was asked for the connection. Any port may be that of a client: where addresses are
    /// translated (kube-proxy's masquerade), it is one of 1024 to 65535. Where nobody was seen to ask, it may be
    /// either end.
    fn server(&self, segment: &Segment<'_>, servers: &mut Servers) -> Option<SocketAddrV4> {
        let mut ends = [segment.from, segment.to];
        let ours = [segment.to, segment.from]
            .into_iter()
            .find(|end| (self.is_port)(*end))?;
        ends.sort_unstable();
        if segment.asks {
            servers.insert(ends, segment.to);
        }
        let server = servers.get(&ends).copied().unwrap_or(ours);
        (self.is_port)(server).then_some(server)
    }

    fn count(&mut self, server: SocketAddrV4, to: SocketAddrV4, stream: &Stream) {
        if stream.bytes() == 0 {
            return;
        }
        let seen = self.seen.entry(server.port()).or_default();
        seen.bytes += stream.bytes();
        if to == server {
            seen.asked += 1;
        } else {
            seen.answered += 1;
        }
    }

    /// What was seen, by port.
    pub const fn seen(&self) -> &BTreeMap<u16, Seen> {
        &self.seen
    }

    /// What is wrong, in the order in which it was found: the first fault of each stream.
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }
}

#[cfg(test)]
mod tests;
