//! ext4: `mkfs.ext4 -d`, then the inodes' times set to what the tree says.
//!
//! The tool copies access and change times from the source, stamps creation times from the clock,
//! drops the nanoseconds and does not copy the root's owner, mode and time. It numbers new inodes in
//! the order in which it visits the tree, from the first free one, so the inode of every file is known
//! without reading directories; type, mode and size are compared before an inode is touched.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use super::super::error::{Error, Result, io};
use super::super::tool::Tool;
use super::super::tree::{Kind, Node, NodeId, ROOT, Time, Tree};
use super::bytes::{array, put};
use super::{Request, crc32c, uuid_text};

const MKFS: Tool = Tool {
    name: "mkfs.ext4",
    package: "e2fsprogs",
    limit: Duration::from_hours(6),
};

/// What `mke2fs.conf` of e2fsprogs 1.46 gives to ext4: any kernel since 4.9 mounts it read-write.
/// The newer `orphan_file` and `metadata_csum_seed` are left out for the sake of old nodes.
const FEATURES: &str = "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,\
                        flex_bg,sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum";
/// Bytes per inode, as in `mke2fs.conf`.
const INODE_RATIO: u64 = 16384;
/// Inodes that the tree does not use: the reserved ones and `lost+found`.
const RESERVED_INODES: u64 = 11;
const ROOT_INODE: u64 = 2;

/// Makes the file system.
pub(super) fn make(request: &Request) -> Result<()> {
    run_mkfs(request)?;
    Disk::open(request)?.set_times(request.tree)
}

fn run_mkfs(request: &Request) -> Result<()> {
    let tree = request.tree;
    let source = tree.path(ROOT);
    let source = source.canonicalize().map_err(io("resolve", source))?;
    let uuid = uuid_text(&request.uuid);
    let files = tree.len() as u64 + RESERVED_INODES;
    let inodes = (request.size / INODE_RATIO).max(files + files / 8);
    let inodes = inodes.to_string();
    let extended = format!("lazy_itable_init=0,lazy_journal_init=0,nodiscard,hash_seed={uuid}");
    let mut arguments: Vec<&OsStr> = [
        "-q", "-F", "-b", "4096", "-I", "256", "-m", "0", "-O", FEATURES, "-N",
    ]
    .map(OsStr::new)
    .to_vec();
    let rest = [
        &inodes,
        "-E",
        &extended,
        "-U",
        &uuid,
        "-L",
        request.label,
        "-d",
    ];
    arguments.extend(rest.map(OsStr::new));
    arguments.extend([source.as_os_str(), request.path.as_os_str()]);
    // Zero would mean the clock to the tool.
    let now = tree
        .newest()
        .seconds
        .clamp(1, i64::from(u32::MAX))
        .to_string();
    let environment = [
        // The administrator's defaults must not change the result; everything is given above.
        ("MKE2FS_CONFIG", OsString::from("/dev/null")),
        ("E2FSPROGS_FAKE_TIME", OsString::from(now)),
        ("MKE2FS_SKIP_PROGRESS", OsString::from("1")),
    ];
    MKFS.run(&arguments, &environment)
        .map_err(|error| match error {
            Error::ToolFailed { output, .. } if is_full(&output) => Error::TooSmall {
                file_system: "ext4",
                size: request.size,
                needed: needed(tree),
            },
            other => other,
        })
}

/// What libext2fs says when blocks or inodes run out.
fn is_full(output: &str) -> bool {
    [
        "Could not allocate",
        "No free",
        "not enough space",
        "too small",
        "No space left",
    ]
    .iter()
    .any(|text| output.contains(text))
}

/// An estimate of the size that is enough for `tree`: data in whole blocks, inodes, directories,
/// the journal, and a sixteenth for bitmaps, extents and the like.
pub(super) fn needed(tree: &Tree) -> types::ByteSize {
    const BLOCK: u64 = 4096;
    let blocks = tree.nodes().map(|(_, node)| match &node.kind {
        Kind::Regular { size } => size.div_ceil(BLOCK) + 1,
        Kind::Directory { entries, .. } => 1 + entries.len() as u64 / 12,
        _ => 1,
    });
    let data = blocks.sum::<u64>().saturating_mul(BLOCK);
    let inodes = (tree.len() as u64 + RESERVED_INODES).saturating_mul(256 + 64);
    let data = data.saturating_add(inodes);
    // e2fsprogs: 4 MiB of journal below 128 MiB, 16 below 1 GiB, up to 1 GiB beyond.
    let journal = match data >> 20 {
        0..100 => 5 << 20,
        100..900 => 20 << 20,
        900..7000 => 130 << 20,
        _ => 1100 << 20,
    };
    let all = data.saturating_add(data / 16).saturating_add(journal);
    types::ByteSize(all.checked_next_multiple_of(1 << 20).unwrap_or(u64::MAX))
}

/// The parts of the file system that lead to its inodes.
struct Disk<'a> {
    request: &'a Request<'a>,
    image: &'a File,
    inodes_per_group: u64,
    /// The block where each group's inode table starts.
    tables: Vec<u64>,
    /// The checksum of the uuid, with which all others start.
    seed: u32,
}

const BLOCK: u64 = 4096;
const INODE: usize = 256;

