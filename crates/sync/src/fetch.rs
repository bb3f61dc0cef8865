//! One request for chunks, from the asking to the last write.

use std::ops::Range;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;
use tracing::debug;
use types::report;

use super::Error;
use super::ask::Asked;
use super::connect::Connect;
use super::planner::{Event, Fault, PeerId, RequestId, Weight};
use super::protocol::{Geometry, Seal};
use super::swarm::Swarm;
use super::target::{Message, Part, PutError};

/// One request for chunks.
pub(super) struct Fetch<C: Connect, P: Part> {
    pub(super) asked: Arc<Asked<C>>,
    pub(super) swarm: Swarm,
    pub(super) part: Arc<P>,
    pub(super) geometry: Geometry,
    pub(super) seal: Seal,
    pub(super) request: RequestId,
    pub(super) peer: PeerId,
    pub(super) puts: TaskTracker,
    pub(super) messages: mpsc::Sender<Message<P::Error>>,
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
    async fn fetch(&self, chunks: Range<u32>, puts: &mut Vec<JoinHandle<()>>) -> Result<(), Error> {
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
            answer.fill(buffer.end(), length).await?;
            let (part, messages) = (Arc::clone(&self.part), self.messages.clone());
            let request = self.request;
            puts.push(self.puts.spawn(async move {
                let put = part.put(index, buffer).await;
                let message = match put {
                    Ok(()) => Message::Event(Event::Arrived { request, index }),
                    Err(PutError::Damaged) => Message::Event(Event::Damaged { request, index }),
                    Err(PutError::Failed(error)) => Message::Failed(error),
                };
                let _ = messages.send(message).await;
            }));
        }
        self.asked.keep(answer).await;
        Ok(())
    }
}

/// What an error means for the plan.
pub(super) fn fault(error: &Error) -> Fault {
    let weight = match error {
        Error::Busy(_) => Weight::Busy,
        Error::NoChunk(_) => Weight::Stale,
        Error::Connect { .. } | Error::Cut { .. } | Error::Stalled { .. } => Weight::Lost,
        Error::NotThere { .. } => Weight::Absent,
        Error::Foreign(_)
        | Error::Refused { .. }
        | Error::Version { .. }
        | Error::OtherImage { .. }
        | Error::Broken { .. }
        | Error::Damaged(_)
        | Error::BadChunk { .. }
        | Error::NoPeers { .. }
        | Error::NoProgress { .. }
        | Error::Cancelled => Weight::Unusable,
    };
    Fault {
        weight,
        why: report(error).to_string(),
    }
}
