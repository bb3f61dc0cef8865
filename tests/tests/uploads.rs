//! Images that a client brings in pieces: in order, once, and again after whatever ends the daemon.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::thread;

use e2e::manager::{Options, from_upload, init_disk};
use e2e::noise::noise;
use e2e::{Disk, FileSystem, Manager, Need, Sandbox, documents, needs, programs, wait};
use proto::storage::v1 as pb;
use tonic::{Code, Status};
use types::Sha512;

const MIB: usize = 1 << 20;
const PIECE: usize = 3 * MIB;

/// Data, a hole, and data: no whole number of pieces.
fn disk_image() -> Vec<u8> {
    let mut bytes = noise(7, 24 * MIB);
    bytes.resize(30 * MIB, 0);
    bytes.extend(noise(8, 5 * MIB + 512));
    bytes
}

struct Bench {
    manager: Manager,
    options: Options,
    sandbox: Sandbox,
    disk: PathBuf,
}

impl Bench {
    fn new(failpoint: &str) -> Self {
        let sandbox = Sandbox::new("uploads");
        let disk = sandbox.make_dir("disk");
        init_disk(&disk);
        let options = Options::new(&disk);
        let manager = Manager::start(&sandbox, &options.clone().with_failpoint(failpoint));
        Self {
            manager,
            options,
            sandbox,
            disk,
        }
    }

    fn restart(&mut self) {
        self.manager = Manager::start(&self.sandbox, &self.options);
    }

    fn backing(&self, image: &pb::BackingImage) -> PathBuf {
        let name = format!("{}-{}", image.name, image.uuid);
        self.disk.join("backing-images").join(name).join("backing")
    }
}

/// Sends all from where the daemon says that it is.
fn send(
    manager: &Manager,
    image: &pb::BackingImage,
    bytes: &[u8],
) -> Result<pb::BackingImage, Status> {
    let mut now = manager.image(&image.name)?;
    if now.state() == pb::State::Unknown {
        return manager.wait_image(&image.name);
    }
    while now.processed_size < bytes.len() as u64 {
        let at = usize::try_from(now.processed_size).unwrap();
        let end = bytes.len().min(at + PIECE);
        now = manager.write_upload(image, now.processed_size, &bytes[at..end])?;
    }
    manager.wait_image(&image.name)
}

#[track_caller]
fn is_ready(bench: &Bench, image: &pb::BackingImage, bytes: &[u8]) {
    assert_eq!(image.state(), pb::State::Ready, "{}", image.message);
    assert_eq!(image.current_checksum, Sha512::of(bytes).to_string());
    assert!(fs::read(bench.backing(image)).unwrap() == bytes);
    let dir = bench.backing(image).parent().unwrap().to_owned();
    let left = fs::read_dir(dir).unwrap().flatten();
    let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
    assert!(
        left.iter()
            .all(|name| !name.to_string_lossy().contains("upload")),
        "{left:?}"
    );
}

/// Row 400: each place at which the daemon says that a step is done.
#[test]
fn row_400_kill_9_at_every_failpoint_of_an_upload_loses_no_byte_that_was_told() {
    needs!(Need::Failpoints);
    let bytes = disk_image();
    let mut points = documents::crash_points(&["crates/store/src"]);
    points.retain(|point| point.starts_with("store.upload.") || point.starts_with("store.seal."));
    assert!(points.len() >= 12, "{points:?}");
    for point in points {
        let mut bench = Bench::new(&format!("{point}=return"));
        let request = from_upload("img", bytes.len());
        let created = bench.manager.create_image(request.clone());
        if let Ok(image) = &created {
            // It ends in the middle, or while it seals.
            let _ = send(&bench.manager, image, &bytes);
        }
        let ended = bench.manager.process.wait_end();
        assert_eq!(ended.signal(), Some(9), "{point} kills");
        bench.restart();
        let found = bench.manager.image("img");
        let synced = found.as_ref().map_or(0, |image| image.processed_size);
        assert!(
            synced.is_multiple_of(PIECE as u64) || synced == bytes.len() as u64,
            "{point}: {synced}"
        );
        let image = bench.manager.create_image(request).unwrap();
        if let (Ok(before), Ok(found)) = (&created, &found) {
            assert_eq!(before.uuid, found.uuid, "{point}: it is the same upload");
        }
        let image = send(&bench.manager, &image, &bytes)
            .unwrap_or_else(|status| panic!("{point}: {status}"));
        is_ready(&bench, &image, &bytes);
    }
}

