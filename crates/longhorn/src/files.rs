//! The operations behind Longhorn's faces: files known by their path, each held by a catalog.
//!
//! A manager has the images of its disk; a data source has the work files. A path that belongs to
//! none of their files is rejected before the disk is accessed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backup_jobs::Jobs;
use types::{DiskUuid, ImageId, ImageUuid};

use super::FileInfo;
use super::memory::Memory;
use super::reach::Transfers;
use crate::Registration;
use crate::error::{Error, Result};
use catalog::{Catalog, Lifecycle, Reading, SendGuard, Status};
use store::{Disk, Place};
use volume::Volumes;

/// The files of one process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Files {
    disk: Arc<Disk>,
    catalogs: Vec<Catalog>,
    /// The volumes that images must be kept for; a data source has none.
    volumes: Option<Volumes>,
    transfers: Transfers,
    memory: Memory,
    /// Backups of images, and restoring them.
    backups: Option<Jobs>,
}

impl Files {
    /// The files of `catalogs`, at least one, all of one disk.
    pub fn new(disk: Arc<Disk>, catalogs: Vec<Catalog>, volumes: Option<Volumes>) -> Self {
        Self {
            disk,
            catalogs,
            volumes,
            transfers: Transfers::default(),
            memory: Memory::default(),
            backups: None,
        }
    }

    /// With backups of the images.
    #[must_use]
    pub fn with_backups(mut self, backups: Jobs) -> Self {
        self.backups = Some(backups);
        self
    }

    /// Backups of the images.
    pub fn backups(&self) -> Result<&Jobs> {
        self.backups.as_ref().ok_or(Error::InvalidField {
            field: "backup-url",
            why: "this process has no backups".to_owned(),
        })
    }

    /// With other ways to the peers than this machine's own.
    #[must_use]
    pub fn with_transfers(mut self, transfers: Transfers) -> Self {
        self.transfers = transfers;
        self
    }

    /// What was asked for in this process.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// How peers are reached.
    pub fn transfers(&self) -> &Transfers {
        &self.transfers
    }

    /// The disk that they are on.
    pub fn disk(&self) -> &Arc<Disk> {
        &self.disk
    }

    /// The images that the disk serves.
    pub fn images(&self) -> &Catalog {
        &self.catalogs[0]
    }

    /// The path of an image's file, as those know it who named the disk.
    pub fn image_path(&self, id: &ImageId) -> PathBuf {
        self.path_in(self.images(), id)
    }

    fn path_in(&self, catalog: &Catalog, id: &ImageId) -> PathBuf {
        self.disk.layout().shown(&catalog.file_path(id))
    }

    /// What there is to say of an image.
    pub fn info(&self, catalog: &Catalog, status: &Status) -> FileInfo {
        let asked = self.memory.of(status);
        let disk_uuid = asked.as_ref().and_then(|asked| asked.disk_uuid.as_ref());
        let info = FileInfo::new(status, disk_uuid, &self.path_in(catalog, &status.id));
        match &status.state {
            // The control plane expects a sum of each image that is ready.
            Lifecycle::Ready(image) if asked.is_some() && image.checksum().is_err() => {
                info.still_summed()
            }
            _ => info,
        }
    }

    fn catalog(&self, place: Place) -> Option<&Catalog> {
        self.catalogs
            .iter()
            .find(|catalog| catalog.place() == place)
    }

    /// Every file that was asked for since this process started, by its path.
    pub fn list(&self) -> BTreeMap<String, FileInfo> {
        let mut files = BTreeMap::new();
        for catalog in &self.catalogs {
            let asked = |status: &Status| self.memory.of(status).is_some();
            for status in catalog.list().into_iter().filter(asked) {
                let info = self.info(catalog, &status);
                files.insert(info.file_path.clone(), info);
            }
        }
        files
    }

