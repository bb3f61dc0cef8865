//! Volumes on the wire, and requests for them.

use proto::storage::v1 as pb;
use types::{ByteSize, NodeId, VolumeName};

use super::{content, image_key, invalid};
use catalog::Result;
use volume::owner::{Driver, Owner};
use volume::record::{FromVolume, Publication};
use volume::{NewVolume, Origin, Use, Volume};

/// The volume that a request asks for.
pub(in crate::service) fn new_volume(request: pb::CreateVolumeRequest) -> Result<NewVolume> {
    let size = |bytes| (bytes > 0).then_some(ByteSize(bytes));
    let (required, limit) = (size(request.required_bytes), size(request.limit_bytes));
    if let (Some(required), Some(limit)) = (required, limit)
        && limit < required
    {
        return Err(invalid(
            "limit_bytes",
            format!("{limit} is less than required_bytes, {required}"),
        ));
    }
    let parameters: std::collections::BTreeMap<_, _> = request.parameters.into_iter().collect();
    let total: usize = parameters
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum();
    if total > PARAMETERS_MAX {
        return Err(invalid(
            "parameters",
            format!("they have {total} bytes; {PARAMETERS_MAX} at most"),
        ));
    }
    let name = VolumeName::new(&request.name)?;
    Ok(NewVolume {
        origin: origin(&name, request.origin)?,
        name,
        required,
        limit,
        number_of_replicas: request.number_of_replicas.max(1),
        stale_replica_timeout: request.stale_replica_timeout,
        fs_type: request.fs_type,
        partition: (request.partition > 0).then_some(request.partition),
        owner: owner(request.owner.unwrap_or_default())?,
        parameters,
    })
}

/// Whose a volume will be.
pub(in crate::service) fn owner(owner: pb::Owner) -> Result<Owner> {
    let driver = match owner.driver() {
        pb::Driver::Csi => Driver::Csi,
        pb::Driver::Flexvolume => Driver::Flexvolume,
        pb::Driver::Api | pb::Driver::Unspecified => Driver::Api,
    };
    Ok(Owner::new(driver, owner.namespace, owner.claim)?)
}

fn own(owner: Owner) -> pb::Owner {
    let driver = match owner.driver {
        Driver::Csi => pb::Driver::Csi,
        Driver::Flexvolume => pb::Driver::Flexvolume,
        Driver::Api => pb::Driver::Api,
    };
    pb::Owner {
        driver: driver.into(),
        namespace: owner.namespace,
        claim: owner.claim,
    }
}

/// What a volume begins with.
fn origin(name: &VolumeName, asked: Option<pb::create_volume_request::Origin>) -> Result<Origin> {
    use pb::create_volume_request::Origin as Asked;
    match asked {
        Some(Asked::Blank(_)) => Ok(Origin::Blank),
        Some(Asked::Image(image)) if image.name.is_empty() => Ok(Origin::ImageOfParameters),
        Some(Asked::Image(image)) => {
            let (name, uuid) = image_key(&image.name, &image.uuid)?;
            Ok(Origin::Image(name, uuid))
        }
        Some(Asked::Volume(source)) => match VolumeName::new(&source.name)? {
            source if source == *name => Err(invalid(
                "origin.volume",
                "a volume cannot be a clone of itself",
            )),
            source => Ok(Origin::Volume(source)),
        },
        None => Err(invalid(
            "origin",
            "it is missing; say blank, image or volume, or update the program that asks",
        )),
    }
}

/// The CSI limit of a map, in bytes.
const PARAMETERS_MAX: usize = 4096;

pub(in crate::service) fn publication(request: &pb::PublishVolumeRequest) -> Result<Publication> {
    Ok(Publication {
        node_id: NodeId::new(&request.node_id)?,
        readonly: request.readonly,
        multi_node: request.multi_node,
        by: users(request.r#use)?,
    })
}

/// For whom a volume is published.
pub(in crate::service) fn users(kind: i32) -> Result<Use> {
    match pb::Use::try_from(kind) {
        Ok(pb::Use::Pods) => Ok(Use::Pods),
        Ok(pb::Use::Device) => Ok(Use::Device),
        Ok(pb::Use::Target) => Ok(Use::Target),
        Err(_) => Err(invalid(
            "use",
            format!("{kind} is none that this manager knows; update it"),
        )),
    }
}

const fn users_on_wire(by: Use) -> pb::Use {
    match by {
        Use::Pods => pb::Use::Pods,
        Use::Device => pb::Use::Device,
        Use::Target => pb::Use::Target,
    }
}

pub(in crate::service) fn volume(volume: Volume) -> pb::Volume {
    let Volume {
        record,
        published,
        real_size,
        is_replica,
    } = volume;
    let degraded = record.degraded().filter(|_| !is_replica);
    let degraded = degraded.unwrap_or_default();
    let image = record.image.as_ref();
    let (mut source_volume, mut source_snapshot, mut cloned) = (String::new(), String::new(), None);
    match &record.source {
        Some(FromVolume::Clone { volume, content }) => {
            source_volume = volume.to_string();
            cloned = Some(super::content(content));
        }
        Some(FromVolume::Snapshot { .. }) => {
            source_snapshot = image
                .map(|image| image.id.name.to_string())
                .unwrap_or_default();
        }
        None => {}
    }
    let partition = record.partition.as_ref();
    if let Some(partition) = partition {
        cloned = Some(content(&partition.content));
    }
    pb::Volume {
        condition: String::new(),
        in_use: false,
        is_replica,
        partition: partition.map(|partition| pb::Partition {
            number: partition.number,
            offset: partition.offset,
            length: partition.length,
        }),
        source_volume,
        source_snapshot,
        size: record.size.bytes(),
        real_size,
        image_name: image
            .map(|image| image.id.name.to_string())
            .unwrap_or_default(),
        image_uuid: image
            .map(|image| image.id.uuid.to_string())
            .unwrap_or_default(),
        image_checksum: image
            .and_then(|image| image.checksum)
            .map(String::from)
            .unwrap_or_default(),
        owner: record.owner().map(own),
        content: cloned.or_else(|| image.map(|image| content(&image.content))),
        degraded,
        name: record.name.into(),
        number_of_replicas: record.number_of_replicas,
        stale_replica_timeout: record.stale_replica_timeout,
        fs_type: record.fs_type,
        parameters: record.parameters.into_iter().collect(),
        replicas: record
            .replicas
            .into_iter()
            .map(|replica| pb::Replica {
                node_id: replica.node_id.into(),
                disk_uuid: replica.disk_uuid.into(),
                path: replica.path,
            })
            .collect(),
        published: published
            .into_iter()
            .map(|publication| pb::Publication {
                node_id: publication.node_id.into(),
                readonly: publication.readonly,
                multi_node: publication.multi_node,
                r#use: users_on_wire(publication.by).into(),
            })
            .collect(),
        made_by: record.made_by.as_str().to_owned(),
        created_at: record.created_at,
    }
}
