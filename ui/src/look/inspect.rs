//! Looking at base images before anything is made of them.
//!
//! Each look makes a manager fetch something from outside: one at a time for each person, ten a minute, and what was
//! found without credentials is kept for a while.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use client::{Client, PullSecret, wire};
use tokio::time::Instant;
use types::{Classify as _, ErrorKind, report};

use crate::pages::Refusal;

/// Looks of one person in [`WINDOW`].
const LOOKS: usize = 10;
const WINDOW: Duration = Duration::from_mins(1);
/// How long what was found is kept, and how many of it.
const KEPT: Duration = Duration::from_mins(1);
const KEPT_MAX: usize = 200;
/// People who are kept in mind.
const PEOPLE_MAX: usize = 1_000;

/// What a look has found; or why not.
pub type Look = Result<Arc<wire::InspectSourceResponse>, Refusal>;

/// The looks of one person.
#[derive(Debug, Default)]
struct Looks {
    /// Held while one is under way.
    turn: tokio::sync::Mutex<()>,
    last: Mutex<VecDeque<Instant>>,
}

/// Looks at base images for people.
#[derive(Debug, Default)]
pub struct Inspector {
    people: Mutex<BTreeMap<String, Arc<Looks>>>,
    kept: Mutex<VecDeque<(Instant, String, Arc<wire::InspectSourceResponse>)>>,
}

impl Inspector {
    /// Looks at a container image for somebody.
    pub async fn look(
        &self,
        person: &str,
        manager: &Client,
        reference: &str,
        secret: PullSecret,
    ) -> Look {
        let secret = secret.into_bytes();
        let open = secret.is_empty();
        if open && let Some(found) = self.known(reference) {
            return Ok(found);
        }
        let looks = self.of(person);
        let _turn = looks.turn.lock().await;
        if open && let Some(found) = self.known(reference) {
            return Ok(found);
        }
        if !looks.may() {
            return Err(Refusal {
                field: "base_image",
                sentence: format!(
                    "{LOOKS} base images were looked at in the last minute; wait a moment"
                ),
                kind: ErrorKind::ResourceExhausted,
            });
        }
        let source = wire::source::Source::Registry(wire::RegistrySource {
            reference: reference.to_owned(),
            platform: String::new(),
            docker_config_json: secret,
        });
        // It ends by itself, also where the browser has gone on: managers take dropped calls for an attack.
        let manager = manager.clone();
        let looking = tokio::spawn(async move { manager.inspect_source(source).await });
        match looking.await {
            Ok(Ok(found)) => {
                let found = Arc::new(found);
                if open {
                    self.keep(reference, &found);
                }
                Ok(found)
            }
            Ok(Err(error)) => Err(Refusal {
                field: "base_image",
                sentence: report(&error).to_string(),
                kind: error.kind(),
            }),
            Err(error) => Err(Refusal {
                field: "base_image",
                sentence: format!("the look at the base image ended early: {error}"),
                kind: ErrorKind::Internal,
            }),
        }
    }

    fn known(&self, reference: &str) -> Option<Arc<wire::InspectSourceResponse>> {
        let mut kept = lock(&self.kept);
        while kept.front().is_some_and(|(at, ..)| at.elapsed() > KEPT) {
            kept.pop_front();
        }
        let found = kept.iter().find(|(_, known, _)| known == reference);
        found.map(|(.., found)| found.clone())
    }

    fn keep(&self, reference: &str, found: &Arc<wire::InspectSourceResponse>) {
        let mut kept = lock(&self.kept);
        if kept.len() == KEPT_MAX {
            kept.pop_front();
        }
        kept.push_back((Instant::now(), reference.to_owned(), found.clone()));
    }

    fn of(&self, person: &str) -> Arc<Looks> {
        let mut people = lock(&self.people);
        if people.len() >= PEOPLE_MAX && !people.contains_key(person) {
            // Those who look now, or did a moment ago, are kept.
            people.retain(|_, looks| Arc::strong_count(looks) > 1 || looks.recent() > 0);
        }
        people.entry(person.to_owned()).or_default().clone()
    }
}

impl Looks {
    /// How many there were in the last minute.
    fn recent(&self) -> usize {
        let mut last = lock(&self.last);
        while last.front().is_some_and(|at| at.elapsed() > WINDOW) {
            last.pop_front();
        }
        last.len()
    }

    /// Counts one more, unless there were too many.
    fn may(&self) -> bool {
        let may = self.recent() < LOOKS;
        if may {
            lock(&self.last).push_back(Instant::now());
        }
        may
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_person_looks_ten_times_a_minute_and_others_go_on() {
        let inspector = Inspector::default();
        let nobody: client::Address = "unix:/nonexistent/manager.sock".parse().unwrap();
        let manager = Client::new(nobody, &trust::Dialer::Plain).unwrap();
        let look = async |person: &str| {
            let secret = PullSecret::default();
            let looked = inspector.look(person, &manager, "busybox", secret).await;
            looked.unwrap_err().kind
        };
        for _ in 0..LOOKS {
            assert_eq!(look("one").await, ErrorKind::Unavailable);
        }
        assert_eq!(look("one").await, ErrorKind::ResourceExhausted);
        assert_eq!(look("other").await, ErrorKind::Unavailable);
        inspector.keep("busybox", &Arc::default());
        let secret = PullSecret::default();
        assert!(
            inspector
                .look("one", &manager, "busybox", secret)
                .await
                .is_ok()
        );
    }
}
