//! Managers that give images to each other: the catalog with a real disk directory, the real sync
//! server and the real receiver, over the network of this machine.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ConnectInfo;
use catalog::source::{Peers, Source, Sources};
use catalog::{Catalog, Images, Lifecycle, NewImage, Status};
use fetch::{AddressPolicy, Config, Credentials, Network, Tuning};
use futures_util::FutureExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use store::{Disk, ImageStore, Place};
use sync::serve::takeover;
use sync::{Settings, Swarm, serve};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use types::{ImageId, Sha512};

const MIB: usize = 1 << 20;

/// Serves as the daemon does, so that bytes go bare.
async fn answer(listener: TcpListener, router: axum::Router) {
    loop {
        let (stream, from) = listener.accept().await.unwrap();
        let router = router.clone();
        let answer = move |request: hyper::Request<Incoming>| {
            let mut request = request.map(axum::body::Body::new);
            request.extensions_mut().insert(ConnectInfo(from));
            router.clone().oneshot(request).boxed()
        };
        tokio::spawn(async move {
            let builder = Builder::new();
            let _ = takeover::serve(stream, &builder, answer, std::future::pending()).await;
        });
    }
}

/// A manager: a disk, a catalog and a sync server.
struct Host {
    dir: tempfile::TempDir,
    import: tempfile::TempDir,
    catalog: Catalog,
    swarm: Swarm,
    address: SocketAddr,
    server: JoinHandle<()>,
}

impl Host {
    async fn start() -> Self {
        Self::start_with(Settings::default(), &[]).await
    }

    /// `peers`: others that are asked for what is damaged.
    async fn start_with(mut settings: Settings, peers: &[&Self]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let import = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        settings.port = Some(address.port());
        let swarm = Swarm::new(settings);
        Disk::init(dir.path(), None).unwrap();
        let disk = Arc::new(Disk::open(dir.path()).unwrap());
        let network = Network::new(
            Config::default(),
            AddressPolicy::unrestricted(),
            Tuning::default(),
        );
        let dirs = vec![std::fs::canonicalize(import.path()).unwrap()];
        let sources = Sources::new(network, Credentials::anonymous(), dirs)
            .with_swarm(swarm.clone(), trust::Dialer::Plain)
            .with_peers(peers.iter().map(|peer| peer.address.into()).collect());
        let store = ImageStore::new(disk, Place::Images);
        let catalog = Catalog::load(store, sources, CancellationToken::new()).unwrap();
        let images = Images::new(swarm.clone(), vec![catalog.clone()], "n1".parse().unwrap());
        let router = serve::router(swarm.clone(), images);
        let server = tokio::spawn(answer(listener, router));
        Self {
            dir,
            import,
            catalog,
            swarm,
            address,
            server,
        }
    }

    /// The path of an image's bytes.
    fn backing(&self, id: &ImageId) -> PathBuf {
        let images = self.dir.path().join("backing-images");
        images.join(id.to_string()).join("backing")
    }

    /// Makes an image of these bytes, with its holes.
    async fn make(&self, id: &ImageId, fill: impl FnOnce(&File)) -> Status {
        let path = self.import.path().join(id.to_string());
        fill(&File::create(&path).unwrap());
        let path = std::fs::canonicalize(path).unwrap();
        self.create(id, Source::File(path), None).await
    }

    async fn copy(&self, id: &ImageId, from: &[&Host]) -> Status {
        let addresses = from.iter().map(|host| host.address.into()).collect();
        let peers = Peers {
            addresses,
            size: None,
            chosen_here: false,
        };
        self.create(id, Source::Peers(peers), None).await
    }

    async fn create(&self, id: &ImageId, source: Source, expected: Option<Sha512>) -> Status {
        let new = NewImage {
            name: Some(id.name.clone()),
            uuid: Some(id.uuid.clone()),
            source: Some(source),
            expected,
            format: None,
            size: 0,
            existing: catalog::Existing::Join,
            for_volumes: false,
        };
        self.catalog.create(new).unwrap();
        self.settled(id).await
    }

    /// Changes a bit of an image's file behind its manager's back.
    fn damage(&self, id: &ImageId, at: u64) {
        let file = File::options()
            .read(true)
            .write(true)
            .open(self.backing(id));
        let (file, mut byte) = (file.unwrap(), [0]);
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    }

