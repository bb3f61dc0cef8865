use csi::volume_capability::{AccessMode, AccessType, MountVolume, access_mode::Mode};
use proptest::strategy::Strategy as _;
use types::{Classify as _, ErrorKind};

use super::*;

fn mount(fs_type: &str) -> csi::VolumeCapability {
    csi::VolumeCapability {
        access_type: Some(AccessType::Mount(MountVolume {
            fs_type: fs_type.to_owned(),
            ..Default::default()
        })),
        access_mode: Some(AccessMode {
            mode: Mode::SingleNodeWriter.into(),
        }),
    }
}

fn request() -> csi::CreateVolumeRequest {
    csi::CreateVolumeRequest {
        name: "pvc-1".to_owned(),
        volume_capabilities: vec![mount("")],
        ..Default::default()
    }
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "the field of the message is optional"
)]
fn range(required_bytes: i64, limit_bytes: i64) -> Option<csi::CapacityRange> {
    Some(csi::CapacityRange {
        required_bytes,
        limit_bytes,
    })
}

fn map(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn row_70_requests_that_can_never_work_are_refused() {
    let source = csi::VolumeContentSource { r#type: None };
    for (case, wire) in [
        (
            "no name",
            csi::CreateVolumeRequest {
                name: String::new(),
                ..request()
            },
        ),
        (
            "long name",
            csi::CreateVolumeRequest {
                name: "n".repeat(129),
                ..request()
            },
        ),
        (
            "name with a control character",
            csi::CreateVolumeRequest {
                name: "x\u{7}".to_owned(),
                ..request()
            },
        ),
        (
            "no capability",
            csi::CreateVolumeRequest {
                volume_capabilities: vec![],
                ..request()
            },
        ),
        (
            "negative",
            csi::CreateVolumeRequest {
                capacity_range: range(-1, 0),
                ..request()
            },
        ),
        (
            "negative limit",
            csi::CreateVolumeRequest {
                capacity_range: range(0, -1),
                ..request()
            },
        ),
        (
            "limit",
            csi::CreateVolumeRequest {
                capacity_range: range(2, 1),
                ..request()
            },
        ),
        (
            "key",
            csi::CreateVolumeRequest {
                parameters: map(&[("size", "1")]),
                ..request()
            },
        ),
        (
            "source",
            csi::CreateVolumeRequest {
                volume_content_source: Some(source),
                ..request()
            },
        ),
        (
            "mutable",
            csi::CreateVolumeRequest {
                mutable_parameters: map(&[("a", "b")]),
                ..request()
            },
        ),
        (
            "half a secret",
            csi::CreateVolumeRequest {
                secrets: map(&[("username", "me")]),
                parameters: map(&[("baseImage", "a")]),
                ..request()
            },
        ),
        (
            "two file systems",
            csi::CreateVolumeRequest {
                volume_capabilities: vec![mount("xfs")],
                parameters: map(&[("fsType", "ext4")]),
                ..request()
            },
        ),
    ] {
        let error = CreateVolume::parse(wire)
            .err()
            .unwrap_or_else(|| panic!("{case} was taken"));
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{case}: {error}");
    }
    assert!(
        CreateVolume::parse(csi::CreateVolumeRequest {
            name: "n".repeat(128),
            capacity_range: range(32 << 20, 32 << 20),
            ..request()
        })
        .is_ok()
    );
}

#[test]
fn the_file_system_of_the_parameters_counts_where_the_capability_is_silent() {
    let wire = csi::CreateVolumeRequest {
        parameters: map(&[("fsType", "xfs")]),
        ..request()
    };
    let checked = CreateVolume::parse(wire).ok().unwrap();
    assert_eq!(checked.fs_type(), Some(host::FsType::Xfs));
    assert_eq!(CreateVolume::parse(request()).ok().unwrap().fs_type(), None);
}

#[test]
fn tokens_are_ours_or_aborted() {
    let list = |token: &str, max_entries| {
        let starting_token = token.to_owned();
        list_volumes(&csi::ListVolumesRequest {
            max_entries,
            starting_token,
        })
    };
    assert_eq!(list(&Page::token("pvc-1"), 3).unwrap().after, "pvc-1");
    assert_eq!(list("", 0).unwrap().after, "");
    for token in ["invalid-token", "1", "after:", "after:../x"] {
        assert_eq!(
            list(token, 0).unwrap_err().kind(),
            ErrorKind::Aborted,
            "{token:?}"
        );
    }
    assert_eq!(list("", -1).unwrap_err().kind(), ErrorKind::InvalidArgument);
}

#[test]
fn a_text_that_is_no_name_is_the_id_of_no_volume() {
    for text in ["../x", "a/b", &"n".repeat(300)] {
        assert_eq!(volume_id(text).unwrap_err().kind(), ErrorKind::NotFound);
    }
    assert_eq!(
        volume_id("").unwrap_err().kind(),
        ErrorKind::InvalidArgument
    );
}

#[test]
fn room_is_told_whatever_a_class_says() {
    for (key, value) in [
        (
            "csi.storage.k8s.io/provisioner-secret-name",
            "site-registry",
        ),
        ("csi.storage.k8s.io/fstype", "xfs"),
        (
            "basImage",
            "misspelt: the claim is told so, by CreateVolume",
        ),
    ] {
        let wire = csi::GetCapacityRequest {
            parameters: map(&[(key, value)]),
            ..Default::default()
        };
        assert!(GetCapacity::parse(wire).is_ok(), "{key}");
    }
    let large = "v".repeat(MAP_BYTES);
    let wire = csi::GetCapacityRequest {
        parameters: map(&[("key", &large)]),
        ..Default::default()
    };
    assert!(GetCapacity::parse(wire).is_err());
}

/// Keys that mean something, and some that do not.
const KEYS: [&str; 14] = [
    "baseImage",
    "backingImage",
    "backingImageChecksum",
    "backingImageDataSourceType",
    "backingImageDataSourceParameters",
    "numberOfReplicas",
    "staleReplicaTimeout",
    "fromBackup",
    "fsType",
    "csi.storage.k8s.io/fstype",
    "csi.storage.k8s.io/pvc/name",
    "mkfsParams",
    "partition",
    "size",
];

proptest::proptest! {
    #[test]
    fn no_parameters_panic_and_every_refusal_is_the_callers(
        parameters in proptest::collection::hash_map(
            proptest::prop_oneof![proptest::sample::select(&KEYS[..]).prop_map(str::to_owned), ".{0,20}"],
            proptest::prop_oneof![
                ".{0,60}",
                "-?[0-9]{1,20}",
                "(ext4|xfs|download|null|-E nodiscard|-d /etc|[a-z./:@]{1,40})",
                r#"\{"(url|volume-name|export-type)":".{0,20}"\}"#,
            ],
            0..6,
        ),
        (required, limit) in (proptest::prelude::any::<i64>(), proptest::prelude::any::<i64>()),
        fs_type in "(|ext4|xfs|.{0,8})",
    ) {
        let wire = csi::CreateVolumeRequest {
            parameters,
            capacity_range: range(required, limit),
            volume_capabilities: vec![mount(&fs_type)],
            ..request()
        };
        if let Err(error) = CreateVolume::parse(wire) {
            let allowed = [ErrorKind::InvalidArgument, ErrorKind::OutOfRange];
            proptest::prop_assert!(allowed.contains(&error.kind()), "{error}");
            proptest::prop_assert!(types::report(&error).to_string().len() < 4096);
        }
    }
}
