use std::fs;
use std::sync::Arc;

use super::*;
use crate::recovery::Found;
use crate::{Disk, Facts, Place};

const MIB: usize = 1 << 20;

struct Fixture {
    dir: tempfile::TempDir,
    store: ImageStore,
    id: ImageId,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Disk::init(dir.path(), None).unwrap();
        let disk = Arc::new(Disk::open(dir.path()).unwrap());
        // A uuid with a hyphen in it: the directory alone does not tell where the name ends.
        let id = ImageId::new("img", "uuid-1").unwrap();
        let store = ImageStore::new(disk, Place::Images);
        Self { dir, store, id }
    }

    fn asked(&self, size: usize) -> UploadRecord {
        UploadRecord::new(&self.id, size as u64, "disk.raw", None, None)
    }

    fn begin(&self, size: usize) -> Upload {
        self.store.upload(&self.id, &self.asked(size)).unwrap()
    }

    fn files(&self) -> Vec<String> {
        let images = self.dir.path().join("backing-images/img-uuid-1");
        let mut names: Vec<_> = fs::read_dir(images)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

/// Bytes with a hole of some chunks in the middle.
fn bytes(size: usize) -> Vec<u8> {
    let hole = size / 3..size / 3 * 2;
    (0..size)
        .map(|at| {
            if hole.contains(&at) {
                0
            } else {
                u8::try_from(at % 251).unwrap() + 1
            }
        })
        .collect()
}

#[test]
fn pieces_of_any_length_become_the_image_that_one_stream_would_be() {
    for size in [1, 512, MIB - 1, MIB, MIB + 1, 7 * MIB + 513] {
        let fixture = Fixture::new();
        let whole = bytes(size);
        let mut upload = fixture.begin(size);
        for piece in whole.chunks(700_001) {
            upload.append(piece).unwrap();
        }
        let received = upload.finish(&Cancel::never()).unwrap();
        assert_eq!(
            received.manifest.checksum,
            Some(Sha512::of(&whole)),
            "{size}"
        );
        let again = read_again(&received.file, size as u64, &Cancel::never());
        let again = again.unwrap().unwrap();
        assert_eq!(received.manifest.chunks, again.chunks, "{size}");
        let sealed = fixture
            .store
            .seal(&fixture.id, received, &Facts::default())
            .unwrap();
        let mut padded = whole;
        padded.resize(size.next_multiple_of(512), 0);
        assert_eq!(sealed.checksum().unwrap(), Sha512::of(&padded), "{size}");
        assert_eq!(
            fixture.files(),
            ["backing", "backing.cfg", "backing.chunks"]
        );
        fixture.store.verify(&sealed, &Cancel::never()).unwrap();
    }
}

/// Row 400: what a start finds is what was synced; the rest of the file is void.
#[test]
fn row_400_an_upload_goes_on_from_what_was_synced() {
    let fixture = Fixture::new();
    let size = 80 * MIB + 100;
    let whole = bytes(size);
    let mut upload = fixture.begin(size);
    let mut at = 0;
    for piece in whole[..68 * MIB].chunks(3 * MIB) {
        // However slow this machine is.
        upload.synced_at = Instant::now();
        upload.append(piece).unwrap();
        at += piece.len();
    }
    assert_eq!(upload.offset(), at as u64);
    // Never written down: it may not have reached the disk.
    upload.file.write_all_at(&[0xee; 4096], 75 << 20).unwrap();
    drop(upload);
    let [Found::Upload(id, record)] = &fixture.store.load().unwrap()[..] else {
        panic!("the upload is not found");
    };
    assert_eq!((id, record.size), (&fixture.id, size as u64));
    assert_eq!(record.synced, 66 << 20);
    let mut upload = fixture.store.upload(id, record).unwrap();
    assert_eq!(upload.offset(), 66 << 20);
    // Little has come, and a second has passed.
    upload.synced_at = Instant::now().checked_sub(SYNC_TIME).unwrap();
    upload.append(&whole[66 * MIB..67 * MIB]).unwrap();
    assert_eq!(upload.record.synced, 67 << 20);
    for piece in whole[67 * MIB..].chunks(3 * MIB - 1) {
        upload.append(piece).unwrap();
    }
    let received = upload.finish(&Cancel::never()).unwrap();
    assert_eq!(received.manifest.checksum, Some(Sha512::of(&whole)));
    assert!(fs::read(&received.path).unwrap() == whole);
}

/// Where much has come whole chunks go past the cache, and what is none of that, through it: the bytes are the same.
#[test]
fn much_goes_past_the_cache() {
    let fixture = Fixture::new();
    let size = usize::try_from(CACHED).unwrap() + 9 * MIB + 5;
    let mut whole = bytes(size);
    let hole = size - 7 * MIB;
    whole[hole..hole + MIB + 9].fill(0);
    let mut upload = fixture.begin(size);
    let (aligned, rest) = whole.split_at(size - 4 * MIB - 5);
    for piece in aligned.chunks(3 * MIB).chain(rest.chunks(2 * MIB + 1)) {
        upload.append(piece).unwrap();
    }
    assert!(upload.direct.was_asked());
    let received = upload.finish(&Cancel::never()).unwrap();
    assert_eq!(received.manifest.checksum, Some(Sha512::of(&whole)));
    assert!(fs::read(&received.path).unwrap() == whole);
}

#[test]
fn another_request_begins_anew_and_too_many_bytes_are_refused() {
    let fixture = Fixture::new();
    let mut upload = fixture.begin(2 * MIB);
    upload.append(&vec![1; MIB]).unwrap();
    let refused = upload.append(&vec![1; MIB + 1]).unwrap_err();
    assert!(matches!(refused, Error::NotOfImage(_)), "{refused}");
    assert_eq!(upload.offset(), MIB as u64, "nothing of it is there");
    let early = upload.finish(&Cancel::never()).unwrap_err();
    assert!(matches!(early, Error::Incomplete { .. }), "{early}");
    let upload = fixture.begin(3 * MIB);
    assert_eq!((upload.offset(), upload.size()), (0, 3 * MIB as u64));
    let blocks = upload.file.metadata().unwrap().blocks();
    assert_eq!(blocks, 0, "bytes of the other one are there");
    drop(upload);
    fixture.store.delete(&fixture.id).unwrap();
    assert!(fixture.store.load().unwrap().is_empty());
}

#[test]
fn a_record_that_means_nothing_is_removed_and_a_newer_one_is_left_alone() {
    let fixture = Fixture::new();
    drop(fixture.begin(MIB));
    let record = fixture.store.paths(&fixture.id).upload_record;
    fs::remove_file(&record).unwrap();
    durable::write_new(&record, br#"{"version":99}"#).unwrap();
    let found = &fixture.store.load().unwrap()[..];
    assert!(matches!(
        found,
        [Found::Unusable(_, Error::NewerFormat { version: 99, .. })]
    ));
    fs::remove_file(&record).unwrap();
    durable::write_new(&record, b"{}").unwrap();
    assert!(fixture.store.load().unwrap().is_empty());
    assert!(!record.exists());
}
