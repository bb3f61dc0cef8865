//! Images whose bytes a client brings in pieces: taking a piece, and going on after a restart.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use store::UploadRecord;
use types::{ImageId, ImageName, ImageUuid, report};

use super::lifecycle::{Lifecycle, Progress};
use super::request::{Existing, NewImage};
use super::status::Status;
use super::{Catalog, Entry, not_ready};
use crate::error::{Error, Result};
use crate::source::{Pieces, Source, UPLOADS_MAX};

impl Catalog {
    /// Appends a piece to an upload, and gives the image as it is then.
    ///
    /// # Errors
    /// [`Error::UploadOffset`], [`Error::UploadBusy`] and [`Error::UploadDone`] say that nothing was taken;
    /// the status says where to go on.
    pub async fn write_upload(
        &self,
        name: &ImageName,
        uuid: &ImageUuid,
        offset: u64,
        piece: Bytes,
    ) -> Result<Status> {
        let entry = self.entry(name, Some(uuid))?;
        let desk = entry.desk().clone();
        let desk = desk.ok_or_else(|| Error::NoUpload(entry.id.clone()))?;
        match desk.take(offset, piece).await {
            Ok(()) => Ok(entry.status()),
            Err(error) => {
                self.inner.store.disk().note(&error);
                match (error, entry.status().state) {
                    (Error::UploadDone, state @ Lifecycle::Failed(_)) => {
                        Err(not_ready(&entry.id, &state))
                    }
                    (error, _) => Err(error),
                }
            }
        }
    }

    /// Goes on with an upload that an earlier process began.
    pub(super) fn go_on_with(&self, entry: &Arc<Entry>, record: &UploadRecord) {
        let pieces = Pieces::new(record.size, record.file_name.clone());
        match pieces {
            Ok(pieces) => {
                let new = NewImage {
                    name: Some(entry.id.name.clone()),
                    uuid: Some(entry.id.uuid.clone()),
                    size: record.size,
                    source: Some(Source::Pieces(pieces)),
                    expected: record.expected(),
                    format: record.format,
                    for_volumes: record.for_volumes,
                    existing: Existing::Join,
                };
                tracing::info!(image = %entry.id, synced = record.synced, size = record.size,
                    "goes on with an upload");
                self.bring_later(entry, new, false);
            }
            Err(error) => {
                tracing::warn!(image = %entry.id, error = %report(&error), "its record is wrong");
                entry.reporter().failed(&error);
            }
        }
    }
}

/// Refuses one more upload when there are as many as there may be.
pub(super) fn require_place(images: &BTreeMap<ImageId, Arc<Entry>>) -> Result<()> {
    let under_way = images.values().filter(|entry| entry.is_uploaded());
    if under_way.count() >= UPLOADS_MAX {
        return Err(Error::TooManyUploads(UPLOADS_MAX));
    }
    Ok(())
}

/// The state of an upload of which so much is there.
pub(super) fn state(processed: u64, total: u64) -> Lifecycle {
    Lifecycle::InProgress(Progress { processed, total })
}

impl Entry {
    /// Whether a client brings its bytes, and has not brought all.
    pub(super) fn is_uploaded(&self) -> bool {
        self.desk().is_some() && !self.board.look(|status| status.state.is_settled())
    }
}
