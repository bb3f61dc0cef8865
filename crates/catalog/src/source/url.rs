//! A disk image at an http or https URL, decompressed as it arrives.
//!
//! The one checksum that a request gives may be that of the file as it is downloaded, or of the disk
//! image in it: vendors publish either, and both vouch for the same bytes.

use std::io::{Cursor, Read};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fetch::BlockingReader;
use image::Format;
use image::packed::{self, Packing, Unpacked};
use ring::digest::{Context, SHA256, SHA512};
use tokio::runtime::Handle;
use types::{Checksum, Sha512};

use super::{Job, Sources};
use crate::blocking::blocking;
use crate::error::{Error, Result};
use chunks::IMAGE_SIZE_MAX;
use store::{Facts, Provenance, Received};

/// Bytes that are taken in at a time.
const BUFFER: usize = 256 << 10;

/// Whether what comes is unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unpack {
    /// When its first bytes say that it is compressed. A guest can write such bytes onto its own raw
    /// disk: where raw is declared, the name of the file must say so too.
    #[default]
    ByMagic,
    /// As this, or (`none`) not at all.
    As(Packing),
}

/// A download as somebody asks for it, not checked yet. Empty texts are not given.
#[derive(Debug, Clone, Default)]
pub struct DownloadRequest {
    pub url: String,
    /// Headers that are sent: name and value.
    pub headers: Vec<(String, String)>,
    /// The user of HTTP's basic authentication.
    pub username: String,
    pub password: String,
    /// A token that is sent in place of both.
    pub bearer_token: String,
    /// Certificate authorities that are trusted besides the machine's, PEM.
    pub ca_certificates: Vec<u8>,
    /// The proxy that is used.
    pub proxy: String,
    /// How the file is packed: `gzip`, `xz`, `zstd` or `none`.
    pub decompress: String,
    /// Seconds of silence after which the download is resumed; 0: the daemon's.
    pub idle_timeout_seconds: u32,
}

/// What is downloaded, and how.
#[derive(Debug, Clone)]
pub struct Download {
    /// From where, with whose credentials.
    pub url: fetch::url::Source,
    /// Whether it is unpacked.
    pub unpack: Unpack,
    /// A SHA-256 that it must have: of the file, or of the disk image in it.
    pub sha256: Option<[u8; 32]>,
}

impl From<fetch::url::Source> for Download {
    fn from(url: fetch::url::Source) -> Self {
        Self {
            url,
            unpack: Unpack::ByMagic,
            sha256: None,
        }
    }
}

impl FromStr for Box<Download> {
    type Err = fetch::Error;

    fn from_str(text: &str) -> Result<Self, fetch::Error> {
        text.parse::<fetch::url::Source>()
            .map(|url| Self::new(url.into()))
    }
}

impl TryFrom<DownloadRequest> for Download {
    type Error = Error;

    fn try_from(request: DownloadRequest) -> Result<Self> {
        let mut options = fetch::url::Options::default();
        for (name, value) in &request.headers {
            options.header(name, value)?;
        }
        if !request.username.is_empty() || !request.password.is_empty() {
            options.password(&request.username, &request.password)?;
        }
        if !request.bearer_token.is_empty() {
            options.bearer(&request.bearer_token)?;
        }
        if !request.ca_certificates.is_empty() {
            options.authorities(&request.ca_certificates)?;
        }
        if !request.proxy.is_empty() {
            options.through(&request.proxy)?;
        }
        if request.idle_timeout_seconds > 0 {
            let seconds = u64::from(request.idle_timeout_seconds);
            options.idle_timeout(Duration::from_secs(seconds))?;
        }
        let unpack = match request.decompress.as_str() {
            "" => Unpack::ByMagic,
            packing => Unpack::As(packing.parse().map_err(|error| Error::InvalidField {
                field: "decompress",
                why: format!("{error}"),
            })?),
        };
        if unpack == Unpack::As(Packing::Gzip) {
            options.take_gzip();
        }
        let url: fetch::url::Source = request.url.parse()?;
        Ok(Self {
            unpack,
            ..url.with(options)?.into()
        })
    }
}

impl Download {
    /// Where the image is from, without secrets.
    pub(super) fn provenance(&self) -> Provenance {
        let mut besides = String::new();
        if let Unpack::As(packing) = self.unpack {
            besides.push_str(packing.as_str());
        }
        if let Some(sum) = self.sha256 {
            besides.push_str(&Checksum::Sha256(sum).to_string());
        }
        Provenance::Url {
            url: self.url.to_string(),
            fingerprint: self.url.fingerprint(&besides),
        }
    }

    /// How the file is packed, of which the first bytes are `head`.
    pub(super) fn packing(&self, head: &[u8], declared: Option<Format>) -> Packing {
        match self.unpack {
            Unpack::As(packing) => packing,
            Unpack::ByMagic => {
                let told = Packing::of(head);
                let named = Packing::of_name(self.url.file_name()) == told;
                if declared == Some(Format::Raw) && !named {
                    Packing::Plain
                } else {
                    told
                }
            }
        }
    }
}

