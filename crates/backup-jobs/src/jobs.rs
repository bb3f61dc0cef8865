//! The backups that run: each once, a bounded number at a time, followed and ended by whoever asks.
//!
//! Who asks for a backup that runs joins it. How one ended is remembered for a while, because who polls comes
//! after its end; the store tells it for ever.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backup::{BackupInfo, Item, Listed, Name, Store};
use catalog::Catalog;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, info, info_span, warn};
use types::{Classify, ErrorKind, ImageName, report};
use volume::Volumes;

use crate::board::{Stage, State};
use crate::counters::Counts;
use crate::error::{Error, Result};
use crate::job::{Job, Key, View};
use crate::request::{NewBackup, NewImageBackup};
use crate::room::Room;
use crate::targets::{Target, Targets};
use crate::{images, make};

/// Backups that run or wait.
const WAITING_MAX: usize = 1000;
/// How long it is remembered how one ended, and of how many at the most.
const REMEMBERED: Duration = Duration::from_mins(15);
const REMEMBERED_MAX: usize = 200;

/// The backups of one disk. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Jobs {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    room: Arc<Room>,
    jobs: Mutex<BTreeMap<Key, Arc<Job>>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Jobs {
    /// The backups of the images of `catalog`, and of `volumes` where there are some. They end with `stop`.
    pub fn new(
        targets: Targets,
        catalog: Catalog,
        volumes: Option<Volumes>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                room: Room::new(targets, catalog, volumes),
                jobs: Mutex::default(),
                tasks: TaskTracker::new(),
                stop,
            }),
        }
    }

    /// Where backups may go.
    pub fn targets(&self) -> &Targets {
        &self.inner.room.targets
    }

    /// The images that are backed up, and become of backups.
    pub fn catalog(&self) -> &Catalog {
        &self.inner.room.catalog
    }

    /// What was done since the start.
    pub fn counts(&self) -> Counts {
        self.inner.room.counters.now()
    }

    /// How many backups run or wait for their turn.
    pub fn running(&self) -> usize {
        let running = |job: &&Arc<Job>| !job.board.is_settled();
        self.jobs().values().filter(running).count()
    }

    fn jobs(&self) -> MutexGuard<'_, BTreeMap<Key, Arc<Job>>> {
        (self.inner.jobs.lock()).unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn room(&self) -> &Arc<Room> {
        &self.inner.room
    }

    pub(crate) async fn open(&self, target: &Target) -> Result<Store> {
        self.inner.room.open(target).await
    }

    /// Starts to back up a snapshot of a volume, or joins the backup of that name.
    pub async fn create(&self, new: NewBackup) -> Result<View> {
        let target = self.inner.room.targets.choose(&new.target)?;
        let name = match (&new.name, &new.snapshot) {
            (Some(name), _) => name.clone(),
            (None, Some(snapshot)) => snapshot.as_str().parse()?,
            (None, None) => {
                return Err(Error::InvalidField {
                    field: "name",
                    why: "it is needed where no snapshot is named".to_owned(),
                });
            }
        };
        let volume: Name = new.volume.as_str().parse()?;
        let key = Key {
            store: target.address.clone(),
            item: Item::Backup {
                volume: volume.clone(),
                backup: name.clone(),
            },
        };
        if let Some(view) = self.join(&key, new.snapshot.as_ref()).await? {
            return Ok(view);
        }
        let (room, snapshot) = (self.inner.room.clone(), new.snapshot.clone());
        self.begin(key, target, snapshot, async move |job: Arc<Job>| {
            let info = make::make(&room, &job, &new, (&volume, &name)).await?;
            let took = job.begun.elapsed();
            (room.counters).completed(Some(volume.as_str()), info.uploaded, took);
            Ok(Some(info))
        })
    }

    /// Starts to back up a backing image, or joins the backup that runs.
    pub async fn create_image(&self, new: NewImageBackup) -> Result<View> {
        let target = self.inner.room.targets.choose(&new.target)?;
        let key = Key {
            store: target.address.clone(),
            item: Item::BackingImage(new.image.name.as_str().parse()?),
        };
        if let Some(view) = self.join(&key, None).await? {
            return Ok(view);
        }
        let room = self.inner.room.clone();
        self.begin(key, target, None, async move |job: Arc<Job>| {
            images::make(&room, &job, &new).await?;
            room.counters.completed(None, 0, job.begun.elapsed());
            Ok(None)
        })
    }

    /// The backup that is there already: one that runs, or one that was completed and still is.
    async fn join(&self, key: &Key, snapshot: Option<&ImageName>) -> Result<Option<View>> {
        let Some(job) = self.jobs().get(key).cloned() else {
            return Ok(None);
        };
        let view = job.view();
        match view.state.stage {
            Stage::Failed { .. } => return Ok(None),
            // Somebody else may have deleted it since.
            Stage::Complete(_) => {
                let Item::Backup { volume, backup } = &key.item else {
                    return Ok(None);
                };
                let stored = self.open(&job.target).await?.backup(volume, backup).await;
                match stored {
                    Ok(info) if info.created_at.is_some() => {}
                    Ok(_) => return Ok(None),
                    Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                    Err(error) => return Err(error.into()),
                }
            }
            _ => {}
        }
        if let Some(asked) = snapshot
            && job.snapshot.as_ref() != Some(asked)
        {
            return Err(Error::OtherSnapshot {
                volume: view.volume,
                name: view.name,
                has: view.state.snapshot,
                asked: asked.to_string(),
            });
        }
        Ok(Some(view))
    }

    fn begin<F>(
        &self,
        key: Key,
        target: Target,
        snapshot: Option<ImageName>,
        work: impl FnOnce(Arc<Job>) -> F + Send + 'static,
    ) -> Result<View>
    where
        F: Future<Output = Result<Option<BackupInfo>>> + Send,
    {
        self.inner.room.catalog.takes_work()?;
        let cancel = self.inner.stop.child_token();
        let job = Arc::new(Job::new(key.clone(), target, snapshot, cancel));
        {
            let mut jobs = self.jobs();
            // Another request may have come first.
            if let Some(other) = jobs.get(&key).filter(|job| !job.board.is_settled()) {
                return Ok(other.view());
            }
            forget_old(&mut jobs);
            if jobs.len() >= WAITING_MAX + REMEMBERED_MAX {
                return Err(Error::TooMany(jobs.len()));
            }
            jobs.insert(key, job.clone());
        }
        let view = job.view();
        let room = self.inner.room.clone();
        let span = info_span!("backup", volume = view.volume, name = view.name);
        let done = async move {
            let done = work(job.clone()).await;
            match done {
                Ok(info) => {
                    info!("complete");
                    job.board.complete(info);
                }
                Err(error) => {
                    let error = called_off(&job, error);
                    warn!(error = %report(&error), "failed");
                    room.counters.failed(error.kind());
                    job.board.failed(&error);
                }
            }
            job.end();
        };
        self.inner.tasks.spawn(done.instrument(span));
        Ok(view)
    }

    /// A backup that runs here, or ran not long ago.
    pub fn find(&self, target: &Target, volume: &Name, name: &Name) -> Option<View> {
        self.job(target, volume, name).map(|job| job.view())
    }

    /// The same at each change.
    pub fn watch(
        &self,
        target: &Target,
        volume: &Name,
        name: &Name,
    ) -> Option<(View, watch::Receiver<State>)> {
        let job = self.job(target, volume, name)?;
        Some((job.view(), job.board.watch()))
    }

    /// The last backup of the image of that name, wherever it goes.
    pub fn find_image(&self, name: &str) -> Option<View> {
        let jobs = self.jobs();
        let of_name = |job: &&Arc<Job>| matches!(&job.key.item, Item::BackingImage(image) if image.as_str() == name);
        let last = jobs.values().filter(of_name).max_by_key(|job| job.begun);
        last.map(|job| job.view())
    }

    fn job(&self, target: &Target, volume: &Name, name: &Name) -> Option<Arc<Job>> {
        let (volume, backup) = (volume.clone(), name.clone());
        let key = Key {
            store: target.address.clone(),
            item: Item::Backup { volume, backup },
        };
        self.jobs().get(&key).cloned()
    }

    /// Whether the snapshot of that name is being backed up.
    pub(crate) fn is_backed_up(&self, volume: &str, snapshot: &str) -> bool {
        let jobs = self.jobs();
        let mut running = jobs.values().filter(|job| !job.board.is_settled());
        running.any(|job| match &job.key.item {
            Item::Backup { volume: of, backup } => {
                of.as_str() == volume
                    && job
                        .snapshot
                        .as_ref()
                        .map_or(backup.as_str(), ImageName::as_str)
                        == snapshot
            }
            _ => false,
        })
    }

    /// Ends a backup that runs here, and waits until it has.
    pub async fn cancel(&self, target: &Target, volume: &Name, name: &Name) {
        let Some(job) = self.job(target, volume, name) else {
            return;
        };
        job.cancel.cancel();
        let mut states = job.board.watch();
        // An end without a last state is one as well.
        let _ = states.wait_for(|state| state.stage.is_settled()).await;
    }

    /// What the store has of one backup.
    pub async fn stored(&self, target: &Target, volume: &Name, name: &Name) -> Result<BackupInfo> {
        let store = self.open(target).await?;
        Ok(store.backup(volume, name).await?)
    }

    /// What a store has, of one volume or of all, in the order of volumes and names.
    pub async fn list(&self, target: &Target, volume: Option<&Name>) -> Result<Listed<BackupInfo>> {
        list(&self.open(target).await?, volume).await
    }

    /// Removes a backup from its store, ends it if it runs here, and removes the snapshot that was kept for it.
    pub async fn delete(&self, target: &Target, volume: &Name, name: &Name) -> Result<()> {
        self.cancel(target, volume, name).await;
        let store = self.open(target).await?;
        let silent = backup::Job::silent();
        match store.delete_backup(volume, name, &silent).await {
            Ok(collected) => info!(%volume, backup = %name, ?collected, "deleted"),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        if let Some(job) = self.job(target, volume, name) {
            self.jobs().retain(|_, other| !Arc::ptr_eq(&job, other));
        }
        self.inner.room.remove_kept(target, volume, name).await
    }

    /// Ends all backups and waits for them.
    pub async fn stop(&self) {
        self.inner.stop.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }
}

