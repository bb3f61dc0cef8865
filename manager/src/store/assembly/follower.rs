//! Computes the SHA-512 of an image while its bytes come: chunk after chunk from the front, each as
//! soon as it is complete. It reads them back, from memory as a rule, because who brings bytes is held
//! up when the hash is far behind.

use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ring::digest::{Context, SHA512};
use types::Sha512;

use super::{Phase, Shared, State};
use crate::error::{Error, IoContext, Result};
use crate::store::chunks::{CHUNK, Chunk, chunk_len};

/// Chunks that may wait for the hash before those who bring more have to: what waits is in memory
/// that the kernel could use otherwise.
const BEHIND_MAX: usize = 64;
/// How often a thread that waits looks whether it still should.
const LOOK: Duration = Duration::from_millis(200);

pub(super) fn start(shared: Arc<Shared>) -> std::io::Result<JoinHandle<Result<Sha512>>> {
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

fn follow(shared: &Shared) -> Result<Sha512> {
    let count = shared.state().chunks.len();
    let mut sum = Context::new(&SHA512);
    let mut buffer = vec![0; CHUNK];
    let mut zero = true;
    for index in 0..count {
        let chunk = shared.wait_for_chunk(index)?;
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
    Ok(Sha512::from_digest(&sum.finish()))
}

impl Shared {
    fn wait_for_chunk(&self, index: usize) -> Result<Chunk> {
        let mut state = self.state();
        loop {
            if let Some(chunk) = state.chunks[index] {
                self.not_ended(&state)?;
                return Ok(chunk);
            }
            self.not_ended(&state)?;
            state = self.wait(state);
        }
    }

    /// Holds up who brings bytes while the hash has much to do.
    pub(super) fn wait_for_hash(&self) -> Result<()> {
        let mut state = self.state();
        loop {
            self.still_open(&state)?;
            let waiting = &state.chunks[state.hashed..];
            let far_behind = waiting.len() > BEHIND_MAX
                && waiting[..=BEHIND_MAX]
                    .iter()
                    .all(|chunk| matches!(chunk, Some(Chunk::Data(_))));
            if !far_behind {
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
