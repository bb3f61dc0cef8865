//! VHDX, Hyper-V's format: a table of blocks, with the entry of a bitmap after each few of them.

use super::file::{Source, Table};
use super::regions::{self, Shape};
use super::{Blocks, Foreign, Place, Run};
use crate::Result;

/// A bitmap, and with it a chunk of the table, covers this many sectors.
const CHUNK_SECTORS: u64 = 1 << 23;
/// Blocks lie at whole MiB; below, an entry has its state.
const PLACE: u64 = !0xf_ffff;
const STATE: u64 = 7;
/// The first MiB has the headers.
const MIB: u64 = 1 << 20;

#[derive(Debug)]
pub(super) struct Vhdx {
    file: Source,
    shape: Shape,
    /// Payload blocks for each bitmap's entry.
    chunk: u64,
    table: Table,
}

impl Vhdx {
    pub(super) fn open(file: Source) -> Result<Self> {
        regions::check_headers(&file)?;
        let (table, metadata) = regions::regions(&file)?;
        let shape = regions::shape(&file, metadata)?;
        let chunk = CHUNK_SECTORS * shape.logical_sector / shape.block;
        let blocks = shape.size.div_ceil(shape.block);
        let entries = blocks + (blocks - 1) / chunk;
        if table.len / 8 < entries {
            return Err(Foreign::Vhdx.damaged("its table of blocks is too short", table.len));
        }
        let table = Table::new(&file, table.offset, entries, 8)?;
        Ok(Self {
            file,
            shape,
            chunk,
            table,
        })
    }
}

impl Blocks for Vhdx {
    fn format(&self) -> Foreign {
        Foreign::Vhdx
    }

    fn size(&self) -> u64 {
        self.shape.size
    }

    fn file(&self) -> &Source {
        &self.file
    }

    fn run(&self, offset: u64) -> Result<Run> {
        let (index, within) = (offset / self.shape.block, offset % self.shape.block);
        let len = (self.shape.block - within).min(self.shape.size - offset);
        let entry = self.table.long(&self.file, index + index / self.chunk)?;
        let place = match entry & STATE {
            // Not present, undefined, zero, unmapped: an image without a parent has zeros there.
            0..=3 => Place::Zero,
            6 => {
                let start = entry & PLACE;
                let at = start.checked_add(within);
                let at = at.filter(|at| start >= MIB && self.file.holds(*at, len));
                let Some(at) = at else {
                    return Err(Foreign::Vhdx.damaged("a block is not where one can be", start));
                };
                Place::Data(at)
            }
            _ => return Err(Foreign::Vhdx.damaged("a block's state", entry)),
        };
        Ok(Run { place, len })
    }
}
