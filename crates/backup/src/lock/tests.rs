//! The protocol between two programs, on a real directory; times are short, and none is asserted.

use std::fs::{File, FileTimes};
use std::time::SystemTime;

use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::{Credentials, Options};

const QUICK: Timing = Timing {
    settle: Duration::from_millis(20),
    refresh: Duration::from_millis(50),
    expiry: Duration::from_secs(150),
    patience: Duration::from_millis(100),
    retry: Duration::from_millis(10),
};

struct Rig {
    directory: TempDir,
    driver: Arc<dyn Driver>,
    volume: Name,
    never: CancellationToken,
}

fn rig() -> Rig {
    let directory = tempfile::tempdir().unwrap();
    let address = format!("vfs://{}", directory.path().display());
    let driver = crate::driver::open(
        &address.parse().unwrap(),
        &Credentials::default(),
        &Options::default(),
    );
    Rig {
        directory,
        driver: driver.unwrap(),
        volume: "vol".parse().unwrap(),
        never: CancellationToken::new(),
    }
}

impl Rig {
    async fn take(&self, kind: Kind) -> Result<Lock> {
        acquire_in(&self.driver, &self.volume, kind, &self.never, QUICK).await
    }

    async fn all(&self) -> Vec<LockInfo> {
        list(&*self.driver, &self.volume).await.unwrap()
    }

    /// A lock of another program, written so many seconds ago by the server's clock; negative: ahead.
    async fn foreign(&self, name: &str, text: &str, seconds: i64) {
        let key = layout::lock(&self.volume, name);
        self.driver
            .put(&key, Bytes::from(text.to_owned()))
            .await
            .unwrap();
        let now = SystemTime::now();
        let by = Duration::from_secs(seconds.unsigned_abs());
        let time = if seconds < 0 { now + by } else { now - by };
        let file = File::options()
            .write(true)
            .open(self.directory.path().join(&key))
            .unwrap();
        file.set_times(FileTimes::new().set_modified(time)).unwrap();
    }
}

const REMOVING: &str = r#"{"Name":"lock-00000000000000aa","Type":2,"Acquired":true}"#;

#[tokio::test]
async fn one_kind_is_shared_and_two_exclude_each_other() {
    let rig = rig();
    let one = rig.take(Kind::Use).await.unwrap();
    let other = rig.take(Kind::Use).await.unwrap();
    let refused = rig.take(Kind::Remove).await;
    assert!(
        matches!(refused, Err(Error::Locked { volume, kind: "for a backup or a restore", .. }) if volume == "vol")
    );
    // Who was refused leaves nothing behind.
    assert_eq!(rig.all().await.len(), 2);
    one.check().await.unwrap();
    one.release().await.unwrap();
    other.release().await.unwrap();
    assert_eq!(rig.all().await, []);
    let one = rig.take(Kind::Remove).await.unwrap();
    rig.take(Kind::Remove)
        .await
        .unwrap()
        .release()
        .await
        .unwrap();
    assert!(matches!(
        rig.take(Kind::Use).await,
        Err(Error::Locked {
            kind: "for a deletion",
            ..
        })
    ));
    one.release().await.unwrap();
}

