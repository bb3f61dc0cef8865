//! The life of a backing image as a pure state machine.
//!
//! ```text
//!             Begin           Bytes             Sealed
//!   pending ─────────▶ starting ───▶ in-progress ─────▶ ready ◀──┐
//!      ▲ │                 │ │            │ ▲            │        │ Sealed
//!      │ └──────────┐      │ └── Sealed ──┼─┼──▶ ready   │Modified│
//!      │  Failed    ▼      ▼ Failed       ▼ └ Bytes      ▼        │
//!      └──────── failed ◀──────────────────           unknown ────┘
//!        Retry                                  Failed ──▶ failed
//! ```
//!
//! A `pending` image becomes `ready` immediately if the requested bytes are on the disk. `ready`
//! holds a [`SealedImage`], which only the store creates, so it cannot be announced early. This
//! file knows neither time nor files nor tasks.

use types::{ErrorKind, Sha512};

use store::SealedImage;

/// Where an image is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lifecycle {
    /// Asked for; nothing has been done.
    Pending,
    /// The source is being looked at.
    Starting,
    /// Bytes are coming in.
    InProgress(Progress),
    Ready(Box<SealedImage>),
    /// It did not work out. Final until it is asked for again.
    Failed(Failure),
    /// On the disk, but whether its bytes are right is being found out.
    Unknown(String),
}

/// How far an image is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes taken from the source.
    pub processed: u64,
    /// Bytes that the source has; 0 when it does not say.
    pub total: u64,
}

/// Why an image failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What it means to a caller.
    pub kind: ErrorKind,
    /// The whole chain of causes, for people.
    pub message: String,
    /// The SHA-512 of the whole bytes, when it was another one than was asked for.
    pub found: Option<Sha512>,
}

/// What happens to an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Begin,
    Bytes(Progress),
    /// The store has it.
    Sealed(Box<SealedImage>),
    /// It cannot be had, or its bytes are wrong.
    Failed(Failure),
    /// Somebody wrote to its file, or to what describes it.
    Modified(String),
    /// A failed image is asked for again.
    Retry,
}

/// A move that the diagram does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an image that is {state} cannot have {event}")]
pub struct IllegalTransition {
    state: &'static str,
    event: &'static str,
}

impl Lifecycle {
    /// The state as the design, the wire and the logs spell it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Starting => "starting",
            Self::InProgress(_) => "in-progress",
            Self::Ready(_) => "ready",
            Self::Failed(_) => "failed",
            Self::Unknown(_) => "unknown",
        }
    }

    /// Whether nothing more happens by itself.
    pub fn is_settled(&self) -> bool {
        matches!(self, Self::Ready(_) | Self::Failed(_))
    }

    /// The state after `event`; an illegal one leaves the state as it is.
    pub fn on(&self, event: Event) -> Result<Self, IllegalTransition> {
        match (self, event) {
            (Self::Pending, Event::Begin) => Ok(Self::Starting),
            (Self::Starting | Self::InProgress(_), Event::Bytes(progress)) => {
                Ok(Self::InProgress(progress))
            }
            // A small image is complete before its first progress was told.
            (
                Self::Pending | Self::Starting | Self::InProgress(_) | Self::Unknown(_),
                Event::Sealed(image),
            ) => Ok(Self::Ready(image)),
            (
                Self::Pending | Self::Starting | Self::InProgress(_) | Self::Unknown(_),
                Event::Failed(failure),
            ) => Ok(Self::Failed(failure)),
            (Self::Ready(_), Event::Modified(why)) => Ok(Self::Unknown(why)),
            (Self::Failed(_), Event::Retry) => Ok(Self::Pending),
            (state, event) => Err(IllegalTransition {
                state: state.name(),
                event: event.name(),
            }),
        }
    }
}

impl Event {
    fn name(&self) -> &'static str {
        match self {
            Self::Begin => "its task begun",
            Self::Bytes(_) => "bytes come",
            Self::Sealed(_) => "been sealed",
            Self::Failed(_) => "failed",
            Self::Modified(_) => "been modified",
            Self::Retry => "been retried",
        }
    }
}

impl Progress {
    /// Whole percent, at most 99: only `ready` is 100.
    pub fn percent(self) -> u32 {
        if self.total == 0 {
            return 0;
        }
        let percent = u128::from(self.processed) * 100 / u128::from(self.total);
        u32::try_from(percent.min(99)).expect("at most 99")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, LazyLock};

    use proptest::prelude::*;
    use types::{Cancel, ImageId};

    use super::*;
    use store::{Disk, Facts, ImageStore, Place};

    fn failure() -> Failure {
        Failure {
            kind: ErrorKind::Unavailable,
            message: "registry gone".to_owned(),
            found: None,
        }
    }

    #[test]
    fn failed_is_final_until_it_is_asked_for_again() {
        let failed = Lifecycle::Failed(failure());
        for event in [
            Event::Begin,
            Event::Bytes(Progress::default()),
            Event::Failed(failure()),
        ] {
            assert!(failed.on(event).is_err());
        }
        assert_eq!(failed.on(Event::Retry), Ok(Lifecycle::Pending));
    }

    #[test]
    fn percent_is_100_only_when_ready() {
        let percent = |processed, total| Progress { processed, total }.percent();
        assert_eq!(percent(0, 0), 0);
        assert_eq!(percent(5, 10), 50);
        assert_eq!(percent(10, 10), 99);
        assert_eq!(percent(u64::MAX, 1), 99);
    }

    /// A sealed image, by the one way to it.
    fn sealed() -> SealedImage {
        let dir = tempfile::tempdir().unwrap();
        Disk::init(dir.path(), None).unwrap();
        let disk = Arc::new(Disk::open(dir.path()).unwrap());
        let store = ImageStore::new(disk, Place::Images);
        let id = ImageId::new("img", "a93b9a55").unwrap();
        let mut ingest = store.begin(&id, Cancel::never()).unwrap();
        ingest.write(&[7; 512]).unwrap();
        let received = ingest.finish().unwrap();
        store.seal(&id, received, &Facts::default()).unwrap()
    }

    proptest! {
        /// Whatever happens in whatever order: no panic, and an image is ready if and only if the last accepted
        /// event was its seal.
        #[test]
        fn ready_means_that_the_last_event_was_the_seal(events in prop::collection::vec(0..6u8, 0..40)) {
            static SEALED: LazyLock<SealedImage> = LazyLock::new(sealed);
            let mut state = Lifecycle::Pending;
            let mut last_was_the_seal = false;
            for number in events {
                let event = match number {
                    0 => Event::Begin,
                    1 => Event::Bytes(Progress { processed: 1, total: 2 }),
                    2 => Event::Failed(failure()),
                    3 => Event::Modified("mtime".to_owned()),
                    4 => Event::Sealed(Box::new(SEALED.clone())),
                    _ => Event::Retry,
                };
                if let Ok(next) = state.on(event) {
                    state = next;
                    last_was_the_seal = number == 4;
                }
                prop_assert_eq!(state.name() == "ready", last_was_the_seal);
            }
        }
    }
}
