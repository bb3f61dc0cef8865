//! Volumes on a directory that is a disk: no root, no reflink needed.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use super::owner::{Driver, Owner};
use super::record::Publication;
use super::users::Use;
use super::*;
use types::{ByteSize, Classify as _, DiskUuid, ErrorKind, ImageName};

pub(crate) fn volumes() -> (tempfile::TempDir, Volumes) {
    let dir = tempfile::tempdir().unwrap();
    Disk::init(dir.path(), Some(DiskUuid::new("disk-1").unwrap())).unwrap();
    let disk = Arc::new(Disk::open(dir.path()).unwrap());
    let volumes = Volumes::load(disk, NodeId::new("node-1").unwrap()).unwrap();
    (dir, volumes)
}

pub(crate) fn new(name: &str, size: u64) -> NewVolume {
    NewVolume {
        name: VolumeName::new(name).unwrap(),
        origin: Origin::Blank,
        required: Some(ByteSize(size)),
        limit: None,
        number_of_replicas: 1,
        stale_replica_timeout: 20,
        fs_type: String::new(),
        partition: None,
        owner: owner(Driver::Api, ""),
        parameters: BTreeMap::new(),
    }
}

/// A blank volume, or the one that is there.
pub(crate) fn create(volumes: &Volumes, new: &NewVolume) -> Result<Volume> {
    match volumes.reserve(new.clone())? {
        Reserved::Exists(volume) => Ok(*volume),
        Reserved::New(vacancy) => vacancy.make(None),
    }
}

fn owner(driver: Driver, namespace: &str) -> Owner {
    Owner::new(driver, namespace.to_owned(), String::new()).unwrap()
}

pub(crate) fn publication(node: &str, readonly: bool) -> Publication {
    Publication {
        node_id: NodeId::new(node).unwrap(),
        readonly,
        multi_node: false,
        by: Use::Pods,
    }
}

#[test]
fn row_420_a_volume_has_one_kind_of_users_whose_own_publication_alone_is_taken_back() {
    let (dir, volumes) = volumes();
    let name = VolumeName::new("v").unwrap();
    create(&volumes, &new("v", 8192)).unwrap();
    let kinds = [Use::Pods, Use::Device, Use::Target];
    let wanted = |by| Publication {
        by,
        ..publication("node-1", false)
    };
    for by in kinds {
        volumes.publish(&name, wanted(by)).unwrap();
        volumes.publish(&name, wanted(by)).unwrap();
        for other in kinds.into_iter().filter(|other| *other != by) {
            let refused = volumes.publish(&name, wanted(other)).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::FailedPrecondition, "{refused}");
            let text = refused.to_string();
            assert!(
                text.contains(&by.to_string()) && text.contains("node-1"),
                "{text}"
            );
            assert_eq!(text.contains("unexpose"), by != Use::Pods, "{text}");
            volumes.unpublish(&name, None, other).unwrap();
            assert_eq!(volumes.get(&name).unwrap().published, [wanted(by)]);
        }
        assert!(volumes.delete(&name).is_err());
        let again = Volumes::load(volumes.disk.clone(), volumes.node_id.clone()).unwrap();
        assert_eq!(again.get(&name).unwrap().published, [wanted(by)]);
        let node = NodeId::new("node-1").unwrap();
        volumes.unpublish(&name, Some(&node), by).unwrap();
        assert_eq!(volumes.get(&name).unwrap().published, []);
    }
    // What the last release wrote is for pods, and what is written for them it reads.
    volumes.publish(&name, wanted(Use::Pods)).unwrap();
    let list = dir.path().join("volumes/v/published.cfg");
    let text = fs::read_to_string(&list).unwrap();
    let of_pods =
        r#"{"version":1,"published":[{"nodeId":"node-1","readonly":false,"multiNode":false}]}"#;
    assert_eq!(text, of_pods);
}

#[test]
fn a_32mi_volume_is_32_mib_and_takes_no_space() {
    let (dir, volumes) = volumes();
    let volume = create(&volumes, &new("v", 32 << 20)).unwrap();
    assert_eq!(volume.record.size, ByteSize(32 << 20));
    assert_eq!(volume.real_size, 0);
    let file = dir.path().join(&volume.record.replicas[0].path);
    assert_eq!(fs::metadata(file).unwrap().len(), 32 << 20);
}

