//! Images from their first byte to their last start, on a directory that is a disk.

use std::fs::{self, File, FileTimes};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use image::Format;
use tokio_util::sync::CancellationToken;
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
        let mut ingest = self.store.begin(&self.id, CancellationToken::new())?;
        ingest.write(bytes)?;
        self.store.seal(&self.id, ingest.finish()?, facts)
    }

    fn seal(&self) -> SealedImage {
        self.try_seal(&bytes(), &Facts::default()).unwrap()
    }

    fn load(&self) -> Vec<Found> {
        self.store.load().unwrap()
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

/// Row 97: whoever comes back finds its images on its disk.
#[test]
fn row_97_a_sealed_image_is_ready_at_the_next_start_and_nothing_is_read() {
    let fixture = fixture();
    let sealed = fixture.seal();
    assert_eq!(sealed.checksum().unwrap(), Sha512::of(&bytes()));
    assert_eq!(
        fixture.files(),
        ["backing", "backing.cfg", "backing.chunks"]
    );
    let [Found::Ready(found)] = &fixture.load()[..] else {
        panic!()
    };
    assert_eq!(**found, sealed);
}

/// Row 28: a wrong sum fails with both sums in the text, and nothing is left of the bytes.
#[test]
fn row_28_a_wrong_checksum_leaves_nothing_and_the_right_one_works() {
    let fixture = fixture();
    let (right, wrong) = (Sha512::of(&bytes()), Sha512::of(b"other"));
    let with = |sum| Facts {
        expected: Some(sum),
        ..Facts::default()
    };
    let error = fixture
        .try_seal(&bytes(), &with(wrong))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains(&right.to_string()) && error.contains(&wrong.to_string()),
        "{error}"
    );
    assert_eq!(fixture.files(), [""; 0]);
    assert!(
        !fixture
            .try_seal(&bytes(), &with(right))
            .unwrap()
            .seal
            .unverified
    );
}

/// Row 29: without a sum, the computed one is recorded, marked as unverified, and enforced.
#[test]
fn row_29_an_unverified_image_says_so_and_is_held_to_its_own_checksum() {
    let fixture = fixture();
    let sealed = fixture.seal();
    assert!(sealed.seal.unverified);
    assert_eq!(
        sealed.sidecar.current_checksum,
        Sha512::of(&bytes()).to_string()
    );
    File::options()
        .write(true)
        .open(fixture.backing())
        .unwrap()
        .write_all_at(b"x", 0)
        .unwrap();
    assert!(matches!(
        fixture.store.verify(&sealed, &CancellationToken::new()),
        Err(Error::Damaged { .. })
    ));
}

/// Row 44: a raw image that looks like qcow2 stays raw, and is never asked again.
#[test]
fn row_44_a_declared_format_is_never_guessed_again() {
    let fixture = fixture();
    let mut disguised = bytes();
    disguised[..4].copy_from_slice(b"QFI\xfb");
    let facts = Facts {
        format: Some(Format::Raw),
        ..Facts::default()
    };
    let sealed = fixture.try_seal(&disguised, &facts).unwrap();
    assert_eq!(
        (sealed.format(), sealed.sidecar.virtual_size),
        (Format::Raw, 3 << 20)
    );
    let [Found::Ready(found)] = &fixture.load()[..] else {
        panic!()
    };
    assert_eq!(found.format(), Format::Raw);
    // Not declared, the same bytes are a broken qcow2 and refused.
    let other = Fixture {
        id: ImageId::new("other", "1").unwrap(),
        ..fixture
    };
    assert!(matches!(
        other.try_seal(&disguised, &Facts::default()),
        Err(Error::Image(_))
    ));
}

/// Row 62: whatever happens to the sidecar, the image comes back by its bytes.
#[test]
fn row_62_an_image_without_a_usable_sidecar_is_read_and_sealed_again() {
    let fixture = fixture();
    let sealed = fixture.seal();
    let other = br#"{"name":"x","uuid":"ffffffff","size":1}"#;
    for sidecar in [&b""[..], b"{\"name\":", b"\xff\xfe\x00", b"{}", other] {
        fixture.put_sidecar(sidecar);
        let [Found::Unsealed(id, None)] = &fixture.load()[..] else {
            panic!("{sidecar:?}")
        };
        let adopted = fixture
            .store
            .adopt(
                id,
                &Asked::default(),
                Reading::silent(&CancellationToken::new()),
            )
            .unwrap();
        assert_eq!(
            adopted.sidecar.current_checksum,
            sealed.sidecar.current_checksum
        );
        assert!(matches!(fixture.load()[..], [Found::Ready(_)]));
    }
    // Without the manifest too, the bytes are hashed.
    fs::remove_file(fixture.store.paths(&fixture.id).sidecar).unwrap();
    fs::remove_file(fixture.store.paths(&fixture.id).chunks).unwrap();
    let adopted = fixture
        .store
        .adopt(
            &fixture.id,
            &Asked::default(),
            Reading::silent(&CancellationToken::new()),
        )
        .unwrap();
    assert_eq!(
        adopted.sidecar.current_checksum,
        sealed.sidecar.current_checksum
    );
}

