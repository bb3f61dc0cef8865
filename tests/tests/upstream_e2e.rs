//! The end-to-end cases of Longhorn's own tests that need no control plane, under their own names:
//! against the built daemon, with an image like `parrot.raw` and one like `parrot.qcow2`.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use e2e::baseimage::{PARTY_WIZARD, WIZARD, raw_ext4};
use e2e::manager::{Options, from_url, from_volume, init_disk};
use e2e::noise::noise;
use e2e::server::{HttpServer, Reply, Request};
use e2e::web::Nginx;
use e2e::{Manager, Need, Sandbox, command, leftovers, needs, wait};
use proto::storage::v1 as pb;
use tonic::Code;

const MIB: u64 = 1 << 20;
/// Of the fixtures of Longhorn's tests.
const SIZE: u64 = 32 * MIB;
/// Raw and compressed qcow2, as `parrot.raw` and `parrot.qcow2` are.
const FILES: [&str; 2] = ["parrot.raw", "parrot.qcow2"];

/// A web server with the two images, and a manager that may reach it.
struct Bench {
    manager: Manager,
    options: Options,
    nginx: Nginx,
    disk: PathBuf,
    sandbox: Sandbox,
}

impl Bench {
    fn new(name: &str) -> Self {
        let sandbox = Sandbox::new(name);
        let served = sandbox.make_dir("served");
        let raw = raw_ext4(&sandbox, "served/parrot.raw", SIZE);
        let qcow2 = served.join("parrot.qcow2");
        let convert = ["convert", "-c", "-f", "raw", "-O", "qcow2"].map(AsRef::as_ref);
        let files = [raw.as_os_str(), qcow2.as_os_str()];
        command::run("qemu-img", convert.into_iter().chain(files));
        let nginx = Nginx::serve(&sandbox, "images", &served);
        let disk = sandbox.make_dir("disk");
        init_disk(&disk);
        let options = Options::new(&disk).with("--allow-address", "127.0.0.0/8");
        let manager = Manager::start(&sandbox, &options);
        Self {
            manager,
            options,
            nginx,
            disk,
            sandbox,
        }
    }

    fn download(&self, file: &str) -> pb::CreateBackingImageRequest {
        from_url(&name_of(file), &self.nginx.url(&format!("/{file}")))
    }

    #[track_caller]
    fn ready(&self, request: pb::CreateBackingImageRequest) -> pb::BackingImage {
        ready(self.manager.make_image(request).unwrap())
    }

    fn sum(&self, file: &str) -> String {
        sha512(&self.sandbox.path("served").join(file))
    }

    fn image_dir(&self, image: &pb::BackingImage) -> PathBuf {
        self.disk
            .join("backing-images")
            .join(format!("{}-{}", image.name, image.uuid))
    }

    fn restart(&mut self) {
        self.manager.process.kill_9();
        self.manager = Manager::start(&self.sandbox, &self.options);
    }
}

fn name_of(file: &str) -> String {
    file.replace('.', "-")
}

#[track_caller]
fn ready(image: pb::BackingImage) -> pb::BackingImage {
    assert_eq!(image.state(), pb::State::Ready, "{}", image.message);
    image
}

fn sha512(path: &Path) -> String {
    let line = command::run("sha512sum", [path]);
    line.split(' ').next().unwrap().to_owned()
}

/// What is below a directory; nothing when it is not there.
fn entries(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect()
}

/// Mounts a volume's file, looks at it, and unmounts it again.
fn with_mounted<T>(bench: &Bench, volume: &pb::Volume, look: impl FnOnce(&Path) -> T) -> T {
    let file = bench.disk.join(&volume.replicas[0].path);
    let target = bench.sandbox.make_dir(format!("mnt-{}", volume.name));
    let arguments = [
        "-o".as_ref(),
        "loop".as_ref(),
        file.as_os_str(),
        target.as_os_str(),
    ];
    command::run("mount", arguments);
    let seen = look(&target);
    leftovers::end(&target);
    seen
}

