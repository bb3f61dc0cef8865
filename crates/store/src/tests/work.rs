//! Work files, and the parts of transfers.

use super::*;
use crate::manifest::ManifestFile as _;

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
        other.store.begin(&other.id, Cancel::never()).err(),
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
    assert!(other.store.begin(&beside, Cancel::never()).is_err());
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
        let manifest = crate::Manifest::read(&paths.chunks, 3 << 20)
            .unwrap()
            .unwrap();
        fixture.store.delete(&fixture.id).unwrap();
        manifest
    };
    let assemble = || {
        let known = Some(manifest.clone());
        fixture
            .store
            .assemble(&fixture.id, 3 << 20, known, Cancel::never())
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
