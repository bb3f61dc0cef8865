//! Compressed disk images in a container image, `.xz`, `.gz` or `.zst`: unpacked from a work file
//! that has no name by then, so that a crash leaves nothing of it.

use std::io::{Read, Seek};

use image::Format;
use image::packed::{HEAD, Limits, Packing, Unpacked};
use types::Checksum;

use super::Job;
use store::IoContext;

use crate::blocking::blocking;
use crate::error::Result;
use store::{Facts, Received};

/// Bytes that are taken in at a time.
const BUFFER: usize = 256 << 10;

/// Unpacks what came, if it is packed. What is declared raw stays as it is.
pub(super) async fn unpacked(taken: (Received, Facts), job: &Job) -> Result<(Received, Facts)> {
    if job.format == Some(Format::Raw) {
        return Ok(taken);
    }
    let job = job.clone();
    let unpack = move || unpack(taken, &job);
    blocking(unpack).await
}

fn unpack((came, mut facts): (Received, Facts), job: &Job) -> Result<(Received, Facts)> {
    let path = came.path.clone();
    let mut file = came.file.try_clone().context("keep open", &path)?;
    file.rewind().context("read", &path)?;
    let mut head = Vec::with_capacity(HEAD);
    let first = (&file).take(HEAD as u64).read_to_end(&mut head);
    first.context("read", &path)?;
    let packing = Packing::of(&head);
    if packing == Packing::Plain {
        return Ok((came, facts));
    }
    // Either sum may be expected: of the file as it lies there, or of the disk image in it.
    facts
        .source_checksums
        .extend(came.manifest.checksum.map(Checksum::Sha512));
    drop(came);
    file.rewind().context("read", &path)?;
    let mut unpacked = Unpacked::new(file, packing, Limits::default())?;
    let mut ingest = job.begin()?;
    let mut buffer = vec![0; BUFFER];
    loop {
        match unpacked.read(&mut buffer) {
            Ok(0) => return Ok((ingest.finish()?, facts)),
            Ok(length) => ingest.write(&buffer[..length])?,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => {
                return Err(match error.downcast::<image::Error>() {
                    Ok(error) => error.into(),
                    Err(source) => store::Error::Io {
                        operation: "read",
                        path,
                        source,
                    }
                    .into(),
                });
            }
        }
    }
}
