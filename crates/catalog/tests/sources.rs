//! Images from misbehaving servers: the catalog with a real disk directory, real HTTP, and a
//! scripted server.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use catalog::source::{Source, Sources};
use catalog::{Catalog, Lifecycle, NewImage, Status};
use fetch::{AddressPolicy, Config, Credentials, Network, Tuning};
use store::{Disk, ImageStore, Place};
use tokio_util::sync::CancellationToken;
use types::{ImageName, Sha512};

/// One answer: a status line and headers, then the body as it goes over the wire.
#[derive(Clone)]
struct Answer {
    head: String,
    body: Vec<u8>,
}

fn ok(content_type: &str, body: &[u8]) -> Answer {
    let head = format!(
        "200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {}",
        body.len()
    );
    Answer {
        head,
        body: body.to_vec(),
    }
}

/// A server on a port of its own; it ends with the test process.
struct Server {
    address: SocketAddr,
    answers: Arc<Mutex<BTreeMap<String, Answer>>>,
    requests: Arc<AtomicUsize>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            answers: Arc::default(),
            requests: Arc::default(),
        };
        let (answers, requests) = (server.answers.clone(), server.requests.clone());
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (answers, requests) = (answers.clone(), requests.clone());
                thread::spawn(move || answer(stream, &answers, &requests));
            }
        });
        server
    }

    fn put(&self, path: &str, answer: Answer) {
        self.answers.lock().unwrap().insert(path.to_owned(), answer);
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

/// Answers one request and closes: `None` when the client is gone.
fn answer(
    stream: TcpStream,
    answers: &Mutex<BTreeMap<String, Answer>>,
    requests: &AtomicUsize,
) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    while reader.read_line(&mut line).ok()? > 2 {}
    requests.fetch_add(1, Ordering::Relaxed);
    let missing = Answer {
        head: "404 Not Found\r\nContent-Length: 0".to_owned(),
        body: vec![],
    };
    let answer = answers
        .lock()
        .unwrap()
        .get(&path)
        .cloned()
        .unwrap_or(missing);
    let mut stream = reader.into_inner();
    write!(
        stream,
        "HTTP/1.1 {}\r\nConnection: close\r\n\r\n",
        answer.head
    )
    .ok()?;
    stream.write_all(&answer.body).ok()
}

struct Fixture {
    dir: tempfile::TempDir,
    catalog: Catalog,
    server: Server,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    Disk::init(dir.path(), None).unwrap();
    let store = ImageStore::new(Arc::new(Disk::open(dir.path()).unwrap()), Place::Images);
    let server = Server::start();
    let registries = format!(
        "[[registry]]\nlocation = \"{}\"\ninsecure = true\n",
        server.address
    );
    let tuning = Tuning {
        attempts: 2,
        backoff: std::time::Duration::from_millis(1),
        ..Tuning::default()
    };
    let config = Config::from_toml(&registries).unwrap();
    let network = Network::new(config, AddressPolicy::unrestricted(), tuning);
    let sources = Sources::new(network, Credentials::anonymous(), Vec::new());
    let catalog = Catalog::load(store, sources, CancellationToken::new()).unwrap();
    Fixture {
        dir,
        catalog,
        server,
    }
}

/// A raw disk of one MiB with something on it.
fn disk() -> Vec<u8> {
    let mut bytes = vec![0; 1 << 20];
    bytes[4096..8192].fill(7);
    bytes
}

impl Fixture {
    fn url(&self, path: &str) -> NewImage {
        let url = format!("http://user:s3cret@{}{path}", self.server.address);
        NewImage {
            name: Some(ImageName::new("img").unwrap()),
            uuid: None,
            source: Some(Source::Url(url.parse().unwrap())),
            expected: None,
            format: None,
            size: 0,
            existing: catalog::Existing::Join,
            for_volumes: false,
        }
    }

    fn reference(&self, reference: &str) -> NewImage {
        let reference = format!("{}/{reference}", self.server.address);
        NewImage {
            name: None,
            source: Some(Source::Registry {
                reference: reference.parse().unwrap(),
                platform: "linux/amd64".parse().unwrap(),
                credentials: None,
            }),
            ..self.url("/")
        }
    }

    async fn make(&self, new: NewImage) -> Status {
        let status = self.catalog.create(new).unwrap();
        let mut watch = self
            .catalog
            .watch(&status.id.name, Some(&status.id.uuid))
            .unwrap();
        watch.wait_for(is_done).await.unwrap().clone()
    }

