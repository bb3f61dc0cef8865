//! Volumes that are being created: the image first, then the volume, then the access that was asked for.
//!
//! Leaving the page stops nothing: a creation goes on in this process. If the process ends, the person repeats the
//! form: the manager has kept what was made, and the same request joins it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use client::{Client, ImageOutcome, Node, node_wire, wire};
use tokio::sync::watch;
use tokio::time::Instant;
use types::{Classify as _, ErrorKind};

use super::refused::refusal;
use crate::journal::Journal;
use crate::look::Look;
use crate::pages::{Coming, Refusal};

/// Creations under way; more are refused.
const UNDER_WAY_MAX: usize = 64;
/// Failed ones that are kept for who comes back to the page, and for how long.
const FAILED_MAX: usize = 200;
const FAILED_KEPT: Duration = Duration::from_hours(1);
/// How long the form waits for the end, before it shows the page of the volume.
const FORM_WAITS: Duration = Duration::from_secs(2);
/// One wait for the image.
const WATCHED: Duration = Duration::from_secs(60);
/// How long an image may take in all.
const IMAGE_MAX: Duration = Duration::from_hours(24);
/// How long a manager may be away meanwhile.
const AWAY_MAX: Duration = Duration::from_mins(30);
const PAUSE: Duration = Duration::from_secs(2);

/// What is to be made.
#[derive(Clone)]
pub struct Job {
    /// By whom.
    pub who: String,
    /// The manager of the disk.
    pub manager: Client,
    /// The image, with the credentials of the request; `None`: the volume names one that is there, or is blank.
    pub image: Option<wire::CreateBackingImageRequest>,
    /// The volume; its origin is the image that comes.
    pub volume: wire::CreateVolumeRequest,
    /// The access without a pod, and the node service that gives it.
    pub access: Option<(Node, node_wire::ExposeVolumeRequest)>,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The requests hold secrets.
        f.debug_struct("Job")
            .field("who", &self.who)
            .field("volume", &self.volume.name)
            .finish_non_exhaustive()
    }
}

impl Job {
    /// Whether another asks for the same volume.
    fn is_same(&self, other: &Self) -> bool {
        let source = |job: &Self| {
            let image = job.image.as_ref()?;
            match image.source.as_ref()?.source.as_ref()? {
                wire::source::Source::Registry(source) => {
                    Some((source.reference.clone(), image.expected_checksum.clone()))
                }
                _ => None,
            }
        };
        self.volume == other.volume
            && source(self) == source(other)
            && self.access.as_ref().map(|(_, request)| request)
                == other.access.as_ref().map(|(_, request)| request)
    }
}

/// How a creation is when the form is answered.
#[derive(Debug)]
pub enum Begun {
    /// It goes on, or is done: the page of the volume shows it.
    Shown,
    /// It was refused.
    Refused(Refusal),
}

/// One creation.
#[derive(Debug)]
struct Entry {
    job: Job,
    step: &'static str,
    /// The name of the image that it waits for.
    image: String,
    /// When it failed, and why.
    failed: Option<(Instant, Refusal)>,
    end: watch::Receiver<bool>,
}

/// The creations under way, and those that failed lately. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Creations(Arc<Mutex<BTreeMap<String, Entry>>>);

impl Creations {
    /// Starts a creation or joins the same one, and waits a little for its end.
    pub async fn begin(&self, job: Job, journal: &Journal, look: &Look) -> Begun {
        let name = job.volume.name.clone();
        let mut end = match self.enter(job, journal, look) {
            Ok(end) => end,
            Err(refusal) => return Begun::Refused(refusal),
        };
        let ended = tokio::time::timeout(FORM_WAITS, end.wait_for(|ended| *ended)).await;
        let mut all = self.lock();
        let failed = all.get(&name).and_then(|entry| entry.failed.clone());
        match (ended, failed) {
            (Ok(_), Some((_, refusal))) => {
                all.remove(&name);
                Begun::Refused(refusal)
            }
            _ => Begun::Shown,
        }
    }

    /// What is known of the creation of a volume, but for its image, of which the name is given.
    pub fn coming(&self, name: &str) -> Option<(Coming, String)> {
        let all = self.lock();
        let entry = all.get(name)?;
        let coming = Coming {
            name: name.to_owned(),
            image: None,
            step: entry.step.to_owned(),
            failed: entry.failed.as_ref().map(|(_, why)| why.clone()),
        };
        Some((coming, entry.image.clone()))
    }

    /// The names of the volumes that are being created.
    pub fn names(&self) -> Vec<String> {
        let all = self.lock();
        let under_way = all.iter().filter(|(_, entry)| entry.failed.is_none());
        under_way.map(|(name, _)| name.clone()).collect()
    }

    /// Forgets one that failed.
    pub fn forget(&self, name: &str) {
        self.lock()
            .retain(|known, entry| known != name || entry.failed.is_none());
    }

