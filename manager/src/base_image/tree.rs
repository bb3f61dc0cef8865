//! What goes into the file system: a directory of this machine, read once into memory (without the
//! contents of its files).
//!
//! The tree holds only what the copy shall hold: names, types, owners, modes, modification times,
//! link targets, device numbers and extended attributes. What differs from one run to the next
//! (access and change times, inode numbers, the order of `readdir`, the place of the directory) is
//! not in it, so that the same input gives the same bytes.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::error::{Error, Result, io};

/// How many entries a tree may have. Every entry costs about 200 bytes of memory here.
const MAX_ENTRIES: usize = 16 << 20;
/// The largest value of one extended attribute (Linux, `XATTR_SIZE_MAX`).
const MAX_XATTR: usize = 64 << 10;

/// A place in [`Tree::nodes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct NodeId(pub(super) usize);

/// The directory that was scanned.
pub(super) const ROOT: NodeId = NodeId(0);

/// A directory with everything in it.
#[derive(Debug)]
pub(super) struct Tree {
    root: PathBuf,
    /// Depth first, the entries of a directory by the bytes of their names: the order in which
    /// `mkfs.ext4 -d` visits them. The root is the first.
    nodes: Vec<Node>,
}

/// A file, under one or more names.
#[derive(Debug)]
pub(super) struct Node {
    /// What it is.
    pub(super) kind: Kind,
    /// The permission bits, with set-uid, set-gid and sticky.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// When its contents were last changed.
    pub(super) mtime: Time,
    /// How many names it has in this tree; of a directory, 1.
    pub(super) names: u32,
    /// By name.
    pub(super) xattrs: Vec<Xattr>,
    /// The first of its names, from the root of the tree.
    path: PathBuf,
}

/// An extended attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Xattr {
    /// With its name space: `user.comment`.
    pub(super) name: Vec<u8>,
    pub(super) value: Vec<u8>,
}

/// A point in time, in seconds since 1970 and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Time {
    pub(super) seconds: i64,
    pub(super) nanoseconds: u32,
}

