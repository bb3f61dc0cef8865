//! Pushing: blobs first, each only if it is not there, then the manifest that names them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use image::oci::Digest;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Body, Method};

use super::refusal::refused;
use super::session::Session;
use super::upload::{Content, Upload};
use crate::answer::status_error;
use crate::network::Network;
use crate::retry::Retry;
use crate::{Error, Reference, Result};

/// The pieces that are tried first when the whole is too large for one request, and the smallest ones.
/// Proxies take 100 MB (Cloudflare) or 1 MiB (nginx) unless they are told otherwise.
const PIECE_FIRST: u64 = 64 << 20;
const PIECE_MIN: u64 = 256 << 10;

/// Pushes to one repository.
#[derive(Debug)]
pub struct Pusher {
    network: Network,
    session: Arc<Session>,
    reference: Reference,
    /// The most bytes that are sent at once.
    piece: AtomicU64,
}

impl Pusher {
    pub(super) fn new(network: &Network, session: Arc<Session>, reference: Reference) -> Self {
        Self {
            network: network.clone(),
            session,
            reference,
            piece: AtomicU64::new(u64::MAX),
        }
    }

    /// Sends at most so many bytes in one request, for a proxy that takes no more. Without it a blob is
    /// sent whole, and in pieces once that was too much for somebody.
    #[must_use]
    pub fn in_pieces_of(self, piece: u64) -> Self {
        self.piece.store(piece.max(PIECE_MIN), Ordering::Relaxed);
        self
    }

    /// Uploads a file as a blob, unless the registry has it. `size` and `digest` are the file's; it is
    /// read as it is sent, and the registry refuses it when it does not hash to the digest.
    pub async fn blob(&self, digest: &Digest, size: u64, path: &Path) -> Result<()> {
        self.upload(digest, size, &|| open(path, size)).await
    }

    /// Uploads bytes as a blob, unless the registry has it.
    pub async fn blob_bytes(&self, digest: &Digest, bytes: Bytes) -> Result<()> {
        let size = bytes.len() as u64;
        self.upload(digest, size, &|| Ok(Content::Bytes(bytes.clone())))
            .await
    }

    /// Stores a manifest under the reference's tag, or under its digest when it has no tag. Gives the
    /// manifest's digest.
    pub async fn manifest(&self, media_type: &str, bytes: Bytes) -> Result<Digest> {
        let digest = Digest::of(&bytes);
        let selector = self
            .reference
            .tag()
            .map_or_else(|| digest.to_string(), ToOwned::to_owned);
        let what = format!("{} manifest {selector}", self.session.name());
        let url = self
            .session
            .url(&what, &format!("manifests/{selector}"))
            .await?;
        let bad = |_| Error::Answer {
            what: what.clone(),
            why: "the media type is not valid in a header",
        };
        let media_type = HeaderValue::from_str(media_type).map_err(bad)?;
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, media_type)]);
        let mut retry = Retry::new(self.network.tuning());
        loop {
            let body = || Some(Body::from(bytes.clone()));
            let target = (Method::PUT, url.clone());
            let sent = self
                .session
                .request(&what, target, headers.clone(), &body)
                .await;
            let error = match sent {
                Ok(answer) if answer.status().is_success() => return Ok(digest),
                Ok(answer) => refused(&what, answer, self.network.tuning()).await,
                Err(error) => error,
            };
            retry.after(&what, error).await?;
        }
    }

    /// `content` opens what is sent, which is not needed for what the registry has.
    async fn upload(
        &self,
        digest: &Digest,
        size: u64,
        content: &(dyn Fn() -> Result<Content> + Sync),
    ) -> Result<()> {
        let what = format!("{} blob {digest}", self.session.name());
        let mut retry = Retry::new(self.network.tuning());
        loop {
            let piece = self.piece.load(Ordering::Relaxed);
            match self.upload_once(&what, digest, content, piece).await {
                Ok(()) => return Ok(()),
                Err(Error::Status { status: 413, .. }) => {
                    self.smaller(&what, piece.min(size))?;
                }
                Err(error) => retry.after(&what, error).await?,
            }
        }
    }

    async fn upload_once(
        &self,
        what: &str,
        digest: &Digest,
        content: &(dyn Fn() -> Result<Content> + Sync),
        piece: u64,
    ) -> Result<()> {
        if self.is_there(what, digest).await? {
            return Ok(());
        }
        let content = &content()?;
        let tuning = self.network.tuning();
        let upload = Upload::begin(&self.session, tuning, what, (content, digest)).await?;
        if content.size() <= piece {
            upload.whole().await
        } else {
            upload.in_pieces(piece).await
        }
    }

    /// Whether the registry surely has a blob. It saves an upload and no more, so that a place which
    /// cannot say it (storage that is redirected to refuses what is absent by 403) is no failure.
    async fn is_there(&self, what: &str, digest: &Digest) -> Result<bool> {
        let url = self.session.url(what, &format!("blobs/{digest}")).await?;
        let answer = self
            .session
            .request(what, (Method::HEAD, url), HeaderMap::new(), &|| None)
            .await?;
        match status_error(what, &answer) {
            _ if answer.status().as_u16() == 200 => Ok(true),
            error if error.is_transient() => Err(error),
            _ => Ok(false),
        }
    }

    /// From here on in smaller pieces: `refused` bytes at once were too many for somebody.
    fn smaller(&self, what: &str, refused: u64) -> Result<()> {
        if refused <= PIECE_MIN {
            return Err(Error::Answer {
                what: what.to_owned(),
                why: "even 256 KiB at once are too many for it (status 413): raise the limit on the \
                      body of a request in the proxy before the registry",
            });
        }
        let piece = (refused / 4).clamp(PIECE_MIN, PIECE_FIRST);
        tracing::info!(piece, "{what}: too large for one request: sent in pieces");
        self.piece.store(piece, Ordering::Relaxed);
        Ok(())
    }
}

/// Opens what is to be sent, and makes sure that it still is what was hashed, as far as its size tells.
fn open(path: &Path, size: u64) -> Result<Content> {
    let failed = |source| Error::File {
        operation: "read",
        path: path.to_owned(),
        source,
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let actual = file.metadata().map_err(failed)?.len();
    if actual == size {
        return Ok(Content::File(Arc::new(file), size));
    }
    Err(Error::Size {
        what: path.display().to_string(),
        expected: size,
        actual,
    })
}
