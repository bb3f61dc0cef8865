//! Pushing: blobs first, each only if it is not there, then the manifest that names them.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use image::oci::Digest;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Body, Method};
use tokio_util::io::ReaderStream;
use url::Url;

use super::session::Session;
use crate::answer::status_error;
use crate::network::Network;
use crate::retry::Retry;
use crate::{Error, Reference, Result};

/// How much of a file is read at a time.
const READ_SIZE: usize = 256 << 10;

/// Pushes to one repository.
#[derive(Debug)]
pub struct Pusher {
    network: Network,
    session: Arc<Session>,
    reference: Reference,
}

/// What an upload sends.
#[derive(Debug, Clone, Copy)]
enum Content<'a> {
    Bytes(&'a Bytes),
    File(&'a Path, u64),
}

impl Pusher {
    pub(super) fn new(network: &Network, session: Arc<Session>, reference: Reference) -> Self {
        Self {
            network: network.clone(),
            session,
            reference,
        }
    }

    /// Uploads a file as a blob, unless the registry has it. `size` and `digest` are the file's; it is
    /// read as it is sent, and the registry refuses it when it does not hash to the digest.
    pub async fn blob(&self, digest: &Digest, size: u64, path: &Path) -> Result<()> {
        self.upload(digest, Content::File(path, size)).await
    }

    /// Uploads bytes as a blob, unless the registry has it.
    pub async fn blob_bytes(&self, digest: &Digest, bytes: Bytes) -> Result<()> {
        self.upload(digest, Content::Bytes(&bytes)).await
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
            why: "the media type makes no header",
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
            match sent.and_then(|r| {
                if r.status().is_success() {
                    Ok(())
                } else {
                    Err(status_error(&what, &r))
                }
            }) {
                Ok(()) => return Ok(digest),
                Err(error) => retry.after(&what, error).await?,
            }
        }
    }

    async fn upload(&self, digest: &Digest, content: Content<'_>) -> Result<()> {
        let what = format!("{} blob {digest}", self.session.name());
        let mut retry = Retry::new(self.network.tuning());
        loop {
            match self.upload_once(&what, digest, content).await {
                Ok(()) => return Ok(()),
                Err(error) => retry.after(&what, error).await?,
            }
        }
    }

    async fn upload_once(&self, what: &str, digest: &Digest, content: Content<'_>) -> Result<()> {
        let url = self.session.url(what, &format!("blobs/{digest}")).await?;
        let there = self
            .session
            .request(what, (Method::HEAD, url), HeaderMap::new(), &|| None)
            .await?;
        match there.status().as_u16() {
            200 => return Ok(()),
            404 => {}
            _ => return Err(status_error(what, &there)),
        }
        let url = self.session.url(what, "blobs/uploads/").await?;
        let empty = HeaderMap::from_iter([(CONTENT_LENGTH, HeaderValue::from_static("0"))]);
        let begun = self
            .session
            .request(what, (Method::POST, url.clone()), empty, &|| None)
            .await?;
        if begun.status().as_u16() != 202 {
            return Err(status_error(what, &begun));
        }
        let place = upload_place(&url, begun.headers(), digest);
        let why = "it gives no place to upload to";
        let place = place.ok_or_else(|| Error::Answer {
            what: what.to_owned(),
            why,
        })?;
        self.send(what, place, content).await
    }

    async fn send(&self, what: &str, place: Url, content: Content<'_>) -> Result<()> {
        let (size, file) = match content {
            Content::Bytes(bytes) => (bytes.len() as u64, None),
            Content::File(path, size) => (size, Some(open(path, size).await?)),
        };
        let headers = HeaderMap::from_iter([
            (
                CONTENT_TYPE,
                HeaderValue::from_static("application/octet-stream"),
            ),
            (CONTENT_LENGTH, HeaderValue::from(size)),
        ]);
        // A body from a file can be sent once: a 401 now, after two requests were let in, ends this
        // attempt and the next one begins with the HEAD again.
        let file = std::sync::Mutex::new(file);
        let body = || match content {
            Content::Bytes(bytes) => Some(Body::from(bytes.clone())),
            Content::File(..) => {
                let file = file.lock().ok()?.take()?;
                Some(Body::wrap_stream(ReaderStream::with_capacity(
                    file, READ_SIZE,
                )))
            }
        };
        let sent = self
            .session
            .request(what, (Method::PUT, place), headers, &body)
            .await?;
        if sent.status().is_success() {
            Ok(())
        } else {
            Err(status_error(what, &sent))
        }
    }
}

/// The upload's URL with the digest that finishes it in one request.
fn upload_place(asked: &Url, headers: &HeaderMap, digest: &Digest) -> Option<Url> {
    let mut place = asked.join(headers.get(LOCATION)?.to_str().ok()?).ok()?;
    if !matches!(place.scheme(), "http" | "https") || !place.username().is_empty() {
        return None;
    }
    place
        .query_pairs_mut()
        .append_pair("digest", &digest.to_string());
    Some(place)
}

/// Opens what is to be sent, and makes sure that it still is what was hashed, as far as its size tells.
async fn open(path: &Path, size: u64) -> Result<tokio::fs::File> {
    let failed = |source| Error::File {
        operation: "read",
        path: path.to_owned(),
        source,
    };
    let file = tokio::fs::File::open(path).await.map_err(failed)?;
    let actual = file.metadata().await.map_err(failed)?.len();
    if actual == size {
        return Ok(file);
    }
    Err(Error::Size {
        what: path.display().to_string(),
        expected: size,
        actual,
    })
}
