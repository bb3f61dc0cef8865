//! How full a volume is, and how it is. Looks and never touches.

use std::path::Path;

use rustix::fs::StatVfs;
use types::{ByteSize, VolumeName};

use super::inspect::{self, ANSWER_WITHIN};
use super::locate::{self, Here};
use super::{Amounts, Condition, Stats, Usage, bounded};
use crate::mountinfo::Mount;
use crate::{Error, Result};

pub(super) fn stats(volume: &VolumeName, path: &Path) -> Result<Stats> {
    let here = locate::find(volume, path)?;
    let trouble = file_trouble(&here);
    let (usage, more) = match here
        .mount
        .as_ref()
        .filter(|mount| !inspect::is_device_node(mount))
    {
        Some(mount) => file_system(mount),
        None => (
            Some(Usage::Block {
                size: ByteSize(here.device.size()?),
            }),
            None,
        ),
    };
    let condition = match more.or(trouble) {
        Some(message) => Condition {
            abnormal: true,
            message,
        },
        None => Condition {
            abnormal: false,
            message: "the volume is well".to_owned(),
        },
    };
    Ok(Stats { usage, condition })
}

/// What is wrong with the file below, if anything.
fn file_trouble(here: &Here) -> Option<String> {
    let path = Path::new("/sys/block")
        .join(here.device.name())
        .join("loop/backing_file");
    let file = std::fs::read_to_string(path).ok()?;
    // The kernel's own way to say that a file has no name any more.
    file.trim_end().ends_with(" (deleted)").then(|| {
        "the volume's file was deleted while it is in use: its data is lost when it is unstaged"
            .to_owned()
    })
}

fn file_system(mount: &Mount) -> (Option<Usage>, Option<String>) {
    if mount.has_super_option("shutdown") {
        return (
            None,
            Some("the file system has shut down after an error".to_owned()),
        );
    }
    let point = mount.point.clone();
    let answer = bounded::run(&mount.point, ANSWER_WITHIN, move || {
        let stat = rustix::fs::statvfs(&point)?;
        // statfs answers from memory; the directory of a broken file system does not.
        if let Some(entry) = std::fs::read_dir(&point)?.next() {
            entry?;
        }
        Ok::<StatVfs, std::io::Error>(stat)
    });
    match answer {
        Err(hung @ Error::Hung { .. }) => (None, Some(hung.to_string())),
        Err(error) => (None, Some(types::report(&error).to_string())),
        Ok(Err(error)) => (
            None,
            Some(format!("the file system does not work: {error}")),
        ),
        Ok(Ok(stat)) => {
            let went_read_only = mount.has_super_option("ro") && !mount.has_option("ro");
            let trouble = went_read_only
                .then(|| "the file system went read-only after an error; check it".to_owned());
            (Some(usage(&stat)), trouble)
        }
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
