//! The checksum that names a block: the first 256 bits of its SHA-512.

use std::fmt;
use std::str::FromStr;

use crate::{Error, Result};

/// Blocks that are best hashed together: see [`BlockChecksum::of_all`].
pub(crate) const LANES: usize = 4;

/// The name of a block: the first 256 bits of the SHA-512 of its bytes, unpacked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockChecksum(pub [u8; 32]);

impl BlockChecksum {
    /// That of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self::first_bits(ring::digest::digest(&ring::digest::SHA512, bytes).as_ref())
    }

    /// Those of several blocks, in order. [`LANES`] blocks of one length take far less time together than
    /// one after the other.
    pub(crate) fn of_all(blocks: &[&[u8]]) -> Vec<Self> {
        let mut checksums = Vec::with_capacity(blocks.len());
        while let [first, rest @ ..] = &blocks[checksums.len()..] {
            let same = rest
                .iter()
                .take(LANES - 1)
                .take_while(|block| block.len() == first.len());
            match together(first, &rest[..same.count()]) {
                Some(together) => checksums.extend(together),
                None => checksums.push(Self::of(first)),
            }
        }
        checksums
    }

    fn first_bits(digest: &[u8]) -> Self {
        let mut first = [0; 32];
        first.copy_from_slice(&digest[..32]);
        Self(first)
    }
}

/// Those of `first` and `rest`, which have one length, if that is faster than one after the other.
#[cfg(target_arch = "x86_64")]
fn together(first: &[u8], rest: &[&[u8]]) -> Option<Vec<BlockChecksum>> {
    // Two of four lanes are still faster than two alone.
    if rest.is_empty() {
        return None;
    }
    let mut messages = [first; LANES];
    messages[1..=rest.len()].copy_from_slice(rest);
    let digests = super::lanes::hash(messages)?;
    let wanted = digests.iter().take(1 + rest.len());
    Some(
        wanted
            .map(|digest| BlockChecksum::first_bits(digest))
            .collect(),
    )
}

#[cfg(not(target_arch = "x86_64"))]
fn together(_: &[u8], _: &[&[u8]]) -> Option<Vec<BlockChecksum>> {
    None
}

impl fmt::Display for BlockChecksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BlockChecksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for BlockChecksum {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = || Error::Option {
            option: "block checksum",
            text: types::shown(text),
            why: "it has 64 lower-case hexadecimal digits",
        };
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
            return Err(refuse());
        };
        let pairs: &[[u8; 2]; 32] = pairs.try_into().map_err(|_| refuse())?;
        let mut bytes = [0; 32];
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            let high = digit(*high).ok_or_else(refuse)?;
            *byte = high << 4 | digit(*low).ok_or_else(refuse)?;
        }
        Ok(Self(bytes))
    }
}
