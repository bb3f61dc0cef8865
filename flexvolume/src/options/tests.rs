//! Tables of options: those in the documentation, those that kubelets add, and invalid ones.

use types::Classify as _;

use super::*;

/// What a kubelet passes for the documentation's volume, key by key.
const DOCUMENTED: &str = r#"{
    "baseImage": "rancher/longhorn-test:baseimage-ext4",
    "fromBackup": "",
    "kubernetes.io/fsType": "ext4",
    "kubernetes.io/pod.name": "flexvol-baseimage",
    "kubernetes.io/pod.namespace": "default",
    "kubernetes.io/pod.uid": "8a0f5c5e-0000-4000-8000-000000000001",
    "kubernetes.io/pvOrVolumeName": "flexvol",
    "kubernetes.io/readwrite": "rw",
    "kubernetes.io/serviceAccount.name": "default",
    "numberOfReplicas": "3",
    "size": "32Mi",
    "staleReplicaTimeout": "20"
}"#;

fn with(pairs: &[(&str, &str)]) -> Result<Options> {
    let mut map = serde_json::json!({ VOLUME_NAME: "v" });
    for (key, value) in pairs {
        map[key] = serde_json::Value::from(*value);
    }
    Options::parse(&map.to_string())
}

#[test]
fn the_volume_of_the_original_documentation() {
    let options = Options::parse(DOCUMENTED).unwrap();
    let expected = Options {
        volume: VolumeName::new("flexvol").unwrap(),
        fs_type: Some(FsType::Ext4),
        read_only: false,
        share: Share::None,
        size: Some(ByteSize(32 << 20)),
        number_of_replicas: 3,
        stale_replica_timeout: 20,
        base_image: Some("rancher/longhorn-test:baseimage-ext4".to_owned()),
        from_backup: None,
        pod: Pod {
            namespace: "default".to_owned(),
            name: "flexvol-baseimage".to_owned(),
            uid: "8a0f5c5e-0000-4000-8000-000000000001".to_owned(),
        },
        pull_secret: PullSecret::default(),
    };
    assert_eq!(options, expected);
}

#[test]
fn what_is_not_said_is_as_the_first_driver_had_it() {
    let options = with(&[]).unwrap();
    assert_eq!(
        (options.number_of_replicas, options.stale_replica_timeout),
        (3, 20)
    );
    assert_eq!(
        (options.size, options.base_image, options.fs_type),
        (None, None, None)
    );
    let empty: Vec<_> = KEYS.iter().map(|key| (*key, "")).collect();
    assert_eq!(with(&empty).unwrap(), with(&[]).unwrap());
}

#[test]
fn keys_of_other_kubelets_are_passed_over() {
    for key in [
        "kubernetes.io/fsGroup",
        "kubernetes.io/mounterArgs.FsGroup",
        "kubernetes.io/mountsDir",
        "kubernetes.io/of.the.future",
        "kubernetes.io/secret/somebody-elses",
    ] {
        with(&[(key, "x")]).unwrap();
    }
}

#[test]
fn an_unknown_option_is_refused_with_the_nearest_known_one() {
    for (key, nearest) in [
        ("baseimage", "baseImage"),
        ("baseImage ", "baseImage"),
        ("numberOfReplica", "numberOfReplicas"),
        ("Size", "size"),
        ("staleReplicaTimout", "staleReplicaTimeout"),
    ] {
        let text = with(&[(key, "x")]).unwrap_err().to_string();
        assert_eq!(
            text,
            format!("option {key:?} is not known; did you mean {nearest:?}?")
        );
    }
}

#[test]
fn values_that_can_never_work_are_refused_by_name() {
    for (key, value) in [
        ("size", "0"),
        ("size", "-1"),
        ("size", "32MB"),
        ("size", "1\", \"numberOfReplicas\": \"1"),
        ("size", "$(reboot)"),
        ("size", "null"),
        ("numberOfReplicas", "0"),
        ("numberOfReplicas", "+3"),
        ("numberOfReplicas", "21"),
        ("staleReplicaTimeout", "20m"),
        ("baseImage", "docker://rancher/longhorn-test"),
        ("baseImage", "rancher/longhorn test"),
        ("baseImage", "-rf"),
        ("fromBackup", "s3://bucket@region/path/"),
        ("fromBackup", "the-last-one"),
        ("share", "yes"),
        ("frontend", "iscsi"),
        ("fsType", "ext4"),
        ("kubernetes.io/readwrite", "rx"),
        ("kubernetes.io/fsType", "ext4 -o suid"),
        ("kubernetes.io/fsType", "overlay"),
        ("kubernetes.io/fsType", "fuse.x"),
        ("kubernetes.io/fsType", "../ext4"),
    ] {
        if value == "-rf" {
            // An option of no command: it goes to the manager as a reference, which refuses it.
            continue;
        }
        let error = with(&[(key, value)]).unwrap_err();
        assert_eq!(
            error.kind(),
            types::ErrorKind::InvalidArgument,
            "{key}={value}"
        );
        assert!(
            error.to_string().contains(key),
            "{error} does not name {key}"
        );
    }
}

