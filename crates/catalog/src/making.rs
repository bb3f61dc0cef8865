//! Creates images and verifies doubtful ones: the tasks of the catalog.
//!
//! A task is a fallible body (`make`, `look_again`) and a thin wrapper that turns its outcome into the
//! image's state. Dropping a caller never ends a task; deleting the image or stopping the daemon does.

use std::sync::Arc;

use image::Format;
use tracing::{Instrument, error, warn};
use types::{Classify, ErrorKind, ImageId, Sha512, report};

use super::lifecycle::Lifecycle;
use super::request::{Existing, NewImage, fits};
use super::{Catalog, Entry, ends};
use crate::blocking::blocking;
use crate::counters;
use crate::error::{Error, Result};
use crate::source::{Job, Source};
use store::recovery::Found;
use store::{Asked, Facts, Place, Reading, SealedImage};

/// What is known of an image before it is made.
#[derive(Debug)]
pub(super) struct Known {
    /// The SHA-512 that it must have.
    pub(super) expected: Option<Sha512>,
    /// The format that was declared.
    pub(super) format: Option<Format>,
    /// All of it, whatever its source tells.
    pub(super) facts: Option<Facts>,
    /// Nobody waits for its SHA-512.
    pub(super) checksum_later: bool,
}

impl Catalog {
    /// Makes an image and moves it to the state that comes of it.
    pub(super) async fn make_and_tell(&self, entry: &Entry, source: &Source, new: &NewImage) {
        let reporter = entry.reporter();
        reporter.begin();
        // Nothing is removed that was not made here.
        let adopts = matches!(source, Source::Adopt { .. });
        let in_pieces = matches!(source, Source::Pieces(_));
        if !adopts && let Err(error) = self.clear_the_way(&entry.id).await {
            return reporter.failed(&error);
        }
        // Longhorn has the sum of what it calls ready, and so has a work file, which is Longhorn's too.
        let waits = new.expected.is_some() || new.existing == Existing::TakeOver;
        let known = Known {
            expected: new.expected,
            format: new.format,
            facts: None,
            checksum_later: !waits && self.place() == Place::Images,
        };
        match self.make(entry, source, known).await {
            Ok(image) => {
                self.pulled(entry, source, &image).await;
                *entry.made_from() = source.can_be_repeated().then(|| source.clone());
                reporter.sealed(image.clone());
                self.prove(entry, &image).await;
            }
            Err(error) => {
                self.inner.store.disk().note(&error);
                // A deletion removes what is there; after a stop the next start goes on with it.
                let goes_on = in_pieces && matches!(error, Error::Cancelled(_));
                if !adopts && !goes_on {
                    self.remove_remains(&entry.id, &error).await;
                }
                reporter.failed(&error);
            }
        }
    }

    /// Sets aside what a failed image left under its name: bytes that could not be read or verified
    /// are for people to look at, never overwritten, and its raw form is not that of the next bytes.
    async fn clear_the_way(&self, id: &ImageId) -> Result<()> {
        let (store, id) = (self.inner.store.clone(), id.clone());
        let clear = move || {
            if std::fs::symlink_metadata(store.paths(&id).backing).is_ok() {
                let path = store.quarantine(&id)?;
                warn!(image = %id, path = %path.display(), "quarantined an unusable image");
            }
            Ok::<_, Error>(())
        };
        blocking(clear).await
    }

    /// Makes an image, in the task of its entry.
    pub(super) async fn make(
        &self,
        entry: &Entry,
        source: &Source,
        known: Known,
    ) -> Result<SealedImage> {
        let asked = entry.board.look(|status| status.size);
        let mut job = Job {
            id: entry.id.clone(),
            store: self.inner.store.clone(),
            provenance: source.provenance(),
            expected: known.expected,
            checksum_later: known.checksum_later,
            size: (asked > 0).then_some(asked),
            format: known.format,
            for_volumes: entry.board.look(|status| status.for_volumes),
            pass: 0,
            turn: self.inner.turns.of(source),
            // A child: a source that is too slow is given up, and the image is not.
            cancel: entry.cancel().child_token(),
            report: Arc::new(entry.reporter()),
        };
        if !source.is_remote() {
            job.turn.take(&job.cancel).await?;
        }
        if let Source::Adopt { from } = source {
            let listed = self
                .images()
                .keys()
                .find(|id| self.file_path(id) == *from)
                .cloned();
            if let Some(other) = listed.filter(|other| *other != job.id) {
                let why = format!("it is the file of backing image {other}; forget that one first");
                let field = "src-file-path";
                return Err(Error::InvalidField { field, why });
            }
            return job.adopt(from).await;
        }
        let (received, facts) = loop {
            match self.take_in(entry, source, &job).await {
                Ok(done) => break done,
                // Whatever the reader says of its end: the image is being deleted, or the daemon stops.
                Err(_) if entry.cancel().is_cancelled() => {
                    return Err(Error::Cancelled("the image is not wanted"));
                }
                Err(error) if job.pass + 1 < error.passes() => {
                    warn!(pass = job.pass, error = %report(&error), "read again from the first byte");
                    job.pass += 1;
                }
                Err(error) => return Err(error),
            }
        };
        let came = received.manifest.size;
        if asked > 0 && asked != came {
            let (expected, actual) = (asked, came);
            return Err(store::Error::WrongSize { expected, actual }.into());
        }
        let mut facts = known.facts.unwrap_or(facts);
        facts.asked.for_volumes = entry.board.look(|status| status.for_volumes);
        let (store, id) = (job.store, job.id);
        blocking(move || store.seal(&id, received, &facts)).await
    }

