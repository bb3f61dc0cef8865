//! Sealed images: how received bytes become one, and how it is read, checked, quarantined and
//! deleted.
//!
//! Blocking. Knows nothing of sources, tasks or the wire.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use image::Format;
use jiff::Timestamp;
use tracing::warn;
use types::Cancel;
use types::{Checksum, ImageId, Sha512, crash_point, report};

use super::assembly::Assembly;
use super::disk::Disk;
use super::durable;
use super::hash::hash_file;
use super::ingest::Ingest;
use super::layout::{ImagePaths, Place, is_work_file};
use super::reading::Reading;
use super::received::Received;
use super::sealed::{Facts, SealedImage, unreadable};
use super::sidecar::{self, Seal, Sidecar, Stamp};
use super::work_lock::WorkLocks;
use crate::content::Content;
use crate::error::{Error, IoContext, Result};
use crate::manifest::{ManifestFile as _, Mismatch};
use chunks::Manifest;

/// The images of one place of one disk. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ImageStore {
    disk: Arc<Disk>,
    place: Place,
    /// Of the work files that this process works on.
    locks: Arc<WorkLocks>,
}

impl ImageStore {
    /// The images in this place of `disk`.
    pub fn new(disk: Arc<Disk>, place: Place) -> Self {
        let locks = Arc::default();
        Self { disk, place, locks }
    }

    /// Where on the disk they are.
    pub fn place(&self) -> Place {
        self.place
    }

    /// The disk they are on.
    pub fn disk(&self) -> &Arc<Disk> {
        &self.disk
    }

    /// The paths of an image.
    pub fn paths(&self, id: &ImageId) -> ImagePaths {
        self.disk.layout().image(self.place, id)
    }

    /// Opens the way in for an image's bytes that come in order.
    pub fn begin(&self, id: &ImageId, cancel: Cancel) -> Result<Ingest> {
        let paths = self.enter(id)?;
        Ok(Ingest::create(paths.backing_tmp, cancel)?.on(self.disk.clone())) // 2
    }

    /// Opens the way in for an image of `size` bytes that come in any order. With the manifest that
    /// they are known to have, what an earlier attempt left is taken over.
    pub fn assemble(
        &self,
        id: &ImageId,
        size: u64,
        known: Option<Manifest>,
        cancel: Cancel,
    ) -> Result<Assembly> {
        let paths = self.enter(id)?;
        let Some(known) = known else {
            return Assembly::open(&paths, size, None, cancel); // 2
        };
        // What an earlier attempt took of the disk is not asked for again.
        let taken =
            fs::symlink_metadata(&paths.part).map_or(0, |meta| meta.blocks() * types::SECTOR);
        let reservation = self
            .disk
            .reserve(known.data_bytes().saturating_sub(taken))?;
        let assembly = Assembly::open(&paths, size, Some(known), cancel)?; // 2
        if !assembly.is_preallocated() {
            assembly.keep(reservation);
        }
        Ok(assembly)
    }

    /// Step 1: makes the image's directory; for a work file it is said that this process makes it.
    pub(super) fn enter(&self, id: &ImageId) -> Result<ImagePaths> {
        self.disk.check()?;
        let paths = self.paths(id);
        if self.place == Place::Images {
            // Somebody may have removed it, with all that was in it.
            durable::create_dir(&self.disk.layout().images())?;
        }
        durable::create_dir(&paths.dir)?; // 1
        crash_point!("store.begin.directory");
        if self.place == Place::Work {
            self.take_lock(id, &paths)?;
        }
        Ok(paths)
    }

    pub(super) fn locks(&self) -> &WorkLocks {
        &self.locks
    }

    pub(super) fn take_lock(&self, id: &ImageId, paths: &ImagePaths) -> Result<()> {
        let name = id.to_string();
        if !is_work_file(&name) {
            let why = format!("{name} would be mistaken for a file beside another work file");
            return Err(Error::InvalidField { field: "uuid", why });
        }
        let lock = self.disk.layout().work_lock(&name);
        self.locks.take(&lock, &paths.backing)
    }

    /// Lets others work on a work file, as when it is handed over. Its bytes stay.
    pub fn release(&self, id: &ImageId) -> Result<()> {
        let lock = self.disk.layout().work_lock(&id.to_string());
        self.locks.give_back(&lock)
    }

