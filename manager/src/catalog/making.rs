//! Creates images and verifies doubtful ones: the tasks of the catalog.
//!
//! A task is a fallible body (`make`, `look_again`) and a thin wrapper that turns its outcome into the
//! image's state. Dropping a caller never ends a task; deleting the image or stopping the daemon does.

use std::sync::Arc;

use fetch::Platform;
use image::Format;
use ring::digest::{SHA256, digest};
use tracing::{Instrument, error, warn};
use types::{Checksum, Classify, ErrorKind, ImageId, ImageName, ImageUuid, Sha512, report};

use super::lifecycle::Lifecycle;
use super::registry::fits;
use super::status::{Reporter, Status, count};
use super::{Catalog, Entry, checksum_text};
use crate::error::{Error, Result};
use crate::observe::counters;
use crate::source::{Job, Source};
use crate::store::recovery::Found;
use crate::store::{Asked, Facts, Reading, SealedImage, random_image_uuid};

/// A request for an image, checked.
#[derive(Debug, Clone)]
pub struct NewImage {
    /// `None`: derived from the registry reference.
    pub name: Option<ImageName>,
    /// `None`: the uuid of the image of that name, else a new one.
    pub uuid: Option<ImageUuid>,
    /// Where the bytes come from.
    pub source: Source,
    /// The SHA-512 they must have.
    pub expected: Option<Sha512>,
    /// The format they are in; `None`: told by magic, once.
    pub format: Option<Format>,
    /// A driver asks, for its volumes.
    pub for_volumes: bool,
}

impl NewImage {
    /// The name asked for, or one that every caller who names the same reference arrives at:
    /// `<repository>-<tag>-<8 digits of its hash>`.
    fn name(&self) -> Result<ImageName> {
        if let Some(name) = &self.name {
            return Ok(name.clone());
        }
        let Source::Registry {
            reference,
            platform,
            ..
        } = &self.source
        else {
            return Err(Error::InvalidField {
                field: "name",
                why: "it is needed for every source but a registry".to_owned(),
            });
        };
        Ok(derived_name(&reference.to_string(), platform))
    }
}

fn derived_name(reference: &str, platform: &Platform) -> ImageName {
    let whole = format!("{reference} {platform}");
    let hash = digest(&SHA256, whole.as_bytes());
    let head = hash
        .as_ref()
        .first_chunk::<4>()
        .expect("a SHA-256 has 32 bytes");
    let hash = format!("{:08x}", u32::from_be_bytes(*head));
    let last = reference.rsplit('/').next().unwrap_or(reference);
    let last = last.split('@').next().unwrap_or(last);
    let safe: String = last
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '.' {
                c
            } else {
                '-'
            }
        })
        .skip_while(|c| !c.is_ascii_alphanumeric())
        .take(60)
        .collect();
    let name = if safe.is_empty() {
        format!("image-{hash}")
    } else {
        format!("{safe}-{hash}")
    };
    ImageName::new(&name).expect("made of safe characters only")
}

impl Catalog {
    /// Starts to make an image, or joins the making of it. The same request again gives the same
    /// image; a failed one is started anew.
    pub fn create(&self, new: NewImage) -> Result<Status> {
        let name = new.name()?;
        let text = new.source.text();
        let mut images = self.images();
        let taken = images.values().find(|entry| {
            entry.id.name == name && new.uuid.as_ref().is_none_or(|uuid| entry.id.uuid == *uuid)
        });
        if let Some(entry) = taken.cloned() {
            drop(images);
            return self.join(&entry, new, &text);
        }
        self.takes_work()?;
        let uuid = new.uuid.clone().unwrap_or_else(random_image_uuid);
        let id = ImageId { name, uuid };
        // `a` with `b-c` and `a-b` with `c` are different images of one directory.
        let directory = id.to_string();
        if let Some(other) = images.keys().find(|other| other.to_string() == directory) {
            return Err(Error::InvalidField {
                field: "uuid",
                why: format!(
                    "with this name it would share a directory with {} (uuid {}); choose another",
                    other.name, other.uuid
                ),
            });
        }
        let mut status = Status::pending(id.clone(), text, new.expected);
        status.for_volumes = new.for_volumes;
        let entry = Entry::new(status, &self.inner.changes, &self.inner.stop);
        images.insert(id, entry.clone());
        drop(images);
        count(&self.inner.changes);
        let status = entry.status();
        self.make_later(&entry, new);
        self.forget_failed(std::time::Instant::now());
        Ok(status)
    }

    /// Answers a request for an image that is there.
    fn join(&self, entry: &Arc<Entry>, new: NewImage, text: &str) -> Result<Status> {
        let status = entry.status();
        if status.newer {
            return Err(super::not_ready(&entry.id, &status.state));
        }
        if entry.cancel().is_cancelled() {
            return Err(Error::Cancelled("the image is being deleted; try again"));
        }
        if !new.for_volumes && status.for_volumes {
            self.keep(entry);
        }
        if let Lifecycle::Failed(_) = status.state {
            self.takes_work()?;
            // Two callers may come here at once: one of them makes the move, the other joins it.
            if entry
                .board
                .change(|status| status.retry(text, new.expected))
            {
                self.make_later(entry, new);
            }
            return Ok(entry.status());
        }
        let differs = |difference: String| {
            Err(Error::ImageExists {
                id: entry.id.clone(),
                difference,
            })
        };
        if !status.source.is_empty() && status.source != text {
            return differs(format!("source: it is from {}, not {text}", status.source));
        }
        if let Some(expected) = new.expected {
            let (has, agrees) = match &status.state {
                Lifecycle::Ready(image) => {
                    let agrees = image.has_checksum(Checksum::Sha512(expected));
                    (Some(image.checksum()?), agrees)
                }
                _ => (status.expected, status.expected == Some(expected)),
            };
            if !agrees {
                return differs(format!(
                    "checksum: it has {:?}, not {expected}",
                    checksum_text(has)
                ));
            }
        }
        if let (Source::Url(download), Lifecycle::Ready(image)) = (&new.source, &status.state)
            && let Some(sum) = download.sha256.map(Checksum::Sha256)
            && !image.has_checksum(sum)
        {
            return differs(format!("checksum: it was not created with {sum}"));
        }
        if let (Some(format), Lifecycle::Ready(image)) = (new.format, &status.state)
            && image.format() != format
        {
            return differs(format!("format: it is {}, not {format}", image.format()));
        }
        Ok(status)
    }

