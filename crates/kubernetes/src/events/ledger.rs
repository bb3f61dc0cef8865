//! Which Events are written: decisions only. What was said a moment ago is not said again, what is said again within ten
//! minutes is counted, and a storm is cut off. The controller says everything in each of its rounds; people and the API
//! server must not have it each time.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::{Level, Regarding};

/// As long as the last time is not longer ago, it is the same Event, counted up (as in client-go).
const SERIES: Duration = Duration::from_mins(10);
/// The same words are written again after this time.
const AGAIN: Duration = Duration::from_mins(1);
/// Events that may be written at once.
const BURST: u32 = 25;
/// The time after which one more may be written.
const REFILL: Duration = Duration::from_secs(1);
/// The most series that are remembered. The oldest is forgotten, and begins anew.
const SERIES_MAX: usize = 1024;

/// What is counted together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) regarding: Regarding,
    pub(super) level: Level,
    pub(super) reason: String,
}

/// An Event as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Series {
    /// The name of the Event; empty: it is being made.
    pub(super) name: String,
    /// How often it was said.
    pub(super) count: u32,
    note: String,
    said: Instant,
    written: Instant,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    /// Make an Event.
    New,
    /// Change the Event of this name: how often it was said.
    Count(String, u32),
    /// Nothing.
    Quiet,
}

#[derive(Debug)]
pub(super) struct Ledger {
    series: BTreeMap<Key, Series>,
    /// What may be written now, and when that was counted.
    tokens: u32,
    counted: Instant,
}

impl Ledger {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            series: BTreeMap::new(),
            tokens: BURST,
            counted: now,
        }
    }

    /// Something is said.
    pub(super) fn say(&mut self, key: &Key, note: &str, now: Instant) -> Entry {
        let known = self.series.get_mut(key);
        let known = known.filter(|series| now.duration_since(series.said) < SERIES);
        if let Some(series) = known {
            series.count = series.count.saturating_add(1);
            series.said = now;
            let is_again = series.note == note && now.duration_since(series.written) < AGAIN;
            if is_again || series.name.is_empty() {
                return Entry::Quiet;
            }
            let entry = Entry::Count(series.name.clone(), series.count);
            if !self.take(now) {
                return Entry::Quiet;
            }
            if let Some(series) = self.series.get_mut(key) {
                note.clone_into(&mut series.note);
                series.written = now;
            }
            return entry;
        }
        if !self.take(now) {
            return Entry::Quiet;
        }
        self.make_room();
        let series = Series {
            name: String::new(),
            count: 1,
            note: note.to_owned(),
            said: now,
            written: now,
        };
        self.series.insert(key.clone(), series);
        Entry::New
    }

    /// The Event of a series was made, under this name.
    pub(super) fn made(&mut self, key: &Key, name: &str) {
        if let Some(series) = self.series.get_mut(key) {
            name.clone_into(&mut series.name);
        }
    }

    /// There is no Event of a series: it could not be made. `unwritten`: nothing was written, so that it does not count
    /// towards what may be.
    pub(super) fn gone(&mut self, key: &Key, unwritten: bool) {
        self.series.remove(key);
        if unwritten {
            self.tokens = (self.tokens + 1).min(BURST);
        }
    }

    fn take(&mut self, now: Instant) -> bool {
        let refilled = now.duration_since(self.counted).as_secs() / REFILL.as_secs();
        if refilled > 0 {
            let refilled = u32::try_from(refilled).unwrap_or(BURST);
            self.tokens = self.tokens.saturating_add(refilled).min(BURST);
            self.counted = now;
        }
        match self.tokens.checked_sub(1) {
            Some(left) => {
                self.tokens = left;
                true
            }
            None => false,
        }
    }

    fn make_room(&mut self) {
        if self.series.len() < SERIES_MAX {
            return;
        }
        let oldest = self.series.iter().min_by_key(|(_, series)| series.said);
        if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
            self.series.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests;
