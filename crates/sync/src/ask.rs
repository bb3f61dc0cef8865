//! Asking one peer: HTTP/1.1 requests over connections that are kept while they are good.
//!
//! Generic over how a connection is made, so that the simulation runs this code too. Whatever a peer
//! answers is checked here: an answer that is not of our protocol, too long, of another range or of
//! another image is an [`Error`], never a panic and never more memory than was offered.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HOST, HeaderMap, IF_MATCH, RANGE, UPGRADE,
};
use hyper::{Method, Request, Response, StatusCode};
use tokio::time::timeout;
use types::ImageId;

use super::Error;
use super::address::PeerAddress;
use super::answer::{Answer, Way, reason};
use super::bits::Bits;
use super::connect::{Connect, Patience};
use super::connection::Connection;
use super::manifest::{ManifestReader, manifest_length};
use super::protocol::{self, Geometry, Part, Refusal, Seal};
use chunks::Manifest;

/// Connections to a peer that are kept for the next request.
const KEPT_MAX: usize = 4;

/// A peer that is asked for one image.
#[derive(Debug)]
pub struct Asked<C: Connect> {
    address: PeerAddress,
    id: ImageId,
    connector: C,
    asking: Asking,
    kept: Mutex<Vec<Connection<C::Stream>>>,
}

/// How peers are asked.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asking {
    /// How long what is waited for.
    pub patience: Patience,
    /// The port at which we serve what we have got, if we do.
    pub port: Option<u16>,
}

/// What every good answer tells besides its body.
#[derive(Debug, Clone)]
pub struct Told {
    /// The shape of the image.
    pub geometry: Geometry,
    /// Which image it is, exactly.
    pub seal: Seal,
    /// Others that have it or are getting it.
    pub peers: Vec<PeerAddress>,
    /// Under which address the others are told of us.
    pub you: Option<PeerAddress>,
}

impl<C: Connect> Asked<C> {
    /// A peer, not connected yet.
    pub fn new(address: PeerAddress, id: ImageId, connector: C, asking: Asking) -> Arc<Self> {
        Arc::new(Self {
            address,
            id,
            connector,
            asking,
            kept: Mutex::default(),
        })
    }

    pub fn address(&self) -> &PeerAddress {
        &self.address
    }

    /// Asks for the manifest. `size`: of the image, when it is known.
    pub async fn manifest(&self, chunk: u32) -> Result<(Manifest, Told), Error> {
        let request = self.request(Method::GET, Part::Manifest, "");
        let (response, connection) = self.send(request).await?;
        let told = self.told(response.headers())?;
        if told.geometry.chunk != chunk {
            return Err(self.other_image(format!(
                "its chunks have {} bytes and ours {chunk}",
                told.geometry.chunk
            )));
        }
        let length = manifest_length(told.geometry);
        let mut answer = self.framed(response, connection, length)?;
        let mut reader = ManifestReader::new(told.geometry);
        while let Some(bytes) = answer.some().await? {
            reader.push(&bytes).map_err(|wrong| self.broken(wrong))?;
        }
        let (manifest, seal) = reader.finish().map_err(|wrong| self.broken(wrong))?;
        if seal != told.seal {
            return Err(self.broken("its entity tag is not the seal of its manifest"));
        }
        self.keep(answer).await;
        Ok((manifest, told))
    }

    /// Asks only what the manifest's answer would tell.
    pub async fn look(&self) -> Result<Told, Error> {
        let request = self.request(Method::HEAD, Part::Manifest, "");
        let (response, _) = self.send(request).await?;
        self.told(response.headers())
    }

    /// Asks which chunks it can send of the image with that seal.
    pub async fn have(&self, geometry: Geometry, seal: Seal) -> Result<(Bits, Told), Error> {
        let mut request = self.request(Method::GET, Part::Have, "");
        set(&mut request, IF_MATCH.as_str(), &seal.etag());
        let (response, connection) = self.send(request).await?;
        let told = self.same(response.headers(), geometry, seal)?;
        let length = u64::from(geometry.count().div_ceil(8));
        let mut answer = self.framed(response, connection, length)?;
        let mut bytes = Vec::new();
        while let Some(piece) = answer.some().await? {
            bytes.extend_from_slice(&piece);
        }
        let have = Bits::from_bytes(geometry.count(), &bytes)
            .ok_or_else(|| self.broken("it has chunks that the image does not have"))?;
        self.keep(answer).await;
        Ok((have, told))
    }

