//! A file as the tree has it. It must not know how it was read.

/// A place in [`Tree::nodes`](crate::Tree::nodes).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub usize);

/// The directory that was scanned.
pub const ROOT: NodeId = NodeId(0);

/// A file, under one or more names.
#[derive(Debug)]
pub struct Node {
    pub kind: Kind,
    /// The permission bits, with set-uid, set-gid and sticky.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// When its contents were last changed.
    pub mtime: Time,
    /// How many names it has in this tree; of a directory, 1.
    pub names: u32,
    /// How many names it has anywhere, in this tree and outside of it; of a directory, 1.
    pub links: u32,
    pub xattrs: Vec<Xattr>,
    /// The directory of the first of its names (of the root: itself), and that name.
    pub parent: NodeId,
    pub(crate) name: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Xattr {
    /// With its name space: `user.comment`.
    pub name: Vec<u8>,
    pub value: Vec<u8>,
}

/// A point in time, in seconds since 1970 and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    pub seconds: i64,
    pub nanoseconds: u32,
}

/// The types of files, each with what only it has.
#[derive(Debug)]
pub enum Kind {
    /// The names in it, in the order of their bytes.
    Directory {
        entries: Vec<(Vec<u8>, NodeId)>,
    },
    /// How long it is, in bytes.
    Regular {
        size: u64,
    },
    Symlink {
        target: Vec<u8>,
    },
    CharDevice {
        major: u32,
        minor: u32,
    },
    BlockDevice {
        major: u32,
        minor: u32,
    },
    Fifo,
    Socket,
}

impl Kind {
    /// The bits of `st_mode` that say the type.
    pub fn mode_bits(&self) -> u32 {
        match self {
            Self::Socket => 0o140_000,
            Self::Symlink { .. } => 0o120_000,
            Self::Regular { .. } => 0o100_000,
            Self::BlockDevice { .. } => 0o060_000,
            Self::Directory { .. } => 0o040_000,
            Self::CharDevice { .. } => 0o020_000,
            Self::Fifo => 0o010_000,
        }
    }
}