    fn enter(
        &self,
        job: Job,
        journal: &Journal,
        look: &Look,
    ) -> Result<watch::Receiver<bool>, Refusal> {
        let name = job.volume.name.clone();
        let mut all = self.lock();
        let is_kept = |entry: &Entry| {
            let failed = entry.failed.as_ref();
            failed.is_none_or(|(at, _)| at.elapsed() < FAILED_KEPT)
        };
        all.retain(|_, entry| is_kept(entry));
        if let Some(entry) = all.get(&name).filter(|entry| entry.failed.is_none()) {
            if entry.job.is_same(&job) {
                return Ok(entry.end.clone());
            }
            return Err(Refusal {
                field: "name",
                sentence: format!(
                    "volume {name} is being created with other values by {}; take another name, or wait for it",
                    entry.job.who
                ),
                kind: ErrorKind::AlreadyExists,
            });
        }
        let under_way = all.values().filter(|entry| entry.failed.is_none()).count();
        if under_way >= UNDER_WAY_MAX || all.len() >= UNDER_WAY_MAX + FAILED_MAX {
            return Err(Refusal {
                field: "",
                sentence: format!(
                    "{under_way} volumes are being created; wait until some are ready"
                ),
                kind: ErrorKind::ResourceExhausted,
            });
        }
        let (ended, end) = watch::channel(false);
        let entry = Entry {
            job: job.clone(),
            step: "starting",
            image: String::new(),
            failed: None,
            end: end.clone(),
        };
        all.insert(name.clone(), entry);
        drop(all);
        let (this, look) = (self.clone(), look.clone());
        let event = journal.begin(&job.who, "Create Volume", &name);
        tokio::spawn(async move {
            let running = tokio::spawn(this.clone().run(job));
            let outcome = running.await.unwrap_or_else(|error| {
                Err(Refusal {
                    field: "",
                    sentence: format!("the creation ended early: {error}; repeat the request"),
                    kind: ErrorKind::Internal,
                })
            });
            look.changed().await;
            event.end(outcome.as_ref().err().map(|why| why.sentence.as_str()));
            this.end(&name, outcome);
            // Fails where nobody waits.
            let _ = ended.send(true);
        });
        Ok(end)
    }

    fn end(&self, name: &str, outcome: Result<(), Refusal>) {
        let mut all = self.lock();
        match outcome {
            Ok(()) => {
                all.remove(name);
            }
            Err(refusal) => {
                if let Some(entry) = all.get_mut(name) {
                    entry.failed = Some((Instant::now(), refusal));
                    // What was secret in it is needed no more.
                    entry.job.image = None;
                    entry.job.access = None;
                }
            }
        }
    }

    async fn run(self, mut job: Job) -> Result<(), Refusal> {
        let name = job.volume.name.clone();
        if let Some(request) = job.image.take() {
            self.step(&name, "waiting for the image", "");
            let image = self.image(&name, &job.manager, request).await?;
            job.volume.origin = Some(client::origin::image(image.name, image.uuid));
        }
        self.step(&name, "creating the volume", "");
        let volume = job.manager.create_volume_of_origin(job.volume).await;
        volume.map_err(|error| refusal(field_of_volume(error.kind()), &error))?;
        if let Some((node, request)) = job.access {
            self.step(&name, "giving access", "");
            let exposed = node.expose(request).await;
            exposed.map_err(|error| refusal("access", &error))?;
        }
        Ok(())
    }

    /// The image, when it is ready.
    async fn image(
        &self,
        name: &str,
        manager: &Client,
        request: wire::CreateBackingImageRequest,
    ) -> Result<wire::BackingImage, Refusal> {
        let begun = Instant::now();
        let mut heard = begun;
        let mut first = true;
        loop {
            // The first answer comes at once, and says what the image is called.
            let wait = if first { Duration::ZERO } else { WATCHED };
            match manager.ensure(request.clone(), wait).await {
                Ok(ImageOutcome::Ready(image)) => return Ok(image),
                Ok(ImageOutcome::InProgress(image)) => {
                    heard = Instant::now();
                    self.step(name, "waiting for the image", &image.name);
                }
                Ok(ImageOutcome::Failed { kind, message }) => {
                    return Err(Refusal {
                        field: "base_image",
                        sentence: message,
                        kind,
                    });
                }
                // The manager is away: what it has begun goes on when it is back.
                Err(error) if !first && is_passing(error.kind()) && heard.elapsed() < AWAY_MAX => {
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => return Err(refusal(field_of_image(error.kind()), &error)),
            }
            if begun.elapsed() > IMAGE_MAX {
                return Err(Refusal {
                    field: "base_image",
                    sentence: "the image was not ready within a day; look at its page".to_owned(),
                    kind: ErrorKind::DeadlineExceeded,
                });
            }
            first = false;
        }
    }

    fn step(&self, name: &str, step: &'static str, image: &str) {
        if let Some(entry) = self.lock().get_mut(name) {
            entry.step = step;
            if !image.is_empty() {
                image.clone_into(&mut entry.image);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const fn is_passing(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Unavailable | ErrorKind::DeadlineExceeded | ErrorKind::Aborted
    )
}

/// Beside which field the refusal of a volume belongs.
const fn field_of_volume(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::AlreadyExists => "name",
        ErrorKind::OutOfRange | ErrorKind::ResourceExhausted => "size",
        _ => "",
    }
}

/// Beside which field the refusal of an image belongs.
const fn field_of_image(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Unavailable | ErrorKind::DeadlineExceeded | ErrorKind::Internal => "",
        _ => "base_image",
    }
}
