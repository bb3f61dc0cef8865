//! Backups of backing images, as Longhorn's control plane asks for them: it says the address of the store and
//! the keys of its Secret with each request, and polls.

use std::collections::BTreeMap;

use backup::{Address, Compression};
use backup_jobs::{Asked, Jobs, NewImageBackup, Restore, Stage, View};
use catalog::source::Source;
use proto::bimrpc as pb;
use types::ImageId;

use crate::error::{Error, Result};
use crate::query::checksum;

/// The labels and the credentials of a request, in bytes.
const PAIRS_MAX: usize = 256 << 10;

fn invalid(field: &'static str, why: impl Into<String>) -> Error {
    let why = why.into();
    Error::InvalidField { field, why }
}

/// The backup at an address, as the source of an image.
pub(crate) fn restore(
    jobs: &Jobs,
    url: &str,
    limit: &str,
    credential: BTreeMap<String, String>,
) -> Result<Source> {
    // How many blocks come at once is decided here: memory is bounded.
    if !limit.parse::<u32>().is_ok_and(|limit| limit > 0) {
        return Err(invalid(
            "concurrent-limit",
            format!("{:?} is not a number from 1", types::shown(limit)),
        ));
    }
    let address: Address = url.parse().map_err(backup_jobs::Error::from)?;
    let item = address.item.ok_or_else(|| {
        invalid(
            "backup-url",
            "it is the address of a store; it needs backingImage=NAME",
        )
    })?;
    let asked = Asked {
        name: String::new(),
        address: address.store.to_string(),
        credentials: credential,
    };
    Ok(Restore::new(jobs, &asked, item)?.into())
}

/// A backup as the control plane asks for it.
pub(crate) fn new_backup(
    request: pb::BackupCreateRequest,
    image: ImageId,
) -> Result<NewImageBackup> {
    let sum = checksum(&request.checksum)?;
    let sum = sum.ok_or_else(|| invalid("checksum", "it is missing"))?;
    let bytes = |text: &String| text.len();
    let labels: usize = request.labels.iter().map(bytes).sum();
    let pairs = request.credential.iter();
    let credential: usize = pairs.map(|(key, value)| key.len() + value.len()).sum();
    if labels + credential > PAIRS_MAX {
        return Err(invalid(
            "labels",
            format!("they have more than {PAIRS_MAX} bytes"),
        ));
    }
    let labels = request
        .labels
        .iter()
        .map(|label| match label.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => Err(invalid(
                "labels",
                format!("{:?} is not KEY=VALUE", types::shown(label)),
            )),
        });
    let compression = match request.compression_method.as_str() {
        "" => Compression::Lz4,
        text => text.parse().map_err(backup_jobs::Error::from)?,
    };
    let parameter = |key: &str| request.parameters.get(key).map(|text| types::shown(text));
    Ok(NewImageBackup {
        secret: parameter("secret").unwrap_or_default(),
        secret_namespace: parameter("secret-namespace").unwrap_or_default(),
        labels: labels.collect::<Result<_>>()?,
        target: Asked {
            name: String::new(),
            address: request.backup_target,
            credentials: request.credential.into_iter().collect(),
        },
        image,
        checksum: sum,
        compression,
    })
}

/// How far a backup is, in the words of the control plane.
pub(crate) fn status(view: &View) -> pb::BackupStatusResponse {
    let state = &view.state;
    let done = match state.total {
        0 => 0,
        total => i32::try_from(state.processed.saturating_mul(100) / total).unwrap_or(100),
    };
    let (progress, word, error) = match &state.stage {
        Stage::Complete(_) => (100, "complete", String::new()),
        Stage::Failed { message, .. } => (done.min(99), "error", message.clone()),
        Stage::Uploading => (done.min(99), "in_progress", String::new()),
        Stage::Finishing => (99, "in_progress", String::new()),
        Stage::Pending | Stage::Comparing => (0, "in_progress", String::new()),
    };
    let complete = matches!(state.stage, Stage::Complete(_));
    let url = || match view.name.parse() {
        Ok(name) => Address {
            store: view.target.address.clone(),
            item: Some(backup::Item::BackingImage(name)),
        }
        .to_string(),
        Err(_) => String::new(),
    };
    pb::BackupStatusResponse {
        progress,
        backup_url: if complete { url() } else { String::new() },
        error,
        state: word.to_owned(),
    }
}
