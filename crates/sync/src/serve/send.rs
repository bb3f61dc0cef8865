//! The bytes that are sent: in the body of an answer, by a task of its own, or bare, behind an answer of 101. They are
//! never more than a few pieces ahead of the socket, a receiver that accepts no data is given up, and they end when
//! the image is deleted.
//!
//! Bare bytes that the kernel has in memory go from there to a connection without TLS (sendfile(2)): they are
//! never copied on this side.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use axum::body::Body;
use axum::http::Method;
use bytes::Bytes;
use listen::takeover::Socket;
use tokio::io::{AsyncWriteExt as _, Interest};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tracing::{debug, warn};
use types::ImageId;

use super::Server;
use super::asked::{Asked, Refused};
use crate::offer::Offer;
use crate::swarm::Swarm;

/// Pieces that wait between the disk and the socket.
const AHEAD: usize = 1;

/// What a range is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Manifest,
    Data,
}

impl<L> Server<L> {
    /// A body of that part of the image, and the task that fills it. A HEAD has none.
    pub(super) fn body(
        &self,
        asked: &Asked,
        method: &Method,
        bytes: Range<u64>,
        kind: Kind,
    ) -> Result<Body, Refused> {
        if method == Method::HEAD {
            return Ok(Body::empty());
        }
        let sending = self.sending(asked, kind)?;
        let (pieces, body) = mpsc::channel(AHEAD);
        // It ends with its connection, or when the image is deleted.
        tokio::spawn(async move {
            if let Err(cut) = sending.until_ended(sending.to_body(bytes, &pieces)).await {
                // The receiver sees a body that ends early, and asks again where it is best.
                let _ = pieces.try_send(Err(cut));
            }
        });
        Ok(Body::from_stream(ReceiverStream::new(body)))
    }

    /// What sends a part of the image, if so much may be sent now.
    pub(super) fn sending(&self, asked: &Asked, kind: Kind) -> Result<Sending, Refused> {
        let Ok(permit) = self.swarm.serves().try_acquire_owned() else {
            self.swarm.metrics().refused_busy.add(1);
            return Err(Refused::busy());
        };
        Ok(Sending {
            swarm: self.swarm.clone(),
            offer: asked.offer.clone(),
            id: asked.id.clone(),
            kind,
            _permit: permit,
        })
    }
}

/// One range on its way. Each wait is bounded.
pub(super) struct Sending {
    swarm: Swarm,
    offer: Arc<dyn Offer>,
    id: ImageId,
    kind: Kind,
    _permit: OwnedSemaphorePermit,
}

impl Sending {
    /// Sends bare bytes.
    pub(super) async fn bare(self, bytes: Range<u64>, socket: &mut dyn Socket) -> io::Result<()> {
        self.until_ended(self.to_socket(bytes, socket)).await
    }

    /// Breaks it off when the image is deleted.
    async fn until_ended(&self, sent: impl Future<Output = Result<(), String>>) -> io::Result<()> {
        let ended = self.offer.ended();
        let sent = tokio::select! {
            biased;
            () = ended.cancelled() => Err("the image is being deleted".to_owned()),
            sent = sent => sent,
        };
        sent.map_err(|why| {
            debug!(image = %self.id, why, "sending was broken off");
            io::Error::other(why)
        })
    }

    async fn to_body(
        &self,
        bytes: Range<u64>,
        pieces: &mpsc::Sender<io::Result<Bytes>>,
    ) -> Result<(), String> {
        let mut offset = bytes.start;
        while offset < bytes.end {
            let length = self.next(offset..bytes.end).await;
            let place = self.accepted(pieces.reserve()).await?;
            let piece = self.read(offset, length).await?;
            offset += piece.len() as u64;
            self.count(piece.len());
            place.send(Ok(piece));
        }
        Ok(())
    }

    async fn to_socket(&self, bytes: Range<u64>, socket: &mut dyn Socket) -> Result<(), String> {
        let mut offset = bytes.start;
        while offset < bytes.end {
            let length = self.next(offset..bytes.end).await;
            let in_memory = self.offer.in_memory(offset, length);
            if let (Some(plain), Some(file)) = (socket.plain(), in_memory) {
                self.accepted(send_file(plain, file, offset, length))
                    .await?;
            } else {
                let piece = self.read(offset, length).await?;
                self.accepted(socket.write_all(&piece)).await?;
            }
            offset += length as u64;
            self.count(length);
        }
        self.accepted(socket.flush()).await
    }

    /// How many bytes go next, once so many may.
    async fn next(&self, left: Range<u64>) -> usize {
        let left = usize::try_from(left.end - left.start).unwrap_or(usize::MAX);
        let length = left.min(self.swarm.settings().piece);
        self.swarm.rate().take(length).await;
        length
    }

    async fn read(&self, offset: u64, length: usize) -> Result<Bytes, String> {
        let piece = match self.kind {
            Kind::Manifest => self.offer.manifest(offset, length).await,
            Kind::Data => self.offer.read(offset, length).await,
        };
        piece.map_err(|error| {
            warn!(%error, offset, "an image cannot be read for a peer");
            format!("it cannot be read at {offset}: {error}")
        })
    }

    fn count(&self, length: usize) {
        if self.kind != Kind::Manifest {
            self.swarm.metrics().sent_bytes.add(length as u64);
        }
    }

    /// Waits for the receiver as long as it may take.
    async fn accepted<T, E: std::fmt::Display>(
        &self,
        taken: impl Future<Output = Result<T, E>>,
    ) -> Result<T, String> {
        timeout(self.swarm.settings().send_stall, taken)
            .await
            .map_err(|_| "the receiver accepts no data".to_owned())?
            .map_err(|error| format!("the receiver is gone: {error}"))
    }
}

/// Sends a part of a file, from the kernel's memory (sendfile(2)).
async fn send_file(to: &TcpStream, file: &File, offset: u64, length: usize) -> io::Result<()> {
    let (mut at, end) = (offset, offset + length as u64);
    while at < end {
        let most = usize::try_from(end - at).unwrap_or(length);
        // It moves the offset on.
        let send = || match rustix::fs::sendfile(to, file, Some(&mut at), most)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        };
        to.async_io(Interest::WRITABLE, send).await?;
    }
    Ok(())
}
