use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::recovery::Found;
use super::super::{Disk, Place};
use types::Cancel;

use super::*;
use crate::provenance::Provenance;

struct Fixture {
    dir: tempfile::TempDir,
    images: ImageStore,
    work: ImageStore,
    id: ImageId,
    cancel: Cancel,
    read: AtomicU64,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    Disk::init(dir.path(), None).unwrap();
    let disk = Arc::new(Disk::open(dir.path()).unwrap());
    let work = Arc::new(Disk::open_for_work(dir.path()).unwrap());
    Fixture {
        images: ImageStore::new(disk, Place::Images),
        work: ImageStore::new(work, Place::Work),
        id: ImageId::new("img", "a93b9a55").unwrap(),
        dir,
        cancel: Cancel::never(),
        read: AtomicU64::new(0),
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
    fn work_file(&self) -> PathBuf {
        self.work.paths(&self.id).backing
    }

    /// What our own data source leaves.
    fn prepare(&self) -> SealedImage {
        let mut ingest = self.work.begin(&self.id, self.cancel.clone()).unwrap();
        ingest.write(&bytes()).unwrap();
        let facts = Facts {
            provenance: Provenance::uploaded(""),
            ..Facts::default()
        };
        let sealed = self
            .work
            .seal(&self.id, ingest.finish().unwrap(), &facts)
            .unwrap();
        self.work.release(&self.id).unwrap();
        sealed
    }

    fn prepare_as_longhorn(&self, bytes: &[u8], sidecar: Option<&Sha512>) {
        let path = self.work_file();
        durable::write_new(&path, bytes).unwrap();
        if let Some(sum) = sidecar {
            let time = Stamp::of(&path).unwrap().unwrap().modification_time();
            let text = format!(
                r#"{{"name":"{}","uuid":"a93b9a55","size":{},"virtualSize":0,"realSize":0,
                "expectedChecksum":"","currentChecksum":"{sum}","modificationTime":"{time}"}}"#,
                path.display(),
                bytes.len()
            );
            durable::write_new(&self.work.paths(&self.id).sidecar, text.as_bytes()).unwrap();
        }
    }

    fn take_over(&self, asked: &Asked) -> Result<SealedImage> {
        let progress = |read, _| self.read.store(read, Ordering::Relaxed);
        let reading = Reading {
            cancel: &self.cancel,
            progress: &progress,
        };
        self.images
            .take_over(&self.id, &self.work_file(), asked, reading)
    }

    fn work_files(&self) -> Vec<String> {
        let names = fs::read_dir(self.dir.path().join("tmp")).unwrap();
        let mut names: Vec<_> = names
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn is_ready(&self) -> bool {
        matches!(self.images.load().unwrap()[..], [Found::Ready(_)])
    }
}

#[test]
fn what_a_data_source_sealed_becomes_an_image_without_being_read() {
    let fixture = fixture();
    let prepared = fixture.prepare();
    let image = fixture.take_over(&Asked::default()).unwrap();
    assert_eq!(fixture.read.load(Ordering::Relaxed), 0);
    assert_eq!(image.checksum().unwrap(), Sha512::of(&bytes()));
    assert_eq!(
        image.seal.stamp.inode, prepared.seal.stamp.inode,
        "it was moved"
    );
    assert_eq!(image.seal.provenance, Provenance::uploaded(""));
    assert_eq!(fixture.work_files(), [""; 0]);
    assert!(fixture.is_ready());
    // Once more, as after a crash before the answer.
    assert_eq!(
        fixture
            .take_over(&Asked::default())
            .unwrap()
            .sidecar
            .current_checksum,
        image.sidecar.current_checksum
    );
}

