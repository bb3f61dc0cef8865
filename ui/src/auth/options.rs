//! The command line options of who may ask, checked.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use kubernetes::Api;
use zeroize::Zeroizing;

use super::Gate;
use super::gate::Mode;
use super::origin::Hosts;
use super::rights::Rights;
use super::users::Users;
use crate::http::Files;
use crate::{Error, Result};

/// The longest secret that a proxy is known by, and the shortest that nobody guesses.
const SECRET_MAX: u64 = 4096;
const SECRET_MIN: usize = 16;

/// How people prove who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Way {
    /// Not at all: whoever reaches the port may do everything. Only at an address of this machine alone.
    None,
    /// By a token of the Kubernetes API server, whose rules say what they may do.
    Kubernetes,
    /// By a proxy in front, which says who they are; Kubernetes' rules say what they may do.
    Header,
    /// By a name and a password of a file.
    Basic,
}

/// Who may use the UI.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "People")]
#[group(skip)]
pub struct Options {
    /// How people prove who they are
    #[arg(long, value_enum, default_value = "kubernetes", value_name = "WAY")]
    pub auth: Way,
    /// A name by which browsers reach this UI, with its port if only that one is right; may be repeated. The names
    /// of this machine for itself need not be said
    #[arg(long = "host", value_name = "NAME")]
    pub hosts: Vec<String>,
    /// With --auth header: file with the secret that the proxy puts into the header X-Forwarded-Secret; without, the
    /// proxy has to be on this machine, or in this pod
    #[arg(long, value_name = "FILE")]
    pub proxy_secret: Option<PathBuf>,
    /// With --auth basic: file with the lines that --hash-password makes
    #[arg(long, value_name = "FILE")]
    pub users: Option<PathBuf>,
    /// Certificate that browsers are shown, in PEM; read again when it changes
    #[arg(long, requires = "tls_key", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// Private key of the certificate
    #[arg(long, requires = "tls_cert", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Directory with the token of this pod's service account
    #[arg(long, default_value = kubernetes::ACCOUNT_DIR, value_name = "DIR", hide_default_value = true)]
    pub service_account: PathBuf,
}

impl Options {
    /// The files of the certificate that browsers are shown; `None`: no TLS is spoken.
    pub fn tls(&self) -> Option<Files> {
        let (certificate, key) = (self.tls_cert.clone()?, self.tls_key.clone()?);
        Some(Files { certificate, key })
    }

    /// What decides about requests that come to `listen`; `None` is a unix socket.
    ///
    /// # Errors
    /// They would let in whoever reaches the port, or passwords would be sent in the clear; or a file is missing.
    pub async fn check(&self, listen: Option<SocketAddr>) -> Result<Gate> {
        let is_local = listen.is_none_or(|address| address.ip().is_loopback());
        let tls = self.tls_cert.is_some();
        self.belongs("--proxy-secret", self.proxy_secret.is_some(), Way::Header)?;
        self.belongs("--users", self.users.is_some(), Way::Basic)?;
        let mode = match self.auth {
            Way::None if is_local => Mode::Nobody,
            Way::None => {
                return Err(Error::Options(
                    "--auth none lets everybody who reaches the port do everything: listen at 127.0.0.1, or choose \
                     another --auth"
                        .to_owned(),
                ));
            }
            Way::Kubernetes => Mode::Kubernetes(self.rights().await?),
            Way::Header => {
                let secret = self.proxy_secret.as_deref().map(secret).transpose()?;
                let rights = self.rights().await?;
                Mode::Header { secret, rights }
            }
            Way::Basic if !is_local && !tls => {
                return Err(Error::Options(
                    "--auth basic would have passwords sent in the clear: give --tls-cert and --tls-key, or listen \
                     at 127.0.0.1"
                        .to_owned(),
                ));
            }
            Way::Basic => {
                let users = self.users.clone().ok_or_else(|| {
                    Error::Options(
                        "--auth basic needs --users, a file with the lines that --hash-password makes"
                            .to_owned(),
                    )
                })?;
                Mode::Basic(Users::open(users)?)
            }
        };
        Ok(Gate::new(mode, Hosts::new(&self.hosts)?, tls))
    }

    fn belongs(&self, option: &str, given: bool, way: Way) -> Result<()> {
        if !given || self.auth == way {
            return Ok(());
        }
        let way = if way == Way::Header {
            "header"
        } else {
            "basic"
        };
        Err(Error::Options(format!(
            "{option} belongs to --auth {way}: give both, or neither"
        )))
    }

    async fn rights(&self) -> Result<Rights> {
        let api = Api::in_cluster(&self.service_account).await?;
        Ok(Rights::new(api))
    }
}

fn secret(path: &Path) -> Result<Zeroizing<String>> {
    use std::io::Read as _;
    let file = std::fs::File::open(path).map_err(Error::io("open", path.display().to_string()))?;
    let mut text = Zeroizing::new(String::new());
    file.take(SECRET_MAX)
        .read_to_string(&mut text)
        .map_err(Error::io("read", path.display().to_string()))?;
    let secret = Zeroizing::new(text.trim().to_owned());
    if secret.len() < SECRET_MIN {
        return Err(Error::File {
            path: path.to_owned(),
            why: format!("a secret has at least {SECRET_MIN} characters"),
        });
    }
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    async fn refused(line: &str, listen: &str) -> String {
        let line = Line::parse_from(line.split_whitespace());
        let listen = Some(listen.parse().unwrap());
        line.options.check(listen).await.unwrap_err().to_string()
    }

    #[tokio::test]
    async fn nobody_is_let_in_by_mistake() {
        let why = refused("ui --auth none", "0.0.0.0:80").await;
        assert!(why.contains("listen at 127.0.0.1"), "{why}");
        let why = refused("ui --auth none", "[::]:80").await;
        assert!(why.contains("listen at 127.0.0.1"), "{why}");
        let why = refused("ui --auth basic --users /nothing", "10.0.0.1:80").await;
        assert!(why.contains("in the clear"), "{why}");
        let why = refused("ui --auth basic", "127.0.0.1:80").await;
        assert!(why.contains("--hash-password"), "{why}");
        let why = refused("ui --auth none --users /x", "127.0.0.1:80").await;
        assert!(why.contains("--auth basic"), "{why}");
        let line = Line::parse_from(["ui", "--auth", "none"]);
        let local = Some("127.0.0.1:80".parse().unwrap());
        line.options.check(local).await.unwrap();
        assert!(Line::try_parse_from(["ui", "--tls-cert", "x"]).is_err());
    }

    #[test]
    fn a_short_secret_is_refused_and_not_said() {
        let file = tempfile::NamedTempFile::new().unwrap();
        crate::written(file.path(), "hunter2\n");
        let why = secret(file.path()).unwrap_err().to_string();
        assert!(!why.contains("hunter2"), "{why}");
        crate::written(file.path(), "0123456789abcdef\n");
        assert_eq!(*secret(file.path()).unwrap(), "0123456789abcdef");
    }
}
