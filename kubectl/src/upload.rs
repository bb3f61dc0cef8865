//! `upload`: a file goes to a manager in pieces. The manager keeps what has come, so that an upload goes on after a
//! break: of the connection, of this program, of the manager.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use client::terminal::Progress;
use client::{Client, Member, wire};
use types::{Classify as _, ErrorKind, ImageName, ImageUuid, report};
use wire::source::Source;

use crate::error::{Error, Result};
use crate::make::{PlaceArgs, choose};
use crate::outcome::{done, failed, finished};
use crate::output::note;
use crate::reach::{Managers, Reach, is_away};

/// Bytes of a piece: less than a message may have.
const PIECE: usize = 1 << 20;
/// The time between two tries after a break, doubled each time.
const PAUSE: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(500)..=Duration::from_secs(15);
/// Tries without a byte of progress, some ten minutes of them.
const TRIES: u32 = 40;

#[derive(Debug, Args)]
pub(crate) struct UploadArgs {
    /// The disk image: raw or qcow2
    file: PathBuf,
    /// Name of the backing image
    #[arg(long)]
    name: ImageName,
    /// Expected SHA-512 of the file
    #[arg(
        long,
        value_name = "SUM",
        default_value = "",
        hide_default_value = true
    )]
    checksum: String,
    #[command(flatten)]
    place: PlaceArgs,
}

/// An upload under way.
struct Upload<'a> {
    reach: &'a Reach,
    managers: Managers,
    member: Member,
    request: wire::CreateBackingImageRequest,
    size: u64,
}

pub(crate) async fn run(reach: &Reach, args: UploadArgs) -> Result<()> {
    let mut file = File::open(&args.file).map_err(Error::file("open", &args.file))?;
    let metadata = file.metadata().map_err(Error::file("read", &args.file))?;
    if !metadata.is_file() {
        let path = args.file.display();
        return Err(Error::Refused(format!(
            "{path} is no file: give a raw or qcow2 disk image"
        )));
    }
    let name = args.file.file_name().unwrap_or_default().to_string_lossy();
    let request = wire::CreateBackingImageRequest {
        name: args.name.to_string(),
        source: Some(wire::Source {
            source: Some(Source::Upload(wire::UploadSource {
                size: metadata.len(),
                file_name: name.chars().take(60).collect(),
            })),
        }),
        expected_checksum: args.checksum.clone(),
        ..Default::default()
    };
    let managers = reach.managers().await?;
    // One that was begun is on its own disk, whatever has the most room now.
    let member = if let Some(member) = begun(&managers, &args.name).await? {
        member
    } else {
        let disks = managers.disks().await?.members;
        choose(
            disks.into_iter().map(|(member, ())| member).collect(),
            &args.place,
        )?
    };
    let size = metadata.len();
    let mut upload = Upload {
        reach,
        managers,
        member,
        request,
        size,
    };
    let image = upload.send(&mut file, &args).await?;
    let image = finished(&upload.member.client, image).await?;
    done(&image, &upload.member)
}

/// The manager that has an image of this name.
async fn begun(managers: &Managers, name: &ImageName) -> Result<Option<Member>> {
    let answers = managers
        .ask(|client| {
            let name = name.clone();
            async move { client::there(client.image(&name, None).await) }
        })
        .await?;
    let mut having = answers
        .members
        .into_iter()
        .filter(|(_, image)| image.is_some());
    Ok(having.next().map(|(member, _)| member))
}

impl Upload<'_> {
    /// Sends what the manager does not have yet.
    async fn send(&mut self, file: &mut File, args: &UploadArgs) -> Result<wire::BackingImage> {
        let mut shown = Progress::new(args.name.as_str());
        let (mut tries, mut pause) = (0, *PAUSE.start());
        let mut furthest = 0;
        loop {
            let broke = match self
                .pieces(file, args, &mut shown, &mut furthest, &mut tries)
                .await
            {
                Ok(image) => return Ok(image),
                Err(Error::Client(error)) if is_away(&error) => error,
                Err(error) => return Err(error),
            };
            if tries == 0 {
                pause = *PAUSE.start();
            }
            tries += 1;
            if tries > TRIES {
                return Err(broke.into());
            }
            note(&format!("{}: going on in {pause:?}", report(&broke)));
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(*PAUSE.end());
            self.reconnect().await;
        }
    }

    /// Another way to the same disk: a forward ends with the pod that it leads to.
    async fn reconnect(&mut self) {
        let found = async {
            let managers = self.reach.managers().await?;
            let disks = managers.disks().await?;
            Ok::<_, Error>((managers, disks.members))
        };
        if let Ok((managers, members)) = found.await {
            let same = members
                .into_iter()
                .find(|(member, ())| member.disk.uuid == self.member.disk.uuid);
            if let Some((member, ())) = same {
                (self.managers, self.member) = (managers, member);
            }
        }
    }

    async fn pieces(
        &self,
        file: &mut File,
        args: &UploadArgs,
        shown: &mut Progress,
        furthest: &mut u64,
        tries: &mut u32,
    ) -> Result<wire::BackingImage> {
        let client = &self.member.client;
        // Begins it, joins it, or begins it again after a failure.
        let mut image = failed(client.create_image(self.request.clone()).await?)?;
        let mut buffer = vec![0; PIECE];
        while image.state() != wire::State::Ready && image.processed_size < self.size {
            let offset = image.processed_size;
            if offset > *furthest {
                (*furthest, *tries) = (offset, 0);
            }
            shown.update(args.name.as_str(), "uploading", (offset, self.size));
            let wanted = usize::try_from(self.size - offset)
                .unwrap_or(PIECE)
                .min(PIECE);
            file.seek(SeekFrom::Start(offset))
                .and_then(|_| file.read_exact(&mut buffer[..wanted]))
                .map_err(Error::file("read", &args.file))?;
            let piece = wire::WriteUploadRequest {
                name: image.name.clone(),
                uuid: image.uuid.clone(),
                offset,
                data: buffer[..wanted].to_vec(),
            };
            image = match client.write_upload(piece).await {
                Ok(image) => image,
                // A piece arrived whose answer did not.
                Err(error) if error.kind() == ErrorKind::OutOfRange => {
                    again(client, &image, offset, error).await?
                }
                Err(error) => return Err(error.into()),
            };
            image = failed(image)?;
        }
        Ok(image)
    }
}

/// Where the manager is: a piece that is refused where it stands would be sent forever.
async fn again(
    client: &Client,
    image: &wire::BackingImage,
    offset: u64,
    refused: client::Error,
) -> Result<wire::BackingImage> {
    let (Ok(name), Ok(uuid)) = (ImageName::new(&image.name), ImageUuid::new(&image.uuid)) else {
        return Err(refused.into());
    };
    let now = client.image(&name, Some(&uuid)).await?;
    if now.processed_size == offset && now.state() != wire::State::Ready {
        return Err(refused.into());
    }
    Ok(now)
}
