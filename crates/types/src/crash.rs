//! Failpoints: named places where a test can kill, fail or hold a process.
//!
//! They exist only with the feature `failpoints`; a release build has none. A test sets them in the
//! environment of the process it starts: `FAILPOINTS="store.seal.renamed=return"` kills it with
//! SIGKILL at that place, `…=pause` or `…=sleep(1000)` holds it there.

use std::time::Duration;

/// A place where the process may be killed, as by a power cut of everything but the disk.
///
/// `crash_point!("store.seal.renamed")`: names are `area.operation.step`, the step being what has
/// just been done.
#[macro_export]
macro_rules! crash_point {
    ($name:literal) => {
        #[cfg(feature = "failpoints")]
        $crate::crash::at($name);
    };
}

/// Sets up the failpoints that the environment names. Call it once, first in `main`.
pub fn init() {
    #[cfg(feature = "failpoints")]
    fail::FailScenario::setup().cleanup_forget();
}

#[cfg(feature = "failpoints")]
trait Forget {
    fn cleanup_forget(self);
}

#[cfg(feature = "failpoints")]
impl Forget for fail::FailScenario<'_> {
    /// The scenario lasts as long as the process: its drop would clear the failpoints.
    #[expect(clippy::mem_forget, reason = "the scenario must outlive main")]
    fn cleanup_forget(self) {
        std::mem::forget(self);
    }
}

/// How long to wait for something: `usual`, or in a build with failpoints as many seconds as the variable
/// `TEST_PATIENCE_SECONDS` says. Only for times that a test would otherwise sit out.
pub fn patience(usual: Duration) -> Duration {
    #[cfg(feature = "failpoints")]
    {
        let seconds = std::env::var("TEST_PATIENCE_SECONDS").ok();
        if let Some(seconds) = seconds.and_then(|text| text.parse().ok()) {
            return Duration::from_secs(seconds);
        }
    }
    usual
}

/// What [`crash_point!`](crate::crash_point) does.
#[cfg(feature = "failpoints")]
pub fn at(name: &'static str) {
    fail::eval(name, |_| kill());
}

/// Kills this process as `kill -9` does: no destructor, no buffer, no handler runs.
#[cfg(feature = "failpoints")]
#[expect(
    unsafe_code,
    reason = "raise has no safe wrapper among our dependencies"
)]
fn kill() {
    // SAFETY: raise(3) takes no pointer and SIGKILL cannot be handled.
    unsafe { libc::raise(libc::SIGKILL) };
}