    fn inode(&self, id: &ImageId) -> u64 {
        std::fs::metadata(self.backing(id)).unwrap().ino()
    }

    /// Waits until another file has the place of the one with that inode, and is ready.
    async fn healed(&self, id: &ImageId, inode: u64) {
        let mut watch = self.catalog.watch(&id.name, Some(&id.uuid)).unwrap();
        let healed = watch.wait_for(|status| match &status.state {
            Lifecycle::Ready(image) => image.seal().stamp.inode != inode,
            _ => false,
        });
        let healed = tokio::time::timeout(Duration::from_mins(5), healed).await;
        healed.expect("it is good again").unwrap();
    }

    /// Damaged images that are kept.
    fn quarantined(&self) -> usize {
        let names = std::fs::read_dir(self.dir.path().join("backing-images")).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name());
        names
            .filter(|name| name.to_string_lossy().starts_with(".quarantine-"))
            .count()
    }

    async fn settled(&self, id: &ImageId) -> Status {
        let mut watch = self.catalog.watch(&id.name, Some(&id.uuid)).unwrap();
        let settled = watch.wait_for(is_done);
        let settled = tokio::time::timeout(Duration::from_mins(5), settled).await;
        settled.expect("it settles").unwrap().clone()
    }
}

fn id() -> ImageId {
    ImageId::new("image", "0123abcd").unwrap()
}

/// Bytes that no two chunks share and that no compression or zero detection removes.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed * 2 + 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = std::iter::repeat_with(&mut next)
        .take(length / 8 + 1)
        .flatten()
        .collect();
    bytes.truncate(length);
    bytes
}

fn checksum(status: &Status) -> Sha512 {
    match &status.state {
        Lifecycle::Ready(image) => image.checksum().unwrap(),
        state => panic!("not ready: {state:?}"),
    }
}

