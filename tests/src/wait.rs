//! Waiting for something to become true: a condition and a bound, never a bare sleep.

use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take on a busy machine before the test gives up: what would never happen fails, and
/// what is slow does not.
pub const LONG: Duration = Duration::from_mins(5);

/// Asks until the answer is there. Panics after [`LONG`] with `what` was waited for.
#[track_caller]
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    let mut pause = Duration::from_millis(2);
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(
            start.elapsed() < LONG,
            "gave up after {LONG:?} of waiting until {what}"
        );
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}
