//! In which ranges two files differ, one of which was cloned from the other, or both from a third.
//!
//! Clones share extents until one of them is written to, and a shared extent is never written in place.
//! So what lies at the same place of the disk is equal, and only maps are read ([`changed_ranges`]). This
//! holds for files that nobody writes to meanwhile, and that have got what they share by being cloned as
//! a whole: bytes that were shared from one offset to another are not what it is for.
//!
//! 1. Holes and extents that were never written are equal: both read as zeros.
//! 2. An extent whose place on the disk does not tell its bytes (none yet, in the inode, unknown) is changed.
//! 3. The place of an encoded extent (btrfs compresses) is that of the whole of it, wherever a file begins to
//!    use it. Two are equal if they begin at the same place of the file and of the disk, and are as long. The
//!    kernel puts neighbours into one, and a part of one with a newer extent behind it looks like the whole of
//!    it; so the last block of each is asked for by itself, whose place is another one then.
//! 4. A file system may move extents at any time (defragmentation, balance), and what is free then takes
//!    new bytes. So the base is read, then the file, then the base again: what it had at both times it has
//!    had between them. If it moved, nothing is known.
//!
//! Where that cannot be had the files are read and compared ([`differing_ranges`] does so by itself).

mod maps;

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use types::Cancel;

use crate::extents::{DataRanges, data_ranges};
use crate::fiemap::{Extent, Map};
use crate::{Error, Result};
use maps::{differences, is_one, is_still};

/// The unit of all ranges, in bytes: a block of the file systems whose extents are compared.
pub const BLOCK: u64 = UNIT as u64;
const UNIT: usize = 4096;
/// What [`compare_bytes`] reads at once from each file.
const STEP: usize = 1 << 20;

/// What [`changed_ranges`] came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compared {
    /// Outside of the ranges that were found the files are equal.
    Exact,
    /// The file system does not tell, or moved extents meanwhile. The ranges found so far mean nothing.
    Unknown,
}

/// Finds where `file` may differ from `base` by their extents alone. Ranges are multiples of [`BLOCK`] as far
/// as `file` reaches, ascending and apart from each other; bytes that were written again look changed even
/// if they are the same. A base that is shorter goes on with zeros, and what is behind the end of `file` is
/// not looked at. Needs the same memory for any number of extents. Nobody may write to either file.
///
/// # Errors
/// What the kernel says of either file.
pub fn changed_ranges(
    base: &File,
    file: &File,
    found: &mut dyn FnMut(Range<u64>),
) -> Result<Compared> {
    let mut pair = Pair::new(base, file)?;
    let mut ranges = Joined::new(pair.size, found);
    let mut at = 0;
    while at < pair.size {
        match pair.window(at)? {
            Window::Told(end) => at = end,
            Window::Moved(_) | Window::Untold => return Ok(Compared::Unknown),
        }
        pair.changed.drain(..).for_each(|range| ranges.add(range));
    }
    ranges.end();
    Ok(Compared::Exact)
}

/// The same from the block of an offset on, and always with an answer: what the extents do not tell is read and
/// compared. `progress` is told the offset up to which all is compared.
///
/// # Errors
/// [`Error::Cancelled`], and what the kernel says of either file.
pub fn differing_ranges(
    base: &File,
    file: &File,
    from: u64,
    cancel: &Cancel,
    progress: &mut dyn FnMut(u64),
    found: &mut dyn FnMut(Range<u64>),
) -> Result<()> {
    let mut pair = Pair::new(base, file)?;
    let mut ranges = Joined::new(pair.size, found);
    let mut at = from / BLOCK * BLOCK;
    while at < pair.size {
        if cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let unsure = match pair.window(at)? {
            Window::Told(end) => {
                pair.changed.drain(..).for_each(|range| ranges.add(range));
                at = end;
                progress(at);
                continue;
            }
            // To where a block ends, or one would be taken for changed that is half seen.
            Window::Moved(end) => at..end.next_multiple_of(BLOCK).min(pair.size),
            Window::Untold => at..pair.size,
        };
        at = unsure.end;
        pair.compare(unsure, cancel, progress, &mut ranges)?;
    }
    ranges.end();
    Ok(())
}

