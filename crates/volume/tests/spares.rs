//! Spare clones on XFS, where files share extents: rows 564 to 566. Needs root, mkfs.xfs and xfs_io.
//!
//! The process that dies is this test binary itself, started again for the test `child`.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test may print and panic"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use store::{Disk, Facts, ImageStore, Place, SealedImage};
use types::{ByteSize, Cancel, ImageId, NodeId, VolumeName};
use volume::owner::{Driver, Owner};
use volume::record::MadeBy;
use volume::{NewVolume, Origin, Reserved, Template, Volumes};

/// So many that a clone takes long anywhere.
const EXTENTS: u64 = 2_000;
const PERIOD: u64 = 16 << 10;
const SIZE: u64 = EXTENTS * PERIOD;
/// The pause before a spare is made, the making, and a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// Where the child finds its disk.
const CHILD: &str = "SPARES_TEST_DISK";

/// An XFS of its own.
struct Xfs {
    dir: tempfile::TempDir,
}

impl Xfs {
    fn new() -> Option<Self> {
        let is_there = |tool: &&str| Command::new(tool).arg("-V").output().is_ok();
        let has_tools = ["mkfs.xfs", "xfs_io"].iter().all(is_there);
        if !rustix::process::geteuid().is_root() || !has_tools {
            eprintln!("skipped: needs root, mkfs.xfs and xfs_io");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let xfs = Self { dir };
        let file = xfs.dir.path().join("file");
        File::create(&file).unwrap().set_len(1 << 30).unwrap();
        fs::create_dir(xfs.root()).unwrap();
        run(
            "mkfs.xfs",
            &["-q", "-m", "reflink=1", file.to_str().unwrap()],
        );
        xfs.mount();
        Disk::init(&xfs.root(), None).unwrap();
        Some(xfs)
    }

    fn mount(&self) {
        let (file, root) = (self.dir.path().join("file"), self.root());
        let (file, root) = (file.to_str().unwrap(), root.to_str().unwrap());
        run("mount", &["-o", "loop,nouuid", file, root]);
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("disk")
    }

    /// From here on nothing reaches the disk, not even what the log of the file system holds in memory.
    fn cut_the_power(&self) {
        let root = self.root();
        run("xfs_io", &["-x", "-c", "shutdown", root.to_str().unwrap()]);
    }

    fn mount_again(&self) {
        let start = Instant::now();
        let umount = || Command::new("umount").arg(self.root()).output().unwrap();
        // The thread that makes spares ends when it sees that its disk is gone.
        while !umount().status.success() {
            assert!(start.elapsed() < PATIENCE, "the disk is busy");
            thread::sleep(Duration::from_millis(20));
        }
        self.mount();
    }

    /// How many are in use.
    fn inodes(&self) -> u64 {
        let stat = rustix::fs::statvfs(self.root()).unwrap();
        stat.f_files - stat.f_ffree
    }
}

impl Drop for Xfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.root()).output();
    }
}

fn run(tool: &str, arguments: &[&str]) {
    let output = Command::new(tool).args(arguments).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{tool} {arguments:?}: {stderr}");
}

/// A manager's disk with one image, whose raw form has [`EXTENTS`].
#[derive(Clone)]
struct Served {
    disk: Arc<Disk>,
    images: ImageStore,
    volumes: Volumes,
    image: SealedImage,
    raw: PathBuf,
}

impl Served {
    fn on(root: &Path) -> Self {
        let disk = Arc::new(Disk::open_within(root, PATIENCE).unwrap());
        let images = ImageStore::new(disk.clone(), Place::Images);
        let volumes = Volumes::load(disk.clone(), NodeId::new("node-1").unwrap()).unwrap();
        let id = ImageId::new("image", "a93b9a55").unwrap();
        images.delete(&id).unwrap();
        let mut ingest = images.begin(&id, Cancel::never()).unwrap();
        ingest.hole(1 << 20).unwrap();
        let received = ingest.finish().unwrap();
        let image = images.seal(&id, received, &Facts::default()).unwrap();
        let raw = images.paths(&id).raw;
        let served = Self {
            disk,
            images,
            volumes,
            image,
            raw,
        };
        served.write_raw(1);
        served
    }

    /// Makes the raw form hold this byte at the beginning of each period.
    fn write_raw(&self, byte: u8) {
        let mut options = OpenOptions::new();
        let raw = options
            .write(true)
            .create(true)
            .truncate(false)
            .open(&self.raw);
        let raw = raw.unwrap();
        raw.set_len(SIZE).unwrap();
        for number in 0..EXTENTS {
            raw.write_all_at(&[byte; 4096], number * PERIOD).unwrap();
        }
        raw.sync_all().unwrap();
    }

