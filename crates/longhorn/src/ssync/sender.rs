//! The sending end of ssync: pushes one file to a receiver.
//!
//! The receiver may be Go's, which cannot be informed of a failure: it treats `close`, 300 s of
//! silence, and even its own deletion as success, and only an expected checksum protects it from an
//! incomplete file. So `close` is sent only after success. After a failure, the file is announced
//! again with a single byte. This leaves the Go receiver with a file that no engine opens (its size
//! is not a multiple of 512) instead of one that looks right, and tells ours that the copy is over.
//! If even that does not reach the receiver, nothing more can be done.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::{Client, Method};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use types::report;

use super::batches::Batches;
use super::plan::{Piece, Pieces};
use super::session::ABANDONED;
use super::wire::Call;
use store::IoContext;

use crate::error::{Error, Result};
use crate::plain_http;
use catalog::counters;
use sync::rate::RateLimit;

/// Requests under way at once, as the Go sender has.
const WORKERS: usize = 4;
/// How long `open` is tried.
const OPEN: Duration = Duration::from_mins(2);
/// How long the first try of a request may take, as the Go sender's. Each further one gets twice the
/// time: a slow receiver is not helped by asking it the same again and again.
const REQUEST: Duration = Duration::from_secs(5);
/// Tries of one request, with the waits in between: together some minutes.
const TRIES: u32 = 7;
const BACK_OFF: Duration = Duration::from_millis(250);
const BACK_OFF_MAX: Duration = Duration::from_secs(30);
/// How long the last words after a failure may take.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// What of an error's text is kept.
const WORDS_MAX: usize = 300;

/// A file on its way to a receiver.
#[derive(Debug)]
pub struct Sending {
    /// The open file; its bytes do not change.
    pub file: File,
    /// Its path, for errors.
    pub path: PathBuf,
    pub to: String,
    /// What all sends together keep to.
    pub rate: Arc<RateLimit>,
    /// The memory of all sends together.
    pub batches: Batches,
    pub cancel: CancellationToken,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sent {
    pub bytes: u64,
    pub holes: u64,
    pub requests: u64,
}

impl Sending {
    /// Sends the whole file.
    pub async fn run(self) -> Result<Sent> {
        let size = self.file.metadata().context("inspect", &self.path)?.len();
        let peer = Peer::new(&self.to)?;
        let opened = tokio::select! {
            opened = peer.open(size) => opened,
            () = self.cancel.cancelled() => return Err(cancelled()),
        };
        opened?;
        let started = Instant::now();
        match self.send_all(&peer, size).await {
            Ok(sent) => {
                peer.close().await;
                info!(
                    to = self.to,
                    bytes = sent.bytes,
                    holes = sent.holes,
                    requests = sent.requests,
                    seconds = started.elapsed().as_secs_f64(),
                    "sent"
                );
                Ok(sent)
            }
            Err(error) => {
                peer.abandon().await;
                Err(error)
            }
        }
    }

