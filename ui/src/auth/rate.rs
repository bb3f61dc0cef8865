//! How often somebody may try to sign in.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_mins(1);
/// Attempts of one name or address in that time.
const MOST: u32 = 10;
/// Of one address: behind a proxy, everybody has the same.
const MOST_OF_ADDRESS: u32 = 60;
/// Names and addresses that are remembered. With more of them in one minute, whoever is new has to wait.
const KNOWN_MAX: usize = 4096;

/// Who tries.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Who {
    /// Somebody from this address; `None`: a unix socket.
    Address(Option<std::net::IpAddr>),
    /// Somebody who says to be this one. Attempts from many addresses are one attack.
    Name(String),
}

/// What has been tried lately.
#[derive(Debug, Default)]
pub(super) struct Rate {
    tried: Mutex<HashMap<Who, (Instant, u32)>>,
}

impl Rate {
    /// Counts an attempt; `false`: it is one too many.
    pub(super) fn admit(&self, who: Who, now: Instant) -> bool {
        let most = match who {
            Who::Address(_) => MOST_OF_ADDRESS,
            Who::Name(_) => MOST,
        };
        let mut tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        if tried.len() >= KNOWN_MAX && !tried.contains_key(&who) {
            tried.retain(|_, (since, _)| now.duration_since(*since) < WINDOW);
            if tried.len() >= KNOWN_MAX {
                return false;
            }
        }
        let (since, count) = tried.entry(who).or_insert((now, 0));
        if now.duration_since(*since) >= WINDOW {
            (*since, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
        *count <= most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_of_one_are_bounded_and_a_minute_later_there_are_new_ones() {
        let (rate, now) = (Rate::default(), Instant::now());
        let ada = || Who::Name("ada".to_owned());
        for _ in 0..MOST {
            assert!(rate.admit(ada(), now));
        }
        assert!(!rate.admit(ada(), now));
        assert!(rate.admit(Who::Name("bob".to_owned()), now));
        assert!(rate.admit(Who::Address(None), now));
        assert!(rate.admit(ada(), now + WINDOW));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (rate, now) = (Rate::default(), Instant::now());
        for n in 0..KNOWN_MAX {
            assert!(rate.admit(Who::Name(n.to_string()), now));
        }
        assert!(!rate.admit(Who::Name("new".to_owned()), now));
        assert!(rate.admit(Who::Name("new".to_owned()), now + WINDOW));
    }
}
