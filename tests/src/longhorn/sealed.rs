//! Images as Longhorn's own manager leaves them on a disk.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::command;

/// An image `name`-`uuid` of `disk` whose file holds `bytes`, with the sidecar that Longhorn's manager
/// writes: the SHA-512 in it.
pub fn sealed(disk: &Path, (name, uuid): (&str, &str), bytes: &[u8]) -> String {
    let path = disk.join(format!("backing-images/{name}-{uuid}/backing"));
    let size = u64::try_from(bytes.len()).expect("a small image");
    let file = empty(&path, size);
    file.write_all_at(bytes, 0).expect("write an image");
    let sum = command::run("sha512sum", [&path])[..128].to_owned();
    describe(&path, uuid, size, &sum);
    sum
}

/// A file of `size` bytes without data that its sidecar says to have the SHA-512 `sum`.
pub fn sealed_as(path: &Path, uuid: &str, size: u64, sum: &str) {
    empty(path, size);
    describe(path, uuid, size, sum);
}

fn empty(path: &Path, size: u64) -> File {
    fs::create_dir_all(path.parent().expect("an image has a directory")).expect("make it");
    let file = File::create(path).expect("make an image's file");
    file.set_len(size).expect("set its length");
    file
}

fn describe(path: &Path, uuid: &str, size: u64, sum: &str) {
    let file = path.display().to_string();
    let time = command::run("date", ["-u", "-r", &file, "+%Y-%m-%d %H:%M:%S.%N"]);
    // Go leaves out zeros at the end.
    let time = time.trim().trim_end_matches('0').trim_end_matches('.');
    let sidecar = json!({
        "name": file, "uuid": uuid, "size": size, "virtualSize": size, "realSize": 0,
        "expectedChecksum": "", "currentChecksum": sum, "modificationTime": format!("{time} +0000 UTC"),
    });
    let beside: PathBuf = match path.file_name() {
        Some(name) if name == "backing" => path.with_extension("cfg"),
        _ => format!("{file}.cfg").into(),
    };
    let cfg = File::create(beside).expect("make a sidecar");
    cfg.write_all_at(sidecar.to_string().as_bytes(), 0)
        .expect("write a sidecar");
}
