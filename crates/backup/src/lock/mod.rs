//! The lock protocol of a store, which all programs that share it follow.
//!
//! ```text
//! ask:    write locks/lock-<16 hex>.lck, not acquired; wait 2 s; read all locks
//!         -> one of another kind that is alive goes before ours: remove ours, Error::Locked
//!         -> else write it again, acquired
//! hold:   write it again every 60 s; one that was not for 150 s is dead
//! ```
//!
//! Acquired goes before asked for, then the older, then the lesser name. Nothing in a store makes this
//! exclusive, so whoever removes blocks or names them asks once more before ([`Lock::check`]).
//!
//! Other programs compare the time of a lock, by the server's clock, with their own clock. Here its age is
//! the time of our own lock, written just now, less its time: only the server's clock counts. A lock from
//! the future is one of a server whose clock was set back: if its owner lives, it is written again soon.

mod record;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::TryStreamExt;
use jiff::{SignedDuration, Timestamp};
use rustix::time::{ClockId, clock_gettime};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::record::Record;
use crate::driver::Driver;
use crate::{Error, Name, Result, layout};

/// Most bytes of a lock file.
const LENGTH_MAX: u64 = 64 << 10;
/// Most locks of one volume that are looked at.
const LOCKS_MAX: usize = 10_000;

/// What a lock is for. Each kind is shared with itself and excludes the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Backups being made, restored or read.
    Use,
    /// Blocks being removed.
    Remove,
}

/// A lock that somebody has put into the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockInfo {
    pub name: String,
    /// `None`: it cannot be read or is of no kind that is known here.
    pub kind: Option<Kind>,
    /// Not only asked for.
    pub acquired: bool,
    /// When it was last refreshed, by the clock of the store's server. It expires 150 s later.
    pub refreshed_at: Timestamp,
}

/// The times of the protocol.
#[derive(Debug, Clone, Copy)]
struct Timing {
    /// Between asking and looking, so that all that ask see each other.
    settle: Duration,
    refresh: Duration,
    expiry: Duration,
    /// How long a lock from the future may take to be written again: longer than `refresh`.
    patience: Duration,
    /// Until a refresh that failed is tried again.
    retry: Duration,
}

const TIMING: Timing = Timing {
    settle: Duration::from_secs(2),
    refresh: Duration::from_mins(1),
    expiry: Duration::from_secs(150),
    patience: Duration::from_secs(75),
    retry: Duration::from_secs(5),
};

/// A lock that is ours, refreshed until it is dropped or released.
#[derive(Debug)]
pub(crate) struct Lock {
    ours: Arc<Ours>,
    /// Ends the refreshing.
    done: CancellationToken,
    refreshing: Option<JoinHandle<()>>,
    /// Locks from the future whose owners are dead.
    dead: BTreeMap<String, Timestamp>,
}

#[derive(Debug)]
struct Ours {
    driver: Arc<dyn Driver>,
    volume: Name,
    name: String,
    key: String,
    kind: Kind,
    timing: Timing,
    /// When the last refresh began that succeeded, since this machine was started.
    refreshed: Mutex<Duration>,
}

/// Takes a lock on a volume, or on a backing image of that name. Takes 2 s; `Error::Locked` at once after
/// that if another program excludes it.
pub(crate) async fn acquire(
    driver: &Arc<dyn Driver>,
    volume: &Name,
    kind: Kind,
    cancel: &CancellationToken,
) -> Result<Lock> {
    acquire_in(driver, volume, kind, cancel, TIMING).await
}

async fn acquire_in(
    driver: &Arc<dyn Driver>,
    volume: &Name,
    kind: Kind,
    cancel: &CancellationToken,
    timing: Timing,
) -> Result<Lock> {
    let name = record::new_name()?;
    let ours = Ours {
        driver: Arc::clone(driver),
        volume: volume.clone(),
        key: layout::lock(volume, &name),
        name,
        kind,
        timing,
        refreshed: Mutex::new(uptime()),
    };
    let mut lock = Lock {
        ours: Arc::new(ours),
        done: CancellationToken::new(),
        refreshing: None,
        dead: BTreeMap::new(),
    };
    // However this ends before the end, dropping the lock removes what is in the store.
    match cancel.run_until_cancelled(lock.take()).await {
        None => Err(Error::Cancelled),
        Some(Ok(())) => Ok(lock),
        Some(Err(error)) => {
            let _ = lock.release().await;
            Err(error)
        }
    }
}

