//! The bodies: a separate task sends a range in pieces. It is never more than a few pieces ahead of
//! the socket, gives up a receiver that accepts no data, and ends when the image is deleted.

use std::io;
use std::ops::Range;

use axum::body::Body;
use axum::http::Method;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tracing::{debug, warn};

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
        let Ok(permit) = self.swarm.serves().try_acquire_owned() else {
            self.swarm.metrics().refused_busy.add(1);
            return Err(Refused::busy());
        };
        let (pieces, body) = mpsc::channel(AHEAD);
        let (swarm, offer) = (self.swarm.clone(), asked.offer.clone());
        let (id, to) = (asked.id.clone(), asked.asker);
        // It ends with its connection, or when the image is deleted.
        tokio::spawn(async move {
            let _permit = permit;
            let ended = offer.ended();
            let sending = Sending {
                swarm: &swarm,
                offer: &*offer,
                pieces: &pieces,
            };
            let sent = tokio::select! {
                biased;
                () = ended.cancelled() => Err("the image is being deleted".to_owned()),
                sent = sending.send(bytes, kind) => sent,
            };
            if let Err(why) = sent {
                debug!(image = %id, ?to, why, "sending was broken off");
                // The receiver sees a body that ends early, and asks again where it is best.
                let cut = io::Error::other(why);
                let _ = pieces.try_send(Err(cut));
            }
        });
        Ok(Body::from_stream(ReceiverStream::new(body)))
    }
}

/// One body on its way. Each wait is bounded.
struct Sending<'a> {
    swarm: &'a Swarm,
    offer: &'a dyn Offer,
    pieces: &'a mpsc::Sender<io::Result<Bytes>>,
}

impl Sending<'_> {
    /// Reads and sends piece after piece.
    async fn send(&self, bytes: Range<u64>, kind: Kind) -> Result<(), String> {
        let mut offset = bytes.start;
        while offset < bytes.end {
            let left = usize::try_from(bytes.end - offset).unwrap_or(usize::MAX);
            let length = left.min(self.swarm.settings().piece);
            let place = self.place(length).await?;
            let piece = match kind {
                Kind::Manifest => self.offer.manifest(offset, length).await,
                Kind::Data => self.offer.read(offset, length).await,
            };
            let piece = piece.map_err(|error| unreadable(offset, &error))?;
            offset += piece.len() as u64;
            if kind != Kind::Manifest {
                self.swarm.metrics().sent_bytes.add(piece.len() as u64);
            }
            place.send(Ok(piece));
        }
        Ok(())
    }

    /// A place for a piece of `length` bytes, once so many may go and the receiver takes them.
    async fn place(&self, length: usize) -> Result<mpsc::Permit<'_, io::Result<Bytes>>, String> {
        self.swarm.rate().take(length).await;
        let stall = self.swarm.settings().send_stall;
        timeout(stall, self.pieces.reserve())
            .await
            .map_err(|_| "the receiver accepts no data".to_owned())?
            .map_err(|_| "the receiver is gone".to_owned())
    }
}

fn unreadable(offset: u64, error: &io::Error) -> String {
    warn!(%error, offset, "an image cannot be read for a peer");
    format!("it cannot be read at {offset}: {error}")
}
