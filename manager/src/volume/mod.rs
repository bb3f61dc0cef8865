//! Volumes: made as clones of images, grown, published, deleted.
//!
//! Memory holds only the running operations of volumes, and the members of snapshot groups in
//! progress: every answer is read from the disk.
//!
//! A volume becomes visible in one step:
//!
//! 1. make the directory `.creating-<name>`
//! 2. make its file: clone or copy the raw form, set the length, sync
//! 3. write and sync its record, sync the directory
//! 4. rename the directory to `<name>`, sync the parent
//! 5. only now: answer
//!
//! A crash before 4 leaves a directory whose name marks it as void.

mod change;
mod contents;
mod cut;
mod moment;
pub mod owner;
pub mod partition;
pub mod promise;
mod publish;
pub mod record;
mod remove;
mod request;

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use tracing::{info, warn};
use types::{ByteSize, ImageId, NodeId, VolumeName, crash_point, report};

use self::contents::{can_grow, content_of, image_ref, set_size};
pub use self::moment::Moment;
use self::moment::Moments;
use self::partition::Partition;
use self::promise::OVERCOMMIT;
use self::record::{FromVolume, MadeBy, Publication, Record, Replica, VERSION};
use self::remove::is_remains;
pub use self::request::NewVolume;
use self::request::{difference, size_of};
use crate::error::{Error, IoContext, Result};
use crate::source::Snapshot;
use crate::store::layout::{EntryName, Layout, VolumePaths};
use crate::store::recovery::remove_leftover;
use crate::store::{Disk, SealedImage, durable};

/// The volumes of one disk. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Volumes {
    disk: Arc<Disk>,
    node_id: NodeId,
    /// Volumes that a request works on: a second one is told to come again.
    busy: Arc<Mutex<HashSet<VolumeName>>>,
    /// Bytes of each volume: what they were promised.
    sizes: Arc<Mutex<HashMap<VolumeName, u64>>>,
    /// Percent of the disk that may be promised; 0: no bound.
    overcommit: u32,
    /// Volumes that were unpublished while their disk could not be written to.
    unpublished: Arc<Mutex<HashSet<VolumeName>>>,
    /// What snapshots of groups are being made of.
    moments: Moments,
}

/// A volume as it is now.
#[derive(Debug, Clone)]
pub struct Volume {
    /// What its record says.
    pub record: Record,
    /// The nodes that may use it.
    pub published: Vec<Publication>,
    /// Bytes of the disk that its file takes, shared extents included.
    pub real_size: u64,
}

/// What a new volume is made from.
#[derive(Debug, Clone, Copy)]
pub enum Origin<'a> {
    /// Nothing: it is blank.
    Blank,
    /// An image, and the file to clone for it.
    Image(&'a SealedImage, &'a Path),
    /// Another volume, as it is now.
    Volume(&'a VolumeName),
}

impl Origin<'_> {
    fn image(&self) -> Option<&SealedImage> {
        match self {
            Self::Image(image, _) => Some(image),
            Self::Blank | Self::Volume(_) => None,
        }
    }

    fn volume(&self) -> Option<&VolumeName> {
        match self {
            Self::Volume(volume) => Some(volume),
            Self::Blank | Self::Image(..) => None,
        }
    }
}

/// Says that a volume is worked on, until it is dropped.
#[derive(Debug)]
struct Busy {
    name: VolumeName,
    all: Arc<Mutex<HashSet<VolumeName>>>,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.all
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.name);
    }
}

impl Volumes {
    /// Removes what interrupted requests left, and opens the volumes of `disk`.
    pub fn load(disk: Arc<Disk>, node_id: NodeId) -> Result<Self> {
        let dir = disk.layout().volumes();
        for entry in durable::list(&dir)? {
            match EntryName::of(&entry.file_name().to_string_lossy()) {
                EntryName::Leftover => remove_leftover(&entry.path()),
                EntryName::Item(_) if entry.path().is_dir() => {
                    if is_remains(&entry.path())? {
                        remove_leftover(&entry.path());
                    } else {
                        durable::remove_work_files(&entry.path())?;
                    }
                }
                _ => {}
            }
        }
        let volumes = Self {
            disk,
            node_id,
            busy: Arc::default(),
            sizes: Arc::default(),
            overcommit: OVERCOMMIT,
            unpublished: Arc::default(),
            moments: Arc::default(),
        };
        for name in volumes.names()? {
            // What cannot be read is said when somebody asks for it.
            if let Ok(volume) = volumes.get(&name) {
                volumes.sizes().insert(name, volume.record.size.bytes());
            }
        }
        Ok(volumes)
    }

