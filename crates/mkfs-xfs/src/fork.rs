//! The two forks of an inode: its contents and its attributes, or where they are.

use super::layout::LITERAL;

/// How a fork says where its contents are.
#[derive(Debug, Clone, Copy)]
pub(super) enum Format {
    Device = 0,
    Local = 1,
    Extents = 2,
    Tree = 3,
}

#[derive(Debug)]
pub(super) struct Fork {
    pub(super) format: Format,
    /// What is in the inode itself.
    pub(super) bytes: Vec<u8>,
    pub(super) extents: u32,
    /// The blocks that are the file's, those of its own trees included.
    pub(super) blocks: u64,
}

impl Fork {
    /// The fork of a device node (or of a file without contents: number 0).
    pub(super) fn device(number: u32) -> Self {
        let bytes = number.to_be_bytes().to_vec();
        Self {
            format: Format::Device,
            bytes,
            extents: 0,
            blocks: 0,
        }
    }

    /// Contents that fit into the inode.
    pub(super) fn local(bytes: Vec<u8>) -> Self {
        Self {
            format: Format::Local,
            bytes,
            extents: 0,
            blocks: 0,
        }
    }
}

/// The attribute fork of an inode.
#[derive(Debug)]
pub(super) struct Attributes {
    pub(super) format: Format,
    pub(super) bytes: Vec<u8>,
    /// Blocks outside the inode.
    pub(super) blocks: u64,
}

impl Attributes {
    /// The bytes of the inode that are left to the data fork.
    pub(super) fn data_room(&self) -> usize {
        LITERAL - self.bytes.len().next_multiple_of(8)
    }
}
