//! `backup restore --salvage`: what is whole of a backup, as a raw file.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::ExitCode;

use backup::{Piece, RestoreOptions};
use futures_util::StreamExt as _;
use serde::Serialize;

use super::place::Which;
use super::{Context, Failure};
use crate::cli::{output, progress};

/// What came of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Salvaged {
    file: String,
    size: u64,
    /// Bytes that are whole; holes count for none.
    restored: u64,
    lost: Vec<Lost>,
}

#[derive(Debug, Serialize)]
struct Lost {
    offset: u64,
    length: u64,
    why: String,
}

pub(super) async fn run(
    context: &Context,
    which: &Which,
    path: &Path,
) -> Result<ExitCode, Failure> {
    // A file that is there could keep its old bytes where the backup has holes.
    let file = File::create_new(path)
        .map_err(|error| format!("cannot create {}: {error}", path.display()))?;
    match salvage(context, which, (path, &file)).await {
        Ok(salvaged) => {
            output::json(&salvaged)?;
            Ok(if salvaged.lost.is_empty() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }
        Err(failure) => {
            // What is left of it would only be in the way of the next attempt.
            let _ = std::fs::remove_file(path);
            Err(failure)
        }
    }
}

async fn salvage(
    context: &Context,
    which: &Which,
    (path, file): (&Path, &File),
) -> Result<Salvaged, Failure> {
    let cannot =
        |what: &str, error: std::io::Error| format!("cannot {what} {}: {error}", path.display());
    let (_, store) = which.open(context)?;
    let job = progress::own("salvage");
    let options = RestoreOptions {
        salvage: true,
        ..RestoreOptions::default()
    };
    let plan = store.plan_restore(&which.item()?, &options, &job).await?;
    if let Some(base) = plan.base() {
        return Err(format!(
            "the backup holds only what differs from base image {} (sha512:{}): restore it with the daemon of a \
             disk that has the image",
            base.name, base.checksum
        )
        .into());
    }
    let size = plan.size();
    file.set_len(size)
        .map_err(|error| cannot("set the length of", error))?;
    let mut salvaged = Salvaged {
        file: path.display().to_string(),
        size,
        restored: 0,
        lost: Vec::new(),
    };
    let mut pieces = Box::pin(plan.pieces());
    while let Some(piece) = pieces.next().await {
        match piece? {
            Piece::Bytes { offset, bytes } => {
                let left = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
                let bytes = &bytes[..bytes.len().min(left)];
                let written = file.write_all_at(bytes, offset);
                written.map_err(|error| cannot("write", error))?;
                salvaged.restored += bytes.len() as u64;
            }
            Piece::Lost { range, why } => salvaged.lost.push(Lost {
                offset: range.start,
                length: range.end - range.start,
                why,
            }),
        }
    }
    file.sync_all().map_err(|error| cannot("sync", error))?;
    Ok(salvaged)
}
