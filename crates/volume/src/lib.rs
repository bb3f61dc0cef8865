//! Volumes: made as clones of images, grown, published, deleted.
//!
//! Memory holds only the running operations of volumes, and the members of snapshot groups in
//! progress: every answer is read from the disk.

mod change;
mod contents;
mod create;
mod error;
mod group;
mod in_use;
mod live_clone;
pub mod owner;
pub mod partition;
pub mod promise;
mod publish;
mod published;
pub mod record;
mod remove;
mod replica;
mod request;
mod spare;
mod users;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::warn;
use types::{ImageId, NodeId, VolumeName, report};

pub use self::create::{Reserved, Template, Vacancy};
pub use self::error::{Error, Result};
pub use self::group::GroupClones;
use self::group::Groups;
use self::promise::OVERCOMMIT;
use self::record::{Publication, Record};
use self::remove::is_remains;
use self::request::difference;
pub use self::request::{NewVolume, Origin};
use store::IoContext;
use store::layout::EntryName;
use store::recovery::remove_leftover;
use store::{Disk, durable};
pub use users::Use;

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
    groups: Groups,
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
    /// Whether it is one replica of a replicated volume.
    pub is_replica: bool,
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
            groups: Arc::default(),
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
            Err(error) => return Ok(Err(error).context("inspect", &paths.data)?),
        };
        let mut record = Record::read(&paths.record, name)?;
        // A disk may have moved to another node, or its node may have got another name.
        for replica in &mut record.replicas {
            if replica.disk_uuid == *self.disk.uuid() {
                replica.node_id = self.node_id.clone();
            }
        }
        let mut published = published::read(&paths.published)?;
        published.extend_from_slice(&record.published_before);
        if self.unpublished().contains(name) {
            published.clear();
            record.published_before.clear();
        }
        let is_replica = paths.metadata.try_exists();
        let is_replica = is_replica.context("look for", &paths.metadata)?;
        Ok(Volume {
            record,
            published,
            real_size,
            is_replica,
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
                Ok(_)
                | Err(
                    Error::VolumeNotFound(_) | Error::Store(store::Error::DamagedRecord { .. }),
                ) => {}
                // What cannot be read may be a user.
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// The volume of that name if it is what `new` asks for; an error when it is something else.
    pub fn find(&self, new: &NewVolume) -> Result<Option<Volume>> {
        match self.get(&new.name) {
            Ok(volume) => match difference(&volume.record, new) {
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
}

#[cfg(test)]
mod tests;
