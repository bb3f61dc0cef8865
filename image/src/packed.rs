//! Disk images that come as one compressed file: `.gz`, `.xz`, `.zst`. They are unpacked while they
//! come, and never stored as they are.
//!
//! Every byte is hostile: memory is bounded by the windows that are taken, and what comes out by what
//! went in. Zeros do not count: a blank disk packs 1:30,000, takes no room and is a fair thing to send.

use std::fmt;
use std::io::{self, BufRead as _, BufReader, Read};
use std::str::FromStr;

use flate2::bufread::MultiGzDecoder;
use liblzma::bufread::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream};

use crate::{Error, Result};

/// How a file is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Packing {
    /// Not at all.
    Plain,
    /// RFC 1952.
    Gzip,
    /// The .xz format.
    Xz,
    /// RFC 8878.
    Zstd,
}

/// A text that names no packing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("compression {0:?} is not known; use gzip, xz, zstd or none")]
pub struct UnknownPacking(String);

/// The most that is believed of a packed file.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes other than zeros that come out of each byte that went in, from `data_from` on.
    pub ratio: u64,
    /// Bytes other than zeros before that is looked at.
    pub data_from: u64,
    /// Memory of the xz decoder. `xz -9` makes files that need 65 MiB.
    pub xz_memory: u64,
    /// The largest window of a zstd frame, as a power of two. `zstd` itself takes 27 unless told
    /// otherwise.
    pub zstd_window_log: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            ratio: 1000,
            data_from: 1 << 30,
            xz_memory: 80 << 20,
            zstd_window_log: 27,
        }
    }
}

/// Bytes that tell every packing.
pub const HEAD: usize = 6;

impl Packing {
    /// What the first bytes of a file show; [`HEAD`] of them are enough.
    pub fn of(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, 8, ..] => Self::Gzip,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            // A frame, or a skippable frame before it (RFC 8878 section 3.1).
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::Plain,
        }
    }

    /// What the ending of a file's name says.
    pub fn of_name(name: &str) -> Self {
        match name
            .rsplit('.')
            .next()
            .map(str::to_ascii_lowercase)
            .as_deref()
        {
            Some("gz" | "gzip") => Self::Gzip,
            Some("xz") => Self::Xz,
            Some("zst" | "zstd") => Self::Zstd,
            _ => Self::Plain,
        }
    }

    /// The name in requests and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "none",
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
        }
    }
}

impl fmt::Display for Packing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Packing {
    type Err = UnknownPacking;

    fn from_str(text: &str) -> std::result::Result<Self, UnknownPacking> {
        match text {
            "none" => Ok(Self::Plain),
            "gzip" | "gz" => Ok(Self::Gzip),
            "xz" => Ok(Self::Xz),
            "zstd" | "zst" => Ok(Self::Zstd),
            _ => Err(UnknownPacking(text.chars().take(64).collect())),
        }
    }
}

/// What is read of the packed file at a time.
const BUFFER: usize = 256 << 10;
/// The granule in which zeros are looked for.
const GRANULE: usize = 4 << 10;

/// The unpacked bytes of a reader's.
///
/// An error of the packed bytes is an [`io::Error`] that holds an [`Error`]; one of the reader is
/// passed on as it is. The end is told only when the packed bytes are at theirs, and whole.
pub struct Unpacked<R> {
    decoder: Decoder<R>,
    packing: Packing,
    limits: Limits,
    /// Bytes that came out and are not zeros.
    data: u64,
}

enum Decoder<R> {
    Plain(BufReader<Packed<R>>),
    Gzip(Box<MultiGzDecoder<BufReader<Packed<R>>>>),
    Xz(Box<XzDecoder<BufReader<Packed<R>>>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, BufReader<Packed<R>>>>),
}

/// The packed bytes, counted, and whether it was they that could not be had.
struct Packed<R> {
    inner: R,
    count: u64,
    failed: bool,
}

impl<R: Read> Read for Packed<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buf);
        match &read {
            Ok(n) => self.count += *n as u64,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => self.failed = true,
        }
        read
    }
}

impl<R: Read> Unpacked<R> {
    /// Unpacks `reader`, which is packed as `packing` says.
    pub fn new(reader: R, packing: Packing, limits: Limits) -> Result<Self> {
        let packed = Packed {
            inner: reader,
            count: 0,
            failed: false,
        };
        let packed = BufReader::with_capacity(BUFFER, packed);
        let setup = |source| Error::Unpack { packing, source };
        let decoder = match packing {
            Packing::Plain => Decoder::Plain(packed),
            Packing::Gzip => Decoder::Gzip(Box::new(MultiGzDecoder::new(packed))),
            Packing::Xz => {
                let stream = Stream::new_stream_decoder(limits.xz_memory, CONCATENATED);
                let stream = stream.map_err(|error| setup(error.into()))?;
                Decoder::Xz(Box::new(XzDecoder::new_stream(packed, stream)))
            }
            Packing::Zstd => {
                let mut decoder =
                    zstd::stream::read::Decoder::with_buffer(packed).map_err(setup)?;
                decoder
                    .window_log_max(limits.zstd_window_log)
                    .map_err(setup)?;
                Decoder::Zstd(Box::new(decoder))
            }
        };
        Ok(Self {
            decoder,
            packing,
            limits,
            data: 0,
        })
    }

    fn packed(&mut self) -> &mut BufReader<Packed<R>> {
        match &mut self.decoder {
            Decoder::Plain(packed) => packed,
            Decoder::Gzip(decoder) => decoder.get_mut(),
            Decoder::Xz(decoder) => decoder.get_mut(),
            Decoder::Zstd(decoder) => decoder.get_mut(),
        }
    }

    fn decode(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match &mut self.decoder {
            Decoder::Plain(packed) => packed.read(buf),
            Decoder::Gzip(decoder) => decoder.read(buf),
            Decoder::Xz(decoder) => decoder.read(buf),
            Decoder::Zstd(decoder) => decoder.read(buf),
        }
    }

    /// Counts what is not zeros, and compares it with what went in.
    fn check(&mut self, bytes: &[u8]) -> Result<()> {
        if self.packing == Packing::Plain {
            return Ok(());
        }
        let data = bytes.chunks(GRANULE).filter(|granule| !is_zero(granule));
        self.data += data.map(|granule| granule.len() as u64).sum::<u64>();
        let (ratio, packing) = (self.limits.ratio, self.packing);
        let packed = self.packed().get_ref().count;
        if self.data > self.limits.data_from && self.data / packed.max(1) > ratio {
            return Err(Error::Bomb { packing, ratio });
        }
        Ok(())
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    let (lines, tail) = bytes.as_chunks::<64>();
    lines
        .iter()
        .all(|line| line.iter().fold(0, |all, byte| all | byte) == 0)
        && tail.iter().all(|byte| *byte == 0)
}

impl<R: Read> Read for Unpacked<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let packing = self.packing;
        match self.decode(buf) {
            Ok(0) => {
                // Not every decoder reads on to the end of the file.
                let rest = self.packed().fill_buf()?;
                if rest.is_empty() {
                    Ok(0)
                } else {
                    Err(Error::Trailing { packing }.into())
                }
            }
            Ok(read) => {
                self.check(&buf[..read])?;
                Ok(read)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) if self.packed().get_ref().failed => Err(error),
            Err(source) => Err(Error::Unpack { packing, source }.into()),
        }
    }
}

impl<R> fmt::Debug for Unpacked<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unpacked")
            .field("packing", &self.packing)
            .field("data", &self.data)
            .finish_non_exhaustive()
    }
}
