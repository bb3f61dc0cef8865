//! The options of `backing-image create --download-url`.
//!
//! Secrets come from files or from the environment, because every user of the machine can read a
//! command line.

use std::path::{Path, PathBuf};

use clap::Args;
use client::wire;

use super::Failure;

#[derive(Debug, Args)]
pub(super) struct DownloadArgs {
    /// Header to send to the host of the URL, `Name: value`; may be given several times
    #[arg(long, value_name = "HEADER", requires = "download_url")]
    header: Vec<String>,
    /// File with additional, secret headers, one per line
    #[arg(long, value_name = "FILE", requires = "download_url")]
    header_file: Option<PathBuf>,
    /// User for basic authentication
    #[arg(long, value_name = "NAME", requires = "download_url")]
    username: Option<String>,
    /// File with the password of the user [default: the environment variable DOWNLOAD_PASSWORD]
    #[arg(long, value_name = "FILE", requires = "username")]
    password_file: Option<PathBuf>,
    /// File with a bearer token [default: the environment variable DOWNLOAD_TOKEN]
    #[arg(
        long,
        value_name = "FILE",
        requires = "download_url",
        conflicts_with = "username"
    )]
    token_file: Option<PathBuf>,
    /// PEM file of certificate authorities to trust in addition to those of the system
    #[arg(long, value_name = "FILE", requires = "download_url")]
    ca_file: Option<PathBuf>,
    /// Proxy, http://host:port, or `direct` for none [default: from the environment of the daemon]
    #[arg(long, value_name = "URL", requires = "download_url")]
    proxy: Option<String>,
    /// Compression of the file: gzip, xz, zstd or none [default: detected from its first bytes]
    #[arg(long, value_name = "KIND", requires = "download_url")]
    decompress: Option<String>,
    /// Seconds without data after which the transfer is resumed [default: the setting of the
    /// daemon, 30]
    #[arg(long, value_name = "SECONDS", requires = "download_url")]
    idle_timeout: Option<u32>,
}

impl DownloadArgs {
    pub(super) fn source(&self, url: String) -> Result<wire::UrlSource, Failure> {
        let secret = |file: Option<&PathBuf>, variable| match file {
            Some(path) => Ok(read(path)?.trim_end_matches(['\r', '\n']).to_owned()),
            None => Ok::<_, Failure>(std::env::var(variable).unwrap_or_default()),
        };
        let mut headers = Vec::new();
        let file = self.header_file.as_deref().map(read).transpose()?;
        let lines = file.iter().flat_map(|text| text.lines());
        for line in lines.chain(self.header.iter().map(String::as_str)) {
            if line.trim().is_empty() {
                continue;
            }
            // The value may be the secret: it is not repeated.
            let (name, value) = line
                .split_once(':')
                .ok_or("a header is written `Name: value`")?;
            headers.push(wire::Header {
                name: name.trim().to_owned(),
                value: value.trim().to_owned(),
            });
        }
        let (mut password, mut bearer_token) = (String::new(), String::new());
        if self.username.is_some() {
            password = secret(self.password_file.as_ref(), "DOWNLOAD_PASSWORD")?;
        } else {
            bearer_token = secret(self.token_file.as_ref(), "DOWNLOAD_TOKEN")?;
        }
        let ca_certificates = match &self.ca_file {
            Some(path) => read(path)?.into_bytes(),
            None => Vec::new(),
        };
        Ok(wire::UrlSource {
            url,
            headers,
            username: self.username.clone().unwrap_or_default(),
            password,
            bearer_token,
            ca_certificates,
            proxy: self.proxy.clone().unwrap_or_default(),
            decompress: self.decompress.clone().unwrap_or_default(),
            idle_timeout_seconds: self.idle_timeout.unwrap_or_default(),
        })
    }
}

fn read(path: impl AsRef<Path>) -> Result<String, Failure> {
    let path = path.as_ref();
    let text = std::fs::read_to_string(path);
    text.map_err(|error| format!("cannot read {}: {error}", path.display()).into())
}
