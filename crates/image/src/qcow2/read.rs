//! From guest offsets to bytes.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, PoisonError};

use probe::Disk;

use super::Limits;
use super::compressed::Decompressor;
use super::header::Header;
use super::tables::{self, L2Cache, Place};
use super::units::{GuestOffset, HostOffset};
use crate::{Error, Result};

/// An open qcow2 image. Read only; any number of threads may read at once.
#[derive(Debug)]
pub struct Qcow2 {
    file: File,
    file_size: u64,
    header: Header,
    l1: Arc<[u64]>,
    l2: L2Cache,
    /// Decompressors that no thread uses at the moment; at most one for each thread that ever read.
    idle: Mutex<Vec<Decompressor>>,
}

/// What follows at a guest offset, as far as it is of one piece.
struct Run {
    place: Place,
    /// Bytes from the offset asked for.
    len: u64,
}

impl Qcow2 {
    /// Opens `file` as a qcow2 image and checks its header against `limits`.
    pub fn open(file: File, limits: Limits) -> Result<Self> {
        let metadata = file
            .metadata()
            .map_err(Error::io("inspect the qcow2 image"))?;
        let file_size = metadata.len();
        let header = Header::read(&file, file_size, limits)?;
        let l1 = tables::read_words(&file, header.l1_entries as u64 * 8, header.l1_offset)?;
        let l2 = L2Cache::new(&header);
        Ok(Self {
            file,
            file_size,
            header,
            l1,
            l2,
            idle: Mutex::default(),
        })
    }

    /// The size of its clusters in bytes.
    pub fn cluster_size(&self) -> u64 {
        self.header.geometry.cluster_size()
    }

    /// The run of one kind at `guest`: at least `want` bytes where it is that long, at most to the end
    /// of its L2 table.
    fn run(&self, guest: GuestOffset, want: u64) -> Result<Run> {
        let (header, geometry) = (&self.header, self.header.geometry);
        let index = usize::try_from(guest.0 >> geometry.l1_bits()).unwrap_or(usize::MAX);
        let entry = *self.l1.get(index).ok_or(Error::Damaged {
            what: "an offset lies beyond the virtual size",
            value: guest.0,
        })?;
        let table_end = ((guest.0 >> geometry.l1_bits()) + 1) << geometry.l1_bits();
        let end = table_end.min(header.virtual_size);
        let Some(offset) = tables::l2_offset(header, entry)? else {
            return Ok(Run {
                place: Place::Zero,
                len: end - guest.0,
            });
        };
        let table = self.l2.get(&self.file, header, offset)?;
        let unit = 1 << geometry.unit_bits();
        let start = GuestOffset(guest.0 & !(unit - 1));
        let place = tables::place(header, &table, start)?;
        if let Place::Compressed { .. } = place {
            let len = geometry.cluster_size() - geometry.in_cluster(guest);
            return Ok(Run {
                place,
                len: len.min(end - guest.0),
            });
        }
        let mut next = start.0 + unit;
        let enough = guest.0.saturating_add(want).min(end);
        while next < enough {
            let follows = match place {
                Place::Data(host) => Place::Data(host.plus(next - start.0)),
                other => other,
            };
            // A damaged entry ends the run: it is the error of whoever reads that cluster.
            if tables::place(header, &table, GuestOffset(next)).ok() != Some(follows) {
                break;
            }
            next += unit;
        }
        let place = match place {
            Place::Data(host) => Place::Data(host.plus(guest.0 - start.0)),
            other => other,
        };
        Ok(Run {
            place,
            len: next.min(end) - guest.0,
        })
    }

    /// Where the file holds what the guest has from `range.start` on, as it is: the file's part that
    /// goes on for as long as the data does in one piece, at most for the whole of `range`. `None`
    /// where the data is compressed, or is none.
    pub(crate) fn stored_at(&self, range: Range<u64>) -> Result<Option<(&File, Range<u64>)>> {
        let mut stored: Option<Range<u64>> = None;
        let mut next = range.start;
        while next < range.end {
            let run = self.run(GuestOffset(next), range.end - next)?;
            let Place::Data(host) = run.place else { break };
            let part = stored.get_or_insert(host.0..host.0);
            if part.end != host.0 {
                break;
            }
            let len = run.len.min(range.end - next);
            part.end += len;
            next += len;
        }
        Ok(stored.map(|part| (&self.file, part)))
    }

