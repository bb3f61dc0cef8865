//! Who leads, as the Lease says: decisions only. As client-go does it: nobody compares the clocks of two machines. A
//! follower waits until the Lease has not changed for its whole duration by the follower's own clock; a leader goes by
//! the time at which it began to write, which is before any follower can have seen it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// How long a Lease stands after the last change that a follower has seen, as in client-go.
const DURATION: Duration = Duration::from_secs(15);
/// How long a leader leads after it began to write, as in client-go. The difference to [`DURATION`] is what a step that
/// has begun may still take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);
/// The pause between two looks at the Lease, as in client-go.
pub(crate) const RETRY: Duration = Duration::from_secs(2);
/// The longest time that a Lease of somebody else is believed to stand.
const DURATION_MAX: Duration = Duration::from_mins(5);

/// The `spec` of a Lease (`coordination.k8s.io/v1`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct LeaseSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    holder_identity: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_duration_seconds: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    acquire_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    renew_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_transitions: Option<i32>,
}

/// One candidate.
#[derive(Debug)]
pub(crate) struct Election {
    identity: String,
    /// The Lease of somebody else, and since when it has been so.
    seen: Option<(LeaseSpec, Instant)>,
}

impl Election {
    pub(crate) fn new(identity: String) -> Self {
        Self {
            identity,
            seen: None,
        }
    }

    /// What to write at `now` (`clock`: the same for people) when the Lease is `found`, by compare-and-swap; `None`:
    /// nothing, somebody else leads.
    pub(crate) fn turn(
        &mut self,
        found: Option<&LeaseSpec>,
        now: Instant,
        clock: String,
    ) -> Option<LeaseSpec> {
        let found = found.cloned().unwrap_or_default();
        let holder = found.holder_identity.as_deref().unwrap_or_default();
        let ours = holder == self.identity;
        if !ours && !holder.is_empty() {
            match &self.seen {
                Some((seen, since)) if *seen == found => {
                    if now.duration_since(*since) < stands(&found) {
                        return None;
                    }
                }
                _ => {
                    self.seen = Some((found, now));
                    return None;
                }
            }
        }
        let before = found.lease_transitions.unwrap_or_default();
        Some(LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(15),
            acquire_time: match found.acquire_time {
                Some(since) if ours => Some(since),
                _ => Some(clock.clone()),
            },
            renew_time: Some(clock),
            lease_transitions: Some(before.saturating_add(i32::from(!ours))),
        })
    }

    /// What to write when we lead no longer, so that nobody has to wait; `None`: somebody else leads.
    pub(crate) fn release(&self, found: &LeaseSpec) -> Option<LeaseSpec> {
        let ours = found.holder_identity.as_deref() == Some(&self.identity);
        ours.then(|| LeaseSpec {
            holder_identity: Some(String::new()),
            ..found.clone()
        })
    }
}

/// How long a Lease stands: what its holder says, if that is longer than ours.
fn stands(lease: &LeaseSpec) -> Duration {
    let said = lease.lease_duration_seconds.unwrap_or_default();
    let said = Duration::from_secs(u64::try_from(said).unwrap_or_default());
    said.clamp(DURATION, DURATION_MAX)
}

#[cfg(test)]
mod tests;
