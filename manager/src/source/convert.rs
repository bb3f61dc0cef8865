//! Images in a format that is not stored: their bytes are taken in as they come, then made raw.
//!
//! What came lies in a work file that has lost its name when the raw image is begun: a crash leaves
//! nothing of it.

use image::foreign::{Foreign, ForeignImage};
use probe::Disk as _;
use types::Checksum;

use super::Job;
use crate::error::{Error, IoContext, Result};
use crate::store::{Facts, Received};

/// Bytes read at a time.
const BUFFER: usize = 1 << 20;

/// Makes a raw image of what came.
pub(super) async fn make_raw(
    taken: (Received, Facts),
    foreign: Foreign,
    job: &Job,
) -> Result<(Received, Facts)> {
    let job = job.clone();
    let make = move || converted(taken, foreign, &job);
    tokio::task::spawn_blocking(make)
        .await
        .map_err(Error::Task)?
}

fn converted(
    (came, mut facts): (Received, Facts),
    foreign: Foreign,
    job: &Job,
) -> Result<(Received, Facts)> {
    let sum = Checksum::Sha512(came.manifest.checksum);
    // A wrong sum is said before an hour is spent on the bytes that have it.
    if let Some(expected) = facts.expected
        && !facts.source_checksums.contains(&Checksum::Sha512(expected))
        && sum != Checksum::Sha512(expected)
    {
        let (expected, actual) = (Box::new(expected), Box::new(came.manifest.checksum));
        return Err(Error::Checksum { expected, actual });
    }
    let file = came.file.try_clone().context("keep open", &came.path)?;
    let path = came.path.clone();
    drop(came);
    let disk = ForeignImage::open(file, foreign)?;
    let mut ingest = job.store.begin(&job.id, job.cancel.clone())?;
    let mut buffer = vec![0; BUFFER];
    while let Some(data) = disk.next_data(ingest.size()).context("read", &path)? {
        ingest.hole(data.start - ingest.size())?;
        while ingest.size() < data.end {
            let left = data.end - ingest.size();
            let length = usize::try_from(left).map_or(BUFFER, |left| left.min(BUFFER));
            let bytes = &mut buffer[..length];
            disk.read_exact_at(bytes, ingest.size())
                .context("read", &path)?;
            ingest.write(bytes)?;
        }
    }
    ingest.hole(disk.size() - ingest.size())?;
    facts.format = Some(image::Format::Raw);
    facts.source_checksums.push(sum);
    Ok((ingest.finish()?, facts))
}