/// The types of files, each with what only it has.
#[derive(Debug)]
pub(super) enum Kind {
    /// The names in it, in the order of their bytes, and the parent (of the root: itself).
    Directory {
        entries: Vec<(Vec<u8>, NodeId)>,
        parent: NodeId,
    },
    /// How long it is, in bytes.
    Regular {
        size: u64,
    },
    /// Where it points.
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
    pub(super) fn mode_bits(&self) -> u32 {
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

impl Tree {
    /// Reads the directory `root`. A top-level `lost+found` is the file system's own and is left out.
    pub(super) fn scan(root: &Path) -> Result<Self> {
        let mut scan = Scan {
            root,
            nodes: Vec::new(),
            linked: HashMap::new(),
        };
        scan.add(PathBuf::new(), ROOT)?;
        // The directories whose entries are being visited, with what is left of each.
        let mut open = vec![(ROOT, scan.names(Path::new(""))?.into_iter())];
        while let Some((directory, names)) = open.last_mut() {
            let directory = *directory;
            let Some(name) = names.next() else {
                open.pop();
                continue;
            };
            let path = scan.nodes[directory.0].path.join(OsStr::from_bytes(&name));
            let (id, new) = scan.add(path, directory)?;
            if let Kind::Directory { entries, .. } = &mut scan.nodes[directory.0].kind {
                entries.push((name, id));
            }
            if new && matches!(scan.nodes[id.0].kind, Kind::Directory { .. }) {
                let names = scan.names(&scan.nodes[id.0].path)?;
                open.push((id, names.into_iter()));
            }
        }
        let nodes = scan.nodes;
        Ok(Self {
            root: root.to_owned(),
            nodes,
        })
    }

    /// All files, in the order of the scan; directories come before what is in them.
    pub(super) fn nodes(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.nodes
            .iter()
            .enumerate()
            .map(|(i, node)| (NodeId(i), node))
    }

    /// How many files there are, the root included.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// One file.
    pub(super) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    /// Where a file is on this machine, for messages and for tools.
    pub(super) fn path(&self, id: NodeId) -> PathBuf {
        let path = &self.nodes[id.0].path;
        if path.as_os_str().is_empty() {
            self.root.clone()
        } else {
            self.root.join(path)
        }
    }

    /// The number of directories in a directory, not counting deeper ones.
    pub(super) fn subdirectories(&self, id: NodeId) -> u32 {
        let Kind::Directory { entries, .. } = &self.node(id).kind else {
            return 0;
        };
        let directories = entries
            .iter()
            .filter(|(_, e)| matches!(self.node(*e).kind, Kind::Directory { .. }));
        u32::try_from(directories.count()).unwrap_or(u32::MAX)
    }

    /// Opens a regular file.
    pub(super) fn open(&self, id: NodeId) -> Result<File> {
        let path = self.path(id);
        File::open(&path).map_err(io("open", path))
    }

    /// The newest modification time: the file system's own times, so that they too follow from the
    /// input alone.
    pub(super) fn newest(&self) -> Time {
        self.nodes
            .iter()
            .map(|node| node.mtime)
            .max()
            .expect("a tree has a root")
    }

    /// Feeds everything but the contents of the files to `hash`.
    pub(super) fn hash(&self, hash: &mut ring::digest::Context) {
        let mut part = |bytes: &[u8]| {
            hash.update(&(bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        for node in &self.nodes {
            let kind = match &node.kind {
                Kind::Directory { entries, .. } => format!("directory {}", entries.len()),
                Kind::Regular { size } => format!("regular {size}"),
                Kind::Symlink { target } => {
                    part(target);
                    "symlink".into()
                }
                Kind::CharDevice { major, minor } => format!("char {major} {minor}"),
                Kind::BlockDevice { major, minor } => format!("block {major} {minor}"),
                Kind::Fifo => "fifo".into(),
                Kind::Socket => "socket".into(),
            };
            let Node {
                mode,
                uid,
                gid,
                mtime,
                ..
            } = node;
            let Time {
                seconds,
                nanoseconds,
            } = mtime;
            part(node.path.as_os_str().as_bytes());
            part(format!("{kind} {mode} {uid} {gid} {seconds} {nanoseconds}").as_bytes());
            for Xattr { name, value } in &node.xattrs {
                part(name);
                part(value);
            }
        }
    }
}

/// A scan under way.
struct Scan<'a> {
    root: &'a Path,
    nodes: Vec<Node>,
    /// Files with several names, by device and inode.
    linked: HashMap<(u64, u64), NodeId>,
}

impl Scan<'_> {
    /// Adds the file at `path`, or finds it among those that are there under another name.
    fn add(&mut self, path: PathBuf, parent: NodeId) -> Result<(NodeId, bool)> {
        let full = if parent.0 == 0 && self.nodes.is_empty() {
            self.root.to_owned()
        } else {
            self.root.join(&path)
        };
        // The root itself may be a symbolic link to the directory that is meant.
        let metadata = if self.nodes.is_empty() {
            full.metadata()
        } else {
            full.symlink_metadata()
        };
        let metadata = metadata.map_err(io("read the attributes of", &full))?;
        let inode = (metadata.dev(), metadata.ino());
        // Two names of one symbolic link become two links: no reader can tell them apart.
        let may_be_linked = metadata.nlink() > 1 && !metadata.is_dir() && !metadata.is_symlink();
        if may_be_linked && let Some(&id) = self.linked.get(&inode) {
            self.nodes[id.0].names += 1;
            return Ok((id, false));
        }
        if self.nodes.len() >= MAX_ENTRIES {
            let why = format!("the directory holds more than {MAX_ENTRIES} files");
            return Err(Error::Unsupported {
                path: self.root.to_owned(),
                why,
            });
        }
        let id = NodeId(self.nodes.len());
        if may_be_linked {
            self.linked.insert(inode, id);
        }
        self.nodes.push(Node {
            kind: kind(&full, &metadata, parent)?,
            mode: metadata.mode() & 0o7777,
            uid: metadata.uid(),
            gid: metadata.gid(),
            mtime: Time {
                seconds: metadata.mtime(),
                nanoseconds: u32::try_from(metadata.mtime_nsec()).unwrap_or(0),
            },
            names: 1,
            xattrs: xattrs(&full, id.0 == 0)?,
            path,
        });
        Ok((id, true))
    }

    /// The names in a directory, by their bytes.
    fn names(&self, path: &Path) -> Result<Vec<Vec<u8>>> {
        let full = self.root.join(path);
        let entries = full.read_dir().map_err(io("list", &full))?;
        let mut names = Vec::new();
        for entry in entries {
            let name = entry.map_err(io("list", &full))?.file_name().into_vec();
            if !(path.as_os_str().is_empty() && name == b"lost+found") {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }
}

fn kind(path: &Path, metadata: &Metadata, parent: NodeId) -> Result<Kind> {
    let file_type = metadata.file_type();
    let (major, minor) = (
        rustix::fs::major(metadata.rdev()),
        rustix::fs::minor(metadata.rdev()),
    );
    Ok(if file_type.is_dir() {
        Kind::Directory {
            entries: Vec::new(),
            parent,
        }
    } else if file_type.is_file() {
        Kind::Regular {
            size: metadata.len(),
        }
    } else if file_type.is_symlink() {
        let target = path.read_link().map_err(io("read the link", path))?;
        Kind::Symlink {
            target: target.into_os_string().into_vec(),
        }
    } else if file_type.is_char_device() {
        Kind::CharDevice { major, minor }
    } else if file_type.is_block_device() {
        Kind::BlockDevice { major, minor }
    } else if file_type.is_fifo() {
        Kind::Fifo
    } else if file_type.is_socket() {
        Kind::Socket
    } else {
        let why = "its type is unknown to this program".into();
        return Err(Error::Unsupported {
            path: path.to_owned(),
            why,
        });
    })
}

/// The extended attributes of `path` itself, by name; none where the file system has none.
fn xattrs(path: &Path, follow: bool) -> Result<Vec<Xattr>> {
    let failed = |e: rustix::io::Errno| io("read the extended attributes of", path)(e.into());
    let mut list = vec![0; MAX_XATTR];
    let length = if follow {
        rustix::fs::listxattr(path, list.as_mut_slice())
    } else {
        rustix::fs::llistxattr(path, list.as_mut_slice())
    };
    let length = match length {
        Ok(length) => length,
        Err(rustix::io::Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut xattrs = Vec::new();
    let mut value = vec![0; if length > 0 { MAX_XATTR } else { 0 }];
    let names = list[..length]
        .split(|b| *b == 0)
        .filter(|name| !name.is_empty());
    for name in names {
        // XFS shows an access control list twice, the second time in its own form.
        if name.starts_with(b"trusted.SGI_ACL_") {
            continue;
        }
        let length = if follow {
            rustix::fs::getxattr(path, name, value.as_mut_slice())
        } else {
            rustix::fs::lgetxattr(path, name, value.as_mut_slice())
        };
        let length = match length {
            Ok(length) => length,
            // Gone since it was listed, or not ours to read.
            Err(rustix::io::Errno::NODATA | rustix::io::Errno::PERM) => continue,
            Err(error) => return Err(failed(error)),
        };
        xattrs.push(Xattr {
            name: name.to_vec(),
            value: value[..length].to_vec(),
        });
    }
    xattrs.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(xattrs)
}