    /// Makes received bytes an image, or removes them and says why not.
    pub fn seal(&self, id: &ImageId, mut received: Received, facts: &Facts) -> Result<SealedImage> {
        let paths = self.paths(id);
        let came = received.pad(facts.format)?; // 4
        let facts = &facts.of_what_came(came);
        let manifest = &received.manifest;
        if let Some(expected) = facts
            .expected
            .filter(|sum| !facts.has(manifest.checksum, *sum))
        {
            let Some(actual) = came.or(manifest.checksum) else {
                return Err(Error::Unsummed(id.clone()));
            };
            let (expected, actual) = (Box::new(expected), Box::new(actual));
            return Err(Error::Checksum { expected, actual }); // 4
        }
        let examined = Examined::of(&received.file, &received.path, facts.format)?; // 4
        received.file.sync_all().context("sync", &received.path)?; // 5
        crash_point!("store.seal.synced");
        manifest.write(&paths.chunks)?; // 6
        // What only the request knows (the source, a declared format) must outlive a crash from the
        // moment at which the bytes do.
        let mut image = self.described(id, &received.path, manifest.checksum, examined, facts)?;
        image.seal.checksum_unproven = received.unproven;
        image.sidecar.seal = Some(image.seal.clone());
        image.sidecar.write(&paths.sidecar)?; // 7
        crash_point!("store.seal.described");
        durable::rename(&received.path, &paths.backing)?; // 8
        received.armed = false;
        self.forget_spares(&paths);
        crash_point!("store.seal.renamed");
        durable::sync_dir(&paths.dir)?; // 9
        crash_point!("store.seal.named");
        let image = self.stamped(&image)?;
        image.sidecar.write(&paths.sidecar)?; // 10
        crash_point!("store.seal.recorded");
        for leftover in [&paths.part, &paths.part_chunks, &paths.upload_record] {
            durable::remove_file(leftover)?;
        }
        self.disk.note_success();
        Ok(image)
    }

    /// All that is known of an image whose bytes are at `path`, with a stamp of them there.
    pub(super) fn described(
        &self,
        id: &ImageId,
        path: &Path,
        checksum: Option<Sha512>,
        examined: Examined,
        facts: &Facts,
    ) -> Result<SealedImage> {
        let stamp = Stamp::of(path)?.ok_or_else(|| gone(id))?;
        let seal = Seal {
            version: sidecar::version(checksum.is_some()),
            format: examined.format.to_string(),
            provenance: facts.provenance.clone(),
            manifest_digest: facts.manifest_digest.clone(),
            unverified: !facts.verified && facts.expected.is_none(),
            checksum_unproven: false,
            asked: facts.asked,
            content: examined.content,
            created_at: (facts.created_at.clone()).unwrap_or_else(|| Timestamp::now().to_string()),
            extents: examined.extents,
            source_checksums: facts
                .source_checksums
                .iter()
                .map(Checksum::to_string)
                .collect(),
            stamp,
        };
        // Longhorn compares this one with the bytes as they are stored.
        let expected = facts
            .expected
            .filter(|expected| Some(*expected) == checksum);
        let sidecar = Sidecar {
            name: self.paths(id).backing.to_string_lossy().into_owned(),
            uuid: id.uuid.clone(),
            size: seal.stamp.size,
            virtual_size: examined.virtual_size,
            real_size: examined.real_size,
            expected_checksum: expected.map(String::from).unwrap_or_default(),
            current_checksum: checksum.map(String::from).unwrap_or_default(),
            modification_time: seal.stamp.modification_time(),
            seal: Some(seal.clone()),
        };
        Ok(SealedImage {
            id: id.clone(),
            sidecar,
            seal,
        })
    }

    /// Writes down the checksum that was asked for of an image that has it.
    pub fn note_expected(
        &self,
        mut image: SealedImage,
        expected: Option<Sha512>,
    ) -> Result<SealedImage> {
        let text = expected.map(String::from).unwrap_or_default();
        if !text.is_empty() && image.sidecar.expected_checksum != text {
            image.sidecar.expected_checksum = text;
            image.sidecar.write(&self.paths(&image.id).sidecar)?;
        }
        Ok(image)
    }

    /// Writes down that not only drivers asked for the image.
    pub fn note_kept(&self, mut image: SealedImage) -> Result<SealedImage> {
        image.seal.asked.for_volumes = false;
        image.sidecar.seal = Some(image.seal.clone());
        image.sidecar.write(&self.paths(&image.id).sidecar)?;
        Ok(image)
    }

    /// Whether the file still is as it was sealed, by stat(2) alone.
    pub fn is_untouched(&self, image: &SealedImage) -> Result<bool> {
        let stamp = Stamp::of(&self.paths(&image.id).backing)?;
        Ok(stamp.as_ref() == Some(&image.seal.stamp))
    }

