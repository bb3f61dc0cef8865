//! Memory does not grow with the volume. Alone in its binary: what is measured is that of the process.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod fixture;

use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use backup::{
    Begin, BlockChecksum, BlockSet, BlockSize, Contents, Job, Options, Phase, Progress, Source,
};
use fixture::{BLOCK, MIB, Wish, empty, files, name, noise};

const VOLUME: u64 = 4 << 40;
/// Blocks of the parent: 25 MiB of text.
const BLOCKS: u64 = 256 << 10;

/// Bytes of this process that are its own.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .unwrap();
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kib << 10
}

#[derive(Debug, Default)]
struct Peak(AtomicU64, AtomicU64);

impl Progress for Peak {
    fn phase(&self, _: Phase, _: u64) {
        self.0.fetch_max(memory(), Ordering::Relaxed);
    }
    fn advance(&self, _: u64) {
        if self.1.fetch_add(1, Ordering::Relaxed).is_multiple_of(1000) {
            self.0.fetch_max(memory(), Ordering::Relaxed);
        }
    }
}

/// Other bytes in each block.
#[derive(Debug)]
struct Pattern;

impl Source for Pattern {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        for (at, word) in (offset..).step_by(8).zip(buffer.chunks_mut(8)) {
            word.copy_from_slice(&(at | 1).to_le_bytes()[..word.len()]);
        }
        Ok(())
    }
}

/// Puts the cfg of a backup with many blocks in place of that of an empty one.
fn grow(root: &Path) {
    let cfg = files(root, "/backup_one.cfg").remove(0);
    let text = std::fs::read_to_string(&cfg).unwrap();
    let size = (BLOCKS * BLOCK).to_string();
    let text = text.replace("\"Size\":\"0\"", &format!("\"Size\":\"{size}\""));
    let (head, tail) = text.split_once(",\"SingleFile\"").unwrap();
    let mut file = io::BufWriter::new(std::fs::File::create(&cfg).unwrap());
    write!(file, "{head},\"Blocks\":[").unwrap();
    for index in 0..BLOCKS {
        let comma = if index > 0 { "," } else { "" };
        let checksum = BlockChecksum::of(&index.to_le_bytes());
        let offset = index * BLOCK;
        write!(
            file,
            "{comma}{{\"Offset\":{offset},\"BlockChecksum\":\"{checksum}\"}}"
        )
        .unwrap();
    }
    write!(file, "],\"SingleFile\"{tail}").unwrap();
    file.flush().unwrap();
}

/// What is measured is what is in use: of large buffers the allocator keeps none.
#[expect(unsafe_code, reason = "mallopt(3) has no safe wrapper")]
fn give_back_large_buffers() {
    // SAFETY: it sets a number of the allocator.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 512 << 10);
    }
}

#[test]
fn memory_is_bounded_whatever_the_size_of_the_volume() {
    give_back_large_buffers();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (dir, store) = empty();
        let wish = |backup: &str| {
            let mut wish = Wish::new("vol", backup, &noise(1, MIB));
            wish.new.volume.size = VOLUME;
            wish.new
        };
        let contents = |mapped, changed| Contents {
            source: Arc::new(Pattern),
            mapped,
            changed,
        };
        let silent = Job::silent();
        let Begin::Started(begun) = store.begin_backup(wish("one"), &silent).await.unwrap() else {
            panic!("there is none yet")
        };
        let none = BlockSet::new(VOLUME, BlockSize::MIB2);
        begun.upload(contents(none.clone(), None)).await.unwrap();
        grow(dir.path());
        let before = memory();
        let peak = Arc::new(Peak::default());
        let job = Job {
            progress: peak.clone(),
            ..Job::silent()
        };
        let Begin::Started(begun) = store.begin_backup(wish("two"), &job).await.unwrap() else {
            panic!("there is none yet")
        };
        assert!(begun.parent().is_some());
        let mut mapped = none.clone();
        mapped.insert(0..BLOCKS * BLOCK);
        // New data, at the end of the volume and among the old.
        let mut changed = none;
        for place in [5, 1 << 30, VOLUME - BLOCK] {
            mapped.insert(place..place + 16 * BLOCK);
            changed.insert(place..place + 16 * BLOCK);
        }
        let size = mapped.count() * BLOCK;
        let info = begun.upload(contents(mapped, Some(changed))).await.unwrap();
        assert_eq!(info.size, size);
        job.progress.phase(Phase::Collecting, 0);
        let grown = peak.0.load(Ordering::Relaxed).saturating_sub(before);
        let threads = Options::default().threads as u64;
        let bound = 16 * MIB + 3 * BLOCK * threads;
        assert!(
            grown <= bound,
            "{grown} bytes more, and {bound} are allowed"
        );
        let two = store.backup(&name("vol"), &name("two")).await.unwrap();
        assert_eq!(two.size, size);
        assert_eq!(
            std::fs::read_dir(Options::default().spool)
                .unwrap()
                .filter(|entry| {
                    entry
                        .as_ref()
                        .unwrap()
                        .file_name()
                        .to_string_lossy()
                        .starts_with(".backup-spool")
                })
                .count(),
            0
        );
    });
}
