//! The server: images, whole or on their way, in answers to plain HTTP/1.1 requests.
//!
//! A range is sent in pieces by a task of its own that is never more than a few pieces ahead of the
//! socket, gives up a receiver that takes nothing, and ends when the image is deleted. docs/sync.md
//! is the reference of what is answered here.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Path, Request, State};
use axum::http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, HeaderName,
    IF_MATCH, RANGE, RETRY_AFTER,
};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tracing::{debug, warn};
use types::ImageId;

use super::manifest::manifest_length;
use super::offer::{Library, Offer};
use super::protocol::{self, Refusal, Seal};
use super::swarm::Swarm;
use crate::observe::counters;

/// Pieces that wait between the disk and the socket.
const AHEAD: usize = 1;

#[derive(Debug, Clone)]
struct Server<L> {
    swarm: Swarm,
    library: L,
}

/// A refusal and its text.
type Refused = (Refusal, String);

/// The routes of the protocol. To be served with connect info, so that receivers can help each other.
pub fn router<L: Library>(swarm: Swarm, library: L) -> Router {
    Router::new()
        .route("/v2/images/{name}/{uuid}/manifest", get(manifest::<L>))
        .route("/v2/images/{name}/{uuid}/have", get(have::<L>))
        .route("/v2/images/{name}/{uuid}/data", get(data::<L>))
        .route("/v2/images/{name}/{uuid}/check", post(check::<L>))
        .with_state(Server { swarm, library })
}

type Names = Path<(String, String)>;

async fn manifest<L: Library>(
    State(server): State<Server<L>>,
    Path(names): Names,
    request: Request,
) -> Response<Body> {
    let (request, _) = request.into_parts();
    let answer = async {
        let asked = server.asked(&names, &request).await?;
        let length = manifest_length(asked.offer.geometry());
        if request.method == Method::HEAD {
            return Ok(asked.answer(200, length, Body::empty()));
        }
        let body = server.stream(&asked, 0..length, Kind::Manifest)?;
        Ok(asked.answer(200, length, body))
    };
    answer.await.unwrap_or_else(refuse)
}

async fn have<L: Library>(
    State(server): State<Server<L>>,
    Path(names): Names,
    request: Request,
) -> Response<Body> {
    let (request, _) = request.into_parts();
    let answer = async {
        let asked = server.asked(&names, &request).await?;
        let count = asked.offer.geometry().count();
        let have = asked.offer.have();
        let bits = have.unwrap_or_else(|| super::bits::Bits::all(count));
        let bytes = bits.to_bytes();
        let length = bytes.len() as u64;
        Ok(asked.answer(200, length, Body::from(bytes)))
    };
    answer.await.unwrap_or_else(refuse)
}

async fn data<L: Library>(
    State(server): State<Server<L>>,
    Path(names): Names,
    request: Request,
) -> Response<Body> {
    let (request, _) = request.into_parts();
    let answer = async {
        let asked = server.asked(&names, &request).await?;
        let geometry = asked.offer.geometry();
        let range = text(&request.headers, &RANGE);
        let (status, bytes) = match range {
            "" => (200, 0..geometry.size),
            range => {
                let bytes = protocol::parse_range(range, geometry.size);
                let bytes = bytes.ok_or_else(|| refused("that is no range of the image"))?;
                (206, bytes)
            }
        };
        let chunks = geometry
            .chunks(&bytes)
            .ok_or_else(|| refused("a range must be made of whole chunks"))?;
        let have = asked.offer.have();
        if let Some(have) = have
            && !chunks.clone().all(|index| have.contains(index))
        {
            let why = "not all of these chunks are here";
            return Err((Refusal::NoChunk, why.to_owned()));
        }
        let length = bytes.end - bytes.start;
        let range = protocol::content_range(&bytes, geometry.size);
        let body = if request.method == Method::HEAD {
            Body::empty()
        } else {
            server.stream(&asked, bytes, Kind::Data)?
        };
        let mut answer = asked.answer(status, length, body);
        if status == 206 {
            insert(&mut answer, CONTENT_RANGE, &range);
        }
        Ok(answer)
    };
    answer.await.unwrap_or_else(refuse)
}

