//! Downloads that are compressed, of odd sizes, or in foreign formats, and the stored results.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on panics"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use catalog::source::{Download, Source, Sources, Unpack};
use catalog::{Catalog, Lifecycle, NewImage, Status};
use fetch::{AddressPolicy, Config, Credentials, Network, Tuning};
use image::Format;
use image::packed::Packing;
use store::{Disk, ImageStore, Place, SealedImage};
use tokio_util::sync::CancellationToken;
use types::{Checksum, ImageName, Sha512};

/// Serves one body, whatever is asked for, in ranges; the first answer can break off.
struct Server {
    address: SocketAddr,
    body: Arc<Mutex<(Vec<u8>, Option<usize>)>>,
    asked: Arc<AtomicUsize>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let body = Arc::new(Mutex::new((Vec::new(), None)));
        let (served, asked) = (body.clone(), Arc::new(AtomicUsize::new(0)));
        let count = asked.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let served = served.clone();
                count.fetch_add(1, Ordering::Relaxed);
                thread::spawn(move || answer(stream, &served));
            }
        });
        Self {
            address,
            body,
            asked,
        }
    }
}

fn answer(stream: TcpStream, body: &Mutex<(Vec<u8>, Option<usize>)>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let (mut line, mut first) = (String::new(), None);
    while reader.read_line(&mut line).ok()? > 2 {
        let lower = line.to_ascii_lowercase();
        if let Some(range) = lower.strip_prefix("range: bytes=") {
            first = range.split('-').next()?.parse::<usize>().ok();
        }
        line.clear();
    }
    let (bytes, cut) = {
        let mut body = body.lock().unwrap();
        (body.0.clone(), body.1.take())
    };
    let mut stream = reader.into_inner();
    let (status, rest) = match first {
        Some(first) => ("206 Partial", &bytes[first..]),
        None => ("200 OK", &bytes[..]),
    };
    let size = bytes.len();
    let range = first.map(|first| format!("Content-Range: bytes {first}-{}/{size}\r\n", size - 1));
    write!(
        stream,
        "HTTP/1.1 {status}\r\nETag: \"1\"\r\n{}Content-Length: {}\r\nConnection: close\r\n\r\n",
        range.unwrap_or_default(),
        rest.len(),
    )
    .ok()?;
    stream.write_all(&rest[..cut.unwrap_or(rest.len())]).ok()
}

struct Fixture {
    dir: tempfile::TempDir,
    catalog: Catalog,
    server: Server,
}

fn open(dir: &tempfile::TempDir) -> Catalog {
    let store = ImageStore::new(Arc::new(Disk::open(dir.path()).unwrap()), Place::Images);
    let tuning = Tuning {
        attempts: 2,
        backoff: std::time::Duration::from_millis(1),
        ..Tuning::default()
    };
    let network = Network::new(Config::default(), AddressPolicy::unrestricted(), tuning);
    let sources = Sources::new(network, Credentials::anonymous(), Vec::new());
    Catalog::load(store, sources, CancellationToken::new()).unwrap()
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    Disk::init(dir.path(), None).unwrap();
    let (catalog, server) = (open(&dir), Server::start());
    Fixture {
        dir,
        catalog,
        server,
    }
}

/// Three MiB and a bit: data, a hole, data.
fn disk(size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    for (n, byte) in bytes[4096..300_000].iter_mut().enumerate() {
        *byte = (n * n % 251).to_le_bytes()[0];
    }
    bytes[size - 5] = 9;
    bytes
}

