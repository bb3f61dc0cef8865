//! Disks of other hypervisors, archives and devices as `--from`: qemu-img makes them, and compares.

use std::fs;
use std::path::Path;

use e2e::needs::Need;

use crate::support::{fails, has, succeeds, tool};

/// A raw disk with data at both ends.
fn disk(dir: &Path) {
    let file = fs::File::create(dir.join("disk.raw")).unwrap();
    // Not a whole number of cylinders.
    file.set_len((33 << 20) + 512).unwrap();
    for (at, byte) in [(1 << 20, 1), ((33 << 20), 2)] {
        std::os::unix::fs::FileExt::write_all_at(&file, &[byte; 512], at).unwrap();
    }
}

/// What `image` as a base image holds is what the raw disk holds.
#[track_caller]
fn assert_same(dir: &Path, image: &str) {
    let output = format!("oci-layout:{image}.layout");
    let mut arguments = vec![
        "build", "--from", image, "--output", &output, "--tag", "t:v1",
    ];
    arguments.extend(["--name", "it.qcow2", "--layer-compression", "none"]);
    succeeds(dir, &arguments);
    let layout = dir.join(output.strip_prefix("oci-layout:").unwrap());
    let blobs = fs::read_dir(layout.join("blobs/sha256")).unwrap();
    let layer = blobs
        .map(|blob| blob.unwrap().path())
        .max_by_key(|path| path.metadata().unwrap().len())
        .unwrap();
    tool(dir, "tar", ["-xf".as_ref(), layer.as_path()]);
    let names = ["base_image/it.qcow2", "base_image/it.raw"];
    tool(
        dir,
        "qemu-img",
        ["convert", "-O", "raw"].iter().chain(&names),
    );
    tool(dir, "cmp", ["disk.raw", "base_image/it.raw"]);
    fs::remove_dir_all(dir.join("base_image")).unwrap();
}

#[test]
fn row_192_what_qemu_img_reads_becomes_a_base_image() {
    if !has("qemu-img") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // A comma and an equals sign mean something to qemu-img.
    let dir = &dir.path().join("a,b=c");
    fs::create_dir(dir).unwrap();
    disk(dir);
    for (format, options, name) in [
        ("vmdk", "subformat=monolithicSparse", "sparse.vmdk"),
        ("vmdk", "subformat=streamOptimized", "stream.vmdk"),
        ("vdi", "static=off", "dynamic.vdi"),
        ("vdi", "static=on", "static.vdi"),
        ("vhdx", "subformat=dynamic", "dynamic.vhdx"),
        ("vhdx", "subformat=fixed", "fixed.vhdx"),
        ("vpc", "subformat=dynamic,force_size=on", "dynamic.vhd"),
        ("vpc", "subformat=fixed,force_size=on", "fixed.vhd"),
    ] {
        let arguments = ["convert", "-O", format, "-o", options, "disk.raw", name];
        tool(dir, "qemu-img", arguments);
        assert_same(dir, name);
    }
    fs::write(dir.join("machine.ovf"), "<Envelope/>").unwrap();
    tool(
        dir,
        "tar",
        ["-cf", "machine.ova", "machine.ovf", "stream.vmdk"],
    );
    assert_same(dir, "machine.ova");
}

