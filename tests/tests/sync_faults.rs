//! Copies between real managers under faults: corrupting connections, and peers that violate the
//! protocol, freeze, die, or have other or damaged data.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod sync_faults {
    pub(crate) mod evil;
    pub(crate) mod proxy;
}

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use e2e::manager::{Options, from_file, from_peers, init_disk};
use e2e::noise::noise;
use e2e::{Disk, FileSystem, Manager, Need, Sandbox, needs, wait};
use proto::storage::v1 as pb;
use rustix::process::Signal;
use sync_faults::evil::{Evil, Lie};
use sync_faults::proxy::{Fault, Proxy};

const MIB: usize = 1 << 20;
const NAME: &str = "image";
const UUID: &str = "0123abcd";

/// Some managers in one sandbox, the first of which may import files.
struct Site {
    managers: Vec<Manager>,
    options: Vec<Options>,
    import: PathBuf,
    sandbox: Sandbox,
}

impl Site {
    fn new(name: &str, more: &[&[(&str, &str)]]) -> Self {
        let sandbox = Sandbox::new(name);
        let import = sandbox.make_dir("import");
        let mut site = Self {
            managers: Vec::new(),
            options: Vec::new(),
            import,
            sandbox,
        };
        for (n, more) in more.iter().enumerate() {
            let disk = site.sandbox.make_dir(format!("disk-{n}"));
            site.add(&disk, more);
        }
        site
    }

    fn add(&mut self, disk: &Path, more: &[(&str, &str)]) {
        init_disk(disk);
        let mut options = Options::new(disk).with("--import-dir", &self.import);
        options.name = format!("manager-{}", self.managers.len());
        for (option, value) in more {
            options = options.with(option, *value);
        }
        self.managers.push(Manager::start(&self.sandbox, &options));
        self.options.push(options);
    }

    /// Starts a manager again that has ended.
    fn again(&mut self, n: usize) {
        self.managers[n] = Manager::start(&self.sandbox, &self.options[n]);
    }

    fn make(&self, n: usize, name: &str, bytes: &[u8]) -> pb::BackingImage {
        let path = self.sandbox.write(format!("import/{name}"), bytes);
        self.make_from(n, name, &path)
    }

    fn make_from(&self, n: usize, name: &str, path: &Path) -> pb::BackingImage {
        let mut request = from_file(name, path);
        request.uuid = UUID.into();
        let made = self.managers[n].make_image(request).unwrap();
        assert_eq!(made.progress, 100, "{made:?}");
        made
    }

    fn begin(&self, n: usize, name: &str, from: &[SocketAddr]) {
        let request = from_peers(name, UUID, from);
        self.managers[n].create_image(request).unwrap();
    }

    fn copy(&self, n: usize, name: &str, from: &[SocketAddr]) -> pb::BackingImage {
        self.managers[n]
            .make_image(from_peers(name, UUID, from))
            .unwrap()
    }

    fn sync(&self, n: usize) -> SocketAddr {
        self.managers[n].sync_address()
    }

    /// The path of an image's bytes.
    fn backing(&self, n: usize, name: &str) -> PathBuf {
        let images = self.options[n].disk.join("backing-images");
        images.join(format!("{name}-{UUID}")).join("backing")
    }

    /// Waits until some of an image has come.
    fn wait_for(&self, n: usize, name: &str, bytes: u64) {
        wait::until("some of the image has come", || {
            let image = self.managers[n].image(name).unwrap();
            assert_ne!(image.state, pb::State::Failed as i32, "{image:?}");
            (image.processed_size >= bytes).then_some(())
        });
    }
}

#[track_caller]
fn assert_same(copied: &pb::BackingImage, made: &pb::BackingImage) {
    assert_eq!(copied.progress, 100, "{copied:?}");
    assert_eq!(copied.current_checksum, made.current_checksum);
}

