//! Where the bytes of an image come from. Every source ends in the same door: an [`Ingest`] that is
//! finished, and the facts that vouch for it.

mod container;
mod file;
mod url;

use std::path::PathBuf;
use std::sync::Arc;

use fetch::{Credentials, Network, Platform, Reference};
use image::Format;
use tokio_util::sync::CancellationToken;
use types::{ImageId, Sha512};

use crate::error::{Error, Result};
use crate::store::{Facts, ImageStore, Received};

/// What an image is made from; checked, and never wrong in form.
#[derive(Debug, Clone)]
pub enum Source {
    /// A container image in a registry.
    Registry {
        /// Which image.
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
    Url(fetch::url::Source),
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
    /// The source as text: what is stored, shown and compared. Without secrets.
    pub fn text(&self) -> String {
        let local = |scheme, local: &Local| {
            let reference = local
                .reference
                .as_deref()
                .map(|r| format!(":{r}"))
                .unwrap_or_default();
            format!(
                "{scheme}:{}{reference} ({})",
                local.path.display(),
                local.platform
            )
        };
        match self {
            Self::Registry {
                reference,
                platform,
                ..
            } => {
                format!("docker://{reference} ({platform})")
            }
            Self::OciLayout(layout) => local("oci-layout", layout),
            Self::Archive(archive) => local("archive", archive),
            Self::File(path) => format!("file:{}", path.display()),
            Self::Url(url) => format!("{url} (#{})", url.fingerprint()),
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
    /// Credentials of the manager itself.
    credentials: Credentials,
    /// Directories that local sources must lie in.
    import_dirs: Vec<PathBuf>,
}

/// One making of one image.
#[derive(Debug, Clone)]
pub struct Job {
    /// Which image.
    pub id: ImageId,
    /// Where its bytes go.
    pub store: ImageStore,
    /// The SHA-512 that was asked for.
    pub expected: Option<Sha512>,
    /// The format that was declared.
    pub format: Option<Format>,
    /// How often the source was read before and its bytes came damaged.
    pub pass: u32,
    /// Ends the work.
    pub cancel: CancellationToken,
    /// Is told how far the work is.
    pub report: Arc<dyn Report>,
}

/// Who wants to know how far a job is.
pub trait Report: Send + Sync + std::fmt::Debug {
    /// Bytes taken from the source, and how many it has (0: unknown).
    fn progress(&self, processed: u64, total: u64);
    /// The digest that the reference was resolved to.
    fn pinned(&self, manifest_digest: &str);
}

impl Job {
    /// The facts that hold for any source.
    fn facts(&self, source: &Source) -> Facts {
        Facts {
            expected: self.expected,
            format: self.format,
            source: source.text(),
            ..Facts::default()
        }
    }
}

impl Sources {
    /// Sources behind `network`, and local ones in `import_dirs`, which are canonical paths.
    pub fn new(network: Network, credentials: Credentials, import_dirs: Vec<PathBuf>) -> Self {
        let registries = fetch::registry::Client::new(network.clone());
        Self {
            network,
            registries,
            credentials,
            import_dirs,
        }
    }

    /// Takes in the bytes of `source`. Cancelling the job's token ends it at the next chunk.
    pub async fn take_in(&self, source: &Source, job: &Job) -> Result<(Received, Facts)> {
        match source {
            Source::Registry {
                reference,
                platform,
                credentials,
            } => {
                let credentials = credentials.as_ref().unwrap_or(&self.credentials);
                self.take_registry(source, reference, (platform, credentials), job)
                    .await
            }
            Source::OciLayout(local) => self.take_layout(source, local, job).await,
            Source::Archive(local) => self.take_archive(source, local, job).await,
            Source::File(path) => self.take_file(source, path, job).await,
            Source::Url(url) => self.take_url(source, url, job).await,
        }
    }

    /// Refuses a path outside the import directories: the manager reads files for whoever may ask it
    /// for an image, and must not become a way to read others.
    fn confine(&self, path: &std::path::Path) -> Result<PathBuf> {
        let refused = |why: String| Error::InvalidField { field: "path", why };
        let real = std::fs::canonicalize(path)
            .map_err(|error| refused(format!("{}: {error}", path.display())))?;
        if self.import_dirs.iter().any(|dir| real.starts_with(dir)) {
            return Ok(real);
        }
        Err(refused(format!(
            "{} is not below an import directory; start the daemon with --import-dir, or move the \
             file there",
            path.display()
        )))
    }
}
