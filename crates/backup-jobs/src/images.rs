//! Backups of backing images, as Longhorn's control plane asks for them: the file as it is stored.

use std::fs::File;
use std::sync::Arc;

use backup::{BackingImageInfo, NewBackingImage};
use store::IoContext as _;
use types::Checksum;

use crate::error::{Error, Result};
use crate::job::Job;
use crate::request::NewImageBackup;
use crate::room::Room;

/// Makes the backup of a job, or finds it complete.
pub(crate) async fn make(room: &Room, job: &Job, new: &NewImageBackup) -> Result<BackingImageInfo> {
    let id = &new.image;
    let (image, _files) = room.catalog.ready(&id.name, Some(&id.uuid)).await?;
    if !image.has_checksum(Checksum::Sha512(new.checksum)) {
        return Err(Error::Checksum {
            expected: new.checksum.to_string(),
            actual: image.checksum()?.to_string(),
        });
    }
    let path = room.catalog.file_path(id);
    let opened = move || {
        let file = File::open(&path).context("open", &path)?;
        let size = file.metadata().context("inspect", &path)?.len();
        Ok::<_, store::Error>((file, size))
    };
    let (file, size) = catalog::blocking(opened).await?;
    job.board.of(&id.to_string(), None, size);
    let store = room.open(&job.target).await?;
    let _turn = room.turn(job).await?;
    let new = NewBackingImage {
        name: id.name.as_str().parse()?,
        size,
        checksum: image.checksum()?.to_string(),
        compression: new.compression,
        labels: new.labels.clone(),
        secret: new.secret.clone(),
        secret_namespace: new.secret_namespace.clone(),
    };
    let of_store = job.of_store();
    let made = store.backup_backing_image(new, Arc::new(file), &of_store);
    Ok(made.await?)
}
