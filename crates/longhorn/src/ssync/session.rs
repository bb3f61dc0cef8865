//! The state of the incoming file at a receiver, and its decision on each request. Blocking.
//!
//! A received byte does not change: receiving the same byte again is harmless (a sender that lost
//! an answer repeats its request), and a different one is rejected. The assembly of the store
//! ensures this.

use std::ops::Range;
use std::sync::{PoisonError, RwLock, RwLockWriteGuard};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{Context, SHA512};
use tokio::sync::watch;
use tracing::{debug, warn};
use types::report;

use super::wire::Refusal;
use crate::error::{Error, Result};
use catalog::source::Job;
use chunks::CHUNK;
use store::{Assembly, Received};

/// The longest range whose checksum is told.
const CHECKSUM_MAX: u64 = 64 << 20;
/// A file of this size is announced by a sender that gives up after it has begun (see `sender`).
pub(super) const ABANDONED: u64 = 1;

/// How far a copy is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Come {
    /// Bytes and holes that have come.
    pub(super) received: u64,
    /// Bytes of the file; 0 until it was opened.
    pub(super) size: u64,
}

impl Come {
    pub(super) fn is_complete(self) -> bool {
        self.size > 0 && self.received == self.size
    }
}

/// What comes of a request.
pub(super) type Judged<T> = Result<T, Fault>;

/// Why a request was not done.
#[derive(Debug)]
pub(super) enum Fault {
    /// It is refused; the copy goes on.
    Refused(Refusal),
    /// The copy is over.
    Fatal(Error),
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<store::Error> for Fault {
    /// Bytes that do not fit the image are the sender's fault; anything else is the copy's end.
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::NotOfImage(why) => {
                warn!(why, "rejected data from a sender");
                Self::Refused(Refusal::conflict(why))
            }
            error => Self::Fatal(error.into()),
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Fatal(error)
    }
}

/// One file on its way in.
#[derive(Debug)]
pub(super) struct Session {
    job: Job,
    /// The size that was asked for; 0: whatever comes.
    expected: u64,
    /// Held shared by requests, so that none is under way any more when the copy is over.
    state: RwLock<State>,
    come: watch::Sender<Come>,
}

#[derive(Debug)]
enum State {
    /// No sender has opened a file.
    Awaited,
    Open(Assembly),
    Over,
}

impl Session {
    pub(super) fn new(job: Job, expected: u64) -> Self {
        Self {
            job,
            expected,
            state: RwLock::new(State::Awaited),
            come: watch::Sender::default(),
        }
    }

    /// How far it is, now and later.
    pub(super) fn come(&self) -> watch::Receiver<Come> {
        self.come.subscribe()
    }

    /// Waits for the turn of this image: its sender is there.
    pub(super) async fn take_turn(&self) -> Result<()> {
        Ok(self.job.turn.take(&self.job.cancel).await?)
    }

    /// A file of `size` bytes comes.
    pub(super) fn open(&self, size: u64) -> Judged<()> {
        let mut state = self.exclusive();
        match &*state {
            State::Awaited => {}
            State::Over => return Err(over()),
            State::Open(assembly) => {
                return match size {
                    // The answer to the first one was lost.
                    same if same == assembly.size() => Ok(()),
                    ABANDONED => Err(Fault::Fatal(self.cut_short("then its sender gave up"))),
                    _ => Err(Fault::Refused(Refusal::conflict(format!(
                        "a file of {} bytes is coming",
                        assembly.size()
                    )))),
                };
            }
        }
        if self.expected > 0 && size != self.expected {
            let (expected, actual) = (self.expected, size);
            return Err(store::Error::WrongSize { expected, actual }.into());
        }
        let (store, id) = (&self.job.store, &self.job.id);
        let opened = store.assemble(id, size, None, self.job.ends())?;
        *state = State::Open(opened);
        self.come.send_replace(Come { received: 0, size });
        debug!(image = %id, size, "a sender opened the file");
        Ok(())
    }

    /// Takes bytes.
    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> Judged<()> {
        self.with(
            &(offset..offset.saturating_add(bytes.len() as u64)),
            |assembly| {
                assembly.write_at(offset, bytes)?;
                self.tell(assembly);
                Ok(())
            },
        )
    }

