//! Fills an empty ext4 through `debugfs` where `mkfs.ext4 -d` would need time proportional to the
//! square of the number of names in a directory.
//!
//! 1. `debugfs` creates every file of the tree under its number, in *batches*: directories of the
//!    root with few names each. So the tool allocates every inode and block and copies every file.
//!    Directories get as many empty blocks as their names need.
//! 2. The batches tell the inode of every file; `debugfs` removes them.
//! 3. Our code writes the names into the directories (`directory`), and what `debugfs` has no
//!    command for: targets of symbolic links with any bytes, large device numbers, sockets.
//!
//! The caller then sets every inode, reading the names that were written here, and has the result
//! checked and indexed by `e2fsck`.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use tree::{Kind, Node, NodeId, ROOT, Tree};

use super::attr::Placed;
use super::disk::{BLOCK, Disk, EXTENTS, MODE, put};
use super::inodes::ROOT_INODE;
use super::{Error, LOST_FOUND, Request, Result, directory, io, unknown};
use crate::tool::Tool;

const DEBUGFS: Tool = Tool {
    name: "debugfs",
    package: "e2fsprogs",
    limit: Duration::from_hours(6),
};

/// Files in one batch: their names fit into one block.
const BATCH: usize = 250;
/// Targets of symbolic links shorter than this are in the inode.
const FAST_TARGET: usize = 60;
/// The longest path that the tool can open, and that a line of a script can hold with every byte
/// quoted.
const PATH_MAX: usize = 4000;
/// The value that makes the tool give a file a block for its attributes: too large for the inode.
const VALUE: &str = "value";
const SCRIPT: &str = "script";

/// Fills the file system of `request`, which is empty.
pub(super) fn fill(request: &Request, environment: &[(&str, std::ffi::OsString)]) -> Result<()> {
    let image = request.path;
    let image = image.canonicalize().map_err(io("resolve", image))?;
    let beside = image.parent().unwrap_or(Path::new("/"));
    let work = tempfile::Builder::new()
        .prefix(".base-image-")
        .tempdir_in(beside)
        .map_err(io("make a directory in", beside))?;
    let run = |script: Script| {
        script.finish()?;
        let arguments = ["-w", "-f", SCRIPT].map(OsStr::new);
        let arguments = [&arguments[..], &[image.as_os_str()]].concat();
        DEBUGFS.run_script(work.path(), &arguments, environment)
    };

    let mut script = Script::new(work.path())?;
    create(&mut script, request.tree)?;
    run(script)?;

    let disk = Disk::open(request)?;
    let mut numbers = vec![0; request.tree.count()];
    let mut script = Script::new(work.path())?;
    collect(&disk, &mut numbers, &mut script)?;
    run(script)?;

    let parts = Parts {
        disk: &disk,
        tree: request.tree,
        numbers: &numbers,
    };
    for (id, node) in request.tree.nodes() {
        parts.complete(id, node)?;
    }
    disk.finish()
}

/// Commands for `debugfs`, one in a line.
struct Script<'a> {
    out: BufWriter<File>,
    directory: &'a Path,
}

impl<'a> Script<'a> {
    fn new(directory: &'a Path) -> Result<Self> {
        let path = directory.join(SCRIPT);
        let file = File::create(&path).map_err(io("make", path))?;
        let out = BufWriter::new(file);
        Ok(Self { out, directory })
    }

    fn line(&mut self, parts: &[&[u8]]) -> Result<()> {
        let written = parts.iter().try_for_each(|part| self.out.write_all(part));
        let written = written.and_then(|()| self.out.write_all(b"\n"));
        written.map_err(io("write", self.directory.join(SCRIPT)))
    }

    fn command(&mut self, text: &str) -> Result<()> {
        self.line(&[text.as_bytes()])
    }

    fn finish(mut self) -> Result<()> {
        let flushed = self.out.flush();
        flushed.map_err(io("write", self.directory.join(SCRIPT)))
    }

