//! Raw images whose size is not a multiple of a sector, and how they are stored.
//!
//! The rule: a raw image whose size is not a multiple of 512 is stored with zeros up to the next
//! multiple, and that is the image from then on: its size, its SHA-512, its chunks. An expected
//! checksum is compared with the bytes as received, whose checksum stays in the sidecar. A qcow2
//! image is never padded, because a guest does not see the size of the file.

use ring::digest::Context;
use types::{SECTOR, Sha512};

use chunks::Chunk;

/// What an image of an odd size is with zeros up to its next whole sector.
#[derive(Debug)]
pub(super) struct Padded {
    /// A multiple of 512.
    pub(super) size: u64,
    /// Of all of it, if that of what came is known.
    pub(super) checksum: Option<Sha512>,
    /// What its last chunk becomes.
    pub(super) last: Chunk,
}

impl Padded {
    /// The same image with the zeros that it lacks: `sum` and `size` are of what came, and `last` is its last
    /// chunk. `None` when it lacks none.
    pub(super) fn of(sum: Option<Context>, size: u64, mut last: Vec<u8>) -> Option<Self> {
        let missing = missing(size);
        if missing == 0 {
            return None;
        }
        last.resize(last.len() + missing, 0);
        let checksum = sum.map(|mut sum| {
            sum.update(&vec![0; missing]);
            Sha512::from_digest(&sum.finish())
        });
        Some(Self {
            size: size + missing as u64,
            checksum,
            last: Chunk::of(&last),
        })
    }
}

/// Zeros that `size` bytes lack to be whole sectors.
pub(super) fn missing(size: u64) -> usize {
    let size = size.next_multiple_of(SECTOR) - size;
    usize::try_from(size).expect("less than a sector")
}
