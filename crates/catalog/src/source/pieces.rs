//! Bytes that a client brings in pieces: the desk where they are taken, and the source of the image.
//!
//! ```text
//! pieces ──▶ Desk::take, one at a time ──▶ the store's file ──▶ all there: the source gives it to be sealed
//!            and those that wait for their turn
//! ```
//!
//! No thread and no turn belongs to an upload between two pieces: a client may take days.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chunks::IMAGE_SIZE_MAX;
use store::{Received, Upload, UploadRecord};
use tokio::sync::{Mutex, Semaphore, watch};

use super::{Job, Report};
use crate::blocking::blocking;
use crate::error::{Error, Result};

/// The largest piece, in bytes: it is in memory whole.
pub const PIECE_MAX: usize = 3 << 20;
/// Uploads under way at once; each holds a file open.
pub(crate) const UPLOADS_MAX: usize = 64;
/// An upload to which nothing is added for so long is given up, and what has come of it is removed. A restart
/// begins to count anew.
pub(crate) const IDLE: Duration = Duration::from_hours(24);
/// How long a piece waits for its upload to be begun.
const BEGINNING: Duration = Duration::from_secs(10);
/// How long a piece waits for the one before it, which was sent before it and may have come later.
const TURN: Duration = Duration::from_secs(2);
/// Pieces of an upload that wait: they are in memory.
const WAITING_MAX: usize = 2;
/// The longest name of a file, in bytes.
const FILE_NAME_MAX: usize = 255;

/// An upload that is asked for. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Pieces {
    size: u64,
    file_name: String,
    desk: Desk,
}

/// Where the pieces of one upload are taken. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Desk {
    /// `None` before the upload is begun, and when nothing more is taken.
    open: Arc<Mutex<Option<Open>>>,
    told: watch::Sender<Told>,
    places: Arc<Semaphore>,
}

#[derive(Debug)]
struct Open {
    upload: Upload,
    report: Arc<dyn Report>,
}

/// How far an upload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// Not begun.
    Waiting,
    /// So many bytes have come.
    At(u64),
    /// Nothing is taken any more.
    Ended,
}

impl Pieces {
    /// An upload of `size` bytes, of a file that the client calls so.
    pub fn new(size: u64, file_name: String) -> Result<Self> {
        if !(1..=IMAGE_SIZE_MAX).contains(&size) {
            return Err(Error::InvalidField {
                field: "size",
                why: format!(
                    "give the size of the file in bytes, 1 to {IMAGE_SIZE_MAX}; it is {size}"
                ),
            });
        }
        if file_name.len() > FILE_NAME_MAX || file_name.chars().any(char::is_control) {
            return Err(Error::InvalidField {
                field: "file_name",
                why: format!(
                    "at most {FILE_NAME_MAX} bytes, without control characters; it is only shown"
                ),
            });
        }
        let desk = Desk {
            open: Arc::default(),
            told: watch::Sender::new(Told::Waiting),
            places: Arc::new(Semaphore::new(WAITING_MAX)),
        };
        Ok(Self {
            size,
            file_name,
            desk,
        })
    }

    /// Bytes of the whole.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// What the client calls the file.
    pub fn file_name(&self) -> &str {
        &self.file_name
    }

    /// Where its pieces are taken.
    pub(crate) fn desk(&self) -> &Desk {
        &self.desk
    }

    /// Whether an image of `stored` bytes is one of this size: a raw one is stored in whole sectors.
    pub(crate) fn has_size_of(&self, stored: u64) -> bool {
        [self.size, self.size.next_multiple_of(types::SECTOR)].contains(&stored)
    }