/// With a sidecar that fits it is an image at once, and read later; without one it is read first.
#[test]
fn what_longhorn_left_is_read_once_and_moved() {
    for sidecar in [Some(Sha512::of(&bytes())), None] {
        let fixture = fixture();
        fixture.prepare_as_longhorn(&bytes(), sidecar.as_ref());
        let asked = Asked {
            expected: Some(Sha512::of(&bytes())),
            size: Some(3 << 20),
            format: None,
            ..Asked::default()
        };
        let image = fixture.take_over(&asked).unwrap();
        let told = sidecar.is_some();
        let read = if told { 0 } else { 3 << 20 };
        assert_eq!(fixture.read.load(Ordering::Relaxed), read);
        assert_eq!(image.seal.checksum_unproven, told);
        assert_eq!(fixture.images.manifest(&image).unwrap().is_none(), told);
        assert_eq!(
            image.sidecar.expected_checksum,
            Sha512::of(&bytes()).to_string()
        );
        assert_eq!(fixture.work_files(), [""; 0]);
        assert!(fixture.is_ready());
        let reading = Reading::silent(&fixture.cancel);
        let sum = fixture.images.prove(&image, reading).unwrap();
        let proven = fixture.images.proven(&image, sum).unwrap();
        assert!(!proven.seal.checksum_unproven);
        assert!(fixture.images.manifest(&proven).unwrap().is_some());
        assert!(fixture.is_ready());
    }
}

/// Longhorn's sidecar vouches for the file with its size and its time, and for no other.
#[test]
fn a_sidecar_of_longhorn_that_does_not_fit_vouches_for_nothing() {
    let spoil: [fn(&Fixture); 4] = [
        |f| replace(f, "modificationTime\":\"20", "modificationTime\":\"19"),
        |f| replace(f, "\"size\":3145728", "\"size\":3145729"),
        |f| replace(f, "\"currentChecksum\":\"", "\"currentChecksum\":\"x"),
        |f| {
            let file = File::options().write(true).open(f.work_file()).unwrap();
            file.set_len(3 << 20).unwrap();
            file.write_all_at(&bytes(), 0).unwrap();
            file.set_modified(std::time::SystemTime::UNIX_EPOCH)
                .unwrap();
        },
    ];
    for spoil in spoil {
        let fixture = fixture();
        fixture.prepare_as_longhorn(&bytes(), Some(&Sha512::of(&bytes())));
        spoil(&fixture);
        let image = fixture.take_over(&Asked::default()).unwrap();
        assert_eq!(fixture.read.load(Ordering::Relaxed), 3 << 20);
        assert!(!image.seal.checksum_unproven);
    }
}

/// Changes the text of the sidecar.
fn replace(fixture: &Fixture, from: &str, to: &str) {
    let path = fixture.work.paths(&fixture.id).sidecar;
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{text}");
    durable::replace(&path, text.replace(from, to).as_bytes()).unwrap();
}

/// The directory of another image, as a test of Longhorn's moves one.
#[test]
fn a_file_of_another_directory_is_taken_over_and_the_directory_goes() {
    let fixture = fixture();
    fixture.prepare();
    fixture.take_over(&Asked::default()).unwrap();
    let other = ImageId::new("other", "1").unwrap();
    let from = fixture.images.paths(&fixture.id);
    let reading = Reading::silent(&fixture.cancel);
    let image = fixture
        .images
        .take_over(&other, &from.backing, &Asked::default(), reading)
        .unwrap();
    assert_eq!(image.id, other);
    assert_eq!(
        image.sidecar.name,
        fixture.images.paths(&other).backing.to_string_lossy()
    );
    assert!(!from.dir.exists());
    assert!(fixture.is_ready());
}

