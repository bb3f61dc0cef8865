//! How images are removed: quarantined, deleted, or abandoned.

use std::path::PathBuf;

use tracing::warn;
use types::{ImageId, crash_point, report};

use super::assembly::Assembly;
use super::counters::Counters;
use super::durable;
use super::images::ImageStore;
use super::layout::{ImagePaths, Place};
use crate::error::{IoContext, Result};

impl ImageStore {
    /// Sets a damaged image aside, where no request finds it and nothing deletes it.
    pub fn quarantine(&self, id: &ImageId) -> Result<PathBuf> {
        self.quarantine_entry(self.place(), &id.to_string())
    }

    /// The same for what has this name in a place.
    pub(super) fn quarantine_entry(&self, place: Place, name: &str) -> Result<PathBuf> {
        let layout = self.disk().layout();
        let to = unused(|n| layout.quarantine(place, name, n))?;
        let paths = layout.entry(place, name);
        match place {
            Place::Images => {
                durable::rename(&paths.dir, &to)?;
                self.forget_spares(&paths);
            }
            Place::Work => {
                // The bytes go first: without a name they are not taken for good ones, whereas what
                // described them is void without them.
                durable::create_dir(&to)?;
                durable::rename(&paths.backing, &to.join("backing"))?;
                crash_point!("store.quarantine.renamed");
                for (from, name) in [
                    (&paths.sidecar, "backing.cfg"),
                    (&paths.chunks, "backing.chunks"),
                ] {
                    durable::rename_if_there(from, &to.join(name))?;
                }
                durable::sync_dir(&to)?;
            }
        }
        durable::sync_dir(&layout.place(place))?;
        crash_point!("store.quarantine.named");
        Counters::count(&self.disk().counters().quarantined);
        Ok(to)
    }

    /// Deletes an image; nothing there is no error. It is gone once its bytes are: what else is in its
    /// directory is void without them, and it may be made anew at once. No step needs room on the disk,
    /// which may be full.
    pub fn delete(&self, id: &ImageId) -> Result<()> {
        self.disk().check()?;
        if self.place() == Place::Work {
            return self.delete_work_file(id);
        }
        self.delete_entry(&id.to_string())
    }

    /// Deletes the directory of this name.
    pub(super) fn delete_entry(&self, name: &str) -> Result<()> {
        let layout = self.disk().layout();
        let paths = layout.entry(Place::Images, name);
        if !paths.dir.try_exists().context("look for", &paths.dir)? {
            return Ok(());
        }
        // What could be believed beside other bytes, or gone on with, goes before the bytes themselves.
        let removed = [
            &paths.upload_record,
            &paths.upload,
            &paths.part_chunks,
            &paths.part,
            &paths.raw_seal,
            &paths.raw_tmp,
            &paths.raw,
            &paths.backing_tmp,
            &paths.backing,
        ]
        .into_iter()
        .try_for_each(|file| durable::remove_file(file));
        // The space is to be back also where not all went.
        self.forget_spares(&paths);
        removed?;
        durable::sync_dir(&paths.dir)?;
        crash_point!("store.delete.bytes");
        if let Err(error) = durable::remove_dir(&paths.dir) {
            warn!(name, error = %report(&error), "deleted, but its directory is still there");
        }
        durable::sync_dir(&layout.images())
    }

    /// Gives up the spare clones of an image whose files are not what they were: they hold its space.
    pub(super) fn forget_spares(&self, paths: &ImagePaths) {
        for file in [&paths.raw, &paths.backing] {
            self.disk().spares().forget(file);
        }
    }

    fn delete_work_file(&self, id: &ImageId) -> Result<()> {
        let paths = self.paths(id);
        if !paths.dir.try_exists().context("look for", &paths.dir)? {
            return Ok(());
        }
        self.take_lock(id, &paths)?;
        for bytes in [&paths.backing, &paths.backing_tmp, &paths.part] {
            durable::remove_file(bytes)?;
        }
        durable::sync_dir(&paths.dir)?;
        crash_point!("store.delete.unlinked");
        // Void without the bytes.
        for beside in [&paths.sidecar, &paths.chunks, &paths.part_chunks] {
            durable::remove_file(beside)?;
        }
        self.release(id)
    }

    /// Removes what described a work file that was taken over: Longhorn's manager leaves what it does not
    /// know. Nothing, when the file is still there.
    pub fn tidy_after(&self, id: &ImageId) -> Result<()> {
        let paths = self.paths(id);
        if paths
            .backing
            .try_exists()
            .context("look for", &paths.backing)?
        {
            return Ok(());
        }
        durable::remove_file(&paths.chunks)?;
        durable::remove_file(&paths.part_chunks)
    }

    /// Removes what a failed making left, except what the next attempt can go on from.
    pub fn abandon(&self, id: &ImageId) -> Result<()> {
        let paths = self.paths(id);
        if Assembly::left(&paths) {
            durable::remove_file(&paths.backing_tmp)?;
            return self.release(id);
        }
        self.delete(id)
    }
}

/// The first of some numbered paths that is not taken.
fn unused(path: impl Fn(u32) -> PathBuf) -> Result<PathBuf> {
    for n in 1.. {
        let path = path(n);
        if !path.try_exists().context("look for", &path)? {
            return Ok(path);
        }
    }
    unreachable!("u32 directories of one image do not fit on a disk")
}
