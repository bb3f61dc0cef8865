//! The group controller service: consistent snapshots of several volumes. The id of a group is its
//! name, and its snapshots record that they belong to it.

use client::wire;
use proto::csi::v1 as csi;
use tonic::{Request, Response, Status};
use types::{ImageName, ImageUuid, Sha512, VolumeName};

use crate::capabilities;
use crate::error::{Error, Result};
use crate::in_flight::InFlight;
use crate::managers::Managers;
use crate::replicated::Replicated;
use crate::request::{self, CreateGroup};
use crate::snapshots::show;
use crate::status::answer;
use crate::volumes::check_owner;

type Reply<T> = Result<Response<T>, Status>;

/// What answers on the group controller service.
#[derive(Debug)]
pub(crate) struct GroupService {
    managers: Managers,
    /// `None`: every volume has one replica.
    replicated: Option<Replicated>,
    in_flight: InFlight,
}

impl GroupService {
    pub(crate) fn new(managers: Managers, replicated: Option<Replicated>) -> Self {
        let in_flight = InFlight::default();
        Self {
            managers,
            replicated,
            in_flight,
        }
    }

    async fn create(&self, request: &CreateGroup) -> Result<csi::VolumeGroupSnapshot> {
        let moment = match &self.replicated {
            Some(replicated) => replicated.moment(&request.volumes).await?,
            None => None,
        };
        // All of them have to be this manager's: one moment is one disk's.
        let client = match &moment {
            Some(moment) => moment.client.clone(),
            None => self.managers.of_group(&request.volumes).await?,
        };
        for volume in &request.volumes {
            check_owner(&client.volume(volume).await?)?;
        }
        let member = |volume: &VolumeName| wire::GroupMember {
            name: member_name(&request.name, volume),
            volume: volume.to_string(),
        };
        let wanted = wire::SnapshotGroupRequest {
            group: request.name.to_string(),
            members: request.volumes.iter().map(member).collect(),
        };
        let taking = async { Ok(client.snapshot_group(wanted).await?) };
        let taken = match &moment {
            Some(moment) => moment.still(taking).await?,
            None => taking.await?,
        };
        types::crash_point!("csi.create_group.taken");
        Ok(group(&request.name, &taken))
    }

    async fn delete(&self, id: &ImageName, snapshot_ids: &[String]) -> Result<()> {
        let Some((client, members)) = self.managers.group(id).await? else {
            return Ok(());
        };
        same_members(id, &members, snapshot_ids)?;
        for image in members {
            // A name that the manager has given out is one.
            let (Ok(name), uuid) = (
                ImageName::new(&image.name),
                ImageUuid::new(&image.uuid).ok(),
            ) else {
                continue;
            };
            client.delete_image(&name, uuid.as_ref()).await?;
            types::crash_point!("csi.delete_group.one");
        }
        Ok(())
    }

    async fn get(
        &self,
        id: &ImageName,
        snapshot_ids: &[String],
    ) -> Result<csi::VolumeGroupSnapshot> {
        let Some((_, members)) = self.managers.group(id).await? else {
            return Err(Error::NoSuchSnapshot {
                snapshot_id: id.to_string(),
            });
        };
        same_members(id, &members, snapshot_ids)?;
        Ok(group(id, &members))
    }
}

/// What the snapshot of a volume in a group is called: the same each time it is asked for, and within
/// the length of a name.
fn member_name(group: &ImageName, volume: &VolumeName) -> String {
    let digest = Sha512::of(format!("{group}/{volume}").as_bytes()).to_string();
    let head: String = group.as_str().chars().take(111).collect();
    format!("{head}-{}", digest.chars().take(16).collect::<String>())
}

/// Refuses a list of snapshots that is not the group's. An empty one says nothing.
fn same_members(id: &ImageName, members: &[wire::BackingImage], asked: &[String]) -> Result<()> {
    let is_member = |name: &String| members.iter().any(|image| image.name == *name);
    if asked.is_empty() || (asked.len() == members.len() && asked.iter().all(is_member)) {
        return Ok(());
    }
    let names: Vec<_> = members.iter().map(|image| image.name.as_str()).collect();
    Err(Error::OtherMembers {
        group: id.clone(),
        has: names.join(", "),
    })
}

