//! A look at a source: what it would give, from the first bytes of its disk image.
//!
//! The same code reads layers and packed files as when an image is made, under tighter bounds; nothing
//! reaches the disk.

use std::io::{Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use chunks::IMAGE_SIZE_MAX;
use fetch::BlockingReader;
use image::beginning::{BEGINNING, Beginning};
use image::layer::{self, Directory, Input, Limits, Sink};
use image::oci::Package;
use image::packed::{self, Packing, Unpacked};
use rustix::fs::OFlags;
use store::IoContext;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::{Download, Local, Source, Sources};
use crate::blocking::blocking;
use crate::error::{Error, Result};

/// Bytes that are read of a source, packed: layers over the one with the disk image are read whole.
const PACKED_MAX: u64 = 64 << 20;
/// Bytes that may come out of them.
const UNPACKED_MAX: u64 = 8 << 30;
/// Bytes that are read at a time.
const BUFFER: usize = 64 << 10;

/// What a look finds.
#[derive(Debug, Default)]
pub(crate) struct Looked {
    /// The source for people: in full, without secrets.
    pub(crate) shown: String,
    pub(crate) manifest_digest: String,
    pub(crate) platform: String,
    /// Bytes of the disk image; 0: not known.
    pub(crate) size: u64,
    /// Bytes that travel; 0: not known.
    pub(crate) transfer_size: u64,
    /// `None`: the disk image was not found in what may be read.
    pub(crate) beginning: Option<Beginning>,
    pub(crate) notes: Vec<String>,
}

/// The first bytes of a disk image, and how many it has.
#[derive(Debug, Default)]
struct Head {
    bytes: Vec<u8>,
    size: Option<u64>,
}

impl Head {
    fn is_full(&self) -> bool {
        self.bytes.len() >= BEGINNING
    }

    /// Takes no more than is of use.
    fn add(&mut self, bytes: &[u8]) {
        let room = BEGINNING - self.bytes.len();
        self.bytes
            .extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

impl Looked {
    fn take(&mut self, head: Option<Head>) -> Result<()> {
        let Some(Head { bytes, size }) = head else {
            self.notes.push(format!(
                "the disk image does not begin in the first {} MiB of the layers, which are all that \
                 is read for a look",
                PACKED_MAX >> 20
            ));
            return Ok(());
        };
        self.size = size.unwrap_or(0);
        let beginning = Beginning::of(&bytes, size)?;
        if beginning.virtual_size == 0 {
            self.notes
                .push("how large the disk is shows when all of it has come".to_owned());
        }
        self.beginning = Some(beginning);
        Ok(())
    }
}

impl Sources {
    /// Looks at a source.
    pub(crate) async fn look(&self, source: &Source) -> Result<Looked> {
        match source {
            Source::Registry { .. } => self.look_at_registry(source).await,
            Source::Url(download) => self.look_at_url(download).await,
            Source::File(path) => {
                let file = self.open_import_file(path)?;
                let path = path.clone();
                blocking(move || {
                    let size = file.metadata().context("inspect", &path)?.len();
                    let mut bytes = Vec::new();
                    let head = file.take(BEGINNING as u64).read_to_end(&mut bytes);
                    head.context("read", &path)?;
                    let mut looked = Looked {
                        shown: path.to_string_lossy().into_owned(),
                        transfer_size: size,
                        ..Looked::default()
                    };
                    let size = Some(size);
                    looked.take(Some(Head { bytes, size }))?;
                    Ok::<_, Error>(looked)
                })
                .await
            }
            Source::OciLayout(local) => {
                let directory = self.open_import(&local.path, OFlags::DIRECTORY)?;
                let path = local.path.clone();
                look_at_package(local, move || Ok(Package::layout(directory, &path)?)).await
            }
            Source::Archive(local) => {
                let file = self.open_import_file(&local.path)?;
                let path = local.path.clone();
                look_at_package(local, move || Ok(Package::archive(file, &path)?)).await
            }
            _ => Err(Error::InvalidField {
                field: "source",
                why: "it cannot be looked at without making the image".to_owned(),
            }),
        }
    }

    async fn look_at_registry(&self, source: &Source) -> Result<Looked> {
        let Source::Registry {
            reference,
            platform,
            credentials,
        } = source
        else {
            unreachable!("asked for registries alone");
        };
        let credentials = credentials.as_ref().unwrap_or(&self.credentials);
        let registries = fetch::registry::Client::new(self.looks.clone());
        let resolved = registries.resolve(reference, platform, credentials).await?;
        let mut looked = Looked {
            shown: reference.to_string(),
            manifest_digest: resolved.manifest_digest.to_string(),
            platform: resolved
                .platform
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            transfer_size: resolved.packed_size(),
            ..Looked::default()
        };
        let (ended, handle) = (CancellationToken::new(), Handle::current());
        let _ends = ended.clone().drop_guard();
        let search = move || {
            let budget = Budget::default();
            let layers = resolved.layers.iter().rev().map(|layer| {
                let blob = registries.blob(&resolved, layer, 0);
                let until = ended.clone().cancelled_owned();
                let reader = BlockingReader::spawn_until(&handle, blob.into_stream(), until);
                Input {
                    name: layer.digest.to_string(),
                    packing: layer.packing,
                    digest: Some(layer.digest.clone()),
                    diff_id: layer.diff_id.clone(),
                    bare: layer.bare,
                    reader: Box::new(budget.reader(reader)),
                }
            });
            looked.take(find(layers, &budget)?)?;
            Ok::<_, Error>(looked)
        };
        blocking(search).await
    }

    async fn look_at_url(&self, wanted: &Download) -> Result<Looked> {
        let url = &wanted.url;
        let download = fetch::url::Download::start(&self.looks, url, IMAGE_SIZE_MAX).await?;
        if let Some(what) = download.is_no_disk() {
            return Err(Error::from(store::Error::NotAnImage(format!(
                "{url} answers with {what}; if it is an image nevertheless, give its checksum \
                 or its format"
            ))));
        }
        let mut looked = Looked {
            shown: url.to_string(),
            transfer_size: download.size().unwrap_or(0),
            ..Looked::default()
        };
        let (total, wanted) = (download.size(), wanted.clone());
        let ended = CancellationToken::new();
        let _ends = ended.clone().drop_guard();
        let until = ended.cancelled_owned();
        let stream = download.into_stream();
        let reader = BlockingReader::spawn_until(&Handle::current(), stream, until);
        let look = move || {
            let mut reader = Budget::default().reader(reader);
            let mut start = Vec::new();
            let first = reader.by_ref().take(packed::HEAD as u64);
            { first }.read_to_end(&mut start).map_err(read_error)?;
            let packing = wanted.packing(&start, None);
            let size = total.filter(|_| packing == Packing::Plain);
            let head = beginning_of(Cursor::new(start).chain(reader), packing, size)?;
            looked.take(Some(head))?;
            Ok::<_, Error>(looked)
        };
        blocking(look).await
    }
}

/// Looks at an image of this machine; `open` opens what it is packed in.
async fn look_at_package(
    local: &Local,
    open: impl FnOnce() -> Result<Package> + Send + 'static,
) -> Result<Looked> {
    let local = local.clone();
    let look = move || {
        let package = open()?;
        let image = package.select(local.reference.as_deref(), &local.platform)?;
        let mut looked = Looked {
            shown: local.path.to_string_lossy().into_owned(),
            manifest_digest: image.digest.to_string(),
            platform: local.platform.to_string(),
            transfer_size: image.layers.iter().filter_map(|layer| layer.size).sum(),
            ..Looked::default()
        };
        let budget = Budget::default();
        let layers = package.inputs(&image)?;
        let layers = layers.into_iter().map(|input| Input {
            reader: Box::new(budget.reader(input.reader)),
            ..input
        });
        looked.take(find(layers, &budget)?)?;
        Ok::<_, Error>(looked)
    };
    blocking(look).await
}

/// The beginning of the disk image in `layers`, unpacked; `None`: what may be read does not reach it.
fn find(layers: impl Iterator<Item = Input>, budget: &Budget) -> Result<Option<Head>> {
    let mut sink = HeadSink::default();
    let limits = Limits {
        unpacked: UNPACKED_MAX,
        ..Limits::default()
    };
    let found = layer::find(layers, limits, &mut sink);
    if !sink.done {
        return match found {
            Err(layer::Error::TooLarge { .. }) | Ok(_) => Ok(None),
            Err(_) if budget.is_spent() => Ok(None),
            Err(error) => Err(error.into()),
        };
    }
    let head = sink.head;
    let packing = Packing::of(&head.bytes);
    if packing == Packing::Plain {
        return Ok(Some(head));
    }
    beginning_of(Cursor::new(head.bytes), packing, None).map(Some)
}

/// Unpacks as much as is of use. What is packed ends where no more of it is there.
fn beginning_of(reader: impl Read, packing: Packing, size: Option<u64>) -> Result<Head> {
    let mut unpacked = Unpacked::new(reader, packing, packed::Limits::default())?;
    let mut buffer = vec![0; BUFFER];
    let bytes = Vec::with_capacity(BEGINNING);
    let mut head = Head { bytes, size };
    while !head.is_full() {
        match unpacked.read(&mut buffer) {
            Ok(0) => {
                head.size = Some(head.bytes.len() as u64);
                break;
            }
            Ok(length) => head.add(&buffer[..length]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) if packing != Packing::Plain && !head.bytes.is_empty() => break,
            Err(error) => return Err(read_error(error)),
        }
    }
    Ok(head)
}

/// What was wrong inside an I/O error of a reader: the network, or what came over it.
fn read_error(error: std::io::Error) -> Error {
    let error = match error.downcast::<fetch::Error>() {
        Ok(error) => return error.into(),
        Err(error) => error,
    };
    match error.downcast::<image::Error>() {
        Ok(error) => error.into(),
        Err(_) => Error::Cancelled("the look was ended"),
    }
}

/// Keeps the beginning of the first disk image that is found, and ends the search then.
#[derive(Debug, Default)]
struct HeadSink {
    head: Head,
    done: bool,
}

impl HeadSink {
    fn check(&mut self) -> Result<()> {
        self.done = self.head.is_full();
        self.ends()
    }

    fn ends(&self) -> Result<()> {
        if self.done {
            return Err(Error::Cancelled("enough was seen"));
        }
        Ok(())
    }
}

impl Sink for HeadSink {
    type Error = Error;

    fn begin(&mut self, _: Directory, _: &str, size: Option<u64>) -> Result<()> {
        self.head = Head {
            bytes: Vec::new(),
            size,
        };
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.head.add(bytes);
        self.check()
    }

    fn hole(&mut self, length: u64) -> Result<()> {
        let end = self.head.bytes.len() as u64 + length;
        let end = usize::try_from(end).unwrap_or(BEGINNING).min(BEGINNING);
        self.head.bytes.resize(end, 0);
        self.check()
    }

    fn end(&mut self) -> Result<()> {
        self.head.size = self.head.size.or(Some(self.head.bytes.len() as u64));
        self.done = true;
        self.ends()
    }

    fn discard(&mut self) -> Result<()> {
        self.head = Head::default();
        Ok(())
    }
}

/// The bytes that may still be read. Clones are the same.
#[derive(Debug, Clone)]
struct Budget(Arc<AtomicU64>);

impl Default for Budget {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(PACKED_MAX)))
    }
}

impl Budget {
    fn reader<R: Read>(&self, inner: R) -> Bounded<R> {
        let left = self.clone();
        Bounded { inner, left }
    }

    fn is_spent(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

struct Bounded<R> {
    inner: R,
    left: Budget,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.left.is_spent() {
            return Err(std::io::Error::other("more than is read for a look"));
        }
        let read = self.inner.read(buffer)?;
        let left = &self.left.0;
        let before = left.load(Ordering::Relaxed);
        left.store(before.saturating_sub(read as u64), Ordering::Relaxed);
        Ok(read)
    }
}
