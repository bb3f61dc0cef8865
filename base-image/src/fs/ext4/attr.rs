//! Extended attributes in the order of their names: in the inode as long as there is room, the others in
//! one block.
//!
//! The tool writes attributes in the order of the source, which differs between file systems and
//! depends on the order in which they were set. It gives a block to the same files as this code
//! does, since both fill the inode first; so only the contents of the inode and the block are
//! rewritten. Formats: the kernel's `ext4/xattr.h`.

use super::Result;
use super::disk::{BLOCK, Disk, INODE, unknown};
use super::disk::{array, put};
use probe::crc32c;
use tree::Xattr;

const MAGIC: u32 = 0xEA02_0000;
/// Where the inode's own room starts: behind the fields, of which 32 bytes are beyond the first 128.
const START: usize = 160;
/// The header of a block, and of an entry without its name.
const HEADER: usize = 32;
const ENTRY: usize = 16;
/// What ends the entries.
const END: usize = 4;
/// Of an inode: the number of the block with its attributes, in two parts.
const FILE_ACL: (usize, usize) = (104, 118);

/// The name spaces, as numbers.
const SPACES: [(&[u8], u8); 3] = [(b"user.", 1), (b"trusted.", 4), (b"security.", 6)];
const ACCESS: u8 = 2;
const DEFAULT: u8 = 3;

/// An attribute as ext4 names it.
struct Attribute {
    space: u8,
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Attribute {
    fn room(&self) -> usize {
        (ENTRY + self.name.len()).next_multiple_of(4) + self.value.len().next_multiple_of(4)
    }

    /// The hash of an entry. Bytes count as signed, as older checkers on x86 take them; newer ones
    /// take both forms.
    fn hash(&self) -> u32 {
        let name = self.name.iter().fold(0_u32, |hash, byte| {
            hash.rotate_left(5) ^ i32::from(byte.cast_signed()).cast_unsigned()
        });
        self.value.chunks(4).fold(name, |hash, part| {
            let mut word = [0; 4];
            word[..part.len()].copy_from_slice(part);
            hash.rotate_left(16) ^ u32::from_le_bytes(word)
        })
    }
}

/// Where the attributes of one file go.
pub(super) struct Placed {
    inode: Vec<Attribute>,
    block: Vec<Attribute>,
}

impl Placed {
    /// Finds a place for each, or says why there is none.
    pub(super) fn new(xattrs: &[Xattr]) -> std::result::Result<Self, String> {
        let mut all = xattrs
            .iter()
            .map(translate)
            .collect::<std::result::Result<Vec<_>, _>>()?;
        // The order that the kernel searches a block in.
        all.sort_by(|a, b| {
            let key = |x: &Attribute| (x.space, x.name.len());
            key(a).cmp(&key(b)).then_with(|| a.name.cmp(&b.name))
        });
        let mut placed = Self {
            inode: Vec::new(),
            block: Vec::new(),
        };
        let mut free_in_inode = INODE - START - 4 - END;
        let mut free_in_block = BLOCK - HEADER - END;
        for attribute in all {
            let room = attribute.room();
            if room <= free_in_inode {
                free_in_inode -= room;
                placed.inode.push(attribute);
            } else if room <= free_in_block {
                free_in_block -= room;
                placed.block.push(attribute);
            } else {
                return Err(
                    "its extended attributes need more than ext4 has for one file: 88 bytes \
                     in the inode and 4060 in a block"
                        .into(),
                );
            }
        }
        Ok(placed)
    }

    /// Whether the inode has too little room for them.
    pub(super) fn needs_block(&self) -> bool {
        !self.block.is_empty()
    }

