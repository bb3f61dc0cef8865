//! Damage of ready images: detected by the scrubber, quarantined, and repaired if possible.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use catalog::source::{Source, Sources};
use catalog::{Catalog, Lifecycle, NewImage, Scrubbing, Status};
use fetch::{AddressPolicy, Config, Credentials, Network, Tuning};
use store::sidecar::{Sidecar, SidecarFile, Stamp};
use store::{Disk, Facts, ImageStore, Manifest, ManifestFile as _, Place, Provenance};
use tokio_util::sync::CancellationToken;
use types::{Cancel, ImageId, Sha512};

const MIB: usize = 1 << 20;

struct Fixture {
    dir: tempfile::TempDir,
    store: ImageStore,
    catalog: Catalog,
    stop: CancellationToken,
    id: ImageId,
}

/// Four MiB: data, data, a hole, data.
fn bytes() -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..4 * MIB)
        .map(|at| u8::try_from(at % 251).unwrap() + 1)
        .collect();
    bytes[2 * MIB..3 * MIB].fill(0);
    bytes
}

impl Fixture {
    /// A disk with a ready image that says to be from `source` and has rotten bytes at these offsets,
    /// which stat(2) does not tell.
    fn with_image_from(source: &str, rotten: &[usize]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("disk");
        fs::create_dir(&root).unwrap();
        Disk::init(&root, None).unwrap();
        let store = ImageStore::new(Arc::new(Disk::open(&root).unwrap()), Place::Images);
        let id = ImageId::new("img", "a93b9a55").unwrap();
        let mut ingest = store.begin(&id, Cancel::never()).unwrap();
        ingest.write(&bytes()).unwrap();
        let facts = Facts {
            provenance: match source.strip_prefix("file:DIR/") {
                Some(name) => Provenance::File {
                    path: dir.path().join(name).display().to_string(),
                },
                None => Provenance::uploaded(""),
            },
            ..Facts::default()
        };
        let sealed = store.seal(&id, ingest.finish().unwrap(), &facts).unwrap();
        let paths = store.paths(&id);
        for at in rotten {
            rot(&paths.backing, *at as u64);
        }
        let seal = store::sidecar::Seal {
            stamp: Stamp::of(&paths.backing).unwrap().unwrap(),
            ..sealed.seal().clone()
        };
        let sidecar = Sidecar {
            seal: Some(seal),
            ..sealed.sidecar().clone()
        };
        sidecar.write(&paths.sidecar).unwrap();
        let network = Network::new(
            Config::default(),
            AddressPolicy::unrestricted(),
            Tuning::default(),
        );
        let imports = vec![fs::canonicalize(dir.path()).unwrap()];
        let sources = Sources::new(network, Credentials::anonymous(), imports);
        let stop = CancellationToken::new();
        let catalog = Catalog::load(store.clone(), sources, stop.clone()).unwrap();
        Self {
            dir,
            store,
            catalog,
            stop,
            id,
        }
    }

    fn is_ready(&self) -> bool {
        let status = self.catalog.get(&self.id.name, None).unwrap();
        matches!(status.state, Lifecycle::Ready(_))
    }

    fn backing(&self) -> PathBuf {
        self.store.paths(&self.id).backing
    }

    fn scrub(&self) {
        let catalog = self.catalog.clone();
        let scrubbing = Scrubbing {
            rate: 1 << 40,
            interval: Duration::ZERO,
        };
        tokio::spawn(async move { catalog.scrub(scrubbing).await });
    }

    async fn wait(&self, wanted: impl FnMut(&Status) -> bool) -> Status {
        let mut watch = self
            .catalog
            .watch(&self.id.name, Some(&self.id.uuid))
            .unwrap();
        let waiting = watch.wait_for(wanted);
        tokio::time::timeout(Duration::from_mins(5), waiting)
            .await
            .expect("in time")
            .unwrap()
            .clone()
    }

    async fn wait_for_another(&self, inode: u64) {
        self.wait(|status| matches!(&status.state, Lifecycle::Ready(image) if image.seal().stamp.inode != inode)).await;
    }

    fn inode(&self) -> u64 {
        std::os::unix::fs::MetadataExt::ino(&fs::metadata(self.backing()).unwrap())
    }

