#![expect(clippy::disallowed_methods, reason = "tests need no durable writes")]
//! Every file system, against its own checker, the kernel and the source.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use tree::Tree;

use super::*;

/// Those that give the same bytes for the same input.
const REPRODUCIBLE: usize = 2;
/// The file systems and their checkers.
const FILE_SYSTEMS: [(&str, FileSystem, &[&str]); 3] = [
    ("ext4", FileSystem::Ext4, &["e2fsck", "-fn"]),
    ("xfs", FileSystem::Xfs, &["xfs_repair", "-n", "-f"]),
    ("btrfs", FileSystem::Btrfs, &["btrfs", "check"]),
];

fn has(tool: &str) -> bool {
    let found = Command::new(tool).arg("-V").output().is_ok();
    if !found {
        println!("skipped: needs {tool}");
    }
    found
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: needs root");
    }
    root
}

/// What a command printed; it must succeed.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {text}");
    text
}

fn build(kind: FileSystem, source: &Path, size: u64, image: &Path) -> Result<()> {
    let tree = Tree::scan(source)?;
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(image)
        .unwrap();
    file.set_len(size).unwrap();
    let uuid = *b"base-image-uuid!";
    let request = Request {
        tree: &tree,
        size,
        label: "web",
        uuid,
        image: &file,
        path: image,
    };
    make(kind, &request)
}

/// Something of everything that a directory can hold.
fn sample(root: &Path) {
    let file = |name: &str, bytes: &[u8]| {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut out = File::create(path).unwrap();
        std::io::Write::write_all(&mut out, bytes).unwrap();
    };
    file("index.html", b"<h1>hello</h1>");
    file("a name with spaces", b"1");
    file("ünïcödé-名前", b"2");
    file("deep/er/still/file", &[7; 5000]);
    file("empty file", b"");
    // Like any other directory; its neighbours have its file's type, mode and size.
    file("lost+found/found", b"four");
    file("deep/lost+found/found", b"four");
    file("z1", b"four");
    file("z2", b"four");
    let pattern: Vec<u8> = (0..3_000_001_u32)
        .map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()[2])
        .collect();
    file("big", &pattern);
    file(&"n".repeat(255), b"long name");
    fs::create_dir(root.join("empty dir")).unwrap();
    fs::hard_link(root.join("index.html"), root.join("deep/hard link")).unwrap();
    symlink("a name with spaces", root.join("short link")).unwrap();
    symlink("t/".repeat(450), root.join("long link")).unwrap();
    let sparse = File::create(root.join("sparse")).unwrap();
    sparse.set_len(40 << 20).unwrap();
    for i in 0..120_u64 {
        std::os::unix::fs::FileExt::write_all_at(&sparse, &[9; 70], i * 300_000).unwrap();
    }
    for (count, name) in [
        (12, "twelve"),
        (60, "sixty"),
        (400, "hundreds"),
        (3000, "thousands"),
    ] {
        for i in 0..count {
            file(&format!("{name}/file number {i}"), b"x");
        }
    }
    sample_attributes(root);
}

/// Modes, times, owners, devices, extended attributes.
fn sample_attributes(root: &Path) {
    let mode = |name: &str, mode| {
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    mode("big", 0o4750);
    mode("empty dir", 0o1777);
    mode("", 0o2751);
    run(Command::new("touch")
        .args(["-h", "-d", "2001-02-03 04:05:06.789012345"])
        .args([
            root.join("big"),
            root.join("short link"),
            root.join("empty dir"),
            root.to_owned(),
        ]));
    if rustix::process::geteuid().is_root() {
        run(Command::new("mkfifo").arg(root.join("fifo")));
        run(Command::new("mknod")
            .arg(root.join("null"))
            .args(["c", "1", "3"]));
        run(Command::new("mknod")
            .arg(root.join("disk"))
            .args(["b", "259", "70000"]));
        run(Command::new("chown").arg("-h").arg("1000:70000").args([
            root.join("big"),
            root.join("short link"),
            root.to_owned(),
        ]));
        run(Command::new("touch")
            .args(["-d", "2001-02-03 04:05:06.789"])
            .arg(root));
    }
    let xattr = |name: &str, key: &str, value: &[u8]| {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(root.join(name), key, value, flags).unwrap();
    };
    xattr("big", "user.comment", b"a value");
    xattr("empty dir", "user.x", &[1; 200]);
    xattr("deep/er", "user.large", &[2; 1500]);
    xattr("deep/er", "user.other", b"");
    xattr("sparse", "user.sparse", &[3; 250]);
    // The access list "user::rw-, user:7:r--, group::r--, mask::r--, other::---".
    let entries = [
        (1_u16, 6_u16, u32::MAX),
        (2, 4, 7),
        (4, 4, u32::MAX),
        (16, 4, u32::MAX),
        (32, 0, u32::MAX),
    ];
    let mut acl = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        acl.extend(tag.to_le_bytes());
        acl.extend(permissions.to_le_bytes());
        acl.extend(id.to_le_bytes());
    }
    xattr("index.html", "system.posix_acl_access", &acl);
}

