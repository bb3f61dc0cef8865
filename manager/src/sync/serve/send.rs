//! The bodies: a range is sent in pieces by a task of its own that is never more than a few pieces
//! ahead of the socket, gives up a receiver that takes nothing, and ends when the image is deleted.

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
use crate::observe::counters;
use crate::sync::offer::Offer;
use crate::sync::swarm::Swarm;

/// Pieces that wait between the disk and the socket.
const AHEAD: usize = 1;

/// Of which file a range is.
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
