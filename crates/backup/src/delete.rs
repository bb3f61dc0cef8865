//! Removing backups and volumes: first what says that they are there, then their blocks.

use futures_util::TryStreamExt as _;
use types::{Classify as _, ErrorKind};

use crate::collect::{BETWEEN_CHECKS, Collected, Room};
use crate::job::{Job, Phase};
use crate::lock::{self, Kind, Lock};
use crate::store::Store;
use crate::{Name, Result, layout};

impl Store {
    /// Removes a backup, complete or not, and the blocks that only it needed. Fine if there is none.
    /// [`crate::Error::Locked`] while a backup of the volume is made or restored.
    pub async fn delete_backup(
        &self,
        volume: &Name,
        backup: &Name,
        job: &Job,
    ) -> Result<Collected> {
        let key = layout::backup_config(volume, backup);
        let room = Room::Volume(volume.clone());
        self.delete_cfg(&room, backup, volume, key, job).await
    }

    /// The same for a backing image. Its blocks are shared with those of all others.
    pub async fn delete_backing_image(&self, name: &Name, job: &Job) -> Result<Collected> {
        let key = layout::backing_image_config(name);
        self.delete_cfg(&Room::BackingImages, name, name, key, job)
            .await
    }

    async fn delete_cfg(
        &self,
        room: &Room,
        name: &Name,
        locked: &Name,
        key: String,
        job: &Job,
    ) -> Result<Collected> {
        let asked = lock::acquire(self.driver(), locked, Kind::Remove, &job.cancel).await;
        let lock = match asked {
            Err(error) if error.kind() == ErrorKind::ResourceExhausted => {
                let room_made = self.make_room(room, name, locked, &key).await?;
                match lock::acquire(self.driver(), locked, Kind::Remove, &job.cancel).await {
                    // What was asked for is done; blocks that only it had go with the next collection.
                    Err(error) if error.kind() == ErrorKind::ResourceExhausted && !room_made => {
                        let why = "the store is full, so that no lock can be written: make room, then collect";
                        return Ok(Collected {
                            kept: vec![why.to_owned()],
                            ..Collected::default()
                        });
                    }
                    asked => asked?,
                }
            }
            asked => asked?,
        };
        let work = async {
            lock.check().await?;
            self.driver().delete(&key).await?;
            types::crash_point!("backup.delete.cfg");
            self.collect_room(room, &lock, false, job).await
        };
        let collected = job.unless_cancelled(work).await?;
        lock.release().await?;
        Ok(collected)
    }

    /// Removes everything of a volume. Fine if there is nothing. `volume.cfg` goes last, so that what is
    /// left after a crash can be seen, and removed by the same call.
    pub async fn delete_volume(&self, volume: &Name, job: &Job) -> Result<()> {
        job.progress.phase(Phase::Collecting, 0);
        let lock = lock::acquire(self.driver(), volume, Kind::Remove, &job.cancel).await?;
        let work = async {
            // The cfgs first: no backup may seem whole whose blocks are going.
            self.empty_folder(volume, &layout::backups(volume), &lock, job)
                .await?;
            types::crash_point!("backup.delete.backups");
            self.empty_folder(volume, &layout::volume(volume), &lock, job)
                .await?;
            types::crash_point!("backup.delete.blocks");
            self.driver().delete(&layout::volume_config(volume)).await
        };
        job.unless_cancelled(work).await?;
        lock.release().await
    }

    /// Removes what is in a folder of a volume, but for its record and its locks.
    async fn empty_folder(
        &self,
        volume: &Name,
        folder: &str,
        lock: &Lock,
        job: &Job,
    ) -> Result<()> {
        let config = layout::volume_config(volume);
        let locks = format!("{}/", layout::locks(volume));
        let mut entries = self.driver().list(folder);
        let mut removed = 0;
        while let Some(entry) = entries.try_next().await? {
            if entry.key == config || entry.key.starts_with(&locks) {
                continue;
            }
            if removed % BETWEEN_CHECKS == 0 {
                lock.check().await?;
            }
            removed += 1;
            self.driver().delete(&entry.key).await?;
            job.progress.advance(entry.meta.size);
        }
        Ok(())
    }
}