#[track_caller]
fn assert_failed(image: &pb::BackingImage, why: &str) {
    assert_eq!(image.state, pb::State::Failed as i32, "{image:?}");
    assert!(
        image.message.contains(why),
        "{why:?} in {:?}",
        image.message
    );
}

const SLOW: &[(&str, &str)] = &[("--sync-rate-limit", "8388608")];
const PLAIN: &[(&str, &str)] = &[];
/// Nobody looks at its images but who sends them.
const UNSCRUBBED: &[(&str, &str)] = &[("--scrub-rate", "0")];

/// Row 46: what is a hole stays one, and is not sent. (All of its zeros are in its SHA-512, which is
/// why it is not a TiB.)
#[test]
fn row_46_a_sparse_image_is_copied_as_what_it_holds() {
    let site = Site::new("sync-sparse", &[PLAIN, PLAIN]);
    let path = site.sandbox.path("import/sparse");
    let file = File::create(&path).unwrap();
    file.set_len(512 << 20).unwrap();
    file.write_all_at(&noise(1, MIB), 300 << 20).unwrap();
    let made = site.make_from(0, NAME, &path);
    let copied = site.copy(1, NAME, &[site.sync(0)]);
    assert_same(&copied, &made);
    let blocks = fs::metadata(site.backing(1, NAME)).unwrap().blocks() * 512;
    assert!(blocks <= 2 << 20, "{blocks} bytes on disk");
    assert!(copied.real_size <= 2 << 20, "{copied:?}");
}

/// Rows 47 and 96: the sender dies, or freezes, in the middle: the rest comes from another.
#[test]
fn row_47_and_96_a_sender_that_dies_or_freezes_is_replaced() {
    let mut site = Site::new("sync-dies", &[SLOW, PLAIN, PLAIN]);
    let made = site.make(0, NAME, &noise(2, 32 * MIB));
    assert_same(&site.copy(1, NAME, &[site.sync(0)]), &made);
    let both = [site.sync(0), site.sync(1)];
    // It freezes.
    site.begin(2, NAME, &both[..1]);
    site.wait_for(2, NAME, 2 << 20);
    site.managers[0].process.signal(Signal::STOP);
    site.managers[2].delete_image(NAME).unwrap();
    assert_same(&site.copy(2, NAME, &both), &made);
    // All of it came while the first was frozen.
    site.managers[0].process.signal(Signal::CONT);
    // It dies, and what came is not lost: the next attempt goes on.
    site.managers[2].delete_image(NAME).unwrap();
    site.begin(2, NAME, &both[..1]);
    site.wait_for(2, NAME, 4 << 20);
    site.managers[0].process.kill_9();
    site.managers[2].process.kill_9();
    site.again(2);
    let logged = site.managers[2].process.log().len();
    assert_same(&site.copy(2, NAME, &both), &made);
    let log = site.managers[2].process.log();
    let resumed = "resumes an earlier attempt";
    assert!(log[logged..].contains(resumed), "{}", &log[logged..]);
    let part = site.backing(2, NAME).with_file_name("backing.part");
    assert!(!part.exists(), "no half file is left");
}

/// Row 48: the receiver is killed between the name of the file and the record of it.
#[test]
fn row_48_a_receiver_killed_after_the_rename_adopts_what_it_has() {
    let mut site = Site::new("sync-renamed", &[PLAIN, PLAIN]);
    let made = site.make(0, NAME, &noise(8, 3 * MIB));
    for point in [
        "store.assembly.received",
        "store.seal.renamed",
        "store.seal.named",
    ] {
        site.managers[1].process.terminate();
        let plain = site.options[1].clone();
        let killed = plain.clone().with_failpoint(format!("{point}=return"));
        site.managers[1] = Manager::start(&site.sandbox, &killed);
        site.begin(1, NAME, &[site.sync(0)]);
        site.managers[1].process.wait_end();
        site.again(1);
        // Before the rename it is not an image yet, and asked for again; after it is one.
        let copied = if point.contains("assembly") {
            site.copy(1, NAME, &[site.sync(0)])
        } else {
            site.managers[1].wait_image(NAME).unwrap()
        };
        assert_same(&copied, &made);
        site.managers[1].delete_image(NAME).unwrap();
    }
}

