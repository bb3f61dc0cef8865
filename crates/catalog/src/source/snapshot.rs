//! A volume of this disk, as it is at one moment: the image is a snapshot.
//!
//! The moment of the snapshot is between the request and the time the image is ready. A crash
//! before that leaves nothing, and the repeated request uses a later moment: the first was never
//! announced.

use image::Format;
use jiff::Timestamp;

use super::{Job, Sources};
use crate::blocking::blocking;
use crate::error::{Error, Result};
use store::Reading;
use store::{Facts, Received, Snapshot};

impl Sources {
    pub(super) async fn take_volume(
        &self,
        Snapshot {
            volume: name,
            group,
            ..
        }: &Snapshot,
        job: &Job,
    ) -> Result<(Received, Facts)> {
        let volumes = self.volumes.clone().ok_or_else(|| Error::InvalidField {
            field: "source",
            why: "this manager has no volumes".to_owned(),
        })?;
        // Whatever a guest wrote to its first bytes, it is a raw disk: to look for a format there would
        // let the guest choose one.
        let mut facts = Facts {
            format: Some(Format::Raw),
            verified: true,
            ..job.facts()
        };
        if job.format.is_some_and(|format| format != Format::Raw) {
            return Err(Error::InvalidField {
                field: "format",
                why: "a snapshot is raw".to_owned(),
            });
        }
        let (job, name, group) = (job.clone(), name.clone(), group.clone());
        let receive = move || {
            let mut cut_at = Timestamp::now();
            let progress = |done, total| job.report.progress(done, total);
            let reading = Reading {
                cancel: &job.ends(),
                progress: &progress,
            };
            let received =
                job.store
                    .receive_file(&job.id, job.checksum_later, reading, |file| {
                        cut_at = if let Some(group) = &group {
                            volumes.clone_of_group(group, &name, file)?
                        } else {
                            volumes.clone_live(&name, file)?;
                            Timestamp::now()
                        };
                        Ok::<_, Error>(())
                    })?;
            Ok::<_, Error>((received, cut_at))
        };
        let (received, cut_at) = blocking(receive).await?;
        facts.created_at = Some(cut_at.to_string());
        Ok((received, facts))
    }
}
