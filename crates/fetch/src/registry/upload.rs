//! The upload of one blob: in one request, or in pieces that resume after an interruption (OCI
//! distribution specification 1.1, "Pushing blobs").

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, stream};
use image::oci::Digest;
use reqwest::header::{
    CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION,
    RANGE,
};
use reqwest::{Body, Method, Response};
use url::Url;

use super::refusal::refused;
use super::session::Session;
use crate::network::{MakeBody, Tuning};
use crate::retry::Retry;
use crate::{Error, Result};

/// How much of a file is read at a time.
const READ_SIZE: u64 = 256 << 10;
/// The least bytes that each piece but the last must have.
const MIN_LENGTH: HeaderName = HeaderName::from_static("oci-chunk-min-length");

/// What an upload sends.
#[derive(Debug, Clone)]
pub(super) enum Content {
    Bytes(Bytes),
    /// A file, and the bytes that it has.
    File(Arc<File>, u64),
}

impl Content {
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(_, size) => *size,
        }
    }

    /// The body of a request that sends a part of it; it may be made as often as it is sent.
    fn body(&self, part: Range<u64>) -> Body {
        match self {
            Self::Bytes(bytes) => {
                let at = |offset| {
                    usize::try_from(offset)
                        .unwrap_or(bytes.len())
                        .min(bytes.len())
                };
                Body::from(bytes.slice(at(part.start)..at(part.end)))
            }
            Self::File(file, _) => Body::wrap_stream(read(Arc::clone(file), part)),
        }
    }
}

/// A part of a file. Its offset is the stream's own: one that was begun before does not move it.
fn read(
    file: Arc<File>,
    part: Range<u64>,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    stream::try_unfold((file, part), async |(file, part)| {
        let length = (part.end - part.start).min(READ_SIZE);
        if length == 0 {
            return Ok(None);
        }
        let (reader, at) = (Arc::clone(&file), part.start);
        let read = move || {
            let mut bytes =
                vec![0; usize::try_from(length).expect("not more than is read at a time")];
            reader.read_exact_at(&mut bytes, at)?;
            Ok::<_, io::Error>(Bytes::from(bytes))
        };
        let bytes = tokio::task::spawn_blocking(read)
            .await
            .map_err(io::Error::other)??;
        Ok(Some((bytes, (file, at + length..part.end))))
    })
}

/// One upload that the registry has begun.
pub(super) struct Upload<'a> {
    session: &'a Session,
    tuning: Tuning,
    what: &'a str,
    content: &'a Content,
    digest: &'a Digest,
    /// Where the next request goes.
    place: Url,
    /// Bytes that the registry has.
    at: u64,
    /// It takes no pieces that are smaller.
    piece_min: u64,
}

impl<'a> Upload<'a> {
    pub(super) async fn begin(
        session: &'a Session,
        tuning: Tuning,
        what: &'a str,
        (content, digest): (&'a Content, &'a Digest),
    ) -> Result<Self> {
        let url = session.url(what, "blobs/uploads/").await?;
        let empty = HeaderMap::from_iter([(CONTENT_LENGTH, HeaderValue::from_static("0"))]);
        let begun = session
            .request(what, (Method::POST, url), empty, &|| None)
            .await?;
        if begun.status().as_u16() != 202 {
            return Err(refused(what, begun, tuning).await);
        }
        let place = place_of(&begun).ok_or_else(|| Error::Answer {
            what: what.to_owned(),
            why: "it names no location for the upload",
        })?;
        let least = begun.headers().get(MIN_LENGTH);
        let least = least.and_then(|value| value.to_str().ok()?.trim().parse().ok());
        Ok(Self {
            session,
            tuning,
            what,
            content,
            digest,
            place,
            at: 0,
            piece_min: least.unwrap_or(0),
        })
    }

    /// Sends all of it in one request.
    pub(super) async fn whole(self) -> Result<()> {
        let all = 0..self.content.size();
        self.finish(all).await
    }

