//! A disk whose reads and writes all go through a block driver of QEMU.
//!
//! ```text
//! file system — loop device — FUSE file of qemu-storage-daemon — driver — disk file
//! ```

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::command::{self, run};
use crate::{Process, Sandbox, leftovers, wait};

/// What a broken sector does not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fails {
    /// It cannot be read.
    Read,
    /// It cannot be written.
    Write,
}

/// A mounted disk.
#[derive(Debug)]
pub struct Export {
    daemon: Process,
    file: PathBuf,
    mount_point: PathBuf,
    /// Only kept until the disk is gone.
    _by_page: Option<ByPage>,
}

impl Export {
    /// Mounts the file system in `disk` below `driver`: the node `top`, over the node `disk`.
    pub fn mount(sandbox: &Sandbox, name: &str, disk: &Path, driver: &Value) -> Self {
        Self::mount_after(sandbox, name, disk, driver, |_| None)
    }

    /// The same; `prepare` is told the loop device before it is mounted.
    fn mount_after(
        sandbox: &Sandbox,
        name: &str,
        disk: &Path,
        driver: &Value,
        prepare: impl FnOnce(&str) -> Option<ByPage>,
    ) -> Self {
        let file = sandbox.path(format!("{name}.export"));
        make_file(&file, 0);
        let under = json!({
            "driver": "raw",
            "node-name": "disk",
            "file": { "driver": "file", "filename": disk },
        });
        let export = json!({
            "type": "fuse",
            "id": "export",
            "node-name": "top",
            "mountpoint": file,
            "writable": true,
        });
        let arguments = [
            ("--blockdev", &under),
            ("--blockdev", driver),
            ("--export", &export),
        ];
        let arguments = arguments.map(|(option, value)| [option.to_owned(), value.to_string()]);
        let program =
            command::find("qemu-storage-daemon").expect("the test has asked for this tool");
        let arguments = arguments.into_iter().flatten();
        let log = format!("{name}-storage-daemon");
        let mut daemon = Process::spawn(sandbox, &log, &program, arguments, &[]);
        let size = fs::metadata(disk).map_or(0, |disk| disk.len());
        daemon.wait_ready(|| fs::metadata(&file).is_ok_and(|file| file.len() == size));
        let mount_point = sandbox.make_dir(name);
        // Without direct I/O, so that the loop device's one worker writes one request after the
        // other: QEMU before 10.1 mixes up the data of FUSE writes that come at once.
        let find = ["--find", "--show"].map(AsRef::as_ref);
        let device = run("losetup", find.into_iter().chain([file.as_os_str()]));
        let by_page = prepare(device.trim_end());
        run(
            "mount",
            [device.trim_end().as_ref(), mount_point.as_os_str()],
        );
        run("losetup", ["--detach", device.trim_end()]);
        Self {
            daemon,
            file,
            mount_point,
            _by_page: by_page,
        }
    }

    /// Mounts the file system in `disk`, of which these sectors of 512 bytes are broken: EIO. Its
    /// blocks must have 4 KiB.
    pub fn broken(sandbox: &Sandbox, disk: &Path, fails: Fails, sectors: &[u64]) -> Self {
        let iotype = match fails {
            Fails::Read => "read",
            Fails::Write => "write",
        };
        let rule = |sector: &u64| json!({ "event": "none", "iotype": iotype, "errno": 5, "sector": sector, "once": false });
        let driver = json!({
            "driver": "blkdebug",
            "node-name": "top",
            "image": "disk",
            "inject-error": sectors.iter().map(rule).collect::<Vec<_>>(),
        });
        Self::mount_after(sandbox, "broken", disk, &driver, |device| {
            Some(ByPage::new(device))
        })
    }

    /// Where it is mounted.
    pub fn dir(&self) -> &Path {
        &self.mount_point
    }

    /// Unmounts it and ends the daemon.
    pub fn end(mut self) {
        leftovers::end(&self.mount_point);
        assert!(
            leftovers::mounts_below(&self.mount_point).is_empty(),
            "the disk is still in use"
        );
        // The daemon can only end when the loop device has let go of its file.
        wait::until("the loop device is gone", || {
            leftovers::loops_below(&self.file).is_empty().then_some(())
        });
        self.daemon.terminate();
    }
}

/// A loop device whose every request is one page: a write to FUSE that fails behind its first page counts
/// as a short one, which the loop device takes for success.
///
/// The kernel keeps such a limit when the device is detached, for whoever attaches it next: dropping this
/// lifts it.
#[derive(Debug)]
struct ByPage {
    queue: PathBuf,
}

impl ByPage {
    fn new(device: &str) -> Self {
        let name = device.trim_start_matches("/dev/");
        let queue = Path::new("/sys/block").join(name).join("queue");
        let by_page = Self { queue };
        let limited = by_page.limit(b"4");
        limited.unwrap_or_else(|error| panic!("limit the requests of {device}: {error}"));
        by_page
    }

    fn limit(&self, kib: &[u8]) -> io::Result<()> {
        let limit = File::options()
            .write(true)
            .open(self.queue.join("max_sectors_kb"));
        limit?.write_all(kib)
    }
}

impl Drop for ByPage {
    fn drop(&mut self) {
        let most = fs::read(self.queue.join("max_hw_sectors_kb"));
        let lifted = most.and_then(|kib| self.limit(&kib));
        if let Err(error) = lifted {
            eprintln!("{} is left slow: {error}", self.queue.display());
        }
    }
}

/// Makes a sparse file.
pub(crate) fn make_file(path: &Path, size: u64) {
    File::create(path)
        .and_then(|file| file.set_len(size))
        .unwrap_or_else(|error| panic!("make {}: {error}", path.display()));
}
