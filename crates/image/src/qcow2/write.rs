//! Making a qcow2 image of a disk: version 3, the same bytes for the same disk.
//!
//! ```text
//! header │ L1 table │ data of L2 table 0 │ L2 table 0 │ data of 1 │ L2 table 1 │ … │ refcounts
//! ```
//!
//! Clusters of zeros are left out. The file is written from front to back, the header last: an
//! interrupted image does not start with a qcow2 header. Nothing is synced.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use flate2::{Compress, FlushCompress, Status};
use probe::Disk;
use types::SECTOR;

use super::header::{self, CLUSTER_BITS, Compression, L1_BYTES_MAX, REFCOUNT_TABLE_BYTES_MAX};
use super::tables::{COMPRESSED, COPIED};
use super::units::Geometry;
use crate::convert::is_zero;
use crate::format::QCOW_MAGIC;
use crate::{Error, Result};

/// How an image is made.
#[derive(Debug, Clone, Copy)]
pub struct CreateOptions {
    /// Whether and how its clusters are compressed. A cluster that does not get smaller is not.
    pub compression: Option<Compression>,
    /// log2 of the cluster size, 9 to 21. 16, which is 64 KiB, suits all.
    pub cluster_bits: u32,
}

impl Default for CreateOptions {
    fn default() -> Self {
        Self {
            compression: None,
            cluster_bits: 16,
        }
    }
}

/// The read and write unit, unless a cluster is longer.
const BATCH: u64 = 2 << 20;
/// The length of the header we write: with the compression type, padded to eight.
const HEADER_LENGTH: u32 = 112;
/// zlib's window in the format: 4 KiB.
const WINDOW_BITS: u8 = 12;
/// zlib's usual level. zstd's is 3.
const ZLIB_LEVEL: u32 = 6;
const ZSTD_LEVEL: i32 = 3;
const WRITE: &str = "write the qcow2 image";

/// Writes the contents of `disk` as a qcow2 image to `out`, whatever that held.
pub fn create(disk: &dyn Disk, out: &mut File, options: &CreateOptions) -> Result<()> {
    let mut writer = Writer::new(disk.size(), out, *options)?;
    writer.copy(disk)?;
    writer.finish()
}

/// Writes an image of `virtual_size` zeros to `out`.
pub fn create_empty(virtual_size: u64, out: &mut File, options: &CreateOptions) -> Result<()> {
    Writer::new(virtual_size, out, *options)?.finish()
}

struct Writer<'a> {
    out: &'a File,
    geometry: Geometry,
    compression: Option<Compression>,
    compressor: Option<Compressor>,
    virtual_size: u64,
    l1: Vec<u64>,
    /// Where the file ends so far: in the middle of a cluster after compressed ones.
    end: u64,
    /// One for each cluster of the file.
    refcounts: Vec<u16>,
}

impl<'a> Writer<'a> {
    fn new(virtual_size: u64, out: &'a File, options: CreateOptions) -> Result<Self> {
        let unmakeable = |what| Err(Error::Unmakeable { what });
        if !CLUSTER_BITS.contains(&options.cluster_bits) {
            return unmakeable("its cluster_bits must be in 9 to 21");
        }
        if virtual_size == 0 || !virtual_size.is_multiple_of(SECTOR) {
            return unmakeable("the disk's size must be a positive multiple of 512 bytes");
        }
        let geometry = Geometry {
            cluster_bits: options.cluster_bits,
            has_subclusters: false,
        };
        let l1_entries = virtual_size.div_ceil(1 << geometry.l1_bits());
        if l1_entries * 8 > L1_BYTES_MAX {
            return unmakeable("the disk is too large for clusters so small");
        }
        out.set_len(0).map_err(Error::io(WRITE))?;
        let mut writer = Self {
            out,
            geometry,
            compression: options.compression,
            compressor: options.compression.map(Compressor::new).transpose()?,
            virtual_size,
            l1: vec![0; usize::try_from(l1_entries).expect("at most 4 Mi entries")],
            end: 0,
            refcounts: Vec::new(),
        };
        writer.take(geometry.cluster_size());
        writer.take(l1_entries * 8);
        Ok(writer)
    }

    /// Takes whole clusters for `len` bytes at the end of the file.
    fn take(&mut self, len: u64) -> u64 {
        let size = self.geometry.cluster_size();
        let start = self.end.next_multiple_of(size);
        self.end = (start + len).next_multiple_of(size);
        self.count(start, self.end);
        start
    }

    /// Counts a reference to each cluster that the bytes from `start` to `end` touch.
    fn count(&mut self, start: u64, end: u64) {
        let bits = self.geometry.cluster_bits;
        let clusters = end.div_ceil(self.geometry.cluster_size());
        let place = |cluster| usize::try_from(cluster).expect("a file's clusters fit memory");
        if self.refcounts.len() < place(clusters) {
            self.refcounts.resize(place(clusters), 0);
        }
        for count in &mut self.refcounts[place(start >> bits)..place(clusters)] {
            // Compressed clusters have dozens of bytes at least: fewer than 2^16 share one of 2 MiB.
            *count += 1;
        }
    }

