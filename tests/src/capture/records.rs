//! Whether the bytes of a stream are records of TLS 1.3 (RFC 8446, section 5), without a key: by the headers of
//! all records, from the first byte on.

use std::fmt;

/// The longest record (section 5.2): 2^14 bytes, the type, and the tag of the cipher.
const LONGEST: u16 = 16_384 + 256;
/// A client says hello once more when the server asks it to (section 4.1.2), and a server after it has asked
/// (section 4.1.4). Everything else of the handshake is encrypted since 1.3.
const HELLOS: u8 = 2;

const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

/// What is no record of TLS 1.3, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// How many bytes of the stream are before it.
    pub offset: u64,
    /// What it is.
    pub why: Why,
    /// The beginning of what is there in place of a record.
    pub bytes: Vec<u8>,
}

/// What is wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It is none.
    NoRecord,
    /// It comes before any hello.
    NoHello,
    /// It is a part of the handshake that only an older TLS has in the clear.
    OlderVersion,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.why {
            Why::NoRecord => "in the clear",
            Why::NoHello => "a record of TLS before any hello",
            Why::OlderVersion => "a TLS that is older than 1.3",
        };
        let bytes = self.bytes.escape_ascii();
        write!(f, "{what}, from byte {} on: \"{bytes}\"", self.offset)
    }
}

/// How far the records of a stream are read.
#[derive(Debug)]
pub struct Records {
    header: [u8; 5],
    /// How much of the header is there.
    filled: usize,
    /// How much of the record is still to come.
    left: usize,
    hellos: u8,
    encrypted: bool,
}

impl Records {
    /// Of a stream that begins.
    pub const fn new() -> Self {
        Self {
            header: [0; 5],
            filled: 0,
            left: 0,
            hellos: 0,
            encrypted: false,
        }
    }

    /// Reads on; `offset` bytes of the stream were read before.
    pub fn take(&mut self, bytes: &[u8], offset: u64) -> Option<Fault> {
        let mut at = 0;
        while at < bytes.len() {
            if self.left > 0 {
                let part = self.left.min(bytes.len() - at);
                (self.left, at) = (self.left - part, at + part);
                continue;
            }
            self.header[self.filled] = bytes[at];
            (self.filled, at) = (self.filled + 1, at + 1);
            // Whatever is no TLS is known by its first byte: fewer than a header may ever come.
            let why = match self.filled {
                1..5 => (!self.may_begin()).then_some(Why::NoRecord),
                _ => self.record(),
            };
            if let Some(why) = why {
                let mut shown = self.header[..self.filled].to_vec();
                let offset = (offset + at as u64).saturating_sub(shown.len() as u64);
                shown.extend(bytes[at..].iter().take(40));
                return Some(Fault {
                    offset,
                    why,
                    bytes: shown,
                });
            }
        }
        None
    }

    /// Whether what is there of a header may be one.
    fn may_begin(&self) -> bool {
        let kind = (CHANGE_CIPHER_SPEC..=APPLICATION_DATA).contains(&self.header[0]);
        // Records say 1.2 for the sake of what is in between, and the first may say 1.0 (section 5.1).
        let version =
            |at: usize, allowed: &[u8]| self.filled <= at || allowed.contains(&self.header[at]);
        kind && version(1, &[3]) && version(2, &[1, 3])
    }

    /// A header is complete: what is wrong with it.
    fn record(&mut self) -> Option<Why> {
        let length = u16::from_be_bytes([self.header[3], self.header[4]]);
        if !self.may_begin() || length == 0 || length > LONGEST {
            return Some(Why::NoRecord);
        }
        match self.header[0] {
            HANDSHAKE if self.encrypted || self.hellos == HELLOS => return Some(Why::OlderVersion),
            HANDSHAKE => self.hellos += 1,
            // A server that refuses a hello says so in place of its own.
            ALERT if length == 2 => {}
            ALERT => return Some(Why::OlderVersion),
            CHANGE_CIPHER_SPEC if length != 1 => return Some(Why::NoRecord),
            _ if self.hellos == 0 => return Some(Why::NoHello),
            APPLICATION_DATA => self.encrypted = true,
            _ => {}
        }
        (self.filled, self.left) = (0, usize::from(length));
        None
    }
}

impl Default for Records {
    fn default() -> Self {
        Self::new()
    }
}
