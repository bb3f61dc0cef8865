//! An image that other managers have.

use std::sync::Arc;

use tracing::warn;
use types::report;

use super::incoming::IncomingImage;
use super::{Job, Sources};
use crate::blocking::blocking;
use crate::error::{Error, Result};
use crate::offer::open_files;
use chunks::Manifest;
use store::{Facts, Received};
use sync::protocol::ImageShape;
use sync::target::{FinishError, Part as _, Target};
use sync::{PeerAddress, Wanted};

/// Managers that have an image, under the name and uuid that it is to have here.
#[derive(Debug, Clone)]
pub struct Peers {
    /// Their sync servers; at least one.
    pub addresses: Vec<PeerAddress>,
    /// The size it must have.
    pub size: Option<u64>,
    /// The operator of this manager named them: they may have any address.
    pub chosen_here: bool,
}

impl Sources {
    /// The other managers that were named, each address of their names; `None`: there are none.
    pub async fn peers(&self) -> Option<Peers> {
        let mut addresses = Vec::new();
        for peer in &self.peers {
            // A name may stand for several managers, and for this one too.
            match tokio::net::lookup_host(peer.as_str()).await {
                Ok(found) => addresses.extend(found.map(PeerAddress::from)),
                Err(error) => warn!(%peer, %error, "the address of a peer is not known"),
            }
        }
        let size = None;
        let chosen_here = true;
        (!addresses.is_empty()).then_some(Peers {
            addresses,
            size,
            chosen_here,
        })
    }

    /// Where to connect to for peers that somebody else named.
    async fn checked(&self, peers: &Peers) -> Result<Vec<PeerAddress>> {
        if peers.chosen_here {
            return Ok(peers.addresses.clone());
        }
        let (mut addresses, mut refused) = (Vec::new(), None);
        for peer in &peers.addresses {
            match self.network.policy().resolve(peer.as_str()).await {
                Ok(found) => addresses.extend(found.into_iter().map(PeerAddress::from)),
                Err(error) => {
                    warn!(%peer, error = %report(&error), "this peer is not asked");
                    refused = Some(error);
                }
            }
        }
        match refused {
            Some(error) if addresses.is_empty() => Err(error.into()),
            _ => Ok(addresses),
        }
    }

    pub(super) async fn take_peers(&self, peers: &Peers, job: &Job) -> Result<(Received, Facts)> {
        let wanted = Wanted {
            id: job.id.clone(),
            peers: self.checked(peers).await?,
            size: peers.size,
            expected: job.expected,
        };
        let report_to = Arc::clone(&job.report);
        let progress = move |processed, total| report_to.progress(processed, total);
        let target = StoreTarget { job: job.clone() };
        let received = self
            .sync
            .receive(&wanted, &target, &progress, &job.cancel)
            .await?;
        Ok((received, job.facts()))
    }
}

/// The way into the store.
struct StoreTarget {
    job: Job,
}

impl Target for StoreTarget {
    type Part = IncomingImage;
    type Done = Received;
    type Error = Error;

    async fn open(&self, manifest: Manifest, shape: ImageShape) -> Result<Arc<IncomingImage>> {
        let job = self.job.clone();
        job.turn.take(&job.cancel).await?;
        let open = move || {
            let size = manifest.size;
            let known = Some(manifest);
            let assembly = job.store.assemble(&job.id, size, known, job.ends())?;
            let paths = job.store.paths(&job.id);
            let files = open_files(&paths.part, &paths.part_chunks, size)?;
            debug_assert_eq!(
                (files.geometry(), files.seal()),
                (shape.geometry, shape.seal)
            );
            Ok::<_, Error>(IncomingImage::new(assembly, files, job.cancel))
        };
        blocking(open).await.map(Arc::new)
    }

    async fn finish(&self, part: Arc<IncomingImage>) -> Result<Received, FinishError<Error>> {
        debug_assert!(part.missing().is_empty());
        let finished = blocking(move || part.assembly().finish()).await;
        finished.map_err(|error| match error {
            error @ Error::Store(store::Error::Checksum { .. }) => {
                FinishError::FalseManifest(error)
            }
            error => FinishError::Failed(error),
        })
    }

    async fn discard(&self) -> Result<()> {
        let job = self.job.clone();
        blocking(move || job.store.delete(&job.id)).await
    }
}