/// Finds where `file` differs from `base` by reading what is no hole in either, exact to [`BLOCK`]. Sizes that
/// differ mean what they mean for [`changed_ranges`]. `progress` is told the offset up to which all is
/// compared.
///
/// # Errors
/// [`Error::Cancelled`], and what the kernel says of either file.
pub fn compare_bytes(
    base: &File,
    file: &File,
    cancel: &Cancel,
    progress: &mut dyn FnMut(u64),
    found: &mut dyn FnMut(Range<u64>),
) -> Result<()> {
    let pair = Pair::new(base, file)?;
    let mut ranges = Joined::new(pair.size, found);
    pair.compare(0..pair.size, cancel, progress, &mut ranges)?;
    ranges.end();
    Ok(())
}

/// Finds where `file` holds data, from the block of an offset on: ranges as those of [`changed_ranges`]. Between
/// them it reads as zeros.
///
/// # Errors
/// [`Error::Cancelled`], and what the kernel says.
pub fn data_blocks(
    file: &File,
    from: u64,
    cancel: &Cancel,
    found: &mut dyn FnMut(Range<u64>),
) -> Result<()> {
    let size = file
        .metadata()
        .map_err(Error::io("inspect the file"))?
        .len();
    let mut ranges = Joined::new(size, found);
    for range in data_ranges(file)?.from(from / BLOCK * BLOCK) {
        if cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        ranges.add(range?);
    }
    ranges.end();
    Ok(())
}

/// What the extents tell of a part of two files.
enum Window {
    /// Where they may differ up to this offset.
    Told(u64),
    /// Nothing up to this offset, as something moved.
    Moved(u64),
    /// Nothing at all.
    Untold,
}

/// Two files that are compared.
struct Pair<'a> {
    base: &'a File,
    file: &'a File,
    base_size: u64,
    size: u64,
    /// Whether places on the disk mean the same in both.
    one_disk: bool,
    /// Whether their dirty pages were written.
    synced: bool,
    old: Map,
    new: Map,
    again: Map,
    /// What the last window found.
    changed: Vec<Range<u64>>,
}

impl<'a> Pair<'a> {
    fn new(base: &'a File, file: &'a File) -> Result<Self> {
        let inspect = |file: &File| file.metadata().map_err(Error::io("inspect the file"));
        let (of_base, of_file) = (inspect(base)?, inspect(file)?);
        Ok(Self {
            base,
            file,
            base_size: of_base.len(),
            size: of_file.len(),
            one_disk: of_base.dev() == of_file.dev() && is_known(file)?,
            synced: false,
            old: Map::new(),
            new: Map::new(),
            again: Map::new(),
            changed: Vec::new(),
        })
    }

    /// Compares the maps from an offset on, as far as one call of the kernel tells both: so few ranges
    /// come together that they are held until the base was read again.
    fn window(&mut self, at: u64) -> Result<Window> {
        self.changed.clear();
        if !self.one_disk {
            return Ok(Window::Untold);
        }
        let sync = !std::mem::replace(&mut self.synced, true);
        let (base, file) = (self.base, self.file);
        // Behind the base's end it has no extents.
        let (old, end): (&[Extent], u64) = if at >= self.base_size {
            (&[], self.size)
        } else if let Some(told) =
            self.old
                .read(base, &(at..self.size.min(self.base_size)), sync)?
        {
            told
        } else {
            return Ok(Window::Untold);
        };
        let Some((new, end)) = self.new.read(file, &(at..end), sync)? else {
            return Ok(Window::Untold);
        };
        let again = &mut self.again;
        let sure = &mut |one: &Extent| Ok(is_one(base, one, again)? && is_one(file, one, again)?);
        let changed = &mut self.changed;
        differences(old, new, at..end, sure, &mut |range| changed.push(range))?;
        if at < self.base_size && !is_still(base, old, at..end, &mut self.again)? {
            self.changed.clear();
            return Ok(Window::Moved(end));
        }
        Ok(Window::Told(end))
    }

