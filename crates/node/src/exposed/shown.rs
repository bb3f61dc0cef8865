//! What is exposed, on the wire. Looks and changes nothing but names that would show another volume.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use host::staging::{self, Attachment};
use host::target::{Present, Targets};
use proto::node::v1 as wire;
use types::{VolumeName, report};

use super::record::{Access, Record};
use super::{Exposures, blocking, lock, names};
use crate::error::{Error, Result};

/// How long a look may take: a caller waits 15 seconds.
const LOOKING: Duration = Duration::from_secs(13);
/// How long tgtd may take to say what it has.
const TARGETS: Duration = Duration::from_secs(5);

const NOT_THERE: &str = "it is not there now; the node makes it again by itself as soon as it can";

/// What the look at the kernel has found; an error is said of each volume.
type Seen = std::result::Result<Vec<Attachment>, String>;
/// The same of tgtd.
type Served = std::result::Result<Vec<Present>, String>;

impl Exposures {
    /// All of them. Answers within 15 seconds, whatever hangs.
    pub(crate) async fn list(self: &Arc<Self>) -> Result<Vec<wire::Exposed>> {
        let this = self.clone();
        let records = blocking(move || {
            let names = this.kept.names().map_err(this.failed("list"))?;
            let of = |volume: VolumeName| match this.kept.load(&volume) {
                // Taken back a moment ago.
                Ok(None) => None,
                Ok(Some(record)) => Some(Ok(record)),
                Err(_) => Some(Err(volume)),
            };
            Ok(names.into_iter().filter_map(of).collect::<Vec<_>>())
        });
        let (seen, served) = tokio::join!(self.seen(), self.served());
        let shown = |record| match record {
            Ok(record) => self.show(&record, &seen, &served),
            Err(volume) => wire::Exposed {
                volume: VolumeName::into(volume),
                troubles: vec![
                    "its record is not readable; take it back, and expose it again".to_owned(),
                ],
                ..Default::default()
            },
        };
        Ok(records.await?.into_iter().map(shown).collect())
    }

    /// One of them.
    pub(super) async fn shown(self: &Arc<Self>, record: Record) -> Result<wire::Exposed> {
        let (seen, served) = tokio::join!(self.seen(), self.served());
        Ok(self.show(&record, &seen, &served))
    }

    async fn seen(&self) -> Seen {
        let directory = self.attached.clone();
        let look = blocking(move || Ok(staging::exposed(&directory)?));
        in_time(LOOKING, "the devices of this node", look).await
    }

    async fn served(&self) -> Served {
        let Some(targets) = self.targets.clone() else {
            return Err(report(&Error::NoTargets).to_string());
        };
        let look = blocking(move || targets.list());
        in_time(TARGETS, "the tgtd of this node", look).await
    }

    fn show(&self, record: &Record, seen: &Seen, served: &Served) -> wire::Exposed {
        let volume = &record.volume;
        let mut troubles: Vec<String> = lock(&self.troubles)
            .get(volume)
            .cloned()
            .into_iter()
            .collect();
        let attachment = match seen {
            Ok(all) => all.iter().find(|one| one.volume == volume.as_str()),
            Err(why) => {
                troubles.push(why.clone());
                None
            }
        };
        let device = attachment.and_then(|one| one.device.as_ref());
        if let Some(attachment) = attachment.filter(|_| device.is_some()) {
            troubles.extend(attachment.troubles.iter().cloned());
        }
        let mut shown = wire::Exposed {
            volume: volume.to_string(),
            disk_uuid: record
                .disk
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            read_only: record.read_only,
            ..Default::default()
        };
        match &record.access {
            Access::Device => {
                if let Some(device) = device {
                    shown.size = device.size.bytes();
                    shown.device = device.path.display().to_string();
                    shown.path = self.name_of(volume, &device.path);
                }
                if shown.path.is_empty() && troubles.is_empty() {
                    troubles.push(NOT_THERE.to_owned());
                }
            }
            Access::Target { initiators, chap } => {
                let present = match served {
                    Ok(all) => all.iter().find(|one| one.volume == *volume),
                    Err(why) => {
                        troubles.push(why.clone());
                        None
                    }
                };
                if (present.is_none() || device.is_none()) && troubles.is_empty() {
                    troubles.push(NOT_THERE.to_owned());
                }
                let targets = self.targets.as_ref();
                shown.size = targets
                    .and_then(|targets| targets.size(volume))
                    .unwrap_or_default();
                let sessions = present
                    .map(|present| present.sessions.clone())
                    .unwrap_or_default();
                shown.target = Some(wire::Target {
                    name: Targets::name(volume),
                    portal: targets
                        .map(super::target::NodeTargets::portal)
                        .unwrap_or_default(),
                    lun: 1,
                    initiator_names: initiators.clone(),
                    chap_user: chap
                        .as_ref()
                        .map(|chap| chap.user.clone())
                        .unwrap_or_default(),
                    sessions: sessions.into_iter().map(session).collect(),
                });
            }
        }
        shown.troubles = troubles;
        shown
    }

    /// The path of a name, provided that it leads to this device.
    fn name_of(&self, volume: &VolumeName, device: &Path) -> String {
        match self.names.present(volume) {
            Ok(names::Present::Device(there)) if there == device => {
                self.names.path(volume).display().to_string()
            }
            _ => String::new(),
        }
    }
}

fn session(session: host::target::Session) -> wire::TargetSession {
    wire::TargetSession {
        initiator_name: session.initiator,
        address: session.address,
    }
}

async fn in_time<T>(
    limit: Duration,
    what: &str,
    look: impl Future<Output = Result<T>>,
) -> std::result::Result<T, String> {
    match tokio::time::timeout(limit, look).await {
        Ok(found) => found.map_err(|error| report(&error).to_string()),
        Err(_) => Err(format!(
            "{what} cannot be looked at within {} seconds",
            limit.as_secs()
        )),
    }
}
