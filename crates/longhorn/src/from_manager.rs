//! An image of another manager. The manager is asked how it sends images: ours by our own protocol,
//! Longhorn's by pushing.

use std::time::Duration;

use client::{Address, Client};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};
use types::{Classify, ErrorKind, report};

use crate::error::{Error, Result};
use crate::reach::Transfers;
use crate::ssync::Receiver;
use catalog::source::{Job, Origin, OriginKind, Peers, Taken};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use store::Provenance;

/// How long a manager that does not answer, or does not have the image ready, is asked again: as long
/// as Longhorn's manager waits for the first byte.
const PATIENCE: Duration = Duration::from_mins(1);
/// The time for one question.
const QUESTION: Duration = Duration::from_secs(10);
/// The pause before the first new question; it doubles each time.
const PAUSE: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// A manager that has the image, or is getting it.
#[derive(Debug, Clone)]
pub struct FromManager {
    pub address: String,
    /// The bytes that the image must have; 0: any number.
    pub size: u64,
    /// How one of Longhorn's is asked to push.
    pub transfers: Transfers,
}

impl Origin for FromManager {
    fn provenance(&self) -> Provenance {
        Provenance::Peers
    }

    fn kind(&self) -> OriginKind {
        OriginKind::Manager
    }

    fn take_in<'a>(&'a self, job: &'a Job) -> BoxFuture<'a, catalog::Result<Taken>> {
        async move {
            let found = tokio::select! {
                found = self.resolve(job) => found?,
                () = job.cancel.cancelled() => {
                    return Err(catalog::Error::Cancelled("the image is not wanted"));
                }
            };
            match found {
                Found::Ours(peers) => Ok(Taken::FromPeers(peers)),
                Found::Longhorns(receiver) => Ok(receiver.take_in(job).await?),
            }
        }
        .boxed()
    }
}

/// What another manager turns out to be.
enum Found {
    /// One of ours: it gives the image by our own protocol.
    Ours(Peers),
    /// One of Longhorn's: it is asked to push, and this receives.
    Longhorns(Receiver),
}

impl FromManager {
    async fn resolve(&self, job: &Job) -> Result<Found> {
        let give_up = Instant::now() + PATIENCE;
        let mut pause = PAUSE;
        loop {
            let error = match self.ask(job).await {
                Ok(found) => return Ok(found),
                Err(error) => error,
            };
            let passing = matches!(
                error.kind(),
                ErrorKind::Unavailable
                    | ErrorKind::DeadlineExceeded
                    | ErrorKind::FailedPrecondition
            );
            if !passing || Instant::now() + pause > give_up {
                return Err(error);
            }
            warn!(manager = %self.address, error = %report(&error), "asking again");
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn ask(&self, job: &Job) -> Result<Found> {
        let no = |source| Error::OtherManager {
            address: self.address.clone(),
            source: Box::new(source),
        };
        let policy = &self.transfers.policy;
        let address = policy.resolve_one(&self.address).await?.to_string();
        let client =
            Client::new(Address::Tcp(address.clone()), &self.transfers.dialer).map_err(no)?;
        let longhorn = client.with_deadline(QUESTION).longhorn();
        let peer = longhorn.peer_address(&job.id).await.map_err(no)?;
        if let Some(peer) = peer.and_then(|peer| peer.parse().ok()) {
            info!(%peer, "the other manager is one of ours");
            return Ok(Found::Ours(Peers {
                addresses: vec![peer],
                size: (self.size > 0).then_some(self.size),
                chosen_here: false,
            }));
        }
        info!("the other manager is one of Longhorn's: it is asked to push");
        let receiver = self.transfers.from_manager(&address, self.size)?;
        Ok(Found::Longhorns(receiver))
    }
}
