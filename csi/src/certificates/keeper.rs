//! The authority in memory, and the Secret and the ConfigMap in step with it.
//!
//! Several controllers do this at once: each change is a compare-and-swap, and who loses reads again. What is in
//! memory goes on signing when the Secret is lost, and is written back when it is empty.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use kubernetes::{Api, Kind, Stored, Written};
use tracing::{info, warn};
use trust::authority::LEAF_LIFE;
use trust::{Held, Identity, Issued, KeyRequest, Lineage};
use types::report;

use super::decision::{self, Found, Step, Texts};
use crate::config::Place;

/// How often the Secret and the ConfigMap are looked at.
const LOOK: Duration = Duration::from_secs(30);
/// The pause after a failure while there is no authority: doubled up to [`LOOK`].
const RETRY: Duration = Duration::from_millis(500);
/// How often a change is tried against controllers that change the same object.
const ROUNDS: usize = 8;
/// The key of the ConfigMap.
const BUNDLE: &str = "ca.crt";

/// What signs now.
#[derive(Debug)]
struct Reign {
    lineage: Lineage,
    bundle: String,
    /// Since when this process has seen the newest authority in the ConfigMap.
    published: Option<SystemTime>,
}

/// The authority of this controller. Cheap to clone; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Keeper(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    api: Api,
    place: Place,
    /// Who this controller is.
    identity: Identity,
    /// Our own certificate.
    held: Held,
    reign: Mutex<Option<Reign>>,
}

impl Keeper {
    pub(crate) fn new(api: Api, place: Place, identity: Identity) -> Self {
        let held = Held::awaited("the certificate authority has not been read yet");
        Self(Arc::new(Shared {
            api,
            place,
            identity,
            held,
            reign: Mutex::default(),
        }))
    }

    /// Our own certificate, from when there is an authority.
    pub(crate) fn held(&self) -> &Held {
        &self.0.held
    }

    #[cfg(test)]
    fn identity(&self) -> &Identity {
        &self.0.identity
    }

    pub(crate) fn api(&self) -> &Api {
        &self.0.api
    }

    /// Looks at everything once, and says what somebody has to put right.
    pub(crate) async fn look(&self) -> String {
        let trouble = self.0.round(SystemTime::now()).await;
        let why = trouble.err().unwrap_or_default();
        if !why.is_empty() {
            self.0.held.failed(why.clone());
        }
        why
    }

    /// Keeps all of it in step as long as the process runs.
    pub(crate) async fn keep(self) {
        let mut pause = RETRY;
        let mut said = String::new();
        loop {
            let why = self.look().await;
            if why != said {
                if why.is_empty() {
                    info!("the certificate authority is well again");
                } else {
                    warn!("{why}");
                }
                said = why;
            }
            let is_there = self.0.reign().is_some();
            tokio::time::sleep(if is_there { LOOK } else { pause }).await;
            pause = (pause * 2).min(LOOK);
        }
    }

    /// Signs the request of a program that was found out to be `identity`.
    ///
    /// # Errors
    /// `None`: there is no authority yet. Else see [`Authority::sign`].
    pub(crate) fn issue(
        &self,
        csr_pem: &str,
        identity: &Identity,
        now: SystemTime,
    ) -> Option<trust::Result<Issued>> {
        self.0.issue(csr_pem, identity, now)
    }
}

impl Shared {
    fn reign(&self) -> MutexGuard<'_, Option<Reign>> {
        // It is replaced as a whole.
        self.reign.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn issue(
        &self,
        csr_pem: &str,
        identity: &Identity,
        now: SystemTime,
    ) -> Option<trust::Result<Issued>> {
        let reign = self.reign();
        let reign = reign.as_ref()?;
        let signer = reign.lineage.signer(reign.published, now);
        let chain = signer.sign(csr_pem, identity, LEAF_LIFE, now);
        Some(chain.map(|chain_pem| Issued {
            chain_pem,
            bundle_pem: reign.bundle.clone(),
        }))
    }

    /// One look at everything.
    ///
    /// # Errors
    /// What somebody has to put right, or what cannot be asked now. What could be done is done all the same.
    async fn round(&self, now: SystemTime) -> Result<(), String> {
        let stored = self.settle(now).await;
        let published = self.publish(now).await;
        let certified = self.certify(now);
        let certified = certified.map_err(|error| report(&error).to_string());
        stored.and(published).and(certified)
    }

