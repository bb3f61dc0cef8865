//! Heals a store: blocks that it has lost are uploaded again from the snapshots on this disk, if one of those
//! still has the same bytes.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use backup::{BlockChecksum, Name};
use bytes::Bytes;
use store::IoContext as _;
use tracing::info;
use types::VolumeName;

use crate::error::{Error, Result};
use crate::jobs::Jobs;
use crate::targets::Asked;

/// Blocks that are repaired in one request.
pub const DAMAGED_MAX: usize = 100_000;
/// The largest block that a store has, in bytes.
const LENGTH_MAX: u64 = 64 << 20;

/// A block that a store has lost.
#[derive(Debug, Clone)]
pub struct Damaged {
    pub checksum: BlockChecksum,
    /// Where the volume had it.
    pub offset: u64,
    pub length: u64,
}

/// What became of them.
#[derive(Debug, Default)]
pub struct Repaired {
    /// Checksums of the blocks that are whole again.
    pub repaired: BTreeSet<String>,
    /// Of those whose bytes no snapshot has.
    pub lost: BTreeSet<String>,
}

impl Jobs {
    /// Uploads again what of `damaged` the snapshots of the volume have, with the checksum that it must have.
    pub async fn repair(
        &self,
        asked: &Asked,
        volume: &VolumeName,
        damaged: Vec<Damaged>,
    ) -> Result<Repaired> {
        if damaged.len() > DAMAGED_MAX {
            return Err(Error::InvalidField {
                field: "blocks",
                why: format!("there are {}; {DAMAGED_MAX} at most", damaged.len()),
            });
        }
        let target = self.targets().choose(asked)?;
        let store = self.open(&target).await?;
        let name: Name = volume.as_str().parse()?;
        let files = self.snapshots_of(volume).await?;
        let repair = store.begin_repair(&name).await?;
        // A block may be asked for at several places of the volume.
        let (mut repaired, mut lost) = (BTreeSet::new(), BTreeSet::new());
        for block in damaged {
            let text = block.checksum.to_string();
            if repaired.contains(&text) {
                continue;
            }
            match find(&files, &block).await? {
                Some(bytes) => {
                    repair.put(&block.checksum, bytes).await?;
                    lost.remove(&text);
                    repaired.insert(text);
                }
                None => {
                    lost.insert(text);
                }
            }
        }
        repair.end().await?;
        let done = Repaired { repaired, lost };
        let (repaired, lost) = (done.repaired.len(), done.lost.len());
        info!(%volume, repaired, lost, "repaired blocks of a store");
        Ok(done)
    }

    /// The snapshots of a volume that are ready, open.
    async fn snapshots_of(&self, volume: &VolumeName) -> Result<Vec<Arc<File>>> {
        let catalog = self.catalog().clone();
        let of = |status: &catalog::Status| {
            let snapshot = status.provenance.snapshot();
            snapshot.is_some_and(|snapshot| snapshot.volume == *volume)
                && matches!(status.state, catalog::Lifecycle::Ready(_))
        };
        let statuses = catalog.list().into_iter().filter(of);
        let paths: Vec<_> = statuses
            .map(|status| catalog.file_path(&status.id))
            .collect();
        let open = move || {
            let opened = paths.iter().map(|path| {
                let file = File::open(path).context("open", path)?;
                Ok::<_, store::Error>(Arc::new(file))
            });
            opened.collect::<store::Result<Vec<_>>>()
        };
        Ok(catalog::blocking(open).await?)
    }
}

/// The bytes of a block, from the first file that has them.
async fn find(files: &[Arc<File>], block: &Damaged) -> Result<Option<Bytes>> {
    let wrong = !(1..=LENGTH_MAX).contains(&block.length);
    let length = usize::try_from(block.length).unwrap_or(usize::MAX);
    if wrong || block.offset.checked_add(block.length).is_none() {
        return Err(Error::InvalidField {
            field: "blocks",
            why: format!("a block of {} bytes is none", block.length),
        });
    }
    for file in files {
        let (file, block) = (file.clone(), block.clone());
        let read = move || {
            let mut bytes = vec![0; length];
            let read = read_at(&file, &mut bytes, block.offset);
            read.context("read", "a snapshot".as_ref())?;
            let same = BlockChecksum::of(&bytes) == block.checksum;
            Ok::<_, store::Error>(same.then(|| Bytes::from(bytes)))
        };
        if let Some(bytes) = catalog::blocking(read).await? {
            return Ok(Some(bytes));
        }
    }
    Ok(None)
}

/// Reads what the file has; behind its end are zeros.
fn read_at(file: &File, mut bytes: &mut [u8], mut offset: u64) -> std::io::Result<()> {
    while !bytes.is_empty() {
        match file.read_at(bytes, offset) {
            Ok(0) => return Ok(()),
            Ok(read) => {
                bytes = &mut bytes[read..];
                offset += read as u64;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
