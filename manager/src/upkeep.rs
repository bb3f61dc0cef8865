//! What a daemon does by itself from time to time: it scrubs images, removes orphans, and tries out a
//! disk that failed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use types::report;

use crate::catalog::{Catalog, Lifecycle, Scrubbing};
use crate::store::Disk;
use crate::store::orphans::Orphans;
use crate::volume::Volumes;

/// How often orphans are looked for: well below the shortest of their times.
const TIDY: Duration = Duration::from_mins(10);

/// How often a disk is looked at, and tried out when it is suspect.
const TRIAL: Duration = Duration::from_secs(5);

/// What the user of the daemon says about upkeep.
#[derive(Debug, Clone, Copy, Args)]
pub struct UpkeepArgs {
    /// MiB a second at which ready images are read again and compared with their digests; 0: never
    #[arg(long, default_value_t = 10, value_name = "MIB")]
    pub scrub_rate: u32,
    /// Hours from the beginning of one reading of all images to that of the next
    #[arg(long, default_value_t = 24, value_name = "HOURS")]
    pub scrub_interval: u32,
}

impl UpkeepArgs {
    fn scrubbing(self) -> Scrubbing {
        Scrubbing {
            rate: u64::from(self.scrub_rate) << 20,
            interval: Duration::from_hours(u64::from(self.scrub_interval)),
        }
    }
}

/// Keeps a disk and its images in order until `stop`.
pub fn spawn(
    args: UpkeepArgs,
    catalog: Catalog,
    disk: Arc<Disk>,
    volumes: Volumes,
    stop: CancellationToken,
) -> JoinHandle<()> {
    let scrub = {
        let catalog = catalog.clone();
        async move { catalog.scrub(args.scrubbing()).await }
    };
    let trials = look_after(disk.clone(), volumes);
    let tidy = async move {
        let mut orphans = Orphans::new(disk.clone());
        loop {
            let (catalog, disk) = (catalog.clone(), disk.clone());
            let pass = move || {
                tidy_up(&mut orphans, &catalog, &disk);
                orphans
            };
            // A panic in it is a bug of ours, told by the runtime; the daemon serves on.
            let Ok(after) = tokio::task::spawn_blocking(pass).await else {
                return;
            };
            orphans = after;
            tokio::time::sleep(TIDY).await;
        }
    };
    tokio::spawn(async move {
        let all = async { tokio::join!(scrub, tidy, trials) };
        stop.run_until_cancelled(Box::pin(all)).await;
    })
}

/// A suspect disk is not ready until it works again: that is found out here. What a disk could not take
/// down is taken down.
async fn look_after(disk: Arc<Disk>, volumes: Volumes) {
    loop {
        tokio::time::sleep(TRIAL).await;
        let (disk, volumes) = (disk.clone(), volumes.clone());
        let look = move || {
            if disk.is_suspect() {
                // How it went is the disk's to say and to remember.
                let _ = disk.try_out();
            }
            volumes.settle();
        };
        let _ = tokio::task::spawn_blocking(look).await;
    }
}

fn tidy_up(orphans: &mut Orphans, catalog: &Catalog, disk: &Disk) {
    if disk.is_suspect() {
        return;
    }
    let is_ready = |name: &str| {
        let images = catalog.list();
        images
            .iter()
            .any(|image| matches!(image.state, Lifecycle::Ready(_)) && image.id.to_string() == name)
    };
    if let Err(error) = orphans.pass(Instant::now(), &is_ready) {
        disk.note(&error);
        warn!(error = %report(&error), "orphans cannot be looked for");
    }
}
