//! The locator: which manager a call is for.
//!
//! A volume is where it is: the first manager that has it answers for it and ends the search. There is none
//! only when every disk that is known has said so.

use client::{Address, Client, Wait, there, wire};
use jiff::Timestamp;
use types::{Classify as _, ErrorKind, ImageName, NodeId, VolumeName};

use super::Managers;
use crate::error::{Error, Result};
use crate::request::{BackupId, ContentSource, CreateVolume};
use crate::snapshots::Snapshots;
use crate::volumes::{Volumes, check_owner, create};

/// Where a volume is that is asked for.
#[derive(Debug)]
pub(crate) enum Located {
    /// It is there already.
    Has(Box<wire::Volume>),
    /// It is to be made.
    New(Volumes),
}

impl Managers {
    /// Looks for something: `None` when every disk that could have it says no. `hint` had it the last time;
    /// only the disks of `node`, where that is given, could have it.
    async fn search<T, F>(
        &self,
        hint: Option<&Address>,
        node: Option<&NodeId>,
        ask: impl Fn(Client) -> F,
    ) -> Result<Option<(Client, T)>>
    where
        T: Send + 'static,
        F: Future<Output = client::Result<Option<T>>> + Send + 'static,
    {
        let wait = Wait::All(hint);
        let look = self.cluster.look(wait, ask, Option::is_some).await?;
        if let Some((client, Some(found))) = look.found {
            return Ok(Some((client, found)));
        }
        self.seen.members(&look.census.members);
        let node = node.map(NodeId::as_str);
        look.census.complete(&self.seen.disks(), node)?;
        Ok(None)
    }

    /// The volume of that name and the manager that has it, if there is one. `node`: only its disks
    /// could have what is asked for. A volume whose record is damaged is there, and says so.
    pub(crate) async fn find(
        &self,
        name: &VolumeName,
        node: Option<&NodeId>,
    ) -> Result<Option<(Volumes, client::Result<wire::Volume>)>> {
        let hint = self.seen.place_of(name).map(|(_, address)| address);
        let ask = |client: Client| {
            let name = name.clone();
            async move { answer(client.volume(&name).await) }
        };
        let found = self.search(hint.as_ref(), node, ask).await?;
        match &found {
            Some((_, Ok(volume))) => self.seen.volume(volume),
            None if node.is_none() => self.seen.gone(name),
            _ => {}
        }
        Ok(found.map(|(client, volume)| (self.volumes(client), volume)))
    }

    /// The same for a volume that there must be.
    pub(crate) async fn of_volume(&self, name: &VolumeName) -> Result<(Volumes, wire::Volume)> {
        let found = self.find(name, None).await?;
        let (volumes, volume) = found.ok_or_else(|| Error::NoSuchVolume {
            volume_id: name.to_string(),
        })?;
        Ok((volumes, volume?))
    }

    /// The same for one that must not be another driver's.
    pub(crate) async fn own_volume(&self, name: &VolumeName) -> Result<(Volumes, wire::Volume)> {
        let (volumes, volume) = self.of_volume(name).await?;
        check_owner(&volume)?;
        Ok((volumes, volume))
    }

    /// The volume that a request asks for, or the manager that is to make it: the one that an earlier call
    /// began to make it at, else the one that a repeated call would choose as well. Whether a volume of the
    /// name is the one that is asked for its manager says. Disks that are silent are left out, unless this
    /// very volume may be on one of them.
    ///
    /// # Errors
    /// `AlreadyExists`, by the manager, when the name has another volume.
    pub(crate) async fn locate(&self, request: &CreateVolume) -> Result<Located> {
        let name = &request.name;
        let wanted = create::wire(request, create::named_origin(request));
        let ask = |client: Client| {
            let wanted = wanted.clone();
            async move { answer(client.find_volume(wanted).await) }
        };
        let look = self.gather(ask, Option::is_some).await?;
        if let Some((_, Some(volume))) = look.found {
            let volume = volume?;
            self.seen.volume(&volume);
            return Ok(Located::Has(Box::new(volume)));
        }
        let census = look.census;
        let silent = census.silent(&self.seen.disks());
        if let Some((begun_at, _)) = self.seen.place_of(name)
            && let Some(node) = silent.get(&begun_at)
        {
            return Err(client::Error::silent(&begun_at, node).into());
        }
        let chosen = match self.source(request).await? {
            Some(client) => census.members.iter().find(|member| {
                // It has answered a moment ago, or it will not answer the next question either.
                member.client.address() == client.address()
            }),
            None => Some(self.choose(request, &census, silent.len())?),
        };
        let Some(chosen) = chosen else {
            let (answered, managers) = (census.members.len(), census.asked());
            return Err(Error::Incomplete { answered, managers });
        };
        // Before anything is on it: a disk that nobody knows can be silent without being missed.
        census.spread(Timestamp::now().as_second()).await;
        types::crash_point!("csi.create_volume.disks_told");
        self.seen.attempt(&chosen.disk.uuid, name);
        Ok(Located::New(self.volumes(chosen.client.clone())))
    }