    fn make_later(&self, entry: &Arc<Entry>, new: NewImage) {
        let (catalog, task) = (self.clone(), entry.clone());
        let span = entry.span();
        let work = async move {
            catalog.make_and_tell(&task, &new).await;
        };
        entry.tasks.spawn(work.instrument(span));
    }

    /// Makes an image and moves it to the state that comes of it.
    pub(super) async fn make_and_tell(&self, entry: &Entry, new: &NewImage) {
        let reporter = entry.reporter();
        reporter.begin();
        // Nothing is removed that was not made here.
        let adopts = matches!(new.source, Source::Adopt { .. });
        if !adopts && let Err(error) = self.clear_the_way(&entry.id).await {
            return reporter.failed(&error);
        }
        match self.make(entry, new, None, &reporter).await {
            Ok(image) => {
                self.pulled(entry, new, &image).await;
                *entry.made_from() = new.source.can_be_repeated().then(|| new.source.clone());
                reporter.sealed(image.clone());
                self.prove(entry, &image).await;
            }
            Err(error) => {
                self.inner.store.disk().note(&error);
                if !adopts {
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
            Ok(())
        };
        tokio::task::spawn_blocking(clear)
            .await
            .map_err(Error::Task)?
    }

    /// `known`: what is known of the image already, whatever its source tells.
    pub(super) async fn make(
        &self,
        entry: &Entry,
        new: &NewImage,
        known: Option<Facts>,
        report_to: &Reporter,
    ) -> Result<SealedImage> {
        let asked = entry.board.look(|status| status.longhorn.size);
        let mut job = Job {
            id: entry.id.clone(),
            store: self.inner.store.clone(),
            expected: new.expected,
            size: (asked > 0).then_some(asked),
            format: new.format,
            pass: 0,
            turn: self.inner.turns.of(&new.source),
            // A child: a source that is too slow is given up, and the image is not.
            cancel: entry.cancel().child_token(),
            report: Arc::new(report_to.clone()),
        };
        if !new.source.is_remote() {
            job.turn.take(&job.cancel).await?;
        }
        if let Source::Adopt { from } = &new.source {
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
            match self.take_in(entry, &new.source, &job).await {
                Ok(done) => break done,
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
            return Err(Error::WrongSize { expected, actual });
        }
        let mut facts = known.unwrap_or(facts);
        facts.asked.for_volumes = entry.board.look(|status| status.for_volumes);
        let (store, id) = (job.store, job.id);
        tokio::task::spawn_blocking(move || store.seal(&id, received, &facts))
            .await
            .map_err(Error::Task)?
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
                    Found::Touched(image) | Found::Ready(image) => Some((**image).clone()),
                    Found::Unsealed(..) | Found::Unusable(..) => None,
                };
                let asked = || task.board.look(|s| (s.longhorn.size, s.expected));
                let read = catalog.look_again(&task, found).await.and_then(|image| {
                    let (size, expected) = asked();
                    fits(&image, size, expected).map(|()| image)
                });
                match read {
                    Ok(image) => reporter.sealed(image),
                    // Called off by a deletion or the end: what it is stays in doubt.
                    Err(Error::Cancelled(_)) => {}
                    Err(error) => {
                        catalog.inner.store.disk().note(&error);
                        let error = catalog.set_aside(&task.id, error);
                        reporter.failed(&error);
                        if let (Error::SetAside { path, .. }, Some(lost)) = (error, sealed) {
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

    pub(super) async fn look_again(&self, entry: &Entry, found: Found) -> Result<SealedImage> {
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
        let (store, reading) = (self.inner.store.clone(), cancel.clone());
        let look = move || match found {
            Found::Touched(image) | Found::Ready(image) => store.verify(&image, &reading),
            Found::Unsealed(id, _) => {
                store.adopt(&id, &Asked::default(), Reading::silent(&reading))
            }
            Found::Unusable(_, error) => Err(error),
        };
        tokio::task::spawn_blocking(look)
            .await
            .map_err(Error::Task)?
    }

    /// Sets damaged bytes aside; any other error leaves them where they are.
    pub(super) fn set_aside(&self, id: &ImageId, error: Error) -> Error {
        let store = &self.inner.store;
        if error.kind() == ErrorKind::DataLoss {
            counters::damaged();
        }
        store.set_aside(store.place(), &id.to_string(), error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_reference_gives_one_name_and_another_another() {
        let platform = Platform::host();
        let name = |reference| derived_name(reference, &platform).to_string();
        let first = name("docker.io/rancher/longhorn-test:baseimage-ext4");
        assert!(
            first.starts_with("longhorn-test-baseimage-ext4-"),
            "{first}"
        );
        assert_eq!(
            first,
            name("docker.io/rancher/longhorn-test:baseimage-ext4")
        );
        assert_ne!(first, name("quay.io/rancher/longhorn-test:baseimage-ext4"));
        let long = format!("host:5000/{}:{}", "a".repeat(200), "b".repeat(128));
        assert!(name(&long).len() < 80);
    }
}
