//! One direction of a TCP connection: its segments in the order of the bytes that they carry, each byte once.

use std::collections::BTreeMap;
use std::fmt;

use super::records::{self, Records};
use super::segment::Segment;

/// How much may be there before what comes before it. A receive window is smaller on every kernel as it comes.
const AHEAD_MAX: usize = 16 << 20;

/// What is wrong with a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Its bytes are not TLS.
    Record(records::Fault),
    /// Its first bytes were not seen, and nothing can be said of the others.
    Beginning,
    /// Bytes in the middle were not seen, and nothing can be said of what comes after them.
    Gap {
        /// How many bytes there are before the gap.
        offset: u64,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Record(fault) => fault.fmt(f),
            Self::Beginning => f.write_str("its beginning was not captured"),
            Self::Gap { offset } => write!(f, "what comes after byte {offset} was not captured"),
        }
    }
}

/// One direction of a connection.
#[derive(Debug)]
pub struct Stream {
    /// The sequence number of its first byte; `None`: not seen.
    first: Option<u32>,
    /// How many bytes are checked.
    done: u64,
    /// What came before its turn, by its place in the stream.
    ahead: BTreeMap<u64, Vec<u8>>,
    records: Records,
    /// A fault was told: no other is.
    faulty: bool,
}

impl Stream {
    /// One that begins with this segment.
    pub fn begin(segment: &Segment<'_>) -> Self {
        Self {
            first: Some(segment.sequence.wrapping_add(1)),
            ..Self::unseen()
        }
    }

    /// One whose beginning was not seen.
    pub const fn unseen() -> Self {
        Self {
            first: None,
            done: 0,
            ahead: BTreeMap::new(),
            records: Records::new(),
            faulty: false,
        }
    }

    /// Whether this segment is the one that began it, seen again.
    pub fn begins_at(&self, segment: &Segment<'_>) -> bool {
        self.first == Some(segment.sequence.wrapping_add(1))
    }

    /// How many bytes it has carried, as far as they are known.
    pub const fn bytes(&self) -> u64 {
        self.done
    }

    /// Takes the bytes of a segment, and says what is wrong with the stream: once.
    pub fn take(&mut self, segment: &Segment<'_>) -> Option<Fault> {
        if self.faulty || segment.payload.is_empty() {
            return None;
        }
        let fault = self.check(segment);
        self.faulty = fault.is_some();
        fault
    }

    fn check(&mut self, segment: &Segment<'_>) -> Option<Fault> {
        let Some(first) = self.first else {
            return Some(Fault::Beginning);
        };
        // How far the segment is from the next byte, around the 32 bits of sequence numbers.
        #[expect(clippy::cast_possible_truncation, reason = "sequence numbers wrap")]
        let next = first.wrapping_add(self.done as u32);
        let distance = segment.sequence.wrapping_sub(next).cast_signed();
        let place = self.done.checked_add_signed(i64::from(distance));
        // A keep-alive repeats the byte before the first.
        let place = place?;
        if distance > 0 {
            let longer = |there: &Vec<u8>| there.len() < segment.payload.len();
            if self.ahead.get(&place).is_none_or(longer) {
                self.ahead.insert(place, segment.payload.to_vec());
            }
            let ahead: usize = self.ahead.values().map(Vec::len).sum();
            return (ahead > AHEAD_MAX).then_some(Fault::Gap { offset: self.done });
        }
        let fault = self.append(place, segment.payload);
        if fault.is_some() {
            return fault;
        }
        while let Some(entry) = self.ahead.first_entry() {
            if *entry.key() > self.done {
                break;
            }
            let (place, bytes) = entry.remove_entry();
            let fault = self.append(place, &bytes);
            if fault.is_some() {
                return fault;
            }
        }
        None
    }

    /// Takes what is new of bytes that do not begin after the next.
    fn append(&mut self, place: u64, bytes: &[u8]) -> Option<Fault> {
        let known = usize::try_from(self.done - place).unwrap_or(usize::MAX);
        let new = bytes.get(known..).unwrap_or_default();
        let fault = self.records.take(new, self.done);
        self.done += new.len() as u64;
        fault.map(Fault::Record)
    }

    /// What is wrong with it when nothing more comes.
    pub fn end(&self) -> Option<Fault> {
        let gap = !self.faulty && !self.ahead.is_empty();
        gap.then_some(Fault::Gap { offset: self.done })
    }
}