#[tokio::test]
async fn a_lock_is_the_file_that_longhorn_writes_and_is_refreshed() {
    let rig = rig();
    let lock = rig.take(Kind::Use).await.unwrap();
    let all = rig.all().await;
    let [info] = all.as_slice() else {
        panic!("{all:?}")
    };
    assert!(info.acquired && info.kind == Some(Kind::Use));
    let key = layout::lock(&rig.volume, &info.name);
    let object = rig.driver.get(&key, 999).await.unwrap();
    let text = format!(r#"{{"Name":"{}","Type":1,"Acquired":true}}"#, info.name);
    assert_eq!(object.bytes, text.as_bytes());
    assert!(info.name.len() == 21 && info.name.starts_with("lock-"));
    while rig.all().await[0].refreshed_at == info.refreshed_at {
        tokio::task::yield_now().await;
    }
    lock.check().await.unwrap();
    lock.release().await.unwrap();
}

#[tokio::test]
async fn what_has_expired_or_cannot_be_read_is_not_heeded() {
    let rig = rig();
    rig.foreign("lock-00000000000000aa", REMOVING, 151).await;
    rig.foreign("lock-00000000000000ab", "not JSON", 0).await;
    rig.foreign("lock-00000000000000ac", "", 0).await;
    let lock = rig.take(Kind::Use).await.unwrap();
    lock.check().await.unwrap();
    assert_eq!(
        rig.all()
            .await
            .iter()
            .filter(|info| info.kind.is_none())
            .count(),
        2
    );
    lock.release().await.unwrap();

    rig.foreign("lock-00000000000000aa", REMOVING, 149).await;
    assert!(
        matches!(rig.take(Kind::Use).await, Err(Error::Locked { lock, .. }) if lock.ends_with("aa"))
    );
    // Of a kind that is not known here.
    rig.foreign("lock-00000000000000aa", &REMOVING.replace('2', "7"), 1)
        .await;
    assert!(matches!(
        rig.take(Kind::Remove).await,
        Err(Error::Locked { .. })
    ));
}

#[tokio::test]
async fn who_asks_later_gives_way_to_who_asked_first() {
    let rig = rig();
    let asking = REMOVING.replace("true", "false");
    rig.foreign("lock-00000000000000aa", &asking, 10).await;
    assert!(matches!(
        rig.take(Kind::Use).await,
        Err(Error::Locked { .. })
    ));
    // It asked after us.
    rig.foreign("lock-00000000000000aa", &asking, -100).await;
    rig.take(Kind::Use).await.unwrap().release().await.unwrap();
}

#[tokio::test]
async fn a_lock_from_the_future_holds_only_while_its_owner_lives() {
    let rig = rig();
    rig.foreign("lock-00000000000000aa", REMOVING, -3600).await;
    let lock = rig.take(Kind::Use).await.unwrap();
    lock.check().await.unwrap();
    lock.release().await.unwrap();

    // One whose owner refreshes it meanwhile. In whatever order it goes, ours is refused.
    let patient = Timing {
        patience: Duration::from_secs(2),
        ..QUICK
    };
    let take = acquire_in(&rig.driver, &rig.volume, Kind::Use, &rig.never, patient);
    let alive = async {
        let key = layout::lock(&rig.volume, "lock-00000000000000aa");
        loop {
            // Once we have asked for ours.
            if rig.all().await.len() == 2 {
                tokio::time::sleep(QUICK.settle * 2).await;
                rig.driver
                    .put(&key, Bytes::from_static(REMOVING.as_bytes()))
                    .await
                    .unwrap();
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    let (refused, ()) = tokio::join!(take, alive);
    assert!(matches!(refused, Err(Error::Locked { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_lost_lock_is_noticed() {
    let rig = rig();
    // Another program has removed it.
    let lock = rig.take(Kind::Remove).await.unwrap();
    rig.driver.delete(&lock.ours.key).await.unwrap();
    assert!(matches!(lock.check().await, Err(Error::LockLost { .. })));
    drop(lock);

    // Another program did not heed it.
    let lock = rig.take(Kind::Use).await.unwrap();
    lock.check().await.unwrap();
    rig.foreign("lock-00000000000000aa", REMOVING, 0).await;
    assert!(matches!(lock.check().await, Err(Error::LockLost { .. })));
    lock.release().await.unwrap();
    rig.driver
        .delete(&layout::lock(&rig.volume, "lock-00000000000000aa"))
        .await
        .unwrap();

    // This program was stopped for longer than a lock lives.
    let lock = rig.take(Kind::Use).await.unwrap();
    *lock.ours.refreshed.lock().unwrap() = uptime().saturating_sub(QUICK.expiry);
    assert!(matches!(lock.ours.alive(), Err(Error::LockLost { .. })));
    lock.release().await.unwrap();
}

#[tokio::test]
async fn whoever_stops_waiting_leaves_nothing_behind() {
    let rig = rig();
    let cancelled = CancellationToken::new();
    cancelled.cancel();
    let taken = acquire_in(&rig.driver, &rig.volume, Kind::Use, &cancelled, QUICK).await;
    assert!(matches!(taken, Err(Error::Cancelled)));
    drop(rig.take(Kind::Use).await.unwrap());
    let taking = rig.take(Kind::Use);
    // Dropped while it waits.
    let _ = tokio::time::timeout(QUICK.settle / 2, taking).await;
    while !rig.all().await.is_empty() {
        tokio::task::yield_now().await;
    }
}
