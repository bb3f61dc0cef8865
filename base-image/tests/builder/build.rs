//! Successful builds and rejected input.

use std::fs;

use crate::support::{fails, has, inspect, policy, succeeds, tool, unpack, web};

const OUTPUTS: [(&str, &str); 3] = [
    ("oci-layout:layout", "oci:layout:example:v1"),
    ("oci-archive:oci.tar", "oci-archive:oci.tar:example:v1"),
    (
        "docker-archive:docker.tar",
        "docker-archive:docker.tar:example:v1",
    ),
];

#[test]
fn every_output_is_read_by_skopeo_and_its_disk_image_by_qemu() {
    if !has("skopeo") || !has("qemu-img") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    web(dir);
    let policy = policy(dir);
    for (fs_type, compression) in [("ext4", "zstd"), ("xfs", "gzip"), ("btrfs", "none")] {
        let mut arguments = vec!["build", "--from", "web", "--fs", fs_type, "--size", "64Mi"];
        arguments.extend(["--tag", "example:v1", "--layer-compression", compression]);
        arguments.extend(OUTPUTS.iter().flat_map(|(output, _)| ["--output", output]));
        let said = succeeds(dir, &arguments);
        for (i, (output, reference)) in OUTPUTS.iter().enumerate() {
            let name = format!("{fs_type}-{i}");
            let to = format!("dir:{name}");
            tool(dir, "skopeo", ["--policy", policy, "copy", reference, &to]);
            let disk = unpack(dir, &name);
            assert_eq!(disk.file_name().unwrap(), "web.qcow2");
            tool(dir, "qemu-img", ["check".as_ref(), disk.as_os_str()]);
            let seen = inspect(dir, &[output]);
            assert!(said.contains(&format!("{} {output}", seen["digest"].as_str().unwrap())));
            assert_eq!(seen["file"], "base_image/web.qcow2", "{output}");
            assert_eq!(
                (&seen["format"], &seen["virtualSize"]),
                (&"qcow2".into(), &(64 << 20).into())
            );
            assert_eq!(seen["realSize"], fs::metadata(&disk).unwrap().len());
            assert_eq!(seen["content"]["type"], "file-system");
            assert_eq!(seen["content"]["fsType"], fs_type);
        }
    }
}

#[test]
fn the_same_input_gives_the_same_digest_in_every_form() {
    let dir = tempfile::tempdir().unwrap();
    let first = dir.path().join("first");
    let second = dir.path().join("at another place");
    for place in [&first, &second] {
        fs::create_dir(place).unwrap();
        web(place);
    }
    let builds: [&[&str]; 5] = [
        &[
            "--from",
            "web",
            "--fs",
            "ext4",
            "--label",
            "web",
            "--compress",
        ],
        &[
            "--from", "web", "--fs", "xfs", "--size", "48Mi", "--format", "raw",
        ],
        &["--fs", "none", "--size", "4Gi"],
        &["--fs", "none", "--size", "100M", "--format", "raw"],
        &[
            "--from",
            "web",
            "--layer-compression",
            "gzip",
            "--platform",
            "linux/arm64",
        ],
    ];
    for build in builds {
        let outputs = [
            "--output",
            "oci-archive:oci.tar",
            "--output",
            "docker-archive:docker.tar",
        ];
        let arguments = [&["build"], build, &outputs].concat();
        let said = succeeds(&first, &arguments);
        std::thread::sleep(std::time::Duration::from_millis(1050));
        fs::read(second.join("web/index.html")).unwrap();
        assert_eq!(said, succeeds(&second, &arguments), "{build:?}");
        for archive in ["oci.tar", "docker.tar"] {
            let same =
                fs::read(first.join(archive)).unwrap() == fs::read(second.join(archive)).unwrap();
            assert!(same, "{build:?}: {archive}");
        }
        assert_eq!(
            fs::read_dir(&first).unwrap().count(),
            3,
            "something was left behind"
        );
    }
}

#[test]
fn the_empty_base_image_of_the_documentation() {
    let dir = tempfile::tempdir().unwrap();
    let build = [
        "build",
        "--fs",
        "none",
        "--size",
        "4G",
        "--output",
        "oci-layout:layout",
    ];
    succeeds(dir.path(), &build);
    let seen = inspect(dir.path(), &["oci-layout:layout"]);
    assert_eq!(
        (&seen["format"], &seen["virtualSize"]),
        (&"qcow2".into(), &4_000_002_048_u64.into())
    );
    assert_eq!(seen["content"]["type"], "blank");
    let table = succeeds(dir.path(), &["inspect", "oci-layout:layout"]);
    assert!(
        table.contains("Holds          nothing: it is blank"),
        "{table}"
    );
    assert!(
        fs::metadata(dir.path().join("layout/index.json"))
            .unwrap()
            .len()
            < 4096
    );
}

