//! Directories of every shape: supported contents are preserved, and unsupported contents are
//! rejected with the name of the file.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::needs::Need;

use crate::support::{fails, has, succeeds, tool};

const FILE_SYSTEMS: [&str; 3] = ["ext4", "xfs", "btrfs"];
/// Keeps no nanoseconds, and gives other bytes each time.
const COARSE: &str = "btrfs";

/// Builds an image of `from` and gives its digest and the raw disk.
#[track_caller]
fn build(dir: &Path, from: &str, file_system: &str, name: &str) -> (String, PathBuf) {
    let output = format!("oci-layout:{name}");
    let mut arguments = vec!["build", "--from", from, "--fs", file_system];
    arguments.extend(["--format", "raw", "--layer-compression", "none"]);
    arguments.extend(["--name", "disk.raw", "--output", &output, "--tag", "t:v1"]);
    let digest = succeeds(dir, &arguments);
    let blobs = fs::read_dir(dir.join(name).join("blobs/sha256")).unwrap();
    let layer = blobs
        .map(|blob| blob.unwrap().path())
        .max_by_key(|path| path.metadata().unwrap().len())
        .unwrap();
    let unpacked = dir.join(format!("{name}.unpacked"));
    fs::create_dir(&unpacked).unwrap();
    let arguments: [&Path; 4] = ["-xf".as_ref(), &layer, "-C".as_ref(), &unpacked];
    tool(dir, "tar", arguments);
    let digest = digest.split(' ').next().unwrap().to_owned();
    (digest, unpacked.join("base_image/disk.raw"))
}

/// What a build of `from` says when it fails.
#[track_caller]
fn refused(dir: &Path, from: &str, file_system: &str, more: &[&str]) -> String {
    let mut arguments = vec!["build", "--from", from, "--fs", file_system];
    arguments.extend(["--output", "oci-layout:refused", "--tag", "t:v1"]);
    arguments.extend(more);
    let said = fails(dir, &arguments);
    assert!(!dir.join("refused").exists(), "{said}");
    said
}

/// A mount of a disk, gone when dropped.
struct Mount(PathBuf);

