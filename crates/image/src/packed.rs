//! Disk images in one compressed file: `.gz`, `.xz`, `.zst`. They are unpacked as they arrive and
//! never stored compressed.
//!
//! Every byte is hostile: the permitted windows limit the memory, and the input limits the output.
//! Zeros do not count: a blank disk compresses 1:30,000, uses no space, and is legitimate.

mod peeked;

use std::fmt;
use std::io::{self, Read};

use flate2::bufread::GzDecoder;
use liblzma::bufread::XzDecoder;
use liblzma::stream::Stream;

use self::peeked::Peeked;
pub use crate::packing::{HEAD, Packing, UnknownPacking};
use crate::{Error, Result};

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
    /// Whether bytes that follow the packed ones are passed over. Zeros always are.
    pub trailing: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            ratio: 1000,
            data_from: 1 << 30,
            xz_memory: 80 << 20,
            zstd_window_log: 27,
            trailing: false,
        }
    }
}

/// The granule in which zeros are looked for.
const GRANULE: usize = 4 << 10;

/// The unpacked bytes of a reader's.
///
/// An error of the packed bytes is an [`io::Error`] that holds an [`Error`]; one of the reader is
/// passed on as it is. The end is told only when the packed bytes are at theirs, and whole.
pub struct Unpacked<R> {
    /// `None` when a part could not be begun, and nothing is read any more.
    decoder: Option<Decoder<R>>,
    packing: Packing,
    limits: Limits,
    /// Bytes that came out and are not zeros.
    data: u64,
}

/// One part of a packed file: a member, a stream, a frame. Files may have several in a row.
enum Decoder<R> {
    Plain(Peeked<R>),
    Gzip(Box<GzDecoder<Peeked<R>>>),
    Xz(Box<XzDecoder<Peeked<R>>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, Peeked<R>>>),
}

impl<R: Read> Decoder<R> {
    fn new(packed: Peeked<R>, packing: Packing, limits: &Limits) -> Result<Self> {
        let setup = |source| Error::Unpack { packing, source };
        Ok(match packing {
            Packing::Plain => Self::Plain(packed),
            Packing::Gzip => Self::Gzip(Box::new(GzDecoder::new(packed))),
            Packing::Xz => {
                let stream = Stream::new_stream_decoder(limits.xz_memory, 0);
                let stream = stream.map_err(|error| setup(error.into()))?;
                Self::Xz(Box::new(XzDecoder::new_stream(packed, stream)))
            }
            Packing::Zstd => {
                let decoder = zstd::stream::read::Decoder::with_buffer(packed).map_err(setup)?;
                let mut decoder = decoder.single_frame();
                decoder
                    .window_log_max(limits.zstd_window_log)
                    .map_err(setup)?;
                Self::Zstd(Box::new(decoder))
            }
        })
    }

    fn packed(&mut self) -> &mut Peeked<R> {
        match self {
            Self::Plain(packed) => packed,
            Self::Gzip(decoder) => decoder.get_mut(),
            Self::Xz(decoder) => decoder.get_mut(),
            Self::Zstd(decoder) => decoder.get_mut(),
        }
    }

    fn into_packed(self) -> Peeked<R> {
        match self {
            Self::Plain(packed) => packed,
            Self::Gzip(decoder) => decoder.into_inner(),
            Self::Xz(decoder) => decoder.into_inner(),
            Self::Zstd(decoder) => decoder.finish(),
        }
    }

    fn decode(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(packed) => packed.read(buf),
            Self::Gzip(decoder) => decoder.read(buf),
            Self::Xz(decoder) => decoder.read(buf),
            Self::Zstd(decoder) => decoder.read(buf),
        }
    }
}

impl<R: Read> Unpacked<R> {
    /// Unpacks `reader`, which is packed as `packing` says.
    pub fn new(reader: R, packing: Packing, limits: Limits) -> Result<Self> {
        Ok(Self {
            decoder: Some(Decoder::new(Peeked::new(reader), packing, &limits)?),
            packing,
            limits,
            data: 0,
        })
    }

    /// Begins the next part of the file, if there is one. The one before is at its end.
    fn next_part(&mut self) -> io::Result<bool> {
        let (packing, limits) = (self.packing, &self.limits);
        let Some(decoder) = self.decoder.take() else {
            return Ok(false);
        };
        let mut packed = decoder.into_packed();
        let mut goes_on = Packing::of(packed.peek(HEAD)?) == packing;
        let mut follows = goes_on || packed.pass_zeros()?;
        // The .xz format may have zeros between its streams; elsewhere they are what fills a block.
        if follows && packing == Packing::Xz {
            goes_on = Packing::of(packed.peek(HEAD)?) == packing;
        }
        if follows && !goes_on && limits.trailing {
            packed.pass_all()?;
            follows = false;
        }
        if follows && !goes_on {
            let at = packed.taken();
            return Err(Error::Trailing { packing, at }.into());
        }
        if follows {
            self.decoder = Some(Decoder::new(packed, packing, limits)?);
        }
        Ok(follows)
    }

    /// Counts what is not zeros, and compares it with what went in.
    fn check(&mut self, bytes: &[u8]) -> Result<()> {
        if self.packing == Packing::Plain {
            return Ok(());
        }
        let data = bytes.chunks(GRANULE).filter(|granule| !is_zero(granule));
        self.data += data.map(|granule| granule.len() as u64).sum::<u64>();
        let (ratio, packing) = (self.limits.ratio, self.packing);
        let packed = self.decoder.as_mut().map_or(0, |d| d.packed().count);
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
        while let Some(decoder) = &mut self.decoder {
            match decoder.decode(buf) {
                Ok(0) => {}
                Ok(read) => {
                    self.check(&buf[..read])?;
                    return Ok(read);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
                Err(error) if decoder.packed().failed => return Err(error),
                Err(source) => return Err(Error::Unpack { packing, source }.into()),
            }
            if packing == Packing::Plain || !self.next_part()? {
                break;
            }
        }
        Ok(0)
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
