//! The options about certificates: where this program's own comes from, or that it is the authority itself.

use std::path::PathBuf;

use client::Address;
use kubernetes::{ACCOUNT_DIR, is_name};
use trust::Source;

use super::Mode;
use crate::error::{Error, Result};

/// Certificates of this program, and the authority of the cluster.
#[derive(Debug, clap::Args)]
pub(crate) struct CertificateArgs {
    #[command(flatten)]
    own: trust::Options,

    /// Be the certificate authority of the cluster, with its key in this Secret of the pod's own namespace. The Secret
    /// must exist; while it is empty, an authority is made and stored in it. For the controller.
    #[arg(long, value_name = "NAME", requires = "ca_configmap",
          conflicts_with_all = ["certificates", "authority"])]
    ca_secret: Option<String>,

    /// The Secret of --ca-secret belongs to somebody else (cert-manager, the operator): only read it, every 30
    /// seconds.
    #[arg(long, requires = "ca_secret")]
    ca_external: bool,

    /// The ConfigMap in which the certificate authorities are published that all programs believe. It must exist.
    #[arg(long, value_name = "NAME", requires = "ca_secret")]
    ca_configmap: Option<String>,

    /// Where the other programs get their certificates.
    #[arg(
        long,
        default_value = "0.0.0.0:8003",
        value_name = "HOST:PORT",
        requires = "ca_secret"
    )]
    authority_listen: String,

    /// The directory with the files of the pod's service account, for the Kubernetes API.
    #[arg(long, default_value = ACCOUNT_DIR, value_name = "DIR")]
    pub(super) account_dir: PathBuf,
}

/// Where the certificate of this program comes from.
#[derive(Debug, Default)]
pub(crate) enum Certificates {
    /// It has none: connections are plain.
    #[default]
    None,
    /// From files, or from the controller.
    From(Source),
    /// From itself: it is the authority.
    Authority(AuthorityConfig),
}

/// Where the authority is stored and published.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The Secret with its key and certificate.
    pub(crate) secret: String,
    /// The Secret is ours: an authority is made, renewed and written back. Otherwise it is only read.
    pub(crate) owned: bool,
    /// The ConfigMap with the certificates that all pods believe.
    pub(crate) config_map: String,
}

/// What the authority needs.
#[derive(Debug)]
pub(crate) struct AuthorityConfig {
    pub(crate) place: Place,
    pub(crate) listen: Address,
    pub(crate) account: PathBuf,
}

impl CertificateArgs {
    pub(crate) fn check(self, mode: Mode) -> Result<Certificates> {
        let (Some(secret), Some(config_map)) = (self.ca_secret, self.ca_configmap) else {
            let source = self.own.source().map_err(Error::Certificates)?;
            return Ok(source.map_or(Certificates::None, Certificates::From));
        };
        if mode == Mode::Node {
            let why = "is for the controller, and this is the node service: use --authority";
            return Err(Error::Flag {
                flag: "--ca-secret",
                why,
            });
        }
        for (flag, name) in [("--ca-secret", &secret), ("--ca-configmap", &config_map)] {
            if !is_name(name) {
                let why = "must be the name of an object: lower-case letters, digits, '-' and '.'";
                return Err(Error::Flag { flag, why });
            }
        }
        let listen = listen::address(&self.authority_listen).map_err(|_| Error::Flag {
            flag: "--authority-listen",
            why: "must be HOST:PORT",
        })?;
        Ok(Certificates::Authority(AuthorityConfig {
            place: Place {
                secret,
                owned: !self.ca_external,
                config_map,
            },
            listen,
            account: self.account_dir,
        }))
    }
}
