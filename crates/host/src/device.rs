//! Device numbers, and block devices of any driver.

use std::fmt;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::OnceLock;

use rustix::io::Errno;
use rustix::ioctl::{Getter, Opcode, Setter, ioctl, opcode};

use crate::{Error, Result};

/// From `include/uapi/linux/fs.h`, of any block device.
const BLKROSET: Opcode = opcode::none(0x12, 93);
const BLKROGET: Opcode = opcode::none(0x12, 94);

/// The number of a device, as `major:minor`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceNumber {
    pub major: u32,
    /// The device of that driver.
    pub minor: u32,
}

impl DeviceNumber {
    /// From `st_dev` or `st_rdev`, and from the 64-bit numbers of the loop driver, which use the
    /// same encoding for every number the kernel can give (12 bits of major, 20 of minor).
    pub fn from_raw(raw: u64) -> Self {
        Self {
            major: rustix::fs::major(raw),
            minor: rustix::fs::minor(raw),
        }
    }
}

impl fmt::Display for DeviceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

impl FromStr for DeviceNumber {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (major, minor) = text.split_once(':').unwrap_or((text, ""));
        Ok(Self {
            major: major.parse()?,
            minor: minor.parse()?,
        })
    }
}

/// The name in `/dev` of the block device with this number.
pub(crate) fn name_of(number: DeviceNumber) -> Option<String> {
    let link = std::fs::read_link(format!("/sys/dev/block/{number}")).ok()?;
    Some(link.file_name()?.to_str()?.to_owned())
}

/// Whether an error of open(2) says that there is no such device (any more).
pub(crate) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || matches!(error.raw_os_error(), Some(libc::ENXIO | libc::ENODEV))
}

/// A block device. It is open from the start, or from the first look into it on; dropping it closes it, no more.
#[derive(Debug)]
pub struct BlockDevice {
    file: OnceLock<File>,
    name: String,
    number: DeviceNumber,
}

impl BlockDevice {
    /// Opens `/dev/NAME`, if there is such a block device.
    pub(crate) fn open(name: &str, writable: bool) -> Result<Option<Self>> {
        let path = Path::new("/dev").join(name);
        let file = match OpenOptions::new().read(true).write(writable).open(&path) {
            Ok(file) => file,
            Err(error) if is_gone(&error) => return Ok(None),
            Err(error) => return Err(Error::io("open", &path)(error)),
        };
        let metadata = file.metadata().map_err(Error::io("inspect", &path))?;
        Ok(Self::of(name, &metadata, OnceLock::from(file)))
    }

    /// The same without opening it: the driver may refuse that, and does not know of it.
    pub(crate) fn named(name: &str) -> Result<Option<Self>> {
        let path = Path::new("/dev").join(name);
        match std::fs::symlink_metadata(&path) {
            Ok(metadata) => Ok(Self::of(name, &metadata, OnceLock::new())),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(Error::io("inspect", &path)(error)),
        }
    }

    fn of(name: &str, metadata: &Metadata, file: OnceLock<File>) -> Option<Self> {
        let is_block = metadata.file_type().is_block_device();
        is_block.then(|| Self {
            file,
            name: name.to_owned(),
            number: DeviceNumber::from_raw(metadata.rdev()),
        })
    }

    /// Its path in `/dev`.
    pub fn path(&self) -> PathBuf {
        Path::new("/dev").join(&self.name)
    }

    /// Its name in `/dev`.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn number(&self) -> DeviceNumber {
        self.number
    }

    /// The open device.
    pub fn file(&self) -> Result<&File> {
        if let Some(file) = self.file.get() {
            return Ok(file);
        }
        let path = self.path();
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        let metadata = file.metadata().map_err(Error::io("inspect", &path))?;
        if DeviceNumber::from_raw(metadata.rdev()) != self.number {
            let other = io::Error::from(io::ErrorKind::NotFound);
            return Err(Error::io("open", &path)(other));
        }
        Ok(self.file.get_or_init(|| file))
    }

    /// The size in bytes.
    pub fn size(&self) -> Result<u64> {
        rustix::fs::seek(self.file()?, rustix::fs::SeekFrom::End(0))
            .map_err(Error::io("measure", self.path()))
    }

    /// Whether nothing can be written through the device: for its driver, or see [`Self::protect`].
    #[expect(unsafe_code, reason = "ioctl")]
    pub fn is_protected(&self) -> Result<bool> {
        let file = self.file()?;
        // SAFETY: BLKROGET writes one int.
        unsafe { ioctl(file, Getter::<BLKROGET, i32>::new()) }
            .map(|read_only| read_only != 0)
            .map_err(Error::io("inspect", self.path()))
    }

    /// Lets nobody write through the device from now on, those who have opened it included; or lets them
    /// again as far as its driver does. The kernel keeps this when the device is detached.
    #[expect(unsafe_code, reason = "ioctl")]
    pub fn protect(&self, protected: bool) -> Result<()> {
        let file = self.file()?;
        // SAFETY: BLKROSET reads one int.
        let set = unsafe { ioctl(file, Setter::<BLKROSET, i32>::new(protected.into())) };
        set.map_err(|errno: Errno| Error::io("protect", self.path())(errno))
    }

    /// Whether somebody has the device for himself: a mount, a device stacked on it, or an open(2) with `O_EXCL`.
    pub fn is_claimed(&self) -> Result<bool> {
        let path = self.path();
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_EXCL)
            .open(&path);
        match opened {
            Ok(_) => Ok(false),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Ok(true),
            Err(error) if is_gone(&error) => Ok(false),
            Err(error) => Err(Error::io("open", &path)(error)),
        }
    }
}
