//! A disk image in a file of this machine. Its holes stay holes.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use probe::{Disk as _, FileDisk};

use super::{Job, Source, Sources};
use crate::error::{Error, IoContext, Result};
use crate::store::{Facts, Received};

/// Bytes read at a time.
const BUFFER: usize = 1 << 20;

impl Sources {
    pub(super) async fn take_file(
        &self,
        source: &Source,
        path: &Path,
        job: &Job,
    ) -> Result<(Received, Facts)> {
        let path = self.confine(path)?;
        let (facts, job) = (job.facts(source), job.clone());
        let received = tokio::task::spawn_blocking(move || take_in(&path, &job));
        Ok((received.await.map_err(Error::Task)??, facts))
    }
}

/// Opens a regular file; what was swapped for a link, a device or a pipe since it was looked at is
/// refused, and opening a pipe does not wait for its writer.
pub(super) fn open(path: &Path) -> Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .context("open", path)?;
    if !file.metadata().context("look at", path)?.is_file() {
        let why = format!("{} is not a regular file", path.display());
        return Err(Error::InvalidField { field: "path", why });
    }
    Ok(file)
}

fn take_in(path: &Path, job: &Job) -> Result<Received> {
    let disk = FileDisk::new(open(path)?).context("open", path)?;
    let size = disk.size();
    let mut ingest = job.store.begin(&job.id, job.cancel.clone())?;
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
    ingest.finish()
}