    /// The manager of what a volume is to be made from.
    async fn source(&self, request: &CreateVolume) -> Result<Option<Client>> {
        Ok(match &request.source {
            // Nobody gets what another driver's volume holds.
            Some(ContentSource::Volume(name)) => Some(self.own_volume(name).await?.0.into_client()),
            Some(ContentSource::Snapshot(id)) => {
                let snapshots = self.of_snapshot(id).await?;
                let snapshots = snapshots.ok_or_else(|| Error::NoSuchSnapshot {
                    snapshot_id: id.to_string(),
                })?;
                Some(snapshots.into_client())
            }
            // Any manager can restore it.
            Some(ContentSource::Backup(_)) | None => None,
        })
    }

    /// The manager that has a snapshot; `None`: there is none.
    pub(crate) async fn of_snapshot(&self, id: &ImageName) -> Result<Option<Snapshots>> {
        let ask = |client: Client| snapshot(client, id.clone());
        let found = self.search(None, None, ask).await?;
        Ok(found.map(|(client, ())| self.snapshots(client)))
    }

    /// The manager that takes a new snapshot: the one that took it already, else that of `place`, else the volume's.
    pub(crate) async fn for_snapshot(
        &self,
        id: &ImageName,
        volume: &VolumeName,
        place: Option<&Client>,
    ) -> Result<Snapshots> {
        let ask = |client: Client| snapshot(client, id.clone());
        if let Some((client, _)) = self.gather(ask, Option::is_some).await?.found {
            return Ok(self.snapshots(client));
        }
        let client = match place {
            Some(client) => client.clone(),
            None => self.of_volume(volume).await?.0.into_client(),
        };
        Ok(self.snapshots(client))
    }

    /// The manager to ask about a backup: any can answer, as the store is shared. The best has the snapshot that is
    /// being backed up, the next best the volume.
    ///
    /// # Errors
    /// What one says, when none answers.
    pub(crate) async fn of_backup(&self, id: &BackupId) -> Result<Client> {
        let ask = |client: Client| {
            let id = id.clone();
            async move { closeness(&client, &id).await }
        };
        let look = self
            .gather(ask, |closeness| *closeness == HAS_SNAPSHOT)
            .await?;
        if let Some((client, _)) = look.found {
            return Ok(client);
        }
        let (census, answers) = (look.census, look.others);
        let answered = census.members.iter().zip(&answers);
        let best = answered.max_by_key(|(_, closeness)| **closeness);
        let (answered, managers) = (census.members.len(), census.asked());
        best.map(|(member, _)| member.client.clone())
            .ok_or(Error::Incomplete { answered, managers })
    }

    /// The manager that has the volumes of a group: one, as a moment is one disk's.
    pub(crate) async fn of_group(&self, volumes: &[VolumeName]) -> Result<Client> {
        let first = volumes.first().ok_or(Error::Missing {
            field: "source_volume_ids",
        })?;
        Ok(self.of_volume(first).await?.0.into_client())
    }

    /// The manager that has the snapshots of a group, and these; `None`: there is no such group.
    pub(crate) async fn group(
        &self,
        id: &ImageName,
    ) -> Result<Option<(Client, Vec<wire::BackingImage>)>> {
        let ask = |client: Client| {
            let id = id.clone();
            async move {
                let mut images = client.list_images().await?;
                images.retain(|image| {
                    crate::snapshots::is_snapshot(image) && image.snapshot_group == id.as_str()
                });
                Ok((!images.is_empty()).then_some(images))
            }
        };
        self.search(None, None, ask).await
    }
}

/// Of a manager that has the snapshot of a backup.
const HAS_SNAPSHOT: u8 = 2;

/// How near a manager is to a backup: 0 where it has nothing of it, 1 where it has the volume.
async fn closeness(client: &Client, id: &BackupId) -> client::Result<u8> {
    if let Ok(name) = ImageName::new(id.backup.as_str()) {
        let image = there(client.image(&name, None).await)?;
        if image.is_some_and(|image| image.source_volume == id.volume.as_str()) {
            return Ok(HAS_SNAPSHOT);
        }
    }
    let Ok(name) = VolumeName::new(id.volume.as_str()) else {
        return Ok(0);
    };
    Ok(match answer(client.volume(&name).await)? {
        Some(_) => 1,
        None => 0,
    })
}

/// Whether a manager has a snapshot of that name. Other images have other uses, and may have the name.
async fn snapshot(client: Client, id: ImageName) -> client::Result<Option<()>> {
    let image = there(client.image(&id, None).await)?;
    Ok(image.and_then(|image| (!image.source_volume.is_empty()).then_some(())))
}

/// What a manager says of the volume of a name: that it is there also where it is another one, or its record
/// is damaged. `None`: it has none.
fn answer(
    answer: client::Result<wire::Volume>,
) -> client::Result<Option<client::Result<wire::Volume>>> {
    match answer {
        Err(error) if matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::DataLoss) => {
            Ok(Some(Err(error)))
        }
        other => Ok(there(other)?.map(Ok)),
    }
}
