//! The gRPC face: requests are checked here, answered by the catalog and the volumes, and put back
//! into wire form. No decision is made here.

mod backups;
mod blocks;
mod disks;
mod groups;
mod images;
mod inspect;
mod status;
mod version;
mod volumes;
pub(crate) mod wire;

use std::net::SocketAddr;
use std::sync::Arc;

use backup_jobs::Jobs;
use proto::storage::v1::backing_images_server::BackingImagesServer;
use proto::storage::v1::backups_server::BackupsServer;
use proto::storage::v1::disks_server::DisksServer;
use proto::storage::v1::volumes_server::VolumesServer;
use tokio::sync::Semaphore;
use tonic::service::Routes;

use catalog::Catalog;
use listen::calls::{LARGE_MAX, MESSAGE_MAX};
use store::Disk;
use trust::Held;
use volume::Volumes;

use self::inspect::Looks;

/// What every handler needs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Service {
    catalog: Catalog,
    volumes: Volumes,
    disk: Arc<Disk>,
    backups: Jobs,
    /// Where other managers get images.
    sync_address: String,
    /// The certificate of the daemon, where it has one.
    held: Option<Held>,
    /// Bounds the looks at sources.
    looks: Looks,
    /// Taken by whoever has the blocks of a snapshot listed.
    listings: Arc<Semaphore>,
}

/// Answers may list thousands of images.
pub const RESPONSE_BYTES_MAX: usize = 64 << 20;

impl Service {
    /// The faces of what this process serves; others get its images at `sync_address`.
    pub fn new(
        catalog: Catalog,
        volumes: Volumes,
        disk: Arc<Disk>,
        backups: Jobs,
        sync_address: SocketAddr,
    ) -> Self {
        Self {
            catalog,
            volumes,
            disk,
            backups,
            sync_address: sync_address.to_string(),
            held: None,
            looks: Looks::default(),
            listings: Arc::new(Semaphore::new(blocks::LISTINGS_MAX)),
        }
    }

    /// Tells of trouble with the certificate of the daemon too.
    #[must_use]
    pub fn certified(mut self, held: Option<Held>) -> Self {
        self.held = held;
        self
    }

    /// Adds every service of the manager's own API.
    pub fn route(self, routes: Routes) -> Routes {
        macro_rules! limited {
            ($service:ident, $message_max:expr) => {
                $service::new(self.clone())
                    .max_decoding_message_size($message_max)
                    .max_encoding_message_size(RESPONSE_BYTES_MAX)
            };
        }
        routes
            .add_service(limited!(BackingImagesServer, LARGE_MAX))
            .add_service(limited!(BackupsServer, MESSAGE_MAX))
            .add_service(limited!(VolumesServer, MESSAGE_MAX))
            .add_service(limited!(DisksServer, MESSAGE_MAX))
    }
}

/// Runs blocking work off the async threads. The work goes on when the caller is gone, so it must
/// leave things whole by itself.
async fn blocking<T, E>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, tonic::Status>
where
    T: Send + 'static,
    E: Send + 'static,
    catalog::Error: From<E>,
{
    let done = catalog::blocking(work).await;
    done.map_err(|error| status::of(&error))
}
