//! Making a file system on a blank volume, atomically.
//!
//! 1. remove a leftover `<file>.format`
//! 2. create it anew, sparse, as large as the volume
//! 3. run mkfs on it
//! 4. look that it holds what was asked for
//! 5. fsync it
//! 6. look again that the volume's file is the one that was seen, blank and not attached
//! 7. rename over it
//! 8. fsync the directory
//!
//! A crash before 7 leaves the blank volume and a leftover that the next attempt removes; after 7 the
//! formatted volume. mkfs never gets to see a file or device that holds anything.

use std::fs::{File, Permissions};
use std::io;
use std::ops::{Range, RangeInclusive};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use probe::{Content, FileDisk, FsType, Part};
use types::{ByteSize, VolumeName, crash_point};

use crate::command::Tool;
use crate::loopdev::{self, FileId};
use crate::{Error, Result, paths};

/// How long mkfs may take. On a sparse file it writes some metadata, whatever the size.
const FORMAT_LIMIT: Duration = Duration::from_mins(10);

/// Whether a blank volume may get a file system of this type.
pub fn can_format(fs_type: FsType) -> bool {
    mkfs(fs_type).is_some()
}

/// Bytes that a blank volume must and may have for a file system of this type: the least as mkfs takes it
/// (of ext a little more, so that its versions agree), the most by the numbers that its blocks have.
pub fn sizes(fs_type: FsType) -> RangeInclusive<u64> {
    const EXT_BLOCK: u64 = 4096;
    match fs_type {
        FsType::Ext2 => (1 << 20)..=(u64::from(u32::MAX) * EXT_BLOCK),
        // A smaller one has no journal: ext3 would be ext2, and ext4 would need a check after each power cut.
        FsType::Ext3 => (8 << 20)..=(u64::from(u32::MAX) * EXT_BLOCK),
        FsType::Ext4 => (8 << 20)..=((1 << 60) - EXT_BLOCK),
        // xfsprogs 5.19
        FsType::Xfs => (300 << 20)..=u64::MAX,
        // btrfs-progs 6.2
        FsType::Btrfs => (109 << 20)..=u64::MAX,
        _ => 0..=u64::MAX,
    }
}

/// Looks whether the tools are installed that a file system of this type is made and checked with.
///
/// # Errors
/// [`Error::ToolMissing`], [`Error::UnsupportedFileSystem`].
pub fn tools(fs_type: FsType) -> Result<()> {
    let (tool, _) = mkfs(fs_type).ok_or(Error::UnsupportedFileSystem(fs_type))?;
    tool.find()?;
    if super::is_ext(fs_type) {
        super::E2FSCK.find()?;
    }
    Ok(())
}

/// The tool and its options.
///
/// ext4: no blocks are reserved for root, whose daemons do not write here. On a regular file mke2fs
/// knows that unwritten blocks read as zeros, so that nothing is left for the kernel to zero later;
/// `lazy_journal_init` spares the journal the same.
fn mkfs(fs_type: FsType) -> Option<(Tool, &'static [&'static str])> {
    const EXT: &[&str] = &["-q", "-F", "-m", "0", "-E", "lazy_journal_init=1"];
    let tool = |name, package| Tool { name, package };
    Some(match fs_type {
        FsType::Ext2 => (tool("mkfs.ext2", "e2fsprogs"), &["-q", "-F", "-m", "0"]),
        FsType::Ext3 => (tool("mkfs.ext3", "e2fsprogs"), EXT),
        FsType::Ext4 => (tool("mkfs.ext4", "e2fsprogs"), EXT),
        FsType::Xfs => (tool("mkfs.xfs", "xfsprogs"), &["-q"]),
        FsType::Btrfs => (tool("mkfs.btrfs", "btrfs-progs"), &["-q"]),
        _ => return None,
    })
}

/// XFS in sectors of a block, unless the user's own options say otherwise: such a file system can be mounted on
/// a device that does direct I/O in whole blocks, which is what a disk that shares extents wants. ext in
/// blocks of 4 KiB: with those of 1 KiB, which mke2fs gives small ones, it could not grow to 1 TiB.
fn default_sectors(fs_type: FsType, more: &[String]) -> &'static [&'static str] {
    let theirs = |option: &String| option == "-s" || option == "-b";
    if more.iter().any(theirs) {
        return &[];
    }
    match fs_type {
        FsType::Xfs => &["-s", "size=4096"],
        FsType::Ext2 | FsType::Ext3 | FsType::Ext4 => &["-b", "4096"],
        _ => &[],
    }
}

/// Makes a file system of type `fs_type` on the volume in `path`, which must be blank and not
/// attached to any loop device. `more` are options for mkfs that [`super::mkfs_options`] has taken.
///
/// # Errors
/// `FailedPrecondition` when it is not; `OutOfRange` when it is too small.
pub fn format(volume: &VolumeName, path: &Path, fs_type: FsType, more: &[String]) -> Result<()> {
    let (tool, _) = mkfs(fs_type).ok_or(Error::UnsupportedFileSystem(fs_type))?;
    let blank = paths::open_regular(path, false)?;
    prove_blank(volume, path, &blank)?;
    let metadata = blank.metadata().map_err(Error::io("inspect", path))?;
    let min = *sizes(fs_type).start();
    if metadata.len() < min && more.is_empty() {
        let (size, min) = (ByteSize(metadata.len()), ByteSize(min));
        return Err(Error::TooSmall { fs_type, size, min });
    }
    tool.find()?;

    let leftover = Leftover(formatted_path(path));
    let file = create(&leftover.0, &metadata).map_err(Error::io("create", &leftover.0))?;
    crash_point!("host.format.created");
    make(volume, &leftover.0, fs_type, more)?;
    file.sync_all().map_err(Error::io("sync", &leftover.0))?;
    crash_point!("host.format.synced");

    prove_same(volume, path, &blank)?;
    std::fs::rename(&leftover.0, path).map_err(Error::io("rename the formatted file to", path))?;
    crash_point!("host.format.renamed");
    let directory = path.parent().unwrap_or(Path::new("/"));
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(Error::io("sync the directory", directory))?;
    tracing::info!(%volume, %fs_type, size = metadata.len(), "blank volume formatted");
    Ok(())
}

