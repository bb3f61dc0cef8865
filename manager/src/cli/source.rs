//! The options that name a source, the same for `create` and `inspect`.

use std::path::PathBuf;

use clap::Args;
use client::wire;

use super::Failure;
use super::download::DownloadArgs;

#[derive(Debug, Args)]
pub(super) struct FromArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// Name of the image in a layout or archive with several images
    #[arg(long, value_name = "NAME:TAG")]
    reference: Option<String>,
    /// Platform to select from a multi-platform image [default: linux on the architecture of this
    /// machine]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
    /// Credentials for this pull, in the format of `docker login` [default: those of the daemon]
    #[arg(long, value_name = "FILE", requires = "registry")]
    auth_file: Option<PathBuf>,
    #[command(flatten)]
    download: DownloadArgs,
}

#[derive(Debug, Args)]
#[group(id = "source", required = true, multiple = false)]
struct SourceArgs {
    /// A container image in a registry, for example rancher/longhorn-test:baseimage-ext4
    #[arg(long, value_name = "REF")]
    registry: Option<String>,
    /// A container image in an OCI image layout (a directory that the daemon can read)
    #[arg(long, value_name = "DIR")]
    oci_layout: Option<PathBuf>,
    /// A container image in an OCI archive or a `docker save` file
    #[arg(long, value_name = "FILE")]
    archive: Option<PathBuf>,
    /// A disk image in a file
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// A disk image at an http or https URL
    #[arg(long, value_name = "URL")]
    download_url: Option<String>,
}

impl FromArgs {
    /// The source that the options name; `None` when they name none.
    pub(super) fn source(&self) -> Result<Option<wire::source::Source>, Failure> {
        use wire::source::Source;
        let reference = self.reference.clone().unwrap_or_default();
        let platform = self.platform.clone().unwrap_or_default();
        // The daemon wants absolute paths: it does not know where this command was typed.
        let absolute = |path: &PathBuf| {
            std::path::absolute(path).map(|path| path.to_string_lossy().into_owned())
        };
        let from = &self.source;
        Ok(Some(if let Some(registry) = &from.registry {
            let docker_config_json = match &self.auth_file {
                Some(path) => std::fs::read(path)
                    .map_err(|error| format!("cannot read {}: {error}", path.display()))?,
                None => Vec::new(),
            };
            Source::Registry(wire::RegistrySource {
                reference: registry.clone(),
                platform,
                docker_config_json,
            })
        } else if let Some(dir) = &from.oci_layout {
            Source::OciLayout(wire::OciLayoutSource {
                path: absolute(dir)?,
                reference,
                platform,
            })
        } else if let Some(file) = &from.archive {
            Source::Archive(wire::ArchiveSource {
                path: absolute(file)?,
                reference,
                platform,
            })
        } else if let Some(file) = &from.file {
            Source::File(wire::FileSource {
                path: absolute(file)?,
            })
        } else if let Some(url) = &from.download_url {
            Source::Url(self.download.source(url.clone())?)
        } else {
            return Ok(None);
        }))
    }
}
