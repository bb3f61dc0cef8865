//! The header of a qcow2 image: parsed once, checked against every limit, then trusted.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use types::{ByteSize, SECTOR};

use super::Limits;
use super::units::{Geometry, HostOffset};
use crate::error::Refusal;
use crate::format::QCOW_MAGIC;
use crate::{Error, Result};

/// The two compressions of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    Zlib,
    Zstd,
}

/// What reading an image needs of its header. Whoever holds one knows that all limits hold.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) version: u32,
    pub(super) geometry: Geometry,
    pub(super) virtual_size: u64,
    pub(super) l1_offset: HostOffset,
    /// The entries that the virtual size needs: the table may be longer.
    pub(super) l1_entries: usize,
    pub(super) compression: Compression,
}

pub(super) mod feature {
    pub(super) const DIRTY: u64 = 1 << 0;
    pub(super) const CORRUPT: u64 = 1 << 1;
    pub(super) const DATA_FILE: u64 = 1 << 2;
    pub(in crate::qcow2) const COMPRESSION: u64 = 1 << 3;
    pub(super) const EXTENDED_L2: u64 = 1 << 4;
    pub(super) const KNOWN: u64 = DIRTY | CORRUPT | DATA_FILE | COMPRESSION | EXTENDED_L2;
}

/// Types of header extensions.
mod extension {
    pub(super) const END: u32 = 0;
    pub(super) const DATA_FILE: u32 = 0x4441_5441;
    pub(super) const ENCRYPTION: u32 = 0x0537_be77;
    pub(super) const FEATURE_NAMES: u32 = 0x6803_f857;
}

/// The length of a version 2 header, and the least of a version 3 one, in bytes.
const V2_LENGTH: u32 = 72;
const V3_LENGTH: u32 = 104;
/// QEMU's own bounds (`block/qcow2.h`): what it does not open, nobody makes.
pub(super) const L1_BYTES_MAX: u64 = 32 << 20;
pub(super) const REFCOUNT_TABLE_BYTES_MAX: u64 = 8 << 20;
const SNAPSHOTS_MAX: u32 = 65_536;
pub(super) const CLUSTER_BITS: std::ops::RangeInclusive<u32> = 9..=21;
/// A cluster with subclusters is at least 16 KiB, so that a subcluster is at least a sector.
const SUBCLUSTERED_BITS_MIN: u32 = 14;

fn damaged(what: &'static str, value: impl Into<u64>) -> Error {
    Error::Damaged {
        what,
        value: value.into(),
    }
}

fn be32(bytes: &[u8], offset: usize) -> u32 {
    u32::from_be_bytes(
        bytes[offset..offset + 4]
            .try_into()
            .expect("four bytes were sliced"),
    )
}

fn be64(bytes: &[u8], offset: usize) -> u64 {
    u64::from_be_bytes(
        bytes[offset..offset + 8]
            .try_into()
            .expect("eight bytes were sliced"),
    )
}

impl Header {
    /// Reads and checks the header of a file of `file_size` bytes.
    pub(super) fn read(file: &File, file_size: u64, limits: Limits) -> Result<Self> {
        const READ: &str = "read the qcow2 header";
        let mut fixed = [0; 112];
        let fixed_len = usize::try_from(file_size.min(112)).unwrap_or(112);
        file.read_exact_at(&mut fixed[..fixed_len], 0)
            .map_err(Error::io(READ))?;
        if fixed_len < V2_LENGTH as usize || fixed[..4] != QCOW_MAGIC {
            return Err(damaged("it does not start with a qcow2 header", file_size));
        }
        let raw = RawHeader::parse(&fixed, fixed_len)?;
        raw.refuse_other_files()?;
        let cluster_size = raw.check_cluster_size()?;
        let mut first = vec![0; usize::try_from(cluster_size.min(file_size)).unwrap_or(0)];
        file.read_exact_at(&mut first, 0).map_err(Error::io(READ))?;
        raw.check_extensions(&first)?;
        raw.check(file_size, limits)
    }
}

/// The fields as they stand in the file, unchecked. Names are those of the specification.
struct RawHeader {
    version: u32,
    backing_file_offset: u64,
    backing_file_size: u32,
    cluster_bits: u32,
    size: u64,
    crypt_method: u32,
    l1_size: u32,
    l1_table_offset: u64,
    refcount_table_offset: u64,
    refcount_table_clusters: u32,
    nb_snapshots: u32,
    snapshots_offset: u64,
    incompatible_features: u64,
    refcount_order: u32,
    header_length: u32,
    compression_type: u8,
}

