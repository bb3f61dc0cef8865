//! The superblock of DRBD's metadata, as far as it is looked at here (`struct meta_data_on_disk_9`, big endian). It is
//! read from the file, which works while the kernel has it attached; only `drbdmeta` and the kernel write it.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use replication::MemberId;

use crate::{Error, Result};

/// Bytes at the start of the file that the superblock takes.
const LEN: usize = 4096;
/// Offsets in it.
const CURRENT_UUID: usize = 8;
const MAGIC: usize = 0x3c;
const NODE_ID: usize = 0x5c;
/// The first of 32 entries for peers (`struct peer_dev_md_on_disk_9`), of 32 bytes each, and what is looked at in one.
const PEERS: usize = 0x70;
const PEER_LEN: usize = 32;
const PEER_FLAGS: usize = 16;
const PEER_BITMAP: usize = 20;
/// A peer without a bitmap.
const NO_BITMAP: u32 = u32::MAX;
/// `DRBD_MD_MAGIC_09`.
const MAGIC_9: u32 = 0x8374_026d;
/// What `create-md` gives (`UUID_JUST_CREATED`).
const JUST_CREATED: u64 = 4;
/// The lowest bit of a UUID only tells that the node was Primary.
const WAS_PRIMARY: u64 = 1;

/// What metadata says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Superblock {
    /// The number of the node; `None`: it was never attached.
    pub(super) node_id: Option<u8>,
    current_uuid: u64,
    /// The numbers of the peers that it knows.
    pub(super) peers: Vec<u8>,
}

impl Superblock {
    /// Whether nothing was ever written through it.
    pub(super) const fn is_fresh(&self) -> bool {
        self.current_uuid & !WAS_PRIMARY == JUST_CREATED
    }

    /// The generation of its data, in hexadecimal.
    pub(super) fn data_uuid(&self) -> String {
        format!("{:016x}", self.current_uuid & !WAS_PRIMARY)
    }
}

/// Reads the superblock of a metadata file; `None`: there is none yet.
///
/// # Errors
/// [`Error::Occupied`] when something else is in its place, which is never written over.
pub(super) fn read(file: &File, path: &Path) -> Result<Option<Superblock>> {
    let mut bytes = [0; LEN];
    file.read_exact_at(&mut bytes, 0)
        .map_err(Error::io("read", path))?;
    parse(&bytes).map_err(|what| Error::Occupied {
        path: path.to_owned(),
        what,
    })
}

fn parse(bytes: &[u8; LEN]) -> Result<Option<Superblock>, &'static str> {
    if bytes.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let word = |at: usize| {
        let bytes = bytes[at..at + 4].try_into().unwrap_or_default();
        u32::from_be_bytes(bytes)
    };
    if word(MAGIC) != MAGIC_9 {
        return Err("no metadata of DRBD 9, and not empty");
    }
    let low = word(CURRENT_UUID + 4);
    // -1 until it is attached.
    let node_id = u8::try_from(word(NODE_ID)).ok();
    let is_known = |id: &u8| {
        let at = PEERS + usize::from(*id) * PEER_LEN;
        word(at + PEER_FLAGS) != 0 || word(at + PEER_BITMAP) != NO_BITMAP
    };
    let others = (0..=MemberId::MAX.0).filter(|id| Some(*id) != node_id);
    Ok(Some(Superblock {
        node_id,
        peers: others.filter(is_known).collect(),
        current_uuid: u64::from(word(CURRENT_UUID)) << 32 | u64::from(low),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `drbdmeta create-md` of drbd-utils 9.22 makes, as far as it is looked at.
    fn created() -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[0x0f] = 4;
        bytes[MAGIC..MAGIC + 4].copy_from_slice(&MAGIC_9.to_be_bytes());
        bytes[NODE_ID..NODE_ID + 4].copy_from_slice(&[0xff; 4]);
        for id in 0..32 {
            let at = PEERS + id * PEER_LEN + PEER_BITMAP;
            bytes[at..at + 4].copy_from_slice(&[0xff; 4]);
        }
        bytes
    }

    #[test]
    fn metadata_tells_whose_it_is_and_whether_it_was_ever_used() {
        assert_eq!(parse(&[0; LEN]), Ok(None));
        let fresh = parse(&created()).unwrap().unwrap();
        assert!(fresh.is_fresh() && fresh.node_id.is_none() && fresh.peers.is_empty());
        let mut used = created();
        used[NODE_ID..NODE_ID + 4].copy_from_slice(&3u32.to_be_bytes());
        used[CURRENT_UUID..MAGIC][..8].copy_from_slice(&0x0123_4567_89ab_cdefu64.to_be_bytes());
        // Itself, one with a bitmap, and one without.
        used[PEERS + 3 * PEER_LEN + PEER_FLAGS + 1] = 1;
        used[PEERS + PEER_BITMAP..][..4].copy_from_slice(&[0; 4]);
        used[PEERS + 31 * PEER_LEN + PEER_FLAGS + 3] = 0x10;
        let used = parse(&used).unwrap().unwrap();
        assert_eq!(used.peers, [0, 31]);
        assert!(!used.is_fresh());
        assert_eq!(used.node_id, Some(3));
        assert_eq!(used.data_uuid(), "0123456789abcdee");
    }

    #[test]
    fn something_else_in_its_place_is_never_taken_for_nothing() {
        for at in [0, MAGIC, LEN - 1] {
            let mut bytes = [0; LEN];
            bytes[at] = 1;
            assert!(parse(&bytes).is_err(), "{at}");
        }
    }
}