fn group(id: &ImageName, members: &[wire::BackingImage]) -> csi::VolumeGroupSnapshot {
    let mut snapshots: Vec<_> = members.iter().map(show).collect();
    snapshots.sort_by(|a, b| a.snapshot_id.cmp(&b.snapshot_id));
    csi::VolumeGroupSnapshot {
        group_snapshot_id: id.to_string(),
        creation_time: snapshots
            .iter()
            .filter_map(|one| one.creation_time)
            .max_by_key(|t| t.seconds),
        ready_to_use: snapshots.iter().all(|one| one.ready_to_use),
        snapshots,
    }
}

#[tonic::async_trait]
impl csi::group_controller_server::GroupController for GroupService {
    async fn group_controller_get_capabilities(
        &self,
        _: Request<csi::GroupControllerGetCapabilitiesRequest>,
    ) -> Reply<csi::GroupControllerGetCapabilitiesResponse> {
        let capabilities = capabilities::group();
        Ok(Response::new(csi::GroupControllerGetCapabilitiesResponse {
            capabilities,
        }))
    }

    async fn create_volume_group_snapshot(
        &self,
        request: Request<csi::CreateVolumeGroupSnapshotRequest>,
    ) -> Reply<csi::CreateVolumeGroupSnapshotResponse> {
        let wire = request.into_inner();
        answer("CreateVolumeGroupSnapshot", &wire.name, async {
            let request = CreateGroup::parse(&wire)?;
            let _guard = self.in_flight.enter(&request.name)?;
            let group_snapshot = Some(Box::pin(self.create(&request)).await?);
            Ok(csi::CreateVolumeGroupSnapshotResponse { group_snapshot })
        })
        .await
    }

    async fn delete_volume_group_snapshot(
        &self,
        request: Request<csi::DeleteVolumeGroupSnapshotRequest>,
    ) -> Reply<csi::DeleteVolumeGroupSnapshotResponse> {
        let wire = request.into_inner();
        let id = &wire.group_snapshot_id;
        answer("DeleteVolumeGroupSnapshot", id, async {
            match request::group_id(id) {
                Ok(id) => {
                    let _guard = self.in_flight.enter(&id)?;
                    self.delete(&id, &wire.snapshot_ids).await?;
                }
                // What cannot be is not there.
                Err(Error::NoSuchSnapshot { .. }) => {}
                Err(error) => return Err(error),
            }
            Ok(csi::DeleteVolumeGroupSnapshotResponse {})
        })
        .await
    }

    async fn get_volume_group_snapshot(
        &self,
        request: Request<csi::GetVolumeGroupSnapshotRequest>,
    ) -> Reply<csi::GetVolumeGroupSnapshotResponse> {
        let wire = request.into_inner();
        let id = &wire.group_snapshot_id;
        answer("GetVolumeGroupSnapshot", id, async {
            let group = self
                .get(&request::group_id(id)?, &wire.snapshot_ids)
                .await?;
            let group_snapshot = Some(group);
            Ok(csi::GetVolumeGroupSnapshotResponse { group_snapshot })
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_volume_of_a_group_has_a_snapshot_of_its_own_name() {
        let name = |group: &str, volume: &str| {
            member_name(
                &ImageName::new(group).unwrap(),
                &VolumeName::new(volume).unwrap(),
            )
        };
        assert_eq!(name("g", "a"), name("g", "a"));
        assert_ne!(name("g", "a"), name("g", "b"));
        let long = name(&"g".repeat(128), &"v".repeat(128));
        assert_eq!(long.len(), 128);
        ImageName::new(&long).unwrap();
    }

    #[test]
    fn a_list_of_other_snapshots_is_refused() {
        let image = |name: &str| wire::BackingImage {
            name: name.to_owned(),
            ..Default::default()
        };
        let (id, members) = (ImageName::new("g").unwrap(), [image("a"), image("b")]);
        let check = |asked: &[&str]| {
            let asked: Vec<_> = asked.iter().map(ToString::to_string).collect();
            same_members(&id, &members, &asked)
        };
        check(&[]).unwrap();
        check(&["b", "a"]).unwrap();
        for other in [&["a"][..], &["a", "c"], &["a", "b", "c"]] {
            let error = check(other).unwrap_err();
            assert_eq!(
                types::Classify::kind(&error),
                types::ErrorKind::InvalidArgument
            );
        }
    }
}
