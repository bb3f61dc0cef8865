//! Changed ranges on real file systems: no change is missed, whatever was done to the files, and plain
//! writes are found exactly.

#![allow(
    clippy::single_range_in_vec_init,
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may panic and print, and ranges are what is found"
)]

mod oracle;

use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use image::changes::{BLOCK, Compared, changed_ranges, compare_bytes, differing_ranges};
use image::{Error, extents};
use oracle::Noise;
use types::Cancel;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// A file system of 1 GiB in a file, mounted.
struct Mounted(tempfile::TempDir);

impl Drop for Mounted {
    fn drop(&mut self) {
        oracle::unmount(self.0.path());
    }
}

/// `None`, with a line that says so, where it cannot be made. `options` as for mount.
fn mounted(fs_type: &str, options: &str) -> Option<Mounted> {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let mkfs = format!("mkfs.{fs_type}");
    let is_known = known.lines().any(|line| line.trim() == fs_type);
    if !rustix::process::geteuid().is_root()
        || !is_known
        || Command::new(&mkfs).arg("-V").output().is_err()
    {
        println!("skipped: needs root and {fs_type}");
        return None;
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(1 << 30).unwrap();
    let path = file.path().to_str().unwrap();
    run(&mkfs, &["-q", path]);
    let dir = tempfile::tempdir().unwrap();
    // The loop device keeps the file, and ends with the mount.
    let options = format!("loop,{options}");
    run(
        "mount",
        &["-o", &options, path, dir.path().to_str().unwrap()],
    );
    Some(Mounted(dir))
}

fn run(tool: &str, arguments: &[&str]) {
    let output = Command::new(tool).args(arguments).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{tool} {arguments:?}: {stderr}");
}

impl Mounted {
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A new file of `size` bytes of noise.
    fn noise(&self, name: &str, size: u64, seed: u64) -> File {
        let file = writable(&self.path(name));
        let mut noise = Noise(seed);
        for at in (0..size).step_by(1 << 20) {
            file.write_all_at(&random(&mut noise, MIB.min(size - at)), at)
                .unwrap();
        }
        file
    }

    /// A clone, or a copy where nothing is shared.
    fn snapshot(&self, source: &str, name: &str) {
        let (source, target) = (
            File::open(self.path(source)).unwrap(),
            writable(&self.path(name)),
        );
        source.sync_all().unwrap();
        if !extents::reflink(&source, &target).unwrap() {
            extents::copy_sparse(&source, &target, &mut |_| true).unwrap();
        }
    }

    /// By extents, by bytes, and whether the extents tell.
    fn compare(&self, base: &str, file: &str) -> (Ranges, Ranges, Compared) {
        let (base, file) = (
            File::open(self.path(base)).unwrap(),
            File::open(self.path(file)).unwrap(),
        );
        let (mut by_extents, mut by_bytes) = (Vec::new(), Vec::new());
        let compared = changed_ranges(&base, &file, &mut |range| by_extents.push(range)).unwrap();
        let cancel = Cancel::never();
        let mut found = |range| by_bytes.push(range);
        compare_bytes(&base, &file, &cancel, &mut |_| {}, &mut found).unwrap();
        // From anywhere on, it is the rest.
        for from in [0, by_extents.first().map_or(0, |range| range.start + 1)] {
            let (start, mut rest) = (from / BLOCK * BLOCK, by_extents.clone());
            rest.retain(|range| range.end > start);
            if let Some(first) = rest.first_mut() {
                first.start = first.start.max(start);
            }
            let (mut found, mut told) = (Vec::new(), 0);
            let (mut add, mut tell) = (|range| found.push(range), |at| told = at);
            differing_ranges(&base, &file, from, &cancel, &mut tell, &mut add).unwrap();
            assert_eq!(found, rest, "from {from}");
            assert!(
                told == file.metadata().unwrap().len() || told == 0,
                "{told}"
            );
        }
        (by_extents, by_bytes, compared)
    }
}

type Ranges = Vec<Range<u64>>;

fn writable(path: &Path) -> File {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(true);
    options.open(path).unwrap()
}

fn random(noise: &mut Noise, length: u64) -> Vec<u8> {
    (0..length).map(|_| noise.byte()).collect()
}

/// What differs, block by block, of the whole contents. A shorter base goes on with zeros.
fn oracle(base: &Path, file: &Path) -> Ranges {
    let (mut base, file) = (fs::read(base).unwrap(), fs::read(file).unwrap());
    base.resize(file.len().max(base.len()), 0);
    let mut found = Ranges::new();
    for (number, block) in file.chunks(4096).enumerate() {
        let start = number as u64 * BLOCK;
        let end = start + block.len() as u64;
        if block != &base[number * 4096..][..block.len()] {
            match found.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => found.push(start..end),
            }
        }
    }
    found
}