/// The head of an answer, up to its empty line.
async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap().to_lowercase()
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_come_bare_to_who_asks_for_it_and_requests_go_on_behind_them() {
    let host = Host::start().await;
    let id = ImageId::new("bare", "u1").unwrap();
    let bytes: Vec<u8> = (0..2 * MIB)
        .map(|at| u8::try_from(at % 251).unwrap())
        .collect();
    let made = host.make(&id, |file| file.write_all_at(&bytes, 0).unwrap());
    made.await;
    let mut stream = TcpStream::connect(host.address).await.unwrap();
    let path = format!("/v2/images/{}/{}/data", id.name, id.uuid);
    let ask = |from: usize, upgrade: &str| {
        let to = from + MIB - 1;
        format!("GET {path} HTTP/1.1\r\nHost: h\r\nRange: bytes={from}-{to}\r\n{upgrade}\r\n")
    };
    let bare = "Connection: upgrade\r\nUpgrade: sync-data\r\n";
    for (from, upgrade, status) in [(0, bare, "101"), (MIB, bare, "101"), (MIB, "", "206")] {
        stream
            .write_all(ask(from, upgrade).as_bytes())
            .await
            .unwrap();
        let head = head(&mut stream).await;
        assert!(head.starts_with(&format!("http/1.1 {status}")), "{head}");
        assert!(
            head.contains(&format!("content-range: bytes {from}-")),
            "{head}"
        );
        let mut got = vec![0; MIB];
        stream.read_exact(&mut got).await.unwrap();
        assert!(got == bytes[from..from + MIB], "the bytes from {from}");
    }
    // What cannot be sent is refused as ever, and something else is not switched to.
    let wrong = ask(0, bare).replace("bytes=0-", "bytes=7-");
    stream.write_all(wrong.as_bytes()).await.unwrap();
    let refused = head(&mut stream).await;
    assert!(refused.starts_with("http/1.1 400"), "{refused}");
    let other = ask(0, "Connection: upgrade\r\nUpgrade: websocket\r\n");
    let mut stream = TcpStream::connect(host.address).await.unwrap();
    stream.write_all(other.as_bytes()).await.unwrap();
    let whole = head(&mut stream).await;
    assert!(whole.starts_with("http/1.1 206"), "{whole}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_goes_from_manager_to_manager_with_its_holes() {
    let (first, second) = (Host::start().await, Host::start().await);
    let id = id();
    let size = 40 * MIB + 512;
    let made = first
        .make(&id, |file| {
            file.set_len(size as u64).unwrap();
            for at in [0, 3, 4, 5, 20, 39] {
                let bytes = noise(at as u64, MIB);
                file.write_all_at(&bytes, (at * MIB) as u64).unwrap();
            }
        })
        .await;
    let copied = second.copy(&id, &[&first]).await;
    assert_eq!(checksum(&copied), checksum(&made));
    let (from, to) = (first.backing(&id), second.backing(&id));
    assert_eq!(std::fs::read(&from).unwrap(), std::fs::read(&to).unwrap());
    let blocks = std::fs::metadata(&to).unwrap().blocks() * 512;
    assert!(blocks <= 8 * MIB as u64, "{blocks} bytes on disk");
    assert_eq!(second.swarm.metrics().received_bytes.get(), 6 * MIB as u64);
    assert_eq!(first.swarm.metrics().sent_bytes.get(), 6 * MIB as u64);
}

/// Row 54: many receivers, one sender that serves few at a time: all get it, and help each other.
#[tokio::test(flavor = "multi_thread")]
async fn row_54_receivers_of_a_busy_sender_help_each_other() {
    let settings = Settings {
        serves_max: 2,
        rate: 64 << 20,
        ..Settings::default()
    };
    let source = Host::start_with(settings, &[]).await;
    let id = id();
    let size = 48 * MIB;
    let bytes = noise(9, size);
    let made = source
        .make(&id, |file| file.write_all_at(&bytes, 0).unwrap())
        .await;
    let mut receivers = Vec::new();
    for _ in 0..4 {
        receivers.push(Host::start().await);
    }
    let from = [&source];
    let copies = receivers.iter().map(|host| host.copy(&id, &from));
    for copy in futures_util::future::join_all(copies).await {
        assert_eq!(checksum(&copy), checksum(&made));
    }
    let sent = source.swarm.metrics().sent_bytes.get();
    let helped: u64 = receivers
        .iter()
        .map(|host| host.swarm.metrics().sent_bytes.get())
        .sum();
    assert!(
        sent < 3 * size as u64 && helped > size as u64,
        "the source sent {sent}, the others {helped}"
    );
}

/// Row 49: a sender whose file is damaged is done without; it sets its copy aside and makes it anew.
#[tokio::test(flavor = "multi_thread")]
async fn row_49_a_damaged_copy_is_found_and_another_sender_is_used() {
    let (bad, good, third) = (
        Host::start().await,
        Host::start().await,
        Host::start().await,
    );
    let id = id();
    let bytes = noise(3, 12 * MIB);
    for host in [&bad, &good] {
        host.make(&id, |file| file.write_all_at(&bytes, 0).unwrap())
            .await;
    }
    let inode = bad.inode(&id);
    bad.damage(&id, 5 * MIB as u64 + 7);
    let copied = third.copy(&id, &[&bad, &good]).await;
    assert_eq!(checksum(&copied), Sha512::of(&bytes));
    bad.healed(&id, inode).await;
    assert!(std::fs::read(bad.backing(&id)).unwrap() == bytes);
    assert_eq!(bad.quarantined(), 1);
}

/// Row 49: who has nothing to make a damaged image from anew asks the managers that it was told of, for
/// the damaged chunk alone; the one that does not have the image does not matter.
#[tokio::test(flavor = "multi_thread")]
async fn row_49_only_the_damaged_chunk_comes_from_the_peers_that_were_named() {
    let (first, stranger) = (Host::start().await, Host::start().await);
    let owner = Host::start_with(Settings::default(), &[&stranger, &first]).await;
    let id = id();
    let bytes = noise(4, 6 * MIB);
    let made = owner
        .make(&id, |file| file.write_all_at(&bytes, 0).unwrap())
        .await;
    first.copy(&id, &[&owner]).await;
    std::fs::remove_file(owner.import.path().join(id.to_string())).unwrap();
    let inode = owner.inode(&id);
    owner.damage(&id, 2 * MIB as u64 + 7);
    // Somebody asks for it.
    let _ = owner.catalog.ready(&id.name, Some(&id.uuid)).await;
    owner.healed(&id, inode).await;
    assert!(std::fs::read(owner.backing(&id)).unwrap() == bytes);
    assert_eq!(owner.swarm.metrics().received_bytes.get(), MIB as u64);
    assert_eq!(owner.quarantined(), 1);
    let healed = owner.settled(&id).await;
    assert_eq!(
        healed.provenance, made.provenance,
        "it is the image that it was"
    );
}

/// Row 56: a deletion does not wait for who is being sent the image, and leaves nothing.
#[tokio::test(flavor = "multi_thread")]
async fn row_56_an_image_is_deleted_while_it_is_sent_and_received() {
    // All of it would take a minute and a half.
    let slow = Settings {
        rate: 256 << 10,
        ..Settings::default()
    };
    let (source, receiver) = (Host::start_with(slow, &[]).await, Host::start().await);
    let id = id();
    let bytes = noise(5, 24 * MIB);
    source
        .make(&id, |file| file.write_all_at(&bytes, 0).unwrap())
        .await;
    let peers = Peers {
        addresses: vec![source.address.into()],
        size: None,
        chosen_here: false,
    };
    let new = NewImage {
        name: Some(id.name.clone()),
        uuid: Some(id.uuid.clone()),
        source: Some(Source::Peers(peers)),
        expected: None,
        format: None,
        size: 0,
        existing: catalog::Existing::Join,
        for_volumes: false,
    };
    receiver.catalog.create(new).unwrap();
    let mut watch = receiver.catalog.watch(&id.name, None).unwrap();
    let going = watch.wait_for(|status| match status.state {
        Lifecycle::InProgress(progress) => progress.processed > 0,
        _ => false,
    });
    going.await.unwrap();
    let patience = Duration::from_mins(1);
    let deleting = source.catalog.delete(&id, || Ok(()));
    tokio::time::timeout(patience, deleting)
        .await
        .unwrap()
        .unwrap();
    let deleting = receiver.catalog.delete(&id, || Ok(()));
    tokio::time::timeout(patience, deleting)
        .await
        .unwrap()
        .unwrap();
    for host in [&source, &receiver] {
        let images = host.dir.path().join("backing-images");
        let left: Vec<_> = std::fs::read_dir(images).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// Row 47: the sender ends in the middle; what came is kept, and the next attempt goes on from it.
#[tokio::test(flavor = "multi_thread")]
async fn row_47_what_came_before_the_sender_died_is_not_sent_again() {
    let mut hasty = Settings {
        rate: 8 << 20,
        ..Settings::default()
    };
    let source = Host::start_with(hasty.clone(), &[]).await;
    hasty.rate = 0;
    hasty.tuning.patience = Duration::from_secs(1);
    let (other, receiver) = (Host::start().await, Host::start_with(hasty, &[]).await);
    let id = id();
    let bytes = noise(5, 24 * MIB);
    for host in [&source, &other] {
        host.make(&id, |file| file.write_all_at(&bytes, 0).unwrap())
            .await;
    }
    let from = [&source];
    let sent = receiver.copy(&id, &from);
    let dying = async {
        let received = || receiver.swarm.metrics().received_bytes.get();
        while received() < 8 * MIB as u64 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        source.catalog.delete(&id, || Ok(())).await.unwrap();
        source.server.abort();
    };
    let (failed, ()) = tokio::join!(sent, dying);
    assert_eq!(failed.state.name(), "failed");
    let before = receiver.swarm.metrics().received_bytes.get();
    let copied = receiver.copy(&id, &[&other]).await;
    assert_eq!(checksum(&copied), Sha512::of(&bytes));
    let all = receiver.swarm.metrics().received_bytes.get();
    assert!(before >= 8 * MIB as u64);
    assert_eq!(all, bytes.len() as u64, "no chunk came twice");
}

/// Whether an image is ready with its sum, or failed.
fn is_done(status: &Status) -> bool {
    match &status.state {
        Lifecycle::Ready(image) => image.checksum().is_ok(),
        state => state.is_settled(),
    }
}
