//! `GET /v1/files/{id}/download`: the bytes of a ready image, packed with gzip, or as they are.
//!
//! Longhorn's server always compresses them and supports no ranges, unless `forV2Creation=true`
//! requests the bytes themselves. We also serve those in ranges, so that an interrupted download
//! can be resumed.

use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{
    ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
    IF_RANGE, RANGE,
};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::query::Query;
use catalog::Reading;
use store::IoContext;

use crate::error::{Error, Result};
use catalog::counters;

/// Bytes that are read and sent at once.
const PIECE: usize = 128 << 10;

/// Answers a request for the bytes of `reading`.
pub fn answer(reading: Reading, request: &Request) -> Result<Response> {
    let raw = Query::parse(request.uri().query()).get("forV2Creation") == "true";
    let path = reading.path.clone();
    let file = File::open(&path).context("open", &path)?;
    let head_only = request.method() == Method::HEAD;
    let mut response = if raw {
        as_it_is(reading, file, request.headers(), head_only)
    } else {
        packed(reading, file, head_only)
    };
    let kind = "application/octet-stream".parse().expect("a plain text");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    Ok(response)
}

fn packed(reading: Reading, file: File, head_only: bool) -> Response {
    let name = format!("attachment; filename={}.gz", reading.image.id().name);
    let size = reading.image.sidecar().size;
    let body = if head_only {
        Body::empty()
    } else {
        let packer = GzEncoder::new(Vec::new(), Compression::fast());
        let outgoing = Outgoing {
            reading,
            file,
            rest: 0..size,
            packer: Some(packer),
        };
        outgoing.body()
    };
    let mut response = Response::new(body);
    let name = name.parse().expect("an image's name is plain text");
    response.headers_mut().insert(CONTENT_DISPOSITION, name);
    response
}

fn as_it_is(reading: Reading, file: File, headers: &HeaderMap, head_only: bool) -> Response {
    let size = reading.image.sidecar().size;
    let tag = format!("\"{}\"", reading.image.sidecar().current_checksum);
    let (status, range) = match wanted(headers, &tag, size) {
        Wanted::Whole => (StatusCode::OK, 0..size),
        Wanted::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
        Wanted::Impossible => (StatusCode::RANGE_NOT_SATISFIABLE, 0..0),
    };
    let length = range.end - range.start;
    let content_range = match status {
        StatusCode::PARTIAL_CONTENT => {
            Some(format!("bytes {}-{}/{size}", range.start, range.end - 1))
        }
        StatusCode::RANGE_NOT_SATISFIABLE => Some(format!("bytes */{size}")),
        _ => None,
    };
    let body = if head_only || length == 0 {
        Body::empty()
    } else {
        let outgoing = Outgoing {
            reading,
            file,
            rest: range,
            packer: None,
        };
        outgoing.body()
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let mut set = |name, value: String| {
        let value = value.parse().expect("numbers and digests are plain text");
        response.headers_mut().insert(name, value);
    };
    set(CONTENT_LENGTH, length.to_string());
    set(ACCEPT_RANGES, "bytes".to_owned());
    set(ETAG, tag);
    if let Some(range) = content_range {
        set(CONTENT_RANGE, range);
    }
    response
}

#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Whole,
    Part(Range<u64>),
    Impossible,
}

/// What of the file is asked for. Several ranges, and what is no range, mean the whole.
fn wanted(headers: &HeaderMap, tag: &str, size: u64) -> Wanted {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if text(IF_RANGE).is_some_and(|asked| asked != tag) {
        return Wanted::Whole;
    }
    let spec = text(RANGE).and_then(|range| range.strip_prefix("bytes="));
    let Some((first, last)) = spec.and_then(|spec| spec.split_once('-')) else {
        return Wanted::Whole;
    };
    let range = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => first..last.saturating_add(1).min(size),
        (Ok(first), Err(_)) if last.is_empty() => first..size,
        (Err(_), Ok(length)) if first.is_empty() => size.saturating_sub(length)..size,
        _ => return Wanted::Whole,
    };
    if range.start < range.end {
        Wanted::Part(range)
    } else {
        Wanted::Impossible
    }
}