#[test]
fn test_backing_image_content() {
    needs!(Need::LoopMount, Need::Tool("nginx"), Need::Tool("qemu-img"));
    let bench = Bench::new("content");
    for file in FILES {
        let image = bench.ready(bench.download(file));
        assert_eq!(
            (image.virtual_size, &image.format[..]),
            (SIZE, file.rsplit('.').next().unwrap())
        );
        assert_eq!(image.current_checksum, bench.sum(file), "stored as it came");
        let volumes = ["one", "two"].map(|which| {
            let name = format!("{which}-{}", image.name);
            bench
                .manager
                .create_volume(&name, &image.name, SIZE)
                .unwrap()
        });
        with_mounted(&bench, &volumes[0], |dir| {
            assert!(fs::read(dir.join(WIZARD)).unwrap() == PARTY_WIZARD);
            fs::remove_file(dir.join(WIZARD)).unwrap();
            File::create(dir.join("new"))
                .unwrap()
                .write_all_at(b"mine", 0)
                .unwrap();
        });
        with_mounted(&bench, &volumes[1], |dir| {
            assert!(fs::read(dir.join(WIZARD)).unwrap() == PARTY_WIZARD);
            assert!(!dir.join("new").exists(), "a write into the other volume");
        });
        with_mounted(&bench, &volumes[0], |dir| {
            assert!(!dir.join(WIZARD).exists() && fs::read(dir.join("new")).unwrap() == b"mine");
        });
        let stored = bench.image_dir(&image).join("backing");
        assert_eq!(
            sha512(&stored),
            bench.sum(file),
            "the image was not written to"
        );
    }
}

/// An image of a volume makes a volume, which is written to and becomes an image again, and the third
/// volume reads what was written: as often as somebody likes.
#[test]
fn test_exporting_backing_image_from_volume() {
    needs!(Need::LoopMount, Need::Tool("nginx"), Need::Tool("qemu-img"));
    let bench = Bench::new("exporting");
    let image = bench.ready(bench.download(FILES[1]));
    let make = |name: &str, from: &str| bench.manager.create_volume(name, from, SIZE).unwrap();
    let write = |volume: &pb::Volume, name: &str| {
        with_mounted(&bench, volume, |dir| {
            let file = File::create(dir.join(name)).unwrap();
            file.write_all_at(name.as_bytes(), 0).unwrap();
        });
    };
    let first = make("first", &image.name);
    write(&first, "of-the-first");
    bench.ready(from_volume("export-1", "first"));
    let second = make("second", "export-1");
    write(&second, "of-the-second");
    bench.ready(from_volume("export-2", "second"));
    let third = make("third", "export-2");
    with_mounted(&bench, &third, |dir| {
        assert!(fs::read(dir.join(WIZARD)).unwrap() == PARTY_WIZARD);
        for name in ["of-the-first", "of-the-second"] {
            assert_eq!(fs::read_to_string(dir.join(name)).unwrap(), name);
        }
    });
    // What came later is in none of those before.
    with_mounted(&bench, &first, |dir| {
        assert!(!dir.join("of-the-second").exists());
    });
}

#[test]
fn test_backing_image_with_wrong_md5sum() {
    needs!(
        Need::Tool("nginx"),
        Need::Tool("qemu-img"),
        Need::Tool("mkfs.ext4")
    );
    let bench = Bench::new("wrong-sum");
    for file in FILES {
        let wrong = pb::CreateBackingImageRequest {
            expected_checksum: "0".repeat(128),
            ..bench.download(file)
        };
        let failed = bench.manager.make_image(wrong).unwrap();
        assert_eq!(failed.state(), pb::State::Failed);
        assert!(
            failed.message.contains(&bench.sum(file)),
            "{}",
            failed.message
        );
        assert_eq!(
            entries(&bench.disk.join("backing-images")),
            [""; 0],
            "nothing is left"
        );
        let right = pb::CreateBackingImageRequest {
            expected_checksum: bench.sum(file),
            ..bench.download(file)
        };
        assert!(!bench.ready(right).unverified);
        bench.manager.delete_image(&name_of(file)).unwrap();
    }
}

/// The node's part: what happens to a copy whose files are removed behind the manager's back.
#[test]
fn test_backing_image_auto_resync() {
    needs!(
        Need::Tool("nginx"),
        Need::Tool("qemu-img"),
        Need::Tool("mkfs.ext4")
    );
    let bench = Bench::new("resync");
    for file in FILES {
        bench.ready(bench.download(file));
    }
    fs::remove_dir_all(bench.disk.join("backing-images")).unwrap();
    for file in FILES {
        let failed = wait::until("the copy is failed", || {
            let image = bench.manager.image(&name_of(file)).unwrap();
            (image.state() == pb::State::Failed).then_some(image)
        });
        assert!(!failed.message.is_empty());
        let image = bench.ready(bench.download(file));
        assert_eq!(image.current_checksum, bench.sum(file));
        assert_eq!(
            sha512(&bench.image_dir(&image).join("backing")),
            bench.sum(file)
        );
    }
}

