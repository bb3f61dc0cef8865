//! What a command can fail with. Texts say what is wrong and the next step; the exit code is the same for all.

use std::path::PathBuf;

/// An error of a command.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A manager or a node service.
    #[error(transparent)]
    Client(#[from] client::Error),
    /// A file on its way to a manager.
    #[error(transparent)]
    Upload(#[from] client::upload::UploadError),
    /// Certificates.
    #[error(transparent)]
    Trust(#[from] trust::Error),
    /// A child could not be started.
    #[error("cannot start {program}: {source}; install it, or put its directory into PATH")]
    Start {
        /// Its name.
        program: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// kubectl says no.
    #[error("kubectl {what} failed: {said}")]
    Kubectl {
        /// What it was to do.
        what: String,
        /// What it said.
        said: String,
    },
    /// It took too long.
    #[error(
        "kubectl {what} did not end within {seconds} s; check that the API server answers: kubectl version"
    )]
    Slow {
        /// What it was to do.
        what: String,
        /// How long it had.
        seconds: u64,
    },
    /// It said more than is read.
    #[error(
        "kubectl {what} printed more than {bytes} bytes; ask for less, for example in one namespace"
    )]
    TooMuch {
        /// What it was to do.
        what: String,
        /// How much is read.
        bytes: usize,
    },
    /// What it said cannot be read.
    #[error("kubectl {what} printed what is no JSON: {source}")]
    Json {
        /// What it was to do.
        what: String,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
    /// Only with Kubernetes.
    #[error("{0} needs Kubernetes: leave out --manager and --node-service")]
    NeedsKubernetes(&'static str),
    /// Only where a program is given.
    #[error("{0}")]
    Missing(String),
    /// Nobody answered.
    #[error("{0}")]
    Nobody(String),
    /// There is none, as far as can be known.
    #[error("{0}")]
    NotFound(String),
    /// It cannot be done.
    #[error("{0}")]
    Refused(String),
    /// Files.
    #[error("cannot {operation} {}: {source}", path.display())]
    File {
        /// A verb.
        operation: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Standard output or input.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Ctrl-C, or a request to end.
    #[error("interrupted; what was begun at a manager goes on there")]
    Interrupted,
}

/// The result of a command.
pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of a file.
    pub(crate) fn file(
        operation: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File {
            operation,
            path,
            source,
        }
    }

    /// `get … | head` ends the reader early; that is no failure.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == std::io::ErrorKind::BrokenPipe)
    }

    /// Whether an object is not there, or the API server does not know its kind.
    pub(crate) fn is_absent(&self) -> bool {
        matches!(self, Self::Kubectl { said, .. }
            if said.contains("NotFound") || said.contains("not found")
                || said.contains("doesn't have a resource type"))
    }
}
