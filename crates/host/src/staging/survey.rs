//! What an earlier process left: for the start of a node plugin.
//!
//! A start undoes nothing: each call finishes what a crash interrupted, and the kubelet repeats its
//! calls. This only reports the present state, and removes empty records, which nobody will use.

use std::fs;
use std::path::Path;

use types::VolumeName;

use super::inspect::{self, AtPlace};
use super::record::{Kind, Record, RecordLock, SUFFIX};
use super::{Survivor, SurvivorState};
use crate::paths::Place;
use crate::{Error, Holder, Result};

/// How many directories deep records are looked for: kubelet's `<driver>/<hash>/`.
const DEPTH_MAX: u32 = 3;
/// How many directories are looked into: kubelet makes one for each volume of the node.
const DIRECTORIES_MAX: usize = 10_000;

pub(super) fn survey(directory: &Path) -> Result<Vec<Survivor>> {
    let mut found = Vec::new();
    let mut directories = vec![(directory.to_owned(), 0)];
    let mut seen = 0;
    while let Some((directory, depth)) = directories.pop() {
        seen += 1;
        if seen > DIRECTORIES_MAX {
            tracing::warn!("too many directories to look for records in; the rest is passed over");
            break;
        }
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::io("list", &directory)(error)),
        };
        for entry in entries.flatten() {
            let Ok(file_type) = entry.file_type() else {
                continue;
            };
            // Never into what is mounted: it may hang, and its content is not ours to read.
            if file_type.is_dir() && depth < DEPTH_MAX && !is_mounted(&entry.path()) {
                directories.push((entry.path(), depth + 1));
            }
            let name = entry.file_name();
            let volume = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
            if let Some(volume) = volume.and_then(|volume| VolumeName::new(volume).ok())
                && let Some(survivor) = look_at(&entry.path(), &volume)?
            {
                found.push(survivor);
            }
        }
    }
    Ok(found)
}

fn is_mounted(path: &Path) -> bool {
    Place::open(path).is_ok_and(|place| place.may_be_mounted())
}

fn look_at(path: &Path, volume: &VolumeName) -> Result<Option<Survivor>> {
    // Any name beside the record leads to its lock.
    let beside = Place::open(path)?;
    let lock = match RecordLock::acquire(&beside, volume) {
        Ok(lock) => lock,
        // Somebody works on it and will see to it.
        Err(Error::Busy(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    let Some(record) = lock.record().cloned() else {
        lock.remove()?;
        return Ok(None);
    };
    let state = state(volume, &record)?;
    Ok(Some(Survivor {
        volume: volume.clone(),
        staging_path: record.staging_path,
        state,
    }))
}

fn state(volume: &VolumeName, record: &Record) -> Result<SurvivorState> {
    if record.kind == Kind::Block {
        let devices = inspect::devices_of(volume, Holder::Pods, Some(&record.file))?;
        let is_attached = devices.iter().any(|(_, status)| !status.autoclear);
        return Ok(if is_attached {
            SurvivorState::Staged
        } else {
            SurvivorState::Interrupted
        });
    }
    let place = Place::open(&record.staging_path)?;
    Ok(match inspect::at(&place, volume)? {
        AtPlace::Ours(found) if inspect::is_dead(&found).unwrap_or(true) => SurvivorState::Dead,
        AtPlace::Ours(_) => SurvivorState::Staged,
        AtPlace::Nothing | AtPlace::Foreign(_) => SurvivorState::Interrupted,
    })
}