    pub(super) fn hole(&self, range: &Range<u64>) -> Judged<()> {
        self.with(range, |assembly| {
            assembly.hole(range.start, range.end - range.start)?;
            self.tell(assembly);
            Ok(())
        })
    }

    /// The checksum of what has come in a range, as Go writes bytes in JSON: base64, or `null` when
    /// not all of it has.
    pub(super) fn checksum(&self, range: &Range<u64>) -> Judged<String> {
        self.with(range, |assembly| {
            let told = if range.is_empty() || range.end - range.start > CHECKSUM_MAX {
                None
            } else {
                sha512(assembly, range)?
            };
            Ok(told.map_or_else(|| "null".to_owned(), |sum| format!("\"{sum}\"")))
        })
    }

    /// Whether all has come, for a sender that says that it is done.
    pub(super) fn close(&self) -> Judged<()> {
        if self.come.borrow().is_complete() {
            return Ok(());
        }
        let error = self.cut_short("then its sender closed the file");
        Err(Fault::Refused(Refusal::conflict(
            report(&error).to_string(),
        )))
    }

    /// Ends the copy: gives the file when it is complete, else says how much came and `why` no more
    /// did.
    pub(super) fn finish(&self, why: &str) -> Result<Received> {
        let state = std::mem::replace(&mut *self.exclusive(), State::Over);
        let State::Open(assembly) = state else {
            return Err(self.cut_short(why));
        };
        match assembly.finish() {
            Err(store::Error::Incomplete { .. }) => Err(self.cut_short(why)),
            finished => Ok(finished?),
        }
    }

    /// Ends the copy and removes what has come of it. When this returns, no request is under way.
    pub(super) fn discard(&self) {
        drop(std::mem::replace(&mut *self.exclusive(), State::Over));
    }

    /// The error of a copy of which not all came.
    pub(super) fn cut_short(&self, why: &str) -> Error {
        let come = *self.come.borrow();
        catalog::Error::CutShort {
            received: come.received,
            size: come.size.max(self.expected),
            why: why.to_owned(),
        }
        .into()
    }

    /// The error of a copy whose sender says why it will not send, or not all.
    pub(super) fn refused(&self, error: Error) -> Error {
        if self.come.borrow().received == 0 {
            return error;
        }
        self.cut_short(&format!("then {error}"))
    }

    fn exclusive(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works on a range of the open file.
    fn with<T>(&self, range: &Range<u64>, work: impl FnOnce(&Assembly) -> Judged<T>) -> Judged<T> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        match &*state {
            State::Awaited => Err(Refusal::conflict("no file is open; open comes first").into()),
            State::Over => Err(over()),
            State::Open(assembly) => {
                let size = assembly.size();
                if range.start > range.end || range.end > size {
                    return Err(Fault::Refused(Refusal::bad(format!(
                        "{} to {} is outside the file of {size} bytes",
                        range.start, range.end
                    ))));
                }
                work(assembly)
            }
        }
    }

    fn tell(&self, assembly: &Assembly) {
        let (received, size) = (assembly.received(), assembly.size());
        self.job.report.progress(received, size);
        // Requests are done side by side: a smaller number may be told later.
        self.come.send_if_modified(|come| {
            let more = received > come.received;
            come.received = come.received.max(received);
            more
        });
    }
}

fn over() -> Fault {
    Refusal::conflict("the copy is over").into()
}

/// The checksum of a range in base64; `None` when not all of it has come.
fn sha512(assembly: &Assembly, range: &Range<u64>) -> Result<Option<String>> {
    let mut sum = Context::new(&SHA512);
    let chunk = CHUNK as u64;
    for index in range.start / chunk..range.end.div_ceil(chunk) {
        let number = u32::try_from(index).expect("inside an image");
        if !assembly.has(number) {
            return Ok(None);
        }
        let bytes = assembly.read_chunk(number)?;
        let place = |offset: u64| {
            let inside = offset.saturating_sub(index * chunk);
            usize::try_from(inside).map_or(bytes.len(), |inside| inside.min(bytes.len()))
        };
        sum.update(&bytes[place(range.start)..place(range.end)]);
    }
    Ok(Some(STANDARD.encode(sum.finish().as_ref())))
}
