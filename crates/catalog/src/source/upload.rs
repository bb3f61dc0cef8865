//! Bytes from a client: the entry for uploads.
//!
//! One end is the source of an image; the client holds the other. The pipe between them is short,
//! so that a client is as fast as the disk and only a few pieces are in memory.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use types::report;

use super::Job;
use crate::blocking::blocking;
use crate::error::{Error, Result};
use store::Received;

/// Pieces that may wait for the disk.
const QUEUE: usize = 8;
/// An upload of which nothing comes for so long is given up, and what has come of it is removed.
const IDLE: Duration = Duration::from_hours(1);

/// Why a short upload is short, when its client says that this was all.
const ENDED: &str = "then the upload ended";

#[derive(Debug)]
enum Part {
    Bytes(Bytes),
    /// All bytes have been brought. Is answered when they are in the file.
    End(oneshot::Sender<()>),
}

/// The end that an image is made from. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Upload {
    size: u64,
    parts: Arc<Mutex<Option<mpsc::Receiver<Part>>>>,
    failure: Arc<Mutex<Option<String>>>,
}

/// The end that bytes go into. Dropping it before [`Bringer::end`] fails the image.
#[derive(Debug)]
pub struct Bringer {
    size: u64,
    brought: u64,
    parts: mpsc::Sender<Part>,
    /// Why the image failed, when it did.
    failure: Arc<Mutex<Option<String>>>,
}

/// Both ends of an upload of `size` bytes.
pub fn upload(size: u64) -> Result<(Upload, Bringer)> {
    if size == 0 {
        return Err(Error::InvalidField {
            field: "size",
            why: "an image has at least one sector; give its size in bytes".to_owned(),
        });
    }
    let (sender, receiver) = mpsc::channel(QUEUE);
    let failure = Arc::<Mutex<Option<String>>>::default();
    let upload = Upload {
        size,
        parts: Arc::new(Mutex::new(Some(receiver))),
        failure: failure.clone(),
    };
    let bringer = Bringer {
        size,
        brought: 0,
        parts: sender,
        failure,
    };
    Ok((upload, bringer))
}

impl Upload {
    /// Takes in what is brought.
    pub(super) async fn take_in(&self, job: &Job) -> Result<Received> {
        let parts = self
            .parts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let parts = parts.ok_or(Error::Cancelled("the upload was used before"))?;
        let (job, size, handle) = (job.clone(), self.size, Handle::current());
        let failure = self.failure.clone();
        let take_in = move || {
            // Set before the pipe is closed, so that who brings learns it.
            let mut parts = parts;
            let taken = receive(&mut parts, size, &job, &handle);
            if let Err(error) = &taken {
                *failure.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some(report(error).to_string());
            }
            taken
        };
        blocking(take_in).await
    }
}

fn receive(
    parts: &mut mpsc::Receiver<Part>,
    size: u64,
    job: &Job,
    handle: &Handle,
) -> Result<Received> {
    let mut ingest = job.begin()?;
    // Who uploads says how much it is: it is refused before the first byte, or surely fits.
    ingest.expect(size)?;
    loop {
        match handle.block_on(next(parts, &job.cancel))? {
            Next::Part(Part::Bytes(bytes)) => {
                let more = ingest.size() + bytes.len() as u64;
                if more > size {
                    return Err(wrong_size(size, more));
                }
                handle.block_on(job.turn.take(&job.cancel))?;
                ingest.write(&bytes)?;
                job.report.progress(more, size);
            }
            Next::Part(Part::End(taken)) => {
                if ingest.size() < size {
                    return Err(short(ingest.size(), size, ENDED));
                }
                // Who brought them may have gone: the bytes are here all the same.
                let _ = taken.send(());
                return Ok(ingest.finish()?);
            }
            Next::Gone => {
                return Err(short(ingest.size(), size, "then the client went away"));
            }
            Next::Idle => {
                let why = format!("then no data arrived for {} seconds", IDLE.as_secs());
                return Err(short(ingest.size(), size, &why));
            }
        }
    }
}

fn short(received: u64, size: u64, why: &str) -> Error {
    Error::CutShort {
        received,
        size,
        why: why.to_owned(),
    }
}

enum Next {
    Part(Part),
    Gone,
    Idle,
}

async fn next(parts: &mut mpsc::Receiver<Part>, cancel: &CancellationToken) -> Result<Next> {
    tokio::select! {
        part = parts.recv() => Ok(part.map_or(Next::Gone, Next::Part)),
        () = cancel.cancelled() => Err(Error::Cancelled("the image is not wanted")),
        () = tokio::time::sleep(IDLE) => Ok(Next::Idle),
    }
}

fn wrong_size(expected: u64, actual: u64) -> Error {
    store::Error::WrongSize { expected, actual }.into()
}

impl Bringer {
    /// Bytes of the whole.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes that have been brought.
    pub fn brought(&self) -> u64 {
        self.brought
    }

    /// Brings more; waits while the disk is slower.
    pub async fn bring(&mut self, bytes: Bytes) -> Result<()> {
        let length = bytes.len() as u64;
        if self.brought + length > self.size {
            return Err(wrong_size(self.size, self.brought + length));
        }
        self.parts
            .send(Part::Bytes(bytes))
            .await
            .map_err(|_| self.failed())?;
        self.brought += length;
        Ok(())
    }

    /// Says that this was all, and waits until it is in the file.
    pub async fn end(self) -> Result<()> {
        let (taken, answer) = oneshot::channel();
        let sent = self.parts.send(Part::End(taken)).await;
        sent.map_err(|_| self.failed())?;
        if self.brought < self.size {
            return Err(short(self.brought, self.size, ENDED));
        }
        answer.await.map_err(|_| self.failed())
    }

    /// Why the other end does not take any more.
    fn failed(&self) -> Error {
        let why = self
            .failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        Error::UploadEnded(why.unwrap_or_else(|| "the image is not wanted any more".to_owned()))
    }
}
