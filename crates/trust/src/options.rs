//! The command line options of a program that holds a credential.

use std::path::PathBuf;

use crate::{Error, Result};

/// Where the certificate of a program comes from.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Certificates")]
pub struct Options {
    /// Directory with ca.crt, tls.crt and tls.key of this program, made by `backing-image-manager
    /// certs issue`; read again when they change
    #[arg(long, global = true, env = "LONGHORN_CERTIFICATES", value_name = "DIR")]
    pub certificates: Option<PathBuf>,
    /// Address at which the controller issues certificates
    #[arg(
        long,
        global = true,
        env = "LONGHORN_AUTHORITY",
        value_name = "HOST:PORT"
    )]
    pub authority: Option<String>,
    /// File with the certificate authorities that the controller publishes
    #[arg(
        long,
        global = true,
        env = "LONGHORN_AUTHORITY_CA",
        value_name = "FILE"
    )]
    pub authority_ca: Option<PathBuf>,
    /// File with the ServiceAccount token by which this program proves to the controller who it is;
    /// /dev/stdin for one that is piped
    #[arg(
        long,
        global = true,
        env = "LONGHORN_AUTHORITY_TOKEN",
        value_name = "FILE"
    )]
    pub authority_token: Option<PathBuf>,
}

/// Where the certificate of a program comes from: checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A directory.
    Files(PathBuf),
    /// The controller.
    Authority {
        /// `HOST:PORT` of its service.
        address: String,
        /// The file with who is believed.
        bundle: PathBuf,
        /// The file with the token.
        token: PathBuf,
    },
}

impl Options {
    /// What the options say; `None`: this program has no certificate.
    ///
    /// # Errors
    /// They contradict each other, or one is missing.
    pub fn source(&self) -> Result<Option<Source>> {
        let parts = (&self.authority, &self.authority_ca, &self.authority_token);
        match (&self.certificates, parts) {
            (None, (None, None, None)) => Ok(None),
            (Some(directory), (None, None, None)) => Ok(Some(Source::Files(directory.clone()))),
            (None, (Some(address), Some(bundle), Some(token))) => {
                if !types::is_authority(address) {
                    return Err(Error::Options(format!(
                        "--authority {:?} is not an address: write HOST:PORT",
                        types::shown(address)
                    )));
                }
                Ok(Some(Source::Authority {
                    address: address.clone(),
                    bundle: bundle.clone(),
                    token: token.clone(),
                }))
            }
            (None, _) => Err(Error::Options(
                "--authority, --authority-ca and --authority-token belong together: give all three"
                    .to_owned(),
            )),
            (Some(_), _) => Err(Error::Options(
                "a program has one certificate: give either --certificates or --authority"
                    .to_owned(),
            )),
        }
    }
}
