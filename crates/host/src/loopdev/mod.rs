//! Loop devices: the file of a volume becomes a block device with direct I/O, and with 512-byte
//! sectors unless both its disk and its user require larger ones.
//!
//! Loop devices are global to the machine. A device is identified by the device and inode number of
//! its file, never by a file name alone. Our devices carry a *mark* in the driver's name field,
//! which distinguishes them from devices of other programs. No other device is ever detached.

mod ioctl;
mod users;

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::{Deref, Range};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use linux_raw_sys::loop_device::{LO_FLAGS_AUTOCLEAR, LO_FLAGS_DIRECT_IO, LO_FLAGS_READ_ONLY};
use rustix::fs::{AtFlags, StatxFlags};
use rustix::io::Errno;
use types::{Sha512, VolumeName};

pub use self::users::users;
use crate::device::{self, BlockDevice};
use crate::{DeviceNumber, Error, Result};

/// The sector size, in bytes, that disk images are made for.
pub(crate) const SECTOR: u32 = 512;
/// The largest sector that a loop device has everywhere: a page.
const SECTOR_MAX: u32 = 4096;
/// How often a race for a free device is run again. Each loss means that somebody else won.
const ATTEMPTS_MAX: u32 = 64;
/// The driver's name field holds 64 bytes with a final NUL.
const MARK_LEN_MAX: usize = 63;
/// How long a detached device may take to go away: it finishes its I/O first.
pub const GONE_WITHIN: Duration = Duration::from_secs(10);

/// The identity of a file: the same file has the same one under every name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileId {
    /// The file system it lies on.
    pub device: DeviceNumber,
    pub inode: u64,
}

impl FileId {
    /// The identity of an open file.
    pub fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            device: DeviceNumber::from_raw(metadata.dev()),
            inode: metadata.ino(),
        })
    }
}

/// The name that a device of ours carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark([u8; 64]);

impl Mark {
    /// The mark `text`, or `None` when it does not fit.
    pub fn new(text: &str) -> Option<Self> {
        let mut bytes = [0; 64];
        let fits = !text.is_empty() && text.len() <= MARK_LEN_MAX && !text.contains('\0');
        fits.then(|| bytes[..text.len()].copy_from_slice(text.as_bytes()))?;
        Some(Self(bytes))
    }

    /// The mark of a volume for those who begin theirs with `prefix`, which is short and has no NUL. A name that is
    /// too long is cut and told apart by its hash.
    pub fn of(prefix: &str, volume: &VolumeName) -> Self {
        let (name, most) = (volume.as_str(), MARK_LEN_MAX - prefix.len());
        let text = if name.len() <= most {
            format!("{prefix}{name}")
        } else {
            let hash = Sha512::of(name.as_bytes()).to_string();
            format!("{prefix}{}~{}", &name[..most - 17], &hash[..16])
        };
        Self::new(&text).expect("the text has at most 63 bytes and no NUL")
    }

    /// The text of the mark.
    pub fn text(&self) -> String {
        let end = self.0.iter().position(|b| *b == 0).unwrap_or(self.0.len());
        String::from_utf8_lossy(&self.0[..end]).into_owned()
    }
}

/// How to attach a file.
#[derive(Debug, Clone)]
pub struct AttachOptions {
    pub read_only: bool,
    /// Detach when the last user closes the device.
    pub autoclear: bool,
    pub mark: Mark,
    /// The bytes of the file that the device shows; `None`: all of them, also when they become more.
    pub part: Option<Range<u64>>,
    /// The largest sectors, in bytes, that whoever uses the device can live with. More than [`SECTOR`]
    /// only where it is known what lies in the file.
    pub sector_max: u32,
}

/// What a device is attached to, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    pub file: FileId,
    /// Its mark; the path of its file when another tool attached it.
    pub mark: Mark,
    /// The bytes of the file that it shows; `None`: all of them.
    pub part: Option<Range<u64>>,
    /// Whether it refuses writes.
    pub read_only: bool,
    /// Whether its I/O bypasses the page cache of the file's file system.
    pub direct_io: bool,
    /// Whether it goes away with its last user.
    pub autoclear: bool,
}

/// An open loop device. Dropping it closes the device, no more.
#[derive(Debug)]
pub struct LoopDevice(BlockDevice);