/// Rows 49 and 50: a disk that rots below a sender is found out; another copy is used if there is one,
/// and if there is none it is said.
#[test]
fn row_49_and_50_a_rotten_copy_is_found_and_set_aside() {
    needs!(Need::Root, Need::LoopMount, Need::Tool("mkfs.ext4"));
    let mut site = Site::new("sync-rot", &[PLAIN, PLAIN]);
    let disk = Disk::new(&site.sandbox, "rotten", FileSystem::Ext4, 256 << 20);
    site.add(disk.dir(), UNSCRUBBED);
    let bytes = noise(3, 16 * MIB);
    let names = ["helped", "alone"];
    let made = names.map(|name| site.make(2, name, &bytes));
    site.copy(0, "helped", &[site.sync(2)]);
    site.managers[2].process.terminate();
    disk.detach();
    // Nor can either be made again from what it was made from.
    for name in names {
        fs::remove_file(site.sandbox.path(format!("import/{name}"))).unwrap();
    }
    // Both copies, each at another chunk.
    rot(disk.image(), &bytes[5 * MIB..5 * MIB + 4096], 2);
    disk.attach();
    site.again(2);
    assert_eq!(site.managers[2].image("helped").unwrap().progress, 100);
    // There is a good copy elsewhere.
    let helped = site.copy(1, "helped", &[site.sync(2), site.sync(0)]);
    assert_same(&helped, &made[0]);
    // There is none.
    let alone = site.copy(1, "alone", &[site.sync(2)]);
    assert_failed(&alone, "its copy of chunk 5 is damaged");
    let rotten = site.managers[2].wait_image("alone").unwrap();
    assert_failed(&rotten, "quarantined in");
    site.managers[2].process.terminate();
}

/// Flips a bit in the `count` places of a file where these bytes are.
fn rot(image: &Path, bytes: &[u8], count: usize) {
    let file = File::options().read(true).write(true).open(image).unwrap();
    let size = file.metadata().unwrap().len();
    let mut found = 0;
    let mut block = vec![0; bytes.len()];
    for offset in (0..size - bytes.len() as u64).step_by(1024) {
        file.read_exact_at(&mut block, offset).unwrap();
        if block == bytes {
            file.write_all_at(&[bytes[9] ^ 1], offset + 9).unwrap();
            found += 1;
        }
    }
    file.sync_all().unwrap();
    assert_eq!(found, count, "places where the bytes are");
}

/// Row 51: whatever a wire does to the bytes, what is ready is right, and it becomes ready.
#[test]
fn row_51_bytes_that_a_wire_spoils_are_fetched_again() {
    let site = Site::new("sync-wire", &[PLAIN, PLAIN, PLAIN]);
    let made = site.make(0, NAME, &noise(4, 24 * MIB));
    assert_same(&site.copy(1, NAME, &[site.sync(0)]), &made);
    for fault in [
        Fault::Flip,
        Fault::Swap,
        Fault::Repeat,
        Fault::Reset,
        Fault::HalfClose,
        Fault::Stall,
    ] {
        let proxy = Proxy::start(site.sync(0), fault);
        let copied = site.copy(2, NAME, &[proxy.address(), site.sync(1)]);
        assert_same(&copied, &made);
        assert!(proxy.faults() > 0, "{fault:?} did nothing");
        site.managers[2].delete_image(NAME).unwrap();
    }
}