#[test]
fn test_backing_image_cleanup() {
    needs!(
        Need::Tool("nginx"),
        Need::Tool("qemu-img"),
        Need::Tool("mkfs.ext4")
    );
    let bench = Bench::new("cleanup");
    for _round in 0..3 {
        for file in FILES {
            let image = bench.ready(bench.download(file));
            let volume = bench.manager.create_volume("v", &image.name, SIZE).unwrap();
            let refused = bench.manager.delete_image(&image.name).unwrap_err();
            assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
            bench.manager.delete_volume(&volume.name).unwrap();
            bench.manager.delete_image(&image.name).unwrap();
        }
        assert_eq!(bench.manager.list_images().unwrap(), []);
        for place in ["backing-images", "volumes", "tmp"] {
            assert_eq!(entries(&bench.disk.join(place)), [""; 0], "{place}");
        }
    }
}

#[test]
fn test_backing_image_with_invalid_url_scheme() {
    let sandbox = Sandbox::new("schemes");
    let disk = sandbox.make_dir("disk");
    init_disk(&disk);
    let manager = Manager::start(&sandbox, &Options::new(&disk).strict());
    for url in [
        "httpsinvalid://example.com/x",
        "file:///etc/passwd",
        "ftp://example.com/x",
        "example.com/x.qcow2",
        "//example.com/x",
        "",
        "http://",
    ] {
        let error = manager.create_image(from_url("img", url)).expect_err(url);
        assert_eq!(error.code(), Code::InvalidArgument, "{url}: {error}");
    }
    // Hosts of this machine, however they are spelled, are refused at the address that is asked.
    for (n, host) in ["127.0.0.1", "0.0.0.0", "localhost", "[::1]"]
        .into_iter()
        .enumerate()
    {
        let url = format!("http://{host}:{}/x", manager.sync_address().port());
        let image = manager
            .make_image(from_url(&format!("img-{n}"), &url))
            .unwrap();
        assert_eq!(image.state(), pb::State::Failed);
        assert_eq!(
            image.failure_code,
            Code::InvalidArgument as u32,
            "{}",
            image.message
        );
    }
    assert_eq!(entries(&disk.join("backing-images")), [""; 0]);
}

/// `body`, or the part of it that is asked for, of one version.
fn ranged(request: &Request, body: &[u8]) -> Reply {
    let first = request.header("range").and_then(|range| {
        let range = range.strip_prefix("bytes=")?;
        range.split('-').next()?.parse::<usize>().ok()
    });
    let tag = ("ETag".to_owned(), "\"1\"".to_owned());
    let Some(first) = first else {
        return Reply {
            headers: vec![tag],
            ..Reply::ok(body)
        };
    };
    let range = format!("bytes {first}-{}/{}", body.len() - 1, body.len());
    Reply {
        status: 206,
        headers: vec![tag, ("Content-Range".to_owned(), range)],
        ..Reply::ok(&body[first..])
    }
}

/// Row 20: a short loss of the network is sat out; after a long one the transfer goes on where it was.
#[test]
fn test_download_timeout() {
    let body = Arc::new(noise(1, 8 << 20));
    let sandbox = Sandbox::new("timeout");
    let disk = sandbox.make_dir("disk");
    init_disk(&disk);
    let options = Options::new(&disk).with("--allow-address", "127.0.0.0/8");
    let manager = Manager::start(&sandbox, &options);
    let short = {
        let body = Arc::clone(&body);
        HttpServer::start(move |request| Reply {
            hold_after: Some(3 << 20),
            ..ranged(request, &body)
        })
    };
    let asked = Arc::new(AtomicUsize::new(0));
    let long = {
        let (body, asked) = (Arc::clone(&body), Arc::clone(&asked));
        HttpServer::start(move |request| {
            let first = asked.fetch_add(1, Ordering::SeqCst) == 0;
            Reply {
                hold_after: first.then_some(3 << 20),
                ..ranged(request, &body)
            }
        })
    };
    let mut impatient = from_url("long", &long.url("/x"));
    if let Some(pb::Source {
        source: Some(pb::source::Source::Url(url)),
    }) = &mut impatient.source
    {
        url.idle_timeout_seconds = 2;
    }
    let started = Instant::now();
    manager
        .create_image(from_url("short", &short.url("/x")))
        .unwrap();
    manager.create_image(impatient).unwrap();
    let resumed = ready(manager.wait_image("long").unwrap());
    assert!(
        started.elapsed() >= Duration::from_secs(2),
        "it waited as long as it says"
    );
    assert_eq!(
        asked.load(Ordering::SeqCst),
        2,
        "one request, and one for the rest"
    );
    // By then the other has waited for longer than that, and goes on waiting.
    assert_eq!(
        manager.image("short").unwrap().state(),
        pb::State::InProgress
    );
    short.release();
    let waited = ready(manager.wait_image("short").unwrap());
    assert_eq!(short.served(), 1, "nothing was asked for twice");
    assert_eq!(waited.current_checksum, resumed.current_checksum);
    assert_eq!(waited.size, body.len() as u64);
}

