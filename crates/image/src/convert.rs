//! The raw form of an image: its disk in a plain file, laid out in few large extents.
//!
//! ```text
//!  planner (one at a time)                 workers (one for each processor)
//!  next data, gaps closed   ── chunk ──►   read, decompress ─► find zeros ─► write
//!  space given in order                                          └─ long ones: hole again
//! ```
//!
//! Only the planner decides the layout: it allocates space in guest order, ahead of the writers, so
//! that workers may finish in any order. A large piece that the file of the image holds in guest
//! order is not copied if the file system can share extents: the raw form shares it, immediately
//! and without using space. Nothing is synced; the recipe of the store does that.

use std::fs::File;
use std::io;
use std::num::NonZero;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use probe::Disk;

use crate::{Error, Result, extents};

/// What a raw form is made of.
pub trait Source: Disk + Sync {
    /// The file that holds the bytes from `range.start` on as they are, and where: as far as they are in
    /// one piece, at most all of `range`. `None` where they must be read through the image, which is
    /// always right.
    fn stored_at(&self, range: Range<u64>) -> Result<Option<(&File, Range<u64>)>> {
        let _ = range;
        Ok(None)
    }

    /// How many bytes of gaps may be closed for each byte of data, so that the raw form has few extents.
    fn gaps_per_data(&self) -> u64 {
        1
    }
}

/// How far a conversion is, in bytes of data; holes cost nothing and count nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub done: u64,
    pub total: u64,
}

/// A hole at least this long stays a hole, and as many zeros become one. A shorter one costs an
/// extent for little space.
const HOLE: u64 = 1 << 20;
/// Closing all gaps together costs at most as much space as the data takes, times
/// [`Source::gaps_per_data`], and this.
const SLACK: u64 = 16 << 20;
/// The granule in which zeros are looked for.
const GRANULE: usize = 64 << 10;
/// What one worker reads, and writes, at a time.
const CHUNK: u64 = 2 << 20;
/// Space is given this far ahead: far enough for large extents, not so far that an image whose data
/// turns out to be zeros needs room for all of them.
const SEGMENT: u64 = 256 << 20;
/// A piece of a segment is shared when it is at least this long: shorter ones would leave the raw form in
/// many extents. A whole segment is shared at any length, as it is an extent either way.
const SHARED: u64 = 32 << 20;
/// A multiple of the block sizes of the file systems that share extents (4 KiB as a rule, 64 KiB at most).
const BLOCK: u64 = 64 << 10;
/// Workers for each processor: while one waits for the disk, another decompresses.
const WORKERS_PER_CPU: usize = 2;
/// More workers do not make one disk faster, and each holds a chunk in memory.
const WORKERS_MAX: usize = 4;
/// How long a caller that cancels waits at most before it is heard.
const PATIENCE: Duration = Duration::from_millis(100);

