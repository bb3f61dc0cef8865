//! A layer as a stream: resumed when it breaks, verified before it ends.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, stream};
use image::oci::{Digest, Hasher};
use reqwest::header::{CONTENT_RANGE, HeaderMap, HeaderValue, RANGE};
use reqwest::{Response, StatusCode};
use tokio::io::AsyncRead;
use tokio_util::io::StreamReader;

use super::refusal::refused;
use super::session::{Session, Sessions};
use super::{Layer, Resolved};
use crate::answer::next_chunk;
use crate::network::Network;
use crate::range::ContentRange;
use crate::retry::Retry;
use crate::{Error, Result};

/// The packed bytes of one layer. Bytes are handed out before the digest of the whole is known: what
/// was made of them counts only after the end came without an error.
#[derive(Debug)]
pub struct Blob {
    network: Network,
    sessions: Sessions,
    /// Which of the sessions is asked.
    at: usize,
    /// How many of them were not given up.
    left: usize,
    /// Why the others were.
    given_up: Vec<String>,
    name: String,
    digest: Digest,
    size: u64,
    /// Bytes handed out, all of them hashed.
    offset: u64,
    /// Absent once the end was verified.
    hasher: Option<Hasher>,
    transfer: Option<Transfer>,
    retry: Retry,
}

/// A body that is being read.
#[derive(Debug)]
struct Transfer {
    response: Response,
    /// Bytes at its start that we have already: it did not honour the range.
    skip: u64,
}

impl Blob {
    pub(super) fn new(network: &Network, image: &Resolved, layer: &Layer, pass: u32) -> Self {
        let sessions = Arc::clone(&image.sessions);
        Self {
            retry: Retry::new(network.tuning()),
            network: network.clone(),
            at: pass as usize % sessions.len(),
            left: sessions.len(),
            given_up: Vec::new(),
            name: format!("{} layer {}", image.reference.name(), layer.digest),
            sessions,
            digest: layer.digest.clone(),
            size: layer.size,
            offset: 0,
            hasher: Some(layer.digest.hasher()),
            transfer: None,
        }
    }