impl Fixture {
    /// Serves `body` as `/name` and asks for it.
    fn request(&self, name: &str, body: &[u8]) -> NewImage {
        *self.server.body.lock().unwrap() = (body.to_vec(), None);
        let url = format!("http://{}/{name}", self.server.address);
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

    async fn make(&self, new: NewImage) -> Status {
        let status = self.catalog.create(new).unwrap();
        let mut watch = self
            .catalog
            .watch(&status.id.name, Some(&status.id.uuid))
            .unwrap();
        let settled = watch.wait_for(is_done);
        settled.await.unwrap().clone()
    }

    async fn ready(&self, new: NewImage) -> SealedImage {
        match self.make(new).await.state {
            Lifecycle::Ready(image) => *image,
            state => panic!("{state:?}"),
        }
    }

    async fn failure(&self, new: NewImage) -> String {
        match self.make(new).await.state {
            Lifecycle::Failed(failure) => failure.message,
            state => panic!("{state:?}"),
        }
    }

    async fn delete(&self, image: &SealedImage) {
        self.catalog.delete(image.id(), || Ok(())).await.unwrap();
    }

    fn stored(&self, image: &SealedImage) -> Vec<u8> {
        std::fs::read(
            self.dir
                .path()
                .join(format!("backing-images/{}/backing", image.id())),
        )
        .unwrap()
    }
}

fn with_sha256(mut new: NewImage, bytes: &[u8]) -> NewImage {
    let Some(Source::Url(download)) = &mut new.source else {
        panic!()
    };
    let sum = ring::digest::digest(&ring::digest::SHA256, bytes);
    download.sha256 = Some(sum.as_ref().try_into().unwrap());
    new
}

fn packed(packing: Packing, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match packing {
        Packing::Plain => out.extend_from_slice(bytes),
        Packing::Gzip => {
            let level = flate2::Compression::fast();
            flate2::read::GzEncoder::new(bytes, level)
                .read_to_end(&mut out)
                .unwrap();
        }
        Packing::Xz => {
            liblzma::read::XzEncoder::new(bytes, 1)
                .read_to_end(&mut out)
                .unwrap();
        }
        Packing::Zstd => out = zstd::encode_all(bytes, 1).unwrap(),
    }
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compressed_image_is_unpacked_as_it_comes_and_either_sum_vouches_for_it() {
    let fixture = fixture();
    let disk = disk(3 << 20);
    for packing in [Packing::Gzip, Packing::Xz, Packing::Zstd] {
        let file = packed(packing, &disk);
        let new = || fixture.request("d.img", &file);
        let image = fixture.ready(new()).await;
        assert_eq!(image.checksum().unwrap(), Sha512::of(&disk), "{packing}");
        assert!(image.seal().unverified && fixture.stored(&image) == disk);
        fixture.delete(&image).await;
        for known in [&disk, &file] {
            let sum = Sha512::of(known);
            let expecting = NewImage {
                expected: Some(sum),
                ..new()
            };
            let image = fixture.ready(expecting.clone()).await;
            assert!(!image.seal().unverified && image.has_checksum(Checksum::Sha512(sum)));
            // The same request again is the same image.
            assert_eq!(fixture.ready(expecting).await.id(), image.id());
            fixture.delete(&image).await;
            let image = fixture.ready(with_sha256(new(), known)).await;
            assert!(!image.seal().unverified, "{packing}");
            fixture.delete(&image).await;
        }
        for wrong in [
            with_sha256(new(), b"other"),
            NewImage {
                expected: Some(Sha512::of(b"other")),
                ..new()
            },
        ] {
            let message = fixture.failure(wrong).await;
            assert!(message.contains("checksum mismatch"), "{message}");
        }
        // A connection that breaks is resumed in the compressed bytes.
        let broken = new();
        fixture.server.body.lock().unwrap().1 = Some(file.len() / 3);
        let image = fixture.ready(broken).await;
        assert_eq!(image.checksum().unwrap(), Sha512::of(&disk), "{packing}");
        fixture.delete(&image).await;
        // Cut for good, or followed by something.
        for bad in [
            file[..file.len() - 3].to_vec(),
            [&file[..], b"garbage!"].concat(),
        ] {
            let message = fixture.failure(fixture.request("d.img", &bad)).await;
            assert!(message.contains(packing.as_str()), "{message}");
        }
    }
}

/// Row 44: what a guest wrote at the start of its own raw disk is not obeyed.
#[tokio::test(flavor = "multi_thread")]
async fn row_44_what_is_declared_raw_is_unpacked_only_if_its_name_says_so_too() {
    let fixture = fixture();
    let mut file = packed(Packing::Gzip, &disk(1 << 20));
    file.resize(file.len().next_multiple_of(512), 0);
    let raw = |name| NewImage {
        format: Some(Format::Raw),
        ..fixture.request(name, &file)
    };
    let image = fixture.ready(raw("d.raw")).await;
    assert!(fixture.stored(&image) == file);
    fixture.delete(&image).await;
    // The zeros that fill its last sector are passed over, as gzip does.
    let image = fixture.ready(raw("d.raw.gz")).await;
    assert!(fixture.stored(&image) == disk(1 << 20));
    fixture.delete(&image).await;
    let Some(Source::Url(download)) = raw("d.raw.gz").source else {
        panic!()
    };
    let never = Download {
        unpack: Unpack::As(Packing::Plain),
        ..*download
    };
    let new = NewImage {
        source: Some(Source::Url(Box::new(never))),
        ..raw("d.raw.gz")
    };
    assert!(fixture.stored(&fixture.ready(new).await) == file);
}

/// Row 14: what unpacks without end fills no disk, and zeros are no attack.
#[tokio::test(flavor = "multi_thread")]
async fn row_14_zeros_are_no_bomb_and_windows_are_bounded() {
    let fixture = fixture();
    let zeros = packed(Packing::Zstd, &vec![0; 256 << 20]);
    assert!(zeros.len() < 32 << 10, "1:8000 and more");
    let image = fixture
        .ready(fixture.request("zeros.img.zst", &zeros))
        .await;
    assert_eq!(
        (image.sidecar().size, image.sidecar().real_size),
        (256 << 20, 0)
    );
    fixture.delete(&image).await;
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(28).unwrap();
    encoder.include_contentsize(false).unwrap();
    encoder.write_all(&disk(1 << 20)).unwrap();
    let message = fixture
        .failure(fixture.request("d.zst", &encoder.finish().unwrap()))
        .await;
    assert!(message.contains("zstd"), "{message}");
    let options = liblzma::stream::LzmaOptions::new_preset(1).unwrap();
    let mut filters = liblzma::stream::Filters::new();
    let mut options = options;
    options.dict_size(256 << 20);
    filters.lzma2(&options);
    let stream =
        liblzma::stream::Stream::new_stream_encoder(&filters, liblzma::stream::Check::Crc64);
    let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream.unwrap());
    encoder.write_all(&disk(1 << 20)).unwrap();
    let message = fixture
        .failure(fixture.request("d.xz", &encoder.finish().unwrap()))
        .await;
    assert!(message.contains("xz"), "{message}");
}

/// Row 31: an odd size is padded by the rule of store/padding.rs.
#[tokio::test(flavor = "multi_thread")]
async fn row_31_a_raw_image_of_an_odd_size_is_padded_and_its_own_sum_is_kept() {
    let fixture = fixture();
    for size in [(1 << 20) + 1, (2 << 20) + 511, 300_100] {
        let odd = disk(size);
        let mut whole = odd.clone();
        whole.resize(size.next_multiple_of(512), 0);
        let new = || NewImage {
            expected: Some(Sha512::of(&odd)),
            ..fixture.request("d.img", &odd)
        };
        let image = fixture.ready(new()).await;
        assert!(fixture.stored(&image) == whole);
        assert_eq!(image.checksum().unwrap(), Sha512::of(&whole));
        assert_eq!(image.sidecar().size, whole.len() as u64);
        let came = Checksum::Sha512(Sha512::of(&odd)).to_string();
        assert_eq!(image.seal().source_checksums, [came]);
        assert_eq!(
            fixture.ready(new()).await.id(),
            image.id(),
            "the same again"
        );
        fixture.delete(&image).await;
        let wrong = NewImage {
            expected: Some(Sha512::of(b"x")),
            ..new()
        };
        let message = fixture.failure(wrong).await;
        assert!(message.contains(&Sha512::of(&odd).to_string()), "{message}");
    }
    let message = fixture.failure(fixture.request("d.img", b"")).await;
    assert!(message.contains("empty"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_padded_image_is_ready_at_the_next_start() {
    let fixture = fixture();
    let odd = disk((1 << 20) + 77);
    let image = fixture.ready(fixture.request("d.img", &odd)).await;
    let Fixture { dir, catalog, .. } = fixture;
    catalog.stop().await;
    drop(catalog);
    let again = open(&dir).get(&image.id().name, None).unwrap();
    assert!(matches!(again.state, Lifecycle::Ready(found) if *found == image));
}

#[tokio::test(flavor = "multi_thread")]
async fn row_45_other_formats_are_refused_by_name_with_the_command_that_converts_them() {
    let fixture = fixture();
    let mut vdi = disk(1 << 20);
    vdi[0x40..0x44].copy_from_slice(b"\x7f\x10\xda\xbe");
    let mut vhd = disk(1 << 20);
    let footer = vhd.len() - 512;
    vhd[footer..footer + 8].copy_from_slice(b"conectix");
    let with_magic = |magic: &[u8]| [magic, &disk(1 << 20)[magic.len()..]].concat();
    let mut ova = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(3);
    ova.append_data(&mut header, "app.ovf", &b"xml"[..])
        .unwrap();
    for (name, file) in [
        ("VMDK", with_magic(b"KDMV")),
        ("VHDX", with_magic(b"vhdxfile")),
        ("VDI", vdi),
        ("VHD", vhd),
        ("tar", ova.into_inner().unwrap()),
    ] {
        for body in [file.clone(), packed(Packing::Zstd, &file)] {
            let message = fixture.failure(fixture.request("d", &body)).await;
            let next = "base-image build --from FILE";
            assert!(
                message.contains(name) && message.contains(next),
                "{message}"
            );
        }
        // Nothing looks into what was declared.
        let declared = NewImage {
            format: Some(Format::Raw),
            ..fixture.request("d", &file)
        };
        let image = fixture.ready(declared).await;
        assert!(fixture.stored(&image).starts_with(&file));
        fixture.delete(&image).await;
    }
}

/// Row 21, for a URL: one download, and all see the same; also when it fails.
#[tokio::test(flavor = "multi_thread")]
async fn row_21_fifty_requests_for_one_url_are_one_download() {
    let fixture = Arc::new(fixture());
    let disk = disk(1 << 20);
    let right = fixture.request("d.img", &disk);
    let wrong = NewImage {
        expected: Some(Sha512::of(b"other")),
        ..right.clone()
    };
    for (new, downloads) in [(wrong, 1), (right, 2)] {
        // Made by one, waited for by all: a failed image is started anew by whoever asks later.
        fixture.catalog.create(new.clone()).unwrap();
        let tasks: Vec<_> = (0..50)
            .map(|_| {
                let (fixture, name) = (fixture.clone(), new.name.clone().unwrap());
                tokio::spawn(async move {
                    let mut watch = fixture.catalog.watch(&name, None).unwrap();
                    let settled = watch.wait_for(is_done);
                    settled.await.unwrap().state.clone()
                })
            })
            .collect();
        let mut states = Vec::new();
        for task in tasks {
            states.push(task.await.unwrap());
        }
        states.dedup();
        assert_eq!(states.len(), 1, "all see the same");
        assert_eq!(fixture.server.asked.load(Ordering::Relaxed), downloads);
    }
    let again = fixture.request("d.img", &disk);
    let all: Vec<_> = (0..50)
        .map(|_| fixture.catalog.create(again.clone()).unwrap())
        .collect();
    assert!(
        all.iter()
            .all(|status| matches!(status.state, Lifecycle::Ready(_)))
    );
    assert_eq!(fixture.server.asked.load(Ordering::Relaxed), 2);
}

/// Zeros that fill a block belong to nobody; other bytes are passed over when a checksum vouches.
#[tokio::test(flavor = "multi_thread")]
async fn row_177_what_follows_a_packed_file_is_passed_over_where_somebody_vouches() {
    let fixture = fixture();
    let disk = disk(1 << 20);
    for packing in [Packing::Gzip, Packing::Xz, Packing::Zstd] {
        let file = packed(packing, &disk);
        for zeros in [1, 4, 512, 70_000] {
            let padded = [&file[..], &vec![0; zeros]].concat();
            let image = fixture.ready(fixture.request("d.img", &padded)).await;
            assert_eq!(image.checksum().unwrap(), Sha512::of(&disk), "{packing}");
            fixture.delete(&image).await;
        }
        // Several parts in a row are one file, for each of the formats.
        let twice = [&file[..], &file[..]].concat();
        let image = fixture.ready(fixture.request("d.img", &twice)).await;
        assert!(fixture.stored(&image) == [&disk[..], &disk[..]].concat());
        fixture.delete(&image).await;
        for rest in [b"metadata of a firmware".to_vec(), vec![b'x'; 300_000]] {
            let followed = [&file[..], &[0; 100], &rest].concat();
            let message = fixture.failure(fixture.request("d.img", &followed)).await;
            assert!(message.contains("other data follows"), "{message}");
            for known in [&disk, &followed] {
                let vouched = with_sha256(fixture.request("d.img", &followed), known);
                let image = fixture.ready(vouched).await;
                assert!(fixture.stored(&image) == disk, "{packing}");
                fixture.delete(&image).await;
                let vouched = NewImage {
                    expected: Some(Sha512::of(known)),
                    ..fixture.request("d.img", &followed)
                };
                let image = fixture.ready(vouched).await;
                fixture.delete(&image).await;
            }
            let other = with_sha256(fixture.request("d.img", &followed), b"other");
            let message = fixture.failure(other).await;
            assert!(message.contains("checksum mismatch"), "{message}");
        }
    }
}

/// Whether an image is ready with its sum, or failed.
fn is_done(status: &Status) -> bool {
    match &status.state {
        Lifecycle::Ready(image) => image.checksum().is_ok(),
        state => state.is_settled(),
    }
}
