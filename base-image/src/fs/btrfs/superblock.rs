//! The superblock and its copies: the last thing that is written.

use super::super::bytes::put;
use super::items::Fields;
use super::layout::{Chunk, Layout};
use super::node::{self, GENERATION};
use super::trees::{ROOT_TREE_DIRECTORY, Tree};
use super::{NODE, Result, SECTOR};

/// The superblock, and its copies where the disk reaches that far. Nothing else may be in their
/// 64 KiB.
pub(super) const SUPERBLOCKS: [u64; 3] = [64 << 10, 64 << 20, 256 << 30];

impl Layout<'_> {
    /// Writes every copy that the disk has room for.
    pub(super) fn write_superblocks(
        &self,
        chunks: &[Chunk],
        root: &Tree,
        chunk_root: &Tree,
    ) -> Result<()> {
        // Back references, extended references, skinny metadata, no holes.
        const FEATURES: u64 = 0x341;
        // The tree of free space, and that it is valid.
        const READ_ONLY_FEATURES: u64 = 3;
        let size = self.request.size / SECTOR * SECTOR;
        let used: u64 = chunks.iter().map(|chunk| chunk.used).sum();
        let (sector, node) = (u32::try_from(SECTOR), u32::try_from(NODE));
        let (sector, node) = (sector.unwrap_or(4096), node.unwrap_or(16384));
        let mut array = chunks[0].key().encode().to_vec();
        array.extend(chunks[0].encode(&self.identity));
        let array_length = u32::try_from(array.len()).unwrap_or(0);
        for at in SUPERBLOCKS.into_iter().filter(|at| at + SECTOR <= size) {
            let fields = Fields::default()
                .zeros(32)
                .bytes(&self.identity.file_system)
                .u64(at);
            let fields = fields
                .u64(1)
                .bytes(b"_BHRfS_M")
                .u64(GENERATION)
                .u64(root.root());
            let fields = fields
                .u64(chunk_root.root())
                .u64(0)
                .u64(0)
                .u64(size)
                .u64(used);
            let fields = fields
                .u64(ROOT_TREE_DIRECTORY)
                .u64(1)
                .u32(sector)
                .u32(node)
                .u32(node);
            let fields = fields.u32(sector).u32(array_length).u64(GENERATION).u64(0);
            let fields = fields.u64(READ_ONLY_FEATURES).u64(FEATURES).u16(0);
            let fields = fields.u8(root.level()).u8(chunk_root.level()).u8(0);
            let mut superblock = fields.bytes(&self.device_item(chunks)).0;
            superblock.resize(4096, 0);
            put(&mut superblock, 299, self.request.label.as_bytes());
            // No free-space cache of the old kind; the uuid tree is as old as everything.
            put(&mut superblock, 563, &GENERATION.to_le_bytes());
            put(&mut superblock, 811, &array);
            node::seal(&mut superblock);
            self.write(&superblock, at)?;
        }
        Ok(())
    }
}
