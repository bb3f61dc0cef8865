//! Whether somebody uses a volume, for those who look: its file is held by a device of this node (flock(2), shared).
//!
//! The lock is asked for, exclusively, and given back at once. Requests that hold the file themselves mark the volume
//! as busy, under the same mutex that is held here: they never meet a look, and no two looks meet. The node side, which
//! is another process, asks for its shared lock again for some milliseconds (`host::disks::hold`).

use std::fs::File;
use std::sync::PoisonError;

use types::VolumeName;

use super::{Volume, Volumes};
use store::held::hold;

impl Volumes {
    /// Whether a device of this node holds the file of the volume. `false` also while a request works on it, and where
    /// nobody can tell: this is for people, and nothing is decided by it.
    pub fn is_in_use(&self, volume: &Volume) -> bool {
        let name: &VolumeName = &volume.record.name;
        let path = self.disk.layout().volume(name).data;
        // Opened before the mutex is held: a disk may hang.
        let Ok(file) = File::open(&path) else {
            return false;
        };
        let busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let is_held = !volume.is_replica
            && !busy.contains(name)
            && hold(&file, &path).is_ok_and(|is_free| !is_free);
        drop(file);
        drop(busy);
        is_held
    }
}
