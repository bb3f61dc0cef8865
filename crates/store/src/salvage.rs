//! What is still good of a damaged image: the beginning of a good one.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use tracing::info;
use types::Cancel;

use super::Assembly;
use super::images::ImageStore;
use super::sealed::SealedImage;
use crate::error::{IoContext, Result};
use crate::manifest::{ManifestFile as _, still_wanted};
use chunks::{CHUNK, Chunk, Manifest};

impl ImageStore {
    /// Begins to assemble a damaged image anew with those of its chunks in `aside` that are good. `None`
    /// when its manifest is not there: then nobody can tell which are.
    pub fn assemble_around(
        &self,
        lost: &SealedImage,
        aside: &Path,
        cancel: &Cancel,
    ) -> Result<Option<Assembly>> {
        let (size, checksum) = (lost.sidecar.size, Some(lost.checksum()?));
        let known = Manifest::read(&aside.join("backing.chunks"), size)?;
        let Some(known) = known.filter(|known| known.checksum == checksum) else {
            return Ok(None);
        };
        let assembly = self.assemble(&lost.id, size, Some(known.clone()), cancel.clone())?;
        let path = aside.join("backing");
        let file = File::open(&path).context("open", &path)?;
        let mut buffer = vec![0; CHUNK];
        let mut good = 0;
        for index in assembly.missing() {
            still_wanted(cancel)?;
            let chunk = index as usize;
            let bytes = &mut buffer[..known.chunk_len(chunk)];
            // What cannot be read is as bad as what is wrong.
            let read = file.read_exact_at(bytes, u64::from(index) * CHUNK as u64);
            if read.is_ok() && Chunk::of(bytes) == known.chunks[chunk] {
                assembly.put_chunk(index, bytes)?;
                good += 1;
            }
        }
        let missing = assembly.missing().len();
        info!(image = %lost.id, good, missing, "chunks of the damaged image are kept");
        Ok(Some(assembly))
    }
}
