//! The qcow2 form of a raw file that was received, made without room for both.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use image::qcow2::{self, CreateOptions};
use probe::Disk;
use tokio_util::sync::CancellationToken;

use store::IoContext;

use crate::error::Result;
use catalog::source::Job;
use store::Received;

/// How much is read before it is given back to the disk.
const STEP: u64 = 64 << 20;

/// Makes a qcow2 image of what was received. The raw bytes are given back as they are read: they were
/// made here, and nobody else has seen them. It takes as long as it takes.
pub(super) fn to_qcow2(raw: Received, job: &Job) -> Result<Received> {
    let made = job.store.make_file_beside(&job.id, job.ends())?;
    let mut target = made.file().try_clone().context("keep open", made.path())?;
    let disk = Consumed {
        file: &raw.file,
        size: raw.manifest.size,
        given_back: Cell::new(0),
        cancel: job.cancel.clone(),
    };
    qcow2::create(&disk, &mut target, &CreateOptions::default())?;
    drop(raw);
    Ok(made.hashed()?)
}

/// A file that is read once, from front to back, and whose blocks go as they were read.
struct Consumed<'a> {
    file: &'a File,
    size: u64,
    /// Up to here its blocks have gone.
    given_back: Cell<u64>,
    cancel: CancellationToken,
}

impl Disk for Consumed<'_> {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if self.cancel.is_cancelled() {
            return Err(io::Error::other("the image is not wanted"));
        }
        let from = self.given_back.get();
        if offset > from + STEP {
            // A file system that cannot give space back has to have it twice.
            let _ = image::extents::punch_hole(self.file, from..offset);
            self.given_back.set(offset);
        }
        self.file.read_exact_at(buffer, offset)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        probe::next_data(self.file, self.size, offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn what_was_read_takes_no_room_any_more() {
        let file = tempfile::tempfile().unwrap();
        let bytes = vec![7; 1 << 20];
        for n in 0..160_u64 {
            file.write_all_at(&bytes, n << 20).unwrap();
        }
        let disk = Consumed {
            file: &file,
            size: 160 << 20,
            given_back: Cell::new(0),
            cancel: CancellationToken::new(),
        };
        let mut target = tempfile::tempfile().unwrap();
        let before = file.metadata().unwrap().blocks();
        qcow2::create(&disk, &mut target, &CreateOptions::default()).unwrap();
        let after = file.metadata().unwrap().blocks();
        assert!(after < before / 2, "{before} {after}");
        let image = image::Image::open(target, image::Format::Qcow2).unwrap();
        let mut there = vec![0; 1 << 20];
        for n in 0..160_u64 {
            image.read_exact_at(&mut there, n << 20).unwrap();
            assert!(there == bytes, "MiB {n}");
        }
    }
}