    fn compare(
        &self,
        part: Range<u64>,
        cancel: &Cancel,
        progress: &mut dyn FnMut(u64),
        ranges: &mut Joined<'_>,
    ) -> Result<()> {
        const READ: &str = "read the files to compare";
        let (mut old, mut new) = (
            Data::of(self.base, part.start)?,
            Data::of(self.file, part.start)?,
        );
        let (mut one, mut other) = (vec![0; STEP], vec![0; STEP]);
        let mut at = part.start;
        loop {
            if cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let next = old.from(at)?.min(new.from(at)?);
            // Back to where a block begins: a file system's holes may end within one.
            let start = (next / BLOCK * BLOCK).max(at);
            if start >= part.end {
                break;
            }
            let length = usize::try_from(part.end - start).unwrap_or(STEP).min(STEP);
            let (one, other) = (&mut one[..length], &mut other[..length]);
            let there = self.base_size.saturating_sub(start);
            let there = usize::try_from(there).unwrap_or(length).min(length);
            let (held, behind) = one.split_at_mut(there);
            self.base
                .read_exact_at(held, start)
                .map_err(Error::io(READ))?;
            behind.fill(0);
            self.file
                .read_exact_at(other, start)
                .map_err(Error::io(READ))?;
            at = start;
            for (one, other) in one.chunks(UNIT).zip(other.chunks(UNIT)) {
                let end = at + one.len() as u64;
                if one != other {
                    ranges.add(at..end);
                }
                at = end;
            }
            progress(at);
        }
        progress(part.end);
        Ok(())
    }
}

/// Whether the maps of a file system are known to mean what they say. One that stands on others, as overlays
/// do, may tell places of different disks.
fn is_known(file: &File) -> Result<bool> {
    const XFS: u64 = 0x5846_5342;
    const BTRFS: u64 = 0x9123_683e;
    const EXT4: u64 = 0xef53;
    let about = rustix::fs::fstatfs(file).map_err(Error::io("ask for the file system"))?;
    Ok([XFS, BTRFS, EXT4].contains(&about.f_type.cast_unsigned()))
}

/// The data of a file, asked for in ascending order.
struct Data<'a> {
    ranges: DataRanges<'a>,
    current: Option<Range<u64>>,
}

impl<'a> Data<'a> {
    fn of(file: &'a File, from: u64) -> Result<Self> {
        let mut ranges = data_ranges(file)?.from(from);
        let current = ranges.next().transpose()?;
        Ok(Self { ranges, current })
    }

    /// The first offset from `at` on that is no hole.
    fn from(&mut self, at: u64) -> Result<u64> {
        while let Some(range) = &self.current {
            if at < range.end {
                return Ok(at.max(range.start));
            }
            self.current = self.ranges.next().transpose()?;
        }
        Ok(u64::MAX)
    }
}

/// Puts ranges together that touch, and widens them to whole blocks.
struct Joined<'a> {
    size: u64,
    open: Range<u64>,
    found: &'a mut dyn FnMut(Range<u64>),
}

impl<'a> Joined<'a> {
    fn new(size: u64, found: &'a mut dyn FnMut(Range<u64>)) -> Self {
        let open = 0..0;
        Self { size, open, found }
    }

    /// Takes the next range in ascending order.
    fn add(&mut self, range: Range<u64>) {
        let start = range.start / BLOCK * BLOCK;
        let end = range.end.next_multiple_of(BLOCK).min(self.size);
        if start <= self.open.end {
            self.open.end = end.max(self.open.end);
        } else {
            self.end();
            self.open = start..end;
        }
    }

    /// There are no more.
    fn end(&mut self) {
        let open = std::mem::replace(&mut self.open, 0..0);
        if !open.is_empty() {
            (self.found)(open);
        }
    }
}
