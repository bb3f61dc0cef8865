//! A file on its way into a manager, in pieces. The manager keeps what has come, so that an upload goes on after a break:
//! of the connection, of the manager, of the program that sends.
//!
//! It owns the order of the pieces and the patience. Who the manager is, and another way to it, is the caller's.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use proto::storage::v1 as wire;
use tokio::time::{Instant, sleep};
use types::{Classify, ErrorKind, ImageName, ImageUuid};

use crate::terminal::Progress;
use crate::{Client, Error, state_name};

/// Bytes of a piece: less than a message may have.
const PIECE: u64 = 2 << 20;
/// Pieces on their way at once: while the manager writes one, the next one comes. As many as may wait, so that none
/// is refused before the first is written.
const AT_ONCE: usize = 2;
/// The first pause after a break; each is twice as long as the one before it.
const PAUSE: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(15);
/// How long nothing may be added before an upload is given up.
const PATIENCE: Duration = Duration::from_mins(5);
/// Characters of the name of the file that the manager is told.
const FILE_NAME_MAX: usize = 60;

/// A file that is sent.
#[derive(Debug)]
pub struct Upload {
    path: PathBuf,
    file: File,
    size: u64,
    /// Since when nothing was added.
    since: Instant,
    pause: Duration,
}

/// An upload that has not ended.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The file cannot be read.
    #[error("cannot {operation} {}: {source}", path.display())]
    File {
        /// A verb.
        operation: &'static str,
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// It is no disk image.
    #[error("{} is not a file with bytes in it: give a raw or qcow2 disk image", path.display())]
    NoFile {
        /// Which.
        path: PathBuf,
    },
    /// The manager says no.
    #[error(transparent)]
    Client(#[from] Error),
    /// What has come is kept.
    #[error("the upload is not complete; {next}, and it goes on where it stopped")]
    Stopped {
        /// The next step.
        next: &'static str,
        /// Why.
        source: Error,
    },
}

impl Classify for UploadError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::File { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                ErrorKind::NotFound
            }
            Self::File { .. } | Self::NoFile { .. } => ErrorKind::InvalidArgument,
            Self::Client(error) | Self::Stopped { source: error, .. } => error.kind(),
        }
    }
}

impl Upload {
    /// Opens a file.
    ///
    /// # Errors
    /// It cannot be read, is no file, or is empty.
    pub fn open(path: &Path) -> Result<Self, UploadError> {
        let cannot = |operation, source| UploadError::File {
            operation,
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(|error| cannot("open", error))?;
        let metadata = file.metadata().map_err(|error| cannot("inspect", error))?;
        if !metadata.is_file() || metadata.len() == 0 {
            return Err(UploadError::NoFile {
                path: path.to_owned(),
            });
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            size: metadata.len(),
            since: Instant::now(),
            pause: PAUSE,
        })
    }

    /// What a manager is told of it.
    pub fn source(&self) -> wire::Source {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let upload = wire::UploadSource {
            size: self.size,
            file_name: name.chars().take(FILE_NAME_MAX).collect(),
        };
        wire::Source {
            source: Some(wire::source::Source::Upload(upload)),
        }
    }

    /// Sends what the manager does not have yet, shows how far it is, and gives the image as it is then: `ready`, `failed`,
    /// or with all of its bytes. `request` has [`Self::source`]; `again` hears of each break, and may find another way to
    /// the manager.
    ///
    /// # Errors
    /// The file cannot be read, the manager refuses it, or nothing was added for five minutes.
    pub async fn send(
        &mut self,
        client: &mut Client,
        request: &wire::CreateBackingImageRequest,
        mut again: impl AsyncFnMut(&mut Client, &Error),
    ) -> Result<wire::BackingImage, UploadError> {
        // Begins it, joins it, or begins it anew after a failure.
        let mut image = client.create_image(request.clone()).await?;
        let mut shown = Progress::new(&request.name);
        let mut at_once = AT_ONCE;
        while let Some(broken) = self.pieces(client, &mut image, &mut shown, at_once).await? {
            if matches!(broken.kind(), ErrorKind::OutOfRange | ErrorKind::Aborted) {
                // A manager of before lets no piece wait for its turn.
                at_once = 1;
            }
            let mut error = broken;
            image = loop {
                let passing = self.wait(error).await?;
                again(client, &passing).await;
                match as_it_is(client, &image, request).await {
                    Ok(image) => break image,
                    Err(now) => error = now,
                }
            };
        }
        Ok(image)
    }