async fn check<L: Library>(
    State(server): State<Server<L>>,
    Path(names): Names,
    request: Request,
) -> Response<Body> {
    let (request, _) = request.into_parts();
    let answer = async {
        let asked = server.asked(&names, &request).await?;
        let query = request.uri.query().unwrap_or_default();
        let index = query.strip_prefix("chunk=").unwrap_or_default();
        let index = index
            .parse()
            .ok()
            .filter(|index: &u32| *index < asked.offer.geometry().count())
            .ok_or_else(|| refused("say which chunk: ?chunk=N"))?;
        if !asked.offer.has(index) {
            return Err((Refusal::NoChunk, "the chunk is not here".to_owned()));
        }
        let turn = server.swarm.checks().try_acquire();
        let _turn = turn.map_err(|_| busy())?;
        match asked.offer.check(index).await {
            Ok(true) => Ok(asked.answer(200, 0, Body::empty())),
            Ok(false) => {
                server.swarm.metrics().own_damaged.add(1);
                Err((Refusal::Damaged, format!("chunk {index} is damaged here")))
            }
            Err(error) => Err((Refusal::Disk, format!("chunk {index}: {error}"))),
        }
    };
    answer.await.unwrap_or_else(refuse)
}

/// A request that makes sense, about an image that is here.
struct Asked {
    id: ImageId,
    offer: Arc<dyn Offer>,
    version: u32,
    /// Where the asker serves what it has got.
    asker: Option<SocketAddr>,
    others: Vec<SocketAddr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Manifest,
    Data,
}

impl<L: Library> Server<L> {
    async fn asked(
        &self,
        (name, uuid): &(String, String),
        request: &Parts,
    ) -> Result<Asked, Refused> {
        let headers = &request.headers;
        let theirs = match text_of(headers, protocol::PROTOCOL) {
            // Somebody with curl.
            "" => protocol::VERSION,
            text => text
                .parse()
                .map_err(|_| refused("its version of the protocol is no number"))?,
        };
        let version = protocol::negotiate(protocol::VERSION, theirs).ok_or_else(|| {
            let ours = protocol::VERSION;
            let why = format!("this manager speaks version {ours} of the sync protocol");
            (Refusal::Version, why)
        })?;
        let id = ImageId::new(name, uuid).map_err(|error| refused(error.to_string()))?;
        let offer = self.library.find(&id).await;
        let offer = offer.map_err(|why| (Refusal::NoImage, why))?;
        let meant = text(headers, &IF_MATCH);
        if !meant.is_empty() && Seal::from_etag(meant) != Some(offer.seal()) {
            let why = "the image here has another manifest";
            return Err((Refusal::OtherImage, why.to_owned()));
        }
        let remote = request.extensions.get::<ConnectInfo<SocketAddr>>();
        let port: Option<u16> = text_of(headers, protocol::PORT).parse().ok();
        let asker = remote
            .zip(port.filter(|port| *port > 0))
            .map(|(remote, port)| SocketAddr::new(remote.0.ip().to_canonical(), port));
        if let Some(asker) = asker {
            self.swarm.interested(&id, asker.ip(), asker.port());
        }
        let others = self.swarm.others(&id, asker);
        Ok(Asked {
            id,
            offer,
            version,
            asker,
            others,
        })
    }

    /// A body of that part of the image, and the task that fills it.
    fn stream(&self, asked: &Asked, bytes: Range<u64>, kind: Kind) -> Result<Body, Refused> {
        let Ok(permit) = self.swarm.serves().try_acquire_owned() else {
            self.swarm.metrics().refused_busy.add(1);
            return Err(busy());
        };
        let (pieces, body) = mpsc::channel(AHEAD);
        let (swarm, offer) = (self.swarm.clone(), Arc::clone(&asked.offer));
        let (id, to) = (asked.id.clone(), asked.asker);
        tokio::spawn(async move {
            let _permit = permit;
            let ended = offer.ended();
            let sending = send(&swarm, &*offer, bytes, kind, &pieces);
            let sent = tokio::select! {
                biased;
                () = ended.cancelled() => Err("the image is being deleted".to_owned()),
                sent = sending => sent,
            };
            if let Err(why) = sent {
                debug!(image = %id, ?to, why, "sending was broken off");
                // The receiver sees a body that ends early, and asks again where it is best.
                let cut = std::io::Error::other(why);
                let _ = pieces.try_send(Err(cut));
            }
        });
        Ok(Body::from_stream(ReceiverStream::new(body)))
    }
}