    /// Removes what a failed making left, but for what the next can go on from; on a full disk that
    /// too. What cannot be removed is found by the next start.
    pub(super) async fn remove_remains(&self, id: &ImageId, why: &Error) {
        let (store, id) = (self.inner.store.clone(), id.clone());
        let full = why.kind() == ErrorKind::ResourceExhausted;
        let remove = move || {
            if full {
                store.delete(&id)
            } else {
                store.abandon(&id)
            }
        };
        let removed = tokio::task::spawn_blocking(remove).await;
        if let Ok(Err(error)) = removed {
            error!(error = %report(&error), "cannot remove the leftovers of a failed image");
        }
    }

    /// Reads images in doubt, one after the other, each in a task of its own entry.
    pub(super) fn verify_later(&self, doubtful: Vec<(Arc<Entry>, Found)>) {
        for (entry, found) in doubtful {
            let (catalog, task) = (self.clone(), entry.clone());
            let span = entry.span();
            let work = async move {
                let reporter = task.reporter();
                let sealed = match &found {
                    Found::Modified(image) | Found::Ready(image) => Some((**image).clone()),
                    Found::Unsealed(..) | Found::Unusable(..) | Found::Upload(..) => None,
                };
                let asked = || task.board.look(|s| (s.size, s.expected));
                let mut read = catalog.look_again(&task, found, asked().1.is_none()).await;
                // Somebody has named a sum while it was read without one.
                if let (Ok(image), (_, Some(_))) = (&read, asked())
                    && image.checksum().is_err()
                {
                    let found = Found::Unsealed(image.id().clone(), None);
                    read = catalog.look_again(&task, found, false).await;
                }
                let read = read.and_then(|image| {
                    let (size, expected) = asked();
                    fits(&image, size, expected).map(|()| image)
                });
                match read {
                    Ok(image) => {
                        reporter.sealed(image.clone());
                        catalog.prove(&task, &image).await;
                    }
                    // Called off by a deletion or the end: what it is stays in doubt.
                    Err(Error::Cancelled(_)) => {}
                    Err(error) => {
                        catalog.inner.store.disk().note(&error);
                        let error = catalog.set_aside(&task.id, error);
                        reporter.failed(&error);
                        if let (Error::Store(store::Error::SetAside { path, .. }), Some(lost)) =
                            (error, sealed)
                        {
                            catalog.heal_later(&task, lost, path);
                        }
                    }
                }
            };
            entry.tasks.spawn(work.instrument(span));
        }
    }

    /// Looks again at an image whose deletion called off a look and then failed.
    pub(super) fn look_anew(&self, entry: &Arc<Entry>) {
        if !matches!(entry.status().state, Lifecycle::Unknown(_)) {
            return;
        }
        match self.inner.store.find(&entry.id) {
            Ok(Some(found)) => self.verify_later(vec![(entry.clone(), found)]),
            Ok(None) => {}
            Err(error) => error!(image = %entry.id, error = %report(&error), "cannot be looked at"),
        }
    }

    /// `checksum_later`: as in [`Asked`].
    pub(super) async fn look_again(
        &self,
        entry: &Entry,
        found: Found,
        checksum_later: bool,
    ) -> Result<SealedImage> {
        let cancel = entry.cancel();
        let waiting = async {
            (
                self.inner.verifying.acquire().await,
                entry.files.read().await,
            )
        };
        let _turn = tokio::select! {
            turn = waiting => turn,
            () = cancel.cancelled() => return Err(Error::Cancelled("it was not read to its end")),
        };
        let (store, reading) = (self.inner.store.clone(), ends(&cancel));
        let look = move || match found {
            Found::Modified(image) | Found::Ready(image) => store.verify(&image, &reading),
            Found::Unsealed(id, _) => {
                let asked = Asked {
                    checksum_later,
                    ..Asked::default()
                };
                store.adopt(&id, &asked, Reading::silent(&reading))
            }
            Found::Unusable(_, error) => Err(error),
            // Called off while its bytes were coming: who brings them begins anew.
            Found::Upload(..) => Err(store::Error::Cancelled("the upload was called off")),
        };
        blocking(look).await
    }

    /// Sets damaged bytes aside; any other error leaves them where they are.
    pub(super) fn set_aside(&self, id: &ImageId, error: Error) -> Error {
        let store = &self.inner.store;
        let Error::Store(error) = error else {
            return error;
        };
        if error.kind() == ErrorKind::DataLoss {
            counters::damaged();
        }
        store
            .set_aside(store.place(), &id.to_string(), error)
            .into()
    }
}
