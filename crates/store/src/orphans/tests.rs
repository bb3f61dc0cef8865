use std::fs::{File, FileTimes};
use std::time::SystemTime;

use types::Cancel;
use types::ImageId;

use super::super::{Facts, ImageStore};
use super::*;

struct Fixture {
    dir: tempfile::TempDir,
    images: ImageStore,
    work: ImageStore,
    id: ImageId,
    orphans: Orphans,
    start: Instant,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    Disk::init(dir.path(), None).unwrap();
    let disk = Arc::new(Disk::open(dir.path()).unwrap());
    let work = Arc::new(Disk::open_for_work(dir.path()).unwrap());
    Fixture {
        images: ImageStore::new(disk.clone(), Place::Images),
        work: ImageStore::new(work, Place::Work),
        id: ImageId::new("img", "a93b9a55").unwrap(),
        orphans: Orphans::new(disk),
        start: Instant::now(),
        dir,
    }
}

impl Fixture {
    fn seal(&self, store: &ImageStore) {
        let mut ingest = store.begin(&self.id, Cancel::never()).unwrap();
        ingest.write(&[1; 4096]).unwrap();
        store
            .seal(&self.id, ingest.finish().unwrap(), &Facts::default())
            .unwrap();
    }

    fn pass(&mut self, after: Duration) {
        self.orphans.pass(self.start + after, &|_| false).unwrap();
    }

    fn names(&self, dir: &str) -> Vec<String> {
        let mut names: Vec<_> = entries(&self.dir.path().join(dir))
            .unwrap()
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        names.sort();
        names
    }
}

const MINUTE: Duration = Duration::from_mins(1);

#[test]
fn a_work_file_goes_when_its_time_is_up_and_nobody_holds_it() {
    let mut fixture = fixture();
    fixture.seal(&fixture.work);
    fixture.pass(Duration::ZERO);
    fixture.pass(FINISHED_WORK + MINUTE);
    assert_eq!(fixture.names("tmp").len(), 4, "its data source lives");
    fixture.work.release(&fixture.id).unwrap();
    // It changed: its time begins anew.
    fixture.pass(FINISHED_WORK + 2 * MINUTE);
    fixture.pass(2 * FINISHED_WORK);
    assert_eq!(fixture.names("tmp").len(), 3);
    fixture.pass(2 * FINISHED_WORK + 3 * MINUTE);
    assert_eq!(fixture.names("tmp"), [""; 0]);
}

#[test]
fn what_a_dead_data_source_was_making_goes_after_an_hour() {
    let mut fixture = fixture();
    // Ours, Longhorn's, and a lock that means nothing.
    for name in ["img-1.tmp", "img-1.cfg", "img-2.tmp.qcow2tmp", "img-3.lock"] {
        File::create(fixture.work.disk().layout().work().join(name)).unwrap();
    }
    File::create(fixture.work.disk().layout().work().join("img-4")).unwrap();
    fixture.pass(Duration::ZERO);
    fixture.pass(UNFINISHED_WORK.checked_sub(MINUTE).unwrap());
    assert_eq!(fixture.names("tmp").len(), 5);
    // One of them lives.
    let alive = fixture
        .work
        .disk()
        .layout()
        .work()
        .join("img-2.tmp.qcow2tmp");
    File::options()
        .write(true)
        .open(alive)
        .unwrap()
        .set_len(9)
        .unwrap();
    fixture.pass(UNFINISHED_WORK + MINUTE);
    assert_eq!(fixture.names("tmp"), ["img-2.tmp.qcow2tmp", "img-4"]);
}

#[test]
fn a_part_that_nobody_went_on_with_goes_and_takes_its_directory_along() {
    let mut fixture = fixture();
    fixture.seal(&fixture.images);
    let other = ImageId::new("other", "1").unwrap();
    let paths = fixture.images.paths(&other);
    durable::create_dir(&paths.dir).unwrap();
    let part = File::create(&paths.part).unwrap();
    flock(&part, FlockOperation::LockExclusive).unwrap();
    File::create(&paths.part_chunks).unwrap();
    let theirs = fixture.dir.path().join("backing-images/old-images");
    fs::create_dir(&theirs).unwrap();
    File::create(theirs.join("notes.tmp")).unwrap();
    fixture.pass(Duration::ZERO);
    fixture.pass(PART + MINUTE);
    assert!(paths.part.exists(), "it is being filled");
    drop(part);
    fixture.pass(PART + 2 * MINUTE);
    assert_eq!(
        fixture.names("backing-images"),
        ["img-a93b9a55", "old-images"]
    );
    assert_eq!(fixture.names("backing-images/old-images"), ["notes.tmp"]);
}

/// Row 67: whatever the wall clock says, only time that this process saw pass counts.
#[test]
fn row_67_a_clock_that_jumps_removes_nothing() {
    let mut fixture = fixture();
    fixture.seal(&fixture.work);
    fixture.work.release(&fixture.id).unwrap();
    fixture.seal(&fixture.images);
    fixture.images.quarantine(&fixture.id).unwrap();
    let work = fixture.work.disk().layout().work().join("img-1.tmp");
    File::create(&work).unwrap();
    // As old, and as new, as a jump of ten years makes them.
    let year = Duration::from_hours(365 * 24);
    for time in [SystemTime::now() - 10 * year, SystemTime::now() + 10 * year] {
        let file = File::options().write(true).open(&work).unwrap();
        file.set_times(FileTimes::new().set_modified(time)).unwrap();
        let before = (fixture.names("tmp"), fixture.names("backing-images"));
        fixture.orphans = Orphans::new(fixture.images.disk().clone());
        fixture.pass(Duration::ZERO);
        fixture.pass(UNFINISHED_WORK.checked_sub(MINUTE).unwrap());
        assert_eq!(
            (fixture.names("tmp"), fixture.names("backing-images")),
            before
        );
    }
}

#[test]
fn what_was_set_aside_is_kept_for_a_month() {
    let mut fixture = fixture();
    fixture.seal(&fixture.images);
    fixture.images.quarantine(&fixture.id).unwrap();
    fixture.pass(Duration::ZERO);
    fixture.pass(QUARANTINE.checked_sub(MINUTE).unwrap());
    assert_eq!(fixture.names("backing-images").len(), 1);
    fixture.pass(QUARANTINE + MINUTE);
    assert_eq!(fixture.names("backing-images"), [""; 0]);
}
