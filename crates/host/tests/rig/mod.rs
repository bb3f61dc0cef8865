//! The fixtures of this crate's tests: a directory, images created by the real tools, and a check
//! for leftovers on the machine.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::unused_self,
    reason = "each test binary uses its own part, and a test may print and panic"
)]

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use host::staging::{Access, NodeVolume, PublishRequest, StageRequest};
use host::{FsType, mountinfo};
use types::{ByteSize, VolumeName};

pub const MIB: u64 = 1 << 20;
const BLOCK: u64 = 64 << 10;

/// A directory on the machine; everything mounted or attached below it goes with it.
#[derive(Debug)]
pub struct Rig {
    dir: PathBuf,
    /// Kept, because another process goes on with it.
    keep: bool,
}

static NEXT: AtomicU32 = AtomicU32::new(0);

impl Rig {
    /// `None`, having said why, where the tests cannot run.
    pub fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: needs root");
            return None;
        }
        if !Path::new("/dev/loop-control").exists() {
            println!("skipped: needs loop devices");
            return None;
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = PathBuf::from(format!("/tmp/host-{}-{number}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        Some(Self { dir, keep: false })
    }

    /// The rig that another process made.
    pub fn join(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            keep: true,
        }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A volume of `size` bytes on the disk `disk` with `content` at its start.
    pub fn volume_on(&self, disk: &Path, name: &str, size: u64) -> NodeVolume {
        let tag = self.dir.file_name().unwrap().to_str().unwrap();
        let dir = disk.join("volumes").join(name);
        fs::create_dir_all(&dir).unwrap();
        let file = dir.join("volume");
        File::create(&file).unwrap().set_len(size).unwrap();
        NodeVolume {
            name: VolumeName::new(&format!("{name}-{tag}")).unwrap(),
            file,
            size: ByteSize(size),
            has_source: false,
            part: None,
        }
    }

    pub fn volume(&self, name: &str, size: u64) -> NodeVolume {
        self.volume_on(&self.dir, name, size)
    }

    /// A volume made from an image.
    pub fn clone_of(&self, image: &Path, name: &str, size: u64) -> NodeVolume {
        let mut volume = self.volume(name, size);
        run("cp", &["--sparse=always", text(image), text(&volume.file)]);
        File::options()
            .write(true)
            .open(&volume.file)
            .unwrap()
            .set_len(size)
            .unwrap();
        volume.has_source = true;
        volume
    }

    pub fn staging(&self, volume: &NodeVolume) -> PathBuf {
        let parent = self.dir.join("plugins").join(volume.name.as_str());
        fs::create_dir_all(&parent).unwrap();
        parent.join("globalmount")
    }

    pub fn target(&self, name: &str) -> PathBuf {
        let parent = self.dir.join("pods").join(name);
        fs::create_dir_all(&parent).unwrap();
        parent.join("mount")
    }

    pub fn mount_request(&self, volume: &NodeVolume, fs_type: Option<FsType>) -> StageRequest {
        StageRequest {
            volume: volume.clone(),
            staging_path: self.staging(volume),
            access: Access::Mount {
                fs_type,
                flags: Vec::new(),
            },
            read_only: false,
            mkfs_options: String::new(),
            check: host::staging::Check::default(),
        }
    }

    pub fn block_request(&self, volume: &NodeVolume) -> StageRequest {
        StageRequest {
            access: Access::Block,
            ..self.mount_request(volume, None)
        }
    }

    pub fn publish_request(&self, staged: &StageRequest, target: &Path) -> PublishRequest {
        PublishRequest {
            volume: staged.volume.name.clone(),
            staging_path: staged.staging_path.clone(),
            target_path: target.to_owned(),
            access: staged.access.clone(),
            read_only: false,
            single_writer: false,
        }
    }

    /// How many mounts lie below the directory and how many loop devices have files there.
    pub fn left(&self) -> (usize, usize) {
        (self.mounts().len(), self.loops().len())
    }

    fn mounts(&self) -> Vec<PathBuf> {
        let points = mountinfo::read()
            .unwrap()
            .into_iter()
            .map(|mount| mount.point);
        points
            .filter(|point| point.starts_with(&self.dir))
            .collect()
    }

    /// The loop devices with files below the directory.
    pub fn loops(&self) -> Vec<PathBuf> {
        loops_below(&self.dir)
    }

    pub fn stage(&self, request: &StageRequest) -> host::staging::Staged {
        host::staging::stage(request).unwrap_or_else(|error| panic!("{}", types::report(&error)))
    }

    pub fn unstage(&self, request: &StageRequest) {
        host::staging::unstage(&request.volume.name, &request.staging_path)
            .unwrap_or_else(|error| panic!("{}", types::report(&error)));
    }

    /// Fails unless nothing at all is left of `requests`.
    pub fn assert_clean(&self) {
        assert_eq!(self.left(), (0, 0), "mounts and loop devices are left");
        for parent in fs::read_dir(self.dir.join("plugins"))
            .into_iter()
            .flatten()
            .flatten()
        {
            for entry in fs::read_dir(parent.path()).unwrap().flatten() {
                assert_eq!(entry.file_name(), "globalmount", "a record is left");
            }
        }
    }
}

pub fn loops_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/sys/block").unwrap().flatten() {
        if let Ok(file) = fs::read_to_string(entry.path().join("loop/backing_file"))
            && Path::new(file.trim()).starts_with(dir)
        {
            found.push(Path::new("/dev").join(entry.file_name()));
        }
    }
    found
}

