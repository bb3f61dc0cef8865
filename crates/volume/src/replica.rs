//! A volume that is one replica of a replicated volume: beside its file is one for DRBD's metadata.
//!
//! The metadata is external, so that the file stays the volume byte for byte: it is snapshotted, cloned, grown and
//! deleted like any other, and what it grows by is a hole and never old metadata. Only its size is decided here;
//! the node's DRBD writes what is in it.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;

use tracing::info;
use types::{ByteSize, VolumeName, crash_point};

use super::{Volume, Volumes};
use crate::error::{Error, Result};
use store::held::hold;
use store::layout::VolumePaths;
use store::{IoContext, durable};

/// Peers that a replica keeps a bitmap for: replicas, nodes without one, and some to spare. It cannot be changed
/// later. The node side makes the metadata for the same number.
const PEERS: u64 = 7;
/// Besides the bitmaps: the superblock and the activity log, with room for a longer one.
const FIXED: u64 = 1 << 20;
/// Bytes of a volume that one byte of a bitmap stands for: a bit for 4 KiB (`drbdmeta(8)`).
const BYTES_PER_BYTE: u64 = 8 * 4096;
/// The metadata has room for a volume of this many times the size,
const GROWTH: u64 = 4;
/// and at least of this one.
const COVERED_MIN: u64 = 32 << 30;

/// Bytes of the metadata of a new replica.
fn metadata_size(size: ByteSize) -> u64 {
    let covered = size.bytes().saturating_mul(GROWTH).max(COVERED_MIN);
    let bitmap = covered
        .div_ceil(BYTES_PER_BYTE)
        .next_multiple_of(types::BLOCK);
    FIXED.saturating_add(bitmap.saturating_mul(PEERS))
}

/// The largest volume that metadata of `length` bytes has room for.
const fn covered(length: u64) -> u64 {
    (length.saturating_sub(FIXED) / PEERS).saturating_mul(BYTES_PER_BYTE)
}

/// Whether a volume can have `size`: always, unless it is a replica whose metadata has no room for it.
pub(super) fn can_cover(metadata: &Path, size: ByteSize) -> Result<()> {
    let length = match fs::metadata(metadata) {
        Ok(meta) => meta.len(),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Ok(Err(error).context("inspect", metadata)?),
    };
    let covered = ByteSize(covered(length));
    if size <= covered {
        return Ok(());
    }
    Err(Error::Size {
        asked: size,
        why: format!(
            "the metadata of its replicas has room for {covered}; restore a snapshot of it into a larger volume"
        ),
    })
}

impl Volumes {
    /// Makes a volume one replica of a replicated volume; one that is that already is left as it is.
    ///
    /// # Errors
    /// `VolumePublished` while a node may use it by itself, and `VolumeAttached` while one does: in a cluster without
    /// attachments nothing is published for pods, and what they write past DRBD its peers would never get.
    pub fn prepare_replica(&self, name: &VolumeName) -> Result<Volume> {
        let _busy = self.lock(name)?;
        let mut volume = self.get(name)?;
        if volume.is_replica {
            return Ok(volume);
        }
        if let Some(publication) = volume.published.first() {
            return Err(Error::VolumePublished {
                name: name.clone(),
                node: publication.node_id.clone(),
                by: publication.by,
            });
        }
        let VolumePaths {
            data,
            metadata: path,
            ..
        } = self.disk.layout().volume(name);
        // Held until the metadata is there: who attaches the file looks for it when he has his lock.
        let held = File::open(&data).context("open", &data)?;
        if !hold(&held, &data)? {
            let (name, node) = (name.clone(), self.node_id.clone());
            return Err(Error::VolumeAttached { name, node });
        }
        self.disk.check()?;
        let work = path.with_extension("tmp");
        durable::remove_file(&work)?;
        let file = durable::create_file(&work)?;
        let length = metadata_size(volume.record.size);
        file.set_len(length).context("set the size of", &work)?;
        file.sync_all().context("sync", &work)?;
        crash_point!("volume.replica.made");
        durable::rename(&work, &path)?;
        durable::sync_parent(&path)?;
        drop(held);
        info!(volume = %name, metadata = length, "is a replica from now on");
        volume.is_replica = true;
        Ok(volume)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_covers_four_times_the_volume() {
        for size in [4096, 64 << 20, 32 << 30, (1 << 40) + 4096, 16 << 40] {
            let length = metadata_size(ByteSize(size));
            assert!(covered(length) >= size.saturating_mul(GROWTH), "{size}");
        }
        // A small volume costs little: 8 MiB, of which most are holes.
        assert!(metadata_size(ByteSize(64 << 20)) <= 8 << 20);
    }

    #[test]
    fn a_volume_in_use_does_not_become_a_replica() {
        let (dir, volumes) = crate::tests::volumes();
        let name = VolumeName::new("v").unwrap();
        crate::tests::create(&volumes, &crate::tests::new("v", 1 << 20)).unwrap();
        let file = File::open(dir.path().join("volumes/v/volume")).unwrap();
        // As a loop device does.
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockShared).unwrap();
        let in_use = |volumes: &Volumes| volumes.is_in_use(&volumes.get(&name).unwrap());
        assert!(in_use(&volumes));
        let error = volumes.prepare_replica(&name).unwrap_err();
        assert!(matches!(error, Error::VolumeAttached { .. }), "{error}");
        assert!(!dir.path().join("volumes/v/drbd").exists());
        drop(file);
        assert!(!in_use(&volumes));
        assert!(volumes.prepare_replica(&name).unwrap().is_replica);
    }

    #[test]
    fn a_replica_keeps_its_bytes_and_is_used_through_drbd_alone() {
        let (dir, volumes) = crate::tests::volumes();
        let name = VolumeName::new("v").unwrap();
        crate::tests::create(&volumes, &crate::tests::new("v", 1 << 20)).unwrap();
        assert!(!volumes.get(&name).unwrap().is_replica);
        for _ in 0..2 {
            assert!(volumes.prepare_replica(&name).unwrap().is_replica);
        }
        let at = |file: &str| dir.path().join("volumes/v").join(file);
        assert_eq!(fs::metadata(at("volume")).unwrap().len(), 1 << 20);
        assert_eq!(
            fs::metadata(at("drbd")).unwrap().len(),
            metadata_size(ByteSize(1 << 20))
        );
        let published = volumes.publish(&name, crate::tests::publication("node-1", false));
        assert!(matches!(published, Err(Error::Replica(_))));
        volumes
            .grow(&name, ByteSize(32 << 30), None)
            .unwrap_or_else(|error| panic!("{error}"));
        let error = volumes.grow(&name, ByteSize(33 << 30), None).unwrap_err();
        assert!(error.to_string().contains("metadata"), "{error}");
        volumes.delete(&name).unwrap();
        assert!(!dir.path().join("volumes/v").exists());
        // What a power cut leaves of a deletion and of a preparation goes with the next start.
        fs::create_dir(dir.path().join("volumes/v")).unwrap();
        drop(File::create(at("drbd")).unwrap());
        drop(File::create(at("drbd.tmp")).unwrap());
        crate::tests::create(&volumes, &crate::tests::new("v", 1 << 20)).unwrap();
        assert!(!at("drbd").exists() && !at("drbd.tmp").exists());
    }
}