/// Row 401: the offset is asked for, and a second writer is told.
#[test]
fn row_401_a_piece_belongs_where_the_last_one_ended() {
    let bench = Bench::new("");
    let manager = &bench.manager;
    let bytes = disk_image();
    let request = from_upload("img", bytes.len());
    let image = manager.create_image(request.clone()).unwrap();
    assert_eq!(image.state(), pb::State::InProgress);
    assert_eq!(image.total_size, bytes.len() as u64);
    let first = manager.write_upload(&image, 0, &bytes[..MIB]).unwrap();
    assert_eq!(first.processed_size, MIB as u64);
    for offset in [
        0,
        MIB as u64 - 1,
        MIB as u64 + 1,
        bytes.len() as u64,
        u64::MAX,
    ] {
        let refused = manager.write_upload(&image, offset, &[1; 100]).unwrap_err();
        assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
        assert!(refused.message().contains("offset 1048576"), "{refused}");
    }
    let too_large = vec![1; PIECE + 1];
    for wrong in [&[][..], &too_large] {
        let refused = manager.write_upload(&image, MIB as u64, wrong).unwrap_err();
        let said = [Code::InvalidArgument, Code::ResourceExhausted];
        assert!(said.contains(&refused.code()), "{refused}");
    }
    let other = pb::BackingImage {
        uuid: "00000000".into(),
        ..image.clone()
    };
    let refused = manager.write_upload(&other, MIB as u64, &[1]).unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    // The same request joins; another size or name is another upload.
    let joined = manager.create_image(request).unwrap();
    assert_eq!(
        (&joined.uuid, joined.processed_size),
        (&image.uuid, MIB as u64)
    );
    let differs = manager.create_image(from_upload("img", MIB)).unwrap_err();
    assert_eq!(differs.code(), Code::AlreadyExists);
    assert!(differs.message().contains("size"), "{differs}");
    let image = send(manager, &image, &bytes).unwrap();
    is_ready(&bench, &image, &bytes);
    let late = manager.write_upload(&image, image.size, &[1]).unwrap_err();
    assert_eq!(late.code(), Code::OutOfRange, "{late}");
}

/// Row 402: two who send the same upload; each piece is there once.
#[test]
fn row_402_two_writers_do_not_mix() {
    let bench = Bench::new("");
    let bytes = disk_image();
    let image = bench
        .manager
        .create_image(from_upload("img", bytes.len()))
        .unwrap();
    let writer = || {
        let size = bytes.len() as u64;
        let mut refused = 0;
        loop {
            let now = bench.manager.image("img").unwrap();
            if now.state() == pb::State::Ready || now.processed_size >= size {
                return refused;
            }
            let at = usize::try_from(now.processed_size).unwrap();
            let end = bytes.len().min(at + PIECE);
            let piece = &bytes[at..end];
            if let Err(status) = bench
                .manager
                .write_upload(&image, now.processed_size, piece)
            {
                let known = [Code::Aborted, Code::OutOfRange];
                assert!(known.contains(&status.code()), "{status}");
                refused += 1;
            }
        }
    };
    let refused: usize = thread::scope(|scope| {
        let writers: Vec<_> = (0..2).map(|_| scope.spawn(writer)).collect();
        writers
            .into_iter()
            .map(|writer| writer.join().unwrap())
            .sum()
    });
    let ready = bench.manager.wait_image("img").unwrap();
    is_ready(&bench, &ready, &bytes);
    println!("{refused} pieces were refused");
}

