//! An image that other managers have.

use std::sync::Arc;

use tracing::warn;

use super::{Job, Source, Sources};
use crate::error::{Error, Result};
use crate::store::chunks::Manifest;
use crate::store::{Facts, Received};
use crate::sync::files::ImageFiles;
use crate::sync::part::Arriving;
use crate::sync::protocol::{Geometry, Seal};
use crate::sync::receive::{Part as _, Target};
use crate::sync::{PeerAddress, Wanted};

/// Managers that have an image, under the name and uuid that it is to have here.
#[derive(Debug, Clone)]
pub struct Peers {
    /// Their sync servers; at least one.
    pub addresses: Vec<PeerAddress>,
    /// The size it must have.
    pub size: Option<u64>,
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
        (!addresses.is_empty()).then_some(Peers { addresses, size })
    }

    pub(super) async fn take_peers(
        &self,
        source: &Source,
        peers: &Peers,
        job: &Job,
    ) -> Result<(Received, Facts)> {
        let wanted = Wanted {
            id: job.id.clone(),
            peers: peers.addresses.clone(),
            size: peers.size,
            expected: job.expected,
        };
        let report_to = Arc::clone(&job.report);
        let progress = move |processed, total| report_to.progress(processed, total);
        let target = Place { job: job.clone() };
        let received = self
            .sync
            .receive(&wanted, &target, &progress, &job.cancel)
            .await?;
        Ok((received, job.facts(source)))
    }
}

/// The way into the store.
struct Place {
    job: Job,
}

impl Target for Place {
    type Part = Arriving;
    type Done = Received;

    async fn open(&self, manifest: Manifest, shape: (Geometry, Seal)) -> Result<Arc<Arriving>> {
        let job = self.job.clone();
        let open = move || {
            let size = manifest.size;
            let known = Some(manifest);
            let assembly = job
                .store
                .assemble(&job.id, size, known, job.cancel.clone())?;
            let paths = job.store.paths(&job.id);
            let files = ImageFiles::open(&paths.part, &paths.part_chunks, size)?;
            debug_assert_eq!((files.geometry(), files.seal()), shape);
            Ok(Arriving::new(assembly, files, job.cancel))
        };
        blocking(open).await.map(Arc::new)
    }

    async fn finish(&self, part: Arc<Arriving>) -> Result<Received> {
        debug_assert!(part.missing().is_empty());
        blocking(move || part.assembly().finish()).await
    }

    async fn discard(&self) -> Result<()> {
        let job = self.job.clone();
        blocking(move || job.store.delete(&job.id)).await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(Error::Task)?
}
