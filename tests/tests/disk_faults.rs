//! What a disk does to the manager behind its back: full, read-only, immutable, exchanged, edited.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use e2e::life::{LIFE, Life, Request, state_after};
use e2e::manager::{Options, from_file, init_disk};
use e2e::{Disk, FileSystem, Manager, Need, Sandbox, command, leftovers, needs, wait};
use proto::storage::v1 as pb;
use tonic::Code;

const MIB: u64 = 1 << 20;
/// XFS wants no less than 300 MiB.
const DISK_SIZE: u64 = 320 * MIB;

/// A disk with the image `base` of [`Life`] on it, and its manager.
struct Bench {
    manager: Manager,
    options: Options,
    disk: Disk,
    life: Life,
    sandbox: Sandbox,
}

impl Bench {
    fn with_image(file_system: FileSystem) -> Self {
        let sandbox = Sandbox::new("disk-faults");
        let life = Life::new(&sandbox);
        let disk = Disk::new(&sandbox, "disk", file_system, DISK_SIZE);
        init_disk(disk.dir());
        let options = life.options(disk.dir());
        let manager = Manager::start(&sandbox, &options);
        life.request(&manager, Request::Import).unwrap();
        Self {
            manager,
            options,
            disk,
            life,
            sandbox,
        }
    }

    /// Ends the manager, lets `edit` at the disk, and starts it again.
    fn edit_stopped(&mut self, edit: impl FnOnce(&Self)) {
        self.manager.process.terminate();
        edit(self);
        self.manager = Manager::start(&self.sandbox, &self.options);
    }

    fn image_dir(&self) -> PathBuf {
        let image = self.manager.image("base").unwrap();
        self.disk
            .dir()
            .join("backing-images")
            .join(format!("base-{}", image.uuid))
    }

    fn observe(&self) -> e2e::life::State {
        self.life.observe(&self.manager, self.disk.dir())
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test plays the part of a careless editor"
)]
fn overwrite(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
}

fn sums(file: &Path) -> String {
    command::run("sha512sum", [file])
}

/// Row 60: for each amount of space left, from none to enough.
fn fill_and_free(file_system: FileSystem) {
    let mut bench = Bench::with_image(file_system);
    let filler = bench.disk.dir().join("filler");
    let mut failed = [0; 2];
    for (position, request) in [Request::Import, Request::CreateVolume]
        .into_iter()
        .enumerate()
    {
        if request == Request::Import {
            bench
                .life
                .request(&bench.manager, Request::DeleteImage)
                .unwrap();
        }
        let mut left = 0;
        loop {
            let before = bench.disk.available();
            fill(&filler, before.saturating_sub(left));
            let outcome = bench.life.request(&bench.manager, request);
            match outcome {
                Ok(()) => {
                    fs::remove_file(&filler).unwrap();
                    break;
                }
                Err(status) => {
                    failed[position] += 1;
                    let message = status.message();
                    assert!(
                        says_full(&bench, request, &status),
                        "{request:?} with {left} left: {message}"
                    );
                    fs::remove_file(&filler).unwrap();
                    if request == Request::Import {
                        bench.manager.delete_image("base").unwrap();
                    }
                    assert_eq!(
                        bench.observe(),
                        state_after(position),
                        "{request:?} with {left} left"
                    );
                    wait_space_back(&bench, before);
                }
            }
            left += 512 << 10;
            assert!(left < 64 * MIB, "{request:?} never has enough space");
        }
        assert_eq!(
            bench.observe(),
            state_after(position + 1),
            "works again when there is space"
        );
    }
    assert!(failed[0] > 2, "the import met a full disk: {failed:?}");
    bench.edit_stopped(|_| {});
    assert_eq!(
        bench.observe(),
        state_after(2),
        "a new start finds the same"
    );
}

/// Some file systems free the blocks of deleted files later. What may stay is the raw form of a ready
/// image: it is not of the volume that could not be made.
fn wait_space_back(bench: &Bench, before: u64) {
    let raw_form = bench
        .manager
        .image("base")
        .is_ok_and(|image| image.has_raw_form);
    let kept = MIB + if raw_form { 8 * MIB } else { 0 };
    wait::until("the space comes back", || {
        (bench.disk.available() + kept >= before).then_some(())
    });
}

fn says_full(bench: &Bench, request: Request, status: &tonic::Status) -> bool {
    let full = i32::from(Code::ResourceExhausted);
    status.code() == Code::ResourceExhausted
        || request == Request::Import
            && bench.manager.image("base").is_ok_and(|image| {
                image.state() == pb::State::Failed
                    && i64::from(image.failure_code) == i64::from(full)
            })
}