fn is_within(small: &Range<u64>, large: &[Range<u64>]) -> bool {
    large
        .iter()
        .any(|range| range.start <= small.start && small.end <= range.end)
}

/// One thing that happens to a volume's file.
fn meddle(file: &File, noise: &mut Noise) {
    let size = file.metadata().unwrap().len();
    let aligned = !noise.next().is_multiple_of(4);
    let unit = if aligned { BLOCK } else { 1 };
    let at = noise.next() % size / unit * unit;
    let most = [BLOCK, 64 * KIB, 512 * KIB][(noise.next() % 3) as usize];
    let length = (1 + noise.next() % most)
        .next_multiple_of(unit)
        .min(size - at);
    match noise.next() % 12 {
        0..=3 => file.write_all_at(&random(noise, length), at).unwrap(),
        // What a file system compresses well.
        4..=6 => {
            let byte = noise.byte();
            file.write_all_at(&vec![byte; length as usize], at).unwrap();
        }
        7 => file.write_all_at(&vec![0; length as usize], at).unwrap(),
        8 => drop(extents::punch_hole(file, at..at + length).unwrap()),
        9 => drop(extents::preallocate(file, at..at + length).unwrap()),
        10 => file.set_len(size + noise.next() % (64 * KIB)).unwrap(),
        _ => {
            let less = size - noise.next() % (size / 8);
            file.set_len(less.max(MIB)).unwrap();
        }
    }
    if noise.next().is_multiple_of(3) {
        file.sync_all().unwrap();
    }
}

