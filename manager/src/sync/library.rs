//! What the catalogs of a manager give to its peers.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use types::{ImageId, report};

use super::bits::Bits;
use super::files::ImageFiles;
use super::offer::{Library, Offer};
use super::protocol::{Geometry, Seal};
use super::swarm::Swarm;
use crate::catalog::Catalog;
use crate::error::{Error, Result};

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
            match Whole::open(catalog, id).await {
                Ok(whole) => return Ok(Arc::new(whole)),
                Err(Error::ImageNotFound(_)) => {}
                Err(error) => why = report(&error).to_string(),
            }
        }
        Err(why)
    }
}

/// A ready image. Its files are held open, not in place: a deletion does not wait for receivers, it
/// ends what is sent to them.
#[derive(Debug)]
struct Whole {
    id: ImageId,
    catalog: Catalog,
    files: ImageFiles,
    ended: CancellationToken,
}

impl Whole {
    async fn open(catalog: &Catalog, id: &ImageId) -> Result<Self> {
        let (image, guard) = catalog.ready(&id.name, Some(&id.uuid)).await?;
        let ended = catalog.ended(id)?;
        let (catalog, id) = (catalog.clone(), id.clone());
        let open = move || {
            let _in_place = guard;
            let paths = catalog.paths(&id);
            let files = ImageFiles::open(&paths.backing, &paths.chunks, image.sidecar.size)?;
            Ok(Self {
                id,
                catalog,
                files,
                ended,
            })
        };
        tokio::task::spawn_blocking(open)
            .await
            .map_err(Error::Task)?
    }
}

impl Offer for Whole {
    fn geometry(&self) -> Geometry {
        self.files.geometry()
    }

    fn seal(&self) -> Seal {
        self.files.seal()
    }

    fn manifest(&self, offset: u64, length: usize) -> BoxFuture<'_, io::Result<Bytes>> {
        self.files.manifest(offset, length).boxed()
    }

    fn have(&self) -> Option<Bits> {
        None
    }

    fn read(&self, offset: u64, length: usize) -> BoxFuture<'_, io::Result<Bytes>> {
        self.files.read(offset, length).boxed()
    }

    fn check(&self, index: u32) -> BoxFuture<'_, io::Result<bool>> {
        async move {
            let good = self.files.check(index).await?;
            if !good {
                let why = format!("chunk {index} is damaged; reading all of it");
                self.catalog.doubt(&self.id, &why);
            }
            Ok(good)
        }
        .boxed()
    }

    fn ended(&self) -> CancellationToken {
        self.ended.clone()
    }
}