    /// The layer's size, as its descriptor says and as it will be.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The next bytes; `None` after the last one, when size and digest were found right.
    ///
    /// A call that is dropped loses nothing: the next one asks for the rest anew.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        if self.hasher.is_none() {
            return Ok(None);
        }
        while self.offset < self.size {
            match self.next().await {
                Ok(Some(bytes)) => return Ok(Some(bytes)),
                Ok(None) => {}
                Err(error) => self.recover(error).await?,
            }
        }
        self.finish().await?;
        Ok(None)
    }

    /// All chunks, for [`crate::BlockingReader`] and other consumers of streams.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
        stream::try_unfold(self, async |mut blob| {
            Ok(blob.chunk().await?.map(|chunk| (chunk, blob)))
        })
    }

    /// The bytes for tokio's own traits; an error holds the [`Error`] inside.
    pub fn into_async_read(self) -> impl AsyncRead + Send + 'static {
        let stream = stream::try_unfold(self, async |mut blob| {
            Ok::<_, io::Error>(blob.chunk().await?.map(|chunk| (chunk, blob)))
        });
        StreamReader::new(Box::pin(stream))
    }

    fn session(&self) -> &Session {
        &self.sessions[self.at]
    }

    /// Reads on, connecting where need be. `None`: bytes came that we had already.
    async fn next(&mut self) -> Result<Option<Bytes>> {
        let mut transfer = match self.transfer.take() {
            Some(transfer) => transfer,
            None => self.connect().await?,
        };
        let stall = self.network.tuning().stall_timeout;
        let chunk = next_chunk(&self.name, &mut transfer.response, self.offset, stall).await?;
        let Some(mut chunk) = chunk else {
            let (what, received) = (self.name.clone(), self.offset);
            return Err(Error::Interrupted {
                what,
                received,
                source: None,
            });
        };
        let skipped = transfer.skip.min(chunk.len() as u64);
        transfer.skip -= skipped;
        let chunk = chunk.split_off(usize::try_from(skipped).expect("not more than the chunk has"));
        self.transfer = Some(transfer);
        if chunk.is_empty() {
            return Ok(None);
        }
        let end = self.offset + chunk.len() as u64;
        if end > self.size {
            return Err(self.wrong_size(end));
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&chunk);
        }
        self.offset = end;
        self.retry.progressed(chunk.len());
        Ok(Some(chunk))
    }

    /// Asks for all, or for what is missing.
    async fn connect(&mut self) -> Result<Transfer> {
        let mut headers = HeaderMap::new();
        if self.offset > 0 {
            // Closed: some registries refuse or misread an open range.
            let range = format!("bytes={}-{}", self.offset, self.size - 1);
            headers.insert(
                RANGE,
                HeaderValue::from_str(&range).expect("digits are ASCII"),
            );
        }
        let rest = format!("blobs/{}", self.digest);
        let response = self.session().get(&self.name, &rest, headers).await?;
        let refuse = |why| {
            Err(Error::Answer {
                what: self.name.clone(),
                why,
            })
        };
        let length = response.content_length();
        match response.status() {
            StatusCode::OK => match length {
                // A lie about the size is seen before the body is read.
                Some(length) if length != self.size => Err(self.wrong_size(length)),
                _ => Ok(Transfer {
                    response,
                    skip: self.offset,
                }),
            },
            StatusCode::PARTIAL_CONTENT if self.offset == 0 => {
                refuse("the server sent a part of the file, and the whole was requested")
            }
            StatusCode::PARTIAL_CONTENT => {
                let range = response
                    .headers()
                    .get(CONTENT_RANGE)
                    .and_then(ContentRange::parse);
                match range {
                    Some(range) if range.fits(self.offset, Some(self.size)) => {
                        Ok(Transfer { response, skip: 0 })
                    }
                    _ => refuse("the server sent a different range than requested"),
                }
            }
            _ => Err(refused(&self.name, response, self.network.tuning()).await),
        }
    }

    /// Waits before another attempt here, or turns to the next place, or gives up.
    async fn recover(&mut self, error: Error) -> Result<()> {
        self.transfer = None;
        let Err(error) = self.retry.after(&self.name, error).await else {
            return Ok(());
        };
        // A wrong size is the descriptor's or the registry's lie: the caller decides on another pass.
        if matches!(error, Error::Size { .. }) {
            return Err(error);
        }
        if self.left <= 1 {
            return Err(error.after(&self.name, std::mem::take(&mut self.given_up)));
        }
        self.given_up.push(types::report(&error).to_string());
        self.left -= 1;
        self.at = (self.at + 1) % self.sessions.len();
        self.retry.restart();
        tracing::warn!(error = %types::report(&error), "{}: asking the next place", self.name);
        Ok(())
    }

    /// Checks that nothing follows, then the digest.
    async fn finish(&mut self) -> Result<()> {
        if let Some(mut transfer) = self.transfer.take() {
            let stall = self.network.tuning().stall_timeout;
            // All bytes are here: how their connection ends no longer matters, more bytes would.
            let more = next_chunk(&self.name, &mut transfer.response, self.offset, stall).await;
            if let Ok(Some(more)) = more
                && !more.is_empty()
            {
                return Err(self.wrong_size(self.size + more.len() as u64));
            }
        }
        let Some(hasher) = self.hasher.take() else {
            return Ok(());
        };
        let actual = hasher.finish();
        if actual == self.digest {
            return Ok(());
        }
        let (what, expected) = (self.name.clone(), self.digest.clone());
        Err(Error::DigestMismatch {
            what,
            expected,
            actual,
        })
    }

    fn wrong_size(&self, actual: u64) -> Error {
        Error::Size {
            what: self.name.clone(),
            expected: self.size,
            actual,
        }
    }
}