/// A mount of an image, gone when dropped.
struct Mount(PathBuf);

impl Mount {
    fn new(image: &Path, at: PathBuf) -> Self {
        fs::create_dir(&at).unwrap();
        run(Command::new("mount")
            .args(["-o", "loop,ro"])
            .args([image, &at]));
        Self(at)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// Everything about every file that a kind of file system keeps, as lines; directories' sizes are the file system's
/// own. `mkfs.btrfs --rootdir` keeps neither nanoseconds nor anything of the top directory but its names.
fn describe(root: &Path, kind: FileSystem) -> String {
    let mut lines = Vec::new();
    let tree = Tree::scan(root).unwrap();
    for (id, node) in tree.nodes() {
        let path = tree.path(id);
        let name = path.strip_prefix(root).unwrap();
        let content = match &node.kind {
            tree::Kind::Regular { .. } => {
                format!(
                    "{:?}",
                    ring::digest::digest(&ring::digest::SHA256, &fs::read(&path).unwrap())
                )
            }
            tree::Kind::Directory { entries } => {
                let names = entries
                    .iter()
                    .map(|(name, _)| String::from_utf8_lossy(name));
                names.collect::<Vec<_>>().join(" ")
            }
            other => format!("{other:?}"),
        };
        let tree::Node {
            mode,
            uid,
            gid,
            mtime,
            names,
            xattrs,
            ..
        } = node;
        let mut mtime = *mtime;
        if kind == FileSystem::Btrfs {
            mtime.nanoseconds = 0;
            if id == tree::ROOT {
                lines.push(content);
                continue;
            }
        }
        lines.push(format!(
            "{name:?} {content} {mode:o} {uid}:{gid} {mtime:?} {names} {xattrs:?}"
        ));
    }
    lines.join("\n")
}

#[test]
fn what_goes_in_is_what_the_kernel_reads() {
    if !is_root() {
        return;
    }
    for (name, kind, checker) in FILE_SYSTEMS {
        if !has(checker[0]) {
            continue;
        }
        let dir = tempfile::tempdir().unwrap();
        let (source, image) = (dir.path().join("source"), dir.path().join("image"));
        fs::create_dir(&source).unwrap();
        sample(&source);
        if kind == FileSystem::Btrfs {
            let said = build(kind, &source, 256 << 20, &image).unwrap_err();
            assert!(said.to_string().contains("a device node"), "{said}");
            fs::remove_file(&image).unwrap();
            fs::remove_file(source.join("null")).unwrap();
            fs::remove_file(source.join("disk")).unwrap();
        }
        build(kind, &source, 256 << 20, &image).unwrap();
        let check = Command::new(checker[0])
            .args(&checker[1..])
            .arg(&image)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&check.stdout) + String::from_utf8_lossy(&check.stderr);
        assert!(check.status.success(), "{name}: {said}");
        let mount = Mount::new(&image, dir.path().join("mount"));
        let (expected, found) = (describe(&source, kind), describe(&mount.0, kind));
        for (expected, found) in expected.lines().zip(found.lines()) {
            assert_eq!(found, expected, "{name}");
        }
        assert_eq!(expected.lines().count(), found.lines().count(), "{name}");
        let blocks =
            std::os::unix::fs::MetadataExt::blocks(&mount.0.join("sparse").metadata().unwrap());
        assert!(
            kind == FileSystem::Btrfs || blocks * 512 < 12 << 20,
            "{name}: the holes became {blocks} sectors"
        );
    }
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    for (name, kind, checker) in &FILE_SYSTEMS[..REPRODUCIBLE] {
        if !has(checker[0]) {
            continue;
        }
        let dir = tempfile::tempdir().unwrap();
        let (source, first) = (dir.path().join("source"), dir.path().join("first"));
        fs::create_dir(&source).unwrap();
        sample(&source);
        build(*kind, &source, 128 << 20, &first).unwrap();
        // Later, from another place, with other inodes, holes, access and change times, and with the
        // names in another order in their directories.
        std::thread::sleep(std::time::Duration::from_millis(1100));
        let elsewhere = dir.path().join("else where");
        run(Command::new("cp")
            .args(["-a", "--sparse=never"])
            .args([&source, &elsewhere]));
        let moved = elsewhere.join("index.html");
        fs::rename(&moved, elsewhere.join("zzz")).unwrap();
        fs::rename(elsewhere.join("zzz"), &moved).unwrap();
        run(Command::new("touch").arg("-r").args([&source, &elsewhere]));
        run(Command::new("touch")
            .args(["-a", "-d", "2030-01-01"])
            .args([elsewhere.join("big"), elsewhere.join("z2")]));
        // And with attributes that were set in another order.
        let directory = elsewhere.join("deep/er");
        for key in ["user.large", "user.other"] {
            rustix::fs::removexattr(&directory, key).unwrap();
        }
        for (key, value) in [("user.other", &[][..]), ("user.large", &[2; 1500])] {
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::setxattr(&directory, key, value, flags).unwrap();
        }
        let second = dir.path().join("second");
        build(*kind, &elsewhere, 128 << 20, &second).unwrap();
        run(Command::new("cmp").args([&first, &second]));
        // And it is the input that decides.
        fs::write(elsewhere.join("deep/er/new"), b"1").unwrap();
        let third = dir.path().join("third");
        build(*kind, &elsewhere, 128 << 20, &third).unwrap();
        let same = Command::new("cmp")
            .arg("-s")
            .args([&first, &third])
            .status()
            .unwrap();
        assert!(!same.success(), "{name}: one file more makes no difference");
    }
}

#[test]
fn row_185_a_file_system_that_is_not_whole_is_told_by_its_own_tool() {
    // Of a superblock, of an inode in a chunk, of a tree's node: whatever follows from its uuid.
    for (name, kind, checker) in FILE_SYSTEMS {
        if !has(checker[0]) {
            continue;
        }
        let dir = tempfile::tempdir().unwrap();
        let (source, image) = (dir.path().join("source"), dir.path().join("image"));
        fs::create_dir(&source).unwrap();
        fs::write(source.join("file"), vec![7; 100_000]).unwrap();
        build(kind, &source, 64 << 20, &image).unwrap();
        let progress = super::super::progress::Progress::new();
        check(kind, &image, &progress).unwrap();
        let bytes = fs::read(&image).unwrap();
        // The name of the file, where the root directory has it.
        let at = bytes.windows(4).rposition(|w| w == b"file").unwrap();
        let file = File::options().write(true).open(&image).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"fi/e", at as u64).unwrap();
        let error = check(kind, &image, &progress).unwrap_err();
        assert!(
            matches!(error, super::super::error::Error::NotWhole { .. }),
            "{name}: {error}"
        );
    }
}

