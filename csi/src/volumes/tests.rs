use csi::volume_capability::{AccessMode, AccessType, MountVolume, access_mode::Mode};
use csi::volume_content_source::{SnapshotSource, Type, VolumeSource};
use proto::csi::v1 as csi;

use super::create::{named_origin, wire};
use super::*;
use crate::request::CreateVolume;

fn asked(source: Option<Type>, parameters: &[(&str, &str)]) -> wire::CreateVolumeRequest {
    let mount = MountVolume {
        fs_type: "ext4".to_owned(),
        ..Default::default()
    };
    let parameters = parameters
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    let request = csi::CreateVolumeRequest {
        name: "v".to_owned(),
        capacity_range: Some(csi::CapacityRange {
            required_bytes: 1,
            limit_bytes: 64 << 20,
        }),
        volume_capabilities: vec![csi::VolumeCapability {
            access_type: Some(AccessType::Mount(mount)),
            access_mode: Some(AccessMode {
                mode: Mode::SingleNodeWriter.into(),
            }),
        }],
        volume_content_source: source.map(|source| csi::VolumeContentSource {
            r#type: Some(source),
        }),
        parameters: parameters.collect(),
        ..Default::default()
    };
    let request = CreateVolume::parse(request).ok().unwrap();
    wire(&request, named_origin(&request))
}

/// Row 69: the manager compares; it is told all that a request says of the volume, and nothing that differs
/// from call to call.
#[test]
fn row_69_a_manager_is_told_what_the_same_volume_has() {
    let parameters = [
        ("baseImage", "a:1"),
        ("numberOfReplicas", "2"),
        ("fromBackup", ""),
        ("csi.storage.k8s.io/pvc/name", "any"),
    ];
    let wanted = asked(None, &parameters);
    assert_eq!((wanted.required_bytes, wanted.limit_bytes), (1, 64 << 20));
    assert_eq!((wanted.number_of_replicas, &*wanted.fs_type), (2, "ext4"));
    let mut keys: Vec<_> = wanted.parameters.keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["baseImage", "numberOfReplicas"]);
}

#[test]
fn row_69_a_source_counts_and_not_the_image_of_its_class() {
    let image = &[("baseImage", "a:1")][..];
    let volume_id = "w".to_owned();
    let snapshot_id = "s".to_owned();
    for (source, parameters, begins) in [
        (None, &[][..], client::origin::blank()),
        (None, image, client::origin::image("", "")),
        (
            Some(Type::Snapshot(SnapshotSource { snapshot_id })),
            image,
            client::origin::image("s", ""),
        ),
        (
            Some(Type::Volume(VolumeSource { volume_id })),
            image,
            client::origin::volume("w"),
        ),
    ] {
        assert_eq!(asked(source, parameters).origin, Some(begins));
    }
}

#[test]
fn progress_is_told_as_far_as_it_is_known() {
    let image = wire::BackingImage {
        processed_size: 5,
        ..Default::default()
    };
    assert_eq!(client::progress(&image), "5 bytes so far");
    let image = wire::BackingImage {
        total_size: 10,
        progress: 50,
        ..image
    };
    assert_eq!(client::progress(&image), "50 % (5 of 10 bytes)");
    let image = wire::BackingImage {
        message: "trying again".to_owned(),
        ..image
    };
    assert_eq!(
        client::progress(&image),
        "50 % (5 of 10 bytes), trying again"
    );
}