/// Row 403: bytes that are not the expected ones, that are no disk, or more than was said.
#[test]
fn row_403_what_is_not_what_was_said_is_refused_and_removed() {
    let bench = Bench::new("");
    let manager = &bench.manager;
    let bytes = disk_image();
    let request = pb::CreateBackingImageRequest {
        expected_checksum: Sha512::of(b"another").to_string(),
        ..from_upload("wrong", bytes.len())
    };
    let image = manager.create_image(request).unwrap();
    let failed = send(manager, &image, &bytes).unwrap();
    assert_eq!(failed.state(), pb::State::Failed);
    assert_eq!(
        failed.failure_code,
        Code::DataLoss as u32,
        "{}",
        failed.message
    );
    let refused = manager.write_upload(&image, 0, &[1]).unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    let zip = [b"PK\x03\x04".as_slice(), &[7; 4096]].concat();
    let image = manager.create_image(from_upload("zip", zip.len())).unwrap();
    let failed = send(manager, &image, &zip).unwrap();
    assert!(failed.message.contains("zip archive"), "{}", failed.message);
    let image = manager.create_image(from_upload("long", 1000)).unwrap();
    let refused = manager.write_upload(&image, 0, &[1; 1001]).unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    assert_eq!(manager.image("long").unwrap().processed_size, 0);
    for (size, why) in [(0, "size"), (usize::MAX / 2, "size")] {
        let refused = manager.create_image(from_upload("none", size)).unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(refused.message().contains(why), "{refused}");
    }
    for name in ["wrong", "zip", "long"] {
        manager.delete_image(name).unwrap();
    }
    let left = fs::read_dir(bench.disk.join("backing-images"))
        .unwrap()
        .count();
    assert_eq!(left, 0);
}

/// Row 404: a disk that is full is said, and the upload goes on when there is space.
#[test]
fn row_404_an_upload_goes_on_after_space_was_made() {
    needs!(Need::Root, Need::FileSystem("ext4"));
    let sandbox = Sandbox::new("upload-full");
    let disk = Disk::new(&sandbox, "disk", FileSystem::Ext4, 320 << 20);
    init_disk(disk.dir());
    let options = Options::new(disk.dir());
    let mut manager = Manager::start(&sandbox, &options);
    let bytes = disk_image();
    let image = manager
        .create_image(from_upload("img", bytes.len()))
        .unwrap();
    manager.write_upload(&image, 0, &bytes[..PIECE]).unwrap();
    let filler = disk.dir().join("filler");
    fill(&filler);
    let refused = manager.write_upload(&image, PIECE as u64, &bytes[PIECE..2 * PIECE]);
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    let now = manager.image("img").unwrap();
    assert_eq!(now.state(), pb::State::InProgress, "{}", now.message);
    assert_eq!(now.processed_size, PIECE as u64);
    // A new start on the full disk knows it as well; one that nobody wants is deleted there.
    manager.process.terminate();
    manager = Manager::start(&sandbox, &options);
    assert_eq!(manager.image("img").unwrap().state(), pb::State::InProgress);
    fs::remove_file(&filler).unwrap();
    let ready = send(&manager, &image, &bytes).unwrap();
    assert_eq!(
        ready.current_checksum,
        Sha512::of(&bytes).to_string(),
        "{}",
        ready.message
    );
    manager.delete_image("img").unwrap();
    let image = manager
        .create_image(from_upload("two", bytes.len()))
        .unwrap();
    manager.write_upload(&image, 0, &bytes[..PIECE]).unwrap();
    fill(&filler);
    manager.delete_image("two").unwrap();
    assert_eq!(manager.image("two").unwrap_err().code(), Code::NotFound);
    let left = fs::read_dir(disk.dir().join("backing-images"))
        .unwrap()
        .count();
    assert_eq!(left, 0);
    fs::remove_file(&filler).unwrap();
    manager.process.terminate();
}