    fn write(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.out
            .write_all_at(bytes, offset)
            .map_err(Error::io(WRITE))
    }

    /// Copies every cluster that is not all zeros, L2 table by L2 table.
    fn copy(&mut self, disk: &dyn Disk) -> Result<()> {
        let read = || Error::disk("read the disk");
        let cluster = self.geometry.cluster_size();
        let batch = BATCH.max(cluster);
        let mut buffer = vec![0; usize::try_from(batch).expect("2 MiB")];
        let mut table = L2::default();
        let mut offset = 0;
        while let Some(range) = disk.next_data(offset).map_err(read())? {
            // Whole batches, so that a cluster that two ranges share is read once.
            let mut start = range.start.max(offset) & !(batch - 1);
            start = start.max(offset);
            while start < range.end {
                let end = (start & !(batch - 1)) + batch;
                let len = end.min(self.virtual_size) - start;
                let bytes = usize::try_from(len).expect("a batch at most");
                disk.read_exact_at(&mut buffer[..bytes], start)
                    .map_err(read())?;
                // The last cluster of an odd size ends in zeros.
                let padded = usize::try_from(len.next_multiple_of(cluster)).expect("a batch");
                buffer[bytes..padded].fill(0);
                self.copy_batch(&buffer[..padded], start, &mut table)?;
                start = end;
            }
            offset = start;
        }
        self.write_l2(&mut table)
    }

    /// Writes the clusters of `bytes`, which start at the guest offset `start`.
    fn copy_batch(&mut self, bytes: &[u8], start: u64, table: &mut L2) -> Result<()> {
        let cluster = usize::try_from(self.geometry.cluster_size()).expect("2 MiB at most");
        let bits = self.geometry.cluster_bits;
        // Plain clusters in a row are written at once.
        let mut row = 0..0;
        let mut row_at = 0;
        for (index, part) in bytes.chunks(cluster).enumerate() {
            let guest = start + (index * cluster) as u64;
            let place = index * cluster;
            let entry = if is_zero(part) {
                None
            } else if let Some(packed) = self.pack(part)? {
                Some(self.write_packed(&packed)?)
            } else {
                let at = self.take(cluster as u64);
                if row.end == place && row_at + row.len() as u64 == at {
                    row.end += cluster;
                } else {
                    self.write(&bytes[row], row_at)?;
                    row = place..place + cluster;
                    row_at = at;
                }
                Some(at | COPIED)
            };
            if let Some(entry) = entry {
                let index = guest >> self.geometry.l1_bits();
                if table.index != index && !table.entries.is_empty() {
                    self.write_l2(table)?;
                }
                if table.entries.is_empty() {
                    table.index = index;
                    table.entries.resize(1 << self.geometry.l2_bits(), 0);
                }
                let slot = guest >> bits & ((1 << self.geometry.l2_bits()) - 1);
                table.entries[usize::try_from(slot).expect("at most 2^18")] = entry;
            }
        }
        self.write(&bytes[row], row_at)
    }

    /// The cluster compressed, when that makes it smaller.
    fn pack(&mut self, cluster: &[u8]) -> Result<Option<Vec<u8>>> {
        self.compressor
            .as_mut()
            .map_or(Ok(None), |compressor| compressor.pack(cluster))
    }

    /// Writes a compressed cluster right behind the last one, and returns its L2 entry.
    fn write_packed(&mut self, packed: &[u8]) -> Result<u64> {
        let (start, end) = (self.end, self.end + packed.len() as u64);
        self.write(packed, start)?;
        self.count(start, end);
        self.end = end;
        let further_sectors = (end - 1) / 512 - start / 512;
        let offset_bits = 62 - (self.geometry.cluster_bits - 8);
        Ok(COMPRESSED | start | further_sectors << offset_bits)
    }

    fn write_l2(&mut self, table: &mut L2) -> Result<()> {
        if table.entries.is_empty() {
            return Ok(());
        }
        let at = self.take(self.geometry.cluster_size());
        self.write(&big_endian(&table.entries), at)?;
        self.l1[usize::try_from(table.index).expect("it is in the L1 table")] = at | COPIED;
        table.entries.clear();
        Ok(())
    }

