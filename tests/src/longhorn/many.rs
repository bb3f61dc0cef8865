//! A disk with very many small images: copies of one that the daemon wrote.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use serde_json::{Value, json};

use super::spec;
use crate::Manager;

/// Bytes of each image.
const SIZE: u64 = 4096;

/// Puts `count` sealed images on the disk of a manager, which finds them at its next start.
#[track_caller]
pub fn fill(manager: &Manager, disk: &Path, count: u32) {
    let images = disk.join("backing-images");
    let first = images.join("image-00000000");
    write_image(&first.join("backing"));
    manager
        .fetch(spec("image", "00000000", SIZE, ""), "")
        .expect("adopt the first");
    let path = first.join("backing").display().to_string();
    manager.files().wait_ready(&path);
    let chunks = fs::read(first.join("backing.chunks")).expect("the manifest of the first");
    let sidecar = fs::read(first.join("backing.cfg")).expect("the sidecar of the first");
    let sidecar: Value = serde_json::from_slice(&sidecar).expect("a sidecar is JSON");
    for n in 1..count {
        let dir = images.join(format!("image-{n:08x}"));
        write_image(&dir.join("backing"));
        let meta = fs::metadata(dir.join("backing")).expect("inspect an image");
        let mut sidecar = sidecar.clone();
        sidecar["uuid"] = json!(format!("{n:08x}"));
        sidecar["name"] = json!(dir.join("backing").display().to_string());
        sidecar["seal"]["stamp"] = json!({
            "inode": meta.ino(),
            "size": meta.size(),
            "modified": [meta.mtime(), meta.mtime_nsec()],
            "changed": [meta.ctime(), meta.ctime_nsec()],
        });
        write(&dir.join("backing.cfg"), sidecar.to_string().as_bytes());
        write(&dir.join("backing.chunks"), &chunks);
    }
}

fn write_image(path: &Path) {
    fs::create_dir_all(path.parent().expect("an image has a directory")).expect("make it");
    write(path, &[7; 4096]);
}

fn write(path: &Path, bytes: &[u8]) {
    let file = fs::File::create(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    file.write_all_at(bytes, 0)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
