//! Volumes that are gone: what was kept to find their changes goes too.

use catalog::Status;
use store::Snapshot;
use types::VolumeName;

use crate::jobs::Jobs;

impl Jobs {
    /// A volume was deleted: what was kept to find its changes goes with it. Backups that run go on.
    pub async fn volume_deleted(&self, volume: &VolumeName) {
        self.room().counters.forget(volume.as_str());
        let kept: Vec<_> = self.room().kept().collect();
        for (status, snapshot) in kept {
            if snapshot.volume == *volume && !self.in_use(&status, &snapshot) {
                self.room()
                    .remove(&status.id, "its volume was deleted")
                    .await;
            }
        }
    }

    /// Removes the snapshots that were kept for backups of volumes which are no more: a daemon that was
    /// killed may have left them.
    pub async fn tidy(&self) {
        let Some(volumes) = self.room().volumes.clone() else {
            return;
        };
        let gone = |volume: VolumeName| {
            let volumes = volumes.clone();
            async move {
                let looked = catalog::blocking(move || volumes.get(&volume).map(drop)).await;
                matches!(
                    looked,
                    Err(catalog::Error::Volume(volume::Error::VolumeNotFound(_)))
                )
            }
        };
        let kept: Vec<_> = self.room().kept().collect();
        for (status, snapshot) in kept {
            if gone(snapshot.volume.clone()).await && !self.in_use(&status, &snapshot) {
                self.room().remove(&status.id, "its volume is gone").await;
            }
        }
    }

    fn in_use(&self, status: &Status, snapshot: &Snapshot) -> bool {
        self.is_backed_up(snapshot.volume.as_str(), status.id.name.as_str())
    }
}