/// Row 62: a sidecar of the future keeps everybody's hands off.
#[test]
fn row_62_an_image_of_a_newer_version_is_not_touched() {
    let fixture = fixture();
    fixture.seal();
    fixture.put_sidecar(br#"{"uuid":"a93b9a55","seal":{"version":99},"shape":["new"]}"#);
    File::create(fixture.store.paths(&fixture.id).backing_tmp).unwrap();
    let before = fixture.files();
    let [Found::Unusable(_, Error::NewerFormat { version: 99, .. })] = &fixture.load()[..] else {
        panic!()
    };
    assert_eq!(fixture.files(), before);
}

/// Row 62: bytes that no longer agree with the manifest are not adopted.
#[test]
fn row_62_damaged_bytes_are_not_adopted() {
    let fixture = fixture();
    fixture.seal();
    fixture.put_sidecar(b"");
    File::options()
        .write(true)
        .open(fixture.backing())
        .unwrap()
        .write_all_at(b"x", 1 << 20)
        .unwrap();
    assert!(matches!(
        fixture.store.adopt(
            &fixture.id,
            &Asked::default(),
            Reading::silent(&CancellationToken::new())
        ),
        Err(Error::Damaged { .. })
    ));
}

/// A sidecar of Longhorn's own: its checksum must be right, then ours is written.
#[test]
fn an_image_that_longhorn_sealed_is_adopted_by_its_checksum() {
    let fixture = fixture();
    fixture.seal();
    fs::remove_file(fixture.store.paths(&fixture.id).chunks).unwrap();
    let sidecar = |sum: &str| {
        format!(
            r#"{{"name":"/data/backing-images/img-a93b9a55/backing","uuid":"a93b9a55",
            "size":3145728,"expectedChecksum":"","currentChecksum":"{sum}","modificationTime":""}}"#
        )
    };
    fixture.put_sidecar(sidecar(&Sha512::of(b"other").to_string()).as_bytes());
    let [Found::Unsealed(id, Some(_))] = &fixture.load()[..] else {
        panic!()
    };
    assert!(matches!(
        fixture.store.adopt(
            id,
            &Asked::default(),
            Reading::silent(&CancellationToken::new())
        ),
        Err(Error::Damaged { .. })
    ));
    assert!(
        fixture.backing().exists(),
        "a wrong checksum must never delete the bytes"
    );
    fixture.put_sidecar(sidecar(&Sha512::of(&bytes()).to_string()).as_bytes());
    let [Found::Unsealed(id, Some(_))] = &fixture.load()[..] else {
        panic!()
    };
    assert!(
        !fixture
            .store
            .adopt(
                id,
                &Asked::default(),
                Reading::silent(&CancellationToken::new())
            )
            .unwrap()
            .seal
            .unverified
    );
}

/// Row 64: the same bytes under a new stamp are ready again, other bytes never are, though their
/// modification time was set back.
#[test]
fn row_64_a_touched_image_is_read_and_a_forged_time_does_not_help() {
    let fixture = fixture();
    let sealed = fixture.seal();
    let path = fixture.backing();
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    let touch = |bytes: &[u8]| {
        file.write_all_at(bytes, 0).unwrap();
        file.set_times(FileTimes::new().set_modified(time)).unwrap();
    };
    touch(&[7; 16]);
    assert!(!fixture.store.is_untouched(&sealed).unwrap());
    assert!(matches!(fixture.load()[..], [Found::Touched(_)]));
    let fresh = fixture
        .store
        .verify(&sealed, &CancellationToken::new())
        .unwrap();
    assert!(fixture.store.is_untouched(&fresh).unwrap());
    assert!(matches!(fixture.load()[..], [Found::Ready(_)]));

    touch(&[8; 16]);
    let error = fixture
        .store
        .verify(&fresh, &CancellationToken::new())
        .unwrap_err();
    assert!(error.to_string().contains("offset 0"), "{error}");
    let aside = fixture.store.quarantine(&fixture.id).unwrap();
    assert!(aside.join("backing").exists());
    assert!(fixture.load().is_empty());
}