fn fill(filler: &Path, bytes: u64) {
    let file = File::create(filler).unwrap();
    // What fallocate cannot give in one piece is written until there is no more.
    if rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes.max(1)).is_err() {
        let piece = vec![1; 64 << 10];
        let mut at = 0;
        while at < bytes && file.write_all_at(&piece, at).is_ok() {
            at += piece.len() as u64;
        }
    }
    file.sync_all().ok();
}

#[test]
fn row_60_a_full_xfs_disk_is_said_and_harms_nothing() {
    needs!(Need::Root, Need::FileSystem("xfs"), Need::Tool("qemu-img"));
    fill_and_free(FileSystem::Xfs);
}

#[test]
fn row_60_a_full_ext4_disk_is_said_and_harms_nothing() {
    needs!(Need::Root, Need::FileSystem("ext4"), Need::Tool("qemu-img"));
    fill_and_free(FileSystem::Ext4);
}

#[test]
fn row_62_a_broken_state_file_is_told_anew_from_the_bytes() {
    needs!(Need::Root, Need::FileSystem("xfs"), Need::Tool("qemu-img"));
    let mut bench = Bench::with_image(FileSystem::Xfs);
    let dir = bench.image_dir();
    let sidecar = dir.join("backing.cfg");
    let good = fs::read(&sidecar).unwrap();
    let text = String::from_utf8(good.clone()).unwrap();
    let twice = text.replacen('{', "{\"size\":1,\"size\":2,", 1);
    let broken: [&[u8]; 6] = [
        b"",
        b"{\"name\":",
        b"not json",
        b"\xff\xfe{}",
        &good[..good.len() / 2],
        twice.as_bytes(),
    ];
    for bytes in broken {
        bench.edit_stopped(|_| overwrite(&sidecar, bytes));
        let words = String::from_utf8_lossy(bytes).into_owned();
        assert_eq!(bench.observe(), state_after(1), "after {words:?}");
        assert_ne!(
            fs::read(&sidecar).unwrap(),
            bytes,
            "written anew after {words:?}"
        );
    }
    // The state file of another image says nothing about this one.
    let uuid = bench.manager.image("base").unwrap().uuid;
    let other = text.replace(&uuid, "0badcafe");
    assert_ne!(other, text);
    bench.edit_stopped(|_| overwrite(&sidecar, other.as_bytes()));
    assert_eq!(bench.observe(), state_after(1));
    // And none at all.
    bench.edit_stopped(|_| fs::remove_file(&sidecar).unwrap());
    assert_eq!(bench.observe(), state_after(1));
}

#[test]
fn row_62_a_state_file_of_the_future_is_not_touched() {
    needs!(Need::Root, Need::FileSystem("xfs"), Need::Tool("qemu-img"));
    let mut bench = Bench::with_image(FileSystem::Xfs);
    let dir = bench.image_dir();
    let sidecar = dir.join("backing.cfg");
    let text = fs::read_to_string(&sidecar).unwrap();
    let future = text.replace("\"version\":1", "\"version\":99");
    assert_ne!(future, text, "the state file has a version");
    let bytes = sums(&dir.join("backing"));
    bench.edit_stopped(|_| overwrite(&sidecar, future.as_bytes()));
    let image = bench.manager.image("base").unwrap();
    assert_eq!(image.state(), pb::State::Unknown, "{image:?}");
    assert!(
        image.message.contains("99"),
        "it says which version: {}",
        image.message
    );
    let refused = bench.manager.create_volume("one", "base", 0).unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    let refused = bench.manager.delete_image("base").unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert_eq!(fs::read_to_string(&sidecar).unwrap(), future);
    assert_eq!(sums(&dir.join("backing")), bytes);
    // The newer program comes back.
    bench.edit_stopped(|_| overwrite(&sidecar, text.as_bytes()));
    assert_eq!(bench.observe(), state_after(1));
}

#[test]
fn row_62_a_broken_record_of_a_volume_is_said_and_the_others_are_served() {
    needs!(Need::Root, Need::FileSystem("xfs"), Need::Tool("qemu-img"));
    let mut bench = Bench::with_image(FileSystem::Xfs);
    bench
        .life
        .request(&bench.manager, Request::CreateVolume)
        .unwrap();
    bench.manager.create_volume("two", "", MIB).unwrap();
    let record = bench.disk.dir().join("volumes/one/volume.cfg");
    bench.edit_stopped(|_| overwrite(&record, b"{"));
    let refused = bench.manager.volume("one").unwrap_err();
    assert!(
        refused.message().contains("one"),
        "it names the volume: {refused}"
    );
    assert_eq!(bench.manager.volume("two").unwrap().size, MIB);
    // The image of a volume that cannot say so is not deleted under it.
    assert!(bench.disk.dir().join("volumes/one/volume").exists());
    bench.manager.delete_volume("one").unwrap();
    bench.manager.delete_volume("two").unwrap();
    assert_eq!(bench.observe(), state_after(1));
}

