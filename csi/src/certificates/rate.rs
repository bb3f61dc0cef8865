//! How often one pod may be certified: a pod needs two certificates a day, and one more after each restart of its
//! container.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Certificates that a pod may have within [`WINDOW`]: a container that crashes at once is restarted less often.
pub(crate) const MOST: u32 = 20;
/// Certificates that all persons together may have within [`WINDOW`]: their command line keeps no key, so each
/// command asks for one. One command a second is more than people type, and a script of theirs is none of an attack.
pub(crate) const MOST_OF_PERSONS: u32 = 600;
/// The time that counts.
pub(crate) const WINDOW: Duration = Duration::from_mins(10);
/// Pods that are remembered. A cluster has at most some 5,000 nodes with two pods of ours each.
const PODS: usize = 20_000;

/// What pods have had lately.
#[derive(Debug, Default)]
pub(crate) struct Rate(Mutex<HashMap<String, (Instant, u32)>>);

impl Rate {
    /// Counts one for a pod, by its UID; whether it may have it, being one of at most `most`.
    pub(crate) fn admit(&self, uid: &str, most: u32, now: Instant) -> bool {
        let mut pods = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if pods.len() >= PODS && !pods.contains_key(uid) {
            pods.retain(|_, (since, _)| now.duration_since(*since) < WINDOW);
            if pods.len() >= PODS {
                return false;
            }
        }
        let (since, count) = pods.entry(uid.to_owned()).or_insert((now, 0));
        if now.duration_since(*since) >= WINDOW {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        *count <= most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_that_asks_again_and_again_waits_and_others_do_not() {
        let (rate, start) = (Rate::default(), Instant::now());
        for n in 0..2 * MOST {
            assert_eq!(rate.admit("a", MOST, start), n < MOST);
        }
        assert!(rate.admit("b", MOST, start));
        assert!(rate.admit("a", MOST, start + WINDOW));
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let (rate, start) = (Rate::default(), Instant::now());
        for n in 0..PODS {
            assert!(rate.admit(&n.to_string(), MOST, start));
        }
        assert!(!rate.admit("one more", MOST, start));
        assert!(rate.admit("0", MOST, start));
        assert!(rate.admit("one more", MOST, start + WINDOW));
    }
}
