//! Callers that name the socket where the name of a host belongs.
//!
//! gRPC for Go sends the path of a unix socket, plain or percent-encoded, as `:authority` unless the
//! caller sets another one. Strict HTTP/2 servers reset such a stream before any handler sees it.
//! Kubelets do this when they register a plugin, up to version 1.35 at least: without this filter no
//! kubelet could register the plugin (`docs/adr/0014-authority.md`). The authority has no meaning on a
//! unix socket, so its value is overwritten, byte for byte, before the HTTP/2 layer reads it.
//!
//! [`Filter`] walks frames (RFC 9113, §4) and, in header blocks, the representations of fields (RFC
//! 7541, §6). It decodes nothing: no length changes, so frames stay where they are. Huffman coding
//! only ever makes a value shorter, so the table of past fields that the HTTP/2 layer keeps never
//! drops one that the caller's still has. What it does not understand it passes on: the HTTP/2 layer
//! answers for that.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

/// What the client sends first (RFC 9113, §3.4), in bytes.
const PREFACE: u32 = 24;
/// Types and flags of frames (RFC 9113, §6).
pub(super) const HEADERS: u8 = 1;
pub(super) const CONTINUATION: u8 = 9;
pub(super) const PADDED: u8 = 0x08;
pub(super) const PRIORITY: u8 = 0x20;
/// Bytes of the priority in front of a header block.
const PRIORITY_BYTES: u32 = 5;

/// The index of `:authority` in the static table (RFC 7541, appendix A), and the two ways to spell
/// its name: plain, and in the Huffman code of appendix B.
const AUTHORITY: u8 = 1;
pub(super) const NAME: &[u8] = b":authority";
pub(super) const NAME_CODED: &[u8] = &[0xb8, 0x3b, 0x53, 0x39, 0xec, 0x32, 0x7d, 0x7f];
/// What a value is overwritten with: any number of these is the name of a host.
const FILLER: u8 = b'a';

/// A connection whose caller may put anything into `:authority`.
#[derive(Debug)]
pub(crate) struct Lenient<S> {
    stream: S,
    filter: Filter,
}

impl<S> Lenient<S> {
    pub(crate) fn new(stream: S) -> Self {
        let filter = Filter::default();
        Self { stream, filter }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lenient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if let Poll::Ready(Ok(())) = read
            && let Some(new) = buffer.filled_mut().get_mut(before..)
        {
            self.filter.pass(new);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Lenient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl<S> Connected for Lenient<S> {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

/// Where in the stream of frames the next byte is.
#[derive(Debug, Clone, Copy)]
enum Frame {
    /// In the nine bytes before a frame, of which the first `have` are known.
    Head { bytes: [u8; 9], have: usize },
    /// At the byte that says how much padding a header block has behind it.
    PadLength { priority: bool, left: u32 },
    /// In bytes before a header block.
    Before { skip: u32, block: u32, padding: u32 },
    /// In a header block.
    Block { left: u32, padding: u32 },
    /// In bytes that do not matter.
    Skip(u32),
}

/// Where in a header block the next byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    /// At the first byte of a field.
    Start,
    /// In the further bytes of an index, after which a value comes or does not.
    Index {
        then_value: bool,
    },
    /// At the length of a name.
    NameLength,
    /// In its further bytes.
    NameLengthRest {
        length: Length,
        coded: bool,
    },
    /// In a name, which so far is that of the authority or is not.
    Name {
        left: u32,
        at: usize,
        coded: bool,
        is_authority: bool,
    },
    /// At the length of a value.
    ValueLength {
        is_authority: bool,
    },
    /// In its further bytes.
    ValueLengthRest {
        length: Length,
        is_authority: bool,
    },
    Value {
        left: u32,
        is_authority: bool,
    },
    /// In something that is no header block.
    Lost,
}

/// A length of which the bytes so far are known (RFC 7541, §5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Length {
    value: u32,
    shift: u32,
}

impl Length {
    /// Of the first byte, whose highest bit says something else; `Err`: more bytes follow.
    fn first(byte: u8) -> Result<u32, Self> {
        match byte & 0x7f {
            0x7f => Err(Self {
                value: 0x7f,
                shift: 0,
            }),
            length => Ok(length.into()),
        }
    }

    /// With one more byte: complete, or not, or impossible.
    fn more(self, byte: u8) -> Option<Result<u32, Self>> {
        let part = u32::from(byte & 0x7f).checked_shl(self.shift)?;
        let value = self.value.checked_add(part)?;
        let shift = self.shift + 7;
        if byte & 0x80 == 0 {
            return Some(Ok(value));
        }
        // No header block has gigabytes.
        (shift <= 21).then_some(Err(Self { value, shift }))
    }
}

/// Overwrites the authorities in what a client sends.
#[derive(Debug)]
pub(super) struct Filter {
    frame: Frame,
    field: Field,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            frame: Frame::Skip(PREFACE),
            field: Field::Start,
        }
    }
}