    /// Writes them into `inode`, and into its block. `Ok(false)`: the tool found other attributes.
    pub(super) fn write(&self, disk: &Disk, inode: &mut [u8; INODE]) -> Result<bool> {
        let low = u64::from(u32::from_le_bytes(array(inode, FILE_ACL.0)));
        let high = u64::from(u16::from_le_bytes(array(inode, FILE_ACL.1)));
        let place = high << 32 | low;
        if (place != 0) != self.needs_block() {
            return Ok(false);
        }
        inode[START..].fill(0);
        if !self.inode.is_empty() {
            put(inode, START, &MAGIC.to_le_bytes());
            fill(&mut inode[START + 4..], 0, &self.inode, |_| 0)?;
        }
        if place != 0 {
            self.write_block(disk, place)?;
        }
        Ok(true)
    }

    fn write_block(&self, disk: &Disk, place: u64) -> Result<()> {
        let mut block = [0; BLOCK];
        put(&mut block, 0, &MAGIC.to_le_bytes());
        // One file uses it; it is one block long.
        put(&mut block, 4, &1_u32.to_le_bytes());
        put(&mut block, 8, &1_u32.to_le_bytes());
        let hash = self.block.iter().fold(0_u32, |hash, attribute| {
            hash.rotate_left(16) ^ attribute.hash()
        });
        put(&mut block, 12, &hash.to_le_bytes());
        fill(&mut block, HEADER, &self.block, Attribute::hash)?;
        let seed = crc32c(disk.seed, &place.to_le_bytes());
        let crc = crc32c(seed, &block);
        put(&mut block, 16, &crc.to_le_bytes());
        disk.write_block(place, &block)
    }
}

/// Entries from `at` upwards, values from the end downwards; offsets count from the start of `room`.
fn fill(
    room: &mut [u8],
    mut at: usize,
    attributes: &[Attribute],
    hash: impl Fn(&Attribute) -> u32,
) -> Result<()> {
    let mut top = room.len();
    for attribute in attributes {
        let Attribute { space, name, value } = attribute;
        let small = |value: usize| u16::try_from(value).map_err(|_| unknown("too small a block"));
        room[at] = u8::try_from(name.len()).map_err(|_| unknown("too long a name"))?;
        room[at + 1] = *space;
        if !value.is_empty() {
            top -= value.len().next_multiple_of(4);
            put(room, at + 2, &small(top)?.to_le_bytes());
            put(room, top, value);
        }
        put(room, at + 8, &u32::from(small(value.len())?).to_le_bytes());
        put(room, at + 12, &hash(attribute).to_le_bytes());
        put(room, at + ENTRY, name);
        at += (ENTRY + name.len()).next_multiple_of(4);
    }
    Ok(())
}

/// The name space as a number, the name without it; access control lists in ext4's own form.
fn translate(xattr: &Xattr) -> std::result::Result<Attribute, String> {
    let acl = |space: u8| {
        let value = access_list(&xattr.value).ok_or("its access control list is not valid")?;
        Ok(Attribute {
            space,
            name: Vec::new(),
            value,
        })
    };
    match xattr.name.as_slice() {
        b"system.posix_acl_access" => return acl(ACCESS),
        b"system.posix_acl_default" => return acl(DEFAULT),
        _ => {}
    }
    for (prefix, space) in SPACES {
        if let Some(name) = xattr.name.strip_prefix(prefix) {
            return Ok(Attribute {
                space,
                name: name.to_vec(),
                value: xattr.value.clone(),
            });
        }
    }
    let name = String::from_utf8_lossy(&xattr.name);
    Err(format!(
        "ext4 has no place for its extended attribute {name}"
    ))
}

/// From the form of the system calls to that on disk, in which only users and groups that are named
/// have an id.
fn access_list(value: &[u8]) -> Option<Vec<u8>> {
    const USER: u16 = 2;
    const GROUP: u16 = 8;
    let entries = value.strip_prefix(&2_u32.to_le_bytes())?;
    let (entries, rest) = entries.as_chunks::<8>();
    if !rest.is_empty() {
        return None;
    }
    let mut list = 1_u32.to_le_bytes().to_vec();
    for entry in entries {
        let tag = u16::from_le_bytes(array(entry, 0));
        let length = if matches!(tag, USER | GROUP) { 8 } else { 4 };
        list.extend(&entry[..length]);
    }
    Some(list)
}