impl Drop for Rig {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        // Devices first: the path of one on a disk that was unmounted tells nothing any more. Those in use go with
        // their mounts.
        for device in self.loops() {
            let _ = Command::new("losetup").arg("-d").arg(device).output();
        }
        for point in self.mounts().iter().rev() {
            let _ = Command::new("umount").arg("-l").arg(point).output();
        }
        for device in self.loops() {
            let _ = Command::new("losetup").arg("-d").arg(device).output();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Runs a tool that must succeed, and gives its standard output.
pub fn run(tool: &str, arguments: &[&str]) -> String {
    let output = Command::new(tool)
        .args(arguments)
        .env("LC_ALL", "C")
        .output();
    let output = output.unwrap_or_else(|error| panic!("{tool}: {error}"));
    assert!(
        output.status.success(),
        "{tool} {arguments:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Whether an ext file system can be grown while it is mounted.
pub fn has_sys_resource() -> bool {
    rustix::thread::capabilities(None).is_ok_and(|sets| {
        sets.effective
            .contains(rustix::thread::CapabilitySet::SYS_RESOURCE)
    })
}

pub fn has_tool(tool: &str) -> bool {
    let is_there = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"]
        .iter()
        .any(|dir| Path::new(dir).join(tool).exists());
    if !is_there {
        println!("skipped in part: needs {tool}");
    }
    is_there
}

/// A file system of `size` bytes in the file `image`.
pub fn make_image(image: &Path, fs_type: &str, size: u64) {
    File::create(image).unwrap().set_len(size).unwrap();
    match fs_type {
        "ext2" | "ext3" | "ext4" => run(&format!("mkfs.{fs_type}"), &["-q", "-F", text(image)]),
        "xfs" | "btrfs" => run(&format!("mkfs.{fs_type}"), &["-q", text(image)]),
        "vfat" => run("mkfs.vfat", &[text(image)]),
        "squashfs" => {
            fs::remove_file(image).unwrap();
            run(
                "mksquashfs",
                &[
                    "/etc/apt",
                    text(image),
                    "-quiet",
                    "-no-progress",
                    "-noappend",
                ],
            )
        }
        other => panic!("no way to make {other}"),
    };
}

/// A fingerprint of the bytes of a file, whatever of its zeros is a hole.
pub fn digest(path: &Path) -> u64 {
    use probe::Disk;

    let disk = probe::FileDisk::open(path).unwrap();
    let mut hasher = DefaultHasher::new();
    disk.size().hash(&mut hasher);
    let mut at = 0;
    while let Some(range) = disk.next_data(at).unwrap() {
        at = range.start;
        while at < range.end {
            let end = range.end.min((at / BLOCK + 1) * BLOCK);
            let mut block = vec![0; usize::try_from(end - at).unwrap()];
            disk.read_exact_at(&mut block, at).unwrap();
            if block.iter().any(|byte| *byte != 0) {
                (at, block).hash(&mut hasher);
            }
            at = end;
        }
    }
    hasher.finish()
}

/// Writes `bytes` into a file at `offset`.
pub fn patch(path: &Path, bytes: &[u8], offset: u64) {
    File::options()
        .write(true)
        .open(path)
        .unwrap()
        .write_all_at(bytes, offset)
        .unwrap();
}

/// The size that a mounted file system says it has, in bytes.
pub fn size_of(point: &Path) -> u64 {
    let stat = rustix::fs::statvfs(point).unwrap();
    stat.f_blocks * stat.f_frsize
}

/// A disk of its own in a file, so that clones are reflinks. `None`, having said why, without XFS.
pub struct ReflinkDisk {
    pub point: PathBuf,
}

impl ReflinkDisk {
    pub fn new(rig: &Rig) -> Option<Self> {
        if !has_tool("mkfs.xfs") {
            return None;
        }
        let (image, point) = (rig.path("disk.img"), rig.path("disk"));
        File::create(&image).unwrap().set_len(2 << 30).unwrap();
        run("mkfs.xfs", &["-q", "-m", "reflink=1", text(&image)]);
        fs::create_dir(&point).unwrap();
        run("mount", &["-o", "loop,nouuid", text(&image), text(&point)]);
        Some(Self { point })
    }

    /// How many bytes are in use.
    pub fn used(&self) -> u64 {
        run("sync", &["-f", text(&self.point)]);
        let stat = rustix::fs::statvfs(&self.point).unwrap();
        (stat.f_blocks - stat.f_bfree) * stat.f_frsize
    }
}

impl Drop for ReflinkDisk {
    fn drop(&mut self) {
        for device in loops_below(&self.point) {
            let _ = Command::new("losetup").arg("-d").arg(device).output();
        }
        let _ = Command::new("umount").arg(&self.point).output();
    }
}
