//! Both ends against each other, and each against a misbehaving peer.

mod receiver;
mod sender;

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::{Arc, Mutex};

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
use crate::plain_http;
use catalog::source::{Job, Report};
use store::{Disk, ImageStore, Place, Received};
use sync::rate::RateLimit;

const MIB: u64 = 1 << 20;

#[derive(Debug, Default)]
struct Told(Mutex<(u64, u64)>);

impl Report for Told {
    fn exactly(&self, processed: u64, total: u64) {
        self.progress(processed, total);
    }

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
        checksum_later: false,
        provenance: store::Provenance::Unknown,
        id: ImageId::new("img", "uuid-img").unwrap(),
        store: ImageStore::new(disk, Place::Images),
        expected: None,
        format: None,
        size: None,
        for_volumes: false,
        pass: 0,
        turn: catalog::source::Turn::default(),
        cancel: CancellationToken::new(),
        report: told.clone(),
    };
    Site {
        _dir: dir,
        job,
        told,
    }
}

/// Lets the time pass that a receiver waits, by a clock that runs ahead whenever no task has anything to do.
/// Only for a test of one thread, whose peer has sent all that it sends.
async fn time_passes<T>(receiving: tokio::task::JoinHandle<T>) -> T {
    tokio::time::pause();
    let received = receiving.await.unwrap();
    tokio::time::resume();
    received
}

impl Site {
    /// A receiver at work, and where.
    fn receive(&self, size: u64) -> (SocketAddr, tokio::task::JoinHandle<Result<Received>>) {
        let listener = ports::listen_on(e2e::ports::free()).unwrap();
        let receiver = Receiver::new(listener, size, Invite::Unasked).unwrap();
        let (address, job) = (receiver.address(), self.job.clone());
        let work = tokio::spawn(async move { receiver.receive(&job).await });
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
