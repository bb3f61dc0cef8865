//! Both ends against each other, and each against a peer that does what it should not.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio_util::sync::CancellationToken;
use types::{ImageId, Sha512, report};

use super::wire::Call;
use super::*;
use crate::error::{Error, Result};
use crate::longhorn::plain_http;
use crate::source::{Job, Report};
use crate::store::{Disk, ImageStore, Place, Received};
use crate::sync::rate::RateLimit;

const MIB: u64 = 1 << 20;

#[derive(Debug, Default)]
struct Told(Mutex<(u64, u64)>);

impl Report for Told {
    fn progress(&self, processed: u64, total: u64) {
        *self.0.lock().unwrap() = (processed, total);
    }

    fn pinned(&self, _: &str) {}
}

struct Site {
    _dir: tempfile::TempDir,
    job: Job,
    told: Arc<Told>,
}

fn site() -> Site {
    let dir = tempfile::tempdir().unwrap();
    Disk::init(dir.path(), None).unwrap();
    let disk = Arc::new(Disk::open(dir.path()).unwrap());
    let told = Arc::new(Told::default());
    let job = Job {
        id: ImageId::new("img", "uuid-img").unwrap(),
        store: ImageStore::new(disk, Place::Images),
        expected: None,
        format: None,
        convert: None,
        size: None,
        pass: 0,
        cancel: CancellationToken::new(),
        report: told.clone(),
    };
    Site {
        _dir: dir,
        job,
        told,
    }
}

const QUICK: Patience = Patience {
    first: Duration::from_millis(400),
    idle: Duration::from_millis(400),
    close: Duration::from_millis(100),
};

impl Site {
    /// A receiver at work, and where.
    fn receive(&self, size: u64) -> (SocketAddr, tokio::task::JoinHandle<Result<Received>>) {
        let listener = ports::listen_on(e2e::ports::free()).unwrap();
        let receiver = Receiver::new(listener, size, Invite::Unasked)
            .unwrap()
            .with_patience(QUICK);
        let (address, job) = (receiver.address(), self.job.clone());
        let work = tokio::spawn(async move { receiver.take_in(&job).await });
        (address, work)
    }
}

/// A file as the incumbent's test has one: data, holes, written zeros, a tail.
fn sample(dir: &Path, size: u64) -> (File, Vec<u8>) {
    let mut bytes = vec![0; usize::try_from(size).unwrap()];
    for (begin, end) in [
        (0, 8192),
        (MIB, 4 * MIB + 4096),
        (6 * MIB, 6 * MIB + 1),
        (size - 512, size),
    ] {
        for at in begin..end.min(size) {
            bytes[usize::try_from(at).unwrap()] =
                u8::try_from((at * 7 + at / 4096) % 255 + 1).unwrap();
        }
    }
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(dir.join("source"))
        .unwrap();
    file.set_len(size).unwrap();
    for (index, block) in bytes.chunks(4096).enumerate() {
        if block.iter().any(|byte| *byte != 0) || index % 64 == 3 {
            file.write_all_at(block, index as u64 * 4096).unwrap();
        }
    }
    (file, bytes)
}

fn sending(file: &File, to: SocketAddr) -> Sending {
    Sending {
        file: file.try_clone().unwrap(),
        path: "source".into(),
        to: to.to_string(),
        rate: Arc::new(RateLimit::new(0)),
        batches: Batches::default(),
        cancel: CancellationToken::new(),
    }
}