impl Sources {
    pub(super) async fn take_url(&self, wanted: &Download, job: &Job) -> Result<(Received, Facts)> {
        let url = &wanted.url;
        let starting = fetch::url::Download::start(&self.network, url, IMAGE_SIZE_MAX);
        let download = tokio::select! {
            download = starting => download?,
            () = job.cancel.cancelled() => return Err(Error::Cancelled("the image is not wanted")),
        };
        job.turn.take(&job.cancel).await?;
        // A login page with status 200 is the commonest wrong answer. Whoever knows the checksum or
        // the format has said what is right.
        let known = job.expected.is_some() || wanted.sha256.is_some();
        let told = known || job.format.is_some();
        if let Some(what) = download.is_no_disk().filter(|_| !told) {
            return Err(Error::from(store::Error::NotAnImage(format!(
                "{url} answers with {what}; if it is an image nevertheless, give its checksum \
                 or its format"
            ))));
        }
        let (facts, job, wanted) = (job.facts(), job.clone(), wanted.clone());
        let total = download.size().unwrap_or(0);
        let ended = job.cancel.clone().cancelled_owned();
        let stream = download.into_stream();
        let reader = BlockingReader::spawn_until(&Handle::current(), stream, ended);
        let take_in = move || receive(reader, total, &wanted, facts, &job);
        blocking(take_in).await
    }
}

fn receive(
    mut reader: BlockingReader,
    total: u64,
    wanted: &Download,
    mut facts: Facts,
    job: &Job,
) -> Result<(Received, Facts)> {
    let read = |error| read_error(error, job);
    let mut head = Vec::with_capacity(packed::HEAD);
    let first = reader.by_ref().take(packed::HEAD as u64);
    { first }.read_to_end(&mut head).map_err(read)?;
    let packing = wanted.packing(&head, job.format);
    let is_packed = packing != Packing::Plain;
    if is_packed || head.starts_with(b"QFI\xfb") {
        // The holes of a raw image take no room, so only what is surely too much is refused here.
        job.store.disk().require_space(total)?;
    }
    let sums = Sums {
        sha512: (is_packed && job.expected.is_some()).then(|| Context::new(&SHA512)),
        sha256: (is_packed && wanted.sha256.is_some()).then(|| Context::new(&SHA256)),
    };
    let count = Arc::new(AtomicU64::new(0));
    let mut file = Tapped {
        inner: Cursor::new(head).chain(reader),
        count: count.clone(),
        sums,
    };
    let mut image_sum = wanted.sha256.map(|_| Context::new(&SHA256));
    let mut ingest = job.begin()?;
    let limits = packed::Limits {
        trailing: job.expected.is_some() || wanted.sha256.is_some(),
        ..packed::Limits::default()
    };
    let mut unpacked = Unpacked::new(&mut file, packing, limits)?;
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = match unpacked.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(read(error)),
        };
        let bytes = &buffer[..length];
        if let Some(sum) = &mut image_sum {
            sum.update(bytes);
        }
        ingest.write(bytes)?;
        job.report.progress(count.load(Ordering::Relaxed), total);
    }
    drop(unpacked);
    let sums = [file.sums.sha256, image_sum].map(|sum| sum.map(sha256));
    if let Some(sum) = file.sums.sha512 {
        let sum = Checksum::Sha512(Sha512::from_digest(&sum.finish()));
        facts.source_checksums.push(sum);
    }
    if let Some(expected) = wanted.sha256 {
        check(expected, sums)?;
        facts.source_checksums.push(Checksum::Sha256(expected));
        facts.verified = true;
    }
    Ok((ingest.finish()?, facts))
}

/// Refuses bytes of which neither the file nor the disk image in it has the expected sum.
fn check(expected: [u8; 32], [file, image]: [Option<[u8; 32]>; 2]) -> Result<()> {
    if file == Some(expected) || image == Some(expected) {
        return Ok(());
    }
    let actual = image.into_iter().chain(file).map(Checksum::Sha256);
    Err(Error::SourceChecksum {
        expected: Checksum::Sha256(expected),
        actual: actual.collect(),
    })
}

fn sha256(sum: Context) -> [u8; 32] {
    let sum = sum.finish();
    *sum.as_ref().first_chunk().expect("a SHA-256 has 32 bytes")
}

/// What was wrong inside an I/O error of a reader: the network, or what came over it.
fn read_error(error: std::io::Error, job: &Job) -> Error {
    if job.cancel.is_cancelled() {
        return Error::Cancelled("the image is not wanted");
    }
    let error = match error.downcast::<fetch::Error>() {
        Ok(error) => return error.into(),
        Err(error) => error,
    };
    match error.downcast::<image::Error>() {
        Ok(error) => error.into(),
        Err(source) => store::Error::Io {
            operation: "read the download for",
            path: job.store.paths(&job.id).backing_tmp,
            source,
        }
        .into(),
    }
}

/// Sums of the file as it is downloaded, where they are asked for.
struct Sums {
    sha512: Option<Context>,
    sha256: Option<Context>,
}

/// Counts and sums what passes.
struct Tapped<R> {
    inner: R,
    count: Arc<AtomicU64>,
    sums: Sums,
}

impl<R: Read> Read for Tapped<R> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buf)?;
        let Sums { sha512, sha256 } = &mut self.sums;
        for sum in [sha512, sha256].into_iter().flatten() {
            sum.update(&buf[..read]);
        }
        self.count.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}