/// Bytes on their way out. A thread is only held while a piece is read and packed, never while the
/// peer is waited for.
struct Outgoing {
    reading: Reading,
    file: File,
    /// What is still to be read.
    rest: Range<u64>,
    /// Packs the bytes; `None`: they go as they are.
    packer: Option<GzEncoder<Vec<u8>>>,
}

impl Outgoing {
    /// The body reads from a channel and holds nothing itself: nobody asks it for more while a peer does not
    /// take what it has, and the image must not wait for that peer when it is deleted.
    fn body(self) -> Body {
        let (pieces, body) = mpsc::channel(2);
        // It ends with its connection, or when the image is deleted.
        tokio::spawn(async move {
            // Kept for the end: a part is never taken for the whole, however full the channel is.
            let Ok(broken_off) = pieces.clone().reserve_owned().await else {
                return;
            };
            let cancel = self.reading.cancel.clone();
            let sent = tokio::select! {
                biased;
                () = cancel.cancelled() => Err(cancelled()),
                sent = self.send(pieces) => sent,
            };
            if let Err(error) = sent {
                broken_off.send(Err(error));
            }
        });
        Body::from_stream(ReceiverStream::new(body))
    }

    /// Sends piece after piece, until all is sent or nobody wants more.
    async fn send(self, pieces: mpsc::Sender<io::Result<Bytes>>) -> io::Result<()> {
        let mut rest = Some(self);
        while let Some(outgoing) = rest {
            let step = tokio::task::spawn_blocking(move || outgoing.step());
            let (bytes, more) = step.await.map_err(io::Error::other)??;
            if !bytes.is_empty() && pieces.send(Ok(bytes)).await.is_err() {
                break;
            }
            rest = more;
        }
        Ok(())
    }

    /// The next piece, and what is left; without anything left it was the last.
    fn step(mut self) -> io::Result<(Bytes, Option<Self>)> {
        let left = self.rest.end - self.rest.start;
        let mut piece = vec![0; usize::try_from(left).map_or(PIECE, |left| left.min(PIECE))];
        self.file.read_exact_at(&mut piece, self.rest.start)?;
        self.rest.start += piece.len() as u64;
        let last = self.rest.is_empty();
        let bytes = match self.packer.take() {
            None => piece,
            Some(mut packer) => {
                packer.write_all(&piece)?;
                if last {
                    packer.finish()?
                } else {
                    let packed = std::mem::take(packer.get_mut());
                    self.packer = Some(packer);
                    packed
                }
            }
        };
        counters::sent(bytes.len() as u64);
        Ok((bytes.into(), (!last).then_some(self)))
    }
}

fn cancelled() -> io::Error {
    let why = Error::Cancelled("the image is being deleted or the manager stops");
    io::Error::other(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_rfc_9110_says() {
        for (range, expected) in [
            ("bytes=0-", Wanted::Part(0..100)),
            ("bytes=10-19", Wanted::Part(10..20)),
            ("bytes=90-1000", Wanted::Part(90..100)),
            ("bytes=-5", Wanted::Part(95..100)),
            ("bytes=-500", Wanted::Part(0..100)),
            ("bytes=100-", Wanted::Impossible),
            ("bytes=-0", Wanted::Impossible),
            ("bytes=5-4", Wanted::Whole),
            ("bytes=0-1,5-6", Wanted::Whole),
            (
                "bytes=18446744073709551615-18446744073709551615",
                Wanted::Impossible,
            ),
            ("lines=1-2", Wanted::Whole),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RANGE, range.parse().unwrap());
            assert_eq!(wanted(&headers, "\"a\"", 100), expected, "{range}");
            headers.insert(IF_RANGE, "\"b\"".parse().unwrap());
            assert_eq!(wanted(&headers, "\"a\"", 100), Wanted::Whole);
        }
    }
}