/// Row 69: the same request gives the same volume, another one says what differs.
#[test]
fn row_69_a_taken_name_says_what_differs() {
    let (_dir, volumes) = volumes();
    let first = create(&volumes, &new("v", 1 << 20)).unwrap();
    let again = create(&volumes, &new("v", 1 << 20)).unwrap();
    assert_eq!(first.record, again.record);
    let differs = |change: &dyn Fn(&mut NewVolume), what: &str| {
        let mut other = new("v", 1 << 20);
        change(&mut other);
        let error = create(&volumes, &other).unwrap_err();
        assert!(matches!(error, Error::VolumeExists { .. }), "{error}");
        assert!(error.to_string().contains(what), "{error}");
    };
    differs(&|v| v.required = Some(ByteSize(2 << 20)), "size");
    differs(
        &|v| (v.required, v.limit) = (None, Some(ByteSize(1 << 19))),
        "size",
    );
    differs(&|v| v.number_of_replicas = 3, "numberOfReplicas");
    differs(&|v| v.stale_replica_timeout = 30, "staleReplicaTimeout");
    differs(&|v| v.fs_type = "xfs".to_owned(), "fsType");
    differs(&|v| v.owner = owner(Driver::Csi, "a"), "owner");
    differs(
        &|v| drop(v.parameters.insert("baseImage".into(), "x".into())),
        "baseImage",
    );
}

/// Row 69: what the first request left open, or a later call changed, makes no other volume.
#[test]
fn row_69_the_same_request_finds_the_same_volume() {
    let (_dir, volumes) = volumes();
    let mut asked = NewVolume {
        fs_type: "ext4".to_owned(),
        limit: Some(ByteSize(64 << 20)),
        owner: owner(Driver::Csi, "a"),
        ..new("v", 1 << 20)
    };
    let made = create(&volumes, &asked).unwrap();
    let found = |asked: &NewVolume| volumes.find(asked).unwrap().unwrap().record.size;
    volumes
        .modify(&made.record.name, Some(3), Some(30), None)
        .unwrap();
    volumes
        .modify(&made.record.name, Some(4), None, None)
        .unwrap();
    assert_eq!(found(&asked), made.record.size);
    asked.fs_type = String::new();
    (asked.required, asked.limit) = (Some(ByteSize(1)), None);
    asked.owner = owner(Driver::Csi, "");
    assert_eq!(found(&asked), made.record.size);
    // It has 4 replicas now, and was made with 1.
    asked.number_of_replicas = 4;
    let error = volumes.find(&asked).unwrap_err();
    assert!(error.to_string().contains("numberOfReplicas"), "{error}");
}