#[test]
fn row_192_a_disk_whose_data_is_elsewhere_is_refused_unopened() {
    if !has("qemu-img") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    disk(dir);
    let make = |options: &str, name: &str| {
        let arguments = ["convert", "-O", "vmdk", "-o", options, "disk.raw", name];
        tool(dir, "qemu-img", arguments);
    };
    make("subformat=monolithicFlat", "flat.vmdk");
    make("subformat=monolithicSparse", "sparse.vmdk");
    let parent = ["-b", "sparse.vmdk", "-F", "vmdk", "child.vmdk"];
    tool(
        dir,
        "qemu-img",
        ["create", "-f", "vmdk"].iter().chain(&parent),
    );
    tool(dir, "qemu-img", ["create", "-f", "vpc", "other.vhd", "8M"]);
    let vhd = fs::File::options()
        .write(true)
        .open(dir.join("other.vhd"))
        .unwrap();
    std::os::unix::fs::FileExt::write_all_at(&vhd, &4_u32.to_be_bytes(), 60).unwrap();
    let sparse = fs::File::options()
        .write(true)
        .open(dir.join("sparse.vmdk"))
        .unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, &[0; 8], 12).unwrap();
    fs::write(dir.join("two.ovf"), "<Envelope/>").unwrap();
    tool(
        dir,
        "tar",
        ["-cf", "two.ova", "two.ovf", "sparse.vmdk", "child.vmdk"],
    );
    tool(dir, "tar", ["-cf", "bad.ova", "two.ovf", "child.vmdk"]);
    for (name, part) in [
        ("flat.vmdk", "data is in other files"),
        ("sparse.vmdk", "data is in other files"),
        ("child.vmdk", "the changes to another image"),
        ("other.vhd", "neither a fixed nor a dynamic VHD"),
        ("two.ova", "an OVA with 2 VMDK files"),
        ("bad.ova", "the changes to another image"),
    ] {
        let arguments = [
            "build",
            "--from",
            name,
            "--output",
            "oci-layout:o",
            "--tag",
            "t:v1",
        ];
        let said = fails(dir, &arguments);
        assert!(said.contains(name) && said.contains(part), "{name}: {said}");
        assert!(!dir.join("o").exists(), "{name}");
    }
}

#[test]
fn row_193_a_block_device_is_read_as_it_is_unless_it_is_in_use() {
    e2e::needs!(Need::Root, Need::LoopMount, Need::Tool("qemu-img"));
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    disk(dir);
    // Whatever a device holds is data: also what looks like an image of another format.
    let file = fs::File::options()
        .write(true)
        .open(dir.join("disk.raw"))
        .unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"QFI\xfb", 0).unwrap();
    let device = Loop::new(&dir.join("disk.raw"));
    let arguments = ["build", "--from", &device.0, "--format", "raw"];
    let more = [
        "--output",
        "oci-layout:o",
        "--tag",
        "t:v1",
        "--layer-compression",
        "none",
    ];
    succeeds(dir, &[&arguments[..], &more].concat());
    let blobs = fs::read_dir(dir.join("o/blobs/sha256")).unwrap();
    let layer = blobs
        .map(|blob| blob.unwrap().path())
        .max_by_key(|path| path.metadata().unwrap().len())
        .unwrap();
    tool(dir, "tar", ["-xf".as_ref(), layer.as_path()]);
    let made = fs::read_dir(dir.join("base_image"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    tool(dir, "cmp", [made.as_path(), Path::new("disk.raw")]);
    drop(device);

    let image = dir.join("mounted.raw");
    fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
    tool(dir, "mkfs.ext4", ["-q".as_ref(), image.as_path()]);
    let device = Loop::new(&image);
    fs::create_dir(dir.join("m")).unwrap();
    tool(dir, "mount", [device.0.as_str(), "m"]);
    let arguments = [
        "build",
        "--from",
        &device.0,
        "--output",
        "oci-layout:p",
        "--tag",
        "t:v1",
    ];
    let said = std::panic::catch_unwind(|| fails(dir, &arguments));
    tool(dir, "umount", ["m"]);
    let said = said.unwrap();
    assert!(
        said.contains(&device.0) && said.contains("unmount it first"),
        "{said}"
    );
}

/// A loop device of a file, detached when dropped.
struct Loop(String);

impl Loop {
    fn new(file: &Path) -> Self {
        let arguments: [&Path; 3] = ["--find".as_ref(), "--show".as_ref(), file];
        Self(tool(Path::new("/"), "losetup", arguments).trim().to_owned())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = std::process::Command::new("losetup")
            .args(["--detach", &self.0])
            .status();
    }
}