/// Random lives of a volume of which snapshots are taken: each is compared with each that is older.
fn no_change_is_missed(disk: &Mounted, rounds: u64) {
    for round in 1..=rounds {
        let mut noise = Noise(round.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let volume = disk.noise("volume", 0, 1);
        volume.set_len(4 * MIB).unwrap();
        let mut snapshots: Vec<String> = Vec::new();
        for number in 0..4 {
            for _ in 0..=noise.next() % 12 {
                meddle(&volume, &mut noise);
            }
            let name = format!("snapshot-{number}");
            disk.snapshot("volume", &name);
            for older in &snapshots {
                let (by_extents, by_bytes, compared) = disk.compare(older, &name);
                let differ = oracle(&disk.path(older), &disk.path(&name));
                assert_eq!(by_bytes, differ, "round {round}: {older} to {name}");
                assert_eq!(compared, Compared::Exact);
                for range in &differ {
                    let missed = format!("round {round}: {older} to {name} misses {range:?}");
                    assert!(is_within(range, &by_extents), "{missed}: {by_extents:?}");
                }
                assert!(
                    by_extents
                        .windows(2)
                        .all(|pair| pair[0].end < pair[1].start),
                    "{by_extents:?}"
                );
            }
            snapshots.push(name);
        }
    }
}

#[test]
fn no_change_is_missed_on_xfs() {
    let Some(disk) = mounted("xfs", "rw") else {
        return;
    };
    no_change_is_missed(&disk, 25);
}

#[test]
fn no_change_is_missed_on_btrfs() {
    let Some(disk) = mounted("btrfs", "rw") else {
        return;
    };
    no_change_is_missed(&disk, 25);
}

#[test]
fn no_change_is_missed_on_btrfs_that_compresses() {
    for options in ["compress=lzo", "compress-force=zstd"] {
        let Some(disk) = mounted("btrfs", options) else {
            return;
        };
        no_change_is_missed(&disk, 25);
    }
}

#[test]
fn no_change_is_missed_on_ext4() {
    let Some(disk) = mounted("ext4", "rw") else {
        return;
    };
    no_change_is_missed(&disk, 10);
}

/// Writes to every third of 9000 blocks: more extents than one call of the kernel tells, in both files.
#[test]
fn plain_writes_are_found_exactly_however_many_there_are() {
    for (fs_type, options) in [("xfs", "rw"), ("btrfs", "rw")] {
        let Some(disk) = mounted(fs_type, options) else {
            continue;
        };
        let volume = disk.noise("volume", 48 * MIB, 5);
        let mut noise = Noise(77);
        let mut write = |phase: u64| {
            for block in (0..9000).filter(|block| block % 3 == phase) {
                volume
                    .write_all_at(&random(&mut noise, BLOCK), block * BLOCK)
                    .unwrap();
            }
        };
        write(0);
        disk.snapshot("volume", "one");
        write(1);
        disk.snapshot("volume", "two");
        let expected: Ranges = (0..9000)
            .filter(|block| block % 3 == 1)
            .map(|block| block * BLOCK..(block + 1) * BLOCK)
            .collect();
        let (by_extents, by_bytes, compared) = disk.compare("one", "two");
        assert_eq!(compared, Compared::Exact);
        assert!(by_bytes == expected, "{fs_type}: by bytes");
        let count = by_extents.len();
        assert!(by_extents == expected, "{fs_type}: {count} ranges");
        assert_eq!(
            disk.compare("one", "one"),
            (vec![], vec![], Compared::Exact)
        );
    }
}

#[test]
fn zeros_that_were_never_written_are_no_change() {
    for fs_type in ["xfs", "btrfs", "ext4"] {
        let Some(disk) = mounted(fs_type, "rw") else {
            continue;
        };
        let base = writable(&disk.path("base"));
        base.set_len(8 * MIB).unwrap();
        assert!(extents::preallocate(&base, MIB..3 * MIB).unwrap());
        disk.snapshot("base", "file");
        let file = File::options().write(true).open(disk.path("file")).unwrap();
        assert!(extents::preallocate(&file, 4 * MIB..6 * MIB).unwrap());
        file.set_len(16 * MIB).unwrap();
        file.write_all_at(&[1], 12 * MIB + 1).unwrap();
        let expected = vec![12 * MIB..12 * MIB + BLOCK];
        let found = disk.compare("base", "file");
        assert_eq!(found, (expected.clone(), expected, Compared::Exact));
    }
}

/// Of compressed extents a change touches its own alone.
#[test]
fn a_change_of_compressed_data_touches_its_extent_alone() {
    let Some(disk) = mounted("btrfs", "compress-force=zstd") else {
        return;
    };
    let volume = writable(&disk.path("volume"));
    for piece in 0..16_u8 {
        volume
            .write_all_at(&vec![piece + 1; 128 << 10], u64::from(piece) * 128 * KIB)
            .unwrap();
    }
    disk.snapshot("volume", "one");
    let at = 5 * 128 * KIB;
    volume.write_all_at(&vec![99; 128 << 10], at).unwrap();
    disk.snapshot("volume", "two");
    let expected = vec![at..at + 128 * KIB];
    let found = disk.compare("one", "two");
    assert_eq!(found, (expected.clone(), expected, Compared::Exact));
}

/// 128 KiB that take 64 KiB, of which the second half is written again: the new extent comes to lie where
/// the second half of the old one would if it were not compressed, and the kernel tells one extent, which
/// is the same in both files.
#[test]
fn a_change_behind_half_a_compressed_extent_is_found() {
    let Some(disk) = mounted("btrfs", "compress-force=zstd") else {
        return;
    };
    let volume = writable(&disk.path("volume"));
    let mut old = random(&mut Noise(3), 65_000);
    old.resize(128 << 10, 0);
    volume.write_all_at(&old, 0).unwrap();
    disk.snapshot("volume", "one");
    volume
        .write_all_at(&vec![b'x'; 64 << 10], 64 * KIB)
        .unwrap();
    disk.snapshot("volume", "two");
    let (by_extents, by_bytes, compared) = disk.compare("one", "two");
    assert_eq!(compared, Compared::Exact);
    assert_eq!(by_bytes, vec![64 * KIB..128 * KIB]);
    assert!(is_within(&by_bytes[0], &by_extents), "{by_extents:?}");
}

/// Small files lie in the inodes of btrfs, where no place tells anything.
#[test]
fn what_has_no_place_on_the_disk_is_changed() {
    let Some(disk) = mounted("btrfs", "rw") else {
        return;
    };
    disk.noise("one", 1000, 1);
    disk.noise("two", 1000, 2);
    let expected = vec![0..1000];
    let found = disk.compare("one", "two");
    assert_eq!(found, (expected.clone(), expected, Compared::Exact));
}

/// What a defragmentation does, all the time: the same bytes, elsewhere.
#[test]
fn a_base_that_moves_while_it_is_compared_is_not_believed() {
    for fs_type in ["xfs", "btrfs"] {
        let Some(disk) = mounted(fs_type, "rw") else {
            continue;
        };
        let volume = disk.noise("volume", 8 * MIB, 9);
        let mut noise = Noise(4);
        let mut write = |step: usize| {
            for block in (0..2000).step_by(step) {
                volume
                    .write_all_at(&random(&mut noise, BLOCK), block * BLOCK)
                    .unwrap();
            }
        };
        write(3);
        disk.snapshot("volume", "one");
        write(100);
        disk.snapshot("volume", "two");
        let differ = oracle(&disk.path("one"), &disk.path("two"));
        let (base, file) = (
            File::open(disk.path("one")).unwrap(),
            File::open(disk.path("two")).unwrap(),
        );
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let path = disk.path("one");
        let mover = std::thread::spawn(move || {
            let moved = File::options().read(true).write(true).open(path).unwrap();
            let mut bytes = vec![0; 16 << 10];
            let mut noise = Noise(8);
            while stopped.try_recv().is_err() {
                let at = noise.next() % 500 * 4 * BLOCK;
                moved.read_exact_at(&mut bytes, at).unwrap();
                moved.write_all_at(&bytes, at).unwrap();
                moved.sync_data().unwrap();
            }
        });
        let cancel = Cancel::never();
        let is_unknown = (0..2000).any(|_| {
            let mut found = Vec::new();
            let mut add = |range| found.push(range);
            differing_ranges(&base, &file, 0, &cancel, &mut |_| {}, &mut add).unwrap();
            assert!(differ.iter().all(|range| is_within(range, &found)));
            changed_ranges(&base, &file, &mut |_| {}).unwrap() == Compared::Unknown
        });
        stop.send(()).unwrap();
        mover.join().unwrap();
        assert!(is_unknown, "{fs_type}: it never moved between two looks");
        // It stays where it is now, and what moved looks changed.
        let (by_extents, by_bytes, compared) = disk.compare("one", "two");
        assert_eq!((&by_bytes, compared), (&differ, Compared::Exact));
        assert!(differ.iter().all(|range| is_within(range, &by_extents)));
    }
}

/// Balance and defragmentation by the tools themselves, between the snapshots and after them.
#[test]
fn no_change_is_missed_after_the_tools_moved_extents() {
    for (fs_type, options) in [("xfs", "rw"), ("btrfs", "rw"), ("btrfs", "compress=zstd")] {
        let Some(disk) = mounted(fs_type, options) else {
            continue;
        };
        let mut noise = Noise(31);
        let volume = disk.noise("volume", 4 * MIB, 9);
        disk.snapshot("volume", "one");
        for _ in 0..20 {
            let at = noise.next() % 1000 * BLOCK;
            volume.write_all_at(&random(&mut noise, BLOCK), at).unwrap();
        }
        disk.snapshot("volume", "two");
        let dir = disk.0.path().to_str().unwrap();
        let one = disk.path("one");
        let shuffled = match fs_type {
            "btrfs" => Command::new("btrfs")
                .args(["balance", "start", "--full-balance", dir])
                .output(),
            _ => Command::new("xfs_fsr").arg(&one).output(),
        };
        if !shuffled.is_ok_and(|output| output.status.success()) {
            println!("skipped: needs the tools of {fs_type}");
            continue;
        }
        let differ = oracle(&one, &disk.path("two"));
        let (by_extents, by_bytes, compared) = disk.compare("one", "two");
        assert_eq!((&by_bytes, compared), (&differ, Compared::Exact));
        for range in &differ {
            assert!(is_within(range, &by_extents), "{fs_type}: {range:?}");
        }
    }
}

#[test]
fn file_systems_that_cannot_tell_say_so() {
    let (here, Some(disk)) = (
        tempfile::tempdir_in("/dev/shm").unwrap(),
        mounted("xfs", "rw"),
    ) else {
        return;
    };
    let base = disk.noise("base", MIB, 1);
    let path = here.path().join("file");
    fs::copy(disk.path("base"), &path).unwrap();
    let file = File::open(&path).unwrap();
    let unknown = |base: &File, file: &File| {
        assert_eq!(
            changed_ranges(base, file, &mut |_| {}).unwrap(),
            Compared::Unknown
        );
    };
    // tmpfs has no map; the two of different file systems have none in common.
    unknown(&file, &file);
    unknown(&base, &file);
    let mut found = Ranges::new();
    let cancel = Cancel::never();
    let mut add = |range| found.push(range);
    differing_ranges(&base, &file, 0, &cancel, &mut |_| {}, &mut add).unwrap();
    assert_eq!(found, []);
    let changed = File::options().write(true).open(&path).unwrap();
    changed.write_all_at(&[1; 5000], 50 * BLOCK).unwrap();
    let mut add = |range| found.push(range);
    let from = 51 * BLOCK + 9;
    differing_ranges(&base, &file, from, &cancel, &mut |_| {}, &mut add).unwrap();
    assert_eq!(found, [51 * BLOCK..52 * BLOCK]);
}

#[test]
fn a_comparison_of_bytes_tells_how_far_it_is_and_ends_when_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (
        writable(&dir.path().join("one")),
        writable(&dir.path().join("two")),
    );
    for file in [&one, &two] {
        file.set_len(64 * MIB).unwrap();
        file.write_all_at(&vec![1; 5 << 20], MIB).unwrap();
    }
    let mut told = Vec::new();
    let cancel = Cancel::never();
    compare_bytes(&one, &two, &cancel, &mut |at| told.push(at), &mut |range| {
        panic!("{range:?}")
    })
    .unwrap();
    assert!(told.is_sorted(), "{told:?}");
    assert!(told.len() >= 5, "{told:?}");
    assert_eq!(told.last(), Some(&(64 * MIB)));
    let cancel = Cancel::when(|| true);
    let ended = compare_bytes(&one, &two, &cancel, &mut |_| {}, &mut |_| {});
    assert!(matches!(ended, Err(Error::Cancelled)), "{ended:?}");
}
