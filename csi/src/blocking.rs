//! The one gate from async code to this node: mounts and loop devices block their thread.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::error::{Error, Result};

/// How many threads may be in the kernel at once. Mounting is short; what hangs here hangs in a dead
/// disk, and more threads would not help it.
const THREADS: usize = 32;

/// A bounded way to run blocking work.
#[derive(Debug, Clone)]
pub(crate) struct Blocking(Arc<Semaphore>);

impl Blocking {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(THREADS)))
    }

    /// Runs `work` on a thread of its own. The work goes on when the caller goes away, and holds
    /// what it captured (the volume's guard) until it is done.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let permit = Arc::clone(&self.0)
            .acquire_owned()
            .await
            .map_err(|_| Error::Lost)?;
        let span = tracing::Span::current();
        let work = move || {
            let _permit = permit;
            span.in_scope(work)
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|_| Error::Lost)?
    }
}
