//! A limit in bytes per second that many senders share: a token bucket.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// What may be sent at once after a quiet time: this part of a second's worth.
const BURST: Duration = Duration::from_millis(100);

/// Bytes per second, shared. Bytes are given out in the order in which they are asked for.
#[derive(Debug)]
pub struct RateLimit {
    /// Bytes per second; `None`: no limit.
    rate: Option<u64>,
    /// When the bytes that were given out so far will have gone.
    busy_until: Mutex<Option<Instant>>,
}

impl RateLimit {
    /// A limit; 0 is none.
    pub fn new(bytes_per_second: u64) -> Self {
        Self {
            rate: (bytes_per_second > 0).then_some(bytes_per_second),
            busy_until: Mutex::new(None),
        }
    }

    /// Waits until `bytes` more may go. Dropping the future does not give them back.
    pub async fn take(&self, bytes: usize) {
        if let Some(at) = self.turn(bytes as u64, Instant::now()) {
            sleep_until(at).await;
        }
    }

    /// When the next `bytes` may go; `None`: now.
    fn turn(&self, bytes: u64, now: Instant) -> Option<Instant> {
        let rate = self.rate?;
        let takes = Duration::from_secs_f64(to_float(bytes) / to_float(rate));
        let mut busy_until = self
            .busy_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // Time that went unused is given back up to the burst.
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let start = busy_until.map_or(earliest, |until| until.max(earliest));
        *busy_until = Some(start + takes);
        (start > now).then_some(start)
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "rates and pieces are far below 2^52"
)]
fn to_float(bytes: u64) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_sent_keeps_to_the_rate() {
        let limit = RateLimit::new(1000);
        let start = Instant::now();
        for _ in 0..40 {
            limit.take(100).await;
        }
        let took = start.elapsed();
        // The first piece goes at once, and so does a burst's worth.
        assert!(took >= Duration::from_millis(3700), "{took:?}");
        assert!(took <= Duration::from_secs(4), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn no_limit_never_waits() {
        let limit = RateLimit::new(0);
        let start = Instant::now();
        limit.take(usize::MAX).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}
