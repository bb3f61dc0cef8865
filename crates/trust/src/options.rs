//! The command line options of a program that holds a credential.

use std::path::PathBuf;

use crate::{Error, Result};

/// Where the certificate of a program comes from.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Options {
    /// Directory with ca.crt, tls.crt and tls.key of this program, which `backing-image-manager
    /// certs issue` makes; read again when they change
    #[arg(long, value_name = "DIR", conflicts_with_all = ["authority", "authority_ca", "authority_token"])]
    pub certificates: Option<PathBuf>,
    /// Address at which the controller issues certificates
    #[arg(long, value_name = "HOST:PORT", requires_all = ["authority_ca", "authority_token"])]
    pub authority: Option<String>,
    /// File with the certificate authorities that the controller publishes
    #[arg(long, value_name = "FILE", requires = "authority")]
    pub authority_ca: Option<PathBuf>,
    /// File with the ServiceAccount token by which this program proves to the controller which pod
    /// it is
    #[arg(long, value_name = "FILE", requires = "authority")]
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
    /// The address is none.
    pub fn source(&self) -> Result<Option<Source>> {
        if let Some(directory) = &self.certificates {
            return Ok(Some(Source::Files(directory.clone())));
        }
        let (Some(address), Some(bundle), Some(token)) =
            (&self.authority, &self.authority_ca, &self.authority_token)
        else {
            return Ok(None);
        };
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
}