impl RawHeader {
    /// `len` is how many of the bytes are the file's.
    fn parse(bytes: &[u8; 112], len: usize) -> Result<Self> {
        let version = be32(bytes, 4);
        if !(2..=3).contains(&version) {
            return Err(Error::Refused(Refusal::Version(version)));
        }
        let is_v3 = version == 3;
        if is_v3 && len < V3_LENGTH as usize {
            return Err(damaged("its header is cut short", len as u64));
        }
        let header_length = if is_v3 { be32(bytes, 100) } else { V2_LENGTH };
        Ok(Self {
            version,
            backing_file_offset: be64(bytes, 8),
            backing_file_size: be32(bytes, 16),
            cluster_bits: be32(bytes, 20),
            size: be64(bytes, 24),
            crypt_method: be32(bytes, 32),
            l1_size: be32(bytes, 36),
            l1_table_offset: be64(bytes, 40),
            refcount_table_offset: be64(bytes, 48),
            refcount_table_clusters: be32(bytes, 56),
            nb_snapshots: be32(bytes, 60),
            snapshots_offset: be64(bytes, 64),
            incompatible_features: if is_v3 { be64(bytes, 72) } else { 0 },
            refcount_order: if is_v3 { be32(bytes, 96) } else { 4 },
            header_length,
            compression_type: if header_length > V3_LENGTH {
                bytes[104]
            } else {
                0
            },
        })
    }

    /// What would make us open or need another file or a key. First, so that no other complaint
    /// hides it.
    fn refuse_other_files(&self) -> Result<()> {
        let refusal = if self.backing_file_offset != 0 || self.backing_file_size != 0 {
            Refusal::BackingFile
        } else if self.incompatible_features & feature::DATA_FILE != 0 {
            Refusal::DataFile
        } else if self.crypt_method != 0 {
            Refusal::Encrypted
        } else {
            return Ok(());
        };
        Err(Error::Refused(refusal))
    }

    fn check_cluster_size(&self) -> Result<u64> {
        if !CLUSTER_BITS.contains(&self.cluster_bits) {
            return Err(damaged(
                "its cluster_bits are not in 9 to 21",
                self.cluster_bits,
            ));
        }
        let cluster_size = 1 << self.cluster_bits;
        let length = u64::from(self.header_length);
        let is_long_enough = self.version == 2 || self.header_length >= V3_LENGTH;
        if !is_long_enough || !length.is_multiple_of(8) || length > cluster_size {
            return Err(damaged(
                "its header_length is not valid",
                self.header_length,
            ));
        }
        Ok(cluster_size)
    }

    /// Walks the extensions in the first cluster: refuses the dangerous ones, and names the unknown
    /// features from the image's own table.
    fn check_extensions(&self, first: &[u8]) -> Result<()> {
        let mut names = String::new();
        let unknown = self.incompatible_features & !feature::KNOWN;
        let mut rest = first.get(self.header_length as usize..).unwrap_or_default();
        while let Some((head, tail)) = rest.split_at_checked(8) {
            let (kind, len) = (be32(head, 0), be32(head, 4));
            let padded = len.checked_next_multiple_of(8).unwrap_or(u32::MAX) as usize;
            let body = tail.get(..len as usize);
            match (kind, body) {
                (extension::END, _) => break,
                (_, None) => return Err(damaged("a header extension is cut short", kind)),
                (extension::DATA_FILE, _) => return Err(Error::Refused(Refusal::DataFile)),
                (extension::ENCRYPTION, _) => return Err(Error::Refused(Refusal::Encrypted)),
                (extension::FEATURE_NAMES, Some(body)) => names = feature_names(body, unknown),
                _ => {}
            }
            rest = tail.get(padded..).unwrap_or_default();
        }
        if unknown != 0 {
            return Err(Error::Refused(Refusal::UnknownFeatures {
                bits: unknown,
                names,
            }));
        }
        Ok(())
    }

