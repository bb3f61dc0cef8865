//! A disk image inside a container image: from a registry, an OCI image layout or an archive.
//!
//! Layers are unpacked as they arrive, from the top down, and the only file in `/base_image/` goes
//! directly into the store: no layer is stored on the way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fetch::{BlockingReader, Credentials, Platform, Reference};
use image::layer::{self, Directory, Input, Limits, Sink};
use image::oci::Package;
use rustix::fs::OFlags;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::{Job, Local, Report, Sources};
use crate::blocking::blocking;
use crate::error::{Error, Result};
use store::{Facts, Ingest, Received};

/// What is pulled, and as whom.
pub(super) struct Pull<'a> {
    pub(super) reference: &'a Reference,
    /// Which image of an index.
    pub(super) platform: &'a Platform,
    pub(super) credentials: &'a Credentials,
}

impl Sources {
    pub(super) async fn take_registry(
        &self,
        pull: Pull<'_>,
        job: &Job,
    ) -> Result<(Received, Facts)> {
        let Pull {
            reference,
            platform,
            credentials,
        } = pull;
        let resolving = self.registries.resolve(reference, platform, credentials);
        let resolved = tokio::select! {
            resolved = resolving => resolved?,
            () = job.cancel.cancelled() => return Err(Error::Cancelled("the image is not wanted")),
        };
        job.turn.take(&job.cancel).await?;
        let digest = resolved.manifest_digest.to_string();
        job.report.pinned(&digest);
        job.report.progress(0, resolved.packed_size());
        let facts = Facts {
            manifest_digest: digest,
            verified: true,
            ..job.facts()
        };
        let (registries, handle, job) = (self.registries.clone(), Handle::current(), job.clone());
        let take_in = move || {
            let counted = Counted::new(&job, resolved.packed_size());
            let layers = resolved.layers.iter().rev().map(|layer| {
                // Opened only when the search comes to it: it may be settled before.
                let blob = registries.blob(&resolved, layer, job.pass);
                let ended = job.cancel.clone().cancelled_owned();
                let reader = BlockingReader::spawn_until(&handle, blob.into_stream(), ended);
                Input {
                    name: layer.digest.to_string(),
                    packing: layer.packing,
                    digest: Some(layer.digest.clone()),
                    diff_id: layer.diff_id.clone(),
                    bare: layer.bare,
                    reader: Box::new(counted.reader(reader)),
                }
            });
            search(layers, &job)
        };
        let received = blocking(take_in).await?;
        Ok((received, facts))
    }

    pub(super) async fn take_layout(&self, local: &Local, job: &Job) -> Result<(Received, Facts)> {
        let directory = self.open_import(&local.path, OFlags::DIRECTORY)?;
        let (path, job) = (local.path.clone(), job.clone());
        let open = move || Ok(Package::layout(directory, &path)?);
        from_package(local, job, open).await
    }

    pub(super) async fn take_archive(&self, local: &Local, job: &Job) -> Result<(Received, Facts)> {
        let file = self.open_import_file(&local.path)?;
        let (path, job) = (local.path.clone(), job.clone());
        let open = move || Ok(Package::archive(file, &path)?);
        from_package(local, job, open).await
    }
}

/// Takes in an image of this machine; `open` opens what it is packed in.
async fn from_package(
    local: &Local,
    job: Job,
    open: impl FnOnce() -> Result<Package> + Send + 'static,
) -> Result<(Received, Facts)> {
    let (facts, local) = (job.facts(), local.clone());
    let take_in = move || {
        let package = open()?;
        let image = package.select(local.reference.as_deref(), &local.platform)?;
        let digest = image.digest.to_string();
        job.report.pinned(&digest);
        let total = image.layers.iter().filter_map(|layer| layer.size).sum();
        let counted = Counted::new(&job, total);
        let layers = package.inputs(&image)?;
        let layers = layers.into_iter().map(|input| Input {
            reader: Box::new(counted.reader(input.reader)),
            ..input
        });
        let received = search(layers, &job)?;
        Ok::<_, Error>((
            received,
            Facts {
                manifest_digest: digest,
                verified: true,
                ..facts
            },
        ))
    };
    blocking(take_in).await
}

/// Finds the disk image in `layers` and takes it in.
fn search(layers: impl Iterator<Item = Input>, job: &Job) -> Result<Received> {
    let mut sink = IngestSink { job, ingest: None };
    let limits = Limits::default();
    layer::find(layers, limits, &mut sink)?;
    let ingest = sink
        .ingest
        .take()
        .expect("a search that found a file has handed it over");
    Ok(ingest.finish()?)
}

/// Where the search puts the candidate it found: a work file in the store.
struct IngestSink<'a> {
    job: &'a Job,
    ingest: Option<Ingest>,
}

impl Sink for IngestSink<'_> {
    type Error = Error;

    fn begin(&mut self, _: Directory, _: &str, size: Option<u64>) -> Result<()> {
        self.ingest = None;
        // The holes of a raw image take no room, so only what is surely too much is refused here.
        if self.job.format == Some(image::Format::Qcow2) {
            self.job.store.disk().require_space(size.unwrap_or(0))?;
        }
        self.ingest = Some(self.job.begin()?);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.ingest
            .as_mut()
            .map_or(Ok(()), |ingest| Ok(ingest.write(bytes)?))
    }

    fn hole(&mut self, length: u64) -> Result<()> {
        self.ingest
            .as_mut()
            .map_or(Ok(()), |ingest| Ok(ingest.hole(length)?))
    }

    fn end(&mut self) -> Result<()> {
        Ok(())
    }

    fn discard(&mut self) -> Result<()> {
        self.ingest = None;
        Ok(())
    }
}

/// Tells the progress of several readers as one.
#[derive(Debug, Clone)]
struct Counted {
    report: Arc<dyn Report>,
    processed: Arc<AtomicU64>,
    total: u64,
    cancel: CancellationToken,
}

impl Counted {
    fn new(job: &Job, total: u64) -> Self {
        Self {
            report: job.report.clone(),
            processed: Arc::default(),
            total,
            cancel: job.cancel.clone(),
        }
    }

    fn reader<R>(&self, inner: R) -> CountedReader<R> {
        CountedReader {
            inner,
            counted: self.clone(),
        }
    }
}

struct CountedReader<R> {
    inner: R,
    counted: Counted,
}

impl<R: std::io::Read> std::io::Read for CountedReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.counted.cancel.is_cancelled() {
            return Err(std::io::Error::other("the image is not wanted"));
        }
        let read = self.inner.read(buffer)?;
        let now = read as u64;
        let processed = self.counted.processed.fetch_add(now, Ordering::Relaxed) + now;
        self.counted.report.progress(processed, self.counted.total);
        Ok(read)
    }
}