    /// Waits until all pieces have come, and gives them.
    pub(super) async fn take_in(&self, job: &Job, idle: Duration) -> Result<Received> {
        let ended = EndOnDrop(&self.desk);
        let (store, id) = (job.store.clone(), job.id.clone());
        let mut record =
            UploadRecord::new(&id, self.size, &self.file_name, job.expected, job.format);
        record.for_volumes = job.for_volumes;
        let upload = blocking(move || store.upload(&id, &record)).await?;
        let upload = if job.checksum_later {
            upload.without_checksum()
        } else {
            upload
        };
        job.report.exactly(upload.offset(), self.size);
        let mut told = self.desk.told.subscribe();
        self.desk.told.send_replace(Told::At(upload.offset()));
        let report = job.report.clone();
        *self.desk.open.lock().await = Some(Open { upload, report });
        let waited = self.wait(&mut told, job, idle).await;
        // Waits for a piece that is being written.
        let open = self.desk.open.lock().await.take();
        drop(ended);
        let open = open.ok_or(Error::Cancelled("the upload was ended before"));
        let cancel = job.ends();
        blocking(move || match waited {
            Ok(()) => Ok(open?.upload.finish(&cancel)?),
            Err(error) => {
                if let Ok(open) = open {
                    open.upload.leave();
                }
                Err(error)
            }
        })
        .await
    }

    async fn wait(
        &self,
        told: &mut watch::Receiver<Told>,
        job: &Job,
        idle: Duration,
    ) -> Result<()> {
        loop {
            let Told::At(received) = *told.borrow_and_update() else {
                return Err(Error::Cancelled("the upload was ended before"));
            };
            if received == self.size {
                return Ok(());
            }
            tokio::select! {
                _ = told.changed() => {}
                () = job.cancel.cancelled() => {
                    return Err(Error::Cancelled("the image is not wanted"));
                }
                () = tokio::time::sleep(idle) => {
                    return Err(Error::CutShort {
                        received,
                        size: self.size,
                        why: format!("then nothing was added for {} hours", idle.as_secs() / 3600),
                    });
                }
            }
        }
    }
}

/// Who waits for an upload to be begun learns that it was not.
struct EndOnDrop<'a>(&'a Desk);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.told.send_replace(Told::Ended);
    }
}

impl Desk {
    /// Appends a piece at `offset`. The write goes on when the caller is gone. The next piece may be sent meanwhile: it
    /// waits for its turn.
    ///
    /// # Errors
    /// [`Error::UploadBusy`] while another piece of this offset is being written, or as many wait as may;
    /// [`Error::UploadOffset`] when another offset is expected. Nothing of the piece is there then.
    pub(crate) async fn take(&self, offset: u64, piece: Bytes) -> Result<()> {
        if piece.is_empty() || piece.len() > PIECE_MAX {
            return Err(Error::InvalidField {
                field: "data",
                why: format!("a piece has 1 to {PIECE_MAX} bytes"),
            });
        }
        let open = self.open.clone();
        let mut open = if self.turn(offset).await? {
            // Who wrote the piece before is just letting go.
            open.lock_owned().await
        } else {
            let open = open.try_lock_owned();
            open.map_err(|_| Error::UploadBusy("another piece is being written"))?
        };
        let told = self.told.clone();
        let write = move || {
            let Open { upload, report } = open.as_mut().ok_or(Error::UploadDone)?;
            let expected = upload.offset();
            if offset != expected {
                return Err(Error::UploadOffset { expected, offset });
            }
            upload.append(&piece)?;
            report.exactly(upload.offset(), upload.size());
            told.send_replace(Told::At(upload.offset()));
            Ok::<_, Error>(())
        };
        blocking(write).await
    }

    /// Waits until a piece of this offset may be the next, and says whether it had to.
    async fn turn(&self, offset: u64) -> Result<bool> {
        let is_early = |told: &Told| match *told {
            Told::Waiting => true,
            Told::At(at) => offset > at && offset - at <= PIECE_MAX as u64,
            Told::Ended => false,
        };
        let now = *self.told.borrow();
        if !is_early(&now) {
            return Ok(false);
        }
        let (most, why) = match now {
            Told::Waiting => (BEGINNING, "it is not begun yet"),
            _ => (TURN, "other pieces wait for their turn"),
        };
        let place = self.places.try_acquire();
        let _place = place.map_err(|_| Error::UploadBusy(why))?;
        let mut told = self.told.subscribe();
        let turn = told.wait_for(|told| !is_early(told));
        if tokio::time::timeout(most, turn).await.is_ok() {
            return Ok(true);
        }
        match *self.told.borrow() {
            Told::At(expected) => Err(Error::UploadOffset { expected, offset }),
            _ => Err(Error::UploadBusy(why)),
        }
    }
}
