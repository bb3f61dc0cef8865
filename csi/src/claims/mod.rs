//! Events on claims: what its owner should know of the image and the volume of a claim, where `kubectl describe pvc` shows
//! it. They are written in a task of their own: no call waits for the API server, and none fails because of it.
//!
//! ```text
//!  CreateVolume, ControllerExpandVolume ─▶ a bounded queue ─▶ kubernetes::Events (counted, at most one a second)
//!  the leader's look at the images (watch) ────────────────────────▲
//! ```

mod watch;

use std::sync::Arc;

use client::wire;
use kubernetes::{Events, Leadership, Level, Regarding};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use types::report;

use crate::error::Error;
use crate::managers::Managers;

/// Events that wait to be written; more are dropped, for they are said again as long as they are true.
const WAITING_MAX: usize = 256;

/// Says things of claims. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Claims {
    /// `None`: this controller has no Kubernetes API.
    queue: Option<mpsc::Sender<Said>>,
}

/// One of them.
#[derive(Debug)]
struct Said {
    claim: Regarding,
    level: Level,
    reason: &'static str,
    note: String,
}

impl Claims {
    /// Starts what writes them, and the look at the images while this controller leads.
    pub(crate) fn start(
        events: Events,
        managers: Managers,
        leadership: Arc<Leadership>,
        beside: &mut JoinSet<()>,
    ) -> Self {
        let (queue, said) = mpsc::channel(WAITING_MAX);
        let claims = Self { queue: Some(queue) };
        beside.spawn(write(events, said));
        beside.spawn(watch::keep(claims.clone(), managers, leadership));
        claims
    }

    fn say(&self, claim: Regarding, level: Level, reason: &'static str, note: String) {
        let Some(queue) = &self.queue else { return };
        let said = Said {
            claim,
            level,
            reason,
            note,
        };
        if queue.try_send(said).is_err() {
            tracing::debug!(reason, "an event is dropped: too many wait");
        }
    }

    /// A volume was not made for `claim`, a name and its namespace: said if its image is the reason.
    pub(crate) fn not_made(&self, (name, namespace): &(String, String), error: &Error) {
        if let Error::ImageFailed { .. } = error {
            let claim = Regarding::claim(namespace, name);
            let note = report(error).to_string();
            self.say(claim, Level::Warning, "ImageFailed", note);
        }
    }

    /// A volume was made, or found: said if it has fewer replicas than it asks for.
    pub(crate) fn made(&self, volume: &wire::Volume) {
        if let Some(claim) = claim_of(volume)
            && !volume.degraded.is_empty()
        {
            let note = volume.degraded.clone();
            self.say(claim, Level::Warning, "VolumeDegraded", note);
        }
    }

    /// A volume has `after` bytes now. A repeated call finds it grown, and says nothing.
    pub(crate) fn grown(&self, volume: &wire::Volume, after: u64) {
        if let Some(claim) = claim_of(volume)
            && after > volume.size
        {
            let before = volume.size;
            let note = format!("the volume has grown from {before} to {after} bytes");
            self.say(claim, Level::Normal, "VolumeGrown", note);
        }
    }
}

/// The claim that a volume was made for, as far as it is recorded.
fn claim_of(volume: &wire::Volume) -> Option<Regarding> {
    let owner = volume.owner.as_ref()?;
    let known = !owner.namespace.is_empty() && !owner.claim.is_empty();
    (owner.driver() == wire::Driver::Csi && known)
        .then(|| Regarding::claim(&owner.namespace, &owner.claim))
}

/// Writes what is said, one after the other.
async fn write(events: Events, mut said: mpsc::Receiver<Said>) {
    while let Some(one) = said.recv().await {
        let written = events.say(&one.claim, one.level, one.reason, &one.note);
        if let Err(error) = written.await {
            tracing::debug!(
                reason = one.reason,
                "no event was written: {}",
                report(&error)
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use types::ErrorKind;

    use super::*;

    fn volume(size: u64, driver: wire::Driver) -> wire::Volume {
        wire::Volume {
            name: "pvc-1".into(),
            size,
            owner: Some(wire::Owner {
                driver: driver.into(),
                namespace: "apps".into(),
                claim: "data".into(),
            }),
            ..Default::default()
        }
    }

    fn said(say: impl FnOnce(&Claims)) -> Vec<(&'static str, String)> {
        let (queue, mut said) = mpsc::channel(8);
        say(&Claims { queue: Some(queue) });
        let mut found = Vec::new();
        while let Ok(one) = said.try_recv() {
            assert_eq!(one.claim, Regarding::claim("apps", "data"));
            found.push((one.reason, one.note));
        }
        found
    }

    #[test]
    fn only_what_changed_is_said_and_only_of_claims() {
        let csi = volume(1 << 20, wire::Driver::Csi);
        let grown = said(|claims| {
            claims.grown(&csi, 2 << 20);
            claims.grown(&csi, 1 << 20);
            claims.grown(&volume(0, wire::Driver::Flexvolume), 1);
        });
        let note = "the volume has grown from 1048576 to 2097152 bytes";
        assert_eq!(grown, [("VolumeGrown", note.to_owned())]);
        let degraded = said(|claims| {
            claims.made(&csi);
            claims.made(&wire::Volume {
                degraded: "1 of 2 replicas".into(),
                ..csi.clone()
            });
        });
        assert_eq!(degraded, [("VolumeDegraded", "1 of 2 replicas".to_owned())]);
    }

    #[test]
    fn a_failed_image_is_said_and_one_on_its_way_is_not() {
        let claim = ("data".to_owned(), "apps".to_owned());
        let failed = Error::ImageFailed {
            image: "example.org/x".into(),
            kind: ErrorKind::NotFound,
            message: "no such tag".into(),
        };
        let busy = Error::ImageInProgress {
            image: "example.org/x".into(),
            state: "in-progress",
            progress: String::new(),
        };
        let said = said(|claims| {
            claims.not_made(&claim, &failed);
            claims.not_made(&claim, &busy);
        });
        assert_eq!(said, [("ImageFailed", report(&failed).to_string())]);
    }

    #[test]
    fn without_an_api_nothing_is_kept() {
        Claims::default().grown(&volume(1, wire::Driver::Csi), 2);
    }

    #[test]
    fn what_nobody_writes_is_dropped_and_nobody_waits() {
        let (queue, _said) = mpsc::channel(1);
        let claims = Claims { queue: Some(queue) };
        for size in 1..9 {
            claims.grown(&volume(0, wire::Driver::Csi), size);
        }
    }
}
