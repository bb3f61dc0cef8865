//! Access to existing images: an image that was pulled with credentials is given only to callers
//! that prove access to its registry, as the registry itself would decide.
//!
//! A proof is remembered beside the image ([`Proofs`]), so that the registry is asked once and may be
//! gone afterwards. The pull itself is the first proof. What a proof shows to be open to everybody is
//! given to everybody.

use fetch::registry::Caller;
use fetch::{Credentials, Reference};
use tracing::{info, warn};
use types::report;

use super::lifecycle::Lifecycle;
use super::status::Status;
use super::{Catalog, Entry};
use crate::blocking::blocking;
use crate::error::{Error, Result};
use crate::source::{Source, VerifyAccess};
use store::{Proofs, SealedImage};

impl Catalog {
    /// Refuses who asks for a ready image of a registry that he has not proven to have access to.
    /// Nothing is said of one that is on its way: who waits for it asks again when it is ready.
    pub async fn check_access(&self, source: &Source, status: &Status) -> Result<()> {
        let Source::Registry {
            reference,
            credentials,
            ..
        } = source
        else {
            return Ok(());
        };
        let Lifecycle::Ready(image) = &status.state else {
            return Ok(());
        };
        let Some(known) = self.proofs(image).await? else {
            return Ok(());
        };
        let credentials = credentials.as_ref();
        let caller = self.inner.sources.caller(reference, credentials);
        let anybody = self.inner.sources.anybody(reference);
        let asked = caller.clone();
        let prove = move || known.hold(asked.secret_bytes()) || known.hold(anybody.secret_bytes());
        if blocking(move || Ok::<_, Error>(prove())).await? {
            return Ok(());
        }
        self.ask_registry(image, reference, credentials).await?;
        info!(image = %image.id(), login = caller.has_login(), "access to the image is proven");
        if let Ok(entry) = self.entry(&image.id().name, Some(&image.id().uuid)) {
            self.remember(&entry, image, caller).await;
        }
        Ok(())
    }

    /// What has been proven of an image; `None`: it is given to everybody.
    async fn proofs(&self, image: &SealedImage) -> Result<Option<Proofs>> {
        let policy = self.inner.sources.verify_access();
        if policy == VerifyAccess::Never {
            return Ok(None);
        }
        let path = self.inner.store.paths(image.id()).access;
        let found = blocking(move || Proofs::read(&path)).await?;
        // Longhorn's manager rewrites the sidecar without what only ours says; the proofs stay.
        let asked_for = image.seal().asked.private || policy == VerifyAccess::Always;
        Ok(match found {
            None if asked_for => Some(Proofs::none()),
            found => found,
        })
    }

    async fn ask_registry(
        &self,
        image: &SealedImage,
        reference: &Reference,
        credentials: Option<&Credentials>,
    ) -> Result<()> {
        // What the image is, not what its tag names today.
        let pinned = match image.seal().manifest_digest.parse() {
            Ok(digest) => reference.pinned(digest),
            Err(_) => reference.clone(),
        };
        let asked = self.inner.sources.may_pull(&pinned, credentials).await;
        asked.map_err(|error| Error::AccessUnproven {
            image: reference.to_string(),
            source: Box::new(error),
        })
    }

    /// The pull of an image has proven that its caller may have it.
    pub(super) async fn pulled(&self, entry: &Entry, source: &Source, image: &SealedImage) {
        let asked_for = image.seal().asked.private
            || self.inner.sources.verify_access() == VerifyAccess::Always;
        if let Source::Registry {
            reference,
            credentials,
            ..
        } = source
            && asked_for
        {
            let caller = self.inner.sources.caller(reference, credentials.as_ref());
            self.remember(entry, image, caller).await;
        }
    }

    /// Remembers a proof. One that cannot be written is asked for again.
    async fn remember(&self, entry: &Entry, image: &SealedImage, caller: Caller) {
        let (one, files) = (self.inner.access.clone(), entry.files.clone());
        let _files = files.read_owned().await;
        let there = entry.board.look(|status| status.id == *image.id());
        if !there || entry.cancel().is_cancelled() {
            return;
        }
        let path = self.inner.store.paths(image.id()).access;
        let add = move || {
            let _one = one
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            let known = Proofs::read(&path)?;
            known
                .unwrap_or_else(Proofs::none)
                .add(caller.secret_bytes(), &path)
        };
        if let Err(error) = blocking(add).await {
            self.inner.store.disk().note(&error);
            warn!(image = %image.id(), error = %report(&error), "a proof of access is not kept");
        }
    }
}
