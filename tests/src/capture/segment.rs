//! A packet: its TCP segment (RFC 791, section 3.1; RFC 9293, section 3.1).

use std::net::{Ipv4Addr, SocketAddrV4};

use super::file::{Link, Packet};

const TCP: u8 = 6;
const SYN: u8 = 2;
const ACK: u8 = 16;

/// A TCP segment over IPv4, the only one that the networks of the tests have.
#[derive(Debug)]
pub struct Segment<'a> {
    /// Who sends it.
    pub from: SocketAddrV4,
    /// Who receives it.
    pub to: SocketAddrV4,
    /// The number of its first byte; that of a SYN is the one before the first byte of the stream.
    pub sequence: u32,
    /// It begins a stream.
    pub syn: bool,
    /// It asks for a connection: who receives it is the server.
    pub asks: bool,
    /// Its bytes.
    pub payload: &'a [u8],
}

impl<'a> Segment<'a> {
    /// `None`: the packet is none.
    pub fn of(packet: &'a Packet) -> Option<Self> {
        // The length of the link's header, and where the type of what follows stands in it.
        let (length, kind) = match packet.link {
            Link::Ethernet => (14, 12),
            Link::Cooked => (16, 14),
            Link::Cooked2 => (20, 0),
        };
        let bytes = &packet.bytes;
        if bytes.get(kind..kind + 2)? != [0x08, 0x00] {
            return None;
        }
        let ip = bytes.get(length..)?;
        let first = *ip.first()?;
        if first >> 4 != 4 || *ip.get(9)? != TCP {
            return None;
        }
        let total = usize::from(u16::from_be_bytes(pair(ip, 2)?));
        // What is larger than the field is a large segment that the kernel cuts later: all that is there.
        let ip = if total == 0 { ip } else { ip.get(..total)? };
        let tcp = ip.get(usize::from(first & 15) * 4..)?;
        let address = |at: usize| {
            let bytes: [u8; 4] = ip.get(at..at + 4)?.try_into().ok()?;
            Some(Ipv4Addr::from(bytes))
        };
        let port = |at| Some(u16::from_be_bytes(pair(tcp, at)?));
        let flags = tcp.get(13)?;
        Some(Self {
            from: SocketAddrV4::new(address(12)?, port(0)?),
            to: SocketAddrV4::new(address(16)?, port(2)?),
            sequence: u32::from_be_bytes(tcp.get(4..8)?.try_into().ok()?),
            syn: flags & SYN != 0,
            asks: flags & (SYN | ACK) == SYN,
            payload: tcp.get(usize::from(tcp.get(12)? >> 4) * 4..)?,
        })
    }
}

fn pair(bytes: &[u8], at: usize) -> Option<[u8; 2]> {
    bytes.get(at..at + 2)?.try_into().ok()
}