    fn check(&self, file_size: u64, limits: Limits) -> Result<Header> {
        if self.incompatible_features & feature::CORRUPT != 0 {
            return Err(Error::Refused(Refusal::Corrupt));
        }
        let has_subclusters = self.incompatible_features & feature::EXTENDED_L2 != 0;
        if has_subclusters && self.cluster_bits < SUBCLUSTERED_BITS_MIN {
            return Err(damaged(
                "its clusters are too small for subclusters",
                self.cluster_bits,
            ));
        }
        let geometry = Geometry {
            cluster_bits: self.cluster_bits,
            has_subclusters,
        };
        let (size, max) = (ByteSize(self.size), limits.virtual_size_max);
        if self.size == 0 || !size.is_multiple_of(SECTOR) {
            return Err(damaged(
                "its virtual size is not a positive multiple of 512",
                self.size,
            ));
        }
        if size > max {
            return Err(Error::TooLarge { size, max });
        }
        self.check_unused(geometry, file_size)?;
        let l1_entries = self.size.div_ceil(1 << geometry.l1_bits());
        if l1_entries > u64::from(self.l1_size) {
            return Err(damaged(
                "its L1 table is too short for its virtual size",
                self.l1_size,
            ));
        }
        check_table(
            "the location of its L1 table is not valid",
            geometry,
            file_size,
            Table {
                offset: self.l1_table_offset,
                bytes: u64::from(self.l1_size) * 8,
                bytes_max: L1_BYTES_MAX,
            },
        )?;
        Ok(Header {
            version: self.version,
            geometry,
            virtual_size: self.size,
            l1_offset: HostOffset(self.l1_table_offset),
            l1_entries: usize::try_from(l1_entries)
                .map_err(|_| damaged("its L1 table is too long", l1_entries))?,
            compression: self.check_compression()?,
        })
    }

    fn check_compression(&self) -> Result<Compression> {
        let compression = match self.compression_type {
            0 => Compression::Zlib,
            1 => Compression::Zstd,
            other => return Err(Error::Refused(Refusal::Compression(other))),
        };
        let says_other = self.incompatible_features & feature::COMPRESSION != 0;
        if says_other != (compression != Compression::Zlib) {
            let what = "its compression_type and its features disagree";
            return Err(damaged(what, self.compression_type));
        }
        Ok(compression)
    }

    /// What reading does not use: checked all the same, so that what we take QEMU takes too.
    fn check_unused(&self, geometry: Geometry, file_size: u64) -> Result<()> {
        if self.refcount_order > 6 {
            return Err(damaged(
                "its refcount_order is more than 6",
                self.refcount_order,
            ));
        }
        let refcount_table_bytes = u64::from(self.refcount_table_clusters) << geometry.cluster_bits;
        if refcount_table_bytes == 0 {
            return Err(damaged("it has no refcount table", refcount_table_bytes));
        }
        check_table(
            "the location of its refcount table is not valid",
            geometry,
            file_size,
            Table {
                offset: self.refcount_table_offset,
                bytes: refcount_table_bytes,
                bytes_max: REFCOUNT_TABLE_BYTES_MAX,
            },
        )?;
        let is_aligned = self
            .snapshots_offset
            .is_multiple_of(geometry.cluster_size());
        if self.nb_snapshots > SNAPSHOTS_MAX || (self.nb_snapshots > 0 && !is_aligned) {
            return Err(damaged(
                "its snapshot table is not valid",
                self.nb_snapshots,
            ));
        }
        Ok(())
    }
}

/// Where the header says that a table is.
struct Table {
    offset: u64,
    bytes: u64,
    bytes_max: u64,
}

/// A table starts at a cluster behind the header and lies wholly in the file.
fn check_table(
    what: &'static str,
    geometry: Geometry,
    file_size: u64,
    Table {
        offset,
        bytes,
        bytes_max,
    }: Table,
) -> Result<()> {
    let is_aligned = offset != 0 && offset.is_multiple_of(geometry.cluster_size());
    let is_inside = offset
        .checked_add(bytes)
        .is_some_and(|end| end <= file_size);
    if is_aligned && is_inside && bytes <= bytes_max {
        return Ok(());
    }
    Err(damaged(what, offset))
}

/// The names that the image gives to the incompatible features `bits`, for a message. The table's
/// entries have 48 bytes: type (0 is incompatible), bit number, name.
fn feature_names(table: &[u8], bits: u64) -> String {
    let names = table.chunks_exact(48).filter_map(|entry| {
        let is_wanted = entry[0] == 0 && entry[1] < 64 && bits >> entry[1] & 1 == 1;
        let name = entry[2..]
            .split(|byte| *byte == 0)
            .next()
            .unwrap_or_default();
        is_wanted.then(|| name.escape_ascii().to_string())
    });
    names.take(8).collect::<Vec<_>>().join(", ")
}