#[test]
fn row_63_an_immutable_image_is_said_and_heals_without_a_new_start() {
    needs!(
        Need::Root,
        Need::FileSystem("xfs"),
        Need::Tool("qemu-img"),
        Need::Tool("chattr")
    );
    let bench = Bench::with_image(FileSystem::Xfs);
    let dir = bench.image_dir();
    let mark = |flag: &str| command::run("chattr", ["-R".as_ref(), flag.as_ref(), dir.as_os_str()]);
    mark("+i");
    let refused = bench.manager.delete_image("base").unwrap_err();
    let volume = bench.manager.create_volume("one", "base", 0);
    mark("-i");
    assert!(
        refused.message().contains("base"),
        "it names the object: {refused}"
    );
    assert!(
        volume.is_err(),
        "its raw form cannot be made in an immutable directory"
    );
    for request in &LIFE[1..] {
        bench.life.request(&bench.manager, *request).unwrap();
    }
    assert_eq!(bench.observe(), state_after(LIFE.len()));
}

/// ext4 makes itself read-only when it finds itself damaged, with files open for writing: this is
/// how a disk becomes read-only under a running program.
#[test]
fn row_63_a_disk_that_turns_read_only_is_said_and_its_images_stay() {
    needs!(Need::Root, Need::FileSystem("ext4"), Need::Tool("qemu-img"));
    let mut bench = Bench::with_image(FileSystem::Ext4);
    command::run(
        "mount",
        [
            "-o".as_ref(),
            "remount,errors=remount-ro".as_ref(),
            bench.disk.dir().as_os_str(),
        ],
    );
    let device = command::run(
        "findmnt",
        [
            "-no".as_ref(),
            "SOURCE".as_ref(),
            bench.disk.dir().as_os_str(),
        ],
    );
    let trigger = format!(
        "/sys/fs/ext4/{}/trigger_fs_error",
        device.trim().trim_start_matches("/dev/")
    );
    overwrite(Path::new(&trigger), b"1");
    let refused = bench.manager.create_volume("two", "", MIB).unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert!(
        refused.message().to_lowercase().contains("read-only"),
        "{refused}"
    );
    assert_eq!(
        bench.manager.image("base").unwrap().state(),
        pb::State::Ready
    );
    bench.edit_stopped(|bench| {
        bench.disk.detach();
        command::output("e2fsck", ["-fy".as_ref(), bench.disk.image().as_os_str()]);
        bench.disk.attach();
    });
    bench.manager.create_volume("two", "", MIB).unwrap();
    bench.manager.delete_volume("two").unwrap();
    assert_eq!(bench.observe(), state_after(1));
}

