//! Deletes an image: ends all work on it, makes sure that nothing uses it, then removes it.

use std::sync::Arc;

use tracing::info;
use types::ImageId;

use super::{Catalog, not_ready, status};
use crate::blocking::blocking;
use crate::error::{Error, Result};

impl Catalog {
    /// Deletes an image and ends the work on it. `in_use` tells a reason not to; it may block, and is
    /// asked once more when nobody can use the image any longer. Goes on when the caller is gone.
    pub async fn delete<F>(&self, id: &ImageId, in_use: F) -> Result<()>
    where
        F: Fn() -> Result<()> + Send + Sync + 'static,
    {
        let (catalog, id) = (self.clone(), id.clone());
        let work = async move { catalog.delete_now(&id, Arc::new(in_use)).await };
        tokio::spawn(work).await.map_err(Error::Task)?
    }

    async fn delete_now<F>(&self, id: &ImageId, in_use: Arc<F>) -> Result<()>
    where
        F: Fn() -> Result<()> + Send + Sync + 'static,
    {
        let ask = || {
            let in_use = in_use.clone();
            blocking(move || in_use())
        };
        let entry = match self.entry(&id.name, Some(&id.uuid)) {
            Ok(entry) => entry,
            Err(Error::ImageNotFound(_)) => return Ok(()),
            Err(error) => return Err(error),
        };
        let status = entry.status();
        if status.newer {
            return Err(not_ready(id, &status.state));
        }
        ask().await?;
        entry.cancel().cancel();
        // From here on nobody begins to use the image, and who uses it has finished.
        let _files = entry.files.write().await;
        if !self.is_current(&entry) {
            return Ok(());
        }
        if let Err(refused) = ask().await {
            entry.renew(&self.inner.stop);
            self.look_anew(&entry);
            return Err(refused);
        }
        entry.tasks.close();
        entry.tasks.wait().await;
        let (store, id) = (self.inner.store.clone(), id.clone());
        if let Err(error) = blocking(move || store.delete(&id)).await {
            entry.tasks.reopen();
            entry.renew(&self.inner.stop);
            self.look_anew(&entry);
            return Err(error);
        }
        self.images().remove(&entry.id);
        status::count(&self.inner.changes);
        info!(image = %entry.id, "deleted");
        Ok(())
    }

    /// Removes what the disk holds of an image that nobody knows, as when it was forgotten.
    pub async fn delete_unknown<F>(&self, id: &ImageId, in_use: F) -> Result<()>
    where
        F: Fn() -> Result<()> + Send + Sync + 'static,
    {
        if self.entry(&id.name, Some(&id.uuid)).is_ok() {
            return Ok(());
        }
        let (store, id) = (self.inner.store.clone(), id.clone());
        let delete = move || {
            in_use()?;
            Ok::<_, Error>(store.delete(&id)?)
        };
        blocking(delete).await
    }
}