    /// Writes the reference counts, the L1 table and, last, the header.
    fn finish(mut self) -> Result<()> {
        let cluster = self.geometry.cluster_size();
        self.write(&big_endian(&self.l1), cluster)?;
        let per_block = cluster / 2;
        let used = self.end.div_ceil(cluster);
        // The counts count themselves: grow until they fit.
        let (mut blocks, mut tables) = (1u64, 1u64);
        loop {
            let all = used + blocks + tables;
            let needed = all.div_ceil(per_block);
            let needed_tables = (needed * 8).div_ceil(cluster);
            if (needed, needed_tables) == (blocks, tables) {
                break;
            }
            (blocks, tables) = (needed.max(blocks), needed_tables.max(tables));
        }
        if tables * cluster > REFCOUNT_TABLE_BYTES_MAX {
            return Err(Error::Unmakeable {
                what: "it has too many clusters; use larger ones",
            });
        }
        let table_at = self.take(tables * cluster);
        let blocks_at = self.take(blocks * cluster);
        let mut counts: Vec<u8> = self
            .refcounts
            .iter()
            .flat_map(|c| c.to_be_bytes())
            .collect();
        counts.resize(
            usize::try_from(blocks * cluster).expect("it fits memory"),
            0,
        );
        let table: Vec<u64> = (0..blocks)
            .map(|block| blocks_at + block * cluster)
            .collect();
        self.write(&counts, blocks_at)?;
        self.write(&big_endian(&table), table_at)?;
        self.out.set_len(self.end).map_err(Error::io(WRITE))?;
        let header = self.header(table_at, tables);
        self.write(&header, 0)
    }

    fn header(&self, refcount_table: u64, refcount_table_clusters: u64) -> Vec<u8> {
        let cluster = self.geometry.cluster_size();
        let is_zstd = self.compression == Some(Compression::Zstd);
        let incompatible = if is_zstd {
            header::feature::COMPRESSION
        } else {
            0
        };
        let small = |number: u64| u32::try_from(number).expect("bounded by QEMU's own limits");
        let mut bytes = QCOW_MAGIC.to_vec();
        bytes.extend(3u32.to_be_bytes());
        bytes.extend([0; 12]); // no backing file
        bytes.extend(self.geometry.cluster_bits.to_be_bytes());
        bytes.extend(self.virtual_size.to_be_bytes());
        bytes.extend([0; 4]); // not encrypted
        bytes.extend(small(self.l1.len() as u64).to_be_bytes());
        bytes.extend(cluster.to_be_bytes()); // the L1 table follows the header
        bytes.extend(refcount_table.to_be_bytes());
        bytes.extend(small(refcount_table_clusters).to_be_bytes());
        bytes.extend([0; 12]); // no snapshots
        bytes.extend(incompatible.to_be_bytes());
        bytes.extend([0; 16]); // neither compatible nor autoclear features
        bytes.extend(4u32.to_be_bytes()); // reference counts of 2^4 bits
        bytes.extend(HEADER_LENGTH.to_be_bytes());
        bytes.extend([u8::from(is_zstd), 0, 0, 0, 0, 0, 0, 0]);
        debug_assert_eq!(
            bytes.len(),
            HEADER_LENGTH as usize,
            "the header has its length"
        );
        bytes
    }
}

/// The L2 table that is being filled.
#[derive(Default)]
struct L2 {
    index: u64,
    /// Empty while nothing is in it.
    entries: Vec<u64>,
}

fn big_endian(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

enum Compressor {
    Zlib(Compress),
    Zstd(zstd::bulk::Compressor<'static>),
}

impl Compressor {
    fn new(compression: Compression) -> Result<Self> {
        Ok(match compression {
            Compression::Zlib => {
                let level = flate2::Compression::new(ZLIB_LEVEL);
                Self::Zlib(Compress::new_with_window_bits(level, false, WINDOW_BITS))
            }
            Compression::Zstd => {
                let compressor = zstd::bulk::Compressor::new(ZSTD_LEVEL);
                Self::Zstd(compressor.map_err(Error::io("set up the compression"))?)
            }
        })
    }

    /// `None` when the cluster does not get smaller.
    fn pack(&mut self, cluster: &[u8]) -> Result<Option<Vec<u8>>> {
        // Room for what does not get smaller: a deflater that was stopped for want of room cannot be
        // reset (zlib-rs 0.6.8 panics in the next cluster), so none ever is.
        let mut packed = vec![0; cluster.len() + cluster.len() / 8 + 256];
        let len = match self {
            Self::Zlib(compress) => {
                compress.reset();
                let status = compress.compress(cluster, &mut packed, FlushCompress::Finish);
                match status {
                    Ok(Status::StreamEnd) => usize::try_from(compress.total_out()).ok(),
                    Ok(_) => None,
                    Err(error) => {
                        let source = error.into();
                        return Err(Error::Io {
                            operation: "compress a cluster",
                            source,
                        });
                    }
                }
            }
            // The one way to fail is that there is no room.
            Self::Zstd(compressor) => compressor.compress_to_buffer(cluster, &mut packed).ok(),
        };
        Ok(len.filter(|len| *len < cluster.len()).map(|len| {
            packed.truncate(len);
            packed
        }))
    }
}