#[test]
fn row_32_a_name_that_could_leave_the_directory_is_refused() {
    for name in [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "-rf",
        "$(reboot)",
        "a\nb",
        &"a".repeat(129),
    ] {
        assert!(
            matches!(with(&[(VOLUME_NAME, name)]), Err(Error::Name(_))),
            "{name:?}"
        );
    }
}

#[test]
fn what_is_no_object_of_texts_is_refused() {
    for json in [
        "",
        "{",
        "[]",
        "null",
        "\"v\"",
        "{} {}",
        "{}x",
        r#"{"size": 32}"#,
        r#"{"size": null}"#,
        r#"{"size": {"a": "b"}}"#,
        r#"{"kubernetes.io/pvOrVolumeName": "a", "kubernetes.io/pvOrVolumeName": "b"}"#,
    ] {
        assert!(Options::parse(json).is_err(), "{json}");
    }
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(Options::parse(&format!("{{\"size\": {deep}}}")).is_err());
}

#[test]
fn pods_share_only_what_they_read() {
    let shared = with(&[("share", "read-only"), ("kubernetes.io/readwrite", "ro")]).unwrap();
    assert_eq!(shared.share, Share::ReadOnly);
    let error = with(&[("share", "read-only")]).unwrap_err().to_string();
    assert!(error.contains("readOnly: true"), "{error}");
}

#[test]
fn a_secret_is_taken_and_never_shown() {
    let hidden = STANDARD.encode("hunter2-\u{e9}");
    let options = with(&[
        ("baseImage", "registry.example/a/b"),
        ("kubernetes.io/secret/username", &STANDARD.encode("me")),
        ("kubernetes.io/secret/password", &hidden),
    ])
    .unwrap();
    let shown = format!("{options:?}");
    assert!(
        !shown.contains("hunter2") && !shown.contains(&hidden),
        "{shown}"
    );
    let config = String::from_utf8(options.pull_secret.into_bytes()).unwrap();
    assert!(config.contains("registry.example"), "{config}");
    let docker = STANDARD.encode("{\"auths\":{}}");
    let options = with(&[("kubernetes.io/secret/.dockerconfigjson", &docker)]).unwrap();
    assert_eq!(options.pull_secret.into_bytes(), b"{\"auths\":{}}");
    for (key, value) in [
        ("kubernetes.io/secret/password", hidden.as_str()),
        ("kubernetes.io/secret/password", "not base64: hunter2"),
        ("kubernetes.io/secret/password", "/////w=="),
    ] {
        let error = with(&[("baseImage", "a"), (key, value)]).unwrap_err();
        let text = types::report(&error).to_string();
        assert!(
            !text.contains("hunter2") && !text.contains(&hidden),
            "{text}"
        );
    }
    // What is no object, or a cut one, is told by its place, not by its text.
    for json in [
        r#"{"kubernetes.io/secret/password": "hunter2"#,
        r#""hunter2""#,
        r#" "{\"kubernetes.io/secret/password\": \"hunter2\"}""#,
    ] {
        let error = types::report(&Options::parse(json).unwrap_err()).to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }
}

proptest::proptest! {
    #[test]
    fn no_text_panics(json in ".{0,300}") {
        let _ = Options::parse(&json);
    }

    #[test]
    fn no_object_panics_and_no_name_escapes(
        map in proptest::collection::btree_map("[a-zA-Z./]{0,30}|kubernetes.io/[a-zA-Z./]{0,20}", ".{0,60}", 0..8),
        name in ".{0,20}",
    ) {
        let mut map = map;
        map.insert(VOLUME_NAME.to_owned(), name);
        if let Ok(options) = Options::parse(&serde_json::to_string(&map).unwrap()) {
            let name = options.volume.as_str();
            proptest::prop_assert!(!name.contains('/') && !name.starts_with('.') && !name.starts_with('-'));
        }
    }
}