impl Filter {
    /// Takes the next bytes of the stream, however they are cut.
    pub(super) fn pass(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            let used = self.step(bytes);
            bytes = &mut bytes[used..];
        }
    }

    /// Takes at least one byte, and says how many.
    fn step(&mut self, bytes: &mut [u8]) -> usize {
        let first = bytes[0];
        match self.frame {
            Frame::Head { mut bytes, have } => {
                bytes[have] = first;
                self.frame = if have + 1 < bytes.len() {
                    let have = have + 1;
                    Frame::Head { bytes, have }
                } else {
                    self.begin(bytes)
                };
                1
            }
            Frame::PadLength { priority, left } => {
                let (padding, left) = (u32::from(first), left - 1);
                let skip = if priority { PRIORITY_BYTES } else { 0 };
                self.frame = match left.checked_sub(padding + skip) {
                    Some(block) => before(skip, block, padding),
                    None => skipped(left),
                };
                1
            }
            Frame::Before {
                skip,
                block,
                padding,
            } => {
                let used = shorter(bytes, skip);
                self.frame = before(skip - used, block, padding);
                used as usize
            }
            Frame::Block { left, padding } => {
                let used = shorter(bytes, left);
                for byte in &mut bytes[..used as usize] {
                    self.field = self.field.next(byte);
                }
                self.frame = in_block(left - used, padding);
                used as usize
            }
            Frame::Skip(left) => {
                let used = shorter(bytes, left);
                self.frame = skipped(left - used);
                used as usize
            }
        }
    }

    /// What follows the head of a frame.
    fn begin(&mut self, head: [u8; 9]) -> Frame {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let (kind, flags) = (head[3], head[4]);
        let priority = flags & PRIORITY != 0;
        match kind {
            HEADERS => {
                self.field = Field::Start;
                if flags & PADDED != 0 && length > 0 {
                    let left = length;
                    return Frame::PadLength { priority, left };
                }
                let skip = if priority { PRIORITY_BYTES } else { 0 };
                match length.checked_sub(skip) {
                    Some(block) => before(skip, block, 0),
                    None => skipped(length),
                }
            }
            CONTINUATION => in_block(length, 0),
            _ => skipped(length),
        }
    }
}

/// How many of `bytes` lie within the next `left`.
fn shorter(bytes: &[u8], left: u32) -> u32 {
    u32::try_from(bytes.len()).map_or(left, |length| length.min(left))
}

fn before(skip: u32, block: u32, padding: u32) -> Frame {
    if skip > 0 {
        return Frame::Before {
            skip,
            block,
            padding,
        };
    }
    in_block(block, padding)
}

fn in_block(left: u32, padding: u32) -> Frame {
    if left > 0 {
        return Frame::Block { left, padding };
    }
    skipped(padding)
}

fn skipped(left: u32) -> Frame {
    if left > 0 {
        return Frame::Skip(left);
    }
    Frame::Head {
        bytes: [0; 9],
        have: 0,
    }
}

impl Field {
    /// Takes one byte of a header block, and overwrites it where it is part of an authority.
    fn next(self, byte: &mut u8) -> Self {
        match self {
            Self::Start => start(*byte),
            Self::Index { .. } if *byte & 0x80 != 0 => self,
            Self::Index { then_value: false } => Self::Start,
            Self::Index { then_value: true } => Self::ValueLength {
                is_authority: false,
            },
            Self::NameLength => {
                let coded = *byte & 0x80 != 0;
                match Length::first(*byte) {
                    Ok(left) => name(left, coded),
                    Err(length) => Self::NameLengthRest { length, coded },
                }
            }
            Self::NameLengthRest { length, coded } => match length.more(*byte) {
                Some(Ok(left)) => name(left, coded),
                Some(Err(length)) => Self::NameLengthRest { length, coded },
                None => Self::Lost,
            },
            Self::Name {
                left,
                at,
                coded,
                is_authority,
            } => {
                let wanted = if coded { NAME_CODED } else { NAME };
                let is_authority = is_authority && wanted.get(at) == Some(byte);
                match left - 1 {
                    0 => Self::ValueLength {
                        is_authority: is_authority && at + 1 == wanted.len(),
                    },
                    left => Self::Name {
                        left,
                        at: at + 1,
                        coded,
                        is_authority,
                    },
                }
            }
            Self::ValueLength { is_authority } => {
                let length = Length::first(*byte);
                if is_authority {
                    // What follows is no longer in Huffman's code.
                    *byte &= 0x7f;
                }
                match length {
                    Ok(left) => value(left, is_authority),
                    Err(length) => Self::ValueLengthRest {
                        length,
                        is_authority,
                    },
                }
            }
            Self::ValueLengthRest {
                length,
                is_authority,
            } => match length.more(*byte) {
                Some(Ok(left)) => value(left, is_authority),
                Some(Err(length)) => Self::ValueLengthRest {
                    length,
                    is_authority,
                },
                None => Self::Lost,
            },
            Self::Value { left, is_authority } => {
                if is_authority {
                    *byte = FILLER;
                }
                value(left - 1, is_authority)
            }
            Self::Lost => Self::Lost,
        }
    }
}

/// What the first byte of a field says: RFC 7541, §6.1 to §6.3.
fn start(byte: u8) -> Field {
    let (bits, then_value) = match byte {
        0x80.. => (0x7f, false),
        0x40.. => (0x3f, true),
        0x20.. => (0x1f, false),
        _ => (0x0f, true),
    };
    match (byte & bits, then_value) {
        (index, then_value) if index == bits => Field::Index { then_value },
        (_, false) => Field::Start,
        (0, true) => Field::NameLength,
        (index, true) => Field::ValueLength {
            is_authority: index == AUTHORITY,
        },
    }
}

fn name(left: u32, coded: bool) -> Field {
    let is_authority = left > 0;
    if !is_authority {
        return Field::ValueLength { is_authority };
    }
    Field::Name {
        left,
        at: 0,
        coded,
        is_authority,
    }
}

fn value(left: u32, is_authority: bool) -> Field {
    if left > 0 {
        Field::Value { left, is_authority }
    } else {
        Field::Start
    }
}