    fn find(&self, path: &Path) -> Result<(&Catalog, ImageId)> {
        let find = || {
            // What is no path of a file of ours is one that nobody knows.
            let (place, name) = self.disk.layout().parse_path(path).ok()?;
            let catalog = self.catalog(place)?;
            Some((catalog, catalog.by_name(&name)?))
        };
        find().ok_or_else(|| Error::FileNotFound(path.to_owned()))
    }

    /// The file at `path`.
    pub fn get(&self, path: &Path) -> Result<FileInfo> {
        let (catalog, id) = self.find(path)?;
        let status = catalog.get(&id.name, Some(&id.uuid));
        match status {
            Ok(status) => Ok(self.info(catalog, &status)),
            Err(catalog::Error::ImageNotFound(_)) => Err(Error::FileNotFound(path.to_owned())),
            Err(error) => Err(error.into()),
        }
    }

    /// Which image the file at `path` is that of, and who holds it; whether it is there or not.
    pub fn resolve(&self, path: &Path, uuid: &ImageUuid) -> Result<(&Catalog, ImageId)> {
        let (place, id) = self.disk.layout().parse_file_path(path, uuid)?;
        let catalog = self.catalog(place).ok_or_else(|| Error::InvalidField {
            field: "file-path",
            why: format!("another process is creating {}", path.display()),
        })?;
        Ok((catalog, id))
    }

    /// Refuses a request that is meant for another disk.
    pub fn check_disk(&self, asked: Option<&DiskUuid>) -> Result<()> {
        match asked {
            Some(asked) if asked != self.disk.uuid() => Err(Error::InvalidField {
                field: "disk-uuid",
                why: format!("this is disk {}, not {asked}", self.disk.uuid()),
            }),
            _ => Ok(()),
        }
    }

    /// Takes a file up.
    pub fn register(&self, path: &Path, registration: Registration) -> Result<FileInfo> {
        self.check_disk(registration.disk_uuid.as_ref())?;
        let (catalog, id) = self.resolve(path, &registration.id.uuid)?;
        let taken = || Error::FileExists(self.path_in(catalog, &id));
        let status = self.memory.register(catalog, registration, taken)?;
        Ok(self.info(catalog, &status))
    }

    /// Deletes the file at `path`; fine when nobody knows it.
    pub async fn delete(&self, path: &Path) -> Result<()> {
        match self.find(path) {
            Ok((catalog, id)) => self.delete_from(catalog, &id).await,
            Err(_) => Ok(()),
        }
    }

    /// Deletes an image, known or forgotten, with everything of it.
    pub async fn delete_image(&self, id: &ImageId) -> Result<()> {
        let catalog = self.images();
        self.delete_from(catalog, id).await?;
        Ok(catalog.delete_unknown(id, self.in_use(id)).await?)
    }

    async fn delete_from(&self, catalog: &Catalog, id: &ImageId) -> Result<()> {
        Ok(catalog.delete(id, self.in_use(id)).await?)
    }

    /// Tells whether a volume needs the image.
    fn in_use(&self, id: &ImageId) -> impl Fn() -> catalog::Result<()> + Send + Sync + 'static {
        let (volumes, id) = (self.volumes.clone(), id.clone());
        move || {
            let Some(volumes) = &volumes else {
                return Ok(());
            };
            match volumes.user_of(&id)? {
                Some(volume) => Err(catalog::Error::ImageInUse {
                    id: id.clone(),
                    volume,
                }),
                None => Ok(()),
            }
        }
    }

    /// Forgets the file at `path` and leaves it where it is; fine when nobody knows it.
    pub async fn forget(&self, path: &Path) {
        if let Ok((catalog, id)) = self.find(path) {
            catalog.forget(&id).await;
        }
    }

    /// Opens the ready file at `path` for reading.
    pub async fn read(&self, path: &Path) -> Result<Reading> {
        let (catalog, id) = self.find(path)?;
        Ok(catalog.read(&id).await?)
    }

    /// Begins to send the ready file at `path`.
    pub async fn begin_send(&self, path: &Path) -> Result<SendGuard> {
        let (catalog, id) = self.find(path)?;
        Ok(catalog.begin_send(&id).await?)
    }
}
