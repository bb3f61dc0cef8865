//! What the kernel calls files: their numbers, what is open, and attributes.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use fuser::{FileAttr, FileHandle, FileType, INodeNo};

/// Numbers of files and of what is open.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) paths: HashMap<u64, PathBuf>,
    pub(super) numbers: HashMap<PathBuf, u64>,
    pub(super) open: HashMap<u64, Arc<File>>,
    next: u64,
}

impl Known {
    pub(super) fn new() -> Self {
        Self {
            paths: HashMap::from([(INodeNo::ROOT.0, PathBuf::new())]),
            numbers: HashMap::from([(PathBuf::new(), INodeNo::ROOT.0)]),
            open: HashMap::new(),
            next: INodeNo::ROOT.0,
        }
    }

    pub(super) fn number(&mut self, path: PathBuf) -> u64 {
        if let Some(number) = self.numbers.get(&path) {
            return *number;
        }
        self.next += 1;
        self.paths.insert(self.next, path.clone());
        self.numbers.insert(path, self.next);
        self.next
    }

    /// A name leads elsewhere from now on; who has the number of what was there keeps that.
    pub(super) fn forget(&mut self, path: &Path) {
        self.numbers.remove(path);
    }

    pub(super) fn opened(&mut self, file: File) -> FileHandle {
        self.next += 1;
        self.open.insert(self.next, Arc::new(file));
        FileHandle(self.next)
    }
}

pub(super) fn kind(metadata: &Metadata) -> FileType {
    if metadata.is_dir() {
        FileType::Directory
    } else {
        FileType::RegularFile
    }
}

pub(super) fn attributes(number: u64, metadata: &Metadata) -> FileAttr {
    let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    let mode = metadata.permissions().mode() & 0o7777;
    FileAttr {
        ino: INodeNo(number),
        size: metadata.len(),
        blocks: metadata.blocks(),
        atime: modified,
        mtime: modified,
        ctime: modified,
        crtime: modified,
        kind: kind(metadata),
        perm: u16::try_from(mode).expect("twelve bits"),
        nlink: 1,
        uid: metadata.uid(),
        gid: metadata.gid(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}