    /// The node whose disk this is.
    pub fn node_id(&self) -> &NodeId {
        &self.node_id
    }

    fn lock(&self, name: &VolumeName) -> Result<Busy> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        if !busy.insert(name.clone()) {
            return Err(Error::VolumeBusy(name.clone()));
        }
        Ok(Busy {
            name: name.clone(),
            all: self.busy.clone(),
        })
    }

    /// One volume.
    pub fn get(&self, name: &VolumeName) -> Result<Volume> {
        let paths = self.disk.layout().volume(name);
        let real_size = match fs::symlink_metadata(&paths.data) {
            Ok(meta) => meta.blocks() * types::SECTOR,
            // What has no bytes was deleted.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                // Only of the disk that is served: an empty mount point knows of no volume.
                self.disk.check()?;
                return Err(Error::VolumeNotFound(name.to_string()));
            }
            Err(error) => return Err(error).context("inspect", &paths.data),
        };
        let mut record = Record::read(&paths.record, name)?;
        // A disk may have moved to another node, or its node may have got another name.
        for replica in &mut record.replicas {
            if replica.disk_uuid == *self.disk.uuid() {
                replica.node_id = self.node_id.clone();
            }
        }
        let mut published = publish::read(&paths.published)?;
        published.extend_from_slice(&record.published_before);
        if self.unpublished().contains(name) {
            published.clear();
            record.published_before.clear();
        }
        Ok(Volume {
            record,
            published,
            real_size,
        })
    }

    /// Up to `max` volumes whose names come after `after`, in the order of their names, and whether
    /// there are more. A volume whose record cannot be read is logged and left out.
    pub fn list(&self, after: &str, max: usize) -> Result<(Vec<Volume>, bool)> {
        let mut names = self.names()?;
        names.retain(|name| name.as_str() > after);
        names.sort_unstable();
        let more = names.len() > max;
        names.truncate(max);
        let volumes = names
            .iter()
            .filter_map(|name| match self.get(name) {
                Ok(volume) => Some(volume),
                Err(Error::VolumeNotFound(_)) => None,
                Err(error) => {
                    warn!(volume = %name, error = %report(&error), "cannot be read");
                    None
                }
            })
            .collect();
        Ok((volumes, more))
    }

    fn names(&self) -> Result<Vec<VolumeName>> {
        let mut names = Vec::new();
        for entry in durable::list(&self.disk.layout().volumes())? {
            let name = entry.file_name();
            if let Some(name) = name.to_str().and_then(|name| VolumeName::new(name).ok()) {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// The image of each volume that has one. A volume whose record cannot be read counts for none.
    pub fn images(&self) -> Result<Vec<ImageId>> {
        let volumes = self.list("", usize::MAX)?.0.into_iter();
        let images = volumes.filter_map(|volume| Some(volume.record.image?.id));
        Ok(images.collect())
    }

    /// A volume that was made from the image, if there is one.
    pub fn user_of(&self, image: &ImageId) -> Result<Option<VolumeName>> {
        for name in self.names()? {
            match self.get(&name) {
                Ok(volume) if volume.record.image.as_ref().is_some_and(|i| i.id == *image) => {
                    return Ok(Some(name));
                }
                Ok(_) | Err(Error::VolumeNotFound(_) | Error::DamagedRecord { .. }) => {}
                // What cannot be read may be a user.
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// The volume of that name if it is what `new` asks for; an error when it is something else.
    pub fn find(
        &self,
        new: &NewVolume,
        image: Option<&ImageId>,
        cloned: Option<&VolumeName>,
    ) -> Result<Option<Volume>> {
        match self.get(&new.name) {
            Ok(volume) => match difference(&volume.record, new, image, cloned) {
                None => Ok(Some(volume)),
                Some(difference) => Err(Error::VolumeExists {
                    name: new.name.clone(),
                    difference,
                }),
            },
            Err(Error::VolumeNotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a volume: a clone of an image's raw form or of another volume, or blank. The same request
    /// again gives the same volume.
    pub fn create(&self, new: &NewVolume, origin: Origin<'_>) -> Result<Volume> {
        let _busy = self.lock(&new.name)?;
        let image = origin.image().map(|image| &image.id);
        if let Some(volume) = self.find(new, image, origin.volume())? {
            return Ok(volume);
        }
        self.disk.check()?;
        let content = match origin {
            Origin::Blank => None,
            Origin::Image(image, _) => Some(ByteSize(image.sidecar.virtual_size)),
            Origin::Volume(volume) => Some(self.get(volume)?.record.size),
        };
        let size = size_of(new, content)?;
        self.remove_remains(&new.name)?;
        let promised = self.promise_to(&new.name, size)?;
        let creating = self.disk.layout().volume_creating(&new.name);
        durable::remove_dir(&creating.dir)?;
        match self.create_in(&creating, size, new, origin) {
            Ok(record) => {
                promised.keep();
                info!(volume = %new.name, %size, by = record.made_by.as_str(), "created");
                if let Some(degraded) = record.degraded() {
                    warn!(volume = %new.name, degraded, "the volume is degraded");
                }
                self.get(&new.name)
            }
            Err(error) => {
                self.disk.note(&error);
                durable::remove_dir(&creating.dir)?;
                Err(error)
            }
        }
    }

    fn create_in(
        &self,
        creating: &VolumePaths,
        size: ByteSize,
        new: &NewVolume,
        origin: Origin<'_>,
    ) -> Result<Record> {
        // Somebody may have removed it.
        durable::create_dir(&self.disk.layout().volumes())?;
        durable::create_work_dir(&creating.dir)?; // 1
        crash_point!("volume.create.directory");
        let file = durable::create_file(&creating.data)?;
        let (made_by, source) = match origin {
            Origin::Blank => (MadeBy::Blank, None),
            Origin::Image(image, raw) => {
                let source = Snapshot::parse(&image.seal.source)
                    .map(|Snapshot { volume, .. }| FromVolume::Snapshot { volume });
                (self.clone_raw(raw, &file)?, source)
            }
            Origin::Volume(volume) => {
                let made_by = self.cut(volume, &file)?;
                let content = content_of(&file, &creating.data)?;
                let volume = volume.clone();
                (made_by, Some(FromVolume::Clone { volume, content }))
            }
        };
        set_size(&file, size, &creating.data)?;
        if new.partition.is_none() {
            can_grow(&file, size, &creating.data)?;
        }
        let partition = new
            .partition
            .map(|number| Partition::find(&file, &creating.data, number))
            .transpose()?;
        file.sync_all().context("sync", &creating.data)?; // 2
        crash_point!("volume.create.data");
        let record = Record {
            version: VERSION,
            name: new.name.clone(),
            size,
            image: origin.image().map(image_ref).transpose()?,
            source,
            partition,
            number_of_replicas: new.number_of_replicas,
            stale_replica_timeout: new.stale_replica_timeout,
            fs_type: new.fs_type.clone(),
            owner: Some(new.owner.clone()),
            parameters: new.parameters.clone(),
            replicas: vec![Replica {
                node_id: self.node_id.clone(),
                disk_uuid: self.disk.uuid().clone(),
                path: Layout::volume_data_relative(&new.name),
            }],
            published_before: Vec::new(),
            made_by,
            created_at: Timestamp::now().to_string(),
        };
        durable::write_new(&creating.record, &record.to_bytes())?; // 3
        durable::sync_dir(&creating.dir)?;
        crash_point!("volume.create.record");
        let dir = self.disk.layout().volume(&new.name).dir;
        durable::rename(&creating.dir, &dir)?; // 4
        crash_point!("volume.create.renamed");
        durable::sync_parent(&dir)?;
        Ok(record)
    }

    /// Gives `file` the image's content: shared where the disk can, else copied extent by extent.
    fn clone_raw(&self, raw: &Path, file: &File) -> Result<MadeBy> {
        let source = File::open(raw).context("open", raw)?;
        self.copy(&source, raw, file)
    }

    /// Gives `file` the bytes of `source`, which lies at `path` and which nobody writes to.
    fn copy(&self, source: &File, path: &Path, file: &File) -> Result<MadeBy> {
        if self.disk.reflink() && image::extents::reflink(source, file)? {
            return Ok(MadeBy::Reflink);
        }
        let needed = source.metadata().context("inspect", path)?.blocks() * types::SECTOR;
        self.disk.require_space(needed)?;
        info!(
            file_system = self.disk.file_system(),
            needed,
            "the disk cannot share extents: the image is copied; use XFS or btrfs to avoid the \
             copy"
        );
        image::extents::copy_sparse(source, file, &mut |_| true)?;
        Ok(MadeBy::SparseCopy)
    }
}

#[cfg(test)]
mod tests;
