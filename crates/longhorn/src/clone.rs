//! A clone of another image of the same disk: as it is, encrypted, or decrypted.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use image::Format;
use probe::Disk as _;
use tracing::info;
use types::{ImageId, Sha512};

use super::luks::{self, Luks, Mapping};
use catalog::source::{Job, Origin, OriginKind, Taken};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use store::IoContext;

use crate::error::{Error, Result};
use chunks::Manifest;
use store::layout::{ImagePaths, Place};
use store::sidecar::{Sidecar, SidecarFile, Stamp};
use store::{Ingest, ManifestFile as _, Provenance, Received};

/// Bytes read at a time.
const BUFFER: usize = 1 << 20;

/// What is done to the bytes on the way.
#[derive(Debug, Clone)]
pub enum Encryption {
    Keep,
    /// They are put into a new LUKS2 container.
    Encrypt(Luks),
    /// They are taken out of the LUKS container that they are.
    Decrypt(Luks),
}

/// An image to clone.
#[derive(Debug, Clone)]
pub struct CloneOf {
    /// The image, in the place of the disk where ready images are.
    pub image: ImageId,
    /// What happens to its bytes.
    pub encryption: Encryption,
}

impl Origin for CloneOf {
    fn provenance(&self) -> Provenance {
        Provenance::Image {
            id: self.image.clone(),
            encryption: match self.encryption {
                Encryption::Keep => store::Encryption::Kept,
                Encryption::Encrypt(_) => store::Encryption::Encrypted,
                Encryption::Decrypt(_) => store::Encryption::Decrypted,
            },
        }
    }

    fn kind(&self) -> OriginKind {
        OriginKind::Local
    }

    fn take_in<'a>(&'a self, job: &'a Job) -> BoxFuture<'a, catalog::Result<Taken>> {
        let mut facts = job.facts();
        let (job, clone) = (job.clone(), self.clone());
        let take_in = move || {
            let layout = job.store.disk().layout();
            let clones = layout.image(Place::Images, &clone.image);
            let open = || Original::open(&clone.image, &clones);
            match &clone.encryption {
                Encryption::Keep => keep(&clone.image, &clones, &job),
                Encryption::Encrypt(luks) => {
                    Ok((encrypt(&open()?, luks, &job)?, Some(Format::Raw)))
                }
                Encryption::Decrypt(luks) => {
                    Ok((decrypt(&open()?, luks, &job)?, Some(Format::Raw)))
                }
            }
        };
        async move {
            let (received, format) = catalog::blocking(take_in).await?;
            facts.format = format.or(facts.format);
            facts.verified = true;
            Ok(Taken::Bytes(Box::new((received, facts))))
        }
        .boxed()
    }
}

/// The image that is cloned, open.
struct Original<'a> {
    id: &'a ImageId,
    paths: &'a ImagePaths,
    file: File,
    sidecar: Sidecar,
}

impl<'a> Original<'a> {
    fn open(id: &'a ImageId, paths: &'a ImagePaths) -> Result<Self> {
        let missing = |why: &str| Error::InvalidField {
            field: "backing-image",
            why: format!("there is no ready image {id} on this disk: {why}"),
        };
        let sidecar = match Sidecar::read(&paths.sidecar)? {
            SidecarFile::Good(sidecar) => *sidecar,
            SidecarFile::Missing => return Err(missing("it has no backing.cfg")),
            SidecarFile::Damaged(why) => return Err(missing(&why)),
        };
        let file = match File::open(&paths.backing) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(missing("its file is gone"));
            }
            opened => opened.context("open", &paths.backing)?,
        };
        Ok(Self {
            id,
            paths,
            file,
            sidecar,
        })
    }

    /// Whether nobody has touched the file since it was sealed.
    fn is_untouched(&self) -> Result<bool> {
        let stamp = Stamp::of(&self.paths.backing)?;
        Ok(stamp.is_some() && stamp == self.sidecar.seal.as_ref().map(|seal| seal.stamp.clone()))
    }

    fn format(&self) -> Result<Format> {
        match self.sidecar.seal.as_ref().map(|seal| seal.format.as_str()) {
            Some("qcow2") => Ok(Format::Qcow2),
            Some(_) => Ok(Format::Raw),
            None => Ok(Format::detect(&self.file)?),
        }
    }

    /// The checksum that its bytes have, if it is known.
    fn checksum(&self) -> Option<Sha512> {
        self.sidecar.current_checksum.parse().ok()
    }

    fn require(&self, checksum: Option<Sha512>) -> Result<()> {
        match self.checksum() {
            Some(expected) if Some(expected) != checksum => Err(store::Error::Damaged {
                id: self.id.clone(),
                what: format!(
                    "its SHA-512 is {}",
                    checksum.map_or_else(|| "not known".to_owned(), String::from)
                ),
            }
            .into()),
            _ => Ok(()),
        }
    }

    /// What a guest sees of it.
    fn disk(&self) -> Result<image::Image> {
        let file = self
            .file
            .try_clone()
            .context("keep open", &self.paths.backing)?;
        Ok(image::Image::open(file, self.format()?)?)
    }
}