/// Rows 52 and 53: a peer that breaks the protocol, or has something else, is refused, alone and beside
/// a good one.
#[test]
fn row_52_and_53_a_peer_that_lies_is_refused() {
    let site = Site::new("sync-lies", &[PLAIN, PLAIN]);
    let bytes = noise(5, 6 * MIB + 512);
    let made = site.make(0, NAME, &bytes);
    for lie in Lie::ALL {
        let evil = Evil::start(site.sync(0), NAME, UUID, &bytes, lie);
        let failed = site.copy(1, NAME, &[evil.address()]);
        assert_failed(&failed, lie.said());
        let copied = site.copy(1, NAME, &[evil.address(), site.sync(0)]);
        assert_same(&copied, &made);
        site.managers[1].delete_image(NAME).unwrap();
    }
    let mut other = from_peers(NAME, UUID, &[site.sync(0)]);
    other.expected_checksum = "ab".repeat(64);
    let failed = site.managers[1].make_image(other).unwrap();
    assert_failed(&failed, "its SHA-512 differs from the requested one");
}

/// Row 54: three receivers at once, a sender that serves two requests at a time.
#[test]
fn row_54_more_receivers_than_a_sender_serves_all_finish() {
    let busy = &[("--sync-sends-max", "2"), ("--sync-rate-limit", "33554432")];
    let site = Site::new("sync-busy", &[busy, PLAIN, PLAIN, PLAIN]);
    let made = site.make(0, NAME, &noise(6, 32 * MIB));
    for n in 1..4 {
        site.begin(n, NAME, &[site.sync(0)]);
    }
    for n in 1..4 {
        assert_same(&site.managers[n].wait_image(NAME).unwrap(), &made);
        let (most, _) = site.managers[n].process.memory();
        println!("receiver {n}: {} MiB", most >> 20);
    }
}

/// Row 55: one version apart is understood, two are refused and said.
#[test]
fn row_55_versions_are_negotiated() {
    let site = Site::new("sync-version", &[PLAIN, PLAIN]);
    site.make(0, NAME, &noise(7, MIB));
    for (version, answer) in [("1", "200"), ("2", "200"), ("3", "412"), ("x", "400")] {
        let head = ask(site.sync(0), version);
        assert!(
            head.starts_with(&format!("HTTP/1.1 {answer}")),
            "{version}: {head}"
        );
        assert!(head.contains("sync-protocol: 1"), "{head}");
    }
    let evil = Evil::start(site.sync(0), NAME, UUID, &[], Lie::Version);
    let failed = site.copy(1, NAME, &[evil.address()]);
    assert_failed(&failed, "speaks version 3 of the sync protocol");
}

/// The head of the answer to somebody of that version.
fn ask(to: SocketAddr, version: &str) -> String {
    let mut stream = TcpStream::connect(to).unwrap();
    write!(
        stream,
        "HEAD /v2/images/{NAME}/{UUID}/manifest HTTP/1.1\r\nHost: x\r\n\
         Sync-Protocol: {version}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut head = String::new();
    stream.read_to_string(&mut head).unwrap();
    head
}

/// Row 104: eight syncs take the memory of one.
#[test]
fn row_104_eight_syncs_keep_to_64_mib() {
    let site = Site::new("sync-memory", &[PLAIN, PLAIN]);
    let names: Vec<String> = (0..8).map(|n| format!("image{n}")).collect();
    for (name, seed) in names.iter().zip(20..) {
        site.make(0, name, &noise(seed, 40 * MIB));
    }
    for name in &names {
        site.begin(1, name, &[site.sync(0)]);
    }
    for name in &names {
        let image = site.managers[1].wait_image(name).unwrap();
        assert_eq!(image.progress, 100, "{image:?}");
    }
    let process = &site.managers[1].process;
    let (received, code) = (process.memory().0, process.code());
    println!(
        "received with {} MiB, {} of code",
        received >> 20,
        code >> 20
    );
    // All of it is measured with the program as users have it, whose code has less than 16 MiB: `make bench`.
    let held = received - code;
    assert!(held <= 48 << 20, "{held} bytes beside the code");
}