    fn quarantined(&self) -> Vec<PathBuf> {
        let dirs = fs::read_dir(self.dir.path().join("disk/backing-images")).unwrap();
        let dirs = dirs.map(|entry| entry.unwrap().path());
        dirs.filter(|path| path.to_str().unwrap().contains(".quarantine-"))
            .collect()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Changes a bit as a bad disk does.
fn rot(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
    file.sync_all().unwrap();
}

/// Row 61: found, set aside, and made anew from its own source.
#[tokio::test(flavor = "multi_thread")]
async fn row_61_a_flipped_bit_is_found_and_the_image_made_again_from_its_source() {
    let fixture = Fixture::with_image_from("file:DIR/source.raw", &[3 * MIB + 7]);
    File::create_new(fixture.dir.path().join("source.raw"))
        .unwrap()
        .write_all_at(&bytes(), 0)
        .unwrap();
    let inode = fixture.inode();
    assert!(fixture.is_ready(), "stat tells nothing");
    fixture.scrub();
    fixture.wait_for_another(inode).await;
    assert!(fs::read(fixture.backing()).unwrap() == bytes());
    let aside = fixture.quarantined();
    assert_eq!(aside.len(), 1, "the damaged bytes are kept");
    assert!(fs::read(aside[0].join("backing")).unwrap() != bytes());
    let counters = fixture.store.disk().counters();
    assert_eq!(counters.quarantined.load(Ordering::Relaxed), 1);
    assert_eq!(counters.healed.load(Ordering::Relaxed), 1);
}

/// Row 50: nobody has the bytes of an upload. It stays failed and says what to do.
#[tokio::test(flavor = "multi_thread")]
async fn row_50_an_upload_that_nobody_else_has_stays_failed_and_says_so() {
    let fixture = Fixture::with_image_from("upload", &[0]);
    assert!(fixture.is_ready(), "stat tells nothing");
    fixture.scrub();
    let status = fixture.wait(|status| {
        matches!(&status.state, Lifecycle::Failed(failure) if failure.message.contains("no peer or source is known"))
    });
    let Lifecycle::Failed(failure) = status.await.state else {
        panic!()
    };
    assert!(
        failure.message.contains("quarantined in"),
        "{}",
        failure.message
    );
    assert_eq!(fixture.quarantined().len(), 1);
    // Whoever has it brings it: the same request as for any failed image.
    let source = fixture.dir.path().join("again.raw");
    File::create_new(&source)
        .unwrap()
        .write_all_at(&bytes(), 0)
        .unwrap();
    let new = NewImage {
        name: Some(fixture.id.name.clone()),
        uuid: Some(fixture.id.uuid.clone()),
        source: Some(Source::File(source)),
        expected: Some(Sha512::of(&bytes())),
        format: None,
        size: 0,
        existing: catalog::Existing::Join,
        for_volumes: false,
    };
    fixture.catalog.create(new).unwrap();
    fixture
        .wait(|status| matches!(status.state, Lifecycle::Ready(_)))
        .await;
    fixture
        .catalog
        .delete(&fixture.id, || Ok(()))
        .await
        .unwrap();
}

/// Row 61: what was made from a good image is compared with it.
#[tokio::test(flavor = "multi_thread")]
async fn row_61_a_damaged_raw_form_is_dropped_and_made_again() {
    let fixture = Fixture::with_image_from("upload", &[]);
    let id = ImageId::new("packed", "1").unwrap();
    let source = probe::FileDisk::new(File::open(fixture.backing()).unwrap()).unwrap();
    let mut qcow2 = tempfile::NamedTempFile::new().unwrap();
    image::qcow2::create(
        &source,
        qcow2.as_file_mut(),
        &image::qcow2::CreateOptions::default(),
    )
    .unwrap();
    let mut ingest = fixture.store.begin(&id, Cancel::never()).unwrap();
    ingest.write(&fs::read(qcow2.path()).unwrap()).unwrap();
    let sealed = fixture
        .store
        .seal(&id, ingest.finish().unwrap(), &Facts::default())
        .unwrap();
    let network = Network::new(
        Config::default(),
        AddressPolicy::unrestricted(),
        Tuning::default(),
    );
    let sources = Sources::new(network, Credentials::anonymous(), Vec::new());
    let catalog = Catalog::load(fixture.store.clone(), sources, fixture.stop.clone()).unwrap();
    let raw = fixture
        .store
        .make_raw_form(&sealed, &Cancel::never())
        .unwrap();
    rot(&raw, 3 * MIB as u64);
    // Its stamp is forged too, as when the medium itself is at fault.
    let seal = fixture.store.paths(&id).raw_seal;
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&seal).unwrap()).unwrap();
    let stamp = Stamp::of(&raw).unwrap().unwrap();
    json["stamp"] = serde_json::to_value(stamp).unwrap();
    fs::remove_file(&seal).unwrap();
    serde_json::to_writer(File::create_new(&seal).unwrap(), &json).unwrap();
    assert!(fixture.store.raw_form(&sealed).unwrap().is_some());
    let scrubbing = Scrubbing {
        rate: 1 << 40,
        interval: Duration::ZERO,
    };
    tokio::spawn(async move { catalog.scrub(scrubbing).await });
    let dropped = async {
        while raw.exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(5), dropped)
        .await
        .expect("in time");
    fixture
        .store
        .make_raw_form(&sealed, &Cancel::never())
        .unwrap();
    assert!(fs::read(&raw).unwrap() == bytes());
}

