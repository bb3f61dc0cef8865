//! The blocks of a store: their sizes, their names, which are checksums, and how they are packed.

mod checksum;
mod codec;
#[cfg(target_arch = "x86_64")]
mod lanes;

use std::fmt;
use std::str::FromStr;

pub use checksum::BlockChecksum;
pub(crate) use checksum::LANES;
pub(crate) use codec::{Stored, decode, decode_all, encode, encode_onto, packed_max};

use crate::{Error, Result};

/// How the bytes of a block are stored. Reading does not depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    None,
    Gzip,
    Lz4,
}

impl FromStr for Compression {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "none" => Ok(Self::None),
            "gzip" => Ok(Self::Gzip),
            "lz4" => Ok(Self::Lz4),
            _ => Err(Error::Option {
                option: "compression",
                text: types::shown(text),
                why: "use lz4, gzip or none",
            }),
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Lz4 => "lz4",
        })
    }
}

/// Bytes of a block of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockSize(u64);

impl BlockSize {
    /// What everybody reads.
    pub const MIB2: Self = Self(2 << 20);
    /// What Longhorn writes since 1.10 if asked to.
    pub const MIB16: Self = Self(16 << 20);

    /// A block size as a store may have it: 4 KiB to 64 MiB, a multiple of 512 bytes.
    pub fn new(bytes: u64) -> Result<Self> {
        let why = match bytes {
            0..4096 => "a block has at least 4096 bytes",
            _ if bytes > 64 << 20 => "a block has at most 67108864 bytes (64 MiB)",
            _ if !bytes.is_multiple_of(512) => "a block is a multiple of 512 bytes",
            _ => return Ok(Self(bytes)),
        };
        Err(Error::Option {
            option: "block size",
            text: bytes.to_string(),
            why,
        })
    }

    /// How many bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests;
