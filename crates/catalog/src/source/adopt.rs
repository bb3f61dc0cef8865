//! A file that is already on the disk: prepared by a data source, or the file of another image.
//!
//! Nothing is copied: the store takes the file over by renaming it (see [`store::adopt`]).
//! So nothing may be removed if this fails.

use std::path::Path;

use super::Job;
use crate::blocking::blocking;
use crate::error::Result;
use store::{Asked, Reading, SealedImage};

impl Job {
    /// Makes the file at `from` the image of this job.
    pub(crate) async fn adopt(&self, from: &Path) -> Result<SealedImage> {
        let (job, from) = (self.clone(), from.to_owned());
        let adopt = move || {
            let asked = Asked {
                expected: job.expected,
                size: job.size,
                format: job.format,
                checksum_later: false,
            };
            let reading = Reading {
                cancel: &job.ends(),
                progress: &|read, size| job.report.progress(read, size),
            };
            job.store.take_over(&job.id, &from, &asked, reading)
        };
        blocking(adopt).await
    }
}
