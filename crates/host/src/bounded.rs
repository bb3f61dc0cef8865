//! Calls that a hung file system may never return from.
//!
//! Such a call runs in its own thread. If it does not return in time, the thread is left behind,
//! because it cannot be ended. While it exists, no other thread is started for the same path, so
//! that a hung volume occupies one thread however often it is queried.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::{Error, Result};

/// Paths with a call under way. It belongs to the process because its threads do.
static UNDER_WAY: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// Takes its path out of [`UNDER_WAY`] when the call returns, even by a panic.
struct Call(PathBuf);

impl Drop for Call {
    fn drop(&mut self) {
        UNDER_WAY
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.0);
    }
}

/// Runs `call`, which works on `path`, and waits at most `limit` for it.
///
/// # Errors
/// [`Error::Hung`] when the time is up, also when that is because of an earlier call.
pub(crate) fn run<T: Send + 'static>(
    path: &Path,
    limit: Duration,
    call: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    let hung = || Error::Hung {
        path: path.to_owned(),
        limit,
    };
    let deadline = Instant::now() + limit;
    while !UNDER_WAY
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(path.to_owned())
    {
        if Instant::now() > deadline {
            return Err(hung());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let under_way = Call(path.to_owned());
    let (sender, receiver) = sync_channel(1);
    std::thread::Builder::new()
        .name("stat".to_owned())
        .spawn(move || {
            let answer = call();
            drop(under_way);
            // Nobody may be waiting any more.
            let _ = sender.send(answer);
        })
        .map_err(Error::io("start a thread to look at", path))?;
    receiver
        .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        .map_err(|_| hung())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_hangs_is_left_behind_once() {
        let path = Path::new("/a/hung/path");
        let (release, held) = sync_channel::<()>(0);
        let start = Instant::now();
        let limit = Duration::from_millis(50);
        let first = run(path, limit, move || held.recv().is_err());
        assert!(matches!(first, Err(Error::Hung { .. })));
        assert!(matches!(run(path, limit, || ()), Err(Error::Hung { .. })));
        assert!(start.elapsed() < Duration::from_secs(5));
        drop(release);
        let deadline = Instant::now() + Duration::from_secs(5);
        while run(path, limit, || ()).is_err() {
            assert!(Instant::now() < deadline);
        }
    }
}