    async fn send_all(&self, peer: &Peer, size: u64) -> Result<Sent> {
        let (pieces, queue) = mpsc::channel(1);
        let file = self.file.try_clone().context("keep open", &self.path)?;
        let (path, share) = (self.path.clone(), self.batches.share());
        let reader = tokio::task::spawn_blocking(move || {
            let read = Pieces::new(&file, &path, size, share);
            queue_up(read, &pieces)?;
            let actual = file.metadata().context("inspect", &path)?.len();
            if actual != size {
                // What was cut off has been taken for a hole.
                let expected = size;
                return Err(Error::from(store::Error::WrongSize { expected, actual }));
            }
            Ok(())
        });
        let queue = Arc::new(Mutex::new(queue));
        let stop = CancellationToken::new();
        let mut workers = JoinSet::new();
        for _ in 0..WORKERS {
            let worker = Worker {
                peer: peer.clone(),
                queue: queue.clone(),
                rate: self.rate.clone(),
                stop: stop.clone(),
            };
            workers.spawn(worker.run());
        }
        drop(queue);
        let mut sent = Sent::default();
        let mut outcome = Ok(());
        loop {
            let done = tokio::select! {
                done = workers.join_next() => done,
                () = self.cancel.cancelled(), if !stop.is_cancelled() => {
                    stop.cancel();
                    outcome = Err(cancelled());
                    continue;
                }
            };
            let Some(done) = done else { break };
            match done.map_err(Error::from).flatten() {
                Ok(part) => {
                    sent.bytes += part.bytes;
                    sent.holes += part.holes;
                    sent.requests += part.requests;
                }
                Err(error) => {
                    // Requests under way are waited for: none may come after the last words.
                    stop.cancel();
                    outcome = outcome.and(Err(error));
                }
            }
        }
        outcome?;
        reader.await??;
        Ok(sent)
    }
}

fn cancelled() -> Error {
    Error::Cancelled("the image is being deleted or the manager stops")
}

/// Reads a file into the queue until it ends or nobody takes.
fn queue_up(mut pieces: Pieces<'_>, queue: &mpsc::Sender<Piece>) -> Result<()> {
    while let Some(piece) = pieces.next()? {
        if queue.blocking_send(piece).is_err() {
            // A worker has failed, and says why.
            break;
        }
    }
    Ok(())
}

struct Worker {
    peer: Peer,
    queue: Arc<Mutex<mpsc::Receiver<Piece>>>,
    rate: Arc<RateLimit>,
    /// Nothing more is to be sent.
    stop: CancellationToken,
}

impl Worker {
    async fn run(self) -> Result<Sent> {
        let mut sent = Sent::default();
        loop {
            let next = async {
                let piece = self.queue.lock().await.recv().await?;
                if let Piece::Data(_, bytes) = &piece {
                    self.rate.take(bytes.len()).await;
                }
                Some(piece)
            };
            let piece = tokio::select! {
                piece = next => piece,
                () = self.stop.cancelled() => None,
            };
            let Some(piece) = piece else { return Ok(sent) };
            sent.requests += 1;
            let (call, bytes) = match piece {
                Piece::Hole(range) => {
                    sent.holes += range.end - range.start;
                    (Call::SendHole(range), Bytes::new())
                }
                Piece::Data(offset, bytes) => {
                    sent.bytes += bytes.len() as u64;
                    (Call::WriteData(offset..offset + bytes.len() as u64), bytes)
                }
            };
            let length = bytes.len() as u64;
            self.peer.ask(&call, bytes, &self.stop).await?;
            counters::sent(length);
        }
    }
}

/// The receiver, seen from here.
#[derive(Debug, Clone)]
struct Peer {
    client: Client,
    address: String,
}

/// Why one try failed.
enum Failed {
    /// Another try may help: it did not answer, or is busy.
    Perhaps(String),
    Surely(String),
}

impl Peer {
    fn new(address: &str) -> Result<Self> {
        let wrong = |why: String| Error::InvalidField {
            field: "to-address",
            why,
        };
        let url = url::Url::parse(&format!("http://{address}/"));
        let plain = url.is_ok_and(|url| {
            url.path() == "/"
                && url.port_or_known_default().is_some()
                && address.ends_with(|last: char| last.is_ascii_digit())
                && address.contains(':')
                && url.username().is_empty()
        });
        if !plain {
            return Err(wrong(format!("{address:?} is not host:port")));
        }
        let client = plain_http::client()
            .tcp_nodelay(true)
            .pool_max_idle_per_host(WORKERS)
            .user_agent(concat!("backing-image-manager/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| wrong(report(&error).to_string()))?;
        Ok(Self {
            client,
            address: address.to_owned(),
        })
    }

    fn error(&self, what: String) -> Error {
        Error::Peer {
            address: self.address.clone(),
            what,
        }
    }

    /// Announces the file; the receiver may not listen yet.
    async fn open(&self, size: u64) -> Result<()> {
        let call = Call::Open {
            size,
            direct_io: false,
        };
        let until = Instant::now() + OPEN;
        let mut wait = Duration::from_millis(20);
        loop {
            match self.once(&call, Bytes::new(), REQUEST).await {
                Ok(()) => return Ok(()),
                Err(Failed::Surely(why)) => return Err(self.error(why)),
                Err(Failed::Perhaps(why)) if Instant::now() + wait > until => {
                    return Err(self.error(format!(
                        "it did not take the file within {} seconds: {why}",
                        OPEN.as_secs()
                    )));
                }
                Err(Failed::Perhaps(why)) => debug!(to = self.address, why, "not open yet"),
            }
            sleep(wait).await;
            wait = (wait * 2).min(Duration::from_secs(2));
        }
    }

    /// One request, again and again until it is answered, there is no hope, or `stop`.
    async fn ask(&self, call: &Call, body: Bytes, stop: &CancellationToken) -> Result<()> {
        let (mut patience, mut wait) = (REQUEST, BACK_OFF);
        for attempt in 1.. {
            match self.once(call, body.clone(), patience).await {
                Ok(()) => return Ok(()),
                Err(Failed::Surely(why)) => return Err(self.error(why)),
                Err(Failed::Perhaps(why)) if attempt == TRIES || stop.is_cancelled() => {
                    return Err(self.error(format!("{why}, after {attempt} tries")));
                }
                Err(Failed::Perhaps(why)) => {
                    warn!(to = self.address, attempt, why, "trying again");
                }
            }
            tokio::select! {
                () = sleep(wait) => {}
                () = stop.cancelled() => {}
            }
            wait = (wait * 2).min(BACK_OFF_MAX);
            patience *= 2;
        }
        unreachable!("the last try returns")
    }

    async fn once(&self, call: &Call, body: Bytes, patience: Duration) -> Result<(), Failed> {
        let url = format!("http://{}{}", self.address, call.path_and_query());
        let method = if call.method() == "GET" {
            Method::GET
        } else {
            Method::POST
        };
        let request = self
            .client
            .request(method, url)
            .body(body)
            .timeout(patience);
        let response = request.send().await;
        let mut response =
            response.map_err(|error| Failed::Perhaps(report(&error.without_url()).to_string()))?;
        let status = response.status();
        // Read to its end, so that the connection can be used again.
        let mut words = Vec::new();
        while let Ok(Some(chunk)) = response.chunk().await {
            if words.len() < WORDS_MAX {
                words.extend_from_slice(&chunk[..chunk.len().min(WORDS_MAX)]);
            }
        }
        if status.is_success() {
            return Ok(());
        }
        let words = String::from_utf8_lossy(&words);
        let why = format!("it answered {status}: {}", words.trim().escape_debug());
        if status.is_server_error() {
            Err(Failed::Perhaps(why))
        } else {
            Err(Failed::Surely(why))
        }
    }

    /// Tells that all is sent. A Go receiver may be gone before its answer is out, and ours answers
    /// what it thinks of the file: neither changes what was sent.
    async fn close(&self) {
        for attempt in 1..=3_u32 {
            match self.once(&Call::Close, Bytes::new(), REQUEST).await {
                Ok(()) => return,
                Err(Failed::Surely(why)) => {
                    warn!(
                        to = self.address,
                        why, "the receiver does not take the file"
                    );
                    return;
                }
                Err(Failed::Perhaps(why)) => {
                    debug!(to = self.address, attempt, why, "no answer to close");
                }
            }
            sleep(BACK_OFF).await;
        }
    }

    /// After a failure: see the top of this file.
    async fn abandon(&self) {
        let call = Call::Open {
            size: ABANDONED,
            direct_io: false,
        };
        let words = async {
            if self.once(&call, Bytes::new(), LAST_WORDS).await.is_ok() {
                let _ = self.once(&Call::Close, Bytes::new(), LAST_WORDS).await;
            }
        };
        let _ = timeout(LAST_WORDS * 2, words).await;
    }
}
