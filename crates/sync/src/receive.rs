//! Receiving an image from its peers: the planner's decisions carried out.
//!
//! One task leads a copy. It asks the planner, starts a task for each request, and reports the
//! result to the planner. A chunk is in memory only between its first byte and its write, in one of
//! the buffers that all copies share.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, debug_span, info, warn};
use types::{ImageId, report};

use super::Error;
use super::address::PeerAddress;
use super::ask::Asked;
use super::connect::Connect;
use super::fetch::{Fetch, fault};
use super::find::{Finder, Found};
use super::planner::{Action, Event, Outlook, PeerId, Planner, RequestId};
use super::protocol::{Geometry, ImageShape, Seal};
use super::swarm::Swarm;
use super::target::{FinishError, Message, Part, Target, Wanted};

/// Events that may wait for the leading task.
const EVENTS: usize = 64;

/// Receives images. Cheap to clone: clones share everything.
#[derive(Debug, Clone)]
pub struct Receiver<C> {
    pub(super) swarm: Swarm,
    pub(super) connector: C,
}

impl<C: Connect> Receiver<C> {
    /// A receiver that connects like that.
    pub fn new(swarm: Swarm, connector: C) -> Self {
        Self { swarm, connector }
    }

    /// What it shares with the other syncs.
    pub fn swarm(&self) -> &Swarm {
        &self.swarm
    }

    /// Receives an image. `progress` is told bytes that are there and bytes in all. Dropping the
    /// future, or cancelling, leaves what has come to the next attempt.
    pub async fn receive<T: Target>(
        &self,
        wanted: &Wanted,
        target: &T,
        progress: &(dyn Fn(u64, u64) + Send + Sync),
        cancel: &CancellationToken,
    ) -> Result<T::Done, T::Error> {
        let mut lies = BTreeSet::new();
        let finder = Finder {
            swarm: &self.swarm,
            connector: &self.connector,
        };
        loop {
            let mut found = tokio::select! {
                biased;
                () = cancel.cancelled() => return Err(Error::Cancelled.into()),
                found = finder.find(wanted, &lies) => found?,
            };

            let (seal, source) = (found.seal, found.peer.clone());
            let geometry = found.geometry;
            let manifest = found.manifest.take().expect("it was just found");
            let part = target.open(manifest, ImageShape { geometry, seal }).await?;
            let served = self.swarm.serve_part(&wanted.id, part.offer());
            self.collect(wanted, &found, &part, progress, cancel)
                .await?;
            match target.finish(part).await {
                // Each chunk was what the manifest says, and the whole is not: the manifest lied.
                Err(FinishError::FalseManifest(error)) => {
                    warn!(peer = %source, error = %report(&error), "the manifest does not match the image");
                    self.swarm.metrics().peers_dropped.add(1);
                    target.discard().await?;
                    lies.insert(seal);
                    if wanted.peers.len() < 2 {
                        return Err(error);
                    }
                }
                Ok(done) => {
                    served.linger(cancel.clone());
                    return Ok(done);
                }
                Err(FinishError::Failed(error)) => return Err(error),
            }
        }
    }

    /// Brings every missing chunk.
    async fn collect<P: Part>(
        &self,
        wanted: &Wanted,
        found: &Found,
        part: &Arc<P>,
        progress: &(dyn Fn(u64, u64) + Send + Sync),
        cancel: &CancellationToken,
    ) -> Result<(), P::Error> {
        let settings = self.swarm.settings();
        let seed = settings.seed.unwrap_or_else(random);
        let planner = Planner::new(part.missing(), settings.tuning, seed);
        let (messages, inbox) = mpsc::channel(EVENTS);
        let mut sync = Leading {
            receiver: self,
            id: &wanted.id,
            geometry: found.geometry,
            seal: found.seal,
            part,
            planner,
            peers: Vec::new(),
            requests: BTreeMap::new(),
            tasks: JoinSet::new(),
            puts: TaskTracker::new(),
            messages,
            start: Instant::now(),
        };
        for (given, address) in (wanted.peers.iter().map(|peer| (true, peer)))
            .chain(found.others.iter().map(|peer| (false, peer)))
        {
            sync.found(address.clone(), given);
        }
        sync.named(found.you.clone());
        let missing = sync.planner.missing();
        info!(image = %wanted.id, from = %found.peer, chunks = found.geometry.count(), missing,
            "receiving");
        let led = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Error::Cancelled.into()),
            led = sync.lead(inbox, progress) => led,
        };
        sync.tasks.shutdown().await;
        // A write that has begun ends before anything else happens to the file.
        sync.puts.close();
        sync.puts.wait().await;
        led
    }
}

struct Leading<'a, C: Connect, P: Part> {
    receiver: &'a Receiver<C>,
    id: &'a ImageId,
    geometry: Geometry,
    seal: Seal,
    part: &'a Arc<P>,
    planner: Planner,
    /// In the order of their ids in the planner.
    peers: Vec<Arc<Asked<C>>>,
    requests: BTreeMap<RequestId, AbortHandle>,
    tasks: JoinSet<()>,
    /// Writes, which nothing calls off once they have begun.
    puts: TaskTracker,
    messages: mpsc::Sender<Message<P::Error>>,
    start: Instant,
}

