//! Which interfaces the daemon serves to whom: its options, and the listeners that follow from them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use client::Address;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use listen::{Listener, Protocol, Security};
use tracing::{info, warn};
use trust::held::Proof;
use trust::{Dialer, Held, LonghornTls, Open, Policy, access};
use types::NodeId;

use catalog::{Error, Result};
use store::IoContext as _;

/// The socket of a daemon whose user did not choose another one; that of the command line too.
pub(crate) const SOCKET: &str = "/run/longhorn-base-image/manager.sock";

// A method that nobody decided about is served to nobody, and does not compile.
const _: () = assert!(
    access::lists_all(proto::MANAGER_METHODS),
    "a method of the manager has no line in trust::access::TABLE"
);

/// Who is let in.
#[derive(Debug, Clone, Args)]
pub struct FaceArgs {
    /// Unix socket that serves every API to root and to the user of the daemon [default:
    /// /run/longhorn-base-image/manager.sock, where it can be made]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Who can call our own API and copy images over the network [default: tls with a certificate,
    /// otherwise off]
    #[arg(long, value_enum, value_name = "WHO")]
    pub own_api: Option<Face>,
    /// Who can call Longhorn's API over the network [default: tls with a certificate, otherwise
    /// plain]
    #[arg(long, value_enum, value_name = "WHO")]
    pub longhorn_api: Option<Face>,
    /// Directory of Longhorn's own certificates (ca.crt, tls.crt and tls.key of its Secret
    /// longhorn-grpc-tls); callers that have one can use Longhorn's API with TLS
    #[arg(long, value_name = "DIR", default_value = trust::longhorn::DIRECTORY)]
    pub longhorn_certificates: PathBuf,
    /// Where the certificate of the daemon comes from: options of every command.
    #[arg(skip)]
    pub trust: trust::Options,
}

/// To whom an API is served over the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Face {
    /// Nobody
    Off,
    /// Programs with a certificate of this cluster, in the roles that each call allows
    Tls,
    /// Everybody who can reach the port, without TLS
    Plain,
}

impl From<Face> for Open {
    fn from(face: Face) -> Self {
        match face {
            Face::Off => Self::Off,
            Face::Tls => Self::Proven,
            Face::Plain => Self::Plain,
        }
    }
}

/// What the options come to.
#[derive(Debug, Clone)]
pub(crate) struct Faces {
    own: Open,
    longhorn: Open,
    held: Option<Held>,
    longhorns: Option<Arc<LonghornTls>>,
}

impl Faces {
    /// Checks the options, and begins to hold the certificate that they name: the future keeps it, and never ends.
    pub(crate) fn new(args: &FaceArgs) -> Result<(Self, BoxFuture<'static, ()>)> {
        let source = args.trust.source().map_err(|error| Error::InvalidField {
            field: "certificates",
            why: error.to_string(),
        })?;
        let (held, keeping) = match source {
            Some(source) => {
                let (held, keeping) = client::hold(source);
                (Some(held), keeping.boxed())
            }
            None => (None, std::future::pending().boxed()),
        };
        Ok((Self::of(args, held)?, keeping))
    }

    fn of(args: &FaceArgs, held: Option<Held>) -> Result<Self> {
        let has_certificate = held.is_some();
        let chosen = |face: Option<Face>, without: Open| match face {
            Some(face) => face.into(),
            None if has_certificate => Open::Proven,
            None => without,
        };
        let faces = Self {
            own: chosen(args.own_api, Open::Off),
            longhorn: chosen(args.longhorn_api, Open::Plain),
            held,
            longhorns: LonghornTls::find(&args.longhorn_certificates).map(Arc::new),
        };
        for (field, open) in [("own-api", faces.own), ("longhorn-api", faces.longhorn)] {
            if open == Open::Proven && !has_certificate {
                return Err(Error::InvalidField {
                    field,
                    why: "tls needs a certificate: give --certificates or --authority".to_owned(),
                });
            }
        }
        if faces.own == Open::Off {
            info!(
                "our own API is served on the unix socket alone: --own-api says who else may call it"
            );
        }
        if faces.own == Open::Plain {
            warn!(
                "everybody who reaches the ports of this daemon can use and delete its images and volumes (--own-api=plain)"
            );
        }
        Ok(faces)
    }

    /// What callers may call on a disk of that node.
    pub(crate) fn policy(&self, node: &NodeId) -> Arc<Policy> {
        Arc::new(Policy {
            node: Some(node.clone()),
            own: self.own,
            longhorn: self.longhorn,
        })
    }

    /// Who is let in at the ports.
    pub(crate) fn security(&self) -> Security {
        Security {
            held: self.held.clone(),
            proof: Proof::Required,
            plain: self.own == Open::Plain || self.longhorn == Open::Plain,
            longhorn: self.longhorns.clone(),
            people: None,
        }
    }

    /// Whether other managers can copy images by our own protocol.
    pub(crate) fn gives_images(&self) -> bool {
        self.own != Open::Off
    }

    /// How other managers of ours are reached.
    pub(crate) fn dialer(&self) -> Dialer {
        self.dialer_of(self.own)
    }

    /// How Longhorn's interface of other managers is reached.
    pub(crate) fn longhorn_dialer(&self) -> Dialer {
        self.dialer_of(self.longhorn)
    }

    fn dialer_of(&self, open: Open) -> Dialer {
        match (&self.held, open) {
            (Some(held), Open::Proven | Open::Off) => Dialer::Proven(held.clone()),
            _ => Dialer::Plain,
        }
    }

    /// The certificate of this program.
    pub(crate) const fn held(&self) -> Option<&Held> {
        self.held.as_ref()
    }
}

/// Binds the unix socket. One that nobody asked for may be missing: another daemon of this machine has it, or the
/// directory cannot be made.
pub(crate) async fn local(args: &FaceArgs) -> Result<Option<Listener>> {
    let path = args.socket.as_deref().unwrap_or(Path::new(SOCKET));
    let bound = async {
        if args.socket.is_none()
            && let Some(directory) = path.parent()
        {
            std::fs::create_dir_all(directory)?;
        }
        Listener::bind(&Address::Unix(path.to_owned()), Protocol::Grpc).await
    };
    match bound.await {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if args.socket.is_none() => {
            info!(%error, "there is no unix socket at {}: --socket chooses another path", path.display());
            Ok(None)
        }
        Err(error) => Ok(Err(error).context("listen on the socket", path)?),
    }
}
