//! A volume of this disk, as it is at one moment: the image is a snapshot.
//!
//! The moment of the snapshot is between the request and the time the image is ready. A crash
//! before that leaves nothing, and the repeated request uses a later moment: the first was never
//! announced.

use std::fmt;

use image::Format;
use jiff::Timestamp;
use types::{ImageName, VolumeName};

use super::{Job, Source, Sources};
use crate::error::{Error, Result};
use crate::store::adopt::Reading;
use crate::store::{Facts, Received};

/// The volume that an image is a snapshot of, as the text of its source tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Which volume.
    pub volume: VolumeName,
    /// The snapshots that were taken with it.
    pub group: Option<ImageName>,
}

/// What the text begins with. A volume's name follows, which holds neither a colon nor a space.
const SCHEME: &str = "volume:";
/// What is between the names of the volume and of the group.
const GROUP: &str = " group:";

impl Snapshot {
    /// Reads the text of an image's source; `None` for any other source.
    pub fn parse(source: &str) -> Option<Self> {
        let names = source.strip_prefix(SCHEME)?;
        let (volume, group) = match names.split_once(GROUP) {
            Some((volume, group)) => (volume, Some(ImageName::new(group).ok()?)),
            None => (names, None),
        };
        let volume = VolumeName::new(volume).ok()?;
        Some(Self { volume, group })
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.volume)?;
        match &self.group {
            Some(group) => write!(f, "{GROUP}{group}"),
            None => Ok(()),
        }
    }
}

impl Sources {
    pub(super) async fn take_volume(
        &self,
        source: &Source,
        Snapshot {
            volume: name,
            group,
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
            ..job.facts(source)
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
                cancel: &job.cancel,
                progress: &progress,
            };
            let received = job.store.receive_file(&job.id, reading, |file| {
                cut_at = if let Some(group) = &group {
                    volumes.cut_of(group, &name, file)?
                } else {
                    volumes.cut(&name, file)?;
                    Timestamp::now()
                };
                Ok(())
            })?;
            Ok::<_, Error>((received, cut_at))
        };
        let (received, cut_at) = tokio::task::spawn_blocking(receive)
            .await
            .map_err(Error::Task)??;
        facts.created_at = Some(cut_at.to_string());
        Ok((received, facts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_snapshot_tells_its_volume() {
        for group in [None, Some(ImageName::new("all").unwrap())] {
            let volume = VolumeName::new("pvc-1").unwrap();
            let snapshot = Snapshot { volume, group };
            assert_eq!(Snapshot::parse(&snapshot.to_string()), Some(snapshot));
        }
        for other in [
            "",
            "volume:",
            "file:/x",
            "volume:a/b",
            "docker://volume:1",
            "volume:v group:",
        ] {
            assert_eq!(Snapshot::parse(other), None, "{other}");
        }
    }
}
