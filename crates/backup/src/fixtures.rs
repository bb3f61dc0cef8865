//! The stores of `tests/data`, for tests: every file by its key.

use std::collections::BTreeMap;
use std::io::Read;

/// The bytes of each file below a folder of the archive.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

const ARCHIVE: &[u8] = include_bytes!("../tests/data/backup-fixtures.tar.gz");

/// The store that Longhorn wrote.
pub(crate) fn store() -> Files {
    below("longhorn-store/")
}

/// The damaged ones, by name.
pub(crate) fn hostile() -> BTreeMap<String, Files> {
    let mut stores: BTreeMap<String, Files> = BTreeMap::new();
    for (path, bytes) in below("hostile/") {
        let (store, key) = path.split_once('/').unwrap();
        stores
            .entry(store.to_owned())
            .or_default()
            .insert(key.to_owned(), bytes);
    }
    stores
}

/// What is below a folder of the archive.
pub(crate) fn below(folder: &str) -> Files {
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(ARCHIVE));
    let mut files = Files::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_str().unwrap().to_owned();
        let path = path.trim_start_matches("./");
        if let Some(key) = path
            .strip_prefix(folder)
            .filter(|_| entry.header().entry_type().is_file())
        {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            files.insert(key.to_owned(), bytes);
        }
    }
    files
}