/// The same bytes: shared where the disk can, else copied and checked.
fn keep(id: &ImageId, paths: &ImagePaths, job: &Job) -> Result<(Received, Option<Format>)> {
    let original = Original::open(id, paths)?;
    let format = Some(original.format()?);
    if original.is_untouched()? {
        let manifest = Manifest::read(&paths.chunks, original.sidecar.size)?.filter(|manifest| {
            manifest.checksum.is_some() && manifest.checksum == original.checksum()
        });
        let made = job.store.make_file(&job.id, job.ends())?;
        if let Some(manifest) = manifest
            && image::extents::reflink(&original.file, made.file())?
            // Looked at once more: what was shared is what was sealed.
            && original.is_untouched()?
        {
            info!(image = %job.id, of = %id, "cloned by sharing extents");
            job.report.progress(manifest.size, manifest.size);
            return Ok((made.vouched(manifest)?, format));
        }
    }
    let disk = probe::FileDisk::new(
        original
            .file
            .try_clone()
            .context("keep open", &paths.backing)?,
    )
    .context("inspect", &paths.backing)?;
    let received = ingest(&disk, &paths.backing, job)?;
    original.require(received.manifest.checksum)?;
    Ok((received, format))
}

/// Takes in all that a disk holds, its holes as holes.
fn ingest(disk: &dyn probe::Disk, path: &Path, job: &Job) -> Result<Received> {
    let mut ingest = job.store.begin(&job.id, job.ends())?;
    let size = disk.size();
    let mut buffer = vec![0; BUFFER];
    while let Some(data) = disk.next_data(ingest.size()).context("read", path)? {
        ingest.hole(data.start.saturating_sub(ingest.size()))?;
        while ingest.size() < data.end {
            let bytes = piece(&mut buffer, data.end - ingest.size());
            disk.read_exact_at(bytes, ingest.size())
                .context("read", path)?;
            ingest.write(bytes)?;
            job.report.progress(ingest.size(), size);
        }
    }
    ingest.hole(size - ingest.size())?;
    Ok(Ingest::finish(ingest)?)
}

fn piece(buffer: &mut [u8], left: u64) -> &mut [u8] {
    let length = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
    &mut buffer[..length]
}

/// A LUKS2 container with what a guest sees of the image. Every byte is written: a hole of the
/// container would read as noise, and would tell where there is nothing.
fn encrypt(original: &Original<'_>, luks: &Luks, job: &Job) -> Result<Received> {
    luks::require()?;
    let disk = original.disk()?;
    let size = disk.size();
    job.store.disk().require_space(size + luks::HEADER)?;
    let made = job.store.make_file(&job.id, job.ends())?;
    made.file()
        .set_len(size + luks::HEADER)
        .context("set the length of", made.path())?;
    luks.format(made.file())?;
    let mapping = Mapping::open(luks, made.path(), &job.id, false)?;
    let target = File::options()
        .write(true)
        .open(mapping.device())
        .context("open", mapping.device())?;
    let mut buffer = vec![0; BUFFER];
    let mut at = 0;
    while at < size {
        not_cancelled(job)?;
        let bytes = piece(&mut buffer, size - at);
        disk.read_exact_at(bytes, at)
            .context("read", &original.paths.backing)?;
        target
            .write_all_at(bytes, at)
            .context("write", mapping.device())?;
        at += bytes.len() as u64;
        job.report.progress(at, size);
    }
    target.sync_all().context("sync", mapping.device())?;
    drop(target);
    mapping.close()?;
    Ok(made.hashed()?)
}

/// What is in the LUKS container that the image is.
fn decrypt(original: &Original<'_>, luks: &Luks, job: &Job) -> Result<Received> {
    luks::require()?;
    if original.format()? != Format::Raw {
        return Err(Error::InvalidField {
            field: "backing-image",
            why: format!("{} is not a LUKS container: it is qcow2", original.id),
        });
    }
    let mapping = Mapping::open(luks, &original.paths.backing, &job.id, true)?;
    let device = File::open(mapping.device()).context("open", mapping.device())?;
    let disk = probe::FileDisk::new(device).context("inspect", mapping.device())?;
    let received = ingest(&disk, mapping.device(), job)?;
    drop(disk);
    mapping.close()?;
    Ok(received)
}

fn not_cancelled(job: &Job) -> Result<()> {
    if job.cancel.is_cancelled() {
        return Err(Error::Cancelled("the image is not wanted"));
    }
    Ok(())
}
