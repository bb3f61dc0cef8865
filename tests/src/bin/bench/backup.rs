//! Backups and restores, beside `cp` and `sync` of the same data, or plain puts of the same bytes.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use e2e::manager::{Options, from_backup, from_file, from_volume, init_disk, new_backup};
use e2e::s3::{self, ObjectStore};
use e2e::{Disk, FileSystem, Manager, Sandbox, command};
use proto::storage::v1 as pb;

use crate::cost::{Cost, Transfers};
use crate::report::{Budget, Report, Runs};

const MIB: u64 = 1 << 20;
const BLOCK: u64 = 2 * MIB;
const RANDOM: u64 = 1 << 30;
const RUNS: usize = 5;
/// What a lock costs: Longhorn's protocol waits so long before anybody may begin.
const LOCK: f64 = 2.0;

struct Site {
    manager: Manager,
    disk: Disk,
    /// Where the stores in directories and the copies are: on the disk, as `cp` writes there too.
    beside: PathBuf,
    objects: ObjectStore,
    _sandbox: Sandbox,
}

fn site() -> Site {
    let sandbox = Sandbox::new("bench-backup");
    let disk = Disk::new(&sandbox, "disk", FileSystem::Xfs, 24 << 30);
    init_disk(disk.dir());
    let beside = disk.dir().join("beside");
    let directory = beside.join("store");
    fs::create_dir_all(&directory).unwrap();
    let import = disk.dir().join("import");
    fs::create_dir_all(&import).unwrap();
    let objects = ObjectStore::start(&sandbox);
    let credentials = s3::mount_secret(&sandbox, "objects", &objects.credentials());
    let options = Options::new(disk.dir())
        .with("--import-dir", &import)
        .with(
            "--backup-target",
            format!("default=vfs://{}", directory.display()),
        )
        .with(
            "--backup-target",
            format!("objects={}", s3::address("bench")),
        )
        .with("--backup-credentials", credentials);
    let manager = Manager::start(&sandbox, &options);
    Site {
        manager,
        disk,
        beside,
        objects,
        _sandbox: sandbox,
    }
}

fn noise(seed: u64) -> impl FnMut(&mut [u8]) {
    let mut state = seed * 2 + 1;
    move |bytes| {
        for word in bytes.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
    }
}

/// Writes noise over a part of a file.
fn scribble(path: &Path, seed: u64, ranges: impl Iterator<Item = (u64, u64)>) {
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .unwrap();
    let mut noise = noise(seed);
    let mut bytes = vec![0; 1 << 20];
    for (offset, length) in ranges {
        for at in (offset..offset + length).step_by(1 << 20) {
            let piece = usize::try_from((offset + length - at).min(MIB)).unwrap();
            noise(&mut bytes[..piece]);
            file.write_all_at(&bytes[..piece], at).unwrap();
        }
    }
    file.sync_all().unwrap();
}

impl Site {
    /// A volume of `size` bytes with noise in some ranges, and a ready snapshot of it.
    fn volume(&self, name: &str, size: u64, ranges: impl Iterator<Item = (u64, u64)>) {
        let file = self.disk.dir().join("import").join(name);
        File::create(&file).unwrap().set_len(size).unwrap();
        scribble(&file, 1, ranges);
        let image = self.manager.make_image(from_file(name, &file)).unwrap();
        assert_eq!(image.progress, 100, "{image:?}");
        self.manager.create_volume(name, name, 0).unwrap();
        self.snapshot(name, &format!("{name}-1"));
    }

    fn file(&self, volume: &str) -> PathBuf {
        self.disk.dir().join("volumes").join(volume).join("volume")
    }

    fn snapshot(&self, volume: &str, name: &str) {
        let image = self.manager.make_image(from_volume(name, volume)).unwrap();
        assert_eq!(image.progress, 100, "{image:?}");
    }

    fn target(name: &str) -> pb::BackupTarget {
        pb::BackupTarget {
            name: name.into(),
            ..Default::default()
        }
    }

    /// The same, and what it takes of the processors.
    fn cost_of(&self, run: impl FnOnce() -> f64) -> Cost {
        let mut seconds = 0.0;
        let cost = Cost::of_processes(&[&self.manager.process], || seconds = run());
        Cost { seconds, ..cost }
    }

    /// Seconds from the request to complete, without the wait of the lock.
    fn back_up(&self, target: &str, volume: &str, snapshot: &str) -> f64 {
        let request = pb::CreateBackupRequest {
            target: Some(Self::target(target)),
            snapshot: snapshot.into(),
            ..new_backup(volume, snapshot)
        };
        let start = Instant::now();
        let backup = self.manager.make_backup(request).unwrap();
        let took = start.elapsed().as_secs_f64() - LOCK;
        assert_eq!(backup.state(), pb::BackupState::Complete, "{backup:?}");
        took
    }

    /// Seconds from the request to ready.
    fn restore(&self, target: &str, volume: &str, backup: &str) -> f64 {
        let mut request = from_backup("restored", volume, backup);
        if let Some(pb::Source {
            source: Some(pb::source::Source::Backup(source)),
        }) = &mut request.source
        {
            source.target = Some(Self::target(target));
        }
        let start = Instant::now();
        let image = self.manager.ready_image(request).unwrap();
        let took = start.elapsed().as_secs_f64() - LOCK;
        assert_eq!(image.progress, 100, "{image:?}");
        self.manager.delete_image("restored").unwrap();
        took
    }

    /// Seconds of `cp --sparse=always` and `sync` of a file.
    fn copy(&self, from: &Path) -> f64 {
        self.cost_of_copy(from).seconds
    }

