//! A set of checksums that may be larger than memory: the blocks that the backups of a volume need.
//!
//! A few are held in memory, more in a hash table in a work file. Where one stands depends on a key
//! of this process, so that nobody who writes to the store can make them all stand at one place.

use std::collections::HashSet;
use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::spool::{failed, unnamed};
use crate::{BlockChecksum, Result};

/// Checksums that are held in memory: with what the table around them needs, less than 4 MiB.
const FEW: usize = 1 << 16;
const SLOT: usize = 32;
/// Slots that are read at a time.
const WINDOW: usize = 32;
/// Slots of the first table.
const SLOTS: u64 = 1 << 18;

/// A slot without a checksum.
const EMPTY: [u8; SLOT] = [0; SLOT];

/// A set of checksums.
#[derive(Debug)]
pub(crate) struct ChecksumSet {
    few: HashSet<BlockChecksum>,
    many: Option<Table>,
    directory: PathBuf,
}

impl ChecksumSet {
    /// An empty one, whose work files go to `directory`.
    pub(crate) fn new(directory: &Path) -> Self {
        Self {
            few: HashSet::new(),
            many: None,
            directory: directory.to_owned(),
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> u64 {
        self.few.len() as u64 + self.many.as_ref().map_or(0, |table| table.used)
    }

    /// Adds one; `false` if it was there.
    pub(crate) fn insert(&mut self, checksum: BlockChecksum) -> Result<bool> {
        if self.many.is_none() && self.few.len() < FEW {
            return Ok(self.few.insert(checksum));
        }
        if self.few.contains(&checksum) {
            return Ok(false);
        }
        // The one that no slot can hold.
        if checksum.0 == EMPTY {
            return Ok(self.few.insert(checksum));
        }
        let table = match &mut self.many {
            Some(table) => table,
            none => none.insert(Table::new(&self.directory, SLOTS)?),
        };
        let failed = failed("use a work file in", &self.directory);
        if (table.used + 1) * 2 > table.slots {
            *table = table.grown(&self.directory)?;
        }
        table.insert(&checksum).map_err(failed)
    }

    /// Whether it is in the set.
    pub(crate) fn contains(&self, checksum: &BlockChecksum) -> Result<bool> {
        if self.few.contains(checksum) {
            return Ok(true);
        }
        let Some(table) = &self.many else {
            return Ok(false);
        };
        let found = table.find(checksum).map(|(_, found)| found);
        found.map_err(failed("use a work file in", &self.directory))
    }
}

/// Slots in a file; a checksum stands in the first free slot from its own on.
#[derive(Debug)]
struct Table {
    file: File,
    /// A power of two.
    slots: u64,
    used: u64,
    key: RandomState,
}

impl Table {
    fn new(directory: &Path, slots: u64) -> Result<Self> {
        let file = unnamed(directory)?;
        let sized = file.set_len(slots * SLOT as u64);
        sized.map_err(failed("make a work file in", directory))?;
        Ok(Self {
            file,
            slots,
            used: 0,
            key: RandomState::new(),
        })
    }

    /// The slot of a checksum, or the one that it would get, and whether it is there.
    fn find(&self, checksum: &BlockChecksum) -> io::Result<(u64, bool)> {
        let mut window = [EMPTY; WINDOW];
        let mut slot = self.key.hash_one(checksum) & (self.slots - 1);
        loop {
            let left = usize::try_from(self.slots - slot).map_or(WINDOW, |left| left.min(WINDOW));
            let bytes = window[..left].as_flattened_mut();
            self.file.read_exact_at(bytes, slot * SLOT as u64)?;
            for (at, held) in (slot..).zip(&window[..left]) {
                if *held == EMPTY || *held == checksum.0 {
                    return Ok((at, *held != EMPTY));
                }
            }
            slot = (slot + left as u64) & (self.slots - 1);
        }
    }

    fn insert(&mut self, checksum: &BlockChecksum) -> io::Result<bool> {
        let (slot, found) = self.find(checksum)?;
        if !found {
            self.file.write_all_at(&checksum.0, slot * SLOT as u64)?;
            self.used += 1;
        }
        Ok(!found)
    }

    /// The same in four times as many slots.
    fn grown(&self, directory: &Path) -> Result<Self> {
        let failed = failed("use a work file in", directory);
        let mut grown = Self::new(directory, self.slots * 4)?;
        let mut batch = vec![EMPTY; 1024];
        let mut slot = 0;
        while slot < self.slots {
            let bytes = batch.as_flattened_mut();
            self.file
                .read_exact_at(bytes, slot * SLOT as u64)
                .map_err(&failed)?;
            for held in batch.iter().filter(|held| **held != EMPTY) {
                grown.insert(&BlockChecksum(*held)).map_err(&failed)?;
            }
            slot += batch.len() as u64;
        }
        Ok(grown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checksum(of: u64) -> BlockChecksum {
        BlockChecksum::of(&of.to_le_bytes())
    }

    #[test]
    fn a_set_that_is_larger_than_memory_may_be_does_what_a_set_does() {
        let directory = tempfile::tempdir().unwrap();
        let mut set = ChecksumSet::new(directory.path());
        let count = 3 * FEW as u64;
        for n in 0..count {
            assert!(set.insert(checksum(n)).unwrap(), "{n}");
        }
        assert!(set.insert(BlockChecksum(EMPTY)).unwrap());
        assert_eq!(set.len(), count + 1);
        for n in (0..count).step_by(7) {
            assert!(!set.insert(checksum(n)).unwrap(), "{n}");
            assert!(set.contains(&checksum(n)).unwrap(), "{n}");
        }
        assert!(!set.insert(BlockChecksum(EMPTY)).unwrap());
        assert!(set.contains(&BlockChecksum(EMPTY)).unwrap());
        for n in count..count + 1000 {
            assert!(!set.contains(&checksum(n)).unwrap(), "{n}");
        }
        assert_eq!(set.few.len(), FEW + 1, "the rest is in the file");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