/// Row 64: removed, truncated, replaced by something that is no file.
#[test]
fn row_64_a_file_that_is_gone_or_cut_is_noticed() {
    let fixture = fixture();
    let sealed = fixture.seal();
    File::options()
        .write(true)
        .open(fixture.backing())
        .unwrap()
        .set_len(512)
        .unwrap();
    let error = fixture
        .store
        .verify(&sealed, &CancellationToken::new())
        .unwrap_err();
    assert!(error.to_string().contains("512 bytes"), "{error}");
    fs::remove_file(fixture.backing()).unwrap();
    assert!(!fixture.store.is_untouched(&sealed).unwrap());
    fs::create_dir(fixture.backing()).unwrap();
    assert!(matches!(fixture.load()[..], [Found::Unusable(..)]));
    fs::remove_dir(fixture.backing()).unwrap();
    assert!(fixture.load().is_empty());
    assert!(
        !fixture.store.paths(&fixture.id).dir.exists(),
        "an image without bytes is no image"
    );
}

#[test]
fn a_start_removes_what_a_crash_left() {
    let fixture = fixture();
    let layout = fixture.store.disk().layout().clone();
    fixture.seal();
    let paths = fixture.store.paths(&fixture.id);
    let half = fixture.store.paths(&ImageId::new("half", "1").unwrap());
    fs::create_dir(&half.dir).unwrap();
    fs::create_dir(layout.images().join(".deleting-x-1")).unwrap();
    for leftover in [&paths.backing_tmp, &paths.raw_tmp, &half.backing_tmp] {
        File::create(leftover).unwrap();
    }
    assert!(matches!(fixture.load()[..], [Found::Ready(_)]));
    assert_eq!(
        fixture.files(),
        ["backing", "backing.cfg", "backing.chunks"]
    );
    assert_eq!(fs::read_dir(layout.images()).unwrap().count(), 1);
}

#[test]
fn deleting_twice_is_fine() {
    let fixture = fixture();
    fixture.seal();
    fixture.store.delete(&fixture.id).unwrap();
    fixture.store.delete(&fixture.id).unwrap();
    assert!(fixture.load().is_empty());
}

#[test]
fn the_raw_form_is_made_once_and_again_when_it_was_touched() {
    let fixture = fixture();
    let source = tempfile::tempfile().unwrap();
    source.write_all_at(&bytes(), 0).unwrap();
    let source = probe::FileDisk::new(source).unwrap();
    let mut qcow2 = tempfile::NamedTempFile::new().unwrap();
    image::qcow2::create(
        &source,
        qcow2.as_file_mut(),
        &image::qcow2::CreateOptions::default(),
    )
    .unwrap();
    let sealed = fixture
        .try_seal(&fs::read(qcow2.path()).unwrap(), &Facts::default())
        .unwrap();
    assert_eq!(
        (sealed.format(), sealed.sidecar.virtual_size),
        (Format::Qcow2, 3 << 20)
    );
    assert_eq!(fixture.store.raw_form(&sealed).unwrap(), None);

    let cancel = CancellationToken::new();
    let path = fixture.store.make_raw_form(&sealed, &cancel).unwrap();
    assert_eq!(fs::read(&path).unwrap(), bytes());
    assert_eq!(fixture.store.raw_form(&sealed).unwrap(), Some(path.clone()));
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .write_all_at(b"x", 0)
        .unwrap();
    assert_eq!(fixture.store.raw_form(&sealed).unwrap(), None);
    fixture.store.make_raw_form(&sealed, &cancel).unwrap();
    assert_eq!(fs::read(&path).unwrap(), bytes());
}

#[test]
fn what_is_no_disk_image_is_refused() {
    let fixture = fixture();
    let error = fixture.try_seal(b"", &Facts::default()).unwrap_err();
    assert!(error.to_string().contains("empty"), "{error}");
    assert_eq!(fixture.files(), [""; 0]);
}

#[test]
fn a_directory_of_others_is_left_alone_whatever_it_is_called() {
    let fixture = fixture();
    let theirs = fixture.store.disk().layout().images().join("old-images");
    fs::create_dir(&theirs).unwrap();
    File::create(theirs.join("debian.qcow2")).unwrap();
    File::create(theirs.join("notes.tmp")).unwrap();
    assert!(fixture.load().is_empty());
    assert_eq!(fs::read_dir(&theirs).unwrap().count(), 2);
}

/// Nobody waits for the end of a long read that is no longer wanted.
#[test]
fn verifying_ends_when_it_is_called_off() {
    let fixture = fixture();
    let sealed = fixture.seal();
    let cancel = CancellationToken::new();
    cancel.cancel();
    fixture.put_sidecar(b"");
    assert!(matches!(
        fixture.store.verify(&sealed, &cancel),
        Err(Error::Cancelled(_))
    ));
    assert!(matches!(
        fixture
            .store
            .adopt(&fixture.id, &Asked::default(), Reading::silent(&cancel)),
        Err(Error::Cancelled(_))
    ));
}