impl Deref for LoopDevice {
    type Target = BlockDevice;

    fn deref(&self) -> &BlockDevice {
        &self.0
    }
}

impl LoopDevice {
    /// Attaches `file` to a free device.
    ///
    /// Where the file cannot do direct I/O the kernel attaches it with buffered I/O;
    /// [`Status::direct_io`] tells.
    pub fn attach(file: &File, options: &AttachOptions) -> Result<Self> {
        let control = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/loop-control");
        let control = control.map_err(|source| Error::NoLoopDevice {
            why: "/dev/loop-control is needed; load the module loop and give this process the \
                  host's /dev",
            source,
        })?;
        let mut info = ioctl::empty_info();
        info.lo_file_name = options.mark.0;
        if let Some(part) = &options.part {
            (info.lo_offset, info.lo_sizelimit) = (part.start, part.end - part.start);
        }
        let flag = |wanted: bool, flag: u32| if wanted { flag } else { 0 };
        info.lo_flags = LO_FLAGS_DIRECT_IO as u32
            | flag(options.read_only, LO_FLAGS_READ_ONLY as u32)
            | flag(options.autoclear, LO_FLAGS_AUTOCLEAR as u32);
        let sector = sector_for(file, options);
        for _ in 0..ATTEMPTS_MAX {
            let number = ioctl::get_free(&control).map_err(no_loop("no device is free"))?;
            let name = format!("loop{number}");
            let writable = !options.read_only;
            let Some(device) = Self::open_with(&name, writable)? else {
                return Err(no_loop(
                    "its node is missing; give this process the host's /dev",
                )(Errno::NOENT));
            };
            match ioctl::configure(device.file()?, file, sector, info) {
                Ok(()) => {
                    // Whoever detached it before may have left it protected: the kernel keeps that.
                    if !options.read_only {
                        device.protect(false)?;
                    }
                    return Ok(device);
                }
                // Another process was faster, or a look at the device (udev) is in the way.
                Err(Errno::BUSY | Errno::NXIO) => {}
                Err(errno) => return Err(no_loop("the kernel refused the file")(errno)),
            }
        }
        Err(no_loop("other programs took every free device; try again")(
            Errno::BUSY,
        ))
    }

    /// Opens `/dev/NAME` for reading, if there is such a loop device.
    pub fn open(name: &str) -> Result<Option<Self>> {
        Self::open_with(name, false)
    }

    fn open_with(name: &str, writable: bool) -> Result<Option<Self>> {
        let digits = name.strip_prefix("loop").unwrap_or_default();
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Ok(None);
        }
        let device = BlockDevice::open(name, writable)?;
        Ok(device
            .filter(|device| device.number().major == LOOP_MAJOR)
            .map(Self))
    }

    /// What it is attached to; `None` when to nothing (any more).
    pub fn status(&self) -> Result<Option<Status>> {
        match ioctl::status(self.file()?) {
            Ok(info) => Ok(Some(Status {
                file: FileId {
                    device: DeviceNumber::from_raw(info.lo_device),
                    inode: info.lo_inode,
                },
                mark: Mark(info.lo_file_name),
                part: (info.lo_offset != 0 || info.lo_sizelimit != 0)
                    .then(|| info.lo_offset..info.lo_offset.saturating_add(info.lo_sizelimit)),
                read_only: info.lo_flags & LO_FLAGS_READ_ONLY as u32 != 0,
                direct_io: info.lo_flags & LO_FLAGS_DIRECT_IO as u32 != 0,
                autoclear: info.lo_flags & LO_FLAGS_AUTOCLEAR as u32 != 0,
            })),
            Err(Errno::NXIO | Errno::NODEV) => Ok(None),
            Err(errno) => Err(Error::io("ask for the state of", self.path())(errno)),
        }
    }

    /// Takes over the present size of the file.
    pub fn refresh_size(&self) -> Result<()> {
        ioctl::set_capacity(self.file()?).map_err(Error::io("grow", self.path()))
    }

    /// Detaches the device from its file and waits until that is really so: a volume's file must
    /// not be handed to another node while the kernel can still write to it.
    ///
    /// # Errors
    /// [`Error::StillInUse`] with the users found; the device then goes away with the last of them.
    pub fn detach(self) -> Result<()> {
        let Some(status) = self.status()? else {
            return Ok(());
        };
        self.protect(false)?;
        match ioctl::clear(self.file()?) {
            Ok(()) | Err(Errno::NXIO | Errno::BUSY) => {}
            Err(errno) => return Err(Error::io("detach", self.path())(errno)),
        }
        self.wait_gone(status.file)
    }

    /// The same, but a device that is still in use stays as it was, and does not go away with its last user.
    ///
    /// # Errors
    /// [`Error::StillInUse`] with the users found.
    pub fn detach_or_keep(self) -> Result<()> {
        let (name, was) = (self.name().to_owned(), self.status()?);
        let detached = self.detach();
        if let (Err(Error::StillInUse { .. }), Some(was)) = (&detached, was) {
            let Some(device) = Self::open(&name)? else {
                return Ok(());
            };
            match device.status()? {
                Some(now) if now.file == was.file && now.mark == was.mark => {
                    ioctl::stay(device.file()?).map_err(Error::io("keep", device.path()))?;
                }
                _ => return Ok(()),
            }
        }
        detached
    }

    /// Closes the device and waits until it is no longer attached to `file`.
    pub fn wait_gone(self, file: FileId) -> Result<()> {
        let (name, path) = (self.name().to_owned(), self.path());
        drop(self);
        let deadline = Instant::now() + GONE_WITHIN;
        let mut pause = Duration::from_millis(1);
        while is_attached(&name, file)? {
            if Instant::now() > deadline {
                return Err(Error::StillInUse {
                    users: users(&name)?,
                    device: path,
                });
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(100));
        }
        Ok(())
    }
}

