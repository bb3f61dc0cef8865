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
use crate::observe::counters;
use crate::sync::offer::Offer;
use crate::sync::packing;
use crate::sync::swarm::Swarm;

/// Pieces that wait between the disk and the socket.
const AHEAD: usize = 1;

/// What a range is of, and how it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Manifest,
    Data,
    /// Whole chunks, each packed if that makes it smaller.
    Packed,
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
    async fn send(&self, bytes: Range<u64>, kind: Kind) -> Result<(), String> {
        if kind != Kind::Packed {
            return self.send_plain(bytes, kind).await;
        }
        let chunk = u64::from(self.offer.geometry().chunk);
        let mut offset = bytes.start;
        while offset < bytes.end {
            let end = bytes.end.min(offset + chunk);
            self.send_chunk(offset..end).await?;
            offset = end;
        }
        Ok(())
    }

    /// Reads and sends piece after piece.
    async fn send_plain(&self, bytes: Range<u64>, kind: Kind) -> Result<(), String> {
        let mut offset = bytes.start;
        while offset < bytes.end {
            let left = usize::try_from(bytes.end - offset).unwrap_or(usize::MAX);
            let length = left.min(self.swarm.settings().piece);
            let place = self.place(length).await?;
            let piece = match kind {
                Kind::Manifest => self.offer.manifest(offset, length).await,
                Kind::Data | Kind::Packed => self.offer.read(offset, length).await,
            };
            let piece = piece.map_err(|error| unreadable(offset, &error))?;
            offset += piece.len() as u64;
            if kind != Kind::Manifest {
                self.swarm.metrics().sent_bytes.add(piece.len() as u64);
                counters::sent(piece.len() as u64);
            }
            place.send(Ok(piece));
        }
        Ok(())
    }

    /// Sends a chunk with its head: packed, if it becomes smaller and not too many are being packed.
    async fn send_chunk(&self, bytes: Range<u64>) -> Result<(), String> {
        // Kept until the chunk is gone: who takes it slowly does not take more memory.
        let turn = self.swarm.packing().try_acquire();
        let packed = match turn {
            Ok(_) => self.pack(&bytes).await?,
            Err(_) => None,
        };
        let length = packed.as_ref().map_or(0, Vec::len);
        let head = u32::try_from(length).expect("fewer than a chunk has");
        self.send_bytes(head.to_le_bytes().to_vec().into()).await?;
        let Some(packed) = packed else {
            return self.send_plain(bytes, Kind::Packed).await;
        };
        let whole = bytes.end - bytes.start;
        self.swarm.metrics().sent_bytes.add(whole);
        self.swarm.metrics().saved_bytes.add(whole - length as u64);
        counters::sent(length as u64);
        self.send_bytes(packed.into()).await
    }

    async fn pack(&self, bytes: &Range<u64>) -> Result<Option<Vec<u8>>, String> {
        let length = usize::try_from(bytes.end - bytes.start).unwrap_or(usize::MAX);
        let read = self.offer.read(bytes.start, length).await;
        let chunk = read.map_err(|error| unreadable(bytes.start, &error))?;
        let packing = tokio::task::spawn_blocking(move || packing::pack(&chunk));
        let packed = packing.await.map_err(io::Error::other).flatten();
        packed.map_err(|error| format!("it cannot be packed: {error}"))
    }

    /// Sends what is in memory.
    async fn send_bytes(&self, mut bytes: Bytes) -> Result<(), String> {
        while !bytes.is_empty() {
            let length = bytes.len().min(self.swarm.settings().piece);
            let place = self.place(length).await?;
            place.send(Ok(bytes.split_to(length)));
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
