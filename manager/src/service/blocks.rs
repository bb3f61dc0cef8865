//! The blocks of snapshots: those that hold data, and those in which two snapshots of a volume differ.
//!
//! The files of both stay in place for as long as it is listed; a deletion ends the listing first. A listing
//! takes a thread, and waits for its caller: a caller that does not read on loses it.

use std::cell::RefCell;
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::select_all;
use futures_util::{FutureExt as _, Stream, StreamExt as _, stream};
use image::changes::{data_blocks, differing_ranges};
use proto::storage::v1 as pb;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use types::{Cancel, ImageName, VolumeName};

use super::{Service, status, wire};
use catalog::{Error, Reading, Result};
use store::IoContext as _;

/// Listings at once; more wait for their turn.
pub(super) const LISTINGS_MAX: usize = 4;
/// Ranges in one message, where the caller does not say, and at the most: 64 KiB or so, and 256.
const RANGES: usize = 4096;
const RANGES_MAX: usize = 4 * RANGES;
/// Messages that wait for the caller.
const AHEAD: usize = 2;
/// How long there is no message while files are read and compared.
const SILENCE: Duration = Duration::from_secs(10);
/// How long a caller may take to read one.
const PATIENCE: Duration = Duration::from_mins(1);

type Message = Result<pb::ListSnapshotBlocksResponse, Status>;

impl Service {
    pub(super) async fn snapshot_blocks(
        &self,
        request: pb::ListSnapshotBlocksRequest,
    ) -> Result<impl Stream<Item = Message> + Send + use<>> {
        let turn = self.listings.clone().acquire_owned().await;
        let name = ImageName::new(&request.snapshot)?;
        let base = wire::optional(&request.base, ImageName::new)?;
        let (volume, snapshot) = self.snapshot("snapshot", &name).await?;
        let base = match base {
            Some(name) => Some(self.snapshot("base", &name).await?),
            None => None,
        };
        if let Some((other, _)) = &base
            && *other != volume
        {
            let why = format!("it is a snapshot of volume {other}, and {name} is one of {volume}");
            return Err(Error::InvalidField { field: "base", why });
        }
        if request.starting_offset > snapshot.size {
            return Err(Error::BeyondEnd {
                offset: request.starting_offset,
                size: snapshot.size,
            });
        }
        let (to, messages) = mpsc::channel(AHEAD);
        let most = match usize::try_from(request.max_ranges).unwrap_or(RANGES_MAX) {
            0 => RANGES,
            most => most.min(RANGES_MAX),
        };
        let mut teller = Teller {
            size: snapshot.size,
            most,
            ranges: Vec::new(),
            is_told: false,
            told_at: Instant::now(),
            to,
            tokens: Vec::new(),
            late: Arc::default(),
        };
        let base = base.map(|(_, base)| base);
        let listed = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            teller.list(&snapshot, base.as_ref(), request.starting_offset)
        });
        // Whatever ended it early is said last: an end without an error is that of a whole list.
        let end = listed.map(|done| match done {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(Err(status::of(&error))),
            Err(error) => Some(Err(status::of(&error.into()))),
        });
        let end = stream::once(end).filter_map(std::future::ready);
        Ok(ReceiverStream::new(messages).chain(end))
    }

    /// The volume of a snapshot, and its file.
    async fn snapshot(&self, field: &'static str, name: &ImageName) -> Result<(VolumeName, Held)> {
        let image = self.catalog.get(name, None)?;
        let Some(snapshot) = image.provenance.snapshot() else {
            let why = format!("{name} is an image, not a snapshot of a volume");
            return Err(Error::InvalidField { field, why });
        };
        let reading = self.catalog.read(&image.id).await?;
        let open = move || {
            let file = File::open(&reading.path).context("open", &reading.path)?;
            let size = file.metadata().context("inspect", &reading.path)?.len();
            Ok::<_, Error>(Held {
                file,
                size,
                reading,
            })
        };
        Ok((snapshot.volume.clone(), catalog::blocking(open).await?))
    }
}

/// The file of a snapshot, which stays in place.
struct Held {
    file: File,
    size: u64,
    reading: Reading,
}

/// Tells the ranges to the caller.
struct Teller {
    size: u64,
    /// Ranges in a message.
    most: usize,
    /// Those of the next message.
    ranges: Vec<pb::BlockRange>,
    /// Whether there was a message.
    is_told: bool,
    /// When the last message was told, or this began.
    told_at: Instant,
    to: mpsc::Sender<Message>,
    /// Cancelled when one of the files must be let go.
    tokens: Vec<CancellationToken>,
    /// The caller took too long for a message.
    late: Arc<AtomicBool>,
}

impl Teller {
    /// Tells all ranges, and the size at least.
    fn list(&mut self, snapshot: &Held, base: Option<&Held>, from: u64) -> Result<()> {
        let held = [Some(snapshot), base].into_iter().flatten();
        self.tokens = held.map(|held| held.reading.cancel.clone()).collect();
        let (gone, tokens, late) = (self.to.clone(), self.tokens.clone(), self.late.clone());
        let cancel = Cancel::when(move || {
            gone.is_closed()
                || late.load(Ordering::Relaxed)
                || tokens.iter().any(CancellationToken::is_cancelled)
        });
        let teller = RefCell::new(&mut *self);
        let (file, found) = (&snapshot.file, &mut |range| teller.borrow_mut().add(&range));
        let working = &mut |_| teller.borrow_mut().work();
        let listed = match base {
            Some(base) => differing_ranges(&base.file, file, from, &cancel, working, found),
            None => data_blocks(file, from, &cancel, found),
        };
        if listed.is_ok() && (!self.ranges.is_empty() || !self.is_told) {
            self.tell();
        }
        if self.late.load(Ordering::Relaxed) {
            return Err(Error::Cancelled(
                "the blocks were not read on; list them again",
            ));
        }
        if self.tokens.iter().any(CancellationToken::is_cancelled) {
            return Err(Error::Cancelled("the snapshot is being deleted; try again"));
        }
        Ok(listed?)
    }

    fn add(&mut self, range: &Range<u64>) {
        self.ranges.push(pb::BlockRange {
            offset: range.start,
            length: range.end - range.start,
        });
        if self.ranges.len() >= self.most {
            self.tell();
        }
    }

    /// Tells a caller that may have a deadline what there is, though it be nothing.
    fn work(&mut self) {
        if self.told_at.elapsed() >= SILENCE {
            self.tell();
        }
    }

    /// Waits until there is room for a message, or nobody wants it any more.
    fn tell(&mut self) {
        (self.is_told, self.told_at) = (true, Instant::now());
        let message = Ok(pb::ListSnapshotBlocksResponse {
            size: self.size,
            ranges: std::mem::take(&mut self.ranges),
        });
        if self.late.load(Ordering::Relaxed) {
            return;
        }
        let let_go = self.tokens.iter().map(|token| Box::pin(token.cancelled()));
        let sent = async {
            tokio::select! {
                // The next look at the caller sees that it is gone.
                _ = self.to.send(message) => true,
                () = tokio::time::sleep(PATIENCE) => false,
                _ = select_all(let_go) => false,
            }
        };
        // What comes after a message that was lost must not look as if it came after it.
        if !Handle::current().block_on(sent) {
            self.late.store(true, Ordering::Relaxed);
        }
    }
}
