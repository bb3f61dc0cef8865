//! What can go wrong between a caller and a manager.

use std::time::Duration;

use types::{Classify, ErrorKind};

use crate::{Address, InvalidAddress, kind_of};

/// A failed call.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is no address.
    #[error(transparent)]
    Address(#[from] InvalidAddress),
    /// Nobody answers at the address.
    #[error("the {service} at {address} does not answer; check that it runs")]
    Unreachable {
        /// What is looked for there.
        service: &'static str,
        /// Where it was looked for.
        address: Address,
        /// What the transport says.
        #[source]
        source: Transport,
    },
    /// The manager does not know what a volume can begin with.
    #[error(
        "the backing image manager at {address} is older than this program and would make a blank \
         volume; upgrade the manager first"
    )]
    Older {
        /// Who was asked.
        address: Address,
    },
    /// The connection ended before the answer came. What was asked may still happen.
    #[error("the connection to the {service} at {address} broke before the answer; try again")]
    Broken {
        /// What was asked.
        service: &'static str,
        /// Who was asked.
        address: Address,
        /// What the transport says.
        #[source]
        source: Transport,
    },
    /// The manager took longer than the call allows. What was asked may still happen.
    #[error("the {service} at {address} did not {operation} within {after:?}; try again")]
    Deadline {
        /// What was asked.
        service: &'static str,
        /// Who was asked.
        address: Address,
        /// What was asked, as a verb.
        operation: &'static str,
        /// The time allowed.
        after: Duration,
    },
    /// The manager speaks for a node that it is not on.
    #[error(
        "the backing image manager at {address} has a certificate of node {node} and answers for node {claimed:?}: \
         its answer is not used; check --node-id of that manager, and whether the node was broken into"
    )]
    OtherNode {
        /// Who was asked.
        address: Address,
        /// The node in its certificate.
        node: String,
        /// The node in its answer.
        claimed: String,
    },
    /// Nobody has what is looked for, and a disk that may have it is silent.
    #[error(
        "disk {uuid}{on} does not answer and may have the requested object; check that its \
         backing image manager runs; if the disk is gone for good, run: backing-image-manager \
         disk forget {uuid}"
    )]
    Silent {
        /// Which.
        uuid: String,
        /// ` of node NAME`, or nothing.
        on: String,
    },
    /// The manager answered with an error; its text names the object and the next step.
    #[error("{message}")]
    Refused {
        /// What it means.
        kind: ErrorKind,
        /// The manager's own text.
        message: String,
    },
}

/// The result of a call.
pub type Result<T> = std::result::Result<T, Error>;

/// The transport's own chain of causes, as one text.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Transport(String);

impl Transport {
    pub(crate) fn new(cause: &(dyn std::error::Error + 'static)) -> Self {
        Self(types::report(cause).to_string())
    }
}

impl Error {
    /// [`Self::Silent`], for a disk of a node; of an empty one where the node is not known.
    pub fn silent(uuid: &str, node: &str) -> Self {
        let on = match node {
            "" => String::new(),
            node => format!(" of node {node}"),
        };
        let uuid = uuid.to_owned();
        Self::Silent { uuid, on }
    }

    /// Sorts a status into "the manager says" and "the manager was not reached".
    pub(crate) fn from_status(
        service: &'static str,
        address: &Address,
        status: &tonic::Status,
    ) -> Self {
        // Only a status made on this side of the wire has a source.
        match std::error::Error::source(status) {
            Some(cause) => {
                let (address, source) = (address.clone(), Transport::new(cause));
                if is_no_connection(cause) {
                    Self::Unreachable {
                        service,
                        address,
                        source,
                    }
                } else {
                    Self::Broken {
                        service,
                        address,
                        source,
                    }
                }
            }
            None => Self::Refused {
                kind: kind_of(status.code()),
                message: status.message().to_owned(),
            },
        }
    }
}

/// Whether there never was a connection.
fn is_no_connection(cause: &(dyn std::error::Error + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(cause), |cause| cause.source());
    causes.any(|cause| cause.is::<tonic::ConnectError>() || cause.is::<std::io::Error>())
}

/// What is there, or `None`.
///
/// # Errors
/// All but `NotFound`.
pub fn there<T>(answer: Result<T>) -> Result<Option<T>> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl Classify for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Address(_) => ErrorKind::InvalidArgument,
            Self::Unreachable { .. } | Self::Broken { .. } | Self::Silent { .. } => {
                ErrorKind::Unavailable
            }
            Self::Older { .. } => ErrorKind::FailedPrecondition,
            Self::OtherNode { .. } => ErrorKind::PermissionDenied,
            Self::Deadline { .. } => ErrorKind::DeadlineExceeded,
            Self::Refused { kind, .. } => *kind,
        }
    }
}