/// Takes the immutable flag off again, however the test ends.
struct Immutable(PathBuf);

impl Immutable {
    fn set(dir: &Path) -> Self {
        command::run("chattr", ["+i".as_ref(), dir.as_os_str()]);
        Self(dir.to_owned())
    }
}

impl Drop for Immutable {
    fn drop(&mut self) {
        command::run("chattr", ["-i".as_ref(), self.0.as_os_str()]);
    }
}

/// Row 63.
#[test]
fn test_backing_image_sync_failure_with_an_immutable_directory() {
    needs!(
        Need::Root,
        Need::LoopMount,
        Need::Tool("chattr"),
        Need::Tool("nginx"),
        Need::Tool("qemu-img")
    );
    let bench = Bench::new("immutable");
    let dir = bench.disk.join("backing-images");
    let flag = Immutable::set(&dir);
    for file in FILES {
        let failed = bench.manager.make_image(bench.download(file)).unwrap();
        assert_eq!(failed.state(), pb::State::Failed);
        assert!(
            failed.message.contains("backing-images"),
            "{}",
            failed.message
        );
    }
    drop(flag);
    for file in FILES {
        bench.ready(bench.download(file));
    }
}

/// The proxy of the environment serves downloads; what is inside the cluster never goes through it.
#[test]
fn test_backing_image_works_with_a_http_proxy_in_the_environment() {
    let body = Arc::new(noise(1, 1 << 20));
    let proxy = {
        let body = Arc::clone(&body);
        HttpServer::start(move |request| match &request.path[..] {
            "http://images.invalid/parrot.raw" => ranged(request, &body),
            _ => Reply {
                status: 502,
                ..Reply::default()
            },
        })
    };
    let sandbox = Sandbox::new("proxy");
    let disk = sandbox.make_dir("disk");
    init_disk(&disk);
    let options = Options::new(&disk)
        .with_environment("HTTP_PROXY", &proxy.url(""))
        .with_environment("HTTPS_PROXY", &proxy.url(""))
        .with_environment("ALL_PROXY", &proxy.url(""));
    let manager = Manager::start(&sandbox, &options);
    let made = manager.make_image(from_url("img", "http://images.invalid/parrot.raw"));
    assert_eq!(ready(made.unwrap()).size, body.len() as u64);
    assert_eq!(proxy.served(), 1, "nothing else went through it");
    let log = manager.process.log();
    assert!(log.contains("through a proxy"), "{log}");
}

#[test]
fn test_delete_all_managers_and_cluster_restart() {
    needs!(
        Need::Tool("nginx"),
        Need::Tool("qemu-img"),
        Need::Tool("mkfs.ext4")
    );
    let first = Bench::new("all-off");
    let mut options = vec![first.options.clone()];
    for node in ["second", "third"] {
        let disk = first.sandbox.make_dir(node);
        init_disk(&disk);
        let mut other = Options::new(&disk).with("--allow-address", "127.0.0.0/8");
        other.name = node.into();
        options.push(other);
    }
    let Bench {
        manager,
        nginx,
        sandbox,
        ..
    } = first;
    let mut managers = vec![manager];
    managers.extend(
        options[1..]
            .iter()
            .map(|options| Manager::start(&sandbox, options)),
    );
    for manager in &managers {
        for file in FILES {
            let url = nginx.url(&format!("/{file}"));
            ready(manager.make_image(from_url(&name_of(file), &url)).unwrap());
        }
    }
    // Nobody is there to download from any more.
    drop(nginx);
    let images = |manager: &Manager| as_on_disk(manager.list_images().unwrap());
    let before: Vec<_> = managers.iter().map(images).collect();
    // Row 97: all off at once, back in other orders.
    for order in [[2, 0, 1], [1, 2, 0]] {
        for manager in &mut managers {
            manager.process.kill_9();
        }
        for node in order {
            managers[node] = Manager::start(&sandbox, &options[node]);
            assert_eq!(images(&managers[node]), before[node], "node {node}");
        }
    }
}

