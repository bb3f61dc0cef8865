//! What can go wrong between a program and the API server.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use types::{Classify, ErrorKind};

/// The result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed call.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is nothing to say where the API server is.
    #[error(
        "cannot find the Kubernetes API server: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are \
         not set; run in a pod, or set both"
    )]
    NoServer,
    /// A file of the service account cannot be read.
    #[error("cannot read {}; mount the token of the pod's service account there", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What is in such a file is of no use.
    #[error("{} is not valid: {why}", path.display())]
    Account {
        /// Which file.
        path: PathBuf,
        /// What it should be.
        why: &'static str,
    },
    /// The HTTP client cannot be made.
    #[error("cannot make the client of the Kubernetes API")]
    Client(#[source] Cause),
    /// Nobody answers.
    #[error("cannot {operation}: the Kubernetes API server does not answer; try again")]
    Unreachable {
        /// What was asked: a verb and an object.
        operation: String,
        /// What the transport says.
        #[source]
        source: Cause,
    },
    /// The answer takes too long.
    #[error(
        "cannot {operation}: no answer of the Kubernetes API server within {after:?}; try again"
    )]
    Deadline {
        /// What was asked.
        operation: String,
        /// The time allowed.
        after: Duration,
    },
    /// Our own token is not accepted.
    #[error(
        "cannot {operation}: the Kubernetes API server does not accept the token of this pod's service \
         account; if this lasts for more than a minute, delete the pod"
    )]
    Unauthenticated {
        /// What was asked.
        operation: String,
    },
    /// A rule is missing.
    #[error(
        "cannot {operation}: the service account of this pod has no right to; its role needs the rule \
         {rule}: apply the manifests of this version"
    )]
    Forbidden {
        /// What was asked.
        operation: String,
        /// The missing rule, as in a Role.
        rule: String,
    },
    /// An answer that nobody expected.
    #[error("cannot {operation}: the Kubernetes API server answers {status}{reason}")]
    Refused {
        /// What was asked.
        operation: String,
        /// The status of HTTP.
        status: u16,
        /// The reason of the API server in brackets with a space before, or nothing; with its words where they
        /// may be shown.
        reason: String,
    },
    /// An answer that is not what was asked for.
    #[error("cannot {operation}: the answer of the Kubernetes API server {why}")]
    Answer {
        /// What was asked.
        operation: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The cluster does not know the kind of an object.
    #[error(
        "cannot {operation}: the Kubernetes API has no such kind of object; apply the manifests of this version"
    )]
    NoKind {
        /// What was asked.
        operation: String,
    },
    /// An object that is not what its kind says.
    #[error("cannot {operation}: {why}")]
    Unreadable {
        /// What was asked.
        operation: String,
        /// What is wrong with it.
        why: String,
    },
}

/// The transport's chain of causes as one text, without the address, which errors of this crate do not need.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Cause(String);

impl Cause {
    pub(crate) fn new(cause: impl std::error::Error + 'static) -> Self {
        Self(types::report(&cause).to_string())
    }
}

impl Error {
    /// For `map_err`: a file of the service account.
    pub(crate) fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }
}

impl Classify for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoServer | Self::File { .. } | Self::Account { .. } | Self::NoKind { .. } => {
                ErrorKind::FailedPrecondition
            }
            Self::Unreachable { .. } | Self::Unauthenticated { .. } | Self::Refused { .. } => {
                ErrorKind::Unavailable
            }
            Self::Deadline { .. } => ErrorKind::DeadlineExceeded,
            Self::Forbidden { .. } => ErrorKind::PermissionDenied,
            Self::Client(_) | Self::Answer { .. } | Self::Unreadable { .. } => ErrorKind::Internal,
        }
    }
}