/// The major number of loop devices (`Documentation/admin-guide/devices.txt`).
const LOOP_MAJOR: u32 = 7;

/// The sectors of `file`'s device: what its disk wants for direct I/O, if everything about them is whole
/// sectors then, and small ones otherwise.
fn sector_for(file: &File, options: &AttachOptions) -> u32 {
    let asked = StatxFlags::DIOALIGN | StatxFlags::SIZE;
    let Ok(stat) = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, asked) else {
        return SECTOR;
    };
    // Zero from kernels before 6.1, and from file systems without direct I/O.
    let wanted = stat.stx_dio_offset_align;
    let part = options.part.clone().unwrap_or(0..stat.stx_size);
    let fits = (SECTOR..=SECTOR_MAX.min(options.sector_max)).contains(&wanted)
        && wanted.is_power_of_two()
        && [part.start, part.end]
            .iter()
            .all(|at| at % u64::from(wanted) == 0);
    if fits { wanted } else { SECTOR }
}

fn no_loop(why: &'static str) -> impl FnOnce(Errno) -> Error {
    move |errno| Error::NoLoopDevice {
        why,
        source: errno.into(),
    }
}

fn is_attached(name: &str, file: FileId) -> Result<bool> {
    let status = match LoopDevice::open(name)? {
        Some(device) => device.status()?,
        None => None,
    };
    Ok(status.is_some_and(|status| status.file == file))
}

/// Every attached loop device of this machine that `wanted` says yes to.
pub fn find(wanted: impl Fn(&Status) -> bool) -> Result<Vec<(LoopDevice, Status)>> {
    let directory = Path::new("/sys/block");
    let entries = std::fs::read_dir(directory).map_err(Error::io("list", directory))?;
    let mut found = Vec::new();
    for entry in entries {
        let name = entry.map_err(Error::io("list", directory))?.file_name();
        let Some(name) = name.to_str().filter(|name| name.starts_with("loop")) else {
            continue;
        };
        // Only attached devices have it. To open the others would be harmless, and slow.
        if !directory.join(name).join("loop").exists() {
            continue;
        }
        let Some(device) = LoopDevice::open(name)? else {
            continue;
        };
        if let Some(status) = device.status()?.filter(|status| wanted(status)) {
            found.push((device, status));
        }
    }
    Ok(found)
}

/// The name (`loopN`) of the loop device with this number.
pub fn name_of(number: DeviceNumber) -> Option<String> {
    if number.major != LOOP_MAJOR {
        return None;
    }
    device::name_of(number).filter(|name| name.starts_with("loop"))
}