/// Images without what a manager counts from its start: since when it has seen no volume of one.
fn as_on_disk(mut images: Vec<pb::BackingImage>) -> Vec<pb::BackingImage> {
    for image in &mut images {
        image.unused_since.clear();
    }
    images
}

#[test]
fn test_restart_ten_times_makes_nothing_anew() {
    needs!(
        Need::Tool("nginx"),
        Need::Tool("qemu-img"),
        Need::Tool("mkfs.ext4")
    );
    let mut bench = Bench::new("restarts");
    let made = as_on_disk(FILES.map(|file| bench.ready(bench.download(file))).to_vec());
    let inodes = |bench: &Bench| {
        let of = |image| {
            fs::metadata(bench.image_dir(image).join("backing"))
                .unwrap()
                .ino()
        };
        made.iter().map(of).collect::<Vec<_>>()
    };
    let before = inodes(&bench);
    for _ in 0..10 {
        bench.restart();
        let mut found = as_on_disk(bench.manager.list_images().unwrap());
        found.sort_by_key(|image| made.iter().position(|known| known.name == image.name));
        assert_eq!(found, made);
    }
    assert_eq!(inodes(&bench), before);
}

/// "500 MiB mostly-empty ext4: the same apparent size, much smaller real size, the same SHA-512."
#[test]
fn test_sparse_image_keeps_its_holes() {
    needs!(
        Need::Tool("nginx"),
        Need::Tool("qemu-img"),
        Need::Tool("mkfs.ext4")
    );
    let bench = Bench::new("sparse");
    let sparse = raw_ext4(&bench.sandbox, "served/sparse.raw", 500 * MIB);
    let image = bench.ready(bench.download("sparse.raw"));
    assert_eq!(image.size, 500 * MIB);
    assert_eq!(image.current_checksum, sha512(&sparse));
    let real = fs::metadata(bench.image_dir(&image).join("backing"))
        .unwrap()
        .blocks()
        * 512;
    assert!(
        real < 100 * MIB && image.real_size == real,
        "{real} of {}",
        image.real_size
    );
}

/// Row 56 for a download: deleting it ends it, whatever the other side does.
#[test]
fn test_cancel_by_delete_under_a_slow_link() {
    let body = Arc::new(noise(1, 8 << 20));
    let server = {
        let body = Arc::clone(&body);
        HttpServer::start(move |request| Reply {
            hold_after: Some(5 << 20),
            ..ranged(request, &body)
        })
    };
    let sandbox = Sandbox::new("cancel");
    let disk = sandbox.make_dir("disk");
    init_disk(&disk);
    let options = Options::new(&disk).with("--allow-address", "127.0.0.0/8");
    let manager = Manager::start(&sandbox, &options);
    for _ in 0..3 {
        manager
            .create_image(from_url("img", &server.url("/x")))
            .unwrap();
        wait::until("bytes have come", || {
            (manager.image("img").unwrap().processed_size > 0).then_some(())
        });
        // The server goes on holding its answer back.
        manager.delete_image("img").unwrap();
        assert_eq!(manager.image("img").unwrap_err().code(), Code::NotFound);
        assert_eq!(entries(&disk.join("backing-images")), [""; 0]);
    }
}

/// What `prepare-download` names gives, unpacked, the bytes that are stored.
#[test]
fn test_download_to_local() {
    needs!(
        Need::Tool("nginx"),
        Need::Tool("qemu-img"),
        Need::Tool("mkfs.ext4"),
        Need::Tool("curl")
    );
    let bench = Bench::new("local");
    for file in FILES {
        let image = bench.ready(bench.download(file));
        let path = bench
            .image_dir(&image)
            .join("backing")
            .display()
            .to_string();
        let id: String = path
            .bytes()
            .map(|byte| match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
                    char::from(byte).to_string()
                }
                byte => format!("%{byte:02X}"),
            })
            .collect();
        let url = format!(
            "http://{}/v1/files/{id}/download",
            bench.manager.sync_address()
        );
        let packed = bench.sandbox.path(format!("{file}.gz"));
        let target = ["-sSfo".as_ref(), packed.as_os_str(), url.as_ref()];
        command::run("curl", target);
        command::run("gunzip", ["-f".as_ref(), packed.as_os_str()]);
        assert_eq!(sha512(&bench.sandbox.path(file)), bench.sum(file));
    }
}