    /// Brings memory and the Secret together.
    async fn settle(&self, now: SystemTime) -> Result<(), String> {
        let Place { secret, owned, .. } = &self.place;
        for _ in 0..ROUNDS {
            let stored = self.api.read(Kind::Secret, secret).await;
            let stored = stored.map_err(|error| report(&error).to_string())?;
            let version = stored
                .as_ref()
                .map(|Stored { version, .. }| version.clone());
            let found = match &stored {
                None => Found::Missing,
                Some(stored) => decision::found(&stored.entries, now),
            };
            drop(stored);
            let step = {
                let reign = self.reign();
                decision::decide(
                    found,
                    reign.as_ref().map(|reign| &reign.lineage),
                    *owned,
                    now,
                )
            };
            match step.map_err(|error| report(&error).to_string())? {
                Step::GoOn => return Ok(()),
                Step::Trouble(why) => {
                    return Err(format!(
                        "the Secret {}/{secret} {why}",
                        self.api.namespace()
                    ));
                }
                Step::Take(lineage) => return self.take(lineage, now),
                Step::Store(lineage) => {
                    let (texts, version) = (Texts::of(&lineage), version.unwrap_or_default());
                    let written = self
                        .api
                        .write(Kind::Secret, secret, &version, &texts.changes())
                        .await;
                    match written.map_err(|error| report(&error).to_string())? {
                        Written::Done => {
                            info!(secret, "stored the certificate authority");
                            return self.take(lineage, now);
                        }
                        // Another controller was faster.
                        Written::Conflict | Written::Missing => {}
                    }
                }
            }
        }
        Err(format!(
            "the Secret {}/{secret} is changed by somebody else again and again",
            self.api.namespace()
        ))
    }

    /// Uses another authority from now on.
    fn take(&self, lineage: Lineage, now: SystemTime) -> Result<(), String> {
        let mut reign = self.reign();
        let before = reign.as_ref().map_or("", |reign| &reign.bundle);
        let bundle = lineage.bundle(before, now);
        let bundle = bundle.map_err(|error| report(&error).to_string())?;
        *reign = Some(Reign {
            lineage,
            bundle,
            published: None,
        });
        Ok(())
    }

    /// Publishes who is to be believed.
    async fn publish(&self, now: SystemTime) -> Result<(), String> {
        let (api, name) = (&self.api, &self.place.config_map);
        let missing = || {
            format!(
                "the ConfigMap {}/{name} does not exist: apply the manifests again, which create it empty; new \
                 pods wait for it",
                api.namespace()
            )
        };
        for _ in 0..ROUNDS {
            if self.reign().is_none() {
                return Ok(());
            }
            let stored = api.read(Kind::ConfigMap, name).await;
            let stored = stored.map_err(|error| report(&error).to_string())?;
            let Stored { version, entries } = stored.ok_or_else(missing)?;
            let published = entries.get(BUNDLE).unwrap_or_default();
            let bundle = match &*self.reign() {
                Some(reign) => reign.lineage.bundle(published, now),
                None => return Ok(()),
            };
            let bundle = bundle.map_err(|error| report(&error).to_string())?;
            if bundle != published {
                let change = [(BUNDLE, Some(bundle.as_str()))];
                let written = api.write(Kind::ConfigMap, name, &version, &change).await;
                match written.map_err(|error| report(&error).to_string())? {
                    Written::Done => {
                        info!(config_map = name, "published the certificate authority");
                    }
                    Written::Conflict => continue,
                    Written::Missing => return Err(missing()),
                }
            }
            if let Some(reign) = &mut *self.reign() {
                reign.bundle = bundle;
                reign.published = reign.published.or(Some(now));
            }
            return Ok(());
        }
        Err(format!(
            "the ConfigMap {}/{name} is changed by somebody else again and again",
            api.namespace()
        ))
    }

    /// Certifies this controller itself, and again in time.
    fn certify(&self, now: SystemTime) -> trust::Result<()> {
        let held = self.held.credential();
        if held.is_some_and(|held| held.renew_at() > now) {
            let bundle = self.reign().as_ref().map(|reign| reign.bundle.clone());
            if let Some(bundle) = bundle {
                self.held.believe(&bundle)?;
            }
            return Ok(());
        }
        let request = KeyRequest::new()?;
        match self.issue(request.csr_pem(), &self.identity, now) {
            None => Ok(()),
            Some(issued) => {
                let Issued {
                    chain_pem,
                    bundle_pem,
                } = issued?;
                self.held.set(request.complete(&chain_pem, &bundle_pem)?)
            }
        }
    }
}

#[cfg(test)]
mod tests;