    /// Whether the first `known` bytes of the file tell all that the guest has in `range`: the tables that
    /// lead there, and the data.
    pub(crate) fn is_told_by(&self, known: u64, range: Range<u64>) -> Result<bool> {
        let (header, geometry) = (&self.header, self.header.geometry);
        let l1_end = header.l1_offset.plus(header.l1_entries as u64 * 8);
        if l1_end.0 > known {
            return Ok(false);
        }
        let mut at = range.start;
        let end = range.end.min(header.virtual_size);
        while at < end {
            let index = usize::try_from(at >> geometry.l1_bits()).unwrap_or(usize::MAX);
            let entry = self.l1.get(index).copied().unwrap_or_default();
            if let Some(table) = tables::l2_offset(header, entry)?
                && table.plus(geometry.cluster_size()).0 > known
            {
                return Ok(false);
            }
            let run = self.run(GuestOffset(at), end - at)?;
            let len = run.len.min(end - at);
            let last = match run.place {
                Place::Zero => 0,
                Place::Data(host) => host.plus(len).0,
                Place::Compressed { at, len } => at.plus(len.into()).0.min(self.file_size),
            };
            if last > known {
                return Ok(false);
            }
            at += len;
        }
        Ok(true)
    }

    fn read(&self, mut buf: &mut [u8], offset: u64) -> Result<()> {
        let end = offset.checked_add(buf.len() as u64);
        if end.is_none_or(|end| end > self.header.virtual_size) {
            return Err(Error::Io {
                operation: "read the qcow2 image",
                source: io::ErrorKind::UnexpectedEof.into(),
            });
        }
        let mut guest = GuestOffset(offset);
        while !buf.is_empty() {
            let run = self.run(guest, buf.len() as u64)?;
            let len = usize::try_from(run.len)
                .unwrap_or(usize::MAX)
                .min(buf.len());
            let (part, rest) = buf.split_at_mut(len);
            match run.place {
                Place::Zero => part.fill(0),
                Place::Data(host) => self.read_data(part, host)?,
                Place::Compressed { at, len } => self.read_compressed(part, guest, at, len)?,
            }
            buf = rest;
            guest = GuestOffset(guest.0 + len as u64);
        }
        Ok(())
    }

    /// Data must be in the file: what a cut file has lost is not zero.
    fn read_data(&self, buf: &mut [u8], host: HostOffset) -> Result<()> {
        self.file
            .read_exact_at(buf, host.0)
            .map_err(|source| match source.kind() {
                io::ErrorKind::UnexpectedEof => Error::Damaged {
                    what: "a cluster lies beyond the end of the file",
                    value: host.0,
                },
                _ => Error::Io {
                    operation: "read the qcow2 image",
                    source,
                },
            })
    }

    /// The part of a compressed cluster that starts at `guest`.
    fn read_compressed(
        &self,
        buf: &mut [u8],
        guest: GuestOffset,
        at: HostOffset,
        len: u32,
    ) -> Result<()> {
        let damaged = |what| Error::Damaged { what, value: at.0 };
        // The last sector of the last cluster may be cut: its bytes end before it does.
        let in_file = self.file_size.saturating_sub(at.0).min(len.into());
        let len = usize::try_from(in_file).expect("less than a u32");
        if len == 0 {
            return Err(damaged(
                "a compressed cluster lies beyond the end of the file",
            ));
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle.pop();
        drop(idle);
        let mut decompressor = kept.unwrap_or_else(|| Decompressor::new(self.header.compression));
        let cluster_size = usize::try_from(self.cluster_size()).expect("2 MiB at most");
        let is_whole = if buf.len() == cluster_size {
            self.read_data(decompressor.input(len), at)?;
            decompressor.run(len, buf)
        } else {
            // Small reads come in a row: the cluster is kept for the next one.
            if !decompressor.holds(at) {
                self.read_data(decompressor.input(len), at)?;
            }
            let start = usize::try_from(self.header.geometry.in_cluster(guest)).unwrap_or(0);
            let cluster = decompressor.cluster(len, at, cluster_size);
            if let Some(bytes) = cluster {
                buf.copy_from_slice(&bytes[start..start + buf.len()]);
            }
            cluster.is_some()
        };
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(decompressor);
        if is_whole {
            Ok(())
        } else {
            Err(damaged("a compressed cluster cannot be decompressed"))
        }
    }
}

impl Disk for Qcow2 {
    fn size(&self) -> u64 {
        self.header.virtual_size
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.read(buf, offset).map_err(Into::into)
    }

    /// By the tables: holes cost no read of the image's data.
    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        let size = self.header.virtual_size;
        let mut start = offset;
        let mut end = loop {
            if start >= size {
                return Ok(None);
            }
            let run = self.run(GuestOffset(start), ANSWER)?;
            if run.place != Place::Zero {
                break start + run.len;
            }
            start += run.len;
        };
        while end < size && end - start < ANSWER {
            match self.run(GuestOffset(end), ANSWER) {
                Ok(run) if run.place != Place::Zero => end += run.len,
                // A hole, or a damaged cluster: that is an error when its turn comes.
                _ => break,
            }
        }
        Ok(Some(start..end))
    }
}

/// A range of data is told in pieces of about this many bytes: a caller that wants little of it must
/// not pay for the walk through all tables.
const ANSWER: u64 = 64 << 20;
