//! What goes into the file system: a directory of this machine, read once into memory (without the
//! contents of its files).
//!
//! The tree contains only what the copy keeps: names, types, owners, modes, modification times,
//! link targets, device numbers and extended attributes. It excludes what differs between runs
//! (access and change times, inode numbers, the order of `readdir`, the location of the directory),
//! so that the same input produces the same bytes.

mod data;
mod error;
mod node;
mod walk;

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

pub use error::{Error, Result, shown};
pub use node::{Kind, Node, NodeId, ROOT, Time, Xattr};

use error::io;
use rustix::fs::FileType;
use walk::{Entry, Level};

/// How many entries a tree may have. Every entry costs about 200 bytes of memory here.
const MAX_ENTRIES: usize = 16 << 20;
/// The largest value of one extended attribute (Linux, `XATTR_SIZE_MAX`).
const MAX_XATTR: usize = 64 << 10;

/// A directory with everything in it.
#[derive(Debug)]
pub struct Tree {
    root: PathBuf,
    /// Depth first, the entries of a directory by the bytes of their names. The root is the first.
    nodes: Vec<Node>,
}

impl Tree {
    /// Reads the directory `root` and checks that every file in it may be read.
    pub fn scan(root: &Path) -> Result<Self> {
        let mut tree = Self {
            root: root.to_owned(),
            nodes: Vec::new(),
        };
        let mut linked = HashMap::new();
        let entry = Entry::root(root)?;
        tree.add(&mut linked, ROOT, Vec::new(), &entry)?;
        let mut levels = Vec::new();
        if let Some(directory) = entry.into_directory() {
            levels.push(Level::new(ROOT, directory, || root.to_owned())?);
        }
        while let Some(level) = levels.last_mut() {
            let parent = level.id;
            let Some(name) = level.next_name() else {
                walk::ascend(&mut levels, |id| tree.path(id))?;
                continue;
            };
            let path = || tree.path(parent).join(std::ffi::OsStr::from_bytes(&name));
            let entry = level.entry(&name, path)?;
            let (id, new) = tree.add(&mut linked, parent, name.clone(), &entry)?;
            if let Kind::Directory { entries } = &mut tree.nodes[parent.0].kind {
                entries.push((name, id));
            }
            if let (Some(directory), true) = (entry.into_directory(), new) {
                let level = Level::new(id, directory, || tree.path(id))?;
                walk::descend(&mut levels, level);
            }
        }
        Ok(tree)
    }

    /// Adds a file, or finds it among those that are there under another name.
    fn add(
        &mut self,
        linked: &mut HashMap<(u64, u64), NodeId>,
        parent: NodeId,
        name: Vec<u8>,
        entry: &Entry,
    ) -> Result<(NodeId, bool)> {
        let stat = &entry.stat;
        let inode = (stat.st_dev, stat.st_ino);
        let file_type = entry.file_type();
        // Two names of one symbolic link become two links: no reader can tell them apart.
        let may_be_linked =
            stat.st_nlink > 1 && !matches!(file_type, FileType::Directory | FileType::Symlink);
        if may_be_linked && let Some(&id) = linked.get(&inode) {
            self.nodes[id.0].names += 1;
            return Ok((id, false));
        }
        if self.nodes.len() >= MAX_ENTRIES {
            let why = format!("the directory holds more than {MAX_ENTRIES} files");
            return Err(Error::Unsupported {
                path: self.root.clone(),
                why,
            });
        }
        let id = NodeId(self.nodes.len());
        if may_be_linked {
            linked.insert(inode, id);
        }
        let path = || match name.as_slice() {
            [] => self.root.clone(),
            name => self.path(parent).join(std::ffi::OsStr::from_bytes(name)),
        };
        let node = Node {
            kind: kind(entry, path)?,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: Time {
                seconds: stat.st_mtime,
                nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
            },
            names: 1,
            links: if may_be_linked {
                u32::try_from(stat.st_nlink).unwrap_or(u32::MAX)
            } else {
                1
            },
            xattrs: xattrs(entry, path)?,
            parent,
            name,
        };
        self.nodes.push(node);
        Ok((id, true))
    }