/// Writes the disk of `image` to `out`, which becomes exactly as long, whatever it held.
///
/// A fragmented raw image is laid out anew by the same function: give it as a
/// [`FileDisk`](probe::FileDisk). `progress` is called on the calling thread, and so is `cancelled`,
/// several times a second; once it says true, the result is [`Error::Cancelled`] and `out` is of no
/// use. Fails before it writes anything when the data cannot fit the file system of `out`. Returns the
/// bytes of data that the image holds.
pub fn to_raw(
    image: &dyn Source,
    out: &File,
    progress: &mut dyn FnMut(Progress),
    cancelled: &dyn Fn() -> bool,
) -> Result<u64> {
    const PREPARE: &str = "prepare the raw form";
    let total = data_bytes(image, cancelled)?;
    check_room(out, total)?;
    out.set_len(0).map_err(Error::io(PREPARE))?;
    out.set_len(image.size()).map_err(Error::io(PREPARE))?;
    let job = Job {
        image,
        out,
        planner: Mutex::new(Planner::new(image, out)),
        stop: AtomicBool::new(false),
        error: Mutex::new(None),
    };
    let mut done = 0;
    progress(Progress { done, total });
    thread::scope(|scope| -> Result<()> {
        let (sender, receiver) = mpsc::channel();
        let count = thread::available_parallelism().map_or(1, NonZero::get);
        let count = (count * WORKERS_PER_CPU).min(WORKERS_MAX);
        for index in 0..count {
            let (job, sender) = (&job, sender.clone());
            let spawned = thread::Builder::new()
                .name(format!("to-raw-{index}"))
                .spawn_scoped(scope, move || job.work(&sender));
            // One worker is enough; none is not.
            if let (Err(source), 0) = (spawned, index) {
                return Err(Error::Io {
                    operation: "start a thread",
                    source,
                });
            }
        }
        drop(sender);
        loop {
            match receiver.recv_timeout(PATIENCE) {
                Ok(bytes) => {
                    done += bytes;
                    progress(Progress {
                        done: done.min(total),
                        total,
                    });
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            if cancelled() {
                job.fail(Error::Cancelled);
            }
        }
    })?;
    match job
        .error
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
    {
        Some(error) => Err(error),
        None => Ok(total),
    }
}

/// The bytes of data that `image` holds, by its tables or its file system.
fn data_bytes(image: &dyn Disk, cancelled: &dyn Fn() -> bool) -> Result<u64> {
    let (mut sum, mut offset) = (0, 0);
    while let Some(range) = image.next_data(offset).map_err(Error::disk(FIND))? {
        sum += range.end - range.start;
        offset = range.end;
        if cancelled() {
            return Err(Error::Cancelled);
        }
    }
    Ok(sum)
}

/// Refuses before the first byte is written what cannot fit. A few kilobytes of tables can claim
/// terabytes of data, and a disk that such an image has filled is full for every volume on it.
fn check_room(out: &File, total: u64) -> Result<()> {
    const FIND_ROOM: &str = "reserve space for the raw form";
    let system = rustix::fs::fstatvfs(out).map_err(Error::io(FIND_ROOM))?;
    let free = system.f_bavail.saturating_mul(system.f_frsize);
    // What the target holds already is given back first.
    if total <= free.saturating_add(extents::allocated(out)?) {
        return Ok(());
    }
    Err(Error::Io {
        operation: FIND_ROOM,
        source: io::ErrorKind::StorageFull.into(),
    })
}

const FIND: &str = "find the data of the image";

/// What the workers share.
struct Job<'a> {
    image: &'a dyn Source,
    out: &'a File,
    planner: Mutex<Planner<'a>>,
    /// Set by the first error, or by the caller: workers finish their chunk and end.
    stop: AtomicBool,
    error: Mutex<Option<Error>>,
}

impl Job<'_> {
    fn fail(&self, error: Error) {
        self.stop.store(true, Ordering::Relaxed);
        let mut first = self.error.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert(error);
    }

    /// One worker: chunk after chunk until there is none.
    fn work(&self, sender: &Sender<u64>) {
        let mut buffer = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            let next = self
                .planner
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .next_chunk();
            let copied = match next {
                Ok(None) => break,
                Ok(Some(chunk)) => self.copy(&chunk, &mut buffer).map(|()| chunk.data),
                Err(error) => Err(error),
            };
            match copied {
                // Nobody listens any more only when the job is over.
                Ok(bytes) => drop(sender.send(bytes)),
                Err(error) => self.fail(error),
            }
        }
    }

    fn copy(&self, chunk: &Chunk, buffer: &mut Vec<u8>) -> Result<()> {
        let Range { start, end } = chunk.range;
        let len = usize::try_from(end - start).expect("a chunk of a few MiB");
        buffer.resize(len, 0);
        self.image
            .read_exact_at(buffer, start)
            .map_err(Error::disk("read the image"))?;
        for (is_zero, part) in pieces(buffer) {
            let place = start + part.start as u64..start + part.end as u64;
            if is_zero {
                // Where no hole can be punched, the space given reads as zeros too.
                extents::punch_hole(self.out, place)?;
            } else {
                self.out
                    .write_all_at(&buffer[part], place.start)
                    .map_err(Error::io("write the raw form"))?;
            }
        }
        Ok(())
    }
}

/// Splits a chunk into long rows of zeros and everything else.
fn pieces(buffer: &[u8]) -> Vec<(bool, Range<usize>)> {
    let mut rows: Vec<(bool, Range<usize>)> = Vec::new();
    let mut add = |is_zero: bool, range: Range<usize>| match rows.last_mut() {
        Some((kind, last)) if *kind == is_zero => last.end = range.end,
        _ => rows.push((is_zero, range)),
    };
    for (index, granule) in buffer.chunks(GRANULE).enumerate() {
        let start = index * GRANULE;
        add(is_zero(granule), start..start + granule.len());
    }
    let mut pieces: Vec<(bool, Range<usize>)> = Vec::with_capacity(rows.len());
    for (is_zero, range) in rows {
        let is_hole = is_zero && range.len() as u64 >= HOLE;
        match pieces.last_mut() {
            Some((false, last)) if !is_hole => last.end = range.end,
            _ => pieces.push((is_hole, range)),
        }
    }
    pieces
}

/// Whether a granule at most is all zeros; by comparison, which is as fast as memory.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    static ZEROS: [u8; GRANULE] = [0; GRANULE];
    bytes
        .chunks(GRANULE)
        .all(|part| part == &ZEROS[..part.len()])
}

