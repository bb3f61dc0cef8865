//! The request of a peer, parsed once, and the heads of the answers.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{ConnectInfo, FromRequestParts, Path};
use axum::http::header::{
    ACCEPT_RANGES, CONNECTION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap,
    HeaderName, IF_MATCH, RETRY_AFTER, UPGRADE,
};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Response};
use axum::response::IntoResponse;
use trust::Caller;
use types::ImageId;

use super::Server;
use crate::offer::{Library, Offer};
use crate::protocol::{self, Refusal, Seal};

/// A request that makes sense, about an image that is here.
pub(super) struct Asked {
    pub(super) id: ImageId,
    pub(super) offer: Arc<dyn Offer>,
    version: u32,
    /// Where the asker serves what it has got.
    pub(super) asker: Option<SocketAddr>,
    others: Vec<SocketAddr>,
}

/// A request that is not answered as it was meant, and why.
#[derive(Debug)]
pub(super) struct Refused {
    refusal: Refusal,
    why: String,
}

impl<L: Library> FromRequestParts<Server<L>> for Asked {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, server: &Server<L>) -> Result<Self, Refused> {
        let names = Path::<(String, String)>::from_request_parts(parts, server).await;
        let Path((name, uuid)) = names.map_err(|error| Refused::request(error.to_string()))?;
        let headers = &parts.headers;
        let version = negotiated(text_of(headers, protocol::PROTOCOL))?;
        let id = ImageId::new(&name, &uuid).map_err(|error| Refused::request(error.to_string()))?;
        let caller = parts.extensions.get::<Caller>();
        let caller = caller.unwrap_or(&Caller::Anybody);
        let found = server.library.find(&id, caller).await;
        let offer = found.map_err(|why| Refused::new(Refusal::NoImage, why))?;
        let meant = text(headers, &IF_MATCH);
        if !meant.is_empty() && Seal::from_etag(meant) != Some(offer.seal()) {
            let why = "the image here has another manifest";
            return Err(Refused::new(Refusal::OtherImage, why));
        }
        let remote = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        let port: Option<u16> = text_of(headers, protocol::PORT).parse().ok();
        let asker = remote
            .zip(port.filter(|port| *port > 0))
            .map(|(remote, port)| SocketAddr::new(remote.0.ip().to_canonical(), port));
        if let Some(asker) = asker {
            server.swarm.interested(&id, asker.ip(), asker.port());
        }
        let others = server.swarm.others(&id, asker);
        Ok(Self {
            id,
            offer,
            version,
            asker,
            others,
        })
    }
}

/// The version that is spoken with somebody who says to speak `theirs`.
fn negotiated(theirs: &str) -> Result<u32, Refused> {
    let ours = protocol::VERSION;
    // Somebody with curl.
    if theirs.is_empty() {
        return Ok(ours);
    }
    let theirs = theirs
        .parse()
        .map_err(|_| Refused::request("its protocol version is not a number"))?;
    protocol::negotiate(ours, theirs).ok_or_else(|| {
        let why = format!("this manager speaks version {ours} of the sync protocol");
        Refused::new(Refusal::Version, why)
    })
}

impl Asked {
    /// An answer with everything that its head tells of the image, and of who else wants it.
    pub(super) fn answer(&self, status: u16, length: u64, body: Body) -> Response<Body> {
        let mut answer = self.head(status, body);
        insert(&mut answer, CONTENT_LENGTH, &length.to_string());
        answer
    }

    /// An answer that is followed by the bare bytes of a range (RFC 9110, section 15.2.2).
    pub(super) fn switch(&self, range: &str) -> Response<Body> {
        let mut answer = self.head(101, Body::empty());
        insert(&mut answer, CONNECTION, "upgrade");
        insert(&mut answer, UPGRADE, protocol::BARE);
        insert(&mut answer, CONTENT_RANGE, range);
        answer
    }

    fn head(&self, status: u16, body: Body) -> Response<Body> {
        let geometry = self.offer.geometry();
        let mut answer = plain(status, self.version, body);
        insert(&mut answer, CONTENT_TYPE, "application/octet-stream");
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

impl Refused {
    pub(super) fn new(refusal: Refusal, why: impl Into<String>) -> Self {
        let why = why.into();
        Self { refusal, why }
    }

    /// The two disagree about the protocol.
    pub(super) fn request(why: impl Into<String>) -> Self {
        Self::new(Refusal::Request, why)
    }

    pub(super) fn busy() -> Self {
        let why = "too much is being sent already; try again";
        Self::new(Refusal::Busy, why)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response<Body> {
        let body = Body::from(format!("{}\n", self.why));
        let mut answer = plain(self.refusal.status(), protocol::VERSION, body);
        let own = HeaderName::from_static(protocol::ERROR);
        insert(&mut answer, own, self.refusal.word());
        if self.refusal == Refusal::Busy {
            insert(&mut answer, RETRY_AFTER, "1");
        }
        answer
    }
}

fn plain(status: u16, version: u32, body: Body) -> Response<Body> {
    let mut answer = Response::new(body);
    *answer.status_mut() = status
        .try_into()
        .expect("statuses are written in this program");
    let own = HeaderName::from_static(protocol::PROTOCOL);
    insert(&mut answer, own, &version.to_string());
    answer
}

/// Sets a header of ours.
pub(super) fn insert(answer: &mut Response<Body>, name: HeaderName, value: &str) {
    let value = HeaderValue::from_str(value).expect("made of digits, names and addresses");
    answer.headers_mut().insert(name, value);
}

/// A header's text; empty where there is none, or none that is text.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> &'a str {
    text_of(headers, name.as_str())
}

fn text_of<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default()
}