/// Adopting never deletes: what is not as it should be is set aside, with what describes it.
#[test]
fn a_wrong_checksum_or_size_sets_the_file_aside() {
    let wrong = Some(Sha512::of(b"other"));
    let asked = [
        Asked {
            expected: wrong,
            ..Asked::default()
        },
        Asked {
            size: Some(512),
            ..Asked::default()
        },
    ];
    for asked in asked {
        for longhorns in [false, true] {
            let fixture = fixture();
            if longhorns {
                fixture.prepare_as_longhorn(&bytes(), None);
            } else {
                fixture.prepare();
            }
            let error = fixture.take_over(&asked).unwrap_err();
            let Error::SetAside { path, why } = error else {
                panic!("{error}")
            };
            assert!(why.to_string().contains("expected"), "{why}");
            assert_eq!(fs::read(path.join("backing")).unwrap(), bytes());
            assert!(fixture.images.load().unwrap().is_empty());
        }
    }
    // Longhorn's sidecar says otherwise from the beginning: nothing need be read.
    let fixture = fixture();
    fixture.prepare_as_longhorn(&bytes(), Some(&Sha512::of(&bytes())));
    let asked = Asked {
        expected: wrong,
        ..Asked::default()
    };
    let error = fixture.take_over(&asked).unwrap_err();
    assert!(matches!(error, Error::SetAside { .. }), "{error}");
    assert_eq!(fixture.read.load(Ordering::Relaxed), 0);
}

