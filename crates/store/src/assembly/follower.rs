//! Computes the SHA-512 of an image while its bytes arrive: chunk after chunk from the front, each
//! as soon as it is complete. It reads them back, usually from memory. When it is far behind, it
//! slows the writers down, or, if a manifest claims the checksum, postpones the hash until the
//! image is ready.

use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ring::digest::{Context, SHA512};
use types::Sha512;

use super::{Phase, Shared, State, TOLD_AFTER};
use crate::error::{Error, IoContext, Result};
use chunks::{CHUNK, Chunk, chunk_len};

/// Chunks that may wait for the hash before those who bring more have to: what waits is in memory
/// that the kernel could use otherwise.
const BEHIND_MAX: usize = 64;
/// How often a thread that waits looks whether it still should.
const LOOK: Duration = Duration::from_millis(200);

/// The sum; `None` when it was given up.
pub(super) fn start(shared: Arc<Shared>) -> std::io::Result<JoinHandle<Result<Option<Sha512>>>> {
    let named = thread::Builder::new().name("sha512".to_owned());
    named.spawn(move || {
        let sum = follow(&shared);
        if sum.is_err() {
            shared.state().phase = Phase::Ended;
        }
        shared.changed.notify_all();
        sum
    })
}

fn follow(shared: &Shared) -> Result<Option<Sha512>> {
    let count = shared.state().chunks.len();
    let mut sum = Context::new(&SHA512);
    let mut buffer = vec![0; CHUNK];
    let mut zero = true;
    for index in 0..count {
        let Some(chunk) = shared.wait_for_chunk(index)? else {
            return Ok(None);
        };
        let bytes = &mut buffer[..chunk_len(shared.size, index)];
        match chunk {
            Chunk::Data(_) => {
                let at = index as u64 * CHUNK as u64;
                shared
                    .file
                    .read_exact_at(bytes, at)
                    .context("read", &shared.path)?;
                zero = false;
            }
            Chunk::Hole if !zero => {
                bytes.fill(0);
                // A short one is the last.
                zero = true;
            }
            Chunk::Hole => {}
        }
        sum.update(bytes);
        shared.state().hashed = index + 1;
        shared.changed.notify_all();
    }
    Ok(Some(Sha512::from_digest(&sum.finish())))
}

impl Shared {
    /// A chunk, once it is complete; `None` when it need not be hashed any more.
    fn wait_for_chunk(&self, index: usize) -> Result<Option<Chunk>> {
        let mut state = self.state();
        loop {
            self.not_ended(&state)?;
            if state.given_up {
                return Ok(None);
            }
            if let Some(chunk) = state.chunks[index] {
                return Ok(Some(chunk));
            }
            state = self.wait(state);
        }
    }

    /// Holds up who brings bytes while the hash has much to do. Where a manifest tells the sum nobody
    /// waits: the hash is given up, and its processor is left to the copy.
    pub(super) fn wait_for_hash(&self) -> Result<()> {
        let mut state = self.state();
        let most = if self.known.is_some() {
            TOLD_AFTER
        } else {
            BEHIND_MAX
        };
        loop {
            self.still_open(&state)?;
            let waiting = &state.chunks[state.hashed..];
            let far_behind = waiting.len() > most
                && waiting[..=most]
                    .iter()
                    .all(|chunk| matches!(chunk, Some(Chunk::Data(_))));
            if !far_behind || state.given_up {
                return Ok(());
            }
            if self.known.is_some() {
                state.given_up = true;
                self.changed.notify_all();
                return Ok(());
            }
            state = self.wait(state);
        }
    }

    fn not_ended(&self, state: &State) -> Result<()> {
        if self.cancel.is_cancelled() || state.phase == Phase::Ended {
            return Err(Error::Cancelled("the image is not wanted"));
        }
        Ok(())
    }

    fn wait<'a>(
        &self,
        state: std::sync::MutexGuard<'a, State>,
    ) -> std::sync::MutexGuard<'a, State> {
        match self.changed.wait_timeout(state, LOOK) {
            Ok((state, _)) => state,
            Err(poisoned) => poisoned.into_inner().0,
        }
    }
}
