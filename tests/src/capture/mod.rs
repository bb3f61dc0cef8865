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
        let mut streams: HashMap<(SocketAddrV4, SocketAddrV4), Stream> = HashMap::new();
        for file in files {
            for packet in file::packets(file) {
                let Some(segment) = Segment::of(&packet) else {
                    continue;
                };
                let Some(port) = self.port(&segment) else {
                    continue;
                };
                let key = (segment.from, segment.to);
                if segment.syn && streams.get(&key).is_none_or(|old| !old.begins_at(&segment)) {
                    let old = streams.insert(key, Stream::begin(&segment));
                    self.count(port, segment.to, old);
                    continue;
                }
                let stream = streams.entry(key).or_insert_with(Stream::unseen);
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
        for ((from, to), stream) in streams {
            if let Some(what) = stream.end() {
                let at = 0;
                self.faults.push(Fault { from, to, at, what });
            }
            let port = if (self.is_port)(to) { to } else { from }.port();
            self.count(port, to, Some(stream));
        }
    }

    fn port(&self, segment: &Segment<'_>) -> Option<u16> {
        let ends = [segment.to, segment.from];
        let server = ends.into_iter().find(|end| (self.is_port)(*end))?;
        Some(server.port())
    }

    fn count(&mut self, port: u16, to: SocketAddrV4, stream: Option<Stream>) {
        let Some(bytes) = stream
            .map(|stream| stream.bytes())
            .filter(|bytes| *bytes > 0)
        else {
            return;
        };
        let seen = self.seen.entry(port).or_default();
        seen.bytes += bytes;
        if (self.is_port)(to) {
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
