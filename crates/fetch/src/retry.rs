//! When to try again, and how long to wait before.

use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};

use crate::network::Tuning;
use crate::{Error, Result};

/// However much progress each attempt makes, so many are enough, and one for each [`WORTH`] bytes
/// besides: a server that drips one byte per connection ends here, a bad link and a large image do
/// not.
const TOTAL_MAX: u32 = 100;
const WORTH: u64 = 16 << 20;

/// The attempts at one thing.
#[derive(Debug)]
pub(crate) struct Retry {
    tuning: Tuning,
    /// Failures since the last progress.
    failures: u32,
    total: u32,
    /// Bytes that came in all attempts together.
    bytes: u64,
}

impl Retry {
    pub(crate) const fn new(tuning: Tuning) -> Self {
        Self {
            tuning,
            failures: 0,
            total: 0,
            bytes: 0,
        }
    }

    /// Something came: the next failure is a first one.
    pub(crate) const fn progressed(&mut self, bytes: usize) {
        self.failures = 0;
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }

    /// Starts to count anew, for another server.
    pub(crate) const fn restart(&mut self) {
        self.failures = 0;
        self.total = 0;
    }

    /// Waits before the next attempt, or gives the error back when there is to be none.
    pub(crate) async fn after(&mut self, what: &str, error: Error) -> Result<()> {
        if !error.is_transient() {
            return Err(error);
        }
        self.failures += 1;
        self.total += 1;
        let attempts = if self.bytes > 0 {
            self.tuning.attempts_under_way
        } else {
            self.tuning.attempts
        };
        let worth = u32::try_from(self.bytes / WORTH).unwrap_or(u32::MAX);
        if self.failures >= attempts || self.total >= TOTAL_MAX.saturating_add(worth) {
            let (what, attempts) = (what.to_owned(), self.total);
            return Err(Error::Exhausted {
                what,
                attempts,
                source: Box::new(error),
            });
        }
        let pause = self.pause(error.retry_after());
        tracing::info!(
            attempt = self.total,
            pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
            error = %types::report(&error),
            "{what}: trying again"
        );
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// Twice as long each time, of which a random half to all: callers that failed together do not
    /// come back together.
    fn pause(&self, asked: Option<Duration>) -> Duration {
        let doubled = self
            .tuning
            .backoff
            .saturating_mul(1 << (self.failures - 1).min(16));
        let most = doubled.min(self.tuning.backoff_max);
        let mut random = [0; 2];
        // Without randomness the pause is just not spread.
        let share = match SystemRandom::new().fill(&mut random) {
            Ok(()) => 0.5 + f64::from(u16::from_le_bytes(random)) / f64::from(u16::MAX) / 2.0,
            Err(_) => 1.0,
        };
        let own = most.mul_f64(share);
        asked.map_or(own, |asked| own.max(asked.min(self.tuning.retry_after_max)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_are_spread_and_are_bounded() {
        let mut retry = Retry::new(Tuning::default());
        for failures in 1..40 {
            retry.failures = failures;
            let full = retry.tuning.backoff * 2u32.pow(failures.min(17) - 1);
            let full = full.min(retry.tuning.backoff_max);
            let pause = retry.pause(None);
            assert!(
                pause <= full && pause >= full / 2,
                "{failures}: {pause:?} of {full:?}"
            );
        }
        let day = Duration::from_hours(24);
        assert_eq!(retry.pause(Some(day)), retry.tuning.retry_after_max);
    }
}
