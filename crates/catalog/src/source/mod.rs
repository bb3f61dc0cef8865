//! The sources of images. Every source ends in the same way: with a finished [`Ingest`] and the
//! provenance of its bytes.

mod access;
mod adopt;
mod again;
mod container;
mod file;
mod incoming;
mod look;
mod origin;
mod peer;
mod pieces;
mod snapshot;
mod turns;
mod unpack;
mod upload;
mod url;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fetch::{Credentials, Network, Platform, Reference};
use image::Format;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use tokio_util::sync::CancellationToken;
use trust::Dialer;
use types::{Cancel, ImageId, Sha512};

pub use self::access::VerifyAccess;
pub(crate) use self::look::Looked;
pub use self::origin::{Origin, OriginKind, Taken};
pub use self::peer::Peers;
pub(crate) use self::pieces::UPLOADS_MAX;
pub use self::pieces::{Desk, PIECE_MAX, Pieces};
pub use self::turns::{Turn, Turns};
pub use self::upload::{Bringer, Upload, upload};
pub use self::url::{Download, DownloadRequest, Unpack};
use store::IoContext;

use self::container::Pull;
use crate::error::{Error, Result};
use store::sidecar::AskedFor;
use store::{Facts, ImageStore, Ingest, LocalImage, Provenance, Received, Snapshot};
use sync::{PeerAddress, Receiver, Settings, Swarm};
use volume::Volumes;

/// What an image is made from; checked, and never wrong in form.
#[derive(Debug, Clone)]
pub enum Source {
    /// A container image in a registry.
    Registry {
        reference: Reference,
        /// Which of an index.
        platform: Platform,
        /// Credentials of this pull alone; the manager's own are asked otherwise.
        credentials: Option<Credentials>,
    },
    /// A container image in an OCI image layout.
    OciLayout(Local),
    /// A container image in a tar file.
    Archive(Local),
    /// A disk image in a file.
    File(PathBuf),
    /// A disk image behind a URL.
    Url(Box<Download>),
    /// A file of this disk, which becomes the image's: Longhorn's Fetch.
    Adopt {
        /// A path of one of the shapes that [`Layout::parse_file_path`] takes.
        ///
        /// [`Layout::parse_file_path`]: store::layout::Layout::parse_file_path
        from: PathBuf,
    },
    /// An image of other managers.
    Peers(Peers),
    /// Bytes that somebody brings.
    Upload(Upload),
    /// Bytes that somebody brings in pieces, over days if need be.
    Pieces(Pieces),
    /// What a volume holds now.
    Volume(Snapshot),
    /// Bytes that another crate brings.
    Origin(Arc<dyn Origin>),
}

/// A container image on this machine.
#[derive(Debug, Clone)]
pub struct Local {
    /// The layout's directory, or the archive's file.
    pub path: PathBuf,
    /// Which image, where there are several.
    pub reference: Option<String>,
    /// Which of an index.
    pub platform: Platform,
}

impl Source {
    /// Whether its bytes come over the network: the turn is taken when the first of them is there.
    pub fn is_remote(&self) -> bool {
        match self {
            Self::Registry { .. }
            | Self::Url(_)
            | Self::Peers(_)
            | Self::Upload(_)
            | Self::Pieces(_) => true,
            Self::Origin(origin) => origin.kind() != OriginKind::Local,
            Self::OciLayout(_)
            | Self::Archive(_)
            | Self::File(_)
            | Self::Adopt { .. }
            | Self::Volume(_) => false,
        }
    }

    /// Whether it is a container image.
    fn is_container(&self) -> bool {
        matches!(
            self,
            Self::Registry { .. } | Self::OciLayout(_) | Self::Archive(_)
        )
    }

    /// Whether its bytes are new here, and nobody has looked at them.
    fn is_from_outside(&self) -> bool {
        self.is_container()
            || matches!(
                self,
                Self::File(_) | Self::Url(_) | Self::Upload(_) | Self::Pieces(_)
            )
    }