/// Reads and sends piece after piece. Each wait is bounded.
async fn send(
    swarm: &Swarm,
    offer: &dyn Offer,
    bytes: Range<u64>,
    kind: Kind,
    pieces: &mpsc::Sender<std::io::Result<Bytes>>,
) -> Result<(), String> {
    let settings = swarm.settings();
    let mut offset = bytes.start;
    while offset < bytes.end {
        let left = usize::try_from(bytes.end - offset).unwrap_or(usize::MAX);
        let length = left.min(settings.piece);
        swarm.rate().take(length).await;
        let place = timeout(settings.send_stall, pieces.reserve())
            .await
            .map_err(|_| "the receiver takes nothing".to_owned())?
            .map_err(|_| "the receiver is gone".to_owned())?;
        let read = match kind {
            Kind::Manifest => offer.manifest(offset, length).await,
            Kind::Data => offer.read(offset, length).await,
        };
        let piece = read.map_err(|error| {
            warn!(%error, offset, "an image cannot be read for a peer");
            format!("it cannot be read at {offset}: {error}")
        })?;
        offset += piece.len() as u64;
        if kind == Kind::Data {
            swarm.metrics().sent_bytes.add(piece.len() as u64);
            counters::sent(piece.len() as u64);
        }
        place.send(Ok(piece));
    }
    Ok(())
}

impl Asked {
    fn answer(&self, status: u16, length: u64, body: Body) -> Response<Body> {
        let geometry = self.offer.geometry();
        let mut answer = plain(status, self.version, body);
        insert(&mut answer, CONTENT_TYPE, "application/octet-stream");
        insert(&mut answer, CONTENT_LENGTH, &length.to_string());
        insert(&mut answer, ETAG, &self.offer.seal().etag());
        insert(&mut answer, ACCEPT_RANGES, "bytes");
        let own = HeaderName::from_static;
        let size = geometry.size.to_string();
        insert(&mut answer, own(protocol::IMAGE_SIZE), &size);
        let chunk = geometry.chunk.to_string();
        insert(&mut answer, own(protocol::CHUNK_SIZE), &chunk);
        if let Some(asker) = self.asker {
            insert(&mut answer, own(protocol::YOU), &asker.to_string());
        }
        if !self.others.is_empty() {
            let others: Vec<String> = self.others.iter().map(ToString::to_string).collect();
            insert(&mut answer, own(protocol::PEERS), &others.join(","));
        }
        answer
    }
}

fn plain(status: u16, version: u32, body: Body) -> Response<Body> {
    let mut answer = Response::new(body);
    *answer.status_mut() = status
        .try_into()
        .expect("statuses are written in this file");
    let own = HeaderName::from_static(protocol::PROTOCOL);
    insert(&mut answer, own, &version.to_string());
    answer
}

fn refuse((refusal, why): Refused) -> Response<Body> {
    let body = Body::from(format!("{why}\n"));
    let mut answer = plain(refusal.status(), protocol::VERSION, body);
    let own = HeaderName::from_static(protocol::ERROR);
    insert(&mut answer, own, refusal.word());
    if refusal == Refusal::Busy {
        insert(&mut answer, RETRY_AFTER, "1");
    }
    answer
}

fn refused(why: impl Into<String>) -> Refused {
    (Refusal::Request, why.into())
}

fn busy() -> Refused {
    let why = "too much is being sent already; try again";
    (Refusal::Busy, why.to_owned())
}

fn insert(answer: &mut Response<Body>, name: HeaderName, value: &str) {
    let value = HeaderValue::from_str(value).expect("made of digits, names and addresses");
    answer.headers_mut().insert(name, value);
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> &'a str {
    text_of(headers, name.as_str())
}

fn text_of<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default()
}
