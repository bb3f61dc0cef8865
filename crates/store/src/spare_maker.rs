//! Makes the spare clones that are wanted, one at a time, in a thread that ends with that.

use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use tracing::debug;
use types::report;

use super::disk::Disk;
use super::durable;
use super::spares::{Identity, Spare};
use crate::error::{IoContext as _, Result};

/// Who made a volume has its answer by then.
const PAUSE: Duration = Duration::from_millis(20);
/// A file of fewer extents was slow by chance, on a machine that had other things to do.
const EXTENTS_MIN: u32 = 64;
/// A clone locks its source. A spare is made in so many pieces, so that a volume which is made meanwhile waits
/// for one of them and not for the spare.
const PIECES: u64 = 64;
/// Pieces are multiples of this, which is a multiple of any file system's blocks.
const UNIT: u64 = 1 << 20;

/// Makes what is wanted on `disk`, a little later: one spare at a time, as two would only wait for the same disk.
///
/// The thread is as important as others: it holds the lock of a file that a volume may be waiting for.
pub fn start(disk: &Arc<Disk>) {
    if !disk.spares().begin() {
        return;
    }
    let of = Arc::downgrade(disk);
    let thread = thread::Builder::new().name("spares".to_owned());
    if let Err(error) = thread.spawn(move || work(&of)) {
        debug!(%error, "no thread for spares");
        disk.spares().end();
    }
}

/// Makes spares while some are wanted and the disk is served.
fn work(disk: &Weak<Disk>) {
    loop {
        thread::sleep(PAUSE);
        let Some(disk) = disk.upgrade() else { return };
        let Some(path) = disk.spares().next() else {
            return;
        };
        match make(&disk, &path) {
            Ok(Some(spare)) => disk.spares().keep(path, spare),
            Ok(None) => debug!(path = %path.display(), "no spare is made"),
            Err(error) => {
                debug!(path = %path.display(), error = %report(&error), "no spare can be made");
            }
        }
    }
}

/// Clones the file at `path`. `None` where that is not to be, or is not wanted any more.
fn make(disk: &Disk, path: &Path) -> Result<Option<Spare>> {
    disk.check()?;
    // What is left is for volumes and their records.
    if disk.is_suspect() || disk.space()?.shortage().is_some() {
        return Ok(None);
    }
    let source = File::open(path).context("open", path)?;
    if image::extents::count(&source)?.is_none_or(|extents| extents < EXTENTS_MIN) {
        return Ok(None);
    }
    let of = Identity::of(&source, path)?;
    let dir = disk.layout().volumes();
    let file = durable::nameless(&dir, OFlags::empty());
    let file = file.context("make a file without a name in", &dir)?;
    let size = of.stamp.size;
    file.set_len(size).context("set the length of", path)?;
    let step = (size / PIECES).next_multiple_of(UNIT).max(UNIT);
    let mut start = 0;
    while start < size {
        if !disk.spares().is_wanted(path) {
            return Ok(None);
        }
        let end = size.min(start + step);
        if !image::extents::reflink_range(&source, start..end, &file, start)? {
            return Ok(None);
        }
        start = end;
    }
    // Nothing of it need last, but what the log of the file system has by then the volume does not wait for: with
    // 10,000 extents that halves its time.
    file.sync_all().context("sync a spare of", path)?;
    if of != Identity::of(&source, path)? {
        return Ok(None);
    }
    let made = Instant::now();
    Ok(Some(Spare { file, of, made }))
}
