//! Row 58: a process is killed after every step in which the store adopts, assembles, sets aside and
//! tidies up; nothing that was there is lost, and the same calls then converge.
//!
//! The process that dies is this test binary itself, started again for the test `child`. The steps of
//! imports and volumes have a test of their own, with the daemon (`tests/tests/crash.rs`).
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test may print and panic"
)]

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use store::orphans::{Orphans, PART};
use store::recovery::Found;
use store::sidecar::Stamp;
use store::{
    Asked, Disk, Facts, ImageStore, Manifest, ManifestFile as _, Place, Reading, SealedImage,
};
use types::{Cancel, ImageId, Sha512};

/// Steps whose names begin so are taken by [`Life`].
const AREAS: [&str; 6] = [
    "store.adopt.",
    "store.prove.",
    "store.assembly.",
    "store.quarantine.",
    "store.orphans.",
    "store.delete.unlinked",
];

/// Images of work files and of assemblies, on one disk.
struct Life {
    root: PathBuf,
    images: ImageStore,
    work: ImageStore,
    cancel: Cancel,
}

fn id(name: &str) -> ImageId {
    ImageId::new(name, "a93b9a55").unwrap()
}

fn has(store: &ImageStore, name: &str) -> bool {
    store.paths(&id(name)).backing.exists()
}

/// Three MiB: data, a hole, data.
fn bytes() -> Vec<u8> {
    let mut bytes = vec![0; 3 << 20];
    bytes[..4096].fill(7);
    bytes[(2 << 20) + 5] = 9;
    bytes
}

impl Life {
    fn on(root: &Path) -> Self {
        let disk = Arc::new(Disk::open(root).unwrap());
        let work = Arc::new(Disk::open_for_work(root).unwrap());
        Self {
            root: root.to_owned(),
            images: ImageStore::new(disk, Place::Images),
            work: ImageStore::new(work, Place::Work),
            cancel: Cancel::never(),
        }
    }

    fn prepare(&self, name: &str) {
        let id = id(name);
        let mut ingest = self.work.begin(&id, self.cancel.clone()).unwrap();
        ingest.write(&bytes()).unwrap();
        self.work
            .seal(&id, ingest.finish().unwrap(), &Facts::default())
            .unwrap();
        self.work.release(&id).unwrap();
    }

    /// Every call, each as often as a caller repeats it who was not answered.
    fn live(&self) {
        if !has(&self.work, "adopted") && !has(&self.images, "adopted") {
            self.prepare("adopted");
        }
        self.acknowledge("prepared");
        let from = self.work.paths(&id("adopted")).backing;
        let reading = Reading::silent(&self.cancel);
        self.images
            .take_over(&id("adopted"), &from, &Asked::default(), reading)
            .unwrap();
        self.acknowledge("adopted");
        self.prove();
        if !has(&self.images, "assembled") {
            self.assemble();
        }
        self.early();
        self.acknowledge("early");
        self.acknowledge("assembled");
        if self.quarantined().is_none() {
            if !has(&self.work, "damaged") {
                self.prepare("damaged");
            }
            self.acknowledge("damaged");
            self.work.quarantine(&id("damaged")).unwrap();
        }
        self.acknowledge("quarantined");
        if !self.acknowledged("deleted") {
            self.prepare("deleted");
            self.work.delete(&id("deleted")).unwrap();
        }
        self.acknowledge("deleted");
        fs::File::create(self.work.paths(&id("orphan")).backing_tmp).unwrap();
        let mut orphans = Orphans::new(self.images.disk().clone());
        let now = Instant::now();
        orphans.pass(now, &|_| false).unwrap();
        orphans.pass(now + PART + PART, &|_| false).unwrap();
    }

    /// An image that Longhorn's manager sealed: ready as it is, and proven after that.
    fn prove(&self) {
        let id = id("longhorns");
        let paths = self.images.paths(&id);
        if !has(&self.images, "longhorns") {
            fs::create_dir(&paths.dir).unwrap();
            fs::copy(
                self.images.paths(&self::id("adopted")).backing,
                &paths.backing,
            )
            .unwrap();
            let stamp = Stamp::of(&paths.backing).unwrap().unwrap();
            let sidecar = serde_json::json!({"name": paths.backing, "uuid": id.uuid.as_str(),
                "size": stamp.size, "currentChecksum": Sha512::of(&bytes()).to_string(),
                "modificationTime": stamp.modification_time()});
            fs::File::create(&paths.sidecar)
                .unwrap()
                .write_all(sidecar.to_string().as_bytes())
                .unwrap();
        }
        let Some(Found::Ready(image)) = self.images.find(&id).unwrap() else {
            panic!("it is not ready at once")
        };
        if image.seal().checksum_unproven {
            let reading = Reading::silent(&self.cancel);
            let sum = self.images.prove(&image, reading).unwrap();
            self.images.proven(&image, sum).unwrap();
        }
        assert!(self.images.manifest(&image).unwrap().is_some());
    }

    /// An image that is ready before its sum is known, and then gets it.
    fn early(&self) {
        let id = id("early");
        if !has(&self.images, "early") {
            let ingest = self.images.begin(&id, self.cancel.clone()).unwrap();
            let mut ingest = ingest.without_checksum();
            ingest.write(&bytes()).unwrap();
            let received = ingest.finish().unwrap();
            self.images.seal(&id, received, &Facts::default()).unwrap();
        }
        let found = self.images.find(&id).unwrap();
        let image = match found {
            Some(Found::Ready(image)) => *image,
            Some(Found::Modified(image)) => self.images.verify(&image, &self.cancel).unwrap(),
            other => panic!("{other:?}"),
        };
        if image.seal().checksum_unproven {
            let sum = self.images.prove(&image, Reading::silent(&self.cancel));
            self.images.proven(&image, sum.unwrap()).unwrap();
        }
    }

