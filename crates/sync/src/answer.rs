//! The bytes of a peer's answer, as they arrive.

use std::io;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
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

/// An answer that is being read: so many bytes will come, or an error.
#[derive(Debug)]
pub struct Answer<S> {
    pub(super) peer: PeerAddress,
    pub(super) way: Way<S>,
    /// Bytes that have not come.
    pub(super) left: u64,
    /// What came and was not taken yet.
    pub(super) pending: Bytes,
    pub(super) patience: Patience,
}

/// How the bytes of an answer come.
#[derive(Debug)]
pub(super) enum Way<S> {
    /// In a body of HTTP.
    Framed(Incoming, Connection<S>),
    /// Behind an answer of 101, without anything between them.
    Bare(S),
}

impl<S: AsyncRead + Unpin> Answer<S> {
    /// The next bytes; `None` at the end.
    pub(super) async fn some(&mut self) -> Result<Option<Bytes>, Error> {
        if !self.pending.is_empty() {
            return Ok(Some(std::mem::take(&mut self.pending)));
        }
        if self.left == 0 {
            return Ok(None);
        }
        if let Way::Bare(_) = self.way {
            let mut first = BytesMut::with_capacity(FIRST);
            self.read(&mut first, FIRST).await?;
            return Ok(Some(first.freeze()));
        }
        self.framed().await.map(Some)
    }

    /// Waits until more has come, without taking it: so that a buffer is taken only by who can fill it.
    pub async fn ready(&mut self) -> Result<(), Error> {
        if let Some(bytes) = self.some().await? {
            self.pending = bytes;
        }
        Ok(())
    }

    /// Appends exactly `length` bytes to `buffer`.
    pub async fn fill(&mut self, buffer: &mut Vec<u8>, length: usize) -> Result<(), Error> {
        let (peer, after) = (self.peer.clone(), self.patience.chunk);
        let filling = async {
            buffer.reserve_exact(length);
            let mut missing = length;
            while missing > 0 {
                // Bare bytes are read straight to where they are wanted.
                if self.pending.is_empty() && self.left > 0 && matches!(self.way, Way::Bare(_)) {
                    missing -= self.read(buffer, missing).await?;
                    continue;
                }
                let mut bytes = self.some().await?.ok_or_else(|| self.early())?;
                let now = bytes.split_to(bytes.len().min(missing));
                buffer.extend_from_slice(&now);
                missing -= now.len();
                self.pending = bytes;
            }
            Ok(())
        };
        timeout(after, filling)
            .await
            .unwrap_or(Err(Error::Stalled { peer, after }))
    }

    /// The next bytes of a body.
    async fn framed(&mut self) -> Result<Bytes, Error> {
        let after = self.patience.stall;
        loop {
            let Way::Framed(body, _) = &mut self.way else {
                return Err(self.early());
            };
            let frame = timeout(after, body.frame()).await;
            let frame = frame.map_err(|_| self.stalled())?;
            let frame = frame.ok_or_else(|| self.early())?;
            let frame = frame.map_err(|source| self.cut(io::Error::other(source)))?;
            let Ok(bytes) = frame.into_data() else {
                continue;
            };
            if !bytes.is_empty() {
                // hyper holds the body to its Content-Length.
                self.left = self.left.saturating_sub(bytes.len() as u64);
                return Ok(bytes);
            }
        }
    }

    /// Appends at least one bare byte, at most `most`, and none that is not of the answer.
    async fn read(&mut self, to: &mut impl BufMut, most: usize) -> Result<usize, Error> {
        let after = self.patience.stall;
        let most = most.min(usize::try_from(self.left).unwrap_or(most));
        let Way::Bare(stream) = &mut self.way else {
            return Err(self.early());
        };
        let mut to = to.limit(most);
        let read = timeout(after, stream.read_buf(&mut to)).await;
        let read = match read.map_err(|_| self.stalled())? {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            read => read,
        };
        let read = read.map_err(|source| self.cut(source))?;
        self.left -= read as u64;
        Ok(read)
    }

    fn early(&self) -> Error {
        Error::Broken {
            peer: self.peer.clone(),
            what: "its answer ends early".to_owned(),
        }
    }

    fn stalled(&self) -> Error {
        let (peer, after) = (self.peer.clone(), self.patience.stall);
        Error::Stalled { peer, after }
    }

    fn cut(&self, source: io::Error) -> Error {
        let peer = self.peer.clone();
        Error::Cut { peer, source }
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
