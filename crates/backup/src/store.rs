//! A store that is open, and how its files are read: the base of everything that is done with it.

use std::sync::{Arc, Mutex, PoisonError};

use crate::config::backing_image::{self, BackingImageHead};
use crate::config::backup::{self, BackupHead, Expected};
use crate::config::volume::{self, VolumeConfig};
use crate::driver::{self, Driver};
use crate::info::VolumeInfo;
use crate::layout;
use crate::spool::{Map, MapWriter};
use crate::{BackupInfo, Credentials, Error, Name, Options, Result, StoreAddress};

/// A store of backups. Cheap to clone. Opening it asks nothing: the first call finds out whether it answers.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    address: StoreAddress,
    driver: Arc<dyn Driver>,
    options: Options,
}

impl Store {
    /// The store at an address.
    pub fn open(
        address: &StoreAddress,
        credentials: &Credentials,
        options: &Options,
    ) -> Result<Self> {
        let inner = Inner {
            address: address.clone(),
            driver: driver::open(address, credentials, options)?,
            options: options.clone(),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// The store behind a driver of a test.
    #[cfg(test)]
    pub(crate) fn over(address: StoreAddress, driver: Arc<dyn Driver>, options: Options) -> Self {
        let inner = Inner {
            address,
            driver,
            options,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Where it is; without any secret.
    pub fn address(&self) -> &StoreAddress {
        &self.inner.address
    }

    /// A volume as its `volume.cfg` says it. [`Error::NoObject`] if there is none.
    pub async fn volume(&self, volume: &Name) -> Result<VolumeInfo> {
        self.volume_config(volume).await.map(VolumeInfo::from)
    }

    /// A backup, complete or not. [`Error::NoObject`] if there is none.
    pub async fn backup(&self, volume: &Name, backup: &Name) -> Result<BackupInfo> {
        let config = self.volume_config(volume).await.ok();
        let size = config.as_ref().map(|config| config.size);
        let head = self.backup_head(volume, backup, size).await?;
        Ok(BackupInfo::new(head, config.as_ref()))
    }

    pub(crate) fn driver(&self) -> &Arc<dyn Driver> {
        &self.inner.driver
    }

    pub(crate) fn options(&self) -> &Options {
        &self.inner.options
    }

    /// Blocks that are worked on at the same time.
    pub(crate) fn threads(&self) -> usize {
        self.inner.options.threads.max(1)
    }

    pub(crate) async fn volume_config(&self, volume: &Name) -> Result<VolumeConfig> {
        let key = layout::volume_config(volume);
        let object = self.driver().get(&key, volume::LENGTH_MAX).await?;
        VolumeConfig::parse(&object.bytes, &key, volume)
    }

    /// A backup's cfg without its blocks, all of which are checked all the same.
    pub(crate) async fn backup_head(
        &self,
        volume: &Name,
        backup: &Name,
        volume_size: Option<u64>,
    ) -> Result<BackupHead> {
        let expected = expected(volume, backup, volume_size);
        let reading = self.driver().open(&expected.key).await?;
        backup::read(reading, expected, |_, _| Ok(())).await
    }

    /// A backup's cfg with its blocks.
    pub(crate) async fn backup_map(
        &self,
        volume: &Name,
        backup: &Name,
        volume_size: Option<u64>,
    ) -> Result<(BackupHead, Map)> {
        let expected = expected(volume, backup, volume_size);
        let reading = self.driver().open(&expected.key).await?;
        let pending = PendingMap::new(self)?;
        let head = backup::read(reading, expected, pending.pusher()).await?;
        Ok((head, pending.finish()?))
    }

    /// A backing image's cfg with its blocks.
    pub(crate) async fn backing_image_map(&self, image: &Name) -> Result<(BackingImageHead, Map)> {
        let key = layout::backing_image_config(image);
        let reading = self.driver().open(&key).await?;
        let pending = PendingMap::new(self)?;
        let head = backing_image::read(reading, key, image.clone(), pending.pusher()).await?;
        Ok((head, pending.finish()?))
    }
}

/// What the cfg of a backup is read against.
pub(crate) fn expected(volume: &Name, backup: &Name, volume_size: Option<u64>) -> Expected {
    Expected {
        key: layout::backup_config(volume, backup),
        volume: volume.clone(),
        backup: backup.clone(),
        volume_size,
    }
}

/// A map that another thread writes while it reads a cfg.
struct PendingMap(Arc<Mutex<Option<MapWriter>>>);

impl PendingMap {
    fn new(store: &Store) -> Result<Self> {
        let writer = MapWriter::new(&store.options().spool)?;
        Ok(Self(Arc::new(Mutex::new(Some(writer)))))
    }

    fn pusher(&self) -> impl FnMut(u64, crate::BlockChecksum) -> Result<()> + Send + use<> {
        let shared = Arc::clone(&self.0);
        move |offset, checksum| {
            let mut writer = shared.lock().unwrap_or_else(PoisonError::into_inner);
            writer.as_mut().ok_or(Error::Task)?.push(offset, checksum)
        }
    }

    fn finish(self) -> Result<Map> {
        let mut writer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        writer.take().ok_or(Error::Task)?.finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{Begun, Contents, Item, Job, NewBackingImage, NewBackup, RestoreOptions, Sample};
    use crate::{BlockChecksum, Restore, Source};

    fn is_send(_: impl Send) {}

    /// Never run: that it compiles is the proof. Servers spawn these calls.
    fn every_call_can_be_spawned(store: &Store, name: &Name, job: &Job) {
        let unknown = || -> Option<(NewBackup, NewBackingImage, Arc<dyn Source>)> { None };
        if let Some((new, image, source)) = unknown() {
            is_send(store.begin_backup(new, job));
            is_send(store.backup_backing_image(image, source, job));
        }
        let made = || -> Option<(Begun, Contents, Restore)> { None };
        if let Some((begun, contents, restore)) = made() {
            is_send(begun.upload(contents));
            is_send(restore.pieces());
        }
        is_send(store.volumes());
        is_send(store.volume(name));
        is_send(store.backups(name));
        is_send(store.backup(name, name));
        is_send(store.backing_images());
        is_send(store.locks(name));
        is_send(store.plan_restore(&Item::Volume(name.clone()), &RestoreOptions::default(), job));
        is_send(store.verify(name, Sample::All, job));
        is_send(store.repair_block(name, &BlockChecksum([0; 32]), bytes::Bytes::new()));
        is_send(store.delete_backup(name, name, job));
        is_send(store.delete_volume(name, job));
        is_send(store.delete_backing_image(name, job));
        is_send(store.collect(name, true, job));
        is_send(store.check());
    }

    #[test]
    fn calls_are_tasks() {
        let _ = every_call_can_be_spawned;
    }
}