impl Mount {
    fn new(disk: &Path) -> Self {
        let at = disk.with_extension("mount");
        fs::create_dir(&at).unwrap();
        let options: [&Path; 4] = ["-o".as_ref(), "loop,ro".as_ref(), disk, &at];
        tool(disk.parent().unwrap(), "mount", options);
        Self(at)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

fn touch(path: &Path, time: &str) {
    let arguments: [&Path; 3] = ["-d".as_ref(), time.as_ref(), path];
    tool(Path::new("/"), "touch", arguments);
}

#[test]
fn row_186_what_is_set_on_a_file_is_what_was_asked_of_its_name() {
    e2e::needs!(Need::Root, Need::LoopMount);
    for file_system in FILE_SYSTEMS {
        e2e::needs!(Need::FileSystem(file_system));
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let source = dir.join("s");
        fs::create_dir_all(source.join("lost+found")).unwrap();
        let times = [
            ("z1", 978_307_200, 500_000_000),
            ("z2", 1_012_608_000, 700_000_000),
            ("lost+found/x", 1_046_649_600, 0),
        ];
        for (name, seconds, nanoseconds) in times {
            fs::write(source.join(name), "four").unwrap();
            touch(&source.join(name), &format!("@{seconds}.{nanoseconds:09}"));
        }
        let (first, disk) = build(dir, "s", file_system, "first");
        let mount = Mount::new(&disk);
        for (name, seconds, nanoseconds) in times {
            let metadata = mount.0.join(name).metadata().unwrap();
            let kept = if file_system == COARSE {
                0
            } else {
                nanoseconds
            };
            assert_eq!(
                (metadata.mtime(), metadata.mtime_nsec()),
                (seconds, kept),
                "{file_system}: {name}"
            );
        }
        for name in ["z2", "lost+found/x"] {
            tool(&source, "touch", ["-a", "-d", "2030-01-01", name]);
        }
        let (second, _) = build(dir, "s", file_system, "second");
        assert!(first == second || file_system == COARSE, "{file_system}");
    }
}

#[test]
fn row_187_what_a_file_system_cannot_hold_is_refused_by_the_name_of_the_file() {
    e2e::needs!(Need::Root);
    // A file system of memory takes times, names and attributes that others do not.
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let dir = dir.path();
    let refused_with = |file_system: &str, name: &str, part: &str| {
        let said = refused(dir, "s", file_system, &[]);
        let path = format!("s/deep/{name}");
        assert!(
            said.contains(&path) && said.contains(part),
            "{file_system}: {said}"
        );
    };
    let with = |make: &dyn Fn(&Path), cases: &[(&str, &str)]| {
        let source = dir.join("s");
        fs::create_dir_all(source.join("deep")).unwrap();
        make(&source.join("deep/it"));
        for (file_system, part) in cases {
            refused_with(file_system, "it", part);
        }
        fs::remove_dir_all(source).unwrap();
    };
    let link = |length| move |it: &Path| symlink("t".repeat(length), it).unwrap();
    with(&link(1024), &[("xfs", "supports 1023")]);
    with(&link(4095), &[("btrfs", "supports 4094")]);
    let at = |time: &'static str| {
        move |it: &Path| {
            fs::write(it, "").unwrap();
            touch(it, time);
        }
    };
    let late = [("ext4", "1901-12-13 to 2446"), ("xfs", "to 2486-07-02")];
    with(&at("1901-12-13 20:45:51"), &late);
    with(&at("2446-05-10 22:38:56"), &late[..1]);
    with(&at("2486-07-02 20:20:25"), &late);
    let node = |it: &Path| {
        let node: [&Path; 4] = [it, "b".as_ref(), "259".as_ref(), "1048575".as_ref()];
        tool(dir, "mknod", node);
    };
    with(&node, &[("xfs", "259:1048575"), ("btrfs", "device node")]);
    let large = |it: &Path| {
        let file = fs::File::create(it).unwrap();
        file.set_len(16 << 40).unwrap();
    };
    with(&large, &[("ext4", "17592186040320")]);
    let attributes = |values: &'static [usize]| {
        move |it: &Path| {
            fs::write(it, "").unwrap();
            for (i, length) in values.iter().enumerate() {
                let name = format!("trusted.{i}");
                let flags = rustix::fs::XattrFlags::empty();
                rustix::fs::setxattr(it, name, &vec![b'x'; *length], flags).unwrap();
            }
        }
    };
    let room = [("ext4", "4060 in a block"), ("xfs", "4 KiB")];
    with(&attributes(&[8192]), &room);
    with(&attributes(&[2500, 2500]), &room);
    with(&attributes(&[20_000]), &[("btrfs", "trusted.0")]);
    let links = |it: &Path| {
        fs::write(it, "").unwrap();
        for i in 0..65_535 {
            fs::hard_link(it, it.with_extension(i.to_string())).unwrap();
        }
    };
    with(
        &links,
        &[("ext4", "supports 65000"), ("btrfs", "supports 65535")],
    );
    fs::create_dir(dir.join("s")).unwrap();
    fs::write(dir.join("s/lost+found"), "").unwrap();
    for file_system in ["ext4", "xfs"] {
        let said = refused(dir, "s", file_system, &[]);
        assert!(
            said.contains("s/lost+found") && said.contains("rename"),
            "{said}"
        );
    }
}

#[test]
fn row_187_what_just_fits_is_kept() {
    e2e::needs!(Need::Root, Need::LoopMount);
    for (file_system, target, latest, attributes) in [
        ("ext4", 4095, 15_032_385_535_i64, &[20, 4000][..]),
        ("xfs", 1023, 16_299_260_424, &[20, 3900]),
        ("btrfs", 4094, 16_299_260_425, &[20, 4000]),
    ] {
        e2e::needs!(Need::FileSystem(file_system));
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let dir = dir.path();
        let source = dir.join("s");
        fs::create_dir(&source).unwrap();
        symlink("t".repeat(target), source.join("link")).unwrap();
        let times = [("early", -(1_i64 << 31), 0), ("late", latest, 999_999_999)];
        for (name, seconds, nanoseconds) in times {
            fs::write(source.join(name), "").unwrap();
            touch(&source.join(name), &format!("@{seconds}.{nanoseconds:09}"));
        }
        for (i, length) in attributes.iter().enumerate() {
            let flags = rustix::fs::XattrFlags::empty();
            let (name, value) = (format!("trusted.{i}"), vec![b'x'; *length]);
            rustix::fs::setxattr(source.join("late"), name, &value, flags).unwrap();
        }
        let (_, disk) = build(dir, "s", file_system, "o");
        let mount = Mount::new(&disk);
        assert_eq!(
            fs::read_link(mount.0.join("link"))
                .unwrap()
                .as_os_str()
                .len(),
            target
        );
        for (name, seconds, nanoseconds) in times {
            let metadata = mount.0.join(name).metadata().unwrap();
            let found = (metadata.mtime(), metadata.mtime_nsec());
            let kept = if file_system == COARSE {
                0
            } else {
                nanoseconds
            };
            assert_eq!(found, (seconds, kept), "{file_system}: {name}");
        }
        for (i, length) in attributes.iter().enumerate() {
            let mut value = vec![0; 8192];
            let name = format!("trusted.{i}");
            let found = rustix::fs::getxattr(mount.0.join("late"), name, value.as_mut_slice());
            assert_eq!(found, Ok(*length), "{file_system}");
        }
    }
}

