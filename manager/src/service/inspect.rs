//! `InspectSource`: what an image would be, without making it. Looks are bounded, in number and in time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use proto::storage::v1 as pb;
use tokio::sync::Semaphore;
use tonic::Status;

use super::{Service, status, wire};

/// Looks at once: each holds some MiB.
const AT_ONCE: usize = 4;
/// A look takes no longer.
const DEADLINE: Duration = Duration::from_secs(20);
/// Looks in a row, when there were none for a while.
const BURST: u32 = 30;
/// One more after so much time.
const ONE_MORE: Duration = Duration::from_secs(1);

/// How many looks there may be.
#[derive(Debug, Clone)]
pub(super) struct Looks {
    at_once: Arc<Semaphore>,
    rate: Arc<Mutex<Rate>>,
}

/// A bucket that fills by itself.
#[derive(Debug)]
struct Rate {
    left: u32,
    /// When it was filled last.
    filled: Instant,
}

impl Default for Looks {
    fn default() -> Self {
        let (left, filled) = (BURST, Instant::now());
        Self {
            at_once: Arc::new(Semaphore::new(AT_ONCE)),
            rate: Arc::new(Mutex::new(Rate { left, filled })),
        }
    }
}

impl Looks {
    fn take(&self) -> bool {
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        rate.take(Instant::now())
    }
}

impl Rate {
    /// Takes one look, if one is left at `now`.
    fn take(&mut self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.filled);
        let more = u32::try_from(since.as_millis() / ONE_MORE.as_millis()).unwrap_or(u32::MAX);
        if more > 0 {
            self.left = self.left.saturating_add(more).min(BURST);
            self.filled = now;
        }
        let taken = self.left > 0;
        self.left -= u32::from(taken);
        taken
    }
}

impl Service {
    pub(super) async fn look_at(
        &self,
        request: pb::InspectSourceRequest,
    ) -> Result<pb::InspectSourceResponse, Status> {
        let source = request.source.and_then(|source| source.source);
        let source = wire::looked_at(source).map_err(|error| status::of(&error))?;
        let busy = || Status::resource_exhausted("too many looks at sources; try again soon");
        let _turn = self.looks.at_once.try_acquire().map_err(|_| busy())?;
        if !self.looks.take() {
            return Err(busy());
        }
        let looking = self.catalog.inspect(&source);
        let Ok(looked) = tokio::time::timeout(DEADLINE, looking).await else {
            let told = source.provenance();
            return Err(Status::deadline_exceeded(format!(
                "{told}: what it is was not known after {} s; create the image to wait longer",
                DEADLINE.as_secs()
            )));
        };
        let look = looked.map_err(|error| status::of(&error))?;
        Ok(wire::looked(look))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_are_counted_and_come_back_with_time() {
        let start = Instant::now();
        let (left, filled) = (BURST, start);
        let mut rate = Rate { left, filled };
        let taken = (0..BURST + 5).filter(|_| rate.take(start)).count();
        assert_eq!(taken, BURST as usize);
        let soon = start + ONE_MORE / 2;
        assert!(!rate.take(soon));
        assert!(rate.take(start + ONE_MORE));
        assert!(!rate.take(start + ONE_MORE));
        let later = start + ONE_MORE * 1000;
        let taken = (0..100).filter(|_| rate.take(later)).count();
        assert_eq!(taken, BURST as usize);
    }
}
