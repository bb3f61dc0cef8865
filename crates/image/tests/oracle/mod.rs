//! `qemu-img` and `qemu-io` as oracles, always with an explicit format, and small image makers.

#![allow(dead_code, reason = "each test binary uses its own part of this")]

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use image::{Format, Image};
use probe::Disk as _;

/// The longest that a file system may stay busy.
const PATIENCE: Duration = Duration::from_mins(1);

/// A directory for one test's images.
pub(crate) struct Bench {
    dir: tempfile::TempDir,
    /// Where it is on a file system of its own: unmounted before it is removed.
    mounted: bool,
}

impl Drop for Bench {
    fn drop(&mut self) {
        if self.mounted {
            unmount(self.dir.path());
        }
    }
}

/// Unmounts what is mounted there. It may be busy for a moment: the child of another test holds all files that are open
/// in this process between fork and exec.
pub(crate) fn unmount(dir: &Path) {
    let unmounted = || {
        let ended = Command::new("umount").arg(dir).status();
        ended.is_ok_and(|status| status.success())
    };
    let begun = Instant::now();
    while !unmounted() {
        assert!(begun.elapsed() < PATIENCE, "umount {}", dir.display());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The bench, or `None` (with a line that says so) when there is no `qemu-img`.
pub(crate) fn bench() -> Option<Bench> {
    if Command::new("qemu-img").arg("--version").output().is_err() {
        println!("skipped: needs qemu-img");
        return None;
    }
    Some(Bench {
        dir: tempfile::tempdir().unwrap(),
        mounted: false,
    })
}

/// The same on an XFS of 1 GiB, where files can share extents.
pub(crate) fn xfs_bench() -> Option<Bench> {
    let mut bench = bench()?;
    if !rustix::process::geteuid().is_root() || Command::new("mkfs.xfs").arg("-V").output().is_err()
    {
        println!("skipped: needs root and mkfs.xfs");
        return None;
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(1 << 30).unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    bench.run("mkfs.xfs", &["-q", "-m", "reflink=1", &path]);
    let dir = bench.dir.path().to_str().unwrap().to_owned();
    // The loop device keeps the file, and ends with the mount.
    bench.run("mount", &["-o", "loop", &path, &dir]);
    bench.mounted = true;
    Some(bench)
}

impl Bench {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs a tool in the directory; it must succeed.
    pub(crate) fn run(&self, tool: &str, args: &[&str]) -> Output {
        let output = self.try_run(tool, args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{tool} {args:?}: {stderr}");
        output
    }

    pub(crate) fn try_run(&self, tool: &str, args: &[&str]) -> Output {
        Command::new(tool)
            .args(args)
            .current_dir(self.dir.path())
            .output()
            .unwrap()
    }

    /// A raw file of `size` bytes with a pattern, a hole, zeros that are data, and random bytes.
    pub(crate) fn raw(&self, name: &str, size: u64) -> PathBuf {
        let path = self.path(name);
        let file = File::create(&path).unwrap();
        file.set_len(size).unwrap();
        let mut noise = Noise(size | 1);
        for start in (0..size).step_by(128 << 10) {
            let len = (size - start).min(128 << 10);
            let mut block = vec![0; usize::try_from(len).unwrap()];
            match start >> 17 & 7 {
                0 | 5 => block.iter_mut().for_each(|byte| *byte = noise.byte()),
                1 => block
                    .iter_mut()
                    .for_each(|byte| *byte = b'a' + noise.byte() % 3),
                2 => {}
                // Half a cluster of data, whatever the cluster.
                6 => block.iter_mut().step_by(3).for_each(|byte| *byte = 7),
                _ => continue,
            }
            file.write_all_at(&block, start).unwrap();
        }
        path
    }

    /// Makes a qcow2 image of a raw one.
    pub(crate) fn qcow2(&self, raw: &str, name: &str, options: &[&str]) -> PathBuf {
        let mut args = vec!["convert", "-f", "raw", "-O", "qcow2"];
        args.extend(options);
        args.extend([raw, name]);
        self.run("qemu-img", &args);
        self.path(name)
    }

    /// What `qemu-img convert` makes of `name`; `None` when it refuses.
    pub(crate) fn converted(&self, name: &str) -> Option<Vec<u8>> {
        let args = ["convert", "-f", "qcow2", "-O", "raw", name, "converted"];
        let output = self.try_run("qemu-img", &args);
        output
            .status
            .success()
            .then(|| std::fs::read(self.path("converted")).unwrap())
    }
}

/// Bytes that do not compress and are the same in each run.
pub(crate) struct Noise(pub(crate) u64);

impl Noise {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[5]
    }
}

/// Opens `path`.
pub(crate) fn open(path: &Path) -> image::Result<Image> {
    Image::open(File::open(path).unwrap(), Format::Qcow2)
}

/// The whole guest disk, read in pieces of `piece` bytes.
pub(crate) fn read_all(image: &Image, piece: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0xaa; usize::try_from(image.size()).unwrap()];
    let mut offset = 0;
    for part in bytes.chunks_mut(piece) {
        image.read_exact_at(part, offset)?;
        offset += part.len() as u64;
    }
    Ok(bytes)
}

/// The whole guest disk by `next_data`: what that calls a hole must be zeros.
pub(crate) fn read_by_ranges(image: &Image) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(image.size()).unwrap()];
    let mut offset = 0;
    while let Some(range) = image.next_data(offset)? {
        assert!(
            range.start >= offset && range.end > range.start,
            "{range:?} after {offset}"
        );
        let place = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
        image.read_exact_at(&mut bytes[place], range.start)?;
        offset = range.end;
    }
    Ok(bytes)
}