/// Makes the file system in a file that holds nothing, and looks at it.
pub(super) fn make(
    volume: &VolumeName,
    path: &Path,
    fs_type: FsType,
    more: &[String],
) -> Result<()> {
    let (tool, options) = mkfs(fs_type).ok_or(Error::UnsupportedFileSystem(fs_type))?;
    let mut arguments: Vec<&std::ffi::OsStr> = options.iter().map(AsRef::as_ref).collect();
    arguments.extend(
        default_sectors(fs_type, more)
            .iter()
            .map(std::ffi::OsStr::new),
    );
    arguments.extend(more.iter().map(std::ffi::OsStr::new));
    arguments.push(path.as_os_str());
    tool.run_ok(&arguments, FORMAT_LIMIT)?;
    crash_point!("host.format.made");
    prove_made(volume, path, fs_type)
}

/// Where the formatted file is made: beside the volume's own.
fn formatted_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".format");
    path.with_file_name(name)
}

/// The file that is being formatted; removed unless it was renamed away.
pub(super) struct Leftover(pub(super) PathBuf);

impl Drop for Leftover {
    fn drop(&mut self) {
        match std::fs::remove_file(&self.0) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(path = %self.0.display(), %error, "leftover of a format stays");
            }
        }
    }
}

/// A fresh sparse file with the size, owner and mode of the volume's.
fn create(path: &Path, like: &std::fs::Metadata) -> io::Result<File> {
    let file = paths::create_anew(path)?;
    // In this order it needs CAP_CHOWN, in the other CAP_FOWNER as well.
    file.set_permissions(Permissions::from_mode(like.mode() & 0o7777))?;
    fchown(&file, Some(like.uid()), Some(like.gid()))?;
    file.set_len(like.len())?;
    Ok(file)
}

/// Proof that the file holds nothing and that nobody is about to write to it.
fn prove_blank(volume: &VolumeName, path: &Path, file: &File) -> Result<()> {
    let content = content(volume, path, file)?;
    if content != Content::Blank {
        let found = describe(&content);
        return Err(Error::NotAFileSystem {
            volume: volume.clone(),
            found,
        });
    }
    let id = FileId::of(file).map_err(Error::io("inspect", path))?;
    match loopdev::find(|status| status.file == id)?.first() {
        None => Ok(()),
        Some((device, _)) => Err(Error::ForeignLoop {
            file: path.to_owned(),
            device: device.path(),
            users: loopdev::users(device.name())?,
        }),
    }
}

/// Proof that the volume's file is still the one that was proven blank, and still blank.
fn prove_same(volume: &VolumeName, path: &Path, blank: &File) -> Result<()> {
    let now = paths::open_regular(path, false)?;
    let same = || -> io::Result<bool> {
        Ok(FileId::of(&now)? == FileId::of(blank)?
            && now.metadata()?.len() == blank.metadata()?.len())
    };
    if !same().map_err(Error::io("inspect", path))? {
        return Err(Error::Busy(volume.clone()));
    }
    prove_blank(volume, path, &now)
}

fn prove_made(volume: &VolumeName, path: &Path, wanted: FsType) -> Result<()> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    match content(volume, path, &file)? {
        Content::FileSystem { fs_type, .. } if fs_type == wanted => Ok(()),
        other => Err(Error::VolumeDamaged {
            volume: volume.clone(),
            file: path.to_owned(),
            why: format!("mkfs left {} instead of {wanted}", describe(&other)),
        }),
    }
}

/// What the volume's file holds.
pub(crate) fn content(volume: &VolumeName, path: &Path, file: &File) -> Result<Content> {
    part_content(volume, path, file, None)
}

/// What these bytes of the volume's file hold; `None`: all of it.
pub(crate) fn part_content(
    volume: &VolumeName,
    path: &Path,
    file: &File,
    part: Option<&Range<u64>>,
) -> Result<Content> {
    file.try_clone()
        .and_then(FileDisk::new)
        .and_then(|disk| match part {
            Some(part) => probe::probe(&Part::new(disk, part.clone())?),
            None => probe::probe(&disk),
        })
        .map_err(|source| Error::Probe {
            volume: volume.clone(),
            file: path.to_owned(),
            source,
        })
}

/// What a volume holds, in words for an error.
pub(crate) fn describe(content: &Content) -> String {
    match content {
        Content::FileSystem { fs_type, .. } => format!("a file system of type {fs_type}"),
        Content::PartitionTable { table } => format!("a partition table ({table})"),
        Content::Other { what } => (*what).to_owned(),
        Content::Ambiguous(found) => {
            format!("more than one signature ({})", found.join(", "))
        }
        Content::Unknown => "data of an unknown kind".to_owned(),
        Content::Blank => "nothing but zeros".to_owned(),
    }
}
