//! What a volume holds at one moment, while a node may be writing to it: for snapshots and clones.
//!
//! `FICLONE` waits for running I/O and delays new I/O, so that the clone is the state that a power
//! cut at that moment would leave. The file is synced first, so that no byte that a node considers
//! durable is missing. The cost depends on the number of extents, and the I/O of the volume stops
//! for as long: beyond [`EXTENTS_MAX`], a volume under writes is not cloned.

use std::fs::File;
use std::time::Instant;

use tracing::{info, warn};
use types::{VolumeName, crash_point};

use super::Volumes;
use super::record::MadeBy;
use store::IoContext;

use crate::error::{Error, Result};
use store::held::hold;

/// Extents up to which a volume is cloned while nodes write to it. At 56 µs for each (measured on XFS)
/// its I/O stands still for 5 s, which is within what file systems and programs bear.
const EXTENTS_MAX: u32 = 90_000;
/// From here on it is said how long that took: half a second.
const EXTENTS_MANY: u32 = 9_000;

impl Volumes {
    /// Makes `file`, which is empty, what the volume holds now. Nothing is synced.
    pub fn clone_live(&self, name: &VolumeName, file: &File) -> Result<MadeBy> {
        let _busy = self.lock(name)?;
        let volume = self.get(name)?;
        let path = self.disk.layout().volume(name).data;
        let source = File::open(&path).context("open", &path)?;
        source.sync_all().context("sync", &path)?;
        crash_point!("volume.cut.synced");
        // Nobody begins to use the volume meanwhile. One that is used without being published is used on
        // this node.
        let is_free = hold(&source, &path)?;
        let published = &volume.published;
        let unannounced = published.is_empty() && !is_free;
        let writer = published.iter().find(|p| !p.readonly);
        let writer = writer.map(|publication| &publication.node_id);
        let Some(writer) = writer.or(unannounced.then_some(&self.node_id)) else {
            return self.copy(&source, &path, file);
        };
        let refused = |why| {
            Err(Error::CannotClone {
                name: name.clone(),
                node: writer.clone(),
                why,
            })
        };
        if !self.disk.reflink() {
            let why = "this disk cannot share extents, and a copy would mix old and new data";
            return refused(why.to_owned());
        }
        let extents = image::extents::count(&source)?.unwrap_or(0);
        if extents > EXTENTS_MAX {
            let why = format!(
                "its file has {extents} extents, and to clone it would stop its I/O too long"
            );
            return refused(why);
        }
        let started = Instant::now();
        if !image::extents::reflink(&source, file)? {
            return refused("its file cannot share extents".to_owned());
        }
        let milliseconds = started.elapsed().as_millis();
        if extents > EXTENTS_MANY {
            warn!(volume = %name, extents, milliseconds, "its I/O stood still while it was cloned");
        } else {
            info!(volume = %name, extents, milliseconds, "cloned while it is in use");
        }
        Ok(MadeBy::Reflink)
    }
}
