//! Images from their first byte to their last start, on a directory that is a disk.

mod later;
mod recovered;
mod sealed;
mod work;

use std::fs::{self, File, FileTimes};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use image::Format;
use types::Cancel;
use types::{ImageId, Sha512};

use super::recovery::Found;
use super::{Asked, Disk, Facts, ImageStore, Place, Reading, SealedImage};
use crate::error::Error;

struct Fixture {
    _dir: tempfile::TempDir,
    store: ImageStore,
    id: ImageId,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    Disk::init(dir.path(), None).unwrap();
    let store = ImageStore::new(Arc::new(Disk::open(dir.path()).unwrap()), Place::Images);
    Fixture {
        _dir: dir,
        store,
        id: ImageId::new("img", "a93b9a55").unwrap(),
    }
}

/// Three MiB: data, a hole, data.
fn bytes() -> Vec<u8> {
    let mut bytes = vec![0; 3 << 20];
    bytes[..4096].fill(7);
    bytes[(2 << 20) + 5] = 9;
    bytes
}

impl Fixture {
    fn try_seal(&self, bytes: &[u8], facts: &Facts) -> crate::Result<SealedImage> {
        let mut ingest = self.store.begin(&self.id, Cancel::never())?;
        ingest.write(bytes)?;
        self.store.seal(&self.id, ingest.finish()?, facts)
    }

    fn seal(&self) -> SealedImage {
        self.try_seal(&bytes(), &Facts::default()).unwrap()
    }

    fn load(&self) -> Vec<Found> {
        self.store.load().unwrap()
    }

    fn adopt(&self, id: &ImageId) -> crate::Result<SealedImage> {
        let cancel = Cancel::never();
        self.store
            .adopt(id, &Asked::default(), Reading::silent(&cancel))
    }

    /// The image that a start finds, ready and alone.
    fn ready(&self) -> SealedImage {
        let [Found::Ready(sealed)] = &self.load()[..] else {
            panic!()
        };
        (**sealed).clone()
    }

    fn backing(&self) -> std::path::PathBuf {
        self.store.paths(&self.id).backing
    }

    fn put_sidecar(&self, content: &[u8]) {
        super::durable::replace(&self.store.paths(&self.id).sidecar, content).unwrap();
    }

    fn files(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.store.disk().layout().images())
            .unwrap()
            .flat_map(|dir| fs::read_dir(dir.unwrap().path()).unwrap())
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

/// Changes one byte.
fn spoil(path: &Path, at: u64) {
    let file = File::options().write(true).open(path).unwrap();
    file.write_all_at(b"x", at).unwrap();
}