    /// All files, in the order of the scan; directories come before what is in them.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.nodes
            .iter()
            .enumerate()
            .map(|(i, node)| (NodeId(i), node))
    }

    /// How many files there are, the root included.
    pub fn count(&self) -> usize {
        self.nodes.len()
    }

    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    /// Where a file is on this machine, for messages and for tools.
    pub fn path(&self, id: NodeId) -> PathBuf {
        let path = self.relative(id);
        if path.as_os_str().is_empty() {
            self.root.clone()
        } else {
            self.root.join(path)
        }
    }

    /// Where it is in the tree; empty for the root.
    fn relative(&self, id: NodeId) -> PathBuf {
        let mut names = Vec::new();
        let mut at = id;
        while at != ROOT {
            let node = self.node(at);
            names.push(node.name.as_slice());
            at = node.parent;
        }
        names.reverse();
        std::ffi::OsString::from_vec(names.join(&b'/')).into()
    }

    /// The file at the top that is called `name`.
    pub fn top(&self, name: &[u8]) -> Option<NodeId> {
        let Kind::Directory { entries } = &self.node(ROOT).kind else {
            return None;
        };
        let found = entries.binary_search_by(|(entry, _)| entry.as_slice().cmp(name));
        found.ok().map(|index| entries[index].1)
    }

    /// The number of directories in a directory, not counting deeper ones.
    pub fn subdirectories(&self, id: NodeId) -> u32 {
        let Kind::Directory { entries } = &self.node(id).kind else {
            return 0;
        };
        let directories = entries
            .iter()
            .filter(|(_, e)| matches!(self.node(*e).kind, Kind::Directory { .. }));
        u32::try_from(directories.count()).unwrap_or(u32::MAX)
    }

    fn open(&self, id: NodeId) -> Result<File> {
        walk::open(&self.path(id))
    }

    /// Reads the regular file `id` of `size` bytes once, in order. Calls `take` with every unit that holds
    /// something, its offset in the file before it; the last unit ends where the file ends.
    pub fn data<E: From<Error>>(
        &self,
        id: NodeId,
        size: u64,
        take: impl FnMut(u64, &[u8]) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        if size == 0 {
            return Ok(());
        }
        data::read(&self.open(id)?, || self.path(id), size, take)
    }

    /// The newest modification time: the file system's own times, so that they too follow from the
    /// input alone.
    pub fn newest(&self) -> Time {
        self.nodes
            .iter()
            .map(|node| node.mtime)
            .max()
            .expect("a tree has a root")
    }

    /// Feeds everything but the contents of the files to `hash`.
    pub fn digest(&self, hash: &mut ring::digest::Context) {
        let mut part = |bytes: &[u8]| {
            hash.update(&(bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        self.each_path(|id, path| {
            let node = self.node(id);
            let kind = match &node.kind {
                Kind::Directory { entries } => format!("directory {}", entries.len()),
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
            part(path);
            part(format!("{kind} {mode} {uid} {gid} {seconds} {nanoseconds}").as_bytes());
            for Xattr { name, value } in &node.xattrs {
                part(name);
                part(value);
            }
        });
    }

    /// The file with the longest path, and the length of this path within the tree.
    pub fn deepest(&self) -> (NodeId, usize) {
        let mut deepest = (ROOT, 0);
        self.each_path(|id, path| {
            if path.len() > deepest.1 {
                deepest = (id, path.len());
            }
        });
        deepest
    }

    /// Calls `take` with every file and its path within the tree. In the order of the scan each path
    /// begins with a piece of the one before it, so a deep tree costs no walk to the root for each.
    fn each_path(&self, mut take: impl FnMut(NodeId, &[u8])) {
        let mut lengths = vec![0; self.nodes.len()];
        let mut path: Vec<u8> = Vec::new();
        for (id, node) in self.nodes() {
            path.truncate(lengths[node.parent.0]);
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend(&node.name);
            lengths[id.0] = path.len();
            take(id, &path);
        }
    }
}

fn kind(entry: &Entry, path: impl Fn() -> PathBuf) -> Result<Kind> {
    let device = entry.stat.st_rdev;
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    Ok(match entry.file_type() {
        FileType::Directory => Kind::Directory {
            entries: Vec::new(),
        },
        FileType::RegularFile => Kind::Regular {
            size: u64::try_from(entry.stat.st_size).unwrap_or(0),
        },
        FileType::Symlink => {
            let target = entry
                .at
                .read_link()
                .map_err(|e| io("read the link", path())(e))?;
            Kind::Symlink {
                target: target.into_os_string().into_vec(),
            }
        }
        FileType::CharacterDevice => Kind::CharDevice { major, minor },
        FileType::BlockDevice => Kind::BlockDevice { major, minor },
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        FileType::Unknown => {
            let why = "its type is unknown to this program".into();
            return Err(Error::Unsupported { path: path(), why });
        }
    })
}

/// The extended attributes of a file, by name; none where the file system has none.
fn xattrs(entry: &Entry, path: impl Fn() -> PathBuf) -> Result<Vec<Xattr>> {
    let failed = |e: rustix::io::Errno| io("read the extended attributes of", path())(e.into());
    let list_into = |list: &mut [u8]| match &entry.opened {
        Some(file) => rustix::fs::flistxattr(file, list),
        None => rustix::fs::llistxattr(&entry.at, list),
    };
    // Most files have none, and need no large buffer to say so.
    match list_into(&mut [0; 256]) {
        Ok(0) | Err(rustix::io::Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Ok(_) | Err(rustix::io::Errno::RANGE) => {}
        Err(error) => return Err(failed(error)),
    }
    let mut list = vec![0; MAX_XATTR];
    let length = list_into(&mut list).map_err(failed)?;
    let mut xattrs = Vec::new();
    let mut value = vec![0; MAX_XATTR];
    let names = list[..length]
        .split(|b| *b == 0)
        .filter(|name| !name.is_empty());
    for name in names {
        // XFS shows an access control list twice, the second time in its own form.
        if name.starts_with(b"trusted.SGI_ACL_") {
            continue;
        }
        let length = match &entry.opened {
            Some(file) => rustix::fs::fgetxattr(file, name, value.as_mut_slice()),
            None => rustix::fs::lgetxattr(&entry.at, name, value.as_mut_slice()),
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