    /// A path as a command takes it: quoted, or through a symbolic link if it would end the line.
    fn source(&self, tree: &Tree, id: NodeId, root: &Path) -> Result<Vec<u8>> {
        let relative = tree.path(id);
        let relative = relative.strip_prefix(tree.path(ROOT)).unwrap_or(&relative);
        let path = root.join(relative);
        let bytes = path.as_os_str().as_bytes();
        if bytes.len() > PATH_MAX {
            let why = format!(
                "its path has more than {PATH_MAX} bytes, and there are directories with very \
                 many names; use --fs xfs"
            );
            return Err(Error::Unsupported { path, why });
        }
        if bytes.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
            let link = format!("link{}", id.0);
            let at = self.directory.join(&link);
            std::os::unix::fs::symlink(&path, &at).map_err(io("make the link", at))?;
            return Ok(link.into_bytes());
        }
        let mut quoted = vec![b'"'];
        for byte in bytes {
            quoted.push(*byte);
            if *byte == b'"' {
                quoted.push(b'"');
            }
        }
        quoted.push(b'"');
        Ok(quoted)
    }
}

/// The commands that create every file.
fn create(script: &mut Script, tree: &Tree) -> Result<()> {
    let value = script.directory.join(VALUE);
    let written = File::create(&value).and_then(|mut file| file.write_all(&[b'x'; 3000]));
    written.map_err(io("write", value))?;
    let root = tree.path(ROOT);
    let root = root.canonicalize().map_err(io("resolve", root))?;
    let lost_found = tree.top(LOST_FOUND);
    let mut created = 0;
    for (id, node) in tree.nodes() {
        let name = if id == ROOT {
            "/".to_owned()
        } else if lost_found == Some(id) {
            "/lost+found".to_owned()
        } else {
            if created % BATCH == 0 {
                let batch = created / BATCH;
                script.command(&format!("cd /\nmkdir batch{batch}\ncd batch{batch}"))?;
            }
            created += 1;
            let name = id.0.to_string();
            create_one(script, tree, id, &root, &name)?;
            name
        };
        if let Kind::Directory { entries } = &node.kind {
            for _ in 1..directory::blocks(entries, id == ROOT) {
                script.command(&format!("expand_dir {name}"))?;
            }
        }
        let placed = Placed::new(&node.xattrs);
        if placed.is_ok_and(|placed| placed.needs_block()) {
            script.command(&format!("ea_set -f {VALUE} {name} user.value"))?;
        }
    }
    Ok(())
}

fn create_one(script: &mut Script, tree: &Tree, id: NodeId, root: &Path, name: &str) -> Result<()> {
    match &tree.node(id).kind {
        Kind::Directory { .. } => script.command(&format!("mkdir {name}")),
        Kind::Regular { .. } => {
            let source = script.source(tree, id, root)?;
            script.line(&[b"write ", &source, b" ", name.as_bytes()])
        }
        Kind::Symlink { target } => {
            let same_length = "x".repeat(target.len());
            script.command(&format!("symlink {name} {same_length}"))
        }
        Kind::CharDevice { .. } | Kind::BlockDevice { .. } | Kind::Fifo | Kind::Socket => {
            script.command(&format!("mknod {name} p"))
        }
    }
}

/// Notes the inode of every file, and writes the commands that remove the batches.
fn collect(disk: &Disk, numbers: &mut [u32], script: &mut Script) -> Result<()> {
    numbers[ROOT.0] = ROOT_INODE;
    for (name, batch) in disk.names(&disk.inode(ROOT_INODE)?)? {
        if name == LOST_FOUND {
            if let Some(id) = disk.request.tree.top(LOST_FOUND) {
                numbers[id.0] = batch;
            }
            continue;
        }
        for (name, number) in disk.names(&disk.inode(batch)?)? {
            let id = std::str::from_utf8(&name).ok();
            let id = id.and_then(|text| text.parse::<usize>().ok());
            let place = id.and_then(|id| numbers.get_mut(id));
            *place.ok_or_else(|| unknown("a file that was not asked for"))? = number;
        }
        // The second command clears what the first one leaves: an inode with links.
        script.command(&format!("kill_file <{batch}>\nclri <{batch}>"))?;
    }
    Ok(())
}

