//! A disk image behind an http or https URL.

use fetch::url::Download;
use tokio::runtime::Handle;

use super::{Job, Source, Sources};
use crate::error::{Error, Result};
use crate::store::ingest::IMAGE_SIZE_MAX;
use crate::store::{Facts, Received};

impl Sources {
    pub(super) async fn take_url(
        &self,
        source: &Source,
        url: &fetch::url::Source,
        job: &Job,
    ) -> Result<(Received, Facts)> {
        let starting = Download::start(&self.network, url, IMAGE_SIZE_MAX);
        let download = tokio::select! {
            download = starting => download?,
            () = job.cancel.cancelled() => return Err(Error::Cancelled("the image is not wanted")),
        };
        // A login page with status 200 is the commonest wrong answer. Whoever knows the checksum or
        // the format has said what is right.
        if download.is_html() && job.expected.is_none() && job.format.is_none() {
            return Err(Error::NotAnImage(format!(
                "{url} answers with an HTML page, perhaps a login page; give the checksum or the \
                 format if it is an image all the same"
            )));
        }
        let (facts, job) = (job.facts(source), job.clone());
        let handle = Handle::current();
        let take_in = move || receive(download, &job, &handle);
        let received = tokio::task::spawn_blocking(take_in)
            .await
            .map_err(Error::Task)??;
        Ok((received, facts))
    }
}

fn receive(mut download: Download, job: &Job, handle: &Handle) -> Result<Received> {
    let total = download.size().unwrap_or(0);
    let mut ingest = job.store.begin(&job.id, job.cancel.clone())?;
    loop {
        let next = handle.block_on(async {
            tokio::select! {
                chunk = download.chunk() => chunk.map_err(Error::from),
                () = job.cancel.cancelled() => Err(Error::Cancelled("the image is not wanted")),
            }
        });
        let Some(chunk) = next? else { break };
        ingest.write(&chunk)?;
        job.report.progress(ingest.size(), total);
    }
    ingest.finish()
}