/// A piece of work: a range of the disk, and how much of it is data.
struct Chunk {
    range: Range<u64>,
    data: u64,
}

/// Hands out the data of the disk in guest order, and gives the target its space on the way.
struct Planner<'a> {
    image: &'a dyn Source,
    out: &'a File,
    /// The rest of the segment at hand: data with its small holes closed.
    segment: Range<u64>,
    /// The data in the segment that no chunk has counted yet.
    uncounted: u64,
    can_preallocate: bool,
    /// What closing gaps may still cost in space.
    budget: u64,
}

impl<'a> Planner<'a> {
    fn new(image: &'a dyn Source, out: &'a File) -> Self {
        Self {
            image,
            out,
            segment: 0..0,
            uncounted: 0,
            can_preallocate: true,
            budget: SLACK,
        }
    }

    fn next_chunk(&mut self) -> Result<Option<Chunk>> {
        if self.segment.is_empty() && !self.next_segment()? {
            return Ok(None);
        }
        let start = self.segment.start;
        // Chunks end at multiples of their size, so that granules do too.
        let end = ((start / CHUNK + 1) * CHUNK).min(self.segment.end);
        self.segment.start = end;
        // Which chunk a byte of data is counted with does not matter, the sum does.
        let data = if self.segment.is_empty() {
            self.uncounted
        } else {
            self.uncounted.min(end - start)
        };
        self.uncounted -= data;
        Ok(Some(Chunk {
            range: start..end,
            data,
        }))
    }

    /// Finds the next segment behind this one and gives it its space. `false` at the end.
    fn next_segment(&mut self) -> Result<bool> {
        let Some(first) = self.next_data(self.segment.end)? else {
            return Ok(false);
        };
        let budget = self.budget;
        let limit = first.start.saturating_add(SEGMENT);
        let mut segment = first.start..first.end.min(limit);
        let mut data = segment.end - segment.start;
        let per_data = self.image.gaps_per_data();
        self.budget = self.budget.saturating_add(data.saturating_mul(per_data));
        while segment.end < limit {
            let Some(next) = self.next_data(segment.end)? else {
                break;
            };
            let gap = next.start - segment.end;
            if gap >= HOLE || gap > self.budget || next.start >= limit {
                break;
            }
            segment.end = next.end.min(limit);
            let found = segment.end - next.start;
            data += found;
            self.budget = (self.budget - gap).saturating_add(found.saturating_mul(per_data));
        }
        if let Some(end) = self.share(&segment)? {
            // Nothing is left to do but to count it: by a chunk without bytes. There are no gaps in it.
            self.uncounted = end - segment.start;
            self.budget = budget + self.uncounted;
            self.segment = end..end;
            return Ok(true);
        }
        if self.can_preallocate {
            self.can_preallocate = extents::preallocate(self.out, segment.clone())?;
        }
        self.segment = segment;
        self.uncounted = data;
        Ok(true)
    }

    /// Gives the target the start of `segment` from the image's file, without a copy, where that is worth
    /// it. The end of what it has then.
    fn share(&self, segment: &Range<u64>) -> Result<Option<u64>> {
        let Some((file, stored)) = self.image.stored_at(segment.clone())? else {
            return Ok(None);
        };
        let len = stored.end - stored.start;
        if len < SHARED && len < segment.end - segment.start {
            return Ok(None);
        }
        // Only whole blocks are shared; a disk's odd end is copied.
        let len = len.saturating_sub((segment.start + len) % BLOCK);
        if len == 0 {
            return Ok(None);
        }
        let stored = stored.start..stored.start + len;
        // What lies in many extents there would do so here, and each costs every clone its time.
        let most = 1 + len / SHARED;
        if extents::count_in(file, stored.clone())?.is_some_and(|count| u64::from(count) > most) {
            return Ok(None);
        }
        if !extents::reflink_range(file, stored, self.out, segment.start)? {
            return Ok(None);
        }
        Ok(Some(segment.start + len))
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>> {
        self.image.next_data(offset).map_err(Error::disk(FIND))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_long_rows_of_zeros_become_holes() {
        let mib = 1 << 20;
        let mut buffer = vec![0; 4 * mib];
        assert_eq!(pieces(&buffer), [(true, 0..4 * mib)]);
        buffer[0] = 1;
        assert_eq!(
            pieces(&buffer),
            [(false, 0..GRANULE), (true, GRANULE..4 * mib)]
        );
        buffer[mib] = 1;
        let second = mib + GRANULE;
        assert_eq!(
            pieces(&buffer),
            [(false, 0..second), (true, second..4 * mib)]
        );
        assert_eq!(pieces(&[]), []);
    }
}