/// A work file goes the same way, beside those of other processes.
#[test]
fn a_work_file_belongs_to_one_process_until_it_is_released_or_deleted() {
    let dir = tempfile::tempdir().unwrap();
    Disk::init(dir.path(), None).unwrap();
    let open = || {
        let disk = Disk::open_for_work(dir.path()).unwrap();
        Fixture {
            _dir: tempfile::tempdir().unwrap(),
            store: ImageStore::new(Arc::new(disk), Place::Work),
            id: ImageId::new("img", "a93b9a55").unwrap(),
        }
    };
    let (source, other) = (open(), open());
    let sealed = source.seal();
    assert_eq!(source.backing(), dir.path().join("tmp/img-a93b9a55"));
    let Some(Found::Ready(found)) = other.store.find(&other.id).unwrap() else {
        panic!()
    };
    assert_eq!(*found, sealed);
    assert!(other.load().is_empty(), "it is for whoever knows its name");
    // The daemon's start does not touch it.
    let daemon = Arc::new(Disk::open(dir.path()).unwrap());
    assert!(
        ImageStore::new(daemon, Place::Work)
            .load()
            .unwrap()
            .is_empty()
    );
    for refused in [
        other.store.begin(&other.id, CancellationToken::new()).err(),
        other.store.delete(&other.id).err(),
    ] {
        assert!(
            matches!(refused, Some(Error::WorkFileBusy(_))),
            "{refused:?}"
        );
    }
    source.store.release(&source.id).unwrap();
    other.store.delete(&other.id).unwrap();
    other.store.delete(&other.id).unwrap();
    assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
    // A name that is that of a file beside another one.
    let beside = ImageId::new("img", "a93b9a55.cfg").unwrap();
    assert!(
        other
            .store
            .begin(&beside, CancellationToken::new())
            .is_err()
    );
}

#[test]
fn a_damaged_work_file_is_set_aside_with_what_describes_it() {
    let dir = tempfile::tempdir().unwrap();
    Disk::init(dir.path(), None).unwrap();
    let disk = Arc::new(Disk::open_for_work(dir.path()).unwrap());
    let fixture = Fixture {
        _dir: dir,
        store: ImageStore::new(disk, Place::Work),
        id: ImageId::new("img", "a93b9a55").unwrap(),
    };
    fixture.seal();
    let aside = fixture.store.quarantine(&fixture.id).unwrap();
    let mut names: Vec<_> = fs::read_dir(&aside)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["backing", "backing.cfg", "backing.chunks"]);
    assert!(fixture.store.find(&fixture.id).unwrap().is_none());
    fixture.seal();
    let second = fixture.store.quarantine(&fixture.id).unwrap();
    assert_ne!(aside, second);
}

/// What a cut transfer left outlives a start and a failure, until it is deleted.
#[test]
fn a_part_of_an_image_is_no_image_and_outlives_a_start() {
    let fixture = fixture();
    let manifest = {
        fixture.seal();
        let paths = fixture.store.paths(&fixture.id);
        let manifest = super::Manifest::read(&paths.chunks, 3 << 20)
            .unwrap()
            .unwrap();
        fixture.store.delete(&fixture.id).unwrap();
        manifest
    };
    let assemble = || {
        let known = Some(manifest.clone());
        fixture
            .store
            .assemble(&fixture.id, 3 << 20, known, CancellationToken::new())
            .unwrap()
    };
    let first = assemble();
    first.put_chunk(0, &bytes()[..1 << 20]).unwrap();
    drop(first);
    fixture.store.abandon(&fixture.id).unwrap();
    assert!(fixture.load().is_empty());
    assert_eq!(fixture.files(), ["backing.part", "backing.part.chunks"]);
    let second = assemble();
    assert_eq!(second.missing(), [2]);
    second.put_chunk(2, &bytes()[2 << 20..]).unwrap();
    let sealed = fixture
        .store
        .seal(&fixture.id, second.finish().unwrap(), &Facts::default())
        .unwrap();
    assert_eq!(sealed.checksum().unwrap(), Sha512::of(&bytes()));
    assert_eq!(
        fixture.files(),
        ["backing", "backing.cfg", "backing.chunks"]
    );
    fixture.store.delete(&fixture.id).unwrap();
    drop(assemble());
    fixture.store.delete(&fixture.id).unwrap();
    assert_eq!(fixture.files(), [""; 0]);
}
