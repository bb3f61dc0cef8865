//! A backup as the source of an image: restored block by block into the store's own way in, in order, each
//! block checked before a byte of it is written.
//!
//! What is killed meanwhile leaves no image; the same request begins again. Holes of the backup stay holes, or
//! are the bytes of its base image, which must be on this disk.

use std::fs::File;
use std::pin::Pin;
use std::sync::Arc;

use backup::{Address, BaseImage, Item, Piece, RestoreOptions};
use catalog::source::{Job, Origin, OriginKind, Taken};
use catalog::{Catalog, FilesGuard, Lifecycle};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, Stream, StreamExt as _};
use image::Format;
use store::{Facts, Ingest, IoContext as _, Provenance, Received};
use tokio::runtime::Handle;
use types::{Checksum, ImageName, Sha512, crash_point};

use crate::error::{Error, Result};
use crate::jobs::Jobs;
use crate::targets::{Asked, Target};

/// Bytes read at a time of a base image.
const BUFFER: u64 = 1 << 20;

/// A backup that an image is made of.
#[derive(Debug)]
pub struct Restore {
    jobs: Jobs,
    target: Target,
    address: Address,
}

/// The name of the image that a backup is restored as when nobody gives one: whoever restores the same
/// backup arrives at the same.
pub fn derived_name(address: &Address) -> ImageName {
    let hash = catalog::short_hash(&address.to_string());
    let name = match &address.item {
        Some(Item::Backup { backup, .. }) => backup.as_str(),
        Some(Item::Volume(name) | Item::BackingImage(name)) => name.as_str(),
        None => "store",
    };
    let safe: String = name.chars().take(60).collect();
    ImageName::new(&format!("backup-{safe}-{hash}")).expect("the names of a store are safe as well")
}

impl Restore {
    /// The backup `item` of a target, as far as it can be told without asking the store.
    pub fn new(jobs: &Jobs, asked: &Asked, item: Item) -> Result<Self> {
        let target = jobs.targets().choose(asked)?;
        let address = Address {
            store: target.address.clone(),
            item: Some(item),
        };
        Ok(Self {
            jobs: jobs.clone(),
            target,
            address,
        })
    }

    /// Where the backup is.
    pub fn address(&self) -> &Address {
        &self.address
    }

    async fn bring(&self, job: &Job) -> Result<(Received, Facts)> {
        let item = self
            .address
            .item
            .as_ref()
            .ok_or_else(|| Error::InvalidField {
                field: "address",
                why: format!("{} is a store; name the backup in it", self.address),
            })?;
        let store = self.jobs.open(&self.target).await?;
        let silent = backup::Job {
            cancel: job.cancel.clone(),
            ..backup::Job::silent()
        };
        let options = RestoreOptions::default();
        let plan = store.plan_restore(item, &options, &silent).await?;
        let mut facts = Facts {
            verified: true,
            ..job.facts()
        };
        if !matches!(item, Item::BackingImage(_)) {
            // Whatever a guest wrote to its first bytes, a volume is a raw disk.
            if job.format.is_some_and(|format| format != Format::Raw) {
                return Err(Error::InvalidField {
                    field: "format",
                    why: "a restored volume is raw".to_owned(),
                });
            }
            facts.format = Some(Format::Raw);
        }
        let stated = plan.checksum().map(str::to_owned);
        let mut job = job.clone();
        job.checksum_later &= stated.is_none();
        let base = match plan.base() {
            Some(base) => Some(Base::find(self.jobs.catalog(), base).await?),
            None => None,
        };
        let mut filling = Filling {
            size: plan.size(),
            mapped: plan.mapped(),
            base,
            job: job.clone(),
            pieces: Box::pin(plan.pieces()),
        };
        let handle = Handle::current();
        let fill = move || filling.fill(&handle);
        let received = tokio::task::spawn_blocking(fill).await??;
        let sum = received.manifest.checksum;
        if let Some(stated) = stated
            && (sum.is_none() || stated.parse::<Sha512>().ok() != sum)
        {
            return Err(Error::Checksum {
                expected: stated,
                actual: sum.map(String::from).unwrap_or_default(),
            });
        }
        self.jobs.room().counters.restored(received.manifest.size);
        Ok((received, facts))
    }
}

impl Origin for Restore {
    fn provenance(&self) -> Provenance {
        Provenance::Backup {
            address: self.address.to_string(),
        }
    }

    fn kind(&self) -> OriginKind {
        OriginKind::Store {
            again: self.target.is_configured(),
        }
    }

    fn take_in<'a>(&'a self, job: &'a Job) -> BoxFuture<'a, catalog::Result<Taken>> {
        async move { Ok(Taken::Bytes(Box::new(self.bring(job).await?))) }.boxed()
    }
}

/// The raw form of the base image of a backup, open.
#[derive(Debug)]
struct Base {
    file: File,
    size: u64,
    /// Keeps it in its place.
    _files: FilesGuard,
}