    /// Where the image is from, without secrets.
    pub fn provenance(&self) -> Provenance {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        match self {
            Self::Registry {
                reference,
                platform,
                ..
            } => Provenance::Registry {
                reference: reference.to_string(),
                platform: platform.to_string(),
            },
            Self::OciLayout(layout) => Provenance::OciLayout(layout.described()),
            Self::Archive(archive) => Provenance::Archive(archive.described()),
            Self::File(path) => Provenance::File { path: text(path) },
            Self::Adopt { from } => Provenance::Disk { path: text(from) },
            Self::Upload(_) => Provenance::uploaded(""),
            Self::Pieces(pieces) => Provenance::uploaded(pieces.file_name()),
            Self::Url(download) => download.provenance(),
            Self::Volume(snapshot) => Provenance::Volume(snapshot.clone()),
            // Whichever of them are asked, it is the same image.
            Self::Peers(_) => Provenance::Peers,
            Self::Origin(origin) => origin.provenance(),
        }
    }
}

impl Local {
    fn described(&self) -> LocalImage {
        LocalImage {
            path: self.path.to_string_lossy().into_owned(),
            reference: self.reference.clone(),
            platform: self.platform.to_string(),
        }
    }
}

/// What making an image needs from around it.
#[derive(Debug)]
pub struct Sources {
    /// The way out, for plain downloads.
    network: Network,
    /// The same, for registries.
    registries: fetch::registry::Client,
    /// The ways out for looks, which do not wait long.
    looks: Network,
    /// Credentials of the manager itself.
    credentials: Credentials,
    /// Directories that local sources must lie in.
    import_dirs: Vec<PathBuf>,
    /// The way to other managers.
    sync: Receiver<Dialer>,
    /// Other managers that may have what is damaged here.
    peers: Vec<PeerAddress>,
    /// When callers must prove that they may have an image.
    verify_access: VerifyAccess,
    /// The volumes that snapshots are of; `None`: there are none here.
    volumes: Option<Volumes>,
    /// How long an upload may have nothing added to it.
    upload_idle: Duration,
}

/// One making of one image.
#[derive(Debug, Clone)]
pub struct Job {
    pub id: ImageId,
    /// Where its bytes go.
    pub store: ImageStore,
    /// Where they are from.
    pub provenance: Provenance,
    /// The SHA-512 that was asked for.
    pub expected: Option<Sha512>,
    /// Nobody waits for its SHA-512: it is computed when the image is ready.
    pub checksum_later: bool,
    /// The bytes that it must have.
    pub size: Option<u64>,
    /// The format that was declared.
    pub format: Option<Format>,
    /// Only drivers asked for it.
    pub for_volumes: bool,
    /// How often the source was read before, in vain.
    pub pass: u32,
    /// Its turn among the makings.
    pub turn: Turn,
    pub cancel: CancellationToken,
    /// Is told how far the work is.
    pub report: Arc<dyn Report>,
}

/// Who wants to know how far a job is.
pub trait Report: Send + Sync + std::fmt::Debug {
    /// Bytes taken from the source, and how many it has (0: unknown).
    fn progress(&self, processed: u64, total: u64);
    /// The same where every byte counts: somebody goes on from there.
    fn exactly(&self, processed: u64, total: u64);
    /// The digest that the reference was resolved to.
    fn pinned(&self, manifest_digest: &str);
}

impl Job {
    /// Ends blocking work of this job.
    pub fn ends(&self) -> Cancel {
        crate::ends(&self.cancel)
    }

    /// Opens the way in for bytes that come in order.
    pub fn begin(&self) -> Result<Ingest> {
        let ingest = self.store.begin(&self.id, self.ends())?;
        Ok(if self.checksum_later {
            ingest.without_checksum()
        } else {
            ingest
        })
    }

    /// The facts that hold for any source.
    pub fn facts(&self) -> Facts {
        Facts {
            expected: self.expected,
            format: self.format,
            provenance: self.provenance.clone(),
            ..Facts::default()
        }
    }
}

impl Sources {
    /// Sources behind `network`, and local ones in `import_dirs`, which are canonical paths.
    pub fn new(network: Network, credentials: Credentials, import_dirs: Vec<PathBuf>) -> Self {
        let registries = fetch::registry::Client::new(network.clone());
        Self {
            looks: network.impatient(),
            network,
            registries,
            credentials,
            import_dirs,
            sync: Receiver::new(Swarm::new(Settings::default()), Dialer::Plain),
            peers: Vec::new(),
            verify_access: VerifyAccess::default(),
            volumes: None,
            upload_idle: pieces::IDLE,
        }
    }

    /// Gives uploads up to which nothing is added for so long, in place of 24 hours.
    #[must_use]
    pub fn with_upload_idle(mut self, idle: Duration) -> Self {
        self.upload_idle = idle;
        self
    }

