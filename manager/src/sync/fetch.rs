//! One request for chunks, from the asking to the last write.

use std::ops::Range;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;
use tracing::debug;
use types::report;

use super::Error as PeerError;
use super::answer::Form;
use super::ask::Asked;
use super::buffers::Buffer;
use super::connect::Connect;
use super::packing;
use super::planner::{Event, Fault, PeerId, RequestId, Weight};
use super::protocol::{Geometry, Seal};
use super::receive::{Message, Part, PutError};
use super::swarm::Swarm;
use crate::error;

/// One request for chunks.
pub(super) struct Fetch<C: Connect, P> {
    pub(super) asked: Arc<Asked<C>>,
    pub(super) swarm: Swarm,
    pub(super) part: Arc<P>,
    pub(super) geometry: Geometry,
    pub(super) seal: Seal,
    pub(super) request: RequestId,
    pub(super) peer: PeerId,
    pub(super) puts: TaskTracker,
    pub(super) messages: mpsc::Sender<Message>,
}

impl<C: Connect, P: Part> Fetch<C, P> {
    pub(super) async fn run(self, chunks: Range<u32>) {
        let mut puts = Vec::new();
        let fetched = self.fetch(chunks, &mut puts).await;
        for put in puts {
            // What it had to tell it has told.
            let _ = put.await;
        }
        let fault = fetched.err().map(|error| {
            debug!(error = %report(&error), "a request failed");
            fault(&error)
        });
        let request = self.request;
        let event = Event::Ended { request, fault };
        let _ = self.messages.send(Message::Event(event)).await;
    }

    /// While a chunk is written the next one comes in.
    async fn fetch(
        &self,
        chunks: Range<u32>,
        puts: &mut Vec<JoinHandle<()>>,
    ) -> Result<(), PeerError> {
        let asking = self.asked.data(self.geometry, self.seal, &chunks);
        let (mut answer, told) = asking.await?;
        if !told.peers.is_empty() {
            let message = Message::Peers(self.peer, told.peers, told.you);
            let _ = self.messages.send(message).await;
        }
        for index in chunks {
            answer.ready().await?;
            let mut buffer = self.swarm.buffers().get().await;
            let length = self.geometry.length(index);
            let form = answer.chunk(buffer.end(), length).await?;
            let swarm = self.swarm.clone();
            let (part, messages) = (Arc::clone(&self.part), self.messages.clone());
            let request = self.request;
            puts.push(self.puts.spawn(async move {
                let unpacked = match form {
                    Form::Plain => Ok(buffer),
                    Form::Packed => unpack(&swarm, buffer, length).await,
                };
                let put = match unpacked {
                    Ok(buffer) => part.put(index, buffer).await,
                    Err(error) => Err(error),
                };
                let message = match put {
                    Ok(()) => Message::Event(Event::Arrived { request, index }),
                    Err(PutError::Damaged) => Message::Event(Event::Damaged { request, index }),
                    Err(PutError::Failed(error)) => Message::Failed(error),
                };
                let _ = messages.send(message).await;
            }));
        }
        answer.end().await;
        self.asked.keep(answer);
        Ok(())
    }
}

/// The chunk that was packed in a buffer. Few at a time: for a moment it takes twice the memory.
async fn unpack(swarm: &Swarm, mut buffer: Buffer, length: usize) -> Result<Buffer, PutError> {
    let turn = swarm.packing().acquire().await;
    let _turn = turn.expect("the semaphore is never closed");
    let unpacking = tokio::task::spawn_blocking(move || {
        let bytes = packing::unpack(&buffer, length)?;
        buffer.replace(&bytes);
        Some(buffer)
    });
    let unpacked = unpacking
        .await
        .map_err(|error| PutError::Failed(error::Error::Task(error)))?;
    unpacked.ok_or(PutError::Damaged)
}

/// What an error means for the plan.
pub(super) fn fault(error: &PeerError) -> Fault {
    let weight = match error {
        PeerError::Busy(_) => Weight::Busy,
        PeerError::NoChunk(_) => Weight::Stale,
        PeerError::Connect { .. } | PeerError::Cut { .. } | PeerError::Stalled { .. } => {
            Weight::Lost
        }
        PeerError::NotThere { .. } => Weight::Absent,
        PeerError::Address(_)
        | PeerError::Foreign(_)
        | PeerError::Version { .. }
        | PeerError::OtherImage { .. }
        | PeerError::Broken { .. }
        | PeerError::Damaged(_)
        | PeerError::BadChunk { .. }
        | PeerError::NoPeers { .. }
        | PeerError::NoProgress { .. } => Weight::Unusable,
    };
    Fault {
        weight,
        why: report(error).to_string(),
    }
}