    /// Sends pieces until the image has all, or has ended (`None`), or until a break: what is on its way is called off
    /// then.
    async fn pieces(
        &mut self,
        client: &Client,
        image: &mut wire::BackingImage,
        shown: &mut Progress,
        at_once: usize,
    ) -> Result<Option<Error>, UploadError> {
        let mut sent = image.processed_size;
        let mut flying = FuturesOrdered::new();
        loop {
            let offset = image.processed_size;
            shown.update(&image.name, state_name(image.state()), (offset, self.size));
            let settled = matches!(image.state(), wire::State::Ready | wire::State::Failed);
            if settled || offset >= self.size {
                return Ok(None);
            }
            while flying.len() < at_once && sent < self.size {
                let piece = wire::WriteUploadRequest {
                    name: image.name.clone(),
                    uuid: image.uuid.clone(),
                    offset: sent,
                    data: self.piece(sent)?,
                };
                sent += piece.data.len() as u64;
                let client = client.clone();
                flying.push_back(async move { client.write_upload(piece).await });
            }
            match flying.next().await {
                Some(Ok(now)) => {
                    (self.since, self.pause) = (Instant::now(), PAUSE);
                    *image = now;
                }
                Some(Err(error)) => return Ok(Some(error)),
                // All was sent, and the manager says that it does not have all: it says where to go on.
                None => sent = offset,
            }
        }
    }

    fn piece(&self, offset: u64) -> Result<Bytes, UploadError> {
        let length = PIECE.min(self.size - offset);
        let mut data = vec![0; usize::try_from(length).unwrap_or_default()];
        let read = self.file.read_exact_at(&mut data, offset);
        read.map_err(|source| UploadError::File {
            operation: "read",
            path: self.path.clone(),
            source,
        })?;
        Ok(data.into())
    }

    /// Waits a little after an error that may pass, and gives it back.
    async fn wait(&mut self, error: Error) -> Result<Error, UploadError> {
        match error.kind() {
            // A piece whose answer was lost, an upload that another one took over, a manager that has just started.
            ErrorKind::OutOfRange
            | ErrorKind::Aborted
            | ErrorKind::FailedPrecondition
            | ErrorKind::NotFound
            | ErrorKind::Unavailable
            | ErrorKind::DeadlineExceeded => {}
            ErrorKind::ResourceExhausted => {
                return Err(UploadError::Stopped {
                    next: "make space, then run the command again",
                    source: error,
                });
            }
            _ => return Err(error.into()),
        }
        if self.since.elapsed() > PATIENCE {
            return Err(UploadError::Stopped {
                next: "run the command again",
                source: error,
            });
        }
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        Ok(error)
    }
}

/// The image, begun again where the manager ended before it had written down that there is an upload.
async fn as_it_is(
    client: &Client,
    image: &wire::BackingImage,
    request: &wire::CreateBackingImageRequest,
) -> Result<wire::BackingImage, Error> {
    let (Ok(name), Ok(uuid)) = (ImageName::new(&image.name), ImageUuid::new(&image.uuid)) else {
        return client.create_image(request.clone()).await;
    };
    match crate::there(client.image(&name, Some(&uuid)).await)? {
        Some(image) => Ok(image),
        None => client.create_image(request.clone()).await,
    }
}
