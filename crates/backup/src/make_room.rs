//! Deleting from a store that is full: not even a lock can be written there.
//!
//! 1. look at the locks: one that excludes ours and may be alive ends it;
//! 2. delete the cfg, which is what was asked for, and needs no block any more;
//! 3. remove a few blocks that no other backup needs. Before each, look at the locks again: whoever takes one now
//!    waits 2 s before it uses a block, and a removal takes less;
//! 4. now a lock can be written, and the rest is collected under it.

use jiff::{SignedDuration, Timestamp};

use crate::collect::Room;
use crate::lock::{self, Kind};
use crate::store::Store;
use crate::{Error, Name, Result};

/// Blocks that are removed without a lock: the smallest is larger than a lock.
const BLOCKS: usize = 4;
/// A lock of this age is nobody's. It is refreshed each minute, and without a lock of our own its age is told by two
/// clocks.
const ABANDONED: SignedDuration = SignedDuration::from_mins(15);

impl Store {
    /// Steps 1 to 3 for the backup `name` of a room. Whether any block was removed.
    pub(crate) async fn make_room(
        &self,
        room: &Room,
        name: &Name,
        locked: &Name,
        key: &str,
    ) -> Result<bool> {
        self.nobody_uses(locked).await?;
        let map = match self.cfg_of(room, name).await {
            Ok((_, map)) => Some(map),
            // Nobody knows which blocks it has; the cfg goes all the same.
            Err(Error::Config { .. } | Error::NoObject { .. } | Error::TooLarge { .. }) => None,
            Err(error) => return Err(error),
        };
        self.driver().delete(key).await?;
        // No time is known: every backup that was begun keeps all blocks.
        let cfgs = self.read_cfgs(room, Timestamp::MIN).await?;
        let Some(map) = map.filter(|_| cfgs.keep_none()) else {
            return Ok(false);
        };
        let mut removed = 0;
        for block in map.iter() {
            let (_, checksum) = block?;
            if cfgs.needs(&checksum)? {
                continue;
            }
            self.nobody_uses(locked).await?;
            self.driver().delete(&room.pool().block(&checksum)).await?;
            removed += 1;
            if removed == BLOCKS {
                break;
            }
        }
        Ok(removed > 0)
    }

    /// [`Error::Locked`] if somebody may be making or reading a backup.
    async fn nobody_uses(&self, volume: &Name) -> Result<()> {
        let now = Timestamp::now();
        let locks = lock::list(&**self.driver(), volume).await?;
        let alive = locks.into_iter().find(|lock| {
            lock.kind == Some(Kind::Use) && now.duration_since(lock.refreshed_at) < ABANDONED
        });
        match alive {
            None => Ok(()),
            Some(lock) => Err(Error::Locked {
                volume: volume.to_string(),
                lock: lock.name,
                kind: Kind::Use.what(),
            }),
        }
    }
}