    /// Asks for chunks; they come with [`Answer::fill`].
    pub async fn data(
        &self,
        geometry: Geometry,
        seal: Seal,
        chunks: &Range<u32>,
    ) -> Result<(Answer<C::Stream>, Told), Error> {
        let bytes = geometry.bytes(chunks);
        let mut request = self.request(Method::GET, Part::Data, "");
        set(&mut request, IF_MATCH.as_str(), &seal.etag());
        set(
            &mut request,
            RANGE.as_str(),
            &protocol::range_header(&bytes),
        );
        set(&mut request, CONNECTION.as_str(), "upgrade");
        set(&mut request, UPGRADE.as_str(), protocol::BARE);
        let (response, connection) = self.send(request).await?;
        let told = self.same(response.headers(), geometry, seal)?;
        let expected = protocol::content_range(&bytes, geometry.size);
        if text(response.headers(), CONTENT_RANGE.as_str()) != expected {
            return Err(self.broken("it sends a different range than requested"));
        }
        let length = bytes.end - bytes.start;
        let answer = match response.status() {
            StatusCode::PARTIAL_CONTENT => self.framed(response, connection, length)?,
            StatusCode::SWITCHING_PROTOCOLS => self.bare(connection, length).await?,
            status => return Err(self.broken(format!("it answers {status} to a range"))),
        };
        Ok((answer, told))
    }

