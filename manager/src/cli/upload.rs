//! `backing-image upload`: sends a file in pieces, and goes on where it stopped.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use client::terminal::{self, Progress};
use client::{Client, Error, wire};
use tokio::time::{Instant, sleep};
use types::{Classify, ErrorKind, ImageName, ImageUuid, report};

use super::Failure;
use super::images::{self, state_text};

/// Bytes of a piece.
const PIECE: u64 = 2 << 20;
/// The first pause after a break; each is twice as long as the one before it.
const PAUSE: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(15);
/// How long nothing may be added before the command gives up.
const PATIENCE: Duration = Duration::from_mins(5);

#[derive(Debug, Args)]
pub(super) struct UploadArgs {
    /// The disk image: a file of this machine, raw or qcow2
    file: PathBuf,
    /// Name of the image; the same name with the same file goes on with an upload that was interrupted
    #[arg(long)]
    name: ImageName,
    /// Expected SHA-512 of the file: an upload that went on with another file is refused by it
    #[arg(long, value_name = "SUM")]
    checksum: Option<String>,
    /// Format of the disk image: raw or qcow2 [default: detected once from its first bytes]
    #[arg(long)]
    format: Option<String>,
}

/// A file on its way.
struct Sender<'a> {
    client: &'a Client,
    request: wire::CreateBackingImageRequest,
    file: File,
    size: u64,
    /// Since when nothing was added.
    since: Instant,
    pause: Duration,
}

pub(super) async fn run(client: &Client, args: UploadArgs) -> Result<(), Failure> {
    let path = &args.file;
    let cannot = |what: &str, error| format!("cannot {what} {}: {error}", path.display());
    let file = File::open(path).map_err(|error| cannot("open", error))?;
    let metadata = file.metadata().map_err(|error| cannot("inspect", error))?;
    if !metadata.is_file() || metadata.len() == 0 {
        return Err(format!("{} is not a file with bytes in it", path.display()).into());
    }
    let file_name = path.file_name().unwrap_or_default().to_string_lossy();
    let size = metadata.len();
    let source = wire::source::Source::Upload(wire::UploadSource {
        size,
        file_name: file_name.into_owned(),
    });
    let request = wire::CreateBackingImageRequest {
        name: args.name.to_string(),
        source: Some(wire::Source {
            source: Some(source),
        }),
        expected_checksum: args.checksum.unwrap_or_default(),
        format: args.format.unwrap_or_default(),
        ..Default::default()
    };
    let mut sender = Sender {
        client,
        request,
        file,
        size,
        since: Instant::now(),
        pause: PAUSE,
    };
    let image = sender.send(args.name.as_str()).await?;
    let image = terminal::wait_image(client, image).await?;
    images::finished(image)
}

impl Sender<'_> {
    /// Sends all of it, and gives the image as it is then.
    async fn send(&mut self, name: &str) -> Result<wire::BackingImage, Failure> {
        let mut image = self.begin().await?;
        let mut shown = Progress::new(name);
        loop {
            let offset = image.processed_size;
            let done = (offset, self.size);
            shown.update(name, state_text(image.state()), done);
            let settled = matches!(image.state(), wire::State::Ready | wire::State::Failed);
            if settled || offset >= self.size {
                return Ok(image);
            }
            let length = usize::try_from(PIECE.min(self.size - offset))?;
            let mut data = vec![0; length];
            self.file
                .read_exact_at(&mut data, offset)
                .map_err(|error| format!("cannot read the file at byte {offset}: {error}"))?;
            let piece = wire::WriteUploadRequest {
                name: image.name.clone(),
                uuid: image.uuid.clone(),
                offset,
                data,
            };
            image = match self.client.write_upload(piece).await {
                Ok(image) => {
                    (self.since, self.pause) = (Instant::now(), PAUSE);
                    image
                }
                Err(error) => self.after(error, image).await?,
            };
        }
    }

    async fn begin(&self) -> Result<wire::BackingImage, Error> {
        self.client.create_image(self.request.clone()).await
    }

    /// Waits a little after an error that may pass, and asks where to go on.
    async fn after(
        &mut self,
        mut error: Error,
        image: wire::BackingImage,
    ) -> Result<wire::BackingImage, Failure> {
        let (name, uuid) = (ImageName::new(&image.name)?, ImageUuid::new(&image.uuid)?);
        loop {
            match error.kind() {
                ErrorKind::OutOfRange
                | ErrorKind::Aborted
                | ErrorKind::FailedPrecondition
                | ErrorKind::NotFound
                | ErrorKind::Unavailable
                | ErrorKind::DeadlineExceeded => {}
                ErrorKind::ResourceExhausted => {
                    let why = report(&error);
                    return Err(format!(
                        "{why}; make space, then run the command again: it goes on where it stopped"
                    )
                    .into());
                }
                _ => return Err(error.into()),
            }
            if self.since.elapsed() > PATIENCE {
                let why = report(&error);
                return Err(format!("{why}; run the command again to go on").into());
            }
            sleep(self.pause).await;
            self.pause = (self.pause * 2).min(PAUSE_MAX);
            let asked = match self.client.image(&name, Some(&uuid)).await {
                // The daemon ended before it had written down that there is an upload.
                Err(gone) if gone.kind() == ErrorKind::NotFound => self.begin().await,
                asked => asked,
            };
            match asked {
                Ok(image) => return Ok(image),
                Err(failed) => error = failed,
            }
        }
    }
}
