use csi::volume_capability::{AccessMode, AccessType, MountVolume, access_mode::Mode};
use proto::csi::v1 as csi;
use types::{Classify as _, ErrorKind};

use super::same::same;
use super::*;
use crate::request::CreateVolume;

fn asked(size: i64, limit: i64, fs_type: &str, parameters: &[(&str, &str)]) -> CreateVolume {
    let mount = MountVolume {
        fs_type: fs_type.to_owned(),
        ..Default::default()
    };
    let parameters = parameters
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    let request = csi::CreateVolumeRequest {
        name: "v".to_owned(),
        capacity_range: Some(csi::CapacityRange {
            required_bytes: size,
            limit_bytes: limit,
        }),
        volume_capabilities: vec![csi::VolumeCapability {
            access_type: Some(AccessType::Mount(mount)),
            access_mode: Some(AccessMode {
                mode: Mode::SingleNodeWriter.into(),
            }),
        }],
        parameters: parameters.collect(),
        ..Default::default()
    };
    CreateVolume::parse(request).ok().unwrap()
}

fn volume() -> wire::Volume {
    let base = asked(0, 0, "", &[("baseImage", "a:1"), ("numberOfReplicas", "2")]);
    wire::Volume {
        name: "v".to_owned(),
        size: 32 << 20,
        image_name: "a".to_owned(),
        parameters: base.parameters.recorded(),
        fs_type: "ext4".to_owned(),
        ..Default::default()
    }
}

#[test]
fn row_69_the_same_request_finds_the_same_volume() {
    for (size, limit, fs_type) in [(32 << 20, 0, ""), (0, 0, "ext4"), (1, 64 << 20, "")] {
        let parameters = [
            ("baseImage", "a:1"),
            ("numberOfReplicas", "2"),
            ("fromBackup", ""),
            ("csi.storage.k8s.io/pvc/name", "any"),
        ];
        same(&volume(), &asked(size, limit, fs_type, &parameters)).unwrap();
    }
}

#[test]
fn row_69_another_request_is_told_the_difference() {
    let same_parameters = [("baseImage", "a:1"), ("numberOfReplicas", "2")];
    for (size, limit, fs_type, parameters, told) in [
        (64 << 20, 0, "", &same_parameters[..], "size"),
        (0, 1 << 20, "", &same_parameters, "size"),
        (0, 0, "xfs", &same_parameters, "fsType"),
        (
            0,
            0,
            "",
            &[("baseImage", "a:2"), ("numberOfReplicas", "2")],
            "baseImage",
        ),
        (0, 0, "", &[("numberOfReplicas", "2")], "baseImage"),
        (
            0,
            0,
            "",
            &[("baseImage", "a:1"), ("numberOfReplicas", "3")],
            "numberOfReplicas",
        ),
        (0, 0, "", &[("baseImage", "a:1")], "numberOfReplicas"),
        (
            0,
            0,
            "",
            &[
                ("baseImage", "a:1"),
                ("numberOfReplicas", "2"),
                ("staleReplicaTimeout", "5"),
            ],
            "staleReplicaTimeout",
        ),
    ] {
        let error = same(&volume(), &asked(size, limit, fs_type, parameters)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert!(
            error.to_string().contains(told),
            "{error} does not name {told}"
        );
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
