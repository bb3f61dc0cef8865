//! Extended attributes: in the inode when they are small, else in one block.

use std::path::PathBuf;

use super::bytes::{array, put};
use super::error::{Error, Result};
use super::fork::{Attributes, Format};
use super::layout::{BLOCK, LITERAL, hash};
use super::space::Space;
use tree::Xattr;

/// Name spaces, as flags.
const ROOT: u8 = 1 << 1;
const SECURE: u8 = 1 << 2;
/// Flag in a leaf: the value is beside the name.
const LOCAL: u8 = 1;
/// What the data fork keeps: the root of a tree with three children.
const DATA_MIN: usize = 56;
/// The header of a leaf, and the entries that follow it.
const LEAF_HEADER: usize = 80;
const LEAF_ENTRY: usize = 8;

/// An attribute as XFS names it.
struct Attribute {
    flags: u8,
    name: Vec<u8>,
    value: Vec<u8>,
}

/// Why XFS cannot store these attributes of one file; `None`: it can.
pub fn refuses(xattrs: &[Xattr]) -> Option<String> {
    encode(xattrs).err()
}

/// The attribute fork for `xattrs`; none when there are none.
pub(super) fn make(
    space: &mut Space,
    owner: u64,
    xattrs: &[Xattr],
    path: impl Fn() -> PathBuf,
) -> Result<Option<Attributes>> {
    if xattrs.is_empty() {
        return Ok(None);
    }
    let encoded = encode(xattrs).map_err(|why| Error::Attributes { path: path(), why })?;
    let attributes = match encoded {
        Encoded::Short(bytes) => Attributes {
            format: Format::Local,
            bytes,
            blocks: 0,
        },
        Encoded::Leaf(leaf) => write_leaf(space, owner, leaf)?,
    };
    Ok(Some(attributes))
}

/// Attributes for the inode, or for a block.
enum Encoded {
    Short(Vec<u8>),
    Leaf(Vec<u8>),
}

fn encode(xattrs: &[Xattr]) -> std::result::Result<Encoded, String> {
    let attributes = xattrs
        .iter()
        .map(translate)
        .collect::<std::result::Result<Vec<_>, _>>()?;
    if let Some(bytes) = short_form(&attributes) {
        return Ok(Encoded::Short(bytes));
    }
    leaf(attributes).map(Encoded::Leaf).ok_or_else(|| {
        "its extended attributes are larger than 4 KiB together, more than this program can put on XFS"
            .into()
    })
}

/// The name space as a flag, the name without it; access control lists in XFS's own form.
fn translate(xattr: &Xattr) -> std::result::Result<Attribute, String> {
    let acl = |name: &[u8]| {
        let value = access_list(&xattr.value).ok_or("its access control list is not valid")?;
        Ok(Attribute {
            flags: ROOT,
            name: name.to_vec(),
            value,
        })
    };
    match xattr.name.as_slice() {
        b"system.posix_acl_access" => return acl(b"SGI_ACL_FILE"),
        b"system.posix_acl_default" => return acl(b"SGI_ACL_DEFAULT"),
        _ => {}
    }
    let spaces: [(&[u8], u8); 3] = [(b"user.", 0), (b"trusted.", ROOT), (b"security.", SECURE)];
    for (prefix, flags) in spaces {
        if let Some(name) = xattr.name.strip_prefix(prefix) {
            return Ok(Attribute {
                flags,
                name: name.to_vec(),
                value: xattr.value.clone(),
            });
        }
    }
    let name = String::from_utf8_lossy(&xattr.name);
    Err(format!(
        "XFS has no place for its extended attribute {name}"
    ))
}

/// From the form of the system calls (little-endian) to that on disk.
fn access_list(value: &[u8]) -> Option<Vec<u8>> {
    let entries = value.strip_prefix(&2_u32.to_le_bytes())?;
    let (entries, rest) = entries.as_chunks::<8>();
    if !rest.is_empty() {
        return None;
    }
    let mut list = u32::try_from(entries.len()).ok()?.to_be_bytes().to_vec();
    for entry in entries {
        let tag = u16::from_le_bytes(array(entry, 0));
        list.extend(u32::from(tag).to_be_bytes());
        list.extend(u32::from_le_bytes(array(entry, 4)).to_be_bytes());
        list.extend(u16::from_le_bytes(array(entry, 2)).to_be_bytes());
        list.extend([0; 2]);
    }
    Some(list)
}

fn short_form(attributes: &[Attribute]) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 4];
    for Attribute { flags, name, value } in attributes {
        let (name_length, value_length) = (
            u8::try_from(name.len()).ok()?,
            u8::try_from(value.len()).ok()?,
        );
        bytes.extend([name_length, value_length, *flags]);
        bytes.extend(name);
        bytes.extend(value);
    }
    let total = u16::try_from(bytes.len()).ok()?;
    put(&mut bytes, 0, &total.to_be_bytes());
    bytes[2] = u8::try_from(attributes.len()).ok()?;
    (bytes.len() <= LITERAL - DATA_MIN).then_some(bytes)
}

/// One block with all attributes, by the hashes of their names; `None` when they do not fit.
fn leaf(mut attributes: Vec<Attribute>) -> Option<Vec<u8>> {
    attributes.sort_by_key(|attribute| hash(&attribute.name));
    let mut block = vec![0; BLOCK];
    let entries_end = LEAF_HEADER + attributes.len() * LEAF_ENTRY;
    let mut top = BLOCK;
    for (i, Attribute { flags, name, value }) in attributes.iter().enumerate() {
        let length = (3 + name.len() + value.len()).next_multiple_of(4);
        top = top.checked_sub(length).filter(|top| *top >= entries_end)?;
        put(
            &mut block,
            top,
            &u16::try_from(value.len()).ok()?.to_be_bytes(),
        );
        block[top + 2] = u8::try_from(name.len()).ok()?;
        put(&mut block, top + 3, name);
        put(&mut block, top + 3 + name.len(), value);
        let entry = LEAF_HEADER + i * LEAF_ENTRY;
        put(&mut block, entry, &hash(name).to_be_bytes());
        put(
            &mut block,
            entry + 4,
            &u16::try_from(top).ok()?.to_be_bytes(),
        );
        block[entry + 6] = flags | LOCAL;
    }
    let small = |value: usize| u16::try_from(value).ok().map(u16::to_be_bytes);
    put(&mut block, 56, &small(attributes.len())?);
    put(&mut block, 58, &small(BLOCK - top)?);
    put(&mut block, 60, &small(top)?);
    put(&mut block, 64, &small(entries_end)?);
    put(&mut block, 66, &small(top - entries_end)?);
    Some(block)
}

fn write_leaf(space: &mut Space, owner: u64, mut block: Vec<u8>) -> Result<Attributes> {
    let (place, _) = space.take(1)?;
    put(&mut block, 8, &0x3BEE_u16.to_be_bytes());
    put(&mut block, 16, &space.sector(place));
    put(&mut block, 32, space.uuid());
    put(&mut block, 48, &owner.to_be_bytes());
    space.write_sealed(place, &mut block, 12)?;
    let bytes = (u128::from(place.0) << 21 | 1).to_be_bytes().to_vec();
    Ok(Attributes {
        format: Format::Extents,
        bytes,
        blocks: 1,
    })
}
