//! The file system to fill, and its contents.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use tree::Tree;

use super::error::{Result, io};

/// The place that is filled, and with what.
#[derive(Debug)]
pub struct Request<'a> {
    pub tree: &'a Tree,
    /// An empty file system that `mkfs.xfs` made with the options of [`options`].
    pub image: &'a File,
    /// The same file, for messages.
    pub path: &'a Path,
    /// The uuid that it was made with.
    pub uuid: [u8; 16],
}

/// Reads from the image.
pub(super) fn read(request: &Request, bytes: &mut [u8], at: u64) -> Result<()> {
    request
        .image
        .read_exact_at(bytes, at)
        .map_err(io("read", request.path))
}