impl Lock {
    async fn take(&mut self) -> Result<()> {
        let timing = self.ours.timing;
        self.ours.write(false).await?;
        tokio::time::sleep(timing.settle).await;
        loop {
            let ahead = self.ours.look(false, &self.dead).await?;
            if ahead.is_empty() {
                break;
            }
            tracing::warn!(
                volume = %self.ours.volume, locks = ?ahead,
                "locks in the backup store are dated in the future: waiting whether they are alive"
            );
            tokio::time::sleep(timing.patience).await;
            // The time to compare with must be that of now.
            self.ours.write(false).await?;
            self.dead = ahead;
        }
        self.ours.write(true).await?;
        let (ours, done) = (Arc::clone(&self.ours), self.done.clone());
        self.refreshing = Some(tokio::spawn(async move { ours.refresh(done).await }));
        Ok(())
    }

    /// `Error::LockLost` if others may have worked against it since it was taken: to be asked before
    /// anything is removed, and before what names blocks is written.
    pub(crate) async fn check(&self) -> Result<()> {
        self.ours.alive()?;
        if self.ours.driver.head(&self.ours.key).await?.is_none() {
            return Err(self.ours.lost("another program has removed it"));
        }
        self.ours.write(true).await?;
        match self.ours.look(true, &self.dead).await {
            Ok(_) => self.ours.alive(),
            Err(Error::Locked { .. }) => Err(self
                .ours
                .lost("another program has taken one that excludes it")),
            Err(error) => Err(error),
        }
    }

    /// What time it is by the clock of the store's server, less the minute in which it is refreshed.
    pub(crate) async fn now(&self) -> Result<Timestamp> {
        let own = self.ours.driver.head(&self.ours.key).await?;
        let own = own.ok_or_else(|| self.ours.lost("another program has removed it"))?;
        Ok(own.modified)
    }

    /// Lets it go. One that is only dropped is let go soon after.
    pub(crate) async fn release(mut self) -> Result<()> {
        let let_go = self.let_go();
        drop(self);
        let_go.await
    }

    /// Ends the refreshing, and then removes the lock: else a late refresh would bring it back.
    fn let_go(&mut self) -> impl Future<Output = Result<()>> + Send + 'static {
        self.done.cancel();
        let (ours, refreshing) = (Arc::clone(&self.ours), self.refreshing.take());
        async move {
            if let Some(refreshing) = refreshing {
                // A panic there is said where panics are.
                let _ = refreshing.await;
            }
            ours.driver.delete(&ours.key).await
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if self.done.is_cancelled() {
            return;
        }
        let let_go = self.let_go();
        // Without a runtime it stays, and expires.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = let_go.await {
                    let error = types::report(&error);
                    tracing::warn!(%error, "a lock in the backup store could not be removed: it expires");
                }
            });
        }
    }
}

impl Ours {
    fn lost(&self, why: &'static str) -> Error {
        Error::LockLost {
            volume: self.volume.to_string(),
            lock: self.name.clone(),
            why,
        }
    }

    /// Whether it was refreshed in time, however long this program was stopped.
    fn alive(&self) -> Result<()> {
        let refreshed = *self
            .refreshed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if uptime().saturating_sub(refreshed) < self.timing.expiry {
            return Ok(());
        }
        Err(self.lost("it was not refreshed in time, and counts for nothing since"))
    }

    async fn write(&self, acquired: bool) -> Result<()> {
        let began = uptime();
        let record = Record::new(&self.name, self.kind, acquired).to_json();
        self.driver.put(&self.key, record.into()).await?;
        *self
            .refreshed
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = began;
        Ok(())
    }