    async fn failure(&self, new: NewImage) -> String {
        match self.make(new).await.state {
            Lifecycle::Failed(failure) => failure.message,
            state => panic!("it is {}", state.name()),
        }
    }

    /// What is left in `backing-images/`.
    fn left(&self) -> usize {
        std::fs::read_dir(self.dir.path().join("backing-images"))
            .unwrap()
            .count()
    }
}

fn checksum(status: &Status) -> Sha512 {
    match &status.state {
        Lifecycle::Ready(image) => image.checksum().unwrap(),
        state => panic!("it is {}", state.name()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn row_28_a_wrong_sum_fails_at_once_and_a_new_request_with_the_right_one_works() {
    let fixture = fixture();
    fixture
        .server
        .put("/disk", ok("application/octet-stream", &disk()));
    let expecting = |sum| NewImage {
        expected: Some(sum),
        ..fixture.url("/disk")
    };
    let message = fixture.failure(expecting(Sha512::of(b"other"))).await;
    assert!(
        message.contains(&Sha512::of(b"other").to_string()),
        "{message}"
    );
    assert!(
        message.contains(&Sha512::of(&disk()).to_string()),
        "{message}"
    );
    assert_eq!((fixture.left(), fixture.server.requests()), (0, 1));
    let status = fixture.make(expecting(Sha512::of(&disk()))).await;
    assert_eq!(checksum(&status), Sha512::of(&disk()));
}

#[tokio::test(flavor = "multi_thread")]
async fn row_27_a_login_page_is_no_disk_unless_somebody_knows_better() {
    let fixture = fixture();
    fixture
        .server
        .put("/disk", ok("text/html; charset=utf-8", &disk()));
    let message = fixture.failure(fixture.url("/disk")).await;
    assert!(message.contains("HTML"), "{message}");
    assert_eq!(fixture.left(), 0);
    let known = NewImage {
        expected: Some(Sha512::of(&disk())),
        ..fixture.url("/disk")
    };
    checksum(&fixture.make(known).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn row_25_a_short_or_broken_answer_leaves_nothing() {
    let fixture = fixture();
    let mut short = ok("application/octet-stream", &disk());
    short.body.truncate(1 << 19);
    fixture.server.put("/short", short);
    let failed = ["/short", "/missing"];
    for path in failed {
        let message = fixture.failure(fixture.url(path)).await;
        assert!(message.contains(path), "{message}");
        assert_eq!(fixture.left(), 0, "{path}");
    }
}

/// Row 9: neither a state, nor a source, nor an error tells the password of a URL.
#[tokio::test(flavor = "multi_thread")]
async fn row_09_a_password_in_a_url_is_never_shown() {
    let fixture = fixture();
    fixture
        .server
        .put("/disk", ok("application/octet-stream", &disk()));
    fixture.failure(fixture.url("/missing")).await;
    let shown = format!("{:?}", fixture.catalog.list());
    assert!(
        shown.contains("/missing") && !shown.contains("s3cret"),
        "{shown}"
    );
    let ready = fixture.make(fixture.url("/disk")).await;
    assert!(!format!("{ready:?}").contains("s3cret"));
    let sidecar = fixture
        .dir
        .path()
        .join(format!("backing-images/{}/backing.cfg", ready.id));
    assert!(!std::fs::read_to_string(sidecar).unwrap().contains("s3cret"));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_source_under_a_taken_name_is_refused_and_a_failed_one_is_replaced() {
    let fixture = fixture();
    fixture
        .server
        .put("/disk", ok("application/octet-stream", &disk()));
    fixture.failure(fixture.url("/gone")).await;
    let first = fixture.make(fixture.url("/disk")).await;
    let error = fixture
        .catalog
        .create(fixture.url("/disk?version=2"))
        .unwrap_err();
    assert!(error.to_string().contains("source"), "{error}");
    assert_eq!(fixture.make(fixture.url("/disk")).await.id, first.id);
}

/// A registry of one image whose layer is a plain tar with the disk in it.
fn put_image(server: &Server, tag: &str, disk: &[u8]) -> String {
    put_image_named(server, tag, ("base_image/disk.raw", disk))
}

/// The same with a file of another name.
fn put_image_named(server: &Server, tag: &str, (name, disk): (&str, &[u8])) -> String {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(disk.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, disk).unwrap();
    let layer = tar.into_inner().unwrap();
    let digest = |bytes: &[u8]| fetch::Digest::of(bytes).to_string();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
    })
    .to_string();
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": digest(config.as_bytes()), "size": config.len(),
        },
        "layers": [{
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": digest(&layer), "size": layer.len(),
        }],
    })
    .to_string();
    let blob = |bytes: &[u8]| format!("/v2/test/image/blobs/{}", digest(bytes));
    server.put(&blob(&layer), ok("application/octet-stream", &layer));
    server.put(
        &blob(config.as_bytes()),
        ok("application/octet-stream", config.as_bytes()),
    );
    let typed = ok(
        "application/vnd.oci.image.manifest.v1+json",
        manifest.as_bytes(),
    );
    server.put(&format!("/v2/test/image/manifests/{tag}"), typed.clone());
    let by_digest = format!("/v2/test/image/manifests/{}", digest(manifest.as_bytes()));
    server.put(&by_digest, typed);
    server.put("/v2/", ok("application/json", b"{}"));
    blob(&layer)
}

/// Row 1: whoever asks for the same reference later gets the same image, though the tag has moved.
#[tokio::test(flavor = "multi_thread")]
async fn row_01_a_tag_that_moved_is_not_followed_by_an_image_that_is_there() {
    let fixture = fixture();
    put_image(&fixture.server, "v1", &disk());
    let first = fixture.make(fixture.reference("test/image:v1")).await;
    assert_eq!(checksum(&first), Sha512::of(&disk()));
    assert!(first.manifest_digest.starts_with("sha256:"));
    let mut other = disk();
    other[0] = 1;
    put_image(&fixture.server, "v1", &other);
    let again = fixture.make(fixture.reference("test/image:v1")).await;
    assert_eq!(
        (again.id.clone(), checksum(&again)),
        (first.id.clone(), checksum(&first))
    );
    assert_eq!(again.manifest_digest, first.manifest_digest);
}

/// Row 4: a layer that arrives damaged is read again a few times, then the image has failed.
#[tokio::test(flavor = "multi_thread")]
async fn row_04_a_damaged_layer_is_read_again_and_then_given_up() {
    let fixture = fixture();
    let path = put_image(&fixture.server, "v1", &disk());
    let good = fixture.server.answers.lock().unwrap()[&path].clone();
    let mut bad = good.clone();
    bad.body[5000] ^= 1;
    fixture.server.put(&path, bad);
    let before = fixture.server.requests();
    let message = fixture.failure(fixture.reference("test/image:v1")).await;
    assert!(message.contains("sha256:"), "{message}");
    let passes = 3;
    assert!(
        fixture.server.requests() - before >= passes,
        "it was not read {passes} times"
    );
    assert_eq!(fixture.left(), 0);
    fixture.server.put(&path, good);
    assert_eq!(
        checksum(&fixture.make(fixture.reference("test/image:v1")).await),
        Sha512::of(&disk())
    );
}

/// Many callers come back to a failed image at once: one of them makes it, the others join.
#[tokio::test(flavor = "multi_thread")]
async fn a_failed_image_that_many_ask_for_again_is_made_once() {
    let fixture = fixture();
    fixture.failure(fixture.url("/disk")).await;
    fixture
        .server
        .put("/disk", ok("application/octet-stream", &disk()));
    let before = fixture.server.requests();
    let calls: Vec<_> = (0..50)
        .map(|_| {
            let (catalog, new) = (fixture.catalog.clone(), fixture.url("/disk"));
            tokio::spawn(async move { catalog.create(new).unwrap() })
        })
        .collect();
    for call in calls {
        call.await.unwrap();
    }
    checksum(&fixture.make(fixture.url("/disk")).await);
    assert_eq!(fixture.server.requests() - before, 1);
}

/// Name and uuid together name a directory: two images must not share one.
#[tokio::test(flavor = "multi_thread")]
async fn two_images_never_share_a_directory() {
    let fixture = fixture();
    fixture
        .server
        .put("/disk", ok("application/octet-stream", &disk()));
    let named = |name: &str, uuid: &str| NewImage {
        name: Some(name.parse().unwrap()),
        uuid: Some(uuid.parse().unwrap()),
        ..fixture.url("/disk")
    };
    checksum(&fixture.make(named("a", "b-c")).await);
    let error = fixture.catalog.create(named("a-b", "c")).unwrap_err();
    assert!(error.to_string().contains("directory"), "{error}");
}

/// A deletion that is refused changes nothing, and one that goes on ends the work first.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_deletion_leaves_the_image_ready_and_a_granted_one_nothing() {
    let fixture = fixture();
    fixture
        .server
        .put("/disk", ok("application/octet-stream", &disk()));
    let id = fixture.make(fixture.url("/disk")).await.id;
    let refuse = || Err(catalog::Error::Cancelled("it is in use"));
    assert!(fixture.catalog.delete(&id, refuse).await.is_err());
    let (image, files) = fixture.catalog.ready(&id.name, None).await.unwrap();
    // A deletion asks twice whether the image is in use: first, and when nobody has the files any more.
    let (asks, mut asked) = tokio::sync::mpsc::unbounded_channel();
    let deleting = tokio::spawn({
        let (catalog, id) = (fixture.catalog.clone(), id.clone());
        let unused = move || {
            asks.send(()).expect("the test waits for it");
            Ok(())
        };
        async move { catalog.delete(&id, unused).await }
    });
    asked.recv().await.unwrap();
    // Who has the files keeps them for as long as it needs them.
    assert!(
        fixture
            .catalog
            .raw_form(&image, &files)
            .await
            .unwrap()
            .exists()
    );
    assert!(asked.try_recv().is_err(), "it went on without the files");
    drop(files);
    asked.recv().await.unwrap();
    deleting.await.unwrap().unwrap();
    assert!(fixture.catalog.ready(&id.name, None).await.is_err());
    assert_eq!(fixture.left(), 0);
}

