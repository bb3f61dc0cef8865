//! `FileInfo`: an image as Longhorn's REST and gRPC show it.

use std::path::Path;

use proto::bimrpc as pb;
use serde::{Deserialize, Serialize};
use types::DiskUuid;

use catalog::lifecycle::Progress;
use catalog::{Lifecycle, Status};

/// A file of the sync server, in Longhorn's keys and their order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FileInfo {
    /// The disk that the request named.
    #[serde(rename = "diskUUID")]
    pub disk_uuid: String,
    /// SHA-512 that was asked for.
    pub expected_checksum: String,
    /// The path that names the file.
    pub file_path: String,
    /// Uuid of the image.
    pub uuid: String,
    /// Bytes of the file: asked for, until they are there.
    pub size: i64,
    /// Bytes that a guest sees; 0 until the file is ready.
    pub virtual_size: i64,
    /// Bytes of the disk that it takes; 0 until the file is ready.
    pub real_size: i64,
    /// pending, starting, in-progress, ready-for-transfer, ready, failed, unknown.
    pub state: String,
    /// 0 to 100.
    pub progress: i32,
    /// Bytes that have come.
    pub processed_size: i64,
    /// As Go prints a time.
    pub modification_time: String,
    /// SHA-512 of the file.
    pub current_checksum: String,
    /// Why it failed, or is looked at again.
    pub message: String,
    /// Copies of it that are being sent.
    pub sending_reference: i32,
}

impl FileInfo {
    /// What there is to say of an image whose file is at `path`.
    pub fn new(status: &Status, disk_uuid: Option<&DiskUuid>, path: &Path) -> Self {
        let mut info = Self {
            disk_uuid: disk_uuid.map(ToString::to_string).unwrap_or_default(),
            expected_checksum: status.expected.map(String::from).unwrap_or_default(),
            file_path: path.to_string_lossy().into_owned(),
            uuid: status.id.uuid.to_string(),
            size: signed(status.size),
            state: status.state.name().to_owned(),
            processed_size: signed(status.processed),
            sending_reference: i32::try_from(status.sending).unwrap_or(i32::MAX),
            ..Self::default()
        };
        if let Some(sidecar) = status.sidecar() {
            info.size = signed(sidecar.size);
            info.virtual_size = signed(sidecar.virtual_size);
            info.real_size = signed(sidecar.real_size);
            info.expected_checksum
                .clone_from(&sidecar.expected_checksum);
            info.current_checksum.clone_from(&sidecar.current_checksum);
            info.modification_time
                .clone_from(&sidecar.modification_time);
            info.processed_size = signed(sidecar.size);
        }
        match &status.state {
            Lifecycle::Pending | Lifecycle::Starting => {}
            Lifecycle::InProgress(progress) => {
                info.progress = i32::try_from(progress.percent()).unwrap_or(99);
            }
            Lifecycle::Ready(_) => info.progress = 100,
            Lifecycle::Failed(failure) => {
                info.message.clone_from(&failure.message);
                // People copy the sum that was found into what they ask for next.
                if let Some(found) = failure.found {
                    info.progress = 100;
                    info.current_checksum = found.to_string();
                }
            }
            Lifecycle::Unknown(why) => info.message.clone_from(why),
        }
        info
    }

    /// The same of a ready image whose SHA-512 is being computed: to Longhorn's manager that is a part of making it.
    #[must_use]
    pub fn still_summed(self) -> Self {
        let in_progress = Lifecycle::InProgress(Progress::default());
        Self {
            state: in_progress.name().to_owned(),
            progress: 99,
            ..self
        }
    }

    /// The same as gRPC says it; the name is not part of a file.
    pub fn response(self, name: &str) -> pb::BackingImageResponse {
        pb::BackingImageResponse {
            spec: Some(pb::BackingImageSpec {
                name: name.to_owned(),
                uuid: self.uuid,
                size: self.size,
                checksum: self.expected_checksum,
                virtual_size: self.virtual_size,
                real_size: self.real_size,
            }),
            status: Some(pb::BackingImageStatus {
                state: self.state,
                error_msg: self.message,
                sending_reference: self.sending_reference,
                sender_manager_address: String::new(),
                progress: self.progress,
                checksum: self.current_checksum,
            }),
        }
    }
}

/// Sizes are signed on the wire; none of ours comes near the limit.
fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::ImageId;

    #[test]
    fn keys_are_in_longhorns_order() {
        let mut status = Status::pending(
            ImageId::new("gone", "uuid-gone").unwrap(),
            store::Provenance::Unknown,
            None,
        );
        status.size = 8_388_608;
        let disk_uuid = "disk-2".parse().unwrap();
        let info = FileInfo::new(
            &status,
            Some(&disk_uuid),
            "/data/backing-images/gone-uuid-gone/backing".as_ref(),
        );
        let text = serde_json::to_string(&info).unwrap();
        assert_eq!(
            text,
            r#"{"diskUUID":"disk-2","expectedChecksum":"","filePath":"/data/backing-images/gone-uuid-gone/backing","uuid":"uuid-gone","size":8388608,"virtualSize":0,"realSize":0,"state":"pending","progress":0,"processedSize":0,"modificationTime":"","currentChecksum":"","message":"","sendingReference":0}"#
        );
    }
}
