//! Blocking work of an async caller: files are read, written and synced on threads that may wait.

use crate::error::{Error, Result};

/// Does `work` on a thread that may block, and gives its result. Dropping the future does not end the work.
///
/// # Errors
/// That of the work; [`Error::Task`] when it panicked.
pub async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T>
where
    T: Send + 'static,
    E: Send + 'static,
    Error: From<E>,
{
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(Error::Task)??)
}