/// A disk image that lies packed in a container image is unpacked, as it is behind a URL.
#[tokio::test(flavor = "multi_thread")]
async fn row_180_a_packed_disk_in_a_container_image_is_unpacked() {
    use std::io::Read;
    let fixture = fixture();
    let (mut gz, mut xz) = (Vec::new(), Vec::new());
    let level = flate2::Compression::fast();
    let disk = disk();
    flate2::read::GzEncoder::new(&disk[..], level)
        .read_to_end(&mut gz)
        .unwrap();
    liblzma::read::XzEncoder::new(&disk[..], 1)
        .read_to_end(&mut xz)
        .unwrap();
    let zst = zstd::encode_all(&disk[..], 1).unwrap();
    for (tag, name, packed) in [
        ("gz", "disk/d.raw.gz", &gz),
        ("xz", "base_image/d.img.xz", &xz),
        ("zst", "disk/d.zst", &zst),
        // By its bytes, not by its name.
        ("bare", "disk/d", &xz),
    ] {
        put_image_named(&fixture.server, tag, (name, packed));
        let made = fixture
            .make(fixture.reference(&format!("test/image:{tag}")))
            .await;
        assert_eq!(checksum(&made), Sha512::of(&disk), "{name}");
    }
    // Either sum vouches, as for a download; what is declared raw stays as it is.
    put_image_named(&fixture.server, "sum", ("disk/d.xz", &xz));
    let expecting = NewImage {
        expected: Some(Sha512::of(&xz)),
        ..fixture.reference("test/image:sum")
    };
    assert_eq!(checksum(&fixture.make(expecting).await), Sha512::of(&disk));
    let mut whole = gz.clone();
    whole.resize(whole.len().next_multiple_of(512), 0);
    put_image_named(&fixture.server, "raw", ("disk/d", &whole));
    let raw = NewImage {
        format: Some(image::Format::Raw),
        ..fixture.reference("test/image:raw")
    };
    assert_eq!(checksum(&fixture.make(raw).await), Sha512::of(&whole));
    // Cut: nothing is kept.
    let before = fixture.left();
    put_image_named(&fixture.server, "cut", ("disk/d.xz", &xz[..xz.len() - 5]));
    let message = fixture.failure(fixture.reference("test/image:cut")).await;
    assert!(message.contains("xz"), "{message}");
    assert_eq!(fixture.left(), before);
}

/// An image that is asked for again says meanwhile why it failed.
#[tokio::test(flavor = "multi_thread")]
async fn row_181_an_image_that_is_asked_for_again_says_why_it_failed() {
    let fixture = fixture();
    let message = fixture.failure(fixture.url("/gone")).await;
    let status = fixture.catalog.create(fixture.url("/gone")).unwrap();
    assert_eq!(status.last_failure, message);
    fixture
        .server
        .put("/gone", ok("application/octet-stream", &disk()));
    let mut made = fixture.make(fixture.url("/gone")).await;
    // The attempt before may have been under way when the file came.
    if matches!(made.state, Lifecycle::Failed(_)) {
        made = fixture.make(fixture.url("/gone")).await;
    }
    checksum(&made);
    assert_eq!(made.last_failure, "");
}

/// Whether an image is ready with its sum, or failed.
fn is_done(status: &Status) -> bool {
    match &status.state {
        Lifecycle::Ready(image) => image.checksum().is_ok(),
        state => state.is_settled(),
    }
}