#[test]
fn row_69_an_origin_is_part_of_the_request() {
    let (_dir, volumes) = volumes();
    create(&volumes, &new("blank", 1 << 20)).unwrap();
    let of = |name: &str, origin| NewVolume {
        origin,
        ..new(name, 1 << 20)
    };
    let source = || Origin::Volume(VolumeName::new("blank").unwrap());
    create(&volumes, &of("clone", source())).unwrap();
    volumes.find(&of("clone", source())).unwrap().unwrap();
    let image = || Origin::Image(ImageName::new("image").unwrap(), None);
    for (name, origin) in [
        ("blank", source()),
        ("blank", image()),
        ("blank", Origin::ImageOfParameters),
        ("clone", Origin::Blank),
        ("clone", image()),
        ("clone", Origin::ImageOfParameters),
    ] {
        let error = volumes.find(&of(name, origin)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert!(error.to_string().contains("content source"), "{error}");
    }
    // No volume is blank because nobody brought its image.
    for origin in [image(), Origin::ImageOfParameters] {
        let error = create(&volumes, &of("new", origin)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    }
    assert!(volumes.find(&new("new", 1)).unwrap().is_none());
}

#[test]
fn a_range_allows_what_it_says() {
    let (_dir, volumes) = volumes();
    let (small, exact, large) = (4096, 8192, 12288);
    for size in [small, exact, large] {
        create(&volumes, &new(&format!("v{size}"), size)).unwrap();
    }
    for (required, limit, allowed) in [
        (None, None, [true, true, true]),
        (Some(exact), None, [false, true, true]),
        (None, Some(exact), [true, true, false]),
        (Some(exact), Some(exact), [false, true, false]),
    ] {
        let found = [small, exact, large].map(|size| {
            let (required, limit) = (required.map(ByteSize), limit.map(ByteSize));
            let asked = new(&format!("v{size}"), size);
            let asked = NewVolume {
                required,
                limit,
                ..asked
            };
            volumes.find(&asked).is_ok()
        });
        assert_eq!(found, allowed, "{required:?} {limit:?}");
    }
}

/// Row 69: one name, taken for as long as somebody makes its volume.
#[test]
fn row_69_a_reserved_name_is_nobody_elses() {
    let (_dir, volumes) = volumes();
    let Reserved::New(vacancy) = volumes.reserve(new("v", 4096)).unwrap() else {
        panic!()
    };
    assert!(matches!(
        volumes.reserve(new("v", 4096)),
        Err(Error::VolumeBusy(_))
    ));
    vacancy.make(None).unwrap();
    assert!(matches!(
        volumes.reserve(new("v", 4096)),
        Ok(Reserved::Exists(_))
    ));
}

#[test]
fn sizes_round_up_to_whole_blocks_within_the_limit() {
    let (_dir, volumes) = volumes();
    let size = |name: &str, required: Option<u64>, limit: Option<u64>| {
        let mut new = new(name, 1);
        (new.required, new.limit) = (required.map(ByteSize), limit.map(ByteSize));
        create(&volumes, &new).map(|volume| volume.record.size.bytes())
    };
    assert_eq!(size("a", Some(1), None).unwrap(), 4096);
    assert_eq!(size("b", None, None).unwrap(), 1 << 30);
    assert_eq!(size("c", None, Some(1 << 20)).unwrap(), 1 << 20);
    assert!(matches!(
        size("d", Some(4097), Some(4100)),
        Err(Error::Size { .. })
    ));
    assert!(matches!(
        size("e", Some(u64::MAX), None),
        Err(Error::Size { .. })
    ));
}

#[test]
fn a_volume_in_use_is_not_deleted() {
    let (_dir, volumes) = volumes();
    let name = VolumeName::new("v").unwrap();
    create(&volumes, &new("v", 4096)).unwrap();
    volumes
        .publish(&name, publication("node-1", false))
        .unwrap();
    volumes
        .publish(&name, publication("node-1", false))
        .unwrap();
    assert!(matches!(
        volumes.publish(&name, publication("node-1", true)),
        Err(Error::PublishedDifferently { .. })
    ));
    assert!(matches!(
        volumes.publish(&name, publication("node-9", false)),
        Err(Error::NodeUnknown(_))
    ));
    assert!(matches!(
        volumes.delete(&name),
        Err(Error::VolumePublished { .. })
    ));
    volumes.unpublish(&name, None, Use::Pods).unwrap();
    volumes.unpublish(&name, None, Use::Pods).unwrap();
    volumes.delete(&name).unwrap();
    volumes.delete(&name).unwrap();
    assert!(matches!(volumes.get(&name), Err(Error::VolumeNotFound(_))));
}

#[test]
fn volumes_grow_and_never_shrink() {
    let (_dir, volumes) = volumes();
    let name = VolumeName::new("v").unwrap();
    create(&volumes, &new("v", 4096)).unwrap();
    let grow = |to, limit: Option<u64>| {
        volumes
            .grow(&name, ByteSize(to), limit.map(ByteSize))
            .map(|v| v.record.size.bytes())
    };
    assert_eq!(grow(8193, None).unwrap(), 12288);
    assert_eq!(grow(4096, None).unwrap(), 12288);
    assert!(matches!(grow(20000, Some(16384)), Err(Error::Size { .. })));
    assert_eq!(volumes.get(&name).unwrap().record.size.bytes(), 12288);
}

#[test]
fn pages_of_a_list_meet_without_gap_or_overlap() {
    let (_dir, volumes) = volumes();
    for name in ["b", "a", "d", "c", "B"] {
        create(&volumes, &new(name, 4096)).unwrap();
    }
    let page = |after: &str| {
        let (found, more) = volumes.list(after, 2).unwrap();
        (
            found
                .into_iter()
                .map(|v| v.record.name.to_string())
                .collect::<Vec<_>>(),
            more,
        )
    };
    assert_eq!(page(""), (vec!["B".into(), "a".into()], true));
    assert_eq!(page("a"), (vec!["b".into(), "c".into()], true));
    assert_eq!(page("c"), (vec!["d".into()], false));
}

/// Row 62: a damaged record is an error that names it, a newer one is not touched.
#[test]
fn row_62_damaged_and_newer_records() {
    let (dir, volumes) = volumes();
    let name = VolumeName::new("v").unwrap();
    let volume = create(&volumes, &new("v", 4096)).unwrap();
    let path = dir.path().join("volumes/v/volume.cfg");
    let good = fs::read_to_string(&path).unwrap();
    let put = |text: &str| durable::replace(&path, text.as_bytes()).unwrap();
    for bad in ["", "{", &good.replace("\"v\"", "\"w\"")] {
        put(bad);
        assert!(
            matches!(
                volumes.get(&name),
                Err(Error::Store(store::Error::DamagedRecord { .. }))
            ),
            "{bad}"
        );
        assert!(create(&volumes, &new("v", 4096)).is_err());
    }
    put(r#"{"version":2,"more":[]}"#);
    assert!(matches!(
        volumes.delete(&name),
        Err(Error::Store(store::Error::NewerFormat { version: 2, .. }))
    ));
    put(&good);
    assert_eq!(volumes.get(&name).unwrap().record, volume.record);
}

#[test]
fn a_start_removes_what_a_crash_left() {
    let (dir, first) = volumes();
    create(&first, &new("v", 4096)).unwrap();
    fs::create_dir(dir.path().join("volumes/.creating-x")).unwrap();
    fs::create_dir(dir.path().join("volumes/.deleting-y")).unwrap();
    let again = Volumes::load(first.disk.clone(), first.node_id.clone()).unwrap();
    assert_eq!(fs::read_dir(dir.path().join("volumes")).unwrap().count(), 1);
    assert!(again.get(&VolumeName::new("v").unwrap()).is_ok());
}

/// Makes the volume's record one that the last release wrote while a node had the volume.
fn as_published_before(dir: &Path) {
    let record = dir.join("volumes/v/volume.cfg");
    let text = fs::read_to_string(&record).unwrap();
    let old = r#""published":[{"nodeId":"node-1","readonly":false,"multiNode":false}],"madeBy""#;
    let text = text.replace(r#""madeBy""#, old);
    durable::replace(&record, text.as_bytes()).unwrap();
}

#[test]
fn row_126_what_an_earlier_version_published_is_taken_back() {
    let (dir, volumes) = volumes();
    let name = VolumeName::new("v").unwrap();
    create(&volumes, &new("v", 4096)).unwrap();
    as_published_before(dir.path());
    let published = |volumes: &Volumes| volumes.get(&name).unwrap().published.len();
    assert_eq!(published(&volumes), 1);
    assert!(matches!(
        volumes.delete(&name),
        Err(Error::VolumePublished { .. })
    ));
    volumes.grow(&name, ByteSize(8192), None).unwrap();
    volumes
        .publish(&name, publication("node-1", false))
        .unwrap();
    assert_eq!(published(&volumes), 1, "it is still said where it was");
    volumes.unpublish(&name, None, Use::Pods).unwrap();
    let again = Volumes::load(volumes.disk.clone(), volumes.node_id.clone()).unwrap();
    assert_eq!(published(&again), 0);
    // A damaged list of publications keeps nobody attached.
    volumes
        .publish(&name, publication("node-1", false))
        .unwrap();
    let list = dir.path().join("volumes/v/published.cfg");
    durable::replace(&list, b"{").unwrap();
    assert!(volumes.get(&name).is_err());
    volumes.unpublish(&name, None, Use::Pods).unwrap();
    assert_eq!(published(&volumes), 0);
}

#[test]
fn row_126_what_the_disk_does_not_take_down_is_remembered() {
    let (dir, volumes) = volumes();
    let name = VolumeName::new("v").unwrap();
    create(&volumes, &new("v", 4096)).unwrap();
    as_published_before(dir.path());
    // What is in the way of the new record stands for a disk that takes none.
    let way = dir.path().join("volumes/v/volume.cfg.tmp");
    fs::create_dir(&way).unwrap();
    volumes.unpublish(&name, None, Use::Pods).unwrap();
    assert!(volumes.get(&name).unwrap().published.is_empty());
    volumes.settle();
    assert!(!volumes.unpublished().is_empty());
    fs::remove_dir(&way).unwrap();
    volumes.settle();
    assert!(volumes.unpublished().is_empty());
    let again = Volumes::load(volumes.disk.clone(), volumes.node_id.clone()).unwrap();
    assert!(again.get(&name).unwrap().published.is_empty());
    again.delete(&name).unwrap();
}

/// Row 125: a crash after the bytes of a volume are gone leaves what a start, and the same call, finish.
#[test]
fn row_125_what_a_deletion_left_is_finished() {
    let (dir, volumes) = volumes();
    let name = VolumeName::new("v").unwrap();
    let remove_bytes = || fs::remove_file(dir.path().join("volumes/v/volume")).unwrap();
    create(&volumes, &new("v", 4096)).unwrap();
    remove_bytes();
    assert!(matches!(volumes.get(&name), Err(Error::VolumeNotFound(_))));
    create(&volumes, &new("v", 8192)).unwrap();
    remove_bytes();
    volumes.delete(&name).unwrap();
    assert_eq!(fs::read_dir(dir.path().join("volumes")).unwrap().count(), 0);
    create(&volumes, &new("v", 4096)).unwrap();
    // A file that is not ours is no leftover.
    let foreign = dir.path().join("volumes/v/note.txt");
    File::create(&foreign).unwrap();
    remove_bytes();
    Volumes::load(volumes.disk.clone(), volumes.node_id.clone()).unwrap();
    assert!(foreign.exists());
}

#[test]
fn row_128_what_volumes_are_promised_is_bounded() {
    let (_dir, volumes) = volumes();
    let volumes = volumes.with_overcommit(100);
    let name = VolumeName::new("v").unwrap();
    let first = volumes.promise().unwrap();
    let most = first.most.unwrap();
    assert_eq!(first.creatable, (most - first.promised) / 4096 * 4096);
    let refused = |result: Result<Volume>| match result.unwrap_err() {
        error @ Error::Overcommitted { .. } => {
            assert_eq!(error.kind(), ErrorKind::ResourceExhausted);
        }
        other => panic!("{other}"),
    };
    refused(create(&volumes, &new("v", first.creatable + 1)));
    assert_eq!(
        volumes.promise().unwrap(),
        first,
        "what is refused takes nothing"
    );
    create(&volumes, &new("v", first.creatable - 8192)).unwrap();
    assert_eq!(volumes.promise().unwrap().creatable, 8192);
    refused(create(&volumes, &new("w", 12288)));
    let grow = |by: u64| volumes.grow(&name, ByteSize(first.creatable - 8192 + by), None);
    refused(grow(12288));
    grow(4096).unwrap();
    create(&volumes, &new("w", 4096)).unwrap();
    assert_eq!(volumes.promise().unwrap().creatable, 0);
    let again = Volumes::load(volumes.disk.clone(), volumes.node_id.clone()).unwrap();
    let again = again.with_overcommit(100);
    assert_eq!(
        again.promise().unwrap().creatable,
        0,
        "a new start counts the same"
    );
    again.delete(&name).unwrap();
    assert_eq!(again.promise().unwrap().creatable, first.creatable - 4096);
    let again = again.with_overcommit(0);
    create(&again, &new("x", 1 << 42)).unwrap();
    for size in [1 << 60, i64::MAX as u64 - 4095, u64::MAX] {
        let error = create(&again, &new("y", size)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutOfRange, "{error}");
    }
}

/// What resize2fs refuses by "too many block group descriptors", and what it takes.
#[test]
fn row_130_an_ext_file_system_grows_as_far_as_resize2fs_takes_it() {
    let run = |tool: &str, arguments: &[&str]| {
        std::process::Command::new(tool)
            .args(arguments)
            .output()
            .ok()
    };
    let (dir, volumes) = volumes();
    let volumes = volumes.with_overcommit(0);
    let name = VolumeName::new("v").unwrap();
    create(&volumes, &new("v", 16 << 20)).unwrap();
    let file = dir.path().join("volumes/v/volume");
    let path = file.to_str().unwrap();
    let Some(made) = run("mkfs.ext4", &["-qF", "-b", "1024", path]) else {
        eprintln!("skipped: needs mkfs.ext4");
        return;
    };
    assert!(made.status.success());
    let refused = volumes.grow(&name, ByteSize(1 << 40), None).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::OutOfRange, "{refused}");
    assert!(
        refused.to_string().contains("cannot grow beyond"),
        "{refused}"
    );
    let grown = File::options().write(true).open(&file).unwrap();
    let most = probe::grows_to(&probe::FileDisk::open(&file).unwrap())
        .unwrap()
        .unwrap();
    let resized = |size: u64| {
        grown.set_len(size).unwrap();
        // Asked for its opinion (-P would not tell): a size in its own blocks.
        let blocks = (size / 1024).to_string();
        let out = run("resize2fs", &["-f", path, &blocks]).unwrap();
        String::from_utf8_lossy(&out.stderr).into_owned()
    };
    assert!(resized(most + (8 << 20)).contains("too many block group descriptors"));
    for (block, size) in [
        ("1024", 512_u64 << 30),
        ("4096", 20 << 40),
        ("4096", 1 << 40),
    ] {
        grown.set_len(16 << 20).unwrap();
        assert!(
            run("mkfs.ext4", &["-qF", "-b", block, path])
                .unwrap()
                .status
                .success()
        );
        let most = probe::grows_to(&probe::FileDisk::open(&file).unwrap())
            .unwrap()
            .unwrap();
        assert!(size <= most, "{block} {size}: {most}");
    }
}