#[test]
fn row_188_a_size_that_cannot_be_is_refused_with_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::create_dir(dir.join("s")).unwrap();
    for (file_system, size, part) in [
        (
            "xfs",
            "16Mi",
            "at least 32Mi for XFS (xfsprogs supports XFS from 300Mi on)",
        ),
        ("btrfs", "32Mi", "at least 48Mi for btrfs"),
        (
            "ext4",
            "7Mi",
            "at least 8Mi for ext4 (a smaller one has no journal)",
        ),
    ] {
        let said = refused(dir, "s", file_system, &["--size", size]);
        assert!(said.contains(part), "{said}");
    }
    if has("dumpe2fs") {
        let (_, disk) = build(dir, "s", "ext4", "small");
        let said = tool(dir, "dumpe2fs", ["-h".as_ref(), disk.as_os_str()]);
        assert!(said.contains("has_journal"), "{said}");
    }
    let probe = fs::File::create(dir.join("probe")).unwrap();
    if probe.set_len(16 << 40).is_err() {
        let said = refused(dir, "s", "xfs", &["--size", "16Ti"]);
        assert!(
            said.contains("has a smaller limit (ext4: 16 TiB)"),
            "{said}"
        );
    }
}

#[test]
fn row_189_a_tree_deeper_than_a_path_can_be_is_copied() {
    e2e::needs!(Need::Root, Need::LoopMount);
    for file_system in FILE_SYSTEMS {
        e2e::needs!(Need::FileSystem(file_system));
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let script = r#"name=$(printf 'x%.0s' $(seq 250)); mkdir s; cd s
            for i in $(seq 40); do mkdir "$name"; cd "$name"; done; echo "the end" > end; echo 2 > z"#;
        tool(dir, "bash", ["-c", script]);
        if file_system == COARSE {
            let said = refused(dir, "s", file_system, &[]);
            assert!(said.contains("mkfs.btrfs takes 4095"), "{said}");
            continue;
        }
        let (_, disk) = build(dir, "s", file_system, "o");
        let mount = Mount::new(&disk);
        let found = ["-name", "end", "-execdir", "cat", "{}", ";"];
        let arguments = std::iter::once(mount.0.as_os_str()).chain(found.map(AsRef::as_ref));
        assert_eq!(tool(dir, "find", arguments), "the end\n", "{file_system}");
    }
}

#[test]
fn row_191_a_file_that_may_not_be_read_is_named_before_anything_is_made() {
    e2e::needs!(Need::Root);
    if !has("setpriv") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::set_permissions(dir, fs::Permissions::from_mode(0o777)).unwrap();
    // The program, where a plain user reaches it.
    let program = dir.join("program");
    fs::copy(env!("CARGO_BIN_EXE_base-image"), &program).unwrap();
    fs::create_dir_all(dir.join("s/deep")).unwrap();
    for (name, mode) in [("deep/closed", 0o600), ("deep/open", 0o644)] {
        fs::write(dir.join("s").join(name), "x").unwrap();
        fs::set_permissions(dir.join("s").join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    for file_system in FILE_SYSTEMS {
        let output = Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&program)
            .args(["build", "--from", "s", "--fs", file_system])
            .args(["--output", "oci-layout:o", "--tag", "t:v1"])
            .current_dir(dir)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(
            said.contains("s/deep/closed") && said.contains("Permission denied"),
            "{file_system}: {said}"
        );
        assert!(!said.contains("mkfs"), "{file_system}: {said}");
    }
}
