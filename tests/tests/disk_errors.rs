//! Row 59: a disk with broken sectors, which the kernel reports as EIO.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use e2e::export::{Export, Fails};
use e2e::manager::{Options, from_file, from_peers, init_disk};
use e2e::noise::noise;
use e2e::{Disk, Manager, Need, Sandbox, command, needs, wait, web};
use proto::storage::v1 as pb;

const MIB: usize = 1 << 20;
const BLOCK: usize = 4096;
const DISK_SIZE: u64 = 320 << 20;
const EIO: &str = "Input/output error";
const UUID: &str = "0123abcd";

/// An ext4 with blocks of [`BLOCK`] bytes, and a disk of ours on it.
fn make_disk(sandbox: &Sandbox) -> Disk {
    let image = sandbox.path("disk.img");
    let made = File::create(&image).and_then(|file| file.set_len(DISK_SIZE));
    made.unwrap();
    let block = BLOCK.to_string();
    let options = ["-qFm0", "-b", &block].map(OsStr::new);
    command::run("mkfs.ext4", options.into_iter().chain([image.as_os_str()]));
    let disk = Disk::mount(sandbox, "disk", image);
    init_disk(disk.dir());
    disk
}

/// A manager on a disk that nobody scrubs.
struct Host {
    manager: Manager,
}

impl Host {
    fn start(sandbox: &Sandbox, name: &str, disk: &Path) -> Self {
        let mut options = Options::new(disk)
            .with("--import-dir", sandbox.make_dir("import"))
            .with("--metrics-listen", "127.0.0.1:0")
            .with("--scrub-rate", "0");
        name.clone_into(&mut options.name);
        let manager = Manager::start(sandbox, &options);
        Self { manager }
    }

    fn ready(&self) -> (u16, String) {
        let (status, body) =
            web::get(&format!("http://{}/readyz", self.manager.metrics_address())).unwrap();
        (status, String::from_utf8(body).unwrap())
    }

    /// Three errors were one too many, and the disk is trusted again when a trial goes well.
    fn assert_suspect_for_a_while(&self) {
        let log = self.manager.process.log();
        assert!(log.contains("the disk is suspect"), "{log}");
        wait::until("the disk is trusted again", || {
            let log = self.manager.process.log();
            log.contains("the disk works again").then_some(())
        });
        assert_eq!(self.ready(), (200, "ok\n".to_owned()));
    }
}

fn import(sandbox: &Sandbox, name: &str, bytes: &[u8]) -> pb::CreateBackingImageRequest {
    let path = sandbox.write(format!("import/{name}"), bytes);
    let mut request = from_file(name, &path);
    request.uuid = UUID.into();
    request
}

fn entries(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap();
    names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// One sector in each MiB of what is free for images: where a file was that filled the disk.
fn sectors_for_images(disk: &Disk) -> Vec<u64> {
    let ballast = disk.dir().join("ballast");
    let file = File::create_new(&ballast).unwrap();
    let mark = noise(9, BLOCK);
    // What else will be written finds its place in the rest.
    let blocks = disk.available() / BLOCK as u64 - (16 * MIB / BLOCK) as u64;
    for block in 0..blocks {
        file.write_all_at(&mark, block * BLOCK as u64).unwrap();
    }
    file.sync_all().unwrap();
    disk.detach();
    let sectors = find(disk.image(), &mark)
        .into_iter()
        .filter(|offset| offset / BLOCK as u64 % 256 == 100)
        .map(|offset| offset / 512)
        .collect();
    disk.attach();
    fs::remove_file(ballast).unwrap();
    sectors
}

/// Offsets of the blocks of a file that hold these bytes.
fn find(file: &Path, bytes: &[u8]) -> Vec<u64> {
    let file = File::open(file).unwrap();
    let blocks = file.metadata().unwrap().len() / BLOCK as u64;
    let mut block = vec![0; BLOCK];
    let offsets = (0..blocks).map(|number| number * BLOCK as u64);
    offsets
        .filter(|offset| {
            file.read_exact_at(&mut block, *offset).unwrap();
            block == bytes
        })
        .collect()
}

#[test]
fn row_59_what_cannot_be_written_is_no_image_and_leaves_nothing() {
    needs!(
        Need::Root,
        Need::Fuse,
        Need::FileSystem("ext4"),
        Need::Tool("qemu-storage-daemon")
    );
    let sandbox = Sandbox::new("disk-errors");
    let disk = make_disk(&sandbox);
    let sectors = sectors_for_images(&disk);
    assert!(sectors.len() > 100, "{sectors:?}");
    disk.detach();
    let broken = Export::broken(&sandbox, disk.image(), Fails::Write, &sectors);
    let host = Host::start(&sandbox, "manager", broken.dir());
    let bytes = noise(1, 48 * MIB);
    for name in ["first", "second", "third"] {
        let image = host.manager.make_image(import(&sandbox, name, &bytes));
        let image = image.unwrap();
        assert_eq!(image.state, pb::State::Failed as i32, "{image:?}");
        assert!(image.message.contains(EIO), "{}", image.message);
        assert_eq!(entries(&broken.dir().join("backing-images")), [""; 0]);
    }
    host.assert_suspect_for_a_while();
    drop(host);
    broken.end();
}

#[test]
fn row_59_what_cannot_be_read_is_said_and_comes_from_another_copy() {
    needs!(
        Need::Root,
        Need::Fuse,
        Need::FileSystem("ext4"),
        Need::Tool("qemu-storage-daemon")
    );
    let sandbox = Sandbox::new("read-errors");
    let disk = make_disk(&sandbox);
    let bytes = noise(2, 8 * MIB);
    let [second, third] = ["second", "third"].map(|name| {
        let dir = sandbox.make_dir(name);
        init_disk(&dir);
        Host::start(&sandbox, name, &dir)
    });
    let first = Host::start(&sandbox, "first", disk.dir());
    for host in [&first, &second] {
        let made = host.manager.make_image(import(&sandbox, "image", &bytes));
        assert_eq!(made.unwrap().progress, 100);
    }
    drop(first);
    disk.detach();
    let bad = find(disk.image(), &bytes[5 * MIB..][..BLOCK]);
    let sectors: Vec<u64> = bad.iter().map(|offset| offset / 512).collect();
    assert_eq!(sectors.len(), 1, "a block of chunk 5");
    let broken = Export::broken(&sandbox, disk.image(), Fails::Read, &sectors);
    let first = Host::start(&sandbox, "first-again", broken.dir());
    // What the other has is taken from there.
    let peers = [first.manager.sync_address(), second.manager.sync_address()];
    let copied = third.manager.make_image(from_peers("image", UUID, &peers));
    let (copied, made) = (copied.unwrap(), second.manager.image("image").unwrap());
    assert_eq!(
        (copied.progress, copied.current_checksum),
        (100, made.current_checksum)
    );
    // Without reflinks a volume is a copy.
    for name in ["one", "two", "three"] {
        let refused = first.manager.create_volume(name, "image", 8 << 20);
        let refused = refused.unwrap_err();
        assert!(refused.message().contains(EIO), "{refused:?}");
        assert_eq!(entries(&broken.dir().join("volumes")), [""; 0]);
    }
    first.assert_suspect_for_a_while();
    drop(first);
    broken.end();
}
