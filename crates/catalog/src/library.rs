//! What the catalogs of a manager give to its peers.

use std::sync::Arc;

use sync::offer::{Library, Offer};
use sync::swarm::Swarm;
use types::{ImageId, report};

use crate::offer::{StoredOffer, open_files};
use crate::{Catalog, Error, Result, blocking};

/// The images of some catalogs, and what is on its way to them.
#[derive(Debug, Clone)]
pub struct Images {
    swarm: Swarm,
    catalogs: Vec<Catalog>,
}

impl Images {
    /// The images of these catalogs; the first that has one gives it.
    pub fn new(swarm: Swarm, catalogs: Vec<Catalog>) -> Self {
        Self { swarm, catalogs }
    }
}

impl Library for Images {
    async fn find(&self, id: &ImageId) -> Result<Arc<dyn Offer>, String> {
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
    let (image, guard) = catalog.ready(&id.name, Some(&id.uuid)).await?;
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
