//! Sets every inode that the tools created to the values of the tree. It finds each inode by
//! its name, by reading the new directories from the root down.

use super::attr::Placed;
use super::disk::{Disk, INODE, LINKS, MODE};
use super::disk::{array, put};
use super::{Error, LINKS_MAX, LOST_FOUND, Result};
use tree::{Kind, Node, NodeId, ROOT, Time, Tree};

pub(super) const ROOT_INODE: u32 = 2;
/// The bits of a mode that say the type.
const TYPE: u32 = 0o170_000;
/// Where a size is, in two parts.
const SIZE: (usize, usize) = (4, 108);

pub(super) fn set(disk: &Disk, tree: &Tree) -> Result<()> {
    let mut numbers = vec![0; tree.count()];
    numbers[ROOT.0] = ROOT_INODE;
    for (id, node) in tree.nodes() {
        let changed = || {
            Error::Tree(tree::Error::Changed {
                path: tree.path(id),
            })
        };
        let number = numbers[id.0];
        let mut inode = disk.inode(number)?;
        let found = Found::read(&inode);
        if !found.is(&node.kind) {
            return Err(changed());
        }
        let mut links = node.names;
        if let Kind::Directory { entries } = &node.kind {
            let names = disk.names(&inode)?;
            let own = id == ROOT && tree.top(LOST_FOUND).is_none();
            match_names(entries, names, own, &mut numbers).ok_or_else(changed)?;
            links = tree.subdirectories(id).saturating_add(2 + u32::from(own));
        }
        put_node(&mut inode, node, links);
        let xattrs = Placed::new(&node.xattrs).map_err(|why| Error::Unsupported {
            path: tree.path(id),
            why,
        })?;
        if !xattrs.write(disk, &mut inode)? {
            return Err(changed());
        }
        disk.write_inode(number, &mut inode)?;
    }
    disk.finish()
}

/// Notes the inode of every name. `None` when the names differ from those of the tree, or two names
/// of one file have two inodes: the directory was changed after it was read. `own`: the directory also
/// has the `lost+found` that the tool makes.
fn match_names(
    entries: &[(Vec<u8>, NodeId)],
    mut names: Vec<(Vec<u8>, u32)>,
    own: bool,
    numbers: &mut [u32],
) -> Option<()> {
    if own {
        names.retain(|(name, _)| name != LOST_FOUND);
    }
    if names.len() != entries.len() {
        return None;
    }
    for ((expected, id), (name, number)) in entries.iter().zip(names) {
        let known = numbers[id.0];
        if *expected != name || (known != 0 && known != number) {
            return None;
        }
        numbers[id.0] = number;
    }
    Some(())
}

/// What an inode says before it is set.
struct Found {
    file_type: u32,
    size: u64,
}

impl Found {
    fn read(inode: &[u8; INODE]) -> Self {
        let mode = u32::from(u16::from_le_bytes(array(inode, MODE)));
        let low = u64::from(u32::from_le_bytes(array(inode, SIZE.0)));
        let high = u64::from(u32::from_le_bytes(array(inode, SIZE.1)));
        Self {
            file_type: mode & TYPE,
            size: high << 32 | low,
        }
    }

    fn is(&self, kind: &Kind) -> bool {
        let size = match kind {
            Kind::Regular { size } => *size,
            Kind::Symlink { target } => target.len() as u64,
            _ => self.size,
        };
        (self.file_type, self.size) == (kind.mode_bits(), size)
    }
}

fn put_node(inode: &mut [u8; INODE], node: &Node, links: u32) {
    let mode = u16::try_from(node.kind.mode_bits() | node.mode).unwrap_or(0);
    put(inode, MODE, &mode.to_le_bytes());
    // A directory with more subdirectories than can be counted says 1.
    let links = if links > LINKS_MAX { 1 } else { links };
    let links = u16::try_from(links).unwrap_or(1);
    put(inode, LINKS, &links.to_le_bytes());
    let (uid, gid) = (node.uid.to_le_bytes(), node.gid.to_le_bytes());
    for (at, half) in [
        (2, &uid[..2]),
        (120, &uid[2..]),
        (24, &gid[..2]),
        (122, &gid[2..]),
    ] {
        put(inode, at, half);
    }
    put_time(inode, 16, 136, node.mtime);
    put_time(inode, 8, 140, node.mtime);
    put_time(inode, 12, 132, node.mtime);
    put_time(inode, 144, 148, node.mtime);
}

/// Puts a time into its 32-bit field and the field with the nanoseconds and the two bits above.
fn put_time(inode: &mut [u8; INODE], low: usize, extra: usize, time: Time) {
    let bytes = time.seconds.to_le_bytes();
    let below = i32::from_le_bytes(array(&bytes, 0));
    let epoch = (time.seconds - i64::from(below)) >> 32 & 3;
    put(inode, low, &below.to_le_bytes());
    let epoch = u32::try_from(epoch).unwrap_or(0);
    put(inode, extra, &(time.nanoseconds << 2 | epoch).to_le_bytes());
}
