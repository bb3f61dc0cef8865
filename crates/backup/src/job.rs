//! How whoever asked for something long follows it, and ends it.

use std::fmt::Debug;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::{Error, Result};

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Finding out what differs from the last backup. Its total may be 0: unknown.
    Comparing,
    /// Reading, hashing and uploading blocks. Bytes of the volume.
    Uploading,
    /// Everything is uploaded: the backup is written down and read back.
    Finishing,
    /// Downloading and checking blocks. Bytes of the volume.
    Restoring,
    /// Reading back what is stored. Bytes of blocks.
    Verifying,
    /// Finding and removing what nothing needs. Its total may be 0: unknown.
    Collecting,
}

/// Who is told how far it has come.
pub trait Progress: Debug + Send + Sync {
    /// A phase begins, with so many bytes to come; the bytes done so far are none again.
    fn phase(&self, phase: Phase, total: u64);
    /// So many more bytes are done.
    fn advance(&self, bytes: u64);
}

/// What goes along with each long call.
#[derive(Debug, Clone)]
pub struct Job {
    /// Ends the call at its next block, with [`Error::Cancelled`].
    pub cancel: CancellationToken,
    /// Who is told.
    pub progress: Arc<dyn Progress>,
}

/// Tells nobody.
#[derive(Debug)]
struct Silent;

impl Progress for Silent {
    fn phase(&self, _: Phase, _: u64) {}
    fn advance(&self, _: u64) {}
}

impl Job {
    /// Nobody is told, and nobody ends it.
    pub fn silent() -> Self {
        Self {
            cancel: CancellationToken::new(),
            progress: Arc::new(Silent),
        }
    }

    /// An error once the call is not wanted any more.
    pub(crate) fn wanted(&self) -> Result<()> {
        if self.cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        Ok(())
    }

    /// What the future gives, unless the call is ended first.
    pub(crate) async fn unless_cancelled<T>(
        &self,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(Error::Cancelled),
            done = work => done,
        }
    }
}