/// More names in one directory than `mkfs.ext4 -d` is given.
const MANY: usize = 7_000;

/// Adds a directory of very many names.
fn many(root: &Path, folders: usize) {
    let many = root.join("many");
    fs::create_dir(&many).unwrap();
    for i in 0..folders {
        fs::create_dir(many.join(format!("folder-{i}"))).unwrap();
    }
}

/// Whether the tool that judges finds nothing, and the kernel reads what went in.
fn assert_whole_ext4(source: &Path, image: &Path, mount: PathBuf) {
    run(Command::new("e2fsck").arg("-fn").arg(image));
    if !is_root() {
        return;
    }
    let mount = Mount::new(image, mount);
    let kind = FileSystem::Ext4;
    assert_eq!(describe(&mount.0, kind), describe(source, kind));
}

#[test]
fn row_190_a_directory_of_very_many_names_is_filled_in_linear_time_on_ext4() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    fs::create_dir(&source).unwrap();
    sample(&source);
    // What ends a line of a script, or a word in it.
    for name in ["two\nlines", "a \"quoted\" name", "return\r", "#"] {
        fs::write(source.join(name), name).unwrap();
    }
    symlink("a\n\"target\"", source.join("odd link")).unwrap();
    many(&source, MANY);
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    build(FileSystem::Ext4, &source, 256 << 20, &first).unwrap();
    assert_whole_ext4(&source, &first, dir.path().join("mount"));
    std::thread::sleep(std::time::Duration::from_millis(1100));
    build(FileSystem::Ext4, &source, 256 << 20, &second).unwrap();
    run(Command::new("cmp").args([&first, &second]));
}

#[test]
fn more_folders_than_a_directory_counts_are_built_on_ext4() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    fs::create_dir(&source).unwrap();
    many(&source, 65_500);
    let image = dir.path().join("image");
    build(FileSystem::Ext4, &source, 512 << 20, &image).unwrap();
    run(Command::new("e2fsck").arg("-fn").arg(&image));
}

#[test]
fn contents_that_do_not_fit_are_refused_with_the_size_that_is_needed() {
    for (name, kind, checker) in FILE_SYSTEMS {
        if !has(checker[0]) {
            continue;
        }
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("source");
        fs::create_dir(&source).unwrap();
        fs::write(source.join("large"), vec![1; 60 << 20]).unwrap();
        let error = build(kind, &source, 48 << 20, &dir.path().join("small")).unwrap_err();
        let super::super::error::Error::TooSmall { needed, .. } = error else {
            panic!("{name}: {error}");
        };
        build(kind, &source, needed.bytes(), &dir.path().join("enough")).unwrap();
    }
}

#[test]
fn a_file_with_names_outside_of_the_directory_is_refused_on_btrfs() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), b"x").unwrap();
    fs::hard_link(source.join("file"), dir.path().join("outside")).unwrap();
    let image = dir.path().join("image");
    let said = build(FileSystem::Btrfs, &source, 64 << 20, &image).unwrap_err();
    let said = said.to_string();
    assert!(
        said.contains("source/file") && said.contains("1 more names"),
        "{said}"
    );
}