    /// With what all syncs of this manager share, and how other managers are reached.
    #[must_use]
    pub fn with_swarm(mut self, swarm: Swarm, dialer: Dialer) -> Self {
        self.sync = Receiver::new(swarm, dialer);
        self
    }

    /// Names other managers that may have what is damaged here.
    #[must_use]
    pub fn with_peers(mut self, peers: Vec<PeerAddress>) -> Self {
        self.peers = peers;
        self
    }

    /// Lets images be made of these volumes too.
    #[must_use]
    pub fn with_volumes(mut self, volumes: Volumes) -> Self {
        self.volumes = Some(volumes);
        self
    }

    /// Takes in the bytes of `source`. Cancelling the job's token ends it at the next chunk.
    pub async fn take_in(&self, source: &Source, job: &Job) -> Result<(Received, Facts)> {
        let mut taken = self.take_as_it_comes(source, job).await?;
        if source.is_container() {
            taken = unpack::unpacked(taken, job).await?;
        }
        // What was stored before is what it was stored as; what comes from outside may be anything.
        if source.is_from_outside() && taken.1.format.is_none() {
            image::refuse_no_disk(&taken.0.file)?;
        }
        Ok(taken)
    }

    async fn take_as_it_comes(&self, source: &Source, job: &Job) -> Result<(Received, Facts)> {
        match source {
            Source::Registry {
                reference,
                platform,
                credentials,
            } => {
                let own = credentials.as_ref();
                let private = own.is_some() && self.caller(reference, own).has_login();
                let credentials = own.unwrap_or(&self.credentials);
                let pull = Pull {
                    reference,
                    platform,
                    credentials,
                };
                let (received, facts) = self.take_registry(pull, job).await?;
                let asked = AskedFor {
                    private,
                    ..facts.asked
                };
                Ok((received, Facts { asked, ..facts }))
            }
            Source::OciLayout(local) => self.take_layout(local, job).await,
            Source::Archive(local) => self.take_archive(local, job).await,
            Source::File(path) => self.take_file(path, job).await,
            Source::Adopt { .. } => unreachable!("nothing is taken in: see Job::adopt"),
            Source::Peers(peers) => self.take_peers(peers, job).await,
            Source::Upload(upload) => Ok((upload.take_in(job).await?, job.facts())),
            Source::Pieces(pieces) => {
                Ok((pieces.take_in(job, self.upload_idle).await?, job.facts()))
            }
            Source::Url(download) => self.take_url(download, job).await,
            Source::Volume(snapshot) => self.take_volume(snapshot, job).await,
            Source::Origin(origin) => match origin.take_in(job).await? {
                Taken::Bytes(taken) => Ok(*taken),
                Taken::FromPeers(peers) => self.take_peers(&peers, job).await,
            },
        }
    }

    /// Opens a path below an import directory: the manager reads files for whoever may ask it for an
    /// image, and must not become a way to read others, nor to learn which there are. A link that is
    /// put into the path meanwhile is not followed.
    fn open_import(&self, path: &Path, flags: OFlags) -> Result<File> {
        let refused = || Error::InvalidField {
            field: "path",
            why: format!(
                "there is no {} below an import directory; put the file there, or start the daemon \
                 with --import-dir",
                path.display()
            ),
        };
        let real = std::fs::canonicalize(path).map_err(|_| refused())?;
        let found = self
            .import_dirs
            .iter()
            .find_map(|dir| Some((dir, real.strip_prefix(dir).ok()?)));
        let (dir, relative) = found.ok_or_else(refused)?;
        let relative = if relative.as_os_str().is_empty() {
            Path::new(".")
        } else {
            relative
        };
        let root = File::open(dir).context("open the import directory", dir)?;
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let flags = flags | OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat2(root, relative, flags, Mode::empty(), beneath);
        Ok(file.context("open", path)?.into())
    }

    /// Opens a regular file below an import directory. Opening a pipe does not wait for its writer.
    fn open_import_file(&self, path: &Path) -> Result<File> {
        let file = self.open_import(path, OFlags::NONBLOCK | OFlags::NOCTTY)?;
        if !file.metadata().context("inspect", path)?.is_file() {
            let why = format!("{} is not a regular file", path.display());
            return Err(Error::InvalidField { field: "path", why });
        }
        Ok(file)
    }
}
