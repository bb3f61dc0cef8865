//! What holds for every gRPC call, whatever its method: its message is read whole, in bounded time, by
//! a bounded number of readers per peer, before any handler sees it; a peer has only so many calls
//! open; a method that does not exist is named in the answer, as Go's servers do.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::{Buf, Bytes};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tonic::{Code, Status};

use crate::{Peer, peer_of};

/// The largest message of a call; the largest field is a Docker configuration with credentials.
pub const MESSAGE_MAX: usize = 1 << 20;
/// The largest message of the calls in [`LARGE`]: a piece of an image, and what names it.
pub const LARGE_MAX: usize = (3 << 20) + (4 << 10);
/// The calls that carry pieces of images.
const LARGE: &[&str] = &["/longhorn.storage.v1.BackingImages/WriteUpload"];
/// Length and compression flag before a message.
const PREFIX: usize = 5;
/// Bytes of a received part below which it is copied, and up to how many at once.
const CRUMB: usize = 4 << 10;
const TOGETHER: usize = 64 << 10;
/// The time to send a message whole.
const MESSAGE_TIME: Duration = Duration::from_mins(1);
/// How long a call waits for its turn behind others of the same peer.
const TURN: Duration = Duration::from_secs(20);
/// The services whose messages go on coming while they are answered.
const STREAMING: &str = "/grpc.reflection.";

/// The middleware of every gRPC router.
pub(crate) async fn bounded(request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let permit = match turn(peer_of(&request)).await {
        Ok(permit) => permit,
        Err(status) => return status.into_http::<Body>().into_response(),
    };
    let request = if path.starts_with(STREAMING) {
        request
    } else {
        match whole(request).await {
            Ok(request) => request,
            Err(status) => return status.into_http::<Body>().into_response(),
        }
    };
    let mut response = next.run(request).await;
    name_the_method(response.headers_mut(), &path);
    response.map(|body| {
        Body::new(Counted {
            body,
            _permit: permit,
        })
    })
}

async fn turn(peer: Option<Arc<Peer>>) -> Result<Option<OwnedSemaphorePermit>, Status> {
    let Some(peer) = peer else {
        return Ok(None);
    };
    match tokio::time::timeout(TURN, peer.calls.clone().acquire_owned()).await {
        Ok(permit) => Ok(permit.ok()),
        Err(_) => Err(Status::resource_exhausted(
            "too many calls of this peer are open; try again when some have ended",
        )),
    }
}

/// The request with all of its body in memory.
async fn whole(request: Request) -> Result<Request, Status> {
    let reading = peer_of(&request).map(|peer| peer.reading.clone());
    let is_large = LARGE.contains(&request.uri().path());
    let max = if is_large { LARGE_MAX } else { MESSAGE_MAX };
    let (head, body) = request.into_parts();
    let read = async {
        let _turn = match reading {
            Some(reading) => reading.acquire_owned().await.ok(),
            None => None,
        };
        Limited::new(body, max + PREFIX).collect().await
    };
    match tokio::time::timeout(MESSAGE_TIME, read).await {
        Ok(Ok(body)) => Ok(Request::from_parts(head, as_it_came(body.aggregate()))),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(
            Status::resource_exhausted(format!("the message is larger than {max} bytes")),
        ),
        Ok(Err(error)) => Err(Status::cancelled(format!("the message broke off: {error}"))),
        Err(_) => Err(Status::deadline_exceeded(format!(
            "the message did not arrive within {MESSAGE_TIME:?}"
        ))),
    }
}

/// A body of what was received, which is not copied into one buffer: the decoder of messages does that. What came in
/// crumbs is put together, so that a list of them is not larger than the message.
fn as_it_came(mut body: impl Buf) -> Body {
    let mut received = Vec::new();
    while body.has_remaining() {
        let length = match body.chunk().len() {
            ..CRUMB => body.remaining().min(TOGETHER),
            length => length,
        };
        received.push(Ok::<_, Infallible>(body.copy_to_bytes(length)));
    }
    Body::from_stream(futures_util::stream::iter(received))
}

/// Says which method is missing, where the answer is only that one is.
fn name_the_method(headers: &mut HeaderMap, path: &str) {
    let unimplemented = HeaderValue::from(Code::Unimplemented as i32);
    if headers.get("grpc-status") != Some(&unimplemented) || headers.contains_key("grpc-message") {
        return;
    }
    let mut parts = path.trim_start_matches('/').splitn(2, '/');
    let (service, method) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    let message = match service {
        "bimrpc.BackingImageManagerService" => {
            format!("unknown method {method} for service {service}")
        }
        _ => format!("unknown service {service}"),
    };
    // A path that fits no header is not worth repeating.
    if let Ok(message) = HeaderValue::from_str(&message) {
        headers.insert("grpc-message", message);
    }
}

/// An answer that keeps its call counted until it is sent.
struct Counted {
    body: Body,
    _permit: Option<OwnedSemaphorePermit>,
}

impl hyper::body::Body for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is passed on of parts of these lengths: the bytes, and in how many parts.
    async fn passed_on(lengths: &[usize]) -> (Vec<u8>, usize) {
        let part = |length: &usize| Ok::<_, Infallible>(Bytes::from(vec![7; *length]));
        let parts: Vec<_> = lengths.iter().map(part).collect();
        let body = Body::from_stream(futures_util::stream::iter(parts));
        let received = body.collect().await.unwrap();
        let mut body = as_it_came(received.aggregate());
        let (mut bytes, mut parts) = (Vec::new(), 0);
        while let Some(frame) = body.frame().await {
            bytes.extend(frame.unwrap().into_data().unwrap());
            parts += 1;
        }
        (bytes, parts)
    }

    #[tokio::test]
    async fn large_parts_stay_as_they_came_and_crumbs_are_put_together() {
        assert_eq!(passed_on(&[]).await, (vec![], 0));
        assert_eq!(passed_on(&[0, 5, 0]).await, (vec![7; 5], 1));
        let (bytes, parts) = passed_on(&[16_000, 200_000, 16_000]).await;
        assert_eq!((bytes.len(), parts), (232_000, 3));
        let (bytes, parts) = passed_on(&vec![1; 200_000]).await;
        assert_eq!((bytes.len(), parts), (200_000, 4));
    }
}