/// Until nothing more is taken.
fn fill(path: &Path) {
    let mut file = fs::File::create(path).unwrap();
    let bytes = vec![0x5a; MIB];
    while file.write_all(&bytes).is_ok() {}
    file.sync_all().ok();
}

/// The daemon ends as it is asked to, and does not wait for uploads; the command goes on by itself.
#[test]
fn an_upload_of_the_command_line_goes_on_after_a_restart() {
    let mut bench = Bench::new("");
    let bytes = disk_image();
    let file = bench.sandbox.write("disk.raw", &bytes);
    let sum = format!("sha512:{}", Sha512::of(&bytes));
    let image = bench.manager.create_image(pb::CreateBackingImageRequest {
        expected_checksum: sum.clone(),
        ..from_upload("img", bytes.len())
    });
    let image = image.unwrap();
    let mut at = 0;
    while at < 20 * MIB {
        let piece = &bytes[at..at + 2 * MIB];
        bench
            .manager
            .write_upload(&image, at as u64, piece)
            .unwrap();
        at += 2 * MIB;
    }
    bench.manager.process.terminate();
    bench.restart();
    let found = bench.manager.image("img").unwrap();
    assert_eq!(found.state(), pb::State::InProgress);
    // An orderly end costs nothing of what has come.
    assert_eq!(found.processed_size, at as u64);
    let path = file.display().to_string();
    let arguments = ["upload", &path, "--name", "img", "--checksum", &sum];
    let output = bench.manager.cli("backing-image", &arguments);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let ready = bench.manager.image("img").unwrap();
    assert_eq!(
        (&ready.uuid, ready.source.as_str()),
        (&image.uuid, "upload:disk.raw")
    );
    is_ready(&bench, &ready, &bytes);
    // Once more: it is there.
    let again = bench.manager.cli("backing-image", &arguments);
    assert!(
        again.status.success(),
        "{}",
        String::from_utf8_lossy(&again.stderr)
    );
    drop(programs::manager());
    wait::until("the disk is told", || {
        bench.manager.disk().ok().filter(|disk| disk.images == 1)
    });
}

/// A list is sent when it is another one than the caller has.
#[test]
fn a_list_that_is_known_is_not_sent_again() {
    let bench = Bench::new("");
    let manager = &bench.manager;
    let list = |known_version| {
        let request = pb::ListBackingImagesRequest { known_version };
        let mut images = manager.images();
        e2e::block_on(images.list_backing_images(request))
            .unwrap()
            .into_inner()
    };
    let empty = list(0);
    assert_ne!(empty.version, 0);
    assert!(list(empty.version).unchanged);
    let image = manager.create_image(from_upload("img", 2048)).unwrap();
    let one = list(empty.version);
    assert_eq!((one.unchanged, one.backing_images.len()), (false, 1));
    let same = list(one.version);
    assert_eq!((same.unchanged, same.backing_images.len()), (true, 0));
    manager.write_upload(&image, 0, &[7; 512]).unwrap();
    assert_eq!(list(one.version).backing_images[0].processed_size, 512);
    let volumes = |known_version| {
        let request = pb::ListVolumesRequest {
            known_version,
            ..Default::default()
        };
        let mut volumes = manager.volumes();
        e2e::block_on(volumes.list_volumes(request))
            .unwrap()
            .into_inner()
    };
    let before = volumes(0);
    manager.create_volume("v", "", 64 << 20).unwrap();
    let after = volumes(before.version);
    assert_eq!((after.unchanged, after.volumes.len()), (false, 1));
    assert!(volumes(after.version).unchanged);
    let disk = manager.disk().unwrap();
    assert_eq!((disk.images, disk.volumes, disk.io_errors), (1, 1, 0));
    assert_eq!(disk.promised_volumes, 64 << 20);
    assert_eq!(disk.promised, disk.promised_volumes + disk.promised_images);
    assert_eq!(disk.not_ready, "");
}
