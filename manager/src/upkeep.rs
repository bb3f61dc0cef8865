//! What a daemon does by itself from time to time: it scrubs images, removes orphans, tries out a disk that failed,
//! and gives memory back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};
use types::report;

use crate::memory;
use catalog::{self, Catalog, Lifecycle, Scrubbing};
use store::Disk;
use store::counters::Counters;
use store::orphans::Orphans;
use volume::Volumes;

/// How often orphans are looked for: well below the shortest of their times.
const TIDY: Duration = Duration::from_mins(10);

/// What time there is between two such looks, however short the times are that they are for.
const SHORTEST: Duration = Duration::from_secs(1);

/// How often a disk is looked at, and tried out when it is suspect.
const TRIAL: Duration = Duration::from_secs(5);

/// What the user of the daemon says about upkeep.
#[derive(Debug, Clone, Copy, Args)]
pub struct UpkeepArgs {
    /// Speed, in MiB per second, at which ready images are read again and compared with their
    /// digests; 0: never
    #[arg(long, default_value_t = 10, value_name = "MIB")]
    pub scrub_rate: u32,
    /// Hours between the starts of two such passes over all images
    #[arg(long, default_value_t = 24, value_name = "HOURS")]
    pub scrub_interval: u32,
    /// Remove an image that only a driver requested when no volume has used it for this time, for
    /// example 36h or 30d [default: never]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub image_gc_after: Option<Duration>,
}

/// A whole number of seconds, minutes, hours or days.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration; write for example 90m, 36h or 30d");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 60 * 60,
        'd' => 24 * 60 * 60,
        _ => return Err(wrong()),
    };
    let number = text[..text.len() - 1].parse::<u32>().map_err(|_| wrong())?;
    Ok(Duration::from_secs(u64::from(number) * seconds))
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
    (catalog, volumes): (Catalog, Volumes),
    disk: Arc<Disk>,
    stop: CancellationToken,
) -> JoinHandle<()> {
    let scrub = {
        let catalog = catalog.clone();
        async move { catalog.scrub(args.scrubbing()).await }
    };
    let trials = look_after(disk.clone(), volumes.clone());
    let tidy = async move {
        let mut orphans = Orphans::new(disk.clone());
        loop {
            let (of, in_use, on) = (catalog.clone(), volumes.clone(), disk.clone());
            let pass = move || {
                tidy_up(&mut orphans, &of, &in_use, &on);
                orphans
            };
            orphans = match tokio::task::spawn_blocking(pass).await {
                Ok(after) => after,
                Err(error) => {
                    // A bug of ours: it is said and counted, and the next pass begins anew.
                    Counters::count(&disk.counters().tidy_panics);
                    error!(%error, "the search for leftovers broke off");
                    Orphans::new(disk.clone())
                }
            };
            if let Some(after) = args.image_gc_after {
                catalog.remove_unused(&volumes, after).await;
            }
            tokio::time::sleep(TIDY.min(args.image_gc_after.unwrap_or(TIDY)).max(SHORTEST)).await;
        }
    };
    tokio::spawn(async move {
        let all = async { tokio::join!(scrub, tidy, trials, give_back()) };
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

/// What transfers leave of their buffers.
async fn give_back() {
    loop {
        tokio::time::sleep(memory::GIVE_BACK).await;
        let _ = tokio::task::spawn_blocking(memory::give_back).await;
    }
}

fn tidy_up(orphans: &mut Orphans, catalog: &Catalog, volumes: &Volumes, disk: &Disk) {
    types::crash_point!("upkeep.tidy");
    catalog.forget_failed(Instant::now());
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
        warn!(error = %report(&error), "cannot search for orphans");
    }
    match catalog::users(volumes) {
        Ok(users) => catalog.note_users(&users),
        Err(error) => warn!(error = %report(&error), "cannot determine which images are unused"),
    }
}
