//! How full a volume is, and how it is. Looks and never touches.

use std::path::Path;

use rustix::fs::StatVfs;
use types::{ByteSize, VolumeName};

use super::inspect::{self, ANSWER_WITHIN};
use super::{Amounts, Condition, Stats, Usage, condition, locate};
use crate::device::BlockDevice;
use crate::mountinfo::{self, Mount};
use crate::{Error, Result, bounded};

pub(super) fn stats(volume: &VolumeName, path: &Path) -> Result<Stats> {
    let mounts = mountinfo::read()?;
    let here = locate::find_among(&mounts, volume, path)?;
    let mounted = here
        .mount
        .as_ref()
        .filter(|mount| !inspect::is_device_node(mount));
    let (usage, mut troubles) = if let Some(mount) = mounted {
        file_system(mount, &here.device)
    } else {
        let size = ByteSize(here.device.size()?);
        (Some(Usage::Block { size }), Vec::new())
    };
    // A disk that hangs must not hide what is known.
    let name = Path::new("/dev").join(here.device.name());
    match bounded::run(&name, ANSWER_WITHIN, move || {
        condition::of_file(&here, &mounts)
    }) {
        Ok(more) => troubles.extend(more),
        Err(error) => troubles.push(types::report(&error).to_string()),
    }
    let condition = Condition {
        abnormal: !troubles.is_empty(),
        message: if troubles.is_empty() {
            "the volume is well".to_owned()
        } else {
            troubles.join("; ")
        },
    };
    Ok(Stats { usage, condition })
}

/// How full the mounted file system is, and what is wrong with it.
pub(super) fn file_system(mount: &Mount, device: &BlockDevice) -> (Option<Usage>, Vec<String>) {
    let trouble = condition::of_mount(mount, "the file system");
    if mount.has_super_option("shutdown") {
        return (None, trouble.into_iter().collect());
    }
    let (point, looked_at, name) = (mount.point.clone(), mount.clone(), device.name().to_owned());
    let answer = bounded::run(&mount.point, ANSWER_WITHIN, move || {
        let stat = rustix::fs::statvfs(&point)?;
        // statfs answers from memory; the directory of a broken file system does not.
        if let Some(entry) = std::fs::read_dir(&point)?.next() {
            entry?;
        }
        let more = match BlockDevice::named(&name) {
            Ok(Some(device)) => condition::of_file_system(&looked_at, &device),
            _ => Vec::new(),
        };
        Ok::<(StatVfs, Vec<String>), std::io::Error>((stat, more))
    });
    let failed = |text: String| (None, trouble.clone().into_iter().chain([text]).collect());
    match answer {
        Err(hung @ Error::Hung { .. }) => failed(hung.to_string()),
        Err(error) => failed(types::report(&error).to_string()),
        Ok(Err(error)) => failed(format!("the file system does not work: {error}")),
        Ok(Ok((stat, more))) => (
            Some(usage(&stat)),
            trouble.into_iter().chain(more).collect(),
        ),
    }
}

fn usage(stat: &StatVfs) -> Usage {
    let unit = stat.f_frsize;
    let bytes = Amounts {
        total: stat.f_blocks.saturating_mul(unit),
        used: stat
            .f_blocks
            .saturating_sub(stat.f_bfree)
            .saturating_mul(unit),
        available: stat.f_bavail.saturating_mul(unit),
    };
    let inodes = Amounts {
        total: stat.f_files,
        used: stat.f_files.saturating_sub(stat.f_ffree),
        available: stat.f_favail,
    };
    Usage::FileSystem { bytes, inodes }
}
