//! What is backed up: bytes that can be read at any place, and which of them there are.

use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use std::sync::Arc;

use crate::BlockSet;

/// Bytes that do not change while they are backed up.
pub trait Source: Debug + Send + Sync {
    /// Fills the buffer with the bytes at `offset`. Behind the end there are zeros. It may block.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

impl Source for File {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < buffer.len() {
            match self.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => {
                    buffer[done..].fill(0);
                    break;
                }
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The contents of a snapshot.
#[derive(Debug, Clone)]
pub struct Contents {
    /// Its bytes.
    pub source: Arc<dyn Source>,
    /// The blocks to back up. Of the others the backup says nothing: without a base image they must be
    /// zeros, on one they must be the image's bytes (zeros behind its end).
    pub mapped: BlockSet,
    /// The blocks that may differ from the parent's snapshot. `None`: not known, every mapped block is
    /// read and hashed.
    pub changed: Option<BlockSet>,
}