#[test]
fn a_disk_image_is_wrapped_as_it_is() {
    if !has("qemu-img") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    tool(
        dir,
        "qemu-img",
        [
            "create",
            "-q",
            "-f",
            "qcow2",
            "-o",
            "cluster_size=4k",
            "my disk.img",
            "1G",
        ],
    );
    succeeds(
        dir,
        &[
            "build",
            "--from",
            "my disk.img",
            "--output",
            "docker-archive:d.tar",
        ],
    );
    let seen = inspect(dir, &["docker-archive:d.tar"]);
    assert_eq!(seen["file"], "base_image/my_disk.qcow2");
    assert_eq!(
        seen["realSize"],
        fs::metadata(dir.join("my disk.img")).unwrap().len()
    );
    let as_raw = [
        "build",
        "--from",
        "my disk.img",
        "--format",
        "raw",
        "--output",
        "oci-archive:r.tar",
    ];
    succeeds(dir, &as_raw);
    let seen = inspect(dir, &["oci-archive:r.tar"]);
    assert_eq!(
        (&seen["format"], &seen["realSize"]),
        (&"raw".into(), &(1 << 30).into())
    );
    fs::write(dir.join("x.vmdk"), b"KDMV and so on").unwrap();
    let said = fails(
        dir,
        &["build", "--from", "x.vmdk", "--output", "oci-archive:v.tar"],
    );
    assert!(said.contains("VMDK"), "{said}");
}

#[test]
fn a_layout_keeps_its_other_images_and_replaces_the_one_of_the_name() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let build = |size: &str, tag: &str| {
        let arguments = [
            "build",
            "--fs",
            "none",
            "--size",
            size,
            "--output",
            "oci-layout:layout",
            "--tag",
            tag,
        ];
        succeeds(dir, &arguments);
    };
    build("1Mi", "a:1");
    build("2Mi", "b:1");
    build("3Mi", "a:1");
    let size =
        |tag: &str| inspect(dir, &["oci-layout:layout", "--tag", tag])["virtualSize"].clone();
    assert_eq!(
        (size("a:1"), size("b:1")),
        ((3 << 20).into(), (2 << 20).into())
    );
    fs::create_dir(dir.join("other")).unwrap();
    fs::write(dir.join("other/precious"), "x").unwrap();
    let said = fails(
        dir,
        &[
            "build",
            "--fs",
            "none",
            "--size",
            "1Mi",
            "--output",
            "oci-layout:other",
        ],
    );
    assert!(said.contains("not an OCI layout"), "{said}");
}

#[test]
fn what_cannot_work_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    web(dir);
    fs::write(dir.join("web/large"), vec![7; 9 << 20]).unwrap();
    for (arguments, expected) in [
        (&["--fs", "none"][..], "--size is missing"),
        (&[], "--from is missing"),
        (&["--fs", "ext4"], "--from is missing"),
        (&["--from", "web", "--fs", "none"], "leave --from out"),
        (&["--from", "nowhere"], "nowhere"),
        (
            &["--from", "web/index.html", "--fs", "ext4"],
            "packaged unchanged",
        ),
        (&["--from", "web", "--size", "0"], "must be between"),
        (&["--from", "web", "--size", "64MB"], "its unit is unknown"),
        (
            &["--from", "web", "--format", "raw", "--compress"],
            "--compress",
        ),
        (
            &["--from", "web", "--fs", "xfs", "--label", "thirteen char"],
            "has 13 bytes; xfs supports 12",
        ),
        (&["--from", "web", "--uuid", "1234"], "123e4567"),
        (&["--from", "web", "--name", "../x"], "visible ASCII"),
        (
            &["--from", "web", "--name", ".wh.x"],
            "not starting with '.'",
        ),
        (&["--from", "web", "--tag", "UPPER:1"], "lower-case"),
        (&["--from", "web", "--platform", "amd64"], "linux/arm64"),
        (
            &["--from", "web", "--size", "8Mi"],
            "needed; set a larger --size",
        ),
    ] {
        let all = [&["build", "--output", "oci-archive:x.tar"], arguments].concat();
        let said = fails(dir, &all);
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
    for (output, expected) in [
        ("web.tar", "oci-archive:web.tar"),
        ("file:x", "bare disk image"),
        ("oci-archive:no/dir/x.tar", "make it first"),
        ("docker:x", "docker://x"),
    ] {
        let said = fails(dir, &["build", "--from", "web", "--output", output]);
        assert!(said.contains(expected), "{output}: {said}");
    }
    assert_eq!(
        fs::read_dir(dir).unwrap().count(),
        1,
        "something was left behind"
    );
}