/// One request of a foreign sender.
async fn ask(to: SocketAddr, method: &str, target: &str, body: &[u8]) -> (u16, String) {
    let client = plain_http::client().build().unwrap();
    let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
    let url = format!("http://{to}/v1-ssync/{target}");
    let answer = client.request(method, url).body(body.to_vec()).send().await;
    let answer = answer.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_is_what_is_received_and_holes_stay_holes() {
    let site = site();
    let dir = tempfile::tempdir().unwrap();
    let size = 40 * MIB + 512;
    let (file, bytes) = sample(dir.path(), size);
    let (address, receiving) = site.receive(size);
    let sent = sending(&file, address).run().await.unwrap();
    let received = receiving.await.unwrap().unwrap();
    // The port is free at once.
    drop(StdListener::bind(address).unwrap());
    assert_eq!(received.manifest.checksum, Sha512::of(&bytes));
    assert!(std::fs::read(&received.path).unwrap() == bytes);
    assert!(received.file.metadata().unwrap().blocks() * 512 < 8 * MIB);
    assert_eq!(sent.bytes + sent.holes, size);
    assert!(sent.bytes < 5 * MIB && sent.requests < 20, "{sent:?}");
    assert_eq!(*site.told.0.lock().unwrap(), (size, size));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_one_hole_arrives() {
    let site = site();
    let dir = tempfile::tempdir().unwrap();
    let file = File::create_new(dir.path().join("source")).unwrap();
    file.set_len(64 * MIB).unwrap();
    let file = File::open(dir.path().join("source")).unwrap();
    let (address, receiving) = site.receive(0);
    let sent = sending(&file, address).run().await.unwrap();
    assert_eq!((sent.bytes, sent.holes, sent.requests), (0, 64 * MIB, 1));
    assert_eq!(receiving.await.unwrap().unwrap().manifest.size, 64 * MIB);
}

/// Row 47, and the incumbent's worst defect: a close is no success.
#[tokio::test(flavor = "multi_thread")]
async fn row_47_a_sender_that_closes_early_has_sent_nothing() {
    let site = site();
    for (percent, close) in [
        (0, true),
        (50, true),
        (99, true),
        (0, false),
        (50, false),
        (99, false),
    ] {
        let (address, receiving) = site.receive(100 * 4096);
        ask(address, "GET", "open?end=409600&begin=0&directIO=true", b"").await;
        for part in 0..percent {
            let target = format!("writeData?end={}&begin={}", (part + 1) * 4096, part * 4096);
            assert_eq!(ask(address, "POST", &target, &[1; 4096]).await.0, 200);
        }
        if close {
            let (status, words) =
                ask(address, "POST", "close?checksum=&checksumMethod=", b"").await;
            assert_eq!(status, 409);
            assert!(
                words.contains(&format!("{} of 409600 bytes came", percent * 4096)),
                "{words}"
            );
        }
        let error = receiving.await.unwrap().unwrap_err();
        let text = report(&error).to_string();
        let expected = match (percent, close) {
            (0, false) => "failed to wait for processing begin".to_owned(),
            (_, true) => format!(
                "{} of 409600 bytes came, then its sender closed",
                percent * 4096
            ),
            (_, false) => format!("{} of 409600 bytes came, then nothing came", percent * 4096),
        };
        assert!(text.starts_with(&expected), "{percent} {close}: {text}");
        let left = site.job.store.paths(&site.job.id).backing_tmp;
        assert!(!left.exists(), "{}", left.display());
        drop(StdListener::bind(address).unwrap());
    }
}

/// Row 47 at 100 %: all bytes are there, only the last word is missing.
#[tokio::test(flavor = "multi_thread")]
async fn row_47_a_sender_that_dies_before_its_close_has_sent_all() {
    let site = site();
    let (address, receiving) = site.receive(8192);
    ask(address, "GET", "open?begin=0&directIO=false&end=8192", b"").await;
    ask(address, "POST", "sendHole?begin=4096&end=8192", b"").await;
    ask(address, "POST", "writeData?begin=0&end=4096", &[3; 4096]).await;
    let received = receiving.await.unwrap().unwrap();
    let expected = [vec![3; 4096], vec![0; 4096]].concat();
    assert_eq!(received.manifest.checksum, Sha512::of(&expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_comes() {
    let site = site();
    let (address, receiving) = site.receive(8192);
    let error = receiving.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::NothingCame { .. }), "{error}");
    drop(StdListener::bind(address).unwrap());
}

/// Row 52: what a peer must not do is refused, and harms neither the copy nor the process.
#[tokio::test(flavor = "multi_thread")]
async fn row_52_a_hostile_sender_is_refused_and_the_copy_goes_on() {
    let site = site();
    let (to, receiving) = site.receive(0);
    let early = ask(to, "POST", "writeData?begin=0&end=4096", &[1; 4096]).await;
    assert_eq!(early.0, 409, "{}", early.1);
    // Nor does a close by somebody who has not opened it end the copy.
    assert_eq!(ask(to, "POST", "close", b"").await.0, 409);
    assert_eq!(
        ask(to, "GET", "open?begin=0&directIO=false&end=8192", b"").await,
        (200, "false".into())
    );
    // The answer was lost, it asks again; and then for another file.
    assert_eq!(
        ask(to, "GET", "open?begin=0&directIO=false&end=8192", b"")
            .await
            .0,
        200
    );
    assert_eq!(
        ask(to, "GET", "open?begin=0&directIO=false&end=4096", b"")
            .await
            .0,
        409
    );
    let block = [1_u8; 4096];
    assert_eq!(
        ask(to, "POST", "writeData?begin=0&end=4096", &block)
            .await
            .0,
        200
    );
    for (target, body, status) in [
        ("writeData?begin=0&end=4096", &block[..], 200),
        ("writeData?begin=0&end=4096", &[2_u8; 4096][..], 409),
        ("sendHole?begin=0&end=512", b"", 409),
        ("writeData?begin=4096&end=12288", &[1_u8; 8192][..], 400),
        ("writeData?begin=8192&end=12288", &block[..], 400),
        ("sendHole?begin=4096&end=1099511627776", b"", 400),
        ("sendHole?begin=-4096&end=8192", b"", 400),
        ("writeData?begin=0&end=-1", &block[..], 400),
        ("writeData?begin=0&end=512", &block[..], 400),
        ("writeData?begin=0&end=4096", &block[..100], 400),
        ("writeMetaFile", b"{}", 404),
    ] {
        let answer = ask(to, "POST", target, body).await;
        assert_eq!(answer.0, status, "{target}: {}", answer.1);
    }
    let sum = |answer: (u16, String)| answer.1;
    let of_zeros_and_ones = sum(ask(to, "GET", "getChecksum?begin=0&end=4096", b"").await);
    // The chunk has not all come yet.
    assert_eq!(of_zeros_and_ones, "null");
    assert_eq!(ask(to, "GET", "getRecordedMetadata", b"").await.0, 500);
    assert_eq!(
        ask(to, "POST", "sendHole?begin=4096&end=8192", b"").await.0,
        200
    );
    let told = sum(ask(to, "GET", "getChecksum?begin=0&end=4096", b"").await);
    assert_eq!(told.len(), 90, "{told}");
    assert_eq!(
        ask(to, "POST", "close?checksum=&checksumMethod=", b"").await,
        (200, String::new())
    );
    let received = receiving.await.unwrap().unwrap();
    let expected = [vec![1; 4096], vec![0; 4096]].concat();
    assert_eq!(received.manifest.checksum, Sha512::of(&expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_with_another_file_is_told_at_once() {
    let site = site();
    let (to, receiving) = site.receive(8192);
    let (status, words) = ask(to, "GET", "open?begin=0&end=4096", b"").await;
    assert_eq!(status, 500);
    assert!(
        words.contains("4096 bytes and 8192 were expected"),
        "{words}"
    );
    let error = receiving.await.unwrap().unwrap_err();
    assert!(
        matches!(
            error,
            Error::WrongSize {
                expected: 8192,
                actual: 4096
            }
        ),
        "{error}"
    );
}

/// A deleted image does not keep its port, its file or its sender.
#[tokio::test(flavor = "multi_thread")]
async fn row_56_a_receiver_that_is_not_wanted_ends_at_once() {
    let site = site();
    let (to, receiving) = site.receive(8192);
    ask(to, "GET", "open?begin=0&end=8192", b"").await;
    site.job.cancel.cancel();
    let error = receiving.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Cancelled(_)), "{error}");
    drop(StdListener::bind(to).unwrap());
    assert!(!site.job.store.paths(&site.job.id).backing_tmp.exists());
}

/// A receiver like Go's: takes what comes, and can be told to fail.
struct Stub {
    address: SocketAddr,
    calls: Arc<Mutex<Vec<Call>>>,
}

async fn stub(answer: impl Fn(usize, &Call) -> u16 + Send + Sync + 'static) -> Stub {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .unwrap();
    let address = listener.local_addr().unwrap();
    let calls = Arc::<Mutex<Vec<Call>>>::default();
    let (log, answer) = (calls.clone(), Arc::new(answer));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (log, answer) = (log.clone(), answer.clone());
            let service = service_fn(move |request: Request<Incoming>| {
                let (log, answer) = (log.clone(), answer.clone());
                async move {
                    let uri = request.uri().clone();
                    let call =
                        Call::parse(request.method().as_str(), uri.path(), uri.query()).unwrap();
                    let body = request.into_body().collect().await?.to_bytes();
                    if let Call::WriteData(range) = &call {
                        assert_eq!(body.len() as u64, range.end - range.start);
                    }
                    let status = {
                        let mut log = log.lock().unwrap();
                        log.push(call.clone());
                        answer(log.len(), &call)
                    };
                    let reply = Response::builder().status(status);
                    Ok::<_, hyper::Error>(reply.body(Full::new(body.slice(..0))).unwrap())
                }
            });
            let connection = hyper::server::conn::http1::Builder::new();
            tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
        }
    });
    Stub { address, calls }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_stumbles_gets_every_byte_again() {
    let dir = tempfile::tempdir().unwrap();
    let (file, _) = sample(dir.path(), 16 * MIB);
    let stub = stub(|count, _| if count % 3 == 0 { 503 } else { 200 }).await;
    let sent = sending(&file, stub.address).run().await.unwrap();
    let calls = stub.calls.lock().unwrap();
    assert_eq!(
        calls[0],
        Call::Open {
            size: 16 * MIB,
            direct_io: false
        }
    );
    assert_eq!(calls.iter().filter(|call| **call == Call::Close).count(), 1);
    assert!(calls.len() as u64 > sent.requests + 2, "{calls:?}");
    // All holes are one request each.
    let mut holes: Vec<_> = calls
        .iter()
        .filter_map(|call| match call {
            Call::SendHole(range) => Some((range.start, range.end)),
            _ => None,
        })
        .collect();
    holes.sort_unstable();
    holes.dedup();
    assert!(holes.len() <= 4, "{holes:?}");
}

/// A Go receiver cannot be told of a failure: it is left with a file that nothing can mistake.
#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_fails_never_lets_a_receiver_believe_in_success() {
    let dir = tempfile::tempdir().unwrap();
    let (file, _) = sample(dir.path(), 16 * MIB);
    let stub = stub(|_, call| {
        if matches!(call, Call::WriteData(r) if r.start > MIB) {
            400
        } else {
            200
        }
    })
    .await;
    let error = sending(&file, stub.address).run().await.unwrap_err();
    assert!(matches!(error, Error::Peer { .. }), "{error}");
    let calls = stub.calls.lock().unwrap();
    let end: Vec<_> = calls.iter().rev().take(2).rev().collect();
    assert_eq!(
        end,
        [
            &Call::Open {
                size: 1,
                direct_io: false
            },
            &Call::Close
        ]
    );
    assert_eq!(calls.iter().filter(|call| **call == Call::Close).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn our_receiver_learns_that_the_sender_gave_up() {
    let site = site();
    let dir = tempfile::tempdir().unwrap();
    let (file, _) = sample(dir.path(), 16 * MIB);
    file.write_all_at(&vec![9; 16 << 20], 0).unwrap();
    let (address, receiving) = site.receive(16 * MIB);
    let sending = sending(&file, address);
    // The file is shorter than it was when it was opened: reading fails half way.
    let shrinking = file.try_clone().unwrap();
    let rate = Arc::new(RateLimit::new(12 << 20));
    let sending = Sending { rate, ..sending };
    let work = tokio::spawn(sending.run());
    tokio::time::sleep(Duration::from_millis(100)).await;
    shrinking.set_len(2 * MIB).unwrap();
    work.await.unwrap().unwrap_err();
    let error = receiving.await.unwrap().unwrap_err();
    let text = report(&error).to_string();
    assert!(text.contains("then its sender gave up"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_that_are_none_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (file, _) = sample(dir.path(), 8 * MIB);
    for to in ["", "host", "http://a:1/", "a:1/x", "u@a:1", "a b:1"] {
        let mut sending = sending(&file, (Ipv4Addr::LOCALHOST, 1).into());
        to.clone_into(&mut sending.to);
        let error = sending.run().await.unwrap_err();
        assert!(matches!(error, Error::InvalidField { .. }), "{to}: {error}");
    }
}
