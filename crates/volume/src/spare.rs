//! The file of a volume from an image: a spare clone of the raw form if there is one, else a new clone or copy.
//!
//! A spare has what a new clone would have: owner, mode and bytes. Nobody waits for one that is being made.

use std::fs::File;
use std::path::Path;
use std::time::Instant;

use tracing::debug;
use types::{Classify as _, ErrorKind, report};

use super::Volumes;
use super::record::MadeBy;
use crate::error::Result;
use store::spares::SLOW;
use store::{IoContext as _, durable};

impl Volumes {
    /// Makes the file `to` with the content of `raw`: shared where the disk can, else copied extent by extent.
    /// Where that was slow, the next one is to have a spare.
    pub(super) fn clone_raw(&self, raw: &Path, to: &Path) -> Result<(File, MadeBy)> {
        let source = File::open(raw).context("open", raw)?;
        if let Some(spare) = self.name_spare(raw, &source, to)? {
            self.disk.spares().want(raw);
            return Ok((spare, MadeBy::Reflink));
        }
        let file = durable::create_file(to)?;
        let started = Instant::now();
        let made_by = self.copy(&source, raw, &file)?;
        if made_by == MadeBy::Reflink && started.elapsed() >= SLOW {
            self.disk.spares().want(raw);
        }
        Ok((file, made_by))
    }

    /// Gives the spare of `raw` the name `to`, if there is a spare.
    fn name_spare(&self, raw: &Path, source: &File, to: &Path) -> Result<Option<File>> {
        let Some(spare) = self.disk.spares().take(raw, source)? else {
            return Ok(None);
        };
        match durable::name(&spare, to) {
            Ok(()) => Ok(Some(spare)),
            Err(error) => {
                debug!(error = %report(&error), "a spare cannot be used");
                // Only a full disk may do better next time.
                if error.kind() != ErrorKind::ResourceExhausted {
                    self.disk.spares().give_up();
                }
                Ok(None)
            }
        }
    }
}