    async fn refresh(&self, done: CancellationToken) {
        let mut wait = self.timing.refresh;
        loop {
            if done
                .run_until_cancelled(tokio::time::sleep(wait))
                .await
                .is_none()
            {
                return;
            }
            // One that was late is lost, and written again it would only look as if it were not.
            if self.alive().is_err() {
                return;
            }
            let refreshed = self.refresh_once().await;
            wait = match refreshed {
                Ok(true) => self.timing.refresh,
                Ok(false) => return,
                Err(error) => {
                    let (volume, error) = (&self.volume, types::report(&error));
                    tracing::warn!(%volume, %error, "a lock in the backup store could not be refreshed");
                    self.timing.retry
                }
            };
        }
    }

    /// `false`: it is not there any more.
    async fn refresh_once(&self) -> Result<bool> {
        if self.driver.head(&self.key).await?.is_none() {
            return Ok(false);
        }
        self.write(true).await.map(|()| true)
    }

    /// Looks at the locks of others: `Error::Locked` if one of them excludes ours. Answers with those that
    /// would, but are dated in the future and are not in `dead`.
    async fn look(
        &self,
        acquired: bool,
        dead: &BTreeMap<String, Timestamp>,
    ) -> Result<BTreeMap<String, Timestamp>> {
        let own = self.driver.head(&self.key).await?;
        let own = own.ok_or_else(|| self.lost("another program has removed it"))?;
        let expiry = SignedDuration::try_from(self.timing.expiry).unwrap_or(SignedDuration::MAX);
        let mut ahead = BTreeMap::new();
        for (info, record) in read_all(&*self.driver, &self.volume).await? {
            let Some(record) = record else {
                continue;
            };
            if info.name == self.name || record.kind() == self.kind.number() {
                continue;
            }
            let age = own.modified.duration_since(info.refreshed_at);
            if age > expiry {
                continue;
            }
            // Two that are both acquired exclude each other: neither is to go on.
            let theirs = (!info.acquired, info.refreshed_at, &info.name);
            if !(acquired && info.acquired) && theirs > (!acquired, own.modified, &self.name) {
                continue;
            }
            if dead.get(&info.name) == Some(&info.refreshed_at) {
                continue;
            }
            if -age > expiry {
                ahead.insert(info.name, info.refreshed_at);
                continue;
            }
            return Err(Error::Locked {
                volume: self.volume.to_string(),
                lock: info.name,
                kind: info
                    .kind
                    .map_or("of a kind that is not known here", Kind::what),
            });
        }
        Ok(ahead)
    }
}

/// The locks of a volume or backing image that are in the store, expired ones too.
pub(crate) async fn list(driver: &dyn Driver, volume: &Name) -> Result<Vec<LockInfo>> {
    let all = read_all(driver, volume).await?;
    Ok(all.into_iter().map(|(info, _)| info).collect())
}

/// In the order of their names. `None`: it cannot be read.
async fn read_all(driver: &dyn Driver, volume: &Name) -> Result<Vec<(LockInfo, Option<Record>)>> {
    let folder = layout::locks(volume);
    let mut entries = driver.list(&folder);
    let mut all = Vec::new();
    while let Some(entry) = entries.try_next().await? {
        let Some(name) = layout::lock_of(&entry.key) else {
            continue;
        };
        if all.len() == LOCKS_MAX {
            return Err(Error::TooLarge {
                key: folder.clone(),
                size: LOCKS_MAX as u64 + 1,
                limit: LOCKS_MAX as u64,
            });
        }
        let record = match driver.get(&entry.key, LENGTH_MAX).await {
            Ok(object) => Record::parse(&object.bytes),
            // Let go meanwhile.
            Err(Error::NoObject { .. }) => continue,
            Err(Error::TooLarge { .. }) => None,
            Err(error) => return Err(error),
        };
        let info = LockInfo {
            name: name.to_owned(),
            kind: record.as_ref().and_then(|record| Kind::of(record.kind())),
            acquired: record.as_ref().is_some_and(Record::acquired),
            refreshed_at: entry.meta.modified,
        };
        all.push((info, record));
    }
    all.sort_by(|(one, _), (other, _)| one.name.cmp(&other.name));
    Ok(all)
}

/// Since this machine was started, sleep included.
fn uptime() -> Duration {
    clock_gettime(ClockId::Boottime)
        .try_into()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests;