    /// Sends it in pieces of at most `piece` bytes. A piece that broke off is gone on with where the
    /// registry says that it broke.
    pub(super) async fn in_pieces(mut self, piece: u64) -> Result<()> {
        let (size, piece) = (self.content.size(), piece.max(self.piece_min));
        let mut retry = Retry::new(self.tuning);
        loop {
            let sent = if self.at < size {
                let end = size.min(self.at + piece);
                self.piece(self.at..end).await
            } else {
                match self.finish(size..size).await {
                    Ok(()) => return Ok(()),
                    Err(error) => Err(error),
                }
            };
            match sent {
                Ok(sent) => retry.progressed(sent),
                Err(error) => {
                    retry.after(self.what, error).await?;
                    self.look().await?;
                }
            }
        }
    }

    /// Sends one piece; gives the bytes that the registry took of it.
    async fn piece(&mut self, part: Range<u64>) -> Result<usize> {
        let range = format!("{}-{}", part.start, part.end - 1);
        let range = HeaderValue::from_str(&range).expect("digits are ASCII");
        let headers = HeaderMap::from_iter([(CONTENT_RANGE, range)]);
        let (start, end) = (part.start, part.end);
        let answer = self
            .send((Method::PATCH, self.place.clone()), headers, part)
            .await?;
        // 416: the registry has another part of it than we think.
        if answer.status().as_u16() == 416 {
            return Err(self.broken());
        }
        if !answer.status().is_success() {
            return Err(refused(self.what, answer, self.tuning).await);
        }
        self.at = range_end(&answer).unwrap_or(end);
        if self.at <= start {
            return Err(self.broken());
        }
        if self.at > end {
            let why = "it reports more bytes than it was sent";
            let what = self.what.to_owned();
            return Err(Error::Answer { what, why });
        }
        self.place = place_of(&answer).unwrap_or_else(|| self.place.clone());
        Ok(usize::try_from(self.at - start).unwrap_or(usize::MAX))
    }

    /// Sends the rest, and the digest that all of it must have.
    async fn finish(&self, rest: Range<u64>) -> Result<()> {
        let mut place = self.place.clone();
        place
            .query_pairs_mut()
            .append_pair("digest", &self.digest.to_string());
        let answer = self
            .send((Method::PUT, place), HeaderMap::new(), rest)
            .await?;
        if answer.status().is_success() {
            return Ok(());
        }
        Err(refused(self.what, answer, self.tuning).await)
    }

    /// Asks how much the registry has.
    async fn look(&mut self) -> Result<()> {
        let target = (Method::GET, self.place.clone());
        let answer = self
            .session
            .request(self.what, target, HeaderMap::new(), &|| None)
            .await?;
        if !answer.status().is_success() {
            // The upload is gone, perhaps because it was finished: it is looked for, and begun anew.
            return Err(self.broken());
        }
        self.at = range_end(&answer).unwrap_or(0).min(self.content.size());
        self.place = place_of(&answer).unwrap_or_else(|| self.place.clone());
        Ok(())
    }

    async fn send(
        &self,
        target: (Method, Url),
        mut headers: HeaderMap,
        part: Range<u64>,
    ) -> Result<Response> {
        let octets = HeaderValue::from_static("application/octet-stream");
        headers.insert(CONTENT_TYPE, octets);
        headers.insert(CONTENT_LENGTH, HeaderValue::from(part.end - part.start));
        let body = || (!part.is_empty()).then(|| self.content.body(part.clone()));
        let body: &MakeBody<'_> = &body;
        self.session.request(self.what, target, headers, body).await
    }

    fn broken(&self) -> Error {
        Error::Interrupted {
            what: self.what.to_owned(),
            received: self.at,
            source: None,
        }
    }
}

/// Where an answer sends the next request.
fn place_of(answer: &Response) -> Option<Url> {
    let location = answer.headers().get(LOCATION)?.to_str().ok()?;
    let place = answer.url().join(location).ok()?;
    let usable = matches!(place.scheme(), "http" | "https") && place.username().is_empty();
    usable.then_some(place)
}

/// How much the registry has by its `Range: 0-LAST`. `0-0` is said of nothing too.
fn range_end(answer: &Response) -> Option<u64> {
    let text = answer.headers().get(RANGE)?.to_str().ok()?;
    let (first, last) = text.trim().trim_start_matches("bytes=").split_once('-')?;
    let last: u64 = last.parse().ok()?;
    (first == "0").then(|| if last == 0 { 0 } else { last + 1 })
}
