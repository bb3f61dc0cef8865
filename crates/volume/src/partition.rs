//! One partition of a volume: its location and its contents. The table comes from an image and is
//! hostile: it is parsed here, without privileges, and the node gets two numbers.

use std::fs::File;
use std::path::Path;

use probe::{FileDisk, Part};
use serde::{Deserialize, Serialize};
use types::SECTOR;

use store::Content;
use store::IoContext;

use crate::error::{Error, Result};

/// A partition as a volume's record has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Partition {
    /// Its number, as Linux counts: from 1, logical ones from 5.
    pub number: u32,
    pub offset: u64,
    pub length: u64,
    pub content: Content,
}

/// Types of partitions of a master boot record that only hold others.
const EXTENDED: [&str; 3] = ["0x05", "0x0f", "0x85"];

impl Partition {
    /// Partition `number` of the disk in `file`, which lies at `path`.
    pub(super) fn find(file: &File, path: &Path, number: u32) -> Result<Self> {
        let opened = file.try_clone().and_then(FileDisk::new);
        let disk = opened.context("open", path)?;
        let partitions = probe::partitions(&disk).context("read the partitions of", path)?;
        let usable = |one: &&probe::Partition| {
            let end = one.start.checked_add(one.len);
            let inside = end.is_some_and(|end| end <= probe::Disk::size(&disk));
            let aligned = one.start.is_multiple_of(SECTOR) && one.len.is_multiple_of(SECTOR);
            inside
                && aligned
                && one.start > 0
                && one.len > 0
                && !EXTENDED.contains(&one.kind.as_str())
        };
        let found = partitions
            .iter()
            .filter(usable)
            .find(|one| one.number == number);
        let Some(found) = found else {
            let numbers = partitions.iter().filter(usable).take(16);
            let numbers: Vec<_> = numbers.map(|one| one.number.to_string()).collect();
            let why = match numbers.as_slice() {
                [] => "the image has no partition that could be mounted".to_owned(),
                numbers => format!(
                    "the image has no partition {number}; it has {}",
                    numbers.join(", ")
                ),
            };
            return Err(Error::InvalidField {
                field: "partition",
                why,
            });
        };
        let (offset, length) = (found.start, found.len);
        let part = Part::new(disk, offset..offset + length).context("look into", path)?;
        let content = probe::probe(&part)
            .context("probe a partition of", path)?
            .into();
        Ok(Self {
            number,
            offset,
            length,
            content,
        })
    }
}