/// What a store has, of one volume or of all.
pub async fn list(store: &Store, volume: Option<&Name>) -> Result<Listed<BackupInfo>> {
    if let Some(volume) = volume {
        return Ok(store.backups(volume).await?);
    }
    let volumes = store.volumes().await?;
    let mut all = Listed {
        items: Vec::new(),
        problems: volumes.problems,
    };
    for volume in volumes.items {
        match store.backups(&volume.name).await {
            Ok(backups) => {
                all.items.extend(backups.items);
                all.problems.extend(backups.problems);
            }
            // One that cannot be read does not hide the others.
            Err(error) if error.kind() == ErrorKind::DataLoss => {
                all.problems.push(report(&error).to_string());
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(all)
}

/// An error of work that was called off is that it was.
fn called_off(job: &Job, error: Error) -> Error {
    match error {
        _ if job.cancel.is_cancelled() => {
            Error::Cancelled("the backup is not wanted any more, or the manager stops")
        }
        error => error,
    }
}

/// Forgets how those ended that ended some time ago, and the oldest of many.
fn forget_old(jobs: &mut BTreeMap<Key, Arc<Job>>) {
    let mut ended: Vec<_> = jobs
        .values()
        .filter_map(|job| Some((job.ended()?, job.key.clone())))
        .collect();
    ended.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    for (number, (at, key)) in ended.into_iter().enumerate() {
        if number >= REMEMBERED_MAX || at.elapsed() >= REMEMBERED {
            jobs.remove(&key);
        }
    }
}