/// What is done to the file, and whether its bytes are still right afterwards.
type Tampering = (&'static str, fn(&Path), bool);

const TAMPERING: [Tampering; 5] = [
    ("touched", |path| drop(command::run("touch", [path])), true),
    (
        "cut",
        |path| {
            File::options()
                .write(true)
                .open(path)
                .unwrap()
                .set_len(4096)
                .unwrap();
        },
        false,
    ),
    (
        "changed, with its old time",
        |path| {
            let stamp = path.with_file_name("stamp");
            command::run(
                "touch",
                ["-r".as_ref(), path.as_os_str(), stamp.as_os_str()],
            );
            let mut file = File::options().write(true).open(path).unwrap();
            file.seek(SeekFrom::Start(70_000)).unwrap();
            file.write_all(b"forged").unwrap();
            command::run(
                "touch",
                ["-r".as_ref(), stamp.as_os_str(), path.as_os_str()],
            );
            fs::remove_file(stamp).unwrap();
        },
        false,
    ),
    (
        "replaced",
        |path| {
            let size = fs::metadata(path).unwrap().len();
            fs::remove_file(path).unwrap();
            File::create(path).unwrap().set_len(size).unwrap();
        },
        false,
    ),
    ("removed", |path| fs::remove_file(path).unwrap(), false),
];

#[test]
fn row_64_a_tampered_image_is_not_served() {
    needs!(Need::Root, Need::FileSystem("xfs"), Need::Tool("qemu-img"));
    for running in [true, false] {
        for (what, tamper, still_right) in TAMPERING {
            let mut bench = Bench::with_image(FileSystem::Xfs);
            let backing = bench.image_dir().join("backing");
            if running {
                tamper(&backing);
            } else {
                bench.edit_stopped(|_| tamper(&backing));
            }
            if still_right {
                assert_eq!(
                    bench.manager.wait_image("base").unwrap().state(),
                    pb::State::Ready,
                    "{what}"
                );
                assert_eq!(bench.observe(), state_after(1), "{what}");
                continue;
            }
            // Meanwhile it may have been made good from its source: then so is what is made from it.
            if bench.manager.create_volume("one", "base", 0).is_ok() {
                assert_eq!(
                    bench.observe(),
                    state_after(2),
                    "{what}, running: {running}"
                );
                bench.manager.delete_volume("one").unwrap();
            }
            wait::until("the image is good again, or no more", || {
                match bench.manager.image("base") {
                    Ok(image) if image.state() == pb::State::Ready => Some(()),
                    Err(status) if status.code() == Code::NotFound => Some(()),
                    _ => None,
                }
            });
            // The same name can be made again from its source.
            bench.manager.delete_image("base").unwrap();
            bench.life.request(&bench.manager, Request::Import).unwrap();
            assert_eq!(
                bench.manager.image("base").unwrap().current_checksum,
                bench.life.checksum()
            );
        }
    }
}

#[test]
fn row_65_nothing_is_written_into_a_bare_mount_point_or_onto_another_disk() {
    needs!(Need::Root, Need::FileSystem("xfs"), Need::Tool("qemu-img"));
    let bench = Bench::with_image(FileSystem::Xfs);
    let mount_point = bench.disk.dir().to_owned();
    // The disk goes away under the manager, whose open files keep it alive.
    command::run("umount", ["--lazy".as_ref(), mount_point.as_os_str()]);
    let source = bench.sandbox.path("import/base.qcow2");
    let image = bench.manager.make_image(from_file("other", &source));
    assert!(image.is_err() || image.unwrap().state() == pb::State::Failed);
    assert!(bench.manager.create_volume("two", "", MIB).is_err());
    assert_eq!(
        fs::read_dir(&mount_point).unwrap().count(),
        0,
        "the bare mount point stays bare"
    );

    // Another disk of ours comes in its place.
    let other = Disk::new(&bench.sandbox, "disk", FileSystem::Ext4, 64 * MIB);
    init_disk(other.dir());
    let before = list(other.dir());
    assert!(bench.manager.create_volume("two", "", MIB).is_err());
    assert_eq!(list(other.dir()), before, "the other disk stays as it was");
    leftovers::end(other.dir());
}

fn list(dir: &Path) -> Vec<PathBuf> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    names.sort();
    names
}

#[test]
fn row_65_a_directory_that_is_no_disk_is_not_served() {
    let sandbox = Sandbox::new("no-disk");
    let bare = sandbox.make_dir("bare");
    let mut manager = Manager::spawn(&sandbox, &Options::new(&bare));
    assert!(!manager.process.wait_end().success());
    let log = manager.process.log();
    assert!(
        log.contains("longhorn-disk.cfg") && log.contains("disk init"),
        "it says what to do: {log}"
    );
    assert_eq!(
        fs::read_dir(&bare).unwrap().count(),
        0,
        "nothing is written"
    );
}

#[test]
fn row_66_a_second_manager_on_a_disk_ends_and_says_why() {
    let sandbox = Sandbox::new("two-managers");
    let disk = sandbox.make_dir("disk");
    init_disk(&disk);
    let first = Manager::start(&sandbox, &Options::new(&disk));
    let mut options = Options::new(&disk);
    options.name = "second".into();
    let mut second = Manager::spawn(&sandbox, &options);
    assert!(!second.process.wait_end().success());
    let log = second.process.log();
    assert!(
        log.contains(disk.file_name().unwrap().to_str().unwrap()),
        "it names the disk: {log}"
    );
    assert!(log.contains("another"), "it says why: {log}");
    first.create_volume("one", "", MIB).unwrap();
    // A dead manager holds nothing.
    drop(first);
    let third = Manager::start(&sandbox, &Options::new(&disk));
    assert_eq!(third.volume("one").unwrap().size, MIB);
}

#[test]
fn row_68_an_image_is_not_deleted_under_its_volumes() {
    needs!(Need::Tool("qemu-img"));
    let sandbox = Sandbox::new("in-use");
    let life = Life::new(&sandbox);
    let disk = sandbox.make_dir("disk");
    init_disk(&disk);
    let manager = Manager::start(&sandbox, &life.options(&disk));
    life.request(&manager, Request::Import).unwrap();
    life.request(&manager, Request::CreateVolume).unwrap();
    let refused = manager.delete_image("base").unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(
        refused.message().contains("one"),
        "it names the volume: {refused}"
    );
    assert_eq!(life.observe(&manager, &disk), state_after(2));
    manager.delete_volume("one").unwrap();
    manager.delete_image("base").unwrap();
    assert_eq!(life.observe(&manager, &disk), state_after(LIFE.len()));
}
