//! System calls that may never return, each on a thread of its own and with a deadline.
//!
//! A thread in a call to a dead file server cannot be ended, only left alone. So the calls to one
//! directory share a fixed number of threads, whoever makes them: whatever hangs, no caller waits longer
//! than the deadline, the runtime's own threads stay free, and no more than that number pile up.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use crate::{Error, Result};

/// Most calls into one directory at the same time.
const CALLS_MAX: usize = 24;

/// The deadline of a call that moves few bytes. `soft` mounts answer after about a minute.
pub(super) const DEADLINE: Duration = Duration::from_secs(90);

/// Bytes for which a call gets one more second.
const BYTES_PER_SECOND: u64 = 1 << 20;

/// Those of each directory, for as long as somebody uses them or they hang. The only state of the
/// process: two stores on one dead server must not have twice the threads.
static ALL: LazyLock<Mutex<HashMap<PathBuf, Weak<Threads>>>> = LazyLock::new(Mutex::default);

/// The threads of calls into one directory.
#[derive(Debug)]
pub(super) struct Threads {
    root: PathBuf,
    deadline: Duration,
    calls_max: usize,
    permits: Arc<Semaphore>,
    /// Calls that are past their deadline and have not returned.
    stuck: Arc<AtomicUsize>,
}

impl Threads {
    /// Those of `root`, shared with all others that ask.
    pub(super) fn of(root: &Path) -> Arc<Self> {
        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, threads| threads.strong_count() > 0);
        if let Some(threads) = all.get(root).and_then(Weak::upgrade) {
            return threads;
        }
        let threads = Arc::new(Self::new(root, DEADLINE, CALLS_MAX));
        all.insert(root.to_owned(), Arc::downgrade(&threads));
        threads
    }

    pub(super) fn new(root: &Path, deadline: Duration, calls_max: usize) -> Self {
        Self {
            root: root.to_owned(),
            deadline,
            calls_max,
            permits: Arc::new(Semaphore::new(calls_max)),
            stuck: Arc::default(),
        }
    }

    /// Runs `call`, which moves about `bytes` bytes, on a thread. What it holds is dropped there.
    pub(super) async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        operation: &'static str,
        key: &str,
        bytes: u64,
        call: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let deadline = self.deadline + Duration::from_secs(bytes / BYTES_PER_SECOND);
        if self.stuck.load(Ordering::SeqCst) >= self.calls_max {
            return Err(self.all_stuck());
        }
        let permit = timeout(deadline, Arc::clone(&self.permits).acquire_owned()).await;
        let Ok(Ok(permit)) = permit else {
            return Err(self.all_stuck());
        };
        let (sender, answer) = oneshot::channel();
        // The return and the deadline: the second of the two takes the call off the count.
        let over = Arc::new(AtomicBool::new(false));
        // The thread keeps these threads known, so that who comes later counts it too.
        let (threads, of_thread) = (Arc::clone(self), Arc::clone(&over));
        let thread = move || {
            let result = call();
            if of_thread.swap(true, Ordering::SeqCst) {
                threads.stuck.fetch_sub(1, Ordering::SeqCst);
            }
            drop(permit);
            drop(threads);
            // Who does not wait any more does not want it.
            let _ = sender.send(result);
        };
        let thread = std::thread::Builder::new()
            .name("backup-store".to_owned())
            .spawn(thread);
        thread.map_err(|source| Error::File {
            operation: "start a thread for",
            path: self.root.join(key),
            source,
        })?;
        match timeout(deadline, answer).await {
            Ok(Ok(result)) => result,
            // It panicked, which is said where panics are.
            Ok(Err(_)) => Err(Error::Answer {
                operation,
                key: key.to_owned(),
                why: "its thread ended early".to_owned(),
            }),
            Err(_) => {
                self.stuck.fetch_add(1, Ordering::SeqCst);
                if over.swap(true, Ordering::SeqCst) {
                    self.stuck.fetch_sub(1, Ordering::SeqCst);
                }
                Err(Error::Stalled {
                    operation,
                    key: key.to_owned(),
                    after: deadline,
                })
            }
        }
    }

    fn all_stuck(&self) -> Error {
        Error::Stuck {
            path: self.root.clone(),
            calls: self.stuck.load(Ordering::SeqCst),
        }
    }
}
