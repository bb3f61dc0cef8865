//! Finds the one disk image in the layers of a container image, while the layers stream by.
//!
//! Layers are read from the top down, unpacked in their own thread and never stored. The only
//! regular file in `/base_image/`, or else in `/disk/` (KubeVirt's container disks), goes to a
//! [`Sink`] as it passes. Layers are stacked as in overlayfs: an upper file hides a lower one,
//! whiteouts (`.wh.NAME`) and opaque marks (`.wh..wh..opq`) hide everything below, and a file that
//! replaces a directory hides its contents (OCI image specification, "layer").
//!
//! Everything in a layer is hostile: only exactly the expected names count, only regular files
//! count, and [`Limits`] bounds the unpacking. Nothing is created, linked or followed here: bytes
//! go only to the sink.
//!
//! This module must not know the source of layers or the destination of the bytes.

mod error;
mod overlay;
mod packing;
mod scan;
pub(crate) mod tar;
mod unpack;

use std::fmt;
use std::io::Read;

use types::Classify;

use crate::digest::Digest;

pub use error::Error;
pub use packing::Packing;
pub use scan::find;

/// The directory of a container image that a disk image lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Directory {
    /// `/base_image/`, Longhorn's.
    BaseImage,
    /// `/disk/`, KubeVirt's; it counts only when there is no `/base_image/`.
    Disk,
}

impl Directory {
    /// The name of the directory, without slashes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BaseImage => "base_image",
            Self::Disk => "disk",
        }
    }
}

/// How much is unpacked before an image counts as an attack.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of all layers, unpacked.
    pub unpacked: u64,
    /// Bytes of the disk image, holes included.
    pub file: u64,
    /// Unpacked bytes per packed byte of a layer, counted from `ratio_from` on. A blank disk is packed
    /// 1:1032 by gzip and far better by zstd, so the ratio alone proves nothing.
    pub ratio: u64,
    /// Unpacked bytes of a layer before its ratio is looked at.
    pub ratio_from: u64,
    /// The largest window of a zstd frame, as a power of two: what a decoder must keep in memory.
    pub zstd_window_log: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            unpacked: 1 << 40,
            file: 1 << 40,
            ratio: 2000,
            ratio_from: 16 << 30,
            // 32 MiB. RFC 8878 asks for 8 MiB; `zstd --long` and `--ultra` make more.
            zstd_window_log: 25,
        }
    }
}

/// One layer, to be read.
pub struct Input {
    /// For messages: its digest or path.
    pub name: String,
    /// How it is packed, as far as its media type tells. It must be true.
    pub packing: Packing,
    /// Names the packed bytes, if the reader verifies them; a plain layer whose `diff_id` is the same
    /// is not hashed again.
    pub digest: Option<Digest>,
    /// Names the unpacked tar; verified when known.
    pub diff_id: Option<Digest>,
    /// Whether it may be a disk image itself: then it is one if it is no tar.
    pub bare: bool,
    /// The packed bytes. An error at the end (a wrong digest) makes the whole search fail.
    pub reader: Box<dyn Read + Send>,
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Input")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Takes the bytes of the disk image as they pass.
///
/// A candidate may turn out not to be the one: [`Sink::discard`] then follows, after its `end` or in
/// the middle of it, and another `begin` may follow that. What was taken counts only once [`find`]
/// has returned `Ok`.
pub trait Sink {
    /// Why bytes cannot be taken.
    type Error: Classify + Send + Sync + 'static;

    /// A file starts; `name` is a single, valid path component. It will have exactly `size` bytes, where
    /// that is known beforehand.
    fn begin(
        &mut self,
        directory: Directory,
        name: &str,
        size: Option<u64>,
    ) -> Result<(), Self::Error>;
    fn write(&mut self, bytes: &[u8]) -> Result<(), Self::Error>;
    /// Its next `length` bytes are zeros, and were a hole.
    fn hole(&mut self, length: u64) -> Result<(), Self::Error>;
    /// All its bytes came.
    fn end(&mut self) -> Result<(), Self::Error>;
    /// What was taken since the last `begin` is not wanted.
    fn discard(&mut self) -> Result<(), Self::Error>;
}

/// The disk image that was found and handed to the sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub directory: Directory,
    pub name: String,
    /// Its size in bytes, holes included.
    pub size: u64,
}
