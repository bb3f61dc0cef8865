//! Making a file system on a blank device that is not a file of this node: its bytes are on other nodes too, and nothing
//! can be renamed over it.
//!
//! 1. make the file system in a sparse file of the same size
//! 2. write a mark to the start of the device, and sync: what it holds from now on is of no use to anybody
//! 3. copy what mkfs wrote, but for the first MiB, and sync
//! 4. copy the first MiB, with all superblocks that are looked for, over the mark, and sync
//!
//! A crash before 2 leaves the blank volume; between 2 and 4 one with the mark, which is formatted anew, on whatever node;
//! after 4 the formatted volume.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use probe::FsType;
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use types::{ByteSize, VolumeName, crash_point};

use super::format::{Leftover, make, sizes};
use crate::device::BlockDevice;
use crate::paths::create_anew;
use crate::{Error, Result};

/// The mark, a sector long. No file system begins like this.
pub(crate) const FORMATTING: &[u8; 512] = &mark();

const fn mark() -> [u8; 512] {
    let text = b"longhorn: a file system is being made here, and nothing else was ever written";
    let mut bytes = [0; 512];
    let mut at = 0;
    while at < text.len() {
        bytes[at] = text[at];
        at += 1;
    }
    bytes
}

/// Bytes at the start that are written last. The superblock of a btrfs is at 64 KiB, all others are before that.
const START: u64 = 1 << 20;
/// Bytes that are copied at once.
const PIECE: usize = 1 << 20;

/// Makes a file system of type `fs_type` on a device that was proven blank. `scratch` is where it is made first.
///
/// # Errors
/// `OutOfRange` when it is too small.
pub(crate) fn format_device(
    volume: &VolumeName,
    device: &BlockDevice,
    scratch: &Path,
    fs_type: FsType,
    more: &[String],
) -> Result<()> {
    let size = device.size()?;
    let min = *sizes(fs_type).start();
    if size < min && more.is_empty() {
        let (size, min) = (ByteSize(size), ByteSize(min));
        return Err(Error::TooSmall { fs_type, size, min });
    }
    let leftover = Leftover(scratch.to_owned());
    let made = create(&leftover.0, size).map_err(Error::io("create", &leftover.0))?;
    crash_point!("host.format.created");
    make(volume, &leftover.0, fs_type, more)?;
    let path = device.path();
    let target = OpenOptions::new().write(true).open(&path);
    let target = target.map_err(Error::io("open", &path))?;
    copy(&made, &target, size).map_err(Error::io("write the file system to", &path))?;
    tracing::info!(%volume, %fs_type, size, "blank volume formatted");
    Ok(())
}

fn create(path: &Path, size: u64) -> io::Result<File> {
    let file = create_anew(path)?;
    file.set_len(size)?;
    Ok(file)
}

fn copy(made: &File, target: &File, size: u64) -> io::Result<()> {
    target.write_all_at(FORMATTING, 0)?;
    target.sync_all()?;
    crash_point!("host.format.marked");
    let mut at = START;
    while let Some((start, end)) = next_data(made, at, size)? {
        copy_range(made, target, start, end)?;
        at = end;
    }
    target.sync_all()?;
    crash_point!("host.format.copied");
    copy_range(made, target, 0, START.min(size))?;
    target.sync_all()
}

/// The next bytes at or after `at` that are no hole.
fn next_data(file: &File, at: u64, size: u64) -> io::Result<Option<(u64, u64)>> {
    if at >= size {
        return Ok(None);
    }
    match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(start) => {
            let end = rustix::fs::seek(file, SeekFrom::Hole(start))?;
            Ok(Some((start, end.min(size))))
        }
        Err(Errno::NXIO) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn copy_range(from: &File, to: &File, start: u64, end: u64) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    let mut at = start;
    while at < end {
        let len = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
        from.read_exact_at(&mut piece[..len], at)?;
        to.write_all_at(&piece[..len], at)?;
        at += len as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_is_written_last_and_all_of_it_arrives() {
        let root = tempfile::tempdir().unwrap();
        let size = 8 << 20;
        let made = create(&root.path().join("made"), size).unwrap();
        made.write_all_at(b"superblock", 1024).unwrap();
        made.write_all_at(&[7; 5000], (3 << 20) + 100).unwrap();
        made.write_all_at(b"end", size - 3).unwrap();
        let target = create(&root.path().join("target"), size).unwrap();
        copy(&made, &target, size).unwrap();
        let read = |file: &File| {
            let mut bytes = vec![0; usize::try_from(size).unwrap()];
            file.read_exact_at(&mut bytes, 0).unwrap();
            bytes
        };
        assert!(read(&made) == read(&target));
        assert!(FORMATTING.starts_with(b"longhorn:") && FORMATTING.ends_with(&[0]));
    }
}
