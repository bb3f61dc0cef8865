//! Leading by a Lease of our namespace: of several processes of one kind, one works and the others wait.
//!
//! A leader steps down before another may begin, even when the API server does not answer, and does so by looking at the
//! clock: [`Leadership::leads`] is false from the deadline on, also when nothing else runs. A process that was stopped
//! between this question and its next step (or whose machine slept) is not held up: what it changes must be guarded by
//! compare-and-swap as well.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::election::{DEADLINE, Election, LeaseSpec, RETRY};
use crate::resource::{Created, Object, Resource};
use crate::{Api, Result, Written};

const LEASES: Resource<LeaseSpec, ()> =
    Resource::of_namespace("coordination.k8s.io", "v1", "leases", "Lease");

type Stored = Object<LeaseSpec, ()>;

/// A candidate for a Lease, for as long as it lives. When it is dropped it does not lead any more, and others wait until
/// the Lease runs out; [`Leadership::release`] spares them that.
#[derive(Debug)]
pub struct Leadership {
    /// Until when this process leads.
    until: watch::Receiver<Option<Instant>>,
    candidate: JoinHandle<()>,
    api: Arc<Api>,
    name: String,
    identity: String,
}

impl Leadership {
    /// Becomes a candidate for the Lease `name` of our namespace. No two living processes may have the same
    /// `identity`. What goes wrong is told to `tell`, once for each new text; an empty one: it is well again.
    pub fn seek(
        api: Arc<Api>,
        name: &str,
        identity: &str,
        tell: impl Fn(&str) + Send + 'static,
    ) -> Self {
        let (write, until) = watch::channel(None);
        let candidate = Candidate {
            api: api.clone(),
            name: name.to_owned(),
            election: Election::new(identity.to_owned()),
            stored: None,
            until: write,
        };
        Self {
            until,
            candidate: tokio::spawn(candidate.run(tell)),
            api,
            name: name.to_owned(),
            identity: identity.to_owned(),
        }
    }

    /// Whether this process leads at this moment.
    pub fn leads(&self) -> bool {
        self.until
            .borrow()
            .is_some_and(|until| Instant::now() < until)
    }

    /// Waits until this process leads.
    pub async fn gained(&self) {
        let mut until = self.until.clone();
        let leads = |until: &Option<Instant>| until.is_some_and(|until| Instant::now() < until);
        // The sender lives as long as this does.
        let _ = until.wait_for(leads).await;
    }

    /// Waits until this process does not lead any more.
    pub async fn lost(&self) {
        let mut until = self.until.clone();
        loop {
            let at = match *until.borrow_and_update() {
                Some(at) if Instant::now() < at => at,
                _ => return,
            };
            tokio::select! {
                () = sleep_until(at) => {}
                changed = until.changed() => if changed.is_err() {
                    return sleep_until(at).await;
                }
            }
        }
    }

    /// Stops leading, and lets another begin at once.
    ///
    /// # Errors
    /// Others have to wait until the Lease runs out.
    pub async fn release(mut self) -> Result<()> {
        self.candidate.abort();
        // It is over when this returns: nothing is renewed behind what follows.
        let _ = (&mut self.candidate).await;
        let Some(mut stored) = self.api.get(&LEASES, &self.name).await? else {
            return Ok(());
        };
        if let Some(spec) = Election::new(self.identity.clone()).release(&stored.spec) {
            stored.spec = spec;
            // Somebody else has it already, or it is gone: as good.
            let _: Written = self.api.replace(&LEASES, &mut stored).await?;
        }
        Ok(())
    }
}

impl Drop for Leadership {
    fn drop(&mut self) {
        self.candidate.abort();
    }
}

struct Candidate {
    api: Arc<Api>,
    name: String,
    election: Election,
    /// The Lease as this process stored it: renewed without reading it again.
    stored: Option<Stored>,
    until: watch::Sender<Option<Instant>>,
}

impl Candidate {
    async fn run(mut self, tell: impl Fn(&str)) {
        let mut said = String::new();
        loop {
            let began = Instant::now();
            // A call that outlives the deadline of a leader is of no use to it.
            let why = match timeout_at(began + DEADLINE, self.renew(began)).await {
                Ok(Ok(())) => String::new(),
                Ok(Err(error)) => types::report(&error).to_string(),
                Err(_) => "the Kubernetes API server does not answer".to_owned(),
            };
            if !why.is_empty() {
                // What is stored is not known.
                self.stored = None;
            }
            if why != said {
                tell(&why);
                said = why;
            }
            sleep(RETRY).await;
        }
    }

    /// One look at the Lease, and one change of it when it is our turn.
    async fn renew(&mut self, began: Instant) -> Result<()> {
        let mut stored = match self.stored.take() {
            Some(stored) => Some(stored),
            None => self.api.get(&LEASES, &self.name).await?,
        };
        let clock = format!("{:.6}", Timestamp::now());
        let found = stored.as_ref().map(|stored| &stored.spec);
        // The moment at which it was read, not the one before: a Lease must not have changed since.
        let Some(spec) = self.election.turn(found, Instant::now(), clock) else {
            self.until.send_replace(None);
            return Ok(());
        };
        let written = match &mut stored {
            None => {
                let none = BTreeMap::new();
                match self.api.create(&LEASES, &self.name, &none, &spec).await? {
                    Created::Done(object) => {
                        stored = Some(object);
                        Written::Done
                    }
                    Created::Exists => Written::Conflict,
                }
            }
            Some(stored) => {
                stored.spec = spec;
                self.api.replace(&LEASES, stored).await?
            }
        };
        if written == Written::Done {
            self.stored = stored;
            self.until.send_replace(Some(began + DEADLINE));
        }
        // Else somebody was faster, and whoever leads is seen at the next look. If it was us, we lead until our deadline.
        Ok(())
    }
}

#[cfg(test)]
mod tests;