/// SIGTERM: what is on its way may arrive, nothing new is begun, and the rest is called off in time.
#[test]
fn a_manager_that_is_told_to_stop_drains() {
    let body = Arc::new(noise(1, 4 << 20));
    let server = {
        let body = Arc::clone(&body);
        HttpServer::start(move |request| Reply {
            hold_after: Some(2 << 20),
            ..ranged(request, &body)
        })
    };
    let sandbox = Sandbox::new("drain");
    let disk = sandbox.make_dir("disk");
    init_disk(&disk);
    let options = Options::new(&disk)
        .with("--allow-address", "127.0.0.0/8")
        .with("--metrics-listen", "127.0.0.1:0")
        .with("--drain", "3600");
    let mut manager = Manager::start(&sandbox, &options);
    manager
        .create_image(from_url("img", &server.url("/x")))
        .unwrap();
    let get_of =
        |health: SocketAddr, path| e2e::web::get(&format!("http://{health}{path}")).unwrap();
    let health = manager.metrics_address();
    let get = |path| get_of(health, path);
    assert_eq!(get("/readyz").0, 200);
    manager.process.signal(rustix::process::Signal::TERM);
    wait::until("it is not ready", || {
        (get("/readyz").0 == 503).then_some(())
    });
    assert_eq!(get("/healthz").0, 200);
    let refused = manager
        .create_image(from_url("other", &server.url("/x")))
        .unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    let metrics = String::from_utf8(get("/metrics").1).unwrap();
    assert!(
        metrics.contains("longhorn_backing_image_manager_ready{"),
        "{metrics}"
    );
    let documented = e2e::documents::documented_metrics();
    let types = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "));
    for name in types.filter_map(|line| line.split(' ').next()) {
        let known = documented.contains(name) || documented.contains(&format!("{name}_total"));
        assert!(known, "docs/operations.md lacks {name}");
    }
    server.release();
    assert!(manager.process.wait_end().success());
    manager = Manager::start(&sandbox, &options);
    ready(manager.image("img").unwrap());
    let health = manager.metrics_address();
    let get = |path| get_of(health, path);
    // Without patience the work is called off, and the next start finds nothing of it.
    let held = HttpServer::start(move |request| Reply {
        hold_after: Some(1),
        ..ranged(request, &body)
    });
    manager
        .create_image(from_url("never", &held.url("/x")))
        .unwrap();
    manager.process.signal(rustix::process::Signal::TERM);
    wait::until("it drains", || (get("/readyz").0 == 503).then_some(()));
    manager.process.signal(rustix::process::Signal::TERM);
    // It ends though the server still holds the image back, and an hour of the drain is left.
    assert!(manager.process.wait_end().success());
    manager = Manager::start(&sandbox, &options);
    assert_eq!(manager.list_images().unwrap().len(), 1);
}

#[test]
fn the_doctor_says_what_it_finds_and_how_bad_it_is() {
    let sandbox = Sandbox::new("doctor");
    let disk = sandbox.make_dir("disk");
    let program = e2e::programs::manager().display().to_string();
    let doctor = |form: &str| {
        let disk = disk.display().to_string();
        command::output(&program, ["doctor", "--disk", &disk, "-o", form])
    };
    assert_eq!(doctor("table").status.code(), Some(2), "not a disk");
    init_disk(&disk);
    let manager = Manager::start(&sandbox, &Options::new(&disk));
    let answer = doctor("json");
    assert!(
        matches!(answer.status.code(), Some(0 | 1)),
        "{}",
        command::words(&answer)
    );
    let findings: serde_json::Value = serde_json::from_slice(&answer.stdout).unwrap();
    let lock = findings
        .as_array()
        .unwrap()
        .iter()
        .find(|finding| finding["name"] == "lock");
    let lock = lock.unwrap()["found"].as_str().unwrap().to_owned();
    assert!(lock.contains(&manager.process.id().to_string()), "{lock}");
}
