//! The connections of a receiver: requests in, answers out.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};
use types::report;

use super::session::{Fault, Judged, Session};
use super::wire::{Call, Refusal};
use crate::error::Error;

/// Connections that are served at once; the Go sender has four. More wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 16;
/// What a connection may buffer.
const READ_BUFFER: usize = 256 << 10;
/// How long a sender may take for the head of a request, and between two pieces of a body.
const STALL: Duration = Duration::from_mins(1);
/// How long answers have to reach a sender when the copy is over.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How a copy ended.
pub(super) enum Ended {
    /// The sender said that it is done.
    Closed,
    /// Something failed here, or the sender has another file.
    Failed(Error),
}

/// What the connections of a receiver share.
pub(super) struct Shared {
    pub(super) session: Arc<Session>,
    /// When something came last.
    pub(super) last: watch::Sender<Instant>,
    /// Who opened the file: nobody else may write to it or close it.
    pub(super) sender: OnceLock<IpAddr>,
    pub(super) ended: mpsc::Sender<Ended>,
    pub(super) over: CancellationToken,
}

pub(super) async fn accept(listener: &TcpListener, shared: &Arc<Shared>) -> Infallible {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let connections = TaskTracker::new();
    loop {
        let place = places.clone().acquire_owned().await;
        match listener.accept().await {
            Ok((stream, peer)) => {
                let shared = shared.clone();
                connections.spawn(async move {
                    serve(stream, peer, shared).await;
                    drop(place);
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: others will give theirs back.
                warn!(%error, "cannot accept a connection");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, peer: SocketAddr, shared: Arc<Shared>) {
    // Small answers must not wait for acknowledgements.
    let _ = stream.set_nodelay(true);
    let handler = {
        let shared = shared.clone();
        service_fn(move |request| {
            let shared = shared.clone();
            async move { Ok::<_, Infallible>(shared.answer(peer.ip(), request).await) }
        })
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(STALL)
        .max_buf_size(READ_BUFFER)
        .max_headers(64)
        .serve_connection(TokioIo::new(stream), handler);
    let mut connection = std::pin::pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = shared.over.cancelled() => {
            connection.as_mut().graceful_shutdown();
            timeout(LAST_WORDS, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = served {
        debug!(%peer, %error, "a connection of a sender ended");
    }
}

type Body = BoxBody<Bytes, Infallible>;

impl Shared {
    async fn answer(&self, peer: IpAddr, request: Request<Incoming>) -> Response<Body> {
        let uri = request.uri();
        let call = Call::parse(request.method().as_str(), uri.path(), uri.query());
        let answered = match call {
            Ok(call) => self.perform(peer, call, request.into_body()).await,
            Err(refusal) => Err(refusal),
        };
        answered.unwrap_or_else(|refusal| refused(&refusal))
    }

    async fn perform(
        &self,
        peer: IpAddr,
        call: Call,
        body: Incoming,
    ) -> Result<Response<Body>, Refusal> {
        if let Some(sender) = self.sender.get()
            && *sender != peer
        {
            return Err(Refusal {
                status: 403,
                why: format!("{sender} sends this file"),
            });
        }
        self.touched();
        let empty = || Response::new(full(Bytes::new()));
        match call {
            Call::Open { size, .. } => {
                self.session
                    .take_turn()
                    .await
                    .map_err(|error| Refusal::failed(report(&error).to_string()))?;
                self.work(move |session| session.open(size)).await?;
                let _ = self.sender.set(peer);
                Ok(json("false".to_owned()))
            }
            Call::WriteData(range) => {
                self.write(range, body).await?;
                Ok(empty())
            }
            Call::SendHole(range) => {
                self.work(move |session| session.hole(&range)).await?;
                Ok(empty())
            }
            Call::GetChecksum(range) => {
                let sum = self.work(move |session| session.checksum(&range)).await?;
                Ok(json(sum))
            }
            Call::GetRecordedMetadata => Err(Refusal::failed(
                "there is no recorded metadata: this is no snapshot",
            )),
            // Who has not opened the file has nothing to close.
            Call::Close if self.sender.get().is_none() => {
                Err(Refusal::conflict("no file is open; open comes first"))
            }
            Call::Close => {
                let closed = self.work(Session::close).await;
                let _ = self.ended.try_send(Ended::Closed);
                closed?;
                // Chunked and empty, as the incumbent's answer to it is.
                let nothing = StreamBody::new(stream::empty::<Result<_, Infallible>>());
                Ok(Response::new(nothing.boxed()))
            }
        }
    }

    /// Hands a body on, piece by piece.
    async fn write(&self, range: Range<u64>, mut body: Incoming) -> Result<(), Refusal> {
        let mut at = range.start;
        loop {
            let frame = timeout(STALL, body.frame()).await.map_err(|_| Refusal {
                status: 408,
                why: format!("the body stalled at byte {at}"),
            })?;
            let Some(frame) = frame else { break };
            let ended = |error| Refusal::bad(format!("the body ended: {}", report(&error)));
            let Ok(bytes) = frame.map_err(ended)?.into_data() else {
                continue;
            };
            let (offset, next) = (at, at + bytes.len() as u64);
            if next > range.end {
                return Err(Refusal::bad(format!(
                    "the body is longer than {} to {}",
                    range.start, range.end
                )));
            }
            self.work(move |session| session.write(offset, &bytes))
                .await?;
            self.touched();
            at = next;
        }
        if at < range.end {
            return Err(Refusal::bad(format!(
                "the body has {} bytes instead of {}",
                at - range.start,
                range.end - range.start
            )));
        }
        Ok(())
    }

    fn touched(&self) {
        self.last.send_replace(Instant::now());
    }

    /// Does blocking work; what is fatal ends the copy and is told to the sender.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Session) -> Judged<T> + Send + 'static,
    ) -> Result<T, Refusal> {
        let session = self.session.clone();
        let done = tokio::task::spawn_blocking(move || work(&session)).await;
        match done.unwrap_or_else(|error| Err(Fault::Fatal(error.into()))) {
            Ok(value) => Ok(value),
            Err(Fault::Refused(refusal)) => Err(refusal),
            Err(Fault::Fatal(error)) => {
                let refusal = Refusal::failed(report(&error).to_string());
                let _ = self.ended.try_send(Ended::Failed(error));
                Err(refusal)
            }
        }
    }
}

fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed()
}

fn json(text: String) -> Response<Body> {
    let mut response = Response::new(full(text));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

/// An error as Go's servers spell one.
fn refused(refusal: &Refusal) -> Response<Body> {
    let mut response = Response::new(full(format!("{}\n", refusal.why)));
    *response.status_mut() =
        StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    headers.insert(CONTENT_TYPE, text);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