impl<C: Connect, P: Part> Leading<'_, C, P> {
    async fn lead(
        &mut self,
        mut inbox: mpsc::Receiver<Message<P::Error>>,
        progress: &(dyn Fn(u64, u64) + Send + Sync),
    ) -> Result<(), P::Error> {
        let tick = self.receiver.swarm.settings().tick;
        let patience = self.receiver.swarm.settings().tuning.patience;
        loop {
            let now = self.start.elapsed();
            for action in self.planner.plan(now) {
                self.act(action);
            }
            let missing = self.planner.missing();
            let left = u64::from(missing) * u64::from(self.geometry.chunk);
            let size = self.geometry.size;
            progress(size.saturating_sub(left), size);
            match self.planner.outlook(now) {
                Outlook::Going => {}
                Outlook::Done => return Ok(()),
                Outlook::NoPeers(why) => return Err(Error::NoPeers { missing, why }.into()),
                Outlook::NoProgress(why) => {
                    let after = patience;
                    return Err(Error::NoProgress { after, why }.into());
                }
            }
            tokio::select! {
                biased;
                message = inbox.recv() => {
                    let message = message.expect("this task holds a sender");
                    self.take(message)?;
                    while let Ok(message) = inbox.try_recv() {
                        self.take(message)?;
                    }
                }
                () = sleep(tick) => {}
            }
            while self.tasks.try_join_next().is_some() {}
        }
    }

    fn take(&mut self, message: Message<P::Error>) -> Result<(), P::Error> {
        match message {
            Message::Event(event) => {
                match &event {
                    Event::Arrived { index, .. } => {
                        let length = self.geometry.length(*index) as u64;
                        self.receiver.swarm.metrics().received_bytes.add(length);
                    }
                    Event::Damaged { index, .. } => {
                        warn!(image = %self.id, index, "a chunk was damaged: fetching it again");
                        self.receiver.swarm.metrics().chunks_refetched.add(1);
                    }
                    Event::Ended { request, .. } => {
                        self.requests.remove(request);
                    }
                    _ => {}
                }
                self.planner.on(event, self.start.elapsed());
            }
            Message::Peers(by, told, you) => {
                self.named(you);
                let by = self.peers[by as usize].address().clone();
                for address in Swarm::acceptable(told, &by) {
                    self.found(address, false);
                }
            }
            Message::Failed(error) => return Err(error),
        }
        Ok(())
    }

    fn named(&mut self, you: Option<PeerAddress>) {
        if let Some(address) = you {
            let now = self.start.elapsed();
            self.planner.on(Event::Named { address }, now);
        }
    }

    fn found(&mut self, address: PeerAddress, given: bool) {
        let now = self.start.elapsed();
        self.planner.on(Event::Found { address, given }, now);
        let settings = self.receiver.swarm.settings();
        for id in self.peers.len()..self.planner.peers() {
            let id = PeerId::try_from(id).expect("few peers");
            self.peers.push(Asked::new(
                self.planner.address(id).clone(),
                self.id.clone(),
                self.receiver.connector.clone(),
                settings.asking(),
            ));
        }
    }

    fn act(&mut self, action: Action) {
        let (geometry, seal) = (self.geometry, self.seal);
        let messages = self.messages.clone();
        match action {
            Action::AskHave { peer } => {
                let asked = Arc::clone(&self.peers[peer as usize]);
                self.tasks.spawn(async move {
                    let event = match asked.have(geometry, seal).await {
                        Ok((have, told)) => {
                            let _ = messages
                                .send(Message::Peers(peer, told.peers, told.you))
                                .await;
                            Event::Have { peer, have }
                        }
                        Err(error) => {
                            let fault = fault(&error);
                            Event::NoAnswer { peer, fault }
                        }
                    };
                    let _ = messages.send(Message::Event(event)).await;
                });
            }
            Action::Fetch {
                request,
                peer,
                chunks,
            } => {
                let fetch = Fetch {
                    asked: Arc::clone(&self.peers[peer as usize]),
                    swarm: self.receiver.swarm.clone(),
                    part: Arc::clone(self.part),
                    geometry,
                    seal,
                    request,
                    peer,
                    puts: self.puts.clone(),
                    messages,
                };
                let span = debug_span!("fetch", peer = %fetch.asked.address(), ?chunks);
                let running = self.tasks.spawn(fetch.run(chunks).instrument(span));
                self.requests.insert(request, running);
            }
            Action::Abandon { request } => {
                if let Some(running) = self.requests.remove(&request) {
                    running.abort();
                }
            }
            Action::Check { peer, index } => {
                let asked = Arc::clone(&self.peers[peer as usize]);
                self.tasks.spawn(async move {
                    let good = asked.check(seal, index).await.ok();
                    let event = Event::Checked { peer, index, good };
                    let _ = messages.send(Message::Event(event)).await;
                });
            }
            Action::Dropped { peer, why } => {
                let address = self.planner.address(peer);
                warn!(image = %self.id, peer = %address, why, "a peer is asked no more");
                self.receiver.swarm.metrics().peers_dropped.add(1);
            }
        }
    }
}

/// A number that no two receivers share: the standard library takes its keys from the kernel.
fn random() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}
