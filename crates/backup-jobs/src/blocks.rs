//! Which blocks of a snapshot a backup is about: those that hold data, and those that changed since the last
//! one. Blocking.

use std::fs::File;
use std::sync::Arc;

use backup::{BlockSet, BlockSize, Phase, Progress as _};
use image::changes::{Compared, changed_ranges, compare_bytes};
use image::extents::data_ranges;
use tracing::info;
use types::Cancel;

use crate::board::Board;
use crate::error::{Error, Result};

/// The size of the blocks and of the whole.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) size: u64,
    pub(crate) block: BlockSize,
}

impl Shape {
    fn none(self) -> BlockSet {
        BlockSet::new(self.size, self.block)
    }
}

/// The blocks that hold data.
pub(crate) fn mapped(file: &File, shape: Shape) -> Result<BlockSet> {
    let mut set = shape.none();
    for range in data_ranges(file)? {
        set.insert(range?);
    }
    Ok(set)
}

/// The blocks that may differ from `base`, an earlier snapshot; `None`: the file system does not tell.
pub(crate) fn changed(base: &File, file: &File, shape: Shape) -> Result<Option<BlockSet>> {
    let mut set = shape.none();
    match changed_ranges(base, file, &mut |range| set.insert(range))? {
        Compared::Exact => Ok(Some(set)),
        Compared::Unknown => Ok(None),
    }
}

/// The blocks that differ from a base image: told by their extents, and by their bytes where those do not tell.
pub(crate) fn above(
    base: &File,
    file: &File,
    shape: Shape,
    (board, cancel): (&Arc<Board>, &Cancel),
) -> Result<BlockSet> {
    if let Some(set) = changed(base, file, shape)? {
        return Ok(set);
    }
    info!("the disk does not tell what differs from the base image: both are read");
    board.phase(Phase::Comparing, shape.size);
    let (mut set, mut told) = (shape.none(), 0);
    let progress = &mut |at: u64| {
        board.advance(at.saturating_sub(told));
        told = at.max(told);
    };
    let compared = compare_bytes(base, file, cancel, progress, &mut |range| set.insert(range));
    match compared {
        Err(image::Error::Cancelled) => Err(Error::Cancelled("the backup is not wanted")),
        compared => Ok(compared.map(|()| set)?),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;

    const BLOCK: u64 = 2 << 20;

    fn file(size: u64, pieces: &[(u64, &[u8])]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(size).unwrap();
        for (at, bytes) in pieces {
            file.write_all_at(bytes, *at).unwrap();
        }
        file
    }

    fn shape(size: u64) -> Shape {
        let block = BlockSize::MIB2;
        Shape { size, block }
    }

    #[test]
    fn mapped_is_what_is_no_hole_and_above_what_differs() {
        let size = 6 * BLOCK + 4096;
        let written = vec![7; 4096];
        let base = file(3 * BLOCK, &[(0, &written), (2 * BLOCK, &written)]);
        let ours = file(
            size,
            &[(0, &written), (4 * BLOCK, &written), (6 * BLOCK, &written)],
        );
        let set = mapped(&ours, shape(size)).unwrap();
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 4, 6]);
        let board = Arc::new(Board::new());
        let ends = Cancel::never();
        // Block 0 is the same; block 2 is a hole here and not there.
        let set = above(&base, &ours, shape(size), (&board, &ends)).unwrap();
        assert!(
            set.contains(2) && set.contains(4) && set.contains(6),
            "{set:?}"
        );
        assert!(
            !set.contains(1) && !set.contains(3) && !set.contains(5),
            "{set:?}"
        );
    }
}
