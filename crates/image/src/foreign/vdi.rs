//! VDI, VirtualBox's format: a header, a map of blocks, the blocks.

use super::file::{Source, Table, field, u32_at, u64_at};
use super::{Blocks, Foreign, Place, Run};
use crate::Result;

/// Where the header begins to be of use, behind a text for people.
const SIGNATURE: u32 = 0xbeda_107f;
const HEADER: usize = 512;
/// 1.1, the only version that VirtualBox has written since 2007.
const VERSION: u32 = 0x0001_0001;
/// The only size of blocks that VirtualBox and QEMU write.
const BLOCK: u64 = 1 << 20;
/// Entries of the map from here on are no blocks: never written, or discarded.
const NO_BLOCK: u32 = 0xffff_fffe;
const SECTOR: u64 = 512;

const DYNAMIC: u32 = 1;
const STATIC: u32 = 2;

#[derive(Debug)]
pub(super) struct Vdi {
    file: Source,
    size: u64,
    data: u64,
    map: Table,
}

impl Vdi {
    pub(super) fn open(file: Source) -> Result<Self> {
        const VDI: Foreign = Foreign::Vdi;
        let header = file.bytes(0, HEADER)?;
        let word = |offset| u32_at(&header, offset);
        if word(64) != SIGNATURE {
            return Err(VDI.refused("does not start as a VDI image does"));
        }
        if word(68) != VERSION {
            return Err(VDI.refused("has a version other than 1.1"));
        }
        if !matches!(word(76), DYNAMIC | STATIC) {
            return Err(VDI.refused("is neither dynamic nor static: it needs other files"));
        }
        // The uuids of the image that it was linked to, and of its parent.
        if field::<16>(&header, 424) != [0; 16] || field::<16>(&header, 440) != [0; 16] {
            return Err(VDI.refused("is a difference to another image, which is not read"));
        }
        let (map, data) = (u64::from(word(340)), u64::from(word(344)));
        for offset in [map, data] {
            if offset < HEADER as u64 || !offset.is_multiple_of(SECTOR) {
                return Err(VDI.damaged("a table's offset", offset));
            }
        }
        let (sector, block, extra) = (word(360), word(376), word(380));
        if u64::from(sector) != SECTOR || u64::from(block) != BLOCK || extra != 0 {
            return Err(VDI.refused("has sectors or blocks of an unknown size"));
        }
        let (size, blocks) = (u64_at(&header, 368), u64::from(word(384)));
        // QEMU wrote odd sizes once, and reads them so.
        let whole = size.checked_next_multiple_of(SECTOR);
        let Some(size) = whole.filter(|size| *size <= blocks * BLOCK) else {
            return Err(VDI.damaged("its size", size));
        };
        let map = Table::new(&file, map, blocks, 4)?;
        Ok(Self {
            file,
            size,
            data,
            map,
        })
    }
}

impl Blocks for Vdi {
    fn format(&self) -> Foreign {
        Foreign::Vdi
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn file(&self) -> &Source {
        &self.file
    }

    fn run(&self, offset: u64) -> Result<Run> {
        let within = offset % BLOCK;
        let len = (BLOCK - within).min(self.size - offset);
        let entry = self.map.word(&self.file, offset / BLOCK)?;
        let place = if entry >= NO_BLOCK {
            Place::Zero
        } else {
            // 32 bits of MiB and a 32-bit offset do not overflow.
            let at = self.data + u64::from(entry) * BLOCK + within;
            if !self.file.holds(at, len) {
                return Err(Foreign::Vdi.damaged("a block lies behind the file's end", at));
            }
            Place::Data(at)
        };
        Ok(Run { place, len })
    }
}