/// A checksum that a peer only told is computed once the image is ready, also after a start; a wrong one
/// is found.
#[tokio::test(flavor = "multi_thread")]
async fn row_53_a_checksum_that_was_told_is_proven_later() {
    for right in [true, false] {
        let mut fixture = Fixture::with_image_from("upload", &[]);
        let paths = fixture.store.paths(&fixture.id);
        let sum = if right {
            Sha512::of(&bytes())
        } else {
            Sha512::of(b"other")
        };
        let SidecarFile::Good(mut sidecar) = Sidecar::read(&paths.sidecar).unwrap() else {
            panic!()
        };
        sidecar.seal.as_mut().unwrap().checksum_unproven = true;
        sidecar.current_checksum = sum.to_string();
        sidecar.write(&paths.sidecar).unwrap();
        let mut manifest = Manifest::read(&paths.chunks, sidecar.size)
            .unwrap()
            .unwrap();
        manifest.checksum = Some(sum);
        manifest.write(&paths.chunks).unwrap();
        let network = Network::new(
            Config::default(),
            AddressPolicy::unrestricted(),
            Tuning::default(),
        );
        let sources = Sources::new(network, Credentials::anonymous(), Vec::new());
        fixture.catalog =
            Catalog::load(fixture.store.clone(), sources, fixture.stop.clone()).unwrap();
        let proven = |status: &Status| match &status.state {
            Lifecycle::Ready(image) => right && !image.seal().checksum_unproven,
            Lifecycle::Failed(failure) => !right && failure.message.contains("checksum mismatch"),
            _ => false,
        };
        fixture.wait(proven).await;
        assert_eq!(fixture.quarantined().len(), usize::from(!right));
    }
}

/// Images that are deleted before a pass comes to them are passed over: nothing is said of damage.
#[tokio::test(flavor = "multi_thread")]
async fn row_201_what_is_deleted_while_a_pass_is_under_way_is_not_damaged() {
    let fixture = Fixture::with_image_from("upload", &[]);
    let ids: Vec<_> = (0..6)
        .map(|number| ImageId::new(&format!("other-{number}"), "a93b9a55").unwrap())
        .collect();
    for id in &ids {
        let mut ingest = fixture.store.begin(id, Cancel::never()).unwrap();
        ingest.write(&bytes()).unwrap();
        let received = ingest.finish().unwrap();
        fixture.store.seal(id, received, &Facts::default()).unwrap();
    }
    let network = Network::new(
        Config::default(),
        AddressPolicy::unrestricted(),
        Tuning::default(),
    );
    let sources = Sources::new(network, Credentials::anonymous(), Vec::new());
    let catalog = Catalog::load(fixture.store.clone(), sources, fixture.stop.clone()).unwrap();
    let counters = fixture.store.disk().counters();
    let scrubbing = Scrubbing {
        rate: 12 << 20,
        interval: Duration::ZERO,
    };
    let scrubber = catalog.clone();
    tokio::spawn(async move { scrubber.scrub(scrubbing).await });
    let until = async |done: &dyn Fn() -> bool| {
        let waiting = async {
            while !done() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_mins(5), waiting).await;
        waited.expect("in time");
    };
    until(&|| counters.scrub_images_done.load(Ordering::Relaxed) >= 1).await;
    for id in ids.iter().chain([&fixture.id]) {
        catalog.delete(id, || Ok(())).await.unwrap();
    }
    until(&|| counters.scrub_passes.load(Ordering::Relaxed) >= 1).await;
    assert_eq!(counters.scrub_damage.load(Ordering::Relaxed), 0);
    assert!(fixture.quarantined().is_empty());
}
