//! How long a volume of an image with many extents takes, with a spare clone and without: `spares DIRECTORY`,
//! an empty directory on XFS or btrfs. For measuring by hand.

#![allow(clippy::print_stdout, reason = "a tool for a terminal")]

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use store::{Disk, Facts, ImageStore, Place, SealedImage};
use types::{ByteSize, Cancel, ImageId, NodeId, VolumeName};
use volume::owner::{Driver, Owner};
use volume::{NewVolume, Origin, Reserved, Template, Volumes};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Each is one extent: 4 KiB of data in so many bytes.
const PERIOD: u64 = 64 << 10;
const ROUNDS: usize = 21;
/// The longest that a spare is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

fn main() -> Result<()> {
    let Some(root) = std::env::args().nth(1).map(PathBuf::from) else {
        return Err("usage: spares DIRECTORY".into());
    };
    Disk::init(&root, None)?;
    for with_spares in [false, true] {
        measure(&root, with_spares)?;
    }
    Ok(())
}

/// A small image, and a raw form that never came of it: it has the extents.
struct Fragmented {
    extents: u64,
    image: SealedImage,
    raw: PathBuf,
    took: Vec<Duration>,
    /// Until there was a spare again.
    waited: Vec<Duration>,
}

impl Fragmented {
    fn new(images: &ImageStore, extents: u64) -> Result<Self> {
        let id = ImageId::new("image", &format!("{extents:08}"))?;
        images.delete(&id)?;
        let mut ingest = images.begin(&id, Cancel::never())?;
        ingest.hole(1 << 20)?;
        let image = images.seal(&id, ingest.finish()?, &Facts::default())?;
        let raw = images.paths(&id).raw;
        let file = OpenOptions::new().write(true).create_new(true).open(&raw)?;
        file.set_len(size(extents))?;
        for number in 0..extents {
            file.write_all_at(&[7; 4096], number * PERIOD)?;
        }
        file.sync_all()?;
        assert_eq!(image::extents::count(&file)?.map(u64::from), Some(extents));
        let (took, waited) = (Vec::new(), Vec::new());
        Ok(Self {
            extents,
            image,
            raw,
            took,
            waited,
        })
    }

    /// One volume, deleted again.
    fn round(&mut self, disk: &Disk, volumes: &Volumes) -> Result<()> {
        let name = VolumeName::new("volume")?;
        let spares = disk.spares().count();
        let start = Instant::now();
        let new = new(name.clone(), &self.image, size(self.extents))?;
        let Reserved::New(vacancy) = volumes.reserve(new)? else {
            return Err("the volume is there".into());
        };
        let (image, raw) = (&self.image, &*self.raw);
        vacancy.make(Some(Template { image, raw }))?;
        self.took.push(start.elapsed());
        volumes.delete(&name)?;
        let start = Instant::now();
        if disk.spares().count() < spares {
            while disk.spares().count() < spares && start.elapsed() < PATIENCE {
                sleep(Duration::from_millis(1));
            }
            self.waited.push(start.elapsed());
        }
        Ok(())
    }
}

/// At least that of the image.
fn size(extents: u64) -> u64 {
    (extents * PERIOD).max(1 << 20)
}

fn measure(root: &Path, with_spares: bool) -> Result<()> {
    let disk = Arc::new(Disk::open_within(root, Duration::from_secs(5))?);
    let images = ImageStore::new(disk.clone(), Place::Images);
    let volumes = Volumes::load(disk.clone(), NodeId::new("node")?)?;
    if !with_spares {
        disk.spares().give_up();
    }
    let mut all = Vec::new();
    for extents in [4, 256, 10_000] {
        all.push(Fragmented::new(&images, extents)?);
    }
    // The first of each asks for its spare.
    for fragmented in &mut all {
        fragmented.round(&disk, &volumes)?;
        fragmented.took.clear();
    }
    sleep(PATIENCE);
    println!("with spares: {with_spares}, {} made", disk.spares().count());
    for _ in 0..ROUNDS {
        for fragmented in &mut all {
            fragmented.round(&disk, &volumes)?;
        }
    }
    for mut fragmented in all {
        let worst = fragmented.took.iter().max().copied();
        println!(
            "  {} extents: median {:?}, worst {:?}; the next spare after {:?}",
            fragmented.extents,
            median(&mut fragmented.took),
            worst.unwrap_or_default(),
            median(&mut fragmented.waited),
        );
        images.delete(fragmented.image.id())?;
    }
    Ok(())
}

fn new(name: VolumeName, image: &SealedImage, size: u64) -> Result<NewVolume> {
    Ok(NewVolume {
        name,
        origin: Origin::Image(image.id().name.clone(), None),
        required: Some(ByteSize(size)),
        limit: None,
        number_of_replicas: 1,
        stale_replica_timeout: 20,
        fs_type: String::new(),
        partition: None,
        owner: Owner::new(Driver::Api, String::new(), String::new())?,
        parameters: BTreeMap::new(),
    })
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
