//! Makes a volume. It reserves the name first, so that nobody else makes the volume while its image is prepared.
//!
//! A volume becomes visible in one step:
//!
//! 1. make the directory `.creating-<name>`
//! 2. make its file: name a spare clone of the raw form, or clone or copy that; set the length, sync
//! 3. write and sync its record, sync the directory
//! 4. rename the directory to `<name>`, sync the parent
//! 5. only now: answer
//!
//! A crash before 4 leaves a directory whose name marks it as void.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use jiff::Timestamp;
use tracing::{info, warn};
use types::{ByteSize, VolumeName, crash_point};

use super::contents::{can_grow, content_of, image_ref, set_size};
use super::partition::Partition;
use super::record::{FromVolume, MadeBy, Record, Replica, VERSION};
use super::request::size_of;
use super::{Busy, NewVolume, Origin, Volume, Volumes};
use store::IoContext;
use store::layout::{Layout, VolumePaths};
use store::{SealedImage, durable, spare_maker};

use crate::error::{Error, Result};

/// An image, and the file to clone for it.
#[derive(Debug, Clone, Copy)]
pub struct Template<'a> {
    pub image: &'a SealedImage,
    pub raw: &'a Path,
}

/// What a volume is made from.
#[derive(Debug, Clone, Copy)]
enum Material<'a> {
    Blank,
    Image(Template<'a>),
    Volume(&'a VolumeName),
}

/// Whether a volume that is asked for is there.
#[derive(Debug)]
pub enum Reserved {
    Exists(Box<Volume>),
    /// It is to be made.
    New(Box<Vacancy>),
}

/// A name that no volume has, and that nobody else takes until this is dropped.
#[derive(Debug)]
pub struct Vacancy {
    volumes: Volumes,
    new: NewVolume,
    _busy: Busy,
}

impl Volumes {
    /// The volume that `new` asks for, or its name for who makes it. The same request again gives the same
    /// volume; an error when the name has another.
    pub fn reserve(&self, new: NewVolume) -> Result<Reserved> {
        let busy = self.lock(&new.name)?;
        Ok(match self.find(&new)? {
            Some(volume) => Reserved::Exists(Box::new(volume)),
            None => Reserved::New(Box::new(Vacancy {
                volumes: self.clone(),
                new,
                _busy: busy,
            })),
        })
    }

    fn create(&self, new: &NewVolume, material: Material<'_>) -> Result<Volume> {
        self.disk.check()?;
        let content = match material {
            Material::Blank => None,
            Material::Image(Template { image, .. }) => Some(ByteSize(image.sidecar().virtual_size)),
            Material::Volume(volume) => Some(self.get(volume)?.record.size),
        };
        let size = size_of(new, content)?;
        self.remove_remains(&new.name)?;
        let promised = self.promise_to(&new.name, size)?;
        let creating = self.disk.layout().volume_creating(&new.name);
        durable::remove_dir(&creating.dir)?;
        match self.create_in(&creating, size, new, material) {
            Ok(record) => {
                promised.keep();
                info!(volume = %new.name, %size, by = record.made_by.as_str(), "created");
                if let Some(degraded) = record.degraded() {
                    warn!(volume = %new.name, degraded, "the volume is degraded");
                }
                spare_maker::start(&self.disk);
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
        material: Material<'_>,
    ) -> Result<Record> {
        // Somebody may have removed it.
        durable::create_dir(&self.disk.layout().volumes())?;
        durable::create_work_dir(&creating.dir)?; // 1
        crash_point!("volume.create.directory");
        let empty = || durable::create_file(&creating.data);
        let (file, made_by, image, source) = match material {
            Material::Blank => (empty()?, MadeBy::Blank, None, None),
            Material::Image(Template { image, raw }) => {
                let snapshot = image.seal().provenance.snapshot();
                let source = snapshot.map(|snapshot| FromVolume::Snapshot {
                    volume: snapshot.volume.clone(),
                });
                let (file, made_by) = self.clone_raw(raw, &creating.data)?;
                (file, made_by, Some(image), source)
            }
            Material::Volume(volume) => {
                let file = empty()?;
                let made_by = self.clone_live(volume, &file)?;
                let content = content_of(&file, &creating.data)?;
                let volume = volume.clone();
                let source = FromVolume::Clone { volume, content };
                (file, made_by, None, Some(source))
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
            image: image.map(image_ref).transpose()?,
            source,
            partition,
            number_of_replicas: new.number_of_replicas,
            stale_replica_timeout: new.stale_replica_timeout,
            made_with: None,
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

    /// Gives `file` the bytes of `source`, which lies at `path` and which nobody writes to.
    pub(super) fn copy(&self, source: &File, path: &Path, file: &File) -> Result<MadeBy> {
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

impl Vacancy {
    /// What was asked for.
    pub const fn asked(&self) -> &NewVolume {
        &self.new
    }

    /// Makes the volume.
    ///
    /// # Errors
    /// `InvalidField` where the origin is an image and there is no `template` of it, or the other way round:
    /// a volume is never blank because its image is missing.
    pub fn make(self, template: Option<Template<'_>>) -> Result<Volume> {
        let material = match (&self.new.origin, template) {
            (Origin::Blank, None) => Material::Blank,
            (Origin::Image(name, _), Some(template)) if template.image.id().name == *name => {
                Material::Image(template)
            }
            (Origin::Volume(volume), None) => Material::Volume(volume),
            (origin, _) => {
                let why = format!("a volume cannot be made of {origin}; name a ready image");
                return Err(Error::InvalidField {
                    field: "origin",
                    why,
                });
            }
        };
        self.volumes.create(&self.new, material)
    }
}