/// What is written without the tool.
struct Parts<'a> {
    disk: &'a Disk<'a>,
    tree: &'a Tree,
    numbers: &'a [u32],
}

impl Parts<'_> {
    fn complete(&self, id: NodeId, node: &Node) -> Result<()> {
        let number = self.numbers[id.0];
        if number == 0 {
            let path = self.tree.path(id);
            return Err(Error::Tree(tree::Error::Changed { path }));
        }
        match &node.kind {
            Kind::Regular { .. } => Ok(()),
            Kind::Directory { entries } => self.names(id, node, entries),
            Kind::Symlink { target } => self.target(number, target),
            Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
                self.special(number, node, device(*major, *minor))
            }
            Kind::Fifo | Kind::Socket => self.special(number, node, [0; 8]),
        }
    }

    fn names(&self, id: NodeId, node: &Node, entries: &[(Vec<u8>, NodeId)]) -> Result<()> {
        let number = self.numbers[id.0];
        let inode = self.disk.inode(number)?;
        let mut names = Vec::with_capacity(entries.len() + 3);
        let entry = |name: &'static [u8], inode| directory::Entry {
            name,
            inode,
            kind: directory::DIRECTORY,
        };
        names.push(entry(b".", number));
        names.push(entry(b"..", self.numbers[node.parent.0]));
        if id == ROOT && self.tree.top(LOST_FOUND).is_none() {
            let found = self.disk.names(&inode)?;
            let found = found.iter().find(|(name, _)| name == LOST_FOUND);
            let (_, inode) = found.ok_or_else(|| unknown("no lost+found"))?;
            names.push(entry(LOST_FOUND, *inode));
        }
        names.extend(entries.iter().map(|(name, id)| directory::Entry {
            name,
            inode: self.numbers[id.0],
            kind: directory::kind(&self.tree.node(*id).kind),
        }));
        directory::write(self.disk, number, &inode, &names)
    }

    /// Puts the target of a symbolic link where the tool put one of the same length.
    fn target(&self, number: u32, target: &[u8]) -> Result<()> {
        let mut inode = self.disk.inode(number)?;
        if target.len() < FAST_TARGET {
            put(&mut inode, EXTENTS, target);
            return self.disk.write_inode(number, &mut inode);
        }
        let blocks = self.disk.blocks(&inode)?;
        let ([place], true) = (blocks.as_slice(), target.len() < BLOCK) else {
            return Err(unknown("a symbolic link of another length"));
        };
        let mut block = [0; BLOCK];
        put(&mut block, 0, target);
        self.disk.write_block(*place, &block)
    }

    /// Makes a device or a socket of what the tool made as a FIFO.
    fn special(&self, number: u32, node: &Node, device: [u8; 8]) -> Result<()> {
        let mut inode = self.disk.inode(number)?;
        let mode = u16::try_from(node.kind.mode_bits() | node.mode).unwrap_or(0);
        put(&mut inode, MODE, &mode.to_le_bytes());
        put(&mut inode, EXTENTS, &device);
        self.disk.write_inode(number, &mut inode)
    }
}

/// A device number as an inode has it: in the first word if both parts fit into a byte, else in the
/// second one, with the upper bits of the minor above the major.
fn device(major: u32, minor: u32) -> [u8; 8] {
    let mut bytes = [0; 8];
    if major < 256 && minor < 256 {
        put(&mut bytes, 0, &(major << 8 | minor).to_le_bytes());
    } else {
        let wide = minor & 0xFF | major << 8 | (minor & !0xFF) << 12;
        put(&mut bytes, 4, &wide.to_le_bytes());
    }
    bytes
}