    /// Asks it to look at its own copy of a chunk: whether that is right.
    pub async fn check(&self, seal: Seal, index: u32) -> Result<bool, Error> {
        let query = format!("?chunk={index}");
        let mut request = self.request(Method::POST, Part::Check, &query);
        set(&mut request, IF_MATCH.as_str(), &seal.etag());
        match self.send(request).await {
            Ok(_) => Ok(true),
            Err(Error::Damaged(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What is asked here is ours alone, so that its parts are valid by construction.
    fn request(&self, method: Method, part: Part, query: &str) -> Request<Empty<Bytes>> {
        let uri = format!("{}{query}", protocol::path(&self.id, part));
        let mut request = Request::new(Empty::new());
        *request.method_mut() = method;
        *request.uri_mut() = uri.parse().expect("names are safe in a path");
        set(&mut request, HOST.as_str(), self.address.as_str());
        set(
            &mut request,
            protocol::PROTOCOL,
            &protocol::VERSION.to_string(),
        );
        if let Some(port) = self.asking.port {
            set(&mut request, protocol::PORT, &port.to_string());
        }
        request
    }

    /// Sends a request and reads the head of its answer; a refusal is an error.
    async fn send(
        &self,
        request: Request<Empty<Bytes>>,
    ) -> Result<(Response<Incoming>, Connection<C::Stream>), Error> {
        // A kept connection may have been closed by the peer meanwhile: then a new one is made.
        let kept = self.kept().pop();
        if let Some(mut connection) = kept
            && connection.is_open().await
        {
            match self.exchange(&mut connection, request.clone()).await {
                Ok(response) => return Ok((self.accept(response).await?, connection)),
                Err(Error::Cut { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let mut connection = self.connect().await?;
        let response = self.exchange(&mut connection, request).await?;
        Ok((self.accept(response).await?, connection))
    }

    async fn connect(&self) -> Result<Connection<C::Stream>, Error> {
        let connecting = self.connector.connect(&self.address);
        let stream = timeout(self.asking.patience.connect, connecting)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|source| {
                let peer = self.address.clone();
                Error::Connect { peer, source }
            })?;
        let connection = Connection::new(stream).await;
        connection.map_err(|source| self.cut(source))
    }

    async fn exchange(
        &self,
        connection: &mut Connection<C::Stream>,
        request: Request<Empty<Bytes>>,
    ) -> Result<Response<Incoming>, Error> {
        let stall = self.asking.patience.stall;
        match timeout(stall, connection.exchange(request)).await {
            Err(_) => Err(self.stalled()),
            Ok(answer) => answer.map_err(|source| self.cut(source)),
        }
    }

    /// Turns a refusal into an error, and refuses who does not speak the protocol.
    async fn accept(&self, response: Response<Incoming>) -> Result<Response<Incoming>, Error> {
        let peer = self.address.clone();
        let version = text(response.headers(), protocol::PROTOCOL);
        if version.is_empty() {
            // Said before the protocol begins: 426 where it is spoken inside of TLS alone.
            if let 401 | 403 | 426 = response.status().as_u16() {
                let why = reason(response.into_body(), self.asking.patience.stall).await;
                return Err(Error::Refused { peer, why });
            }
            return Err(Error::Foreign(peer));
        }
        let refusal = Refusal::of(text(response.headers(), protocol::ERROR));
        let spoken = version.parse().is_ok_and(|version: u32| {
            version <= protocol::VERSION
                && protocol::negotiate(protocol::VERSION, version).is_some()
        });
        if !spoken || refusal == Some(Refusal::Version) {
            return Err(Error::Version {
                peer,
                theirs: version.chars().take(20).collect(),
                ours: protocol::VERSION,
            });
        }
        if response.status().is_success() || response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(response);
        }
        let status = response.status();
        let why = reason(response.into_body(), self.asking.patience.stall).await;
        let what = || format!("it answers {status}: {why}");
        Err(match refusal {
            Some(Refusal::NoImage) => Error::NotThere { peer, why },
            Some(Refusal::NoChunk) => Error::NoChunk(peer),
            Some(Refusal::OtherImage) => Error::OtherImage { peer, what: why },
            Some(Refusal::Busy) => Error::Busy(peer),
            Some(Refusal::Damaged) => Error::Damaged(peer),
            Some(Refusal::Disk) => {
                let what = what();
                Error::NotThere { peer, why: what }
            }
            Some(Refusal::Request | Refusal::Version) | None => {
                let what = what();
                Error::Broken { peer, what }
            }
        })
    }

    fn told(&self, headers: &HeaderMap) -> Result<Told, Error> {
        let number = |name| text(headers, name).parse::<u64>().ok();
        let size = number(protocol::IMAGE_SIZE);
        let chunk = number(protocol::CHUNK_SIZE).and_then(|chunk| u32::try_from(chunk).ok());
        let geometry = size
            .zip(chunk)
            .and_then(|(size, chunk)| Geometry::new(size, chunk))
            .ok_or_else(|| self.broken("it does not report the size of the image"))?;
        let seal = Seal::from_etag(text(headers, ETAG.as_str()))
            .ok_or_else(|| self.broken("its answer has no entity tag"))?;
        let peers = text(headers, protocol::PEERS)
            .split(',')
            .take(protocol::PEERS_MAX)
            .filter_map(|peer| peer.trim().parse().ok())
            .collect();
        Ok(Told {
            geometry,
            seal,
            peers,
            you: text(headers, protocol::YOU).parse().ok(),
        })
    }

    /// The same, of the image that is meant.
    fn same(&self, headers: &HeaderMap, geometry: Geometry, seal: Seal) -> Result<Told, Error> {
        let told = self.told(headers)?;
        if told.geometry != geometry || told.seal != seal {
            return Err(self.other_image("its manifest differs".to_owned()));
        }
        Ok(told)
    }

    /// The body of an answer that must have `length` bytes.
    fn framed(
        &self,
        response: Response<Incoming>,
        connection: Connection<C::Stream>,
        length: u64,
    ) -> Result<Answer<C::Stream>, Error> {
        let claimed = text(response.headers(), CONTENT_LENGTH.as_str());
        if claimed.parse() != Ok(length) {
            return Err(self.broken(format!(
                "it sends {} bytes where there are {length}",
                claimed.chars().take(20).collect::<String>()
            )));
        }
        let way = Way::Framed(response.into_body(), connection);
        Ok(self.answer(way, length, Bytes::new()))
    }

    /// The `length` bytes that follow an answer of 101.
    async fn bare(
        &self,
        connection: Connection<C::Stream>,
        length: u64,
    ) -> Result<Answer<C::Stream>, Error> {
        let stream = timeout(self.asking.patience.stall, connection.into_stream()).await;
        let (stream, pending) = stream
            .map_err(|_| self.stalled())?
            .map_err(|source| self.cut(source))?;
        // A connection on which more came than the range is not kept.
        let left = length.saturating_sub(pending.len() as u64);
        Ok(self.answer(Way::Bare(stream), left, pending))
    }

    fn answer(&self, way: Way<C::Stream>, left: u64, pending: Bytes) -> Answer<C::Stream> {
        Answer {
            peer: self.address.clone(),
            way,
            left,
            pending,
            patience: self.asking.patience,
        }
    }

    /// Keeps the connection of an answer that was read to its end.
    pub async fn keep(&self, answer: Answer<C::Stream>) {
        if answer.left > 0 || !answer.pending.is_empty() {
            return;
        }
        let connection = match answer.way {
            Way::Framed(_, connection) => connection,
            Way::Bare(stream) => match Connection::new(stream).await {
                Ok(connection) => connection,
                Err(_) => return,
            },
        };
        let mut kept = self.kept();
        if kept.len() < KEPT_MAX {
            kept.push(connection);
        }
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Connection<C::Stream>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cut(&self, source: io::Error) -> Error {
        let peer = self.address.clone();
        Error::Cut { peer, source }
    }

    fn stalled(&self) -> Error {
        Error::Stalled {
            peer: self.address.clone(),
            after: self.asking.patience.stall,
        }
    }

    fn broken(&self, what: impl Into<String>) -> Error {
        Error::Broken {
            peer: self.address.clone(),
            what: what.into(),
        }
    }

    fn other_image(&self, what: String) -> Error {
        Error::OtherImage {
            peer: self.address.clone(),
            what,
        }
    }
}

fn set<B>(request: &mut Request<B>, name: &'static str, value: &str) {
    let value = value
        .parse()
        .expect("addresses and numbers are safe in a header");
    request.headers_mut().insert(name, value);
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default()
}