    fn assemble(&self) {
        let adopted = self.images.paths(&id("adopted")).chunks;
        let known = Manifest::read(&adopted, 3 << 20).unwrap().unwrap();
        let id = id("assembled");
        let assembly = self
            .images
            .assemble(&id, 3 << 20, Some(known), self.cancel.clone())
            .unwrap();
        for index in assembly.missing() {
            let start = index as usize * (1 << 20);
            assembly
                .put_chunk(index, &bytes()[start..start + (1 << 20)])
                .unwrap();
        }
        self.images
            .seal(&id, assembly.finish().unwrap(), &Facts::default())
            .unwrap();
    }

    /// Where the bytes of the damaged work file were set aside.
    fn quarantined(&self) -> Option<PathBuf> {
        let dirs = fs::read_dir(self.root.join("tmp"))
            .unwrap()
            .map(|entry| entry.unwrap().path());
        dirs.map(|dir| dir.join("backing"))
            .find(|path| path.to_str().unwrap().contains(".quarantine-damaged") && path.exists())
    }

    /// Written beside the disk: what the caller was told.
    fn acknowledge(&self, what: &str) {
        drop(fs::File::create(self.root.with_extension(what)));
    }

    fn acknowledged(&self, what: &str) -> bool {
        self.root.with_extension(what).exists()
    }

    /// What a start makes of the disk: every image whole and ready, whatever had to be read.
    fn start(&self) -> Vec<SealedImage> {
        let found = self.images.load().unwrap();
        let ready = found.into_iter().map(|found| match found {
            Found::Ready(image) => *image,
            Found::Modified(image) => self.images.verify(&image, &self.cancel).unwrap(),
            Found::Unsealed(id, _) => self
                .images
                .adopt(&id, &Asked::default(), Reading::silent(&self.cancel))
                .unwrap(),
            Found::Unusable(id, error) => panic!("{id}: {error}"),
            Found::Upload(id, _) => panic!("{id}: nothing was uploaded"),
        });
        ready.collect()
    }

    /// Nothing that anybody was told of is lost, and nothing else is an image.
    fn check(&self, at: &str) {
        let ready = self.start();
        for image in &ready {
            let backing = fs::read(self.images.paths(image.id()).backing).unwrap();
            assert!(backing == bytes(), "{at}: {} has other bytes", image.id());
            let sum = image.summed().unwrap();
            let is_early = *image.id() == id("early") && !self.acknowledged("early");
            assert!(sum.is_none() || sum == Some(Sha512::of(&bytes())), "{at}");
            assert!(sum.is_some() || is_early, "{at}: {} has no sum", image.id());
        }
        let is_ready = |name: &str| ready.iter().any(|image| *image.id() == id(name));
        if self.acknowledged("prepared") && !is_ready("adopted") {
            assert!(
                !self.acknowledged("adopted"),
                "{at}: an adopted image is lost"
            );
            let there = fs::read(self.work.paths(&id("adopted")).backing).unwrap();
            assert!(there == bytes(), "{at}: the work file is lost");
        }
        assert!(
            is_ready("assembled") || !self.acknowledged("assembled"),
            "{at}"
        );
        if self.acknowledged("damaged") {
            let aside = self.quarantined();
            assert!(aside.is_some() || !self.acknowledged("quarantined"), "{at}");
            let path = aside.unwrap_or_else(|| self.work.paths(&id("damaged")).backing);
            assert!(
                fs::read(path).unwrap() == bytes(),
                "{at}: what was set aside is lost"
            );
        }
        assert!(
            !self.acknowledged("deleted") || !has(&self.work, "deleted"),
            "{at}"
        );
        for image in &ready {
            assert!(
                ["adopted", "assembled", "early", "longhorns"].contains(&image.id().name.as_str()),
                "{at}: {}",
                image.id()
            );
        }
    }
}

#[test]
fn child() {
    let Ok(dir) = std::env::var("STORE_CRASH_DIR") else {
        return;
    };
    types::crash::init();
    Life::on(Path::new(&dir)).live();
}

/// Where the sources of the store say that a step of these areas is done.
fn points() -> BTreeSet<String> {
    fn sources(dir: &Path, points: &mut BTreeSet<String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, points);
            } else {
                let text = fs::read_to_string(&path).unwrap();
                let names = text.split("crash_point!(\"").skip(1);
                points.extend(names.filter_map(|rest| rest.split('"').next().map(str::to_owned)));
            }
        }
    }
    let mut points = BTreeSet::new();
    sources(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &mut points,
    );
    points.retain(|point| AREAS.iter().any(|area| point.starts_with(area)));
    points
}

#[test]
fn row_58_kill_9_while_the_store_adopts_assembles_and_tidies_up_loses_nothing() {
    if !cfg!(feature = "failpoints") {
        eprintln!("skipped: needs the feature failpoints");
        return;
    }
    let points = points();
    assert!(points.len() >= AREAS.len(), "{points:?}");
    for point in points {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("disk");
        fs::create_dir(&root).unwrap();
        Disk::init(&root, None).unwrap();
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["child", "--exact", "--nocapture"])
            .env("STORE_CRASH_DIR", &root)
            .env("FAILPOINTS", format!("{point}=return"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            output.status.signal(),
            Some(9),
            "{point} was not reached: {said}"
        );
        let life = Life::on(&root);
        life.check(&point);
        life.live();
        life.check(&point);
        let left: Vec<_> = fs::read_dir(root.join("tmp"))
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(
            left.len(),
            1,
            "{point}: only what was set aside is left: {left:?}"
        );
    }
}
