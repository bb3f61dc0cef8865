//! Mount options that an ext superblock switches on by itself, and that no mount here has.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use probe::FsType;

/// `s_default_mount_opts` (Linux `fs/ext4/ext4.h`), and in it how data are journaled.
const NO_BARRIER: u32 = 0x100;
const DATA: u32 = 0x60;
const WRITEBACK: u32 = 0x60;
const HAS_JOURNAL: u32 = 0x4;

/// The parameters that take back what the superblock of the file system of type `fs_type`, which begins at the
/// byte `start` of `file`, switches on, and what the list of mount flags refuses: what an acknowledged write
/// may cost. How errors are met is always said ([`crate::mounts::MountOptions`]).
pub(crate) fn defaults_to_override(
    fs_type: FsType,
    file: &File,
    start: u64,
) -> io::Result<Vec<(&'static str, Option<&'static str>)>> {
    if !matches!(fs_type, FsType::Ext3 | FsType::Ext4) {
        return Ok(Vec::new());
    }
    let word = |at: u64| {
        let mut bytes = [0; 4];
        file.read_exact_at(&mut bytes, start + 1024 + at)?;
        io::Result::Ok(u32::from_le_bytes(bytes))
    };
    let (features, options) = (word(0x5c)?, word(0x100)?);
    let mut parameters = Vec::new();
    if options & NO_BARRIER != 0 {
        parameters.push(("barrier", None));
    }
    if options & DATA == WRITEBACK && features & HAS_JOURNAL != 0 {
        parameters.push(("data", Some("ordered")));
    }
    Ok(parameters)
}
