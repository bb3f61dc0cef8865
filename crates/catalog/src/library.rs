//! What the catalogs of a manager give to its peers.

use std::sync::Arc;

use sync::offer::{Library, Offer};
use sync::swarm::Swarm;
use trust::Caller;
use types::{ImageId, NodeId, report};

use crate::offer::{StoredOffer, open_files};
use crate::{Catalog, Error, Result, blocking};

/// The images of some catalogs, and what is on its way to them.
#[derive(Debug, Clone)]
pub struct Images {
    swarm: Swarm,
    catalogs: Vec<Catalog>,
    node: NodeId,
}

impl Images {
    /// The images of these catalogs, which are on `node`; the first that has one gives it.
    pub fn new(swarm: Swarm, catalogs: Vec<Catalog>, node: NodeId) -> Self {
        Self {
            swarm,
            catalogs,
            node,
        }
    }

    fn is_snapshot(&self, id: &ImageId) -> bool {
        let mut found = self
            .catalogs
            .iter()
            .map(|catalog| catalog.get(&id.name, Some(&id.uuid)));
        found.any(|found| found.is_ok_and(|status| status.provenance.snapshot().is_some()))
    }
}

impl Library for Images {
    /// A snapshot is what a volume holds. Volumes are made from it where it is: no manager of another node needs it,
    /// and one that was broken into does not get it, nor a part of it that is repaired.
    async fn find(&self, id: &ImageId, caller: &Caller) -> Result<Arc<dyn Offer>, String> {
        if caller.is_manager_elsewhere(&self.node) && self.is_snapshot(id) {
            return Err(format!(
                "backing image {id} is a snapshot of a volume: managers of other nodes do not get it; a person with \
                 a certificate of role cli does"
            ));
        }
        if let Some(part) = self.swarm.part(id) {
            return Ok(part);
        }
        let mut why = format!("there is no backing image {id}");
        for catalog in &self.catalogs {
            match open(catalog, id).await {
                Ok(offer) => return Ok(Arc::new(offer)),
                Err(Error::ImageNotFound(_)) => {}
                Err(error) => why = report(&error).to_string(),
            }
        }
        Err(why)
    }
}

async fn open(catalog: &Catalog, id: &ImageId) -> Result<StoredOffer> {
    let (image, guard) = catalog.summed(&id.name, Some(&id.uuid)).await?;
    let ended = catalog.ended(id)?;
    let (catalog, id) = (catalog.clone(), id.clone());
    let open = move || {
        let _in_place = guard;
        let paths = catalog.paths(&id);
        let files = open_files(&paths.backing, &paths.chunks, image.sidecar().size)?;
        Ok::<_, Error>(StoredOffer::complete(files, catalog, id, ended))
    };
    blocking(open).await
}