    fn cost_of_copy(&self, from: &Path) -> Cost {
        let to = self.beside.join("copy");
        // Without reflink: the bytes are to be copied.
        let options = ["--reflink=never", "--sparse=always"].map(AsRef::as_ref);
        let cost = Cost::of_commands(|| {
            let files = [from.as_os_str(), to.as_os_str()];
            command::run("cp", options.into_iter().chain(files));
            command::run("sync", [&to]);
        });
        fs::remove_file(to).unwrap();
        cost
    }

    /// Seconds of plain puts of a file in pieces of a block, two at a time.
    fn put(&self, from: &Path) -> f64 {
        let file = File::open(from).unwrap();
        let blocks = file.metadata().unwrap().len() / BLOCK;
        let start = Instant::now();
        std::thread::scope(|scope| {
            for worker in 0..2 {
                let (file, objects) = (&file, &self.objects);
                scope.spawn(move || {
                    let mut bytes = vec![0; usize::try_from(BLOCK).unwrap()];
                    for block in (worker..blocks).step_by(2) {
                        file.read_exact_at(&mut bytes, block * BLOCK).unwrap();
                        objects.put(&format!("plain/{block}"), &bytes);
                    }
                });
            }
        });
        start.elapsed().as_secs_f64()
    }

    fn forget_backups(&self, target: &str) {
        if target == "default" {
            let _ = fs::remove_dir_all(self.beside.join("store/backupstore"));
        }
        for key in self.objects.keys("bench/") {
            self.objects.delete(&key);
        }
    }

    /// The most memory that the manager has held so far.
    fn memory(&self) -> f64 {
        self.manager.process.memory().0 as f64 / MIB as f64
    }
}

/// 1 GiB of noise to a directory and back; then 1 % of it changed.
pub(crate) fn directory(report: &mut Report) {
    let site = site();
    site.volume("noise", RANDOM, std::iter::once((0, RANDOM)));
    let file = site.file("noise");
    let (beside, gib) = ("cp + sync", RANDOM as f64 / f64::from(1 << 30));
    let transfers = Transfers::interleaved(
        RUNS,
        || {
            site.forget_backups("default");
            site.cost_of(|| site.back_up("default", "noise", "noise-1"))
        },
        || site.cost_of_copy(&file),
    );
    let backup = &transfers.seconds;
    report.add(
        "backup-1GiB-noise",
        backup,
        beside,
        "s",
        Budget::AtMost(2.0),
    );
    let budget = Budget::AtMost(2.0);
    let processor = transfers.processor.scaled(1.0 / gib);
    report.add("backup-1GiB-noise-cpu", &processor, beside, "s/GiB", budget);
    let transfers = Transfers::interleaved(
        RUNS,
        || site.cost_of(|| site.restore("default", "noise", "noise-1")),
        || site.cost_of_copy(&file),
    );
    let budget = Budget::AtMost(1.5);
    report.add(
        "restore-1GiB-noise",
        &transfers.seconds,
        beside,
        "s",
        budget,
    );
    let processor = transfers.processor.scaled(1.0 / gib);
    let budget = Budget::AtMost(2.0);
    report.add(
        "restore-1GiB-noise-cpu",
        &processor,
        beside,
        "s/GiB",
        budget,
    );
    let mut memory = Runs::default();
    // What the process has without backups, 2 threads with 3 blocks each, and 16 MiB.
    memory.add(site.memory(), 64.0 + 16.0 + 12.0);
    report.add(
        "backup-memory-peak",
        &memory,
        "the bound",
        "MiB",
        Budget::AtMost(1.0),
    );
    let mut second = Runs::default();
    for run in 0..3 {
        // Five pieces of 2 MiB are 1 %.
        let pieces = (0..5).map(|piece| (piece * 100 * BLOCK, BLOCK));
        scribble(&file, 7 + run, pieces);
        let snapshot = format!("noise-{}", run + 2);
        site.snapshot("noise", &snapshot);
        let took = site.back_up("default", "noise", &snapshot);
        second.add(took, backup.pieces(5.0 / 512.0) + 0.5);
    }
    let beside = "5 of 512 blocks of the first backup + 0.5 s";
    report.add(
        "backup-1%-changed",
        &second,
        beside,
        "s",
        Budget::AtMost(1.0),
    );
}

/// The same to an object store on this machine and back.
pub(crate) fn objects(report: &mut Report) {
    let site = site();
    site.volume("noise", RANDOM, std::iter::once((0, RANDOM)));
    let file = site.file("noise");
    let mut backup = Runs::default();
    for _ in 0..RUNS {
        site.forget_backups("objects");
        backup.add(site.back_up("objects", "noise", "noise-1"), site.put(&file));
    }
    report.add(
        "backup-s3-1GiB-noise",
        &backup,
        "plain puts",
        "s",
        Budget::None,
    );
    let restore = Runs::interleaved(
        RUNS,
        || site.restore("objects", "noise", "noise-1"),
        || site.copy(&file),
    );
    report.add(
        "restore-s3-1GiB-noise",
        &restore,
        "cp + sync",
        "s",
        Budget::None,
    );
}

/// 1 GiB with 50 MiB of data in it, as a file system spreads them.
pub(crate) fn sparse(report: &mut Report) {
    let site = site();
    let pieces = (0..25).map(|piece| (piece * 20 * BLOCK, BLOCK));
    site.volume("sparse", RANDOM, pieces);
    let file = site.file("sparse");
    let mut runs = Runs::default();
    for _ in 0..RUNS {
        site.forget_backups("default");
        let took = site.back_up("default", "sparse", "sparse-1");
        runs.add(took, 1.5 * site.copy(&file) + 0.5);
    }
    let beside = "1.5 × cp + sync, + 0.5 s";
    report.add(
        "backup-50MiB-in-1GiB",
        &runs,
        beside,
        "s",
        Budget::AtMost(1.0),
    );
}