impl Base {
    /// The ready image with the checksum that the backup states, whatever it is called here.
    async fn find(catalog: &Catalog, base: &BaseImage) -> Result<Self> {
        let missing = || Error::BaseMissing {
            name: base.name.clone(),
            checksum: base.checksum.clone(),
        };
        let sum: Sha512 = base.checksum.parse().map_err(|_| missing())?;
        let has = |status: &catalog::Status| match &status.state {
            Lifecycle::Ready(image) => image.has_checksum(Checksum::Sha512(sum)),
            _ => false,
        };
        let found = catalog.list().into_iter().find(has).ok_or_else(missing)?;
        let (image, files) = catalog.ready(&found.id.name, Some(&found.id.uuid)).await?;
        let path = catalog.raw_form(&image, &files).await?;
        let opened = move || {
            let file = File::open(&path).context("open", &path)?;
            let size = file.metadata().context("inspect", &path)?.len();
            Ok::<_, store::Error>((file, size))
        };
        let (file, size) = catalog::blocking(opened).await?;
        Ok(Self {
            file,
            size,
            _files: files,
        })
    }
}

/// The way of the pieces into the store. Blocking.
struct Filling {
    size: u64,
    mapped: u64,
    base: Option<Base>,
    job: Job,
    pieces: Pin<Box<dyn Stream<Item = backup::Result<Piece>> + Send>>,
}

impl Filling {
    fn fill(&mut self, handle: &Handle) -> Result<Received> {
        let job = self.job.clone();
        let mut ingest = job.begin()?;
        let base = self.base.as_ref().map_or(0, |base| base.size);
        ingest.expect((self.mapped + base).min(self.size))?;
        while let Some(piece) = handle.block_on(self.next())? {
            handle.block_on(job.turn.take(&job.cancel))?;
            let (offset, bytes) = match piece {
                Piece::Bytes { offset, bytes } => (offset, bytes),
                Piece::Lost { range, why } => {
                    let lost = format!("bytes {} to {}", range.start, range.end);
                    return Err(Error::Lost { lost, why });
                }
            };
            self.gap(&mut ingest, offset)?;
            // The last block of a volume may reach behind its end.
            let left = usize::try_from(self.size - ingest.size()).unwrap_or(usize::MAX);
            ingest.write(&bytes[..bytes.len().min(left)])?;
            crash_point!("backup.restore.piece");
            job.report.progress(ingest.size(), self.size);
        }
        self.gap(&mut ingest, self.size)?;
        Ok(ingest.finish()?)
    }

    async fn next(&mut self) -> Result<Option<Piece>> {
        tokio::select! {
            piece = self.pieces.next() => Ok(piece.transpose()?),
            () = self.job.cancel.cancelled() => Err(Error::Cancelled("the image is not wanted")),
        }
    }

    /// Fills up to `until`: with a hole, or with what the base image has there.
    fn gap(&self, ingest: &mut Ingest, until: u64) -> Result<()> {
        if until < ingest.size() || until > self.size {
            return Err(Error::Lost {
                lost: format!("the bytes at {}", ingest.size()),
                why: format!("the store gave those at {until} next"),
            });
        }
        if let Some(base) = &self.base {
            base.copy(ingest, until.min(base.size))?;
        }
        Ok(ingest.hole(until - ingest.size())?)
    }
}

impl Base {
    /// Takes in its bytes from where the ingest is up to `until`, its holes as holes.
    fn copy(&self, ingest: &mut Ingest, until: u64) -> Result<()> {
        let path = "the base image".as_ref();
        let mut buffer = Vec::new();
        while ingest.size() < until {
            let data = probe::next_data(&self.file, until, ingest.size()).context("read", path)?;
            let Some(data) = data else { return Ok(()) };
            ingest.hole(data.start.max(ingest.size()) - ingest.size())?;
            while ingest.size() < data.end.min(until) {
                let now = (data.end.min(until) - ingest.size()).min(BUFFER);
                buffer.resize(usize::try_from(now).unwrap_or_default(), 0);
                let read = std::os::unix::fs::FileExt::read_exact_at;
                read(&self.file, &mut buffer, ingest.size()).context("read", path)?;
                ingest.write(&buffer)?;
            }
        }
        Ok(())
    }
}

/// For the type of the shared pointer in requests.
impl From<Restore> for catalog::source::Source {
    fn from(restore: Restore) -> Self {
        Self::Origin(Arc::new(restore))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_backup_gives_one_name_and_another_another() {
        let name = |address: &str| derived_name(&address.parse().unwrap()).to_string();
        let first = name("s3://bucket@region/path/?backup=monday&volume=pvc-1");
        assert!(first.starts_with("backup-monday-"), "{first}");
        assert_eq!(
            first,
            name("s3://bucket@region/path/?volume=pvc-1&backup=monday")
        );
        for other in [
            "s3://bucket@region/path/?backup=monday&volume=pvc-2",
            "s3://other@region/path/?backup=monday&volume=pvc-1",
            "s3://bucket@region/path/?backingImage=monday",
        ] {
            assert_ne!(first, name(other), "{other}");
        }
        let long = "b".repeat(200);
        let long = name(&format!("s3://bucket@region/path/?backup={long}&volume=v1"));
        assert!(long.len() < 80, "{long}");
    }
}
