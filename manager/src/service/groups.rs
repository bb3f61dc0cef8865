//! Groups of snapshots: all of them or none, of one moment.

use proto::storage::v1 as pb;
use types::{ImageName, VolumeName, crash_point};

use super::{Service, wire};
use catalog::source::Source;
use catalog::{Error, Result};
use catalog::{Lifecycle, NewImage, Status};

impl Service {
    /// Takes the snapshots of a group, or finds the ones that an equal request has taken. The work goes
    /// on when the caller is gone.
    pub(super) async fn snapshot_group(
        &self,
        request: pb::SnapshotGroupRequest,
    ) -> Result<pb::SnapshotGroupResponse> {
        let (group, members) = wire::group(request)?;
        let service = self.clone();
        let taken = tokio::spawn(async move { service.take_group(&group, members).await });
        let taken = taken.await.map_err(Error::Task)??;
        let snapshots = taken
            .iter()
            .map(|image| wire::image(image, true, None))
            .collect();
        Ok(pb::SnapshotGroupResponse { snapshots })
    }

    async fn take_group(&self, group: &ImageName, members: Vec<NewImage>) -> Result<Vec<Status>> {
        let there = self.members_of(group);
        if same_volumes(&there, &members)? && there.iter().all(is_ready) {
            return Ok(there);
        }
        let volumes: Vec<_> = members.iter().filter_map(volume_of).cloned().collect();
        let (all, name) = (self.volumes.clone(), group.clone());
        let _clones = catalog::blocking(move || all.clone_group(&name, &volumes)).await?;
        // What an interrupted request left is of another moment.
        self.remove(&there).await?;
        match self.take_members(members).await {
            Ok(taken) => Ok(taken),
            Err(error) => {
                self.remove(&self.members_of(group)).await?;
                Err(error)
            }
        }
    }

    /// Takes all snapshots of a group. Some may have been taken when this fails.
    async fn take_members(&self, members: Vec<NewImage>) -> Result<Vec<Status>> {
        let mut begun = Vec::new();
        for member in members {
            begun.push(self.catalog.create(member)?.id);
        }
        crash_point!("volume.group.begun");
        let mut taken = Vec::new();
        for id in &begun {
            let mut states = self.catalog.watch(&id.name, Some(&id.uuid))?;
            let last = states.wait_for(|status| status.state.is_settled()).await;
            let last = last
                .map_err(|_| Error::ImageNotFound(id.to_string()))?
                .clone();
            if let Lifecycle::Failed(failure) = &last.state {
                return Err(Error::ImageNotReady {
                    id: last.id.clone(),
                    state: last.state.name(),
                    message: format!(": {}", failure.message),
                });
            }
            taken.push(last);
        }
        Ok(taken)
    }

    /// The snapshots of a group, in the order of their names.
    fn members_of(&self, group: &ImageName) -> Vec<Status> {
        let mut all = self.catalog.list();
        all.retain(|image| {
            let snapshot = image.provenance.snapshot();
            snapshot.is_some_and(|snapshot| snapshot.group.as_ref() == Some(group))
        });
        all
    }

    async fn remove(&self, images: &[Status]) -> Result<()> {
        for image in images {
            self.catalog.delete(&image.id, || Ok(())).await?;
        }
        Ok(())
    }
}

fn is_ready(image: &Status) -> bool {
    matches!(image.state, Lifecycle::Ready(_))
}

fn volume_of(new: &NewImage) -> Option<&VolumeName> {
    match &new.source {
        Some(Source::Volume(snapshot)) => Some(&snapshot.volume),
        _ => None,
    }
}

/// Whether a group is the one that is asked for; an error when it is whole and of other volumes.
fn same_volumes(there: &[Status], asked: &[NewImage]) -> Result<bool> {
    let has = |new: &NewImage| {
        there.iter().any(|image| {
            new.name.as_ref() == Some(&image.id.name) && image.provenance == new.provenance()
        })
    };
    let same = there.len() == asked.len() && asked.iter().all(has);
    match there.first() {
        Some(first) if !same && there.iter().all(is_ready) => Err(Error::ImageExists {
            id: first.id.clone(),
            difference: "group: it was created with other volumes".to_owned(),
        }),
        _ => Ok(same),
    }
}
