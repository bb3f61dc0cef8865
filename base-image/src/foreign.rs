//! Disks that this program does not read itself: images of other hypervisors, OVA archives and
//! block devices. The installed `qemu-img` converts them to a raw file.
//!
//! We detect the format from the bytes and pass it to `qemu-img` by name, so `qemu-img` guesses
//! nothing. An image that names other files is rejected before it is opened.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::{Error, Result, io};
use super::tool::Tool;

const QEMU_IMG: Tool = Tool {
    name: "qemu-img",
    package: "qemu-utils",
    limit: Duration::from_hours(6),
};

const SECTOR: u64 = 512;
/// How much of a VMDK's description is looked at: what QEMU reads of it.
const DESCRIPTION_MAX: u64 = 20 * SECTOR;
/// How many files an OVA may have.
const ENTRIES_MAX: usize = 1000;

/// A disk that `qemu-img` reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Foreign {
    /// VMware's format, in one file.
    Vmdk,
    /// The older format of Hyper-V and Azure, fixed or dynamic.
    Vhd,
    Vhdx,
    Vdi,
    /// A tar archive with a description and one VMDK.
    Ova,
    /// A block device, read as it is whatever it holds.
    Device,
}

/// Tells whether `file` is such a disk; block devices are known by their type alone.
pub(super) fn look(path: &Path, file: &File) -> Result<Option<Foreign>> {
    let length = file.metadata().map_err(io("open", path))?.len();
    let has = |at: u64, magic: &[u8]| -> Result<bool> {
        let mut found = vec![0; magic.len()];
        if at.saturating_add(magic.len() as u64) > length {
            return Ok(false);
        }
        file.read_exact_at(&mut found, at)
            .map_err(io("read", path))?;
        Ok(found == magic)
    };
    let footer = length.saturating_sub(SECTOR);
    if has(0, b"KDMV")? {
        if length < SECTOR {
            return Err(unsupported(path, "it starts like a VMDK and is truncated"));
        }
        check_vmdk(path, file, length)?;
        return Ok(Some(Foreign::Vmdk));
    }
    if has(0, b"COWD")? || has(0, b"# Disk DescriptorFile")? {
        let why = "its data is in other files, or in a form of old hypervisors; make one file of it \
                   by `qemu-img convert -f vmdk -O qcow2` and take that";
        return Err(unsupported(path, why));
    }
    if has(0, b"vhdxfile")? {
        return Ok(Some(Foreign::Vhdx));
    }
    if has(0x40, b"\x7f\x10\xda\xbe")? {
        return Ok(Some(Foreign::Vdi));
    }
    for at in [0, footer] {
        if has(at, b"conectix")? {
            check_vhd(path, file, at)?;
            return Ok(Some(Foreign::Vhd));
        }
    }
    if has(257, b"ustar")? && ova_disk(path, file).map(|name| name.is_some())? {
        return Ok(Some(Foreign::Ova));
    }
    Ok(None)
}

fn unsupported(path: &Path, why: impl Into<String>) -> Error {
    Error::Unsupported {
        path: path.to_owned(),
        why: why.into(),
    }
}

/// A VMDK whose header has no size, or whose description names a parent, makes QEMU open other files.
fn check_vmdk(path: &Path, file: &File, length: u64) -> Result<()> {
    let mut header = [0; 36];
    file.read_exact_at(&mut header, 0)
        .map_err(io("read", path))?;
    let number = |at: usize| {
        let bytes = header[at..at + 8].try_into();
        u64::from_le_bytes(bytes.expect("eight bytes were cut out"))
    };
    let (capacity, description) = (number(12), number(28).saturating_mul(SECTOR));
    if capacity == 0 {
        return Err(unsupported(
            path,
            "its header has no size, so its data is in other files",
        ));
    }
    let take = length.saturating_sub(description).min(DESCRIPTION_MAX);
    let mut text = vec![0; usize::try_from(take).unwrap_or(0)];
    file.read_exact_at(&mut text, description)
        .map_err(io("read", path))?;
    let word = b"parentFileNameHint";
    if text
        .windows(word.len())
        .any(|window| window.eq_ignore_ascii_case(word))
    {
        let why = "it holds the changes to another image; make one file of both by \
                   `qemu-img convert -f vmdk -O qcow2` and take that";
        return Err(unsupported(path, why));
    }
    Ok(())
}

/// A fixed or a dynamic VHD; QEMU takes the third type, the changes to another, for a fixed one.
fn check_vhd(path: &Path, file: &File, footer: u64) -> Result<()> {
    const TYPE: u64 = 60;
    let mut kind = [0; 4];
    file.read_exact_at(&mut kind, footer.saturating_add(TYPE))
        .map_err(io("read", path))?;
    if matches!(u32::from_be_bytes(kind), 2 | 3) {
        return Ok(());
    }
    let why = "it is neither a fixed nor a dynamic VHD (a differencing one holds the changes to \
               another): merge it first";
    Err(unsupported(path, why))
}

