//! The bytes of a peer's answer, as they arrive.

use std::io;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::timeout;

use super::Error;
use super::address::PeerAddress;
use super::connect::Patience;
use super::connection::Connection;

/// Bytes of an error's text that are looked at.
const REASON_MAX: usize = 300;
/// What is read of bare bytes to find that some have come.
const FIRST: usize = 4096;

/// The bytes of a range: so many will come, or an error.
#[derive(Debug)]
pub enum Answer<S> {
    /// In a body of HTTP.
    Framed(Framed<S>),
    /// Behind an answer of 101.
    Bare(Bare<S>),
}

/// A body of HTTP that is being read.
#[derive(Debug)]
pub struct Framed<S> {
    pub(super) peer: PeerAddress,
    pub(super) body: Incoming,
    pub(super) left: u64,
    /// What came and was not taken yet.
    pub(super) pending: Bytes,
    pub(super) connection: Connection<S>,
    pub(super) patience: Patience,
}

/// Bytes that come without anything between them, each read straight to where it is wanted.
#[derive(Debug)]
pub struct Bare<S> {
    pub(super) peer: PeerAddress,
    pub(super) stream: S,
    /// Those that were not taken yet.
    pub(super) left: u64,
    /// What came and was not taken yet.
    pub(super) pending: Bytes,
    pub(super) patience: Patience,
}

impl<S: AsyncRead + Unpin> Answer<S> {
    /// Waits until more has come, without taking it: so that a buffer is taken only by who can fill it.
    pub async fn ready(&mut self) -> Result<(), Error> {
        match self {
            Self::Framed(answer) => answer.ready().await,
            Self::Bare(answer) => answer.ready().await,
        }
    }

    /// Appends exactly `length` bytes to `buffer`.
    pub async fn fill(&mut self, buffer: &mut Vec<u8>, length: usize) -> Result<(), Error> {
        let (peer, after) = match self {
            Self::Framed(answer) => (answer.peer.clone(), answer.patience.chunk),
            Self::Bare(answer) => (answer.peer.clone(), answer.patience.chunk),
        };
        let filling = async {
            buffer.reserve_exact(length);
            match self {
                Self::Framed(answer) => answer.fill(buffer, length).await,
                Self::Bare(answer) => answer.fill(buffer, length).await,
            }
        };
        timeout(after, filling)
            .await
            .unwrap_or(Err(Error::Stalled { peer, after }))
    }
}

fn early(peer: &PeerAddress) -> Error {
    Error::Broken {
        peer: peer.clone(),
        what: "its answer ends early".to_owned(),
    }
}

fn stalled(peer: &PeerAddress, after: Duration) -> Error {
    let peer = peer.clone();
    Error::Stalled { peer, after }
}

impl<S> Framed<S> {
    /// The next bytes; `None` at the end.
    pub(super) async fn some(&mut self) -> Result<Option<Bytes>, Error> {
        if !self.pending.is_empty() {
            return Ok(Some(std::mem::take(&mut self.pending)));
        }
        if self.left == 0 {
            return Ok(None);
        }
        loop {
            let after = self.patience.stall;
            let frame = timeout(after, self.body.frame()).await;
            let frame = frame.map_err(|_| stalled(&self.peer, after))?;
            let frame = frame.ok_or_else(|| early(&self.peer))?;
            let frame = frame.map_err(|source| Error::Cut {
                peer: self.peer.clone(),
                source: io::Error::other(source),
            })?;
            let Ok(bytes) = frame.into_data() else {
                continue;
            };
            if !bytes.is_empty() {
                // hyper holds the body to its Content-Length.
                self.left = self.left.saturating_sub(bytes.len() as u64);
                return Ok(Some(bytes));
            }
        }
    }

    async fn ready(&mut self) -> Result<(), Error> {
        if self.pending.is_empty()
            && let Some(bytes) = self.some().await?
        {
            self.pending = bytes;
        }
        Ok(())
    }

    async fn fill(&mut self, buffer: &mut Vec<u8>, length: usize) -> Result<(), Error> {
        let mut missing = length;
        while missing > 0 {
            let mut bytes = self.some().await?.ok_or_else(|| early(&self.peer))?;
            let now = bytes.split_to(bytes.len().min(missing));
            buffer.extend_from_slice(&now);
            missing -= now.len();
            self.pending = bytes;
        }
        Ok(())
    }
}

impl<S: AsyncRead + Unpin> Bare<S> {
    async fn ready(&mut self) -> Result<(), Error> {
        if self.pending.is_empty() && self.left > 0 {
            let mut first = BytesMut::with_capacity(FIRST);
            let most = FIRST.min(usize::try_from(self.left).unwrap_or(FIRST));
            self.read(&mut first, most).await?;
            self.pending = first.freeze();
        }
        Ok(())
    }

    async fn fill(&mut self, buffer: &mut Vec<u8>, length: usize) -> Result<(), Error> {
        if length as u64 > self.left {
            return Err(early(&self.peer));
        }
        let now = self.pending.split_to(self.pending.len().min(length));
        buffer.extend_from_slice(&now);
        let mut missing = length - now.len();
        while missing > 0 {
            missing -= self.read(buffer, missing).await?;
        }
        self.left -= length as u64;
        Ok(())
    }

    /// Appends at least one byte and at most `most`.
    async fn read(&mut self, to: &mut impl bytes::BufMut, most: usize) -> Result<usize, Error> {
        let after = self.patience.stall;
        let mut to = to.limit(most);
        let read = timeout(after, self.stream.read_buf(&mut to)).await;
        let read = match read.map_err(|_| stalled(&self.peer, after))? {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            read => read,
        };
        read.map_err(|source| Error::Cut {
            peer: self.peer.clone(),
            source,
        })
    }
}

/// What a peer says about an error, as far as it is fit to be shown.
pub(super) async fn reason(mut body: Incoming, stall: Duration) -> String {
    let mut said = Vec::new();
    while said.len() < REASON_MAX {
        match timeout(stall, body.frame()).await {
            Ok(Some(Ok(frame))) => {
                let bytes = frame.into_data().unwrap_or_default();
                said.extend_from_slice(&bytes[..bytes.len().min(REASON_MAX - said.len())]);
            }
            _ => break,
        }
    }
    let text = String::from_utf8_lossy(&said);
    let shown = |c: char| if c.is_control() { ' ' } else { c };
    text.trim().chars().map(shown).collect()
}