/// Bytes that rotted under Longhorn's eyes are an image, as they are for Longhorn, until they are read.
#[test]
fn what_longhorns_sidecar_says_is_proven_later() {
    let fixture = fixture();
    fixture.prepare_as_longhorn(&bytes(), Some(&Sha512::of(b"other")));
    let image = fixture.take_over(&Asked::default()).unwrap();
    let reading = Reading::silent(&fixture.cancel);
    let error = fixture.images.prove(&image, reading).unwrap_err();
    assert!(matches!(error, Error::Checksum { .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::DataLoss);
}

#[test]
fn what_is_no_disk_image_or_not_there_is_said_and_left() {
    let fixture = fixture();
    durable::create_dir(&fixture.dir.path().join("tmp")).unwrap();
    let error = fixture.take_over(&Asked::default()).unwrap_err();
    assert!(error.to_string().contains("cannot find"), "{error}");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    // Longhorn's engine could not read it either: a raw image of no whole number of sectors.
    fixture.prepare_as_longhorn(&[1; 1000], None);
    let error = fixture.take_over(&Asked::default()).unwrap_err();
    assert!(error.to_string().contains("512-byte sectors"), "{error}");
    assert_eq!(fixture.work_files(), ["img-a93b9a55"]);
    for elsewhere in ["/etc/hostname", "../x-1", "/data/tmp/../img-1"] {
        let reading = Reading::silent(&fixture.cancel);
        let refused =
            fixture
                .images
                .take_over(&fixture.id, elsewhere.as_ref(), &Asked::default(), reading);
        assert!(
            matches!(refused, Err(Error::InvalidField { .. })),
            "{elsewhere}"
        );
    }
}

#[test]
fn a_file_that_is_being_made_is_not_taken() {
    let fixture = fixture();
    let ingest = fixture
        .work
        .begin(&fixture.id, fixture.cancel.clone())
        .unwrap();
    assert!(matches!(
        fixture.take_over(&Asked::default()),
        Err(Error::WorkFileBusy(_))
    ));
    drop(ingest);
}

/// Where nobody names a sum it is left for later, and found in the end; where anybody does, the bytes must have it.
#[test]
fn a_file_that_nobody_vouches_for_is_adopted_without_a_sum() {
    let fixture = fixture();
    let paths = fixture.images.paths(&fixture.id);
    durable::create_dir(&paths.dir).unwrap();
    let file = durable::create_file(&paths.backing).unwrap();
    file.write_all_at(&bytes(), 0).unwrap();
    let reading = Reading::silent(&fixture.cancel);
    let adopt = |expected, checksum_later| {
        let asked = Asked {
            expected,
            checksum_later,
            ..Asked::default()
        };
        fixture.images.adopt(&fixture.id, &asked, reading)
    };
    let later = adopt(None, true).unwrap();
    assert_eq!(later.summed().unwrap(), None);
    let [Found::Ready(found)] = &fixture.images.load().unwrap()[..] else {
        panic!()
    };
    assert_eq!(found.summed().unwrap(), None, "as it is on the disk");
    let sum = fixture.images.prove(&later, reading).unwrap();
    let proven = fixture.images.proven(&later, sum).unwrap();
    assert_eq!(proven.checksum().unwrap(), sum);

    fs::remove_file(&paths.sidecar).unwrap();
    fs::remove_file(&paths.chunks).unwrap();
    adopt(None, true).unwrap();
    let named = adopt(Some(sum), true).unwrap();
    assert_eq!(
        named.checksum().unwrap(),
        sum,
        "of what had been left for later"
    );
    fs::remove_file(&paths.sidecar).unwrap();
    fs::remove_file(&paths.chunks).unwrap();
    let other = Sha512::of(b"other");
    assert!(matches!(
        adopt(Some(other), true),
        Err(Error::Checksum { .. })
    ));
    adopt(None, true).unwrap();
    assert_eq!(adopt(None, false).unwrap().checksum().unwrap(), sum);
}

/// Row 48: the file has its new name, and what is known of it is not written yet.
#[test]
fn row_48_a_file_that_was_renamed_before_the_power_went_is_read_and_adopted() {
    let fixture = fixture();
    fixture.prepare();
    let (at, to) = (
        fixture.work.paths(&fixture.id),
        fixture.images.paths(&fixture.id),
    );
    durable::create_dir(&to.dir).unwrap();
    fs::copy(&at.chunks, &to.chunks).unwrap();
    fs::copy(&at.sidecar, &to.sidecar).unwrap();
    assert!(
        fixture.images.load().unwrap().is_empty(),
        "without bytes it is nothing"
    );
    durable::create_dir(&to.dir).unwrap();
    fs::copy(&at.chunks, &to.chunks).unwrap();
    fs::copy(&at.sidecar, &to.sidecar).unwrap();
    durable::rename(&at.backing, &to.backing).unwrap();
    let [Found::Modified(touched)] = &fixture.images.load().unwrap()[..] else {
        panic!()
    };
    fixture.images.verify(touched, &fixture.cancel).unwrap();
    assert!(fixture.is_ready());
}

/// Longhorn's manager believes a file when its sidecar has these keys, the path as its name, and the
/// modification time that Go prints for the file (`time.Time.UTC().String()`).
#[test]
fn longhorn_can_adopt_what_we_wrote() {
    let fixture = fixture();
    fixture.prepare();
    let image = fixture.take_over(&Asked::default()).unwrap();
    let paths = fixture.images.paths(&fixture.id);
    let text = fs::read(&paths.sidecar).unwrap();
    let sidecar: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let meta = fs::metadata(&paths.backing).unwrap();
    let go_time = {
        let fraction = format!(".{:09}", meta.mtime_nsec());
        let seconds = jiff::Timestamp::from_second(meta.mtime()).unwrap();
        let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
        format!("{}{fraction} +0000 UTC", seconds.strftime("%F %T"))
    };
    let expected: [(&str, serde_json::Value); 8] = [
        ("name", paths.backing.to_str().unwrap().into()),
        ("uuid", "a93b9a55".into()),
        ("size", (3 << 20).into()),
        ("virtualSize", (3 << 20).into()),
        ("realSize", (meta.blocks() * 512).into()),
        ("expectedChecksum", "".into()),
        ("currentChecksum", Sha512::of(&bytes()).to_string().into()),
        ("modificationTime", go_time.into()),
    ];
    for (key, value) in expected {
        assert_eq!(sidecar[key], value, "{key}");
    }
    // Longhorn writes to it again: ours reads it and says so.
    File::options()
        .write(true)
        .open(&paths.backing)
        .unwrap()
        .write_all_at(b"x", 0)
        .unwrap();
    assert!(!fixture.images.is_untouched(&image).unwrap());
}