/// The name of the one disk of an OVA; none if this is another tar archive.
fn ova_disk(path: &Path, file: &File) -> Result<Option<PathBuf>> {
    let mut disks = Vec::new();
    let mut described = false;
    each_entry(path, file, |name, _| {
        let ends = |ending: &str| {
            let extension = name.extension();
            extension.is_some_and(|extension| extension.eq_ignore_ascii_case(ending))
        };
        described |= ends("ovf");
        if ends("vmdk") {
            disks.push(name.to_owned());
        }
        Ok(true)
    })?;
    match (described, disks.as_slice()) {
        (false, _) => Ok(None),
        (true, [disk]) => Ok(Some(disk.clone())),
        (true, _) => Err(unsupported(
            path,
            format!(
                "it is an OVA with {} VMDK files; a base image is one disk: unpack it by `tar -xf` \
                 and take one of them",
                disks.len()
            ),
        )),
    }
}

/// Calls `take` with the regular files of a tar archive until it says that it has enough.
fn each_entry(
    path: &Path,
    file: &File,
    mut take: impl FnMut(&Path, &mut dyn std::io::Read) -> Result<bool>,
) -> Result<()> {
    let failed = |error| io("unpack", path)(error);
    let file = file.try_clone().map_err(failed)?;
    std::io::Seek::rewind(&mut &file).map_err(failed)?;
    let mut archive = tar::Archive::new(file);
    let entries = archive.entries_with_seek().map_err(failed)?;
    for (count, entry) in entries.enumerate() {
        if count >= ENTRIES_MAX {
            let why = format!("it is an archive of more than {ENTRIES_MAX} files");
            return Err(unsupported(path, why));
        }
        let mut entry = entry.map_err(failed)?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = entry.path().map_err(failed)?.into_owned();
        if !take(&name, &mut entry)? {
            break;
        }
    }
    Ok(())
}

/// Reads the disk at `path` into the new raw file `raw`, using `directory` for what is in between.
pub(super) fn to_raw(kind: Foreign, path: &Path, directory: &Path, raw: &Path) -> Result<()> {
    let source = path.canonicalize().map_err(io("resolve", path))?;
    let driver = match kind {
        Foreign::Ova => {
            let disk = directory.join("disk.vmdk");
            unpack(path, &disk)?;
            let file = File::open(&disk).map_err(io("open", &disk))?;
            if look(path, &file)? != Some(Foreign::Vmdk) {
                return Err(unsupported(path, "the disk in this OVA is not a VMDK"));
            }
            return convert("driver=vmdk,file.driver=file", &disk, raw);
        }
        Foreign::Vmdk => "driver=vmdk,file.driver=file",
        Foreign::Vhdx => "driver=vhdx,file.driver=file",
        Foreign::Vdi => "driver=vdi,file.driver=file",
        // As its footer says, and not rounded down to cylinders, which would cut off the end.
        Foreign::Vhd => "driver=vpc,force_size_calc=current_size,file.driver=file",
        Foreign::Device => {
            check_unused(&source)?;
            "driver=raw,file.driver=host_device"
        }
    };
    convert(driver, &source, raw)
}

/// The kernel gives a device to one user alone; a mounted one has one already.
fn check_unused(path: &Path) -> Result<()> {
    let mut options = File::options();
    let flags = rustix::fs::OFlags::EXCL;
    options.read(true).custom_flags(flags.bits().cast_signed());
    match options.open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => Err(unsupported(
            path,
            "the device is in use, so its data may change while it is read; unmount it first",
        )),
        result => result.map(drop).map_err(io("open", path)),
    }
}

fn unpack(path: &Path, to: &Path) -> Result<()> {
    let file = File::open(path).map_err(io("open", path))?;
    let wanted = ova_disk(path, &file)?;
    let mut out = File::create_new(to).map_err(io("make", to))?;
    each_entry(path, &file, |name, contents| {
        if Some(name) != wanted.as_deref() {
            return Ok(true);
        }
        std::io::copy(contents, &mut out).map_err(io("unpack", path))?;
        Ok(false)
    })
}

fn convert(driver: &str, source: &Path, raw: &Path) -> Result<()> {
    // In a list of options a comma within a value is written twice.
    let mut image = OsString::from(format!("{driver},file.filename=")).into_vec();
    for byte in source.as_os_str().as_bytes() {
        image.extend(std::iter::repeat_n(
            *byte,
            if *byte == b',' { 2 } else { 1 },
        ));
    }
    let image = OsString::from_vec(image);
    let arguments = ["convert", "-O", "raw", "--image-opts"].map(OsStr::new);
    let places = [image.as_os_str(), raw.as_os_str()];
    QEMU_IMG.run(&[&arguments[..], &places].concat(), &[])
}