    fn make(&self, name: &str) -> PathBuf {
        let name = VolumeName::new(name).unwrap();
        let new = NewVolume {
            name: name.clone(),
            origin: Origin::Image(self.image.id().name.clone(), None),
            required: Some(ByteSize(SIZE)),
            limit: None,
            number_of_replicas: 1,
            stale_replica_timeout: 20,
            fs_type: String::new(),
            partition: None,
            owner: Owner::new(Driver::Api, String::new(), String::new()).unwrap(),
            parameters: BTreeMap::new(),
        };
        let Reserved::New(vacancy) = self.volumes.reserve(new).unwrap() else {
            panic!("{name} is there");
        };
        let (image, raw) = (&self.image, &*self.raw);
        let volume = vacancy.make(Some(Template { image, raw })).unwrap();
        assert_eq!(volume.record.made_by, MadeBy::Reflink);
        self.disk.layout().volume(&name).data
    }

    fn count(&self) -> usize {
        self.disk.spares().count()
    }

    fn wait_for_spare(&self) {
        let start = Instant::now();
        while self.count() == 0 {
            assert!(start.elapsed() < PATIENCE, "no spare is made");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// That no spare comes up in the time that one takes, and longer.
    fn no_spare(&self) {
        for _ in 0..100 {
            assert_eq!(self.count(), 0);
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn content(path: &Path) -> Vec<u8> {
    let bytes = fs::read(path).unwrap();
    assert_eq!(bytes.len() as u64, SIZE);
    bytes
}

/// What the volume at `path` holds, if it is `byte` in each period and nothing between.
fn holds(path: &Path, byte: u8) {
    let bytes = content(path);
    for period in bytes.chunks(usize::try_from(PERIOD).unwrap()) {
        let (data, hole) = period.split_at(4096);
        assert!(
            data.iter().all(|found| *found == byte),
            "{}",
            path.display()
        );
        assert!(hole.iter().all(|found| *found == 0), "{}", path.display());
    }
}

/// Row 566: many volumes at once of an image that has a spare.
#[test]
fn row_566_volumes_at_once_never_share_a_spare() {
    let Some(xfs) = Xfs::new() else { return };
    let served = Served::on(&xfs.root());
    let cloned = served.make("cloned");
    let facts = |path: &Path| {
        let meta = fs::metadata(path).unwrap();
        (
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.nlink(),
            meta.size(),
            meta.blocks(),
        )
    };
    for round in 0..3 {
        served.wait_for_spare();
        let made: Vec<_> = thread::scope(|scope| {
            let served = &served;
            let threads: Vec<_> = (0..6)
                .map(|number| scope.spawn(move || served.make(&format!("v{round}-{number}"))))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        let inodes: BTreeSet<_> = made
            .iter()
            .map(|path| fs::metadata(path).unwrap().ino())
            .collect();
        assert_eq!(inodes.len(), made.len());
        for path in &made {
            holds(path, 1);
            assert_eq!(
                facts(path),
                facts(&cloned),
                "one of a spare is as one of a clone"
            );
        }
        // What one writes, no other sees: neither those that are there nor the next.
        let written = OpenOptions::new().write(true).open(&made[0]).unwrap();
        written.write_all_at(&[9; 4096], 0).unwrap();
        written.sync_all().unwrap();
        for path in made.iter().skip(1).chain([&cloned, &served.raw]) {
            holds(path, 1);
        }
    }
}

/// Row 565: the raw form changes, goes away or is replaced after a spare of it was made.
#[test]
fn row_565_a_spare_is_never_that_of_another_image() {
    let Some(xfs) = Xfs::new() else { return };
    let served = Served::on(&xfs.root());
    served.make("first");
    served.wait_for_spare();
    // To be made, and to be read, changes nothing of its source.
    content(&served.raw);
    let from_spare = served.make("second");
    holds(&from_spare, 1);
    served.wait_for_spare();
    // Written to where it is.
    served.write_raw(2);
    holds(&served.make("written"), 2);
    served.wait_for_spare();
    // Another file in its place, with the same size and times.
    let before = fs::metadata(&served.raw).unwrap();
    fs::rename(&served.raw, served.raw.with_extension("away")).unwrap();
    served.write_raw(3);
    File::options()
        .write(true)
        .open(&served.raw)
        .unwrap()
        .set_modified(before.modified().unwrap())
        .unwrap();
    holds(&served.make("replaced"), 3);
    served.wait_for_spare();
    // Everything that the store does to it gives the spare up, and at once.
    served.images.drop_raw_form(&served.image).unwrap();
    assert_eq!(served.count(), 0);
    served.write_raw(4);
    holds(&served.make("dropped"), 4);
    served.wait_for_spare();
    let aside = served.images.quarantine(served.image.id()).unwrap();
    assert_eq!(served.count(), 0);
    fs::rename(aside, served.raw.parent().unwrap()).unwrap();
    served.make("set-aside");
    served.wait_for_spare();
    served.images.delete(served.image.id()).unwrap();
    assert_eq!(served.count(), 0);
    served.no_spare();
}

/// Row 565: an image is deleted while its spare is wanted, or being made.
#[test]
fn row_565_no_spare_is_finished_for_an_image_that_is_deleted() {
    let Some(xfs) = Xfs::new() else { return };
    for pause in [0, 10, 19, 21, 23, 26, 30, 40] {
        let served = Served::on(&xfs.root());
        let name = format!("after-{pause}");
        served.make(&name);
        thread::sleep(Duration::from_millis(pause));
        served.images.delete(served.image.id()).unwrap();
        assert_eq!(served.count(), 0);
        served.no_spare();
    }
}

/// An image that is cloned at once needs no spare.
#[test]
fn an_image_that_clones_fast_has_no_spare() {
    let Some(xfs) = Xfs::new() else { return };
    let served = Served::on(&xfs.root());
    File::create(&served.raw).unwrap().set_len(SIZE).unwrap();
    served.make("first");
    served.no_spare();
}

/// What is left of a disk that is nearly full is for what the volumes write.
#[test]
fn a_disk_that_is_short_of_room_gets_no_spare() {
    let Some(xfs) = Xfs::new() else { return };
    let served = Served::on(&xfs.root());
    let space = served.disk.space().unwrap();
    let filler = File::create(xfs.root().join("filler")).unwrap();
    let most = space.available - space.size / 20;
    assert!(image::extents::preallocate(&filler, 0..most).unwrap());
    served.make("first");
    served.no_spare();
    filler.set_len(0).unwrap();
    served.make("second");
    served.wait_for_spare();
}

/// The process that dies with a spare.
#[test]
fn child() {
    let Some(root) = std::env::var_os(CHILD) else {
        return;
    };
    let served = Served::on(Path::new(&root));
    served.make("acknowledged");
    served.wait_for_spare();
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
        .unwrap();
}

/// Row 564: the manager ends in any way while there are spares.
#[test]
fn row_564_a_manager_that_is_killed_leaves_no_spare() {
    let Some(xfs) = Xfs::new() else { return };
    let root = xfs.root();
    // What is there without a spare.
    drop(Served::on(&root));
    let before = xfs.inodes();
    let mut child = Command::new(std::env::current_exe().unwrap());
    let ended = child
        .args(["child", "--exact"])
        .env(CHILD, &root)
        .output()
        .unwrap();
    assert_eq!(ended.status.signal(), Some(9), "{ended:?}");
    let disk = Arc::new(Disk::open_within(&root, PATIENCE).unwrap());
    let volumes = Volumes::load(disk.clone(), NodeId::new("node-1").unwrap()).unwrap();
    assert_eq!(disk.spares().count(), 0);
    let listed = |dir: PathBuf| -> Vec<_> {
        fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect()
    };
    assert_eq!(listed(disk.layout().volumes()), ["acknowledged"]);
    assert_eq!(volumes.list("", 9).unwrap().0.len(), 1);
    // The volume's directory, its file and its record; the kernel frees the spare a little later.
    let start = Instant::now();
    while xfs.inodes() > before + 3 {
        assert!(start.elapsed() < PATIENCE, "{} of {before}", xfs.inodes());
        thread::sleep(Duration::from_millis(20));
    }
}

/// Row 564: the power is cut right after a volume was made of a spare, or when there is the next one.
#[test]
fn row_564_a_power_cut_leaves_the_volumes_and_no_spare() {
    for with_spare in [false, true] {
        let Some(xfs) = Xfs::new() else { return };
        let root = xfs.root();
        let served = Served::on(&root);
        let before = xfs.inodes();
        served.make("cloned");
        served.wait_for_spare();
        run("sync", &["-f", root.to_str().unwrap()]);
        // All that is on the disk of this volume it wrote itself.
        served.make("named");
        assert_eq!(served.count(), 0, "it has the spare");
        if with_spare {
            served.wait_for_spare();
        }
        xfs.cut_the_power();
        drop(served);
        xfs.mount_again();
        let disk = Arc::new(Disk::open_within(&root, PATIENCE).unwrap());
        let volumes = Volumes::load(disk.clone(), NodeId::new("node-1").unwrap()).unwrap();
        for name in ["cloned", "named"] {
            let name = VolumeName::new(name).unwrap();
            assert_eq!(volumes.get(&name).unwrap().record.made_by, MadeBy::Reflink);
            holds(&disk.layout().volume(&name).data, 1);
        }
        // Of each volume its directory, its file and its record.
        assert_eq!(xfs.inodes(), before + 2 * 3);
    }
}