impl<'a> Disk<'a> {
    fn open(request: &'a Request) -> Result<Self> {
        let unknown = |what: &str| Error::ToolUnknown {
            tool: MKFS.name,
            what: what.into(),
        };
        let superblock = read::<1024>(request, 1024)?;
        let u32_at = |at: usize| u32::from_le_bytes(array(&superblock, at));
        let u16_at = |at: usize| u16::from_le_bytes(array(&superblock, at));
        if (u16_at(56), u32_at(24), u16_at(88)) != (0xEF53, 2, 256) {
            return Err(unknown(
                "another layout than 4096-byte blocks and 256-byte inodes",
            ));
        }
        // Extents, 64-bit and flexible groups, and nothing that moves tables or checksums.
        let (incompatible, descriptor) = (u32_at(96), u16_at(254));
        if incompatible != 0x2C2 || descriptor != 64 || u32_at(100) & 0x400 == 0 {
            return Err(unknown("a file system with other features than asked for"));
        }
        let inodes_per_group = u64::from(u32_at(40));
        let groups = u64::from(u32_at(0))
            .checked_div(inodes_per_group)
            .unwrap_or(0);
        let mut tables = Vec::new();
        for group in 0..groups {
            let descriptor = read::<64>(request, BLOCK + group * 64)?;
            let low = u32::from_le_bytes(array(&descriptor, 8));
            let high = u32::from_le_bytes(array(&descriptor, 40));
            tables.push(u64::from(high) << 32 | u64::from(low));
        }
        let seed = crc32c::update(!0, &request.uuid);
        Ok(Self {
            request,
            image: request.image,
            inodes_per_group,
            tables,
            seed,
        })
    }

    fn set_times(&self, tree: &Tree) -> Result<()> {
        let mut next = RESERVED_INODES + 1;
        for (id, node) in tree.nodes() {
            let number = if id == ROOT { ROOT_INODE } else { next };
            next = if id == ROOT { next } else { next + 1 };
            self.set_inode(number, id, node)?;
        }
        Ok(())
    }

    fn set_inode(&self, number: u64, id: NodeId, node: &Node) -> Result<()> {
        let unknown = || Error::ToolUnknown {
            tool: MKFS.name,
            what: format!("inode {number} with the attributes of another file"),
        };
        let (group, index) = (
            (number - 1).checked_div(self.inodes_per_group).unwrap_or(0),
            (number - 1).checked_rem(self.inodes_per_group).unwrap_or(0),
        );
        let table = usize::try_from(group).ok().and_then(|g| self.tables.get(g));
        let at = table.ok_or_else(unknown)? * BLOCK + index * INODE as u64;
        let mut inode = read::<INODE>(self.request, at)?;
        let mode = u32::from(u16::from_le_bytes(array(&inode, 0)));
        let expected_mode = node.kind.mode_bits() | node.mode;
        let size = u64::from(u32::from_le_bytes(array(&inode, 4)))
            | u64::from(u32::from_le_bytes(array(&inode, 108))) << 32;
        if let Kind::Regular { size: expected } = node.kind
            && size != expected
            && mode == expected_mode
        {
            return Err(Error::Changed {
                path: self.request.tree.path(id),
            });
        }
        if id == ROOT {
            put(
                &mut inode,
                0,
                &u16::try_from(expected_mode).unwrap_or(0).to_le_bytes(),
            );
            put_owner(&mut inode, node);
        } else if mode != expected_mode {
            return Err(unknown());
        }
        put_time(&mut inode, 16, 136, node.mtime);
        put_time(&mut inode, 8, 140, node.mtime);
        put_time(&mut inode, 12, 132, node.mtime);
        put_time(&mut inode, 144, 148, node.mtime);
        self.seal(&mut inode, number);
        self.image
            .write_all_at(&inode, at)
            .map_err(io("write", self.request.path))
    }

    /// Puts the checksum in: over the inode's number, its generation and itself.
    fn seal(&self, inode: &mut [u8; INODE], number: u64) {
        put(inode, 124, &[0; 2]);
        put(inode, 130, &[0; 2]);
        let number = u32::try_from(number).unwrap_or(0).to_le_bytes();
        let seed = crc32c::update(crc32c::update(self.seed, &number), &inode[100..104]);
        let crc = crc32c::update(seed, inode).to_le_bytes();
        put(inode, 124, &crc[..2]);
        put(inode, 130, &crc[2..]);
    }
}

/// Puts a time into its 32-bit field and the field with the nanoseconds and the two bits above.
fn put_time(inode: &mut [u8; INODE], low: usize, extra: usize, time: Time) {
    // 1901 to 2446: what the format can say.
    let seconds = time.seconds.clamp(-(1 << 31), (1 << 34) - (1 << 31) - 1);
    let bytes = seconds.to_le_bytes();
    let below = i32::from_le_bytes(array(&bytes, 0));
    let epoch = (seconds - i64::from(below)) >> 32 & 3;
    put(inode, low, &below.to_le_bytes());
    let epoch = u32::try_from(epoch).unwrap_or(0);
    put(inode, extra, &(time.nanoseconds << 2 | epoch).to_le_bytes());
}

fn put_owner(inode: &mut [u8; INODE], node: &Node) {
    let (uid, gid) = (node.uid.to_le_bytes(), node.gid.to_le_bytes());
    for (at, half) in [
        (2, &uid[..2]),
        (120, &uid[2..]),
        (24, &gid[..2]),
        (122, &gid[2..]),
    ] {
        put(inode, at, half);
    }
}

fn read<const N: usize>(request: &Request, at: u64) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    request
        .image
        .read_exact_at(&mut bytes, at)
        .map_err(io("read", request.path))?;
    Ok(bytes)
}