    /// Reads the whole image and compares it with its manifest, or with its checksum where the
    /// manifest is missing. The same bytes under a new stamp are sealed again.
    pub fn verify(&self, image: &SealedImage, cancel: &Cancel) -> Result<SealedImage> {
        let paths = self.paths(&image.id);
        let file = match File::open(&paths.backing) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(gone(&image.id));
            }
            opened => opened.context("open", &paths.backing)?,
        };
        let checksum = image.summed()?;
        let damaged = |what| Error::Damaged {
            id: image.id.clone(),
            what,
        };
        let manifest = Manifest::read(&paths.chunks, image.sidecar.size)?
            .filter(|manifest| manifest.checksum == checksum);
        if let Some(manifest) = manifest {
            let verified = manifest.verify(&file, &paths.backing, Reading::silent(cancel));
            match verified.map_err(|error| unreadable(image, error))? {
                None => {}
                Some(Mismatch::Size(size)) => {
                    let expected = image.sidecar.size;
                    return Err(damaged(format!(
                        "it has {size} bytes instead of {expected}"
                    )));
                }
                Some(Mismatch::Chunk(offset)) => {
                    return Err(damaged(format!(
                        "the MiB at offset {offset} has other bytes"
                    )));
                }
            }
        } else {
            let told = checksum.ok_or_else(|| {
                damaged(
                    "its chunk manifest is missing, and its SHA-512 was not computed yet"
                        .to_owned(),
                )
            })?;
            let hashed = hash_file(&file, &paths.backing, Reading::silent(cancel));
            let manifest = hashed.map_err(|error| unreadable(image, error))?;
            if let Some(sum) = manifest.checksum.filter(|sum| *sum != told) {
                return Err(damaged(format!("its SHA-512 is {sum}")));
            }
            manifest.write(&paths.chunks)?;
        }
        self.restamp(image)
    }

    /// Seals known-good bytes again after their file was touched. Where the new seal cannot be written
    /// the image is as good as before, and the next start reads its bytes once more.
    fn restamp(&self, image: &SealedImage) -> Result<SealedImage> {
        let fresh = self.stamped(image)?;
        if fresh.seal != image.seal {
            let paths = self.paths(&image.id);
            // They are of the file as it was before, and of no use.
            self.forget_spares(&paths);
            if let Err(error) = fresh.sidecar.write(&paths.sidecar) {
                warn!(image = %image.id, error = %report(&error), "its new seal cannot be written");
            }
        }
        Ok(fresh)
    }

    /// The image with a stamp of its file as it is now.
    pub(super) fn stamped(&self, image: &SealedImage) -> Result<SealedImage> {
        let mut fresh = image.clone();
        let stamp = Stamp::of(&self.paths(&image.id).backing)?;
        fresh.seal.stamp = stamp.ok_or_else(|| gone(&image.id))?;
        fresh.sidecar.modification_time = fresh.seal.stamp.modification_time();
        fresh.sidecar.seal = Some(fresh.seal.clone());
        Ok(fresh)
    }
}

fn gone(id: &ImageId) -> Error {
    Error::Damaged {
        id: id.clone(),
        what: "its file is gone".to_owned(),
    }
}

/// What looking into an image's file tells.
#[derive(Debug)]
pub(super) struct Examined {
    format: Format,
    virtual_size: u64,
    real_size: u64,
    content: Content,
    extents: u64,
}

impl Examined {
    /// Step 4: refuses what is no disk image, or one that reaches outside itself.
    pub(super) fn of(file: &File, path: &Path, declared: Option<Format>) -> Result<Self> {
        let meta = file.metadata().context("inspect", path)?;
        if meta.len() == 0 {
            return Err(Error::NotAnImage("it is empty".to_owned()));
        }
        let format = match declared {
            Some(format) => format,
            None => Format::detect(file)?,
        };
        let opened = file.try_clone().context("keep open", path)?;
        let disk = image::Image::open(opened, format)?;
        let virtual_size = probe::Disk::size(&disk);
        if format == Format::Raw && !virtual_size.is_multiple_of(types::SECTOR) {
            return Err(Error::NotAnImage(format!(
                "a raw image is a whole number of 512-byte sectors, and this has {virtual_size} \
                 bytes; pad it with `truncate -s %512`"
            )));
        }
        let content = probe::probe(&disk).context("probe", path)?.into();
        // A file system that does not tell is one without reflink: the cost of cloning is no matter.
        let extents = u64::from(image::extents::count(file)?.unwrap_or(1));
        let real_size = fs::metadata(path).context("inspect", path)?.blocks() * types::SECTOR;
        Ok(Self {
            format,
            virtual_size,
            real_size,
            content,
            extents,
        })
    }
}
