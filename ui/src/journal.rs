//! The last things that were done here: by whom, and how they ended. Kept in memory alone.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use crate::pages::Event;

/// Events that are kept.
const KEPT: usize = 500;
/// Characters of a text from outside.
const TEXT_MAX: usize = 500;

/// The journal. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Journal(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    /// The latest first, each with its number.
    events: VecDeque<(u64, Event)>,
    next: u64,
}

/// An event that has begun.
#[derive(Debug)]
pub struct Begun {
    journal: Journal,
    /// `None`: it has ended.
    number: Option<u64>,
}

impl Journal {
    /// Something is being done.
    pub fn begin(&self, who: &str, what: &'static str, object: &str) -> Begun {
        let event = Event {
            at: Timestamp::now().to_string(),
            who: short(who),
            what,
            object: short(object),
            refused: None,
            busy: true,
        };
        let mut kept = self.lock();
        let number = kept.next;
        kept.next += 1;
        kept.events.push_front((number, event));
        kept.events.truncate(KEPT);
        drop(kept);
        Begun {
            journal: self.clone(),
            number: Some(number),
        }
    }

    /// All that is kept, the latest first.
    pub fn events(&self) -> Vec<Event> {
        let kept = self.lock();
        kept.events.iter().map(|(_, event)| event.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Begun {
    /// It ended; with why it was refused, if it was.
    pub fn end(mut self, refused: Option<&str>) {
        self.ended(refused);
    }

    fn ended(&mut self, refused: Option<&str>) {
        let Some(ended) = self.number.take() else {
            return;
        };
        let mut kept = self.journal.lock();
        let found = kept.events.iter_mut().find(|(number, _)| *number == ended);
        if let Some((_, event)) = found {
            event.busy = false;
            event.refused = refused.map(short);
            let Event {
                who, what, object, ..
            } = event;
            match refused {
                None => tracing::info!(who, object, "{what}: done"),
                Some(why) => tracing::warn!(who, object, "{what}: refused: {why}"),
            }
        }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.ended(Some(
            "it was broken off; look at the object for what has become of it",
        ));
    }
}

fn short(text: &str) -> String {
    text.chars().take(TEXT_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_events_are_kept_and_end_in_their_own_line() {
        let journal = Journal::default();
        let first = journal.begin("one", "Create Volume", "v0");
        for number in 1..=KEPT {
            journal
                .begin("two", "Delete", &format!("v{number}"))
                .end(None);
        }
        assert_eq!(journal.events().len(), KEPT);
        first.end(Some("too late"));
        assert!(
            journal
                .events()
                .iter()
                .all(|event| !event.busy && event.who == "two")
        );
        journal
            .begin("three", "Grow", &"x".repeat(10_000))
            .end(Some("no room"));
        let last = &journal.events()[0];
        assert_eq!(
            (last.refused.as_deref(), last.object.len()),
            (Some("no room"), TEXT_MAX)
        );
    }
}
