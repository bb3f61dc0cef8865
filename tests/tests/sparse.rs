//! Images use no more space than their data: a block of zeros is a hole, whatever the source. The
//! measure is `cp --sparse=always` on the same file system.
#![allow(
    clippy::unwrap_used,
    reason = "tests: a panic with its cause is the result"
)]

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use e2e::data_source::DataSource;
use e2e::longhorn::spec;
use e2e::manager::{Options, from_url, init_disk};
use e2e::noise::noise;
use e2e::server::{HttpServer, Reply};
use e2e::{Disk, FileSystem, Manager, Need, Sandbox, command, needs, wait};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// What the incumbent's were measured with, smaller, and what has holes of every size.
fn images(dir: &Path) -> Vec<(&'static str, PathBuf)> {
    let file = |name: &str, size: u64, pieces: &mut dyn Iterator<Item = (u64, u64)>| {
        let path = dir.join(name);
        let file = File::create(&path).unwrap();
        file.set_len(size).unwrap();
        for (at, length) in pieces {
            let bytes = noise(at + 1, usize::try_from(length).unwrap());
            file.write_all_at(&bytes, at).unwrap();
        }
        path
    };
    let mut every = (0..40).map(|n| (n * 3 * MIB, 64 * KIB));
    let pieces = file("pieces", 120 * MIB, &mut every);
    let mut ends = [(0, 4096), (4 * MIB, 512)].into_iter();
    let tail = file("tail", 4 * MIB + 512, &mut ends);
    let mut blocks = (0..1024).map(|n| (n * 8 * KIB, 4 * KIB));
    let combed = file("combed", 8 * MIB, &mut blocks);
    let system = dir.join("system");
    File::create(&system).unwrap().set_len(100 * MIB).unwrap();
    command::run("mkfs.ext4", ["-q", "-F", &system.display().to_string()]);
    [
        ("pieces", pieces),
        ("tail", tail),
        ("combed", combed),
        ("system", system),
    ]
    .into()
}

fn allocated(path: &Path) -> u64 {
    File::open(path).unwrap().sync_all().unwrap();
    fs::metadata(path).unwrap().blocks() * 512
}

/// An image takes at most a tenth more than the same bytes copied by `cp`, or some blocks for what the file
/// system itself needs to know of its extents.
#[track_caller]
fn assert_sparse(disk: &Path, id: &str, original: &Path) {
    let copy = disk.join("copy");
    let arguments = [
        "--sparse=always".as_ref(),
        original.as_os_str(),
        copy.as_os_str(),
    ];
    command::run("cp", arguments);
    let image = disk.join(format!("backing-images/{id}/backing"));
    command::run("cmp", [&copy, &image]);
    let (least, ours) = (allocated(&copy), allocated(&image));
    fs::remove_file(&copy).unwrap();
    assert!(
        ours <= least + least / 10 + 32 * KIB,
        "{id}: {ours} bytes, by cp {least}"
    );
}

#[test]
fn row_116_zeros_take_no_room_whichever_way_an_image_comes() {
    needs!(
        Need::Root,
        Need::LoopMount,
        Need::Tool("mkfs.xfs"),
        Need::Tool("mkfs.ext4"),
        Need::Tool("curl")
    );
    let sandbox = Sandbox::new("sparse");
    let originals = sandbox.make_dir("originals");
    let images = images(&originals);
    for system in [FileSystem::Xfs, FileSystem::Ext4] {
        let disks = ["a", "b"].map(|name| {
            let name = format!("{system:?}-{name}");
            let disk = Disk::new(&sandbox, &name, system, 1 << 30);
            init_disk(disk.dir());
            disk
        });
        let [a, b] = disks.each_ref().map(|disk| {
            let options = Options::new(disk.dir()).with("--allow-address", "127.0.0.0/8");
            Manager::start(&sandbox, &options)
        });
        for (name, original) in &images {
            let bytes = Arc::new(fs::read(original).unwrap());
            let server = HttpServer::start(move |_| Reply::ok(bytes.to_vec()));
            // A download, and a volume of it.
            let mut request = from_url(name, &server.url("/image"));
            let uuid = format!("u-{name}");
            request.uuid.clone_from(&uuid);
            let made = a.make_image(request).unwrap();
            assert_eq!(made.progress, 100, "{made:?}");
            assert_sparse(disks[0].dir(), &format!("{name}-{uuid}"), original);
            let volume = format!("of-{name}");
            a.create_volume(&volume, name, made.virtual_size).unwrap();
            let data = disks[0].dir().join(format!("volumes/{volume}/volume"));
            // A volume is a whole number of blocks: it may be longer.
            let whole = fs::metadata(original).unwrap().len().to_string();
            let arguments = [
                "-n".as_ref(),
                whole.as_ref(),
                original.as_os_str(),
                data.as_os_str(),
            ];
            command::run("cmp", arguments);
            // A copy of ours.
            let same = spec(name, &uuid, made.size, &made.current_checksum);
            b.sync(same, &a).unwrap();
            wait::until("the copy is ready", || {
                let copy = b.longhorn_get(name, &uuid).unwrap().status.unwrap();
                assert_ne!(copy.state, "failed", "{copy:?}");
                (copy.state == "ready").then_some(())
            });
            assert_sparse(disks[1].dir(), &format!("{name}-{uuid}"), original);
        }
        for (name, original) in &images {
            // An upload to a data source.
            let size = fs::metadata(original).unwrap().len();
            let named = format!("up-{name}");
            let disk = disks[0].dir();
            let source = DataSource::start(&sandbox, disk, &named, "upload", "127.0.0.1", &[]);
            let form = format!("chunk=@{}", original.display());
            let url = format!(
                "http://{}/v1/file?action=upload&size={size}",
                source.address()
            );
            command::run("curl", ["--silent", "--fail", "-F", &form, &url]);
            source.wait_state("ready-for-transfer");
            let uuid = format!("uuid-{named}");
            let same = spec(&named, &uuid, size, "");
            a.fetch(same, &source.address().to_string()).unwrap();
            wait::until("it is handed over", || {
                let image = a.longhorn_get(&named, &uuid).unwrap().status.unwrap();
                (image.state == "ready").then_some(())
            });
            assert_sparse(disk, &format!("{named}-{uuid}"), original);
        }
    }
}
