//! A disk image in a file of this machine. Its holes stay holes.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use probe::{Disk as _, FileDisk};

use super::{Job, Sources};
use store::IoContext;

use crate::blocking::blocking;
use crate::error::Result;
use store::{Facts, Received};

/// Bytes read at a time.
const BUFFER: usize = 1 << 20;

impl Sources {
    pub(super) async fn take_file(&self, path: &Path, job: &Job) -> Result<(Received, Facts)> {
        let file = self.open_import_file(path)?;
        let (facts, job, path) = (job.facts(), job.clone(), path.to_owned());
        let received = blocking(move || take_in(file, &path, &job)).await?;
        Ok((received, facts))
    }
}

fn take_in(file: File, path: &Path, job: &Job) -> Result<Received> {
    let blocks = file.metadata().context("inspect", path)?.blocks();
    let disk = FileDisk::new(file).context("open", path)?;
    let size = disk.size();
    let mut ingest = job.begin()?;
    ingest.expect(size.min(blocks * types::SECTOR))?;
    let mut buffer = vec![0; BUFFER];
    while let Some(data) = disk.next_data(ingest.size()).context("read", path)? {
        ingest.hole(data.start - ingest.size())?;
        while ingest.size() < data.end {
            let left = data.end - ingest.size();
            let length = usize::try_from(left).map_or(BUFFER, |left| left.min(BUFFER));
            let bytes = &mut buffer[..length];
            disk.read_exact_at(bytes, ingest.size())
                .context("read", path)?;
            ingest.write(bytes)?;
            job.report.progress(ingest.size(), size);
        }
    }
    ingest.hole(size - ingest.size())?;
    Ok(ingest.finish()?)
}
