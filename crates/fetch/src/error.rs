//! The errors between this program and the network, and their meaning for the caller.

use std::error::Error as StdError;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use image::oci::Digest;
use types::{Classify, ErrorKind};

/// The result of everything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why bytes could not be had. `what` names the registry, repository and digest, or the URL without
/// its secrets.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A reference that cannot be one.
    #[error(
        "image reference {text:?} is not valid: {why}; examples: \
         rancher/longhorn-test:baseimage-ext4, registry.example.com:5000/name@sha256:…"
    )]
    Reference {
        /// The text, shortened and without what looks like a password.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A URL that is never fetched.
    #[error("URL {url} cannot be used: {why}")]
    Url {
        url: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// An option of a download that can never work.
    #[error("{option}: {why}")]
    Option {
        /// Its name in requests.
        option: &'static str,
        /// What is wrong with it, without any of its content.
        why: &'static str,
    },
    /// The file of credentials is not one.
    #[error(
        "cannot read the registry credentials: {why}; use a Docker config.json in the format of \
         `docker login`"
    )]
    Credentials {
        /// What is wrong, without any of its content.
        why: &'static str,
    },
    /// The registry configuration is not valid.
    #[error("the registry configuration is not valid: {why}")]
    Config {
        /// What is wrong, where, and what was perhaps meant.
        why: String,
    },
    /// A file of ours cannot be read.
    #[error("cannot {operation} {path}")]
    File {
        operation: &'static str,
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// TLS cannot be set up.
    #[error("cannot set up TLS: {why}")]
    Tls { why: String },
    /// The host has an address that must not be connected to.
    #[error(
        "{host} is refused: its address {address} is {why}; if this is intended, allow it with \
         --allow-address"
    )]
    Forbidden {
        /// As in the reference or URL.
        host: String,
        /// What it resolved to.
        address: IpAddr,
        /// The kind of address.
        why: &'static str,
    },
    /// The address of a host is not known now.
    #[error("cannot look up {host}")]
    Lookup {
        /// As it was named, with its port.
        host: String,
        /// What the resolver says.
        #[source]
        source: io::Error,
    },
    /// Who answers cannot prove to be the one that was asked.
    #[error("{what}: {host} is not trusted: {why}")]
    Untrusted {
        /// What was asked for.
        what: String,
        host: String,
        why: &'static str,
        #[source]
        source: Box<rustls::Error>,
    },
    /// No usable answer came.
    #[error("{what}: no answer from {host}")]
    Unreachable {
        /// What was asked for.
        what: String,
        host: String,
        /// What failed; its text holds no URL.
        #[source]
        source: reqwest::Error,
    },
    /// An answer broke off.
    #[error("{what}: the transfer broke off after {received} bytes")]
    Interrupted {
        /// What was being read.
        what: String,
        /// How far it came.
        received: u64,
        /// What failed; absent when the body just ended early.
        #[source]
        source: Option<reqwest::Error>,
    },
    /// Nothing came for too long.
    #[error("{what}: no data for {} s", after.as_secs_f32())]
    Stalled {
        /// What was being read.
        what: String,
        /// How long was waited.
        after: Duration,
    },
    /// The other side is overloaded or broken.
    #[error("{what}: the server answered with status {status}{}", said(*length, *code))]
    Unavailable {
        /// What was asked for.
        what: String,
        status: u16,
        /// Of the body, which is not shown.
        length: Option<u64>,
        /// The registry's own word for it.
        code: Option<&'static str>,
        /// How long it asks to be left alone.
        retry_after: Option<Duration>,
    },
    /// A status that nothing here expects.
    #[error("{what}: the server answered with status {status}{}", said(*length, *code))]
    Status {
        /// What was asked for.
        what: String,
        status: u16,
        /// Of the body, which is not shown.
        length: Option<u64>,
        /// The registry's own word for it.
        code: Option<&'static str>,
    },
    /// The registry wants other credentials, or some.
    #[error("{what}: not authenticated: {why}")]
    Unauthenticated {
        /// What was asked for.
        what: String,
        /// What is wrong and what to do.
        why: String,
    },
    /// The registry asks for tokens to be fetched from a place that gets no credentials of ours.
    #[error("{what}: the registry requests a token from {realm}, which is refused: {why}")]
    Realm {
        /// What was asked for.
        what: String,
        /// Scheme and host of the token server.
        realm: String,
        /// Which rule, and what to do.
        why: &'static str,
    },
    /// Who we are is known and may not.
    #[error("{what}: permission denied (status 403{}); ask the owner of the registry for access",
        said(None, *code)
    )]
    Denied {
        /// What was asked for.
        what: String,
        /// The registry's own word for it.
        code: Option<&'static str>,
    },
    /// It is not there.
    #[error("{what}: not found{}; check the name and the tag", said(None, *code))]
    NotFound {
        /// What was asked for.
        what: String,
        /// The registry's own word for it.
        code: Option<&'static str>,
    },
    /// An index, manifest or config is not one.
    #[error("{what}: the image is not usable")]
    Document {
        what: String,
        /// What is wrong with it.
        #[source]
        source: image::oci::Error,
    },
    /// The bytes are not those that were asked for.
    #[error("{what}: the data is damaged: its digest is {actual}, expected {expected}")]
    DigestMismatch {
        what: String,
        expected: Digest,
        actual: Digest,
    },
    /// More or fewer bytes than there must be.
    #[error("{what}: the server sent or announced {actual} bytes, expected {expected}")]
    Size {
        what: String,
        expected: u64,
        actual: u64,
    },
    /// More bytes than we take.
    #[error("{what}: it exceeds the limit of {limit} bytes")]
    TooLarge {
        what: String,
        /// The most we take.
        limit: u64,
    },
    /// It cannot be gone on with, and must be read from the start.
    #[error("{what}: cannot resume after {received} bytes: {why}; it must be read from the start")]
    Changed {
        what: String,
        /// How far it came.
        received: u64,
        /// What does not fit.
        why: &'static str,
    },
    /// The answer breaks a rule of HTTP or of ours.
    #[error("{what}: the answer of the server is invalid: {why}")]
    Answer {
        /// What was asked for.
        what: String,
        why: &'static str,
    },
    /// None of the places that may have it gives it.
    #[error("{what}: no mirror or registry has it: {}; last error", before.join("; "))]
    NoPlace {
        /// What was asked for.
        what: String,
        /// What those that were asked first say, each with its name.
        before: Vec<String>,
        /// What the last one says.
        #[source]
        source: Box<Error>,
    },
    #[error("{what}: given up after {attempts} attempts")]
    Exhausted {
        /// What was being read.
        what: String,
        /// How many there were.
        attempts: u32,
        #[source]
        source: Box<Error>,
    },
}

/// What may be shown of a body: a code of a fixed list, else its length alone.
fn said(length: Option<u64>, code: Option<&str>) -> String {
    match (code, length) {
        (Some(code), _) => format!(" (the registry says {code})"),
        (None, Some(length)) => format!(" and {length} bytes that are not shown"),
        (None, None) => String::new(),
    }
}

impl Error {
    /// Whether the same request may succeed a moment later.
    pub(crate) fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::Interrupted { .. }
                | Self::Stalled { .. }
                | Self::Unavailable { .. }
        )
    }

    /// How long the other side asks to be left alone.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// The same with what the places say that were asked before, if there were any.
    pub(crate) fn after(self, what: &str, before: Vec<String>) -> Self {
        if before.is_empty() {
            return self;
        }
        Self::NoPlace {
            what: what.to_owned(),
            before,
            source: Box::new(self),
        }
    }

    /// The same with the word that the registry has for it.
    pub(crate) fn with_code(mut self, said: Option<&'static str>) -> Self {
        if let Self::Unavailable { code, .. }
        | Self::Status { code, .. }
        | Self::Denied { code, .. }
        | Self::NotFound { code, .. } = &mut self
        {
            *code = said;
        }
        self
    }

    /// How often the whole is worth reading from its first byte when a reading ends so; 1 where another
    /// one cannot help. What was written of the last one must be thrown away.
    ///
    /// Bytes that were damaged on the way are soon known to be damaged at their source. A transfer that
    /// broke and cannot be resumed says nothing against the next one.
    pub fn passes(&self) -> u32 {
        match self {
            Self::DigestMismatch { .. } | Self::Size { .. } => 3,
            Self::Changed { .. } => 6,
            _ => 1,
        }
    }

    /// The error of this crate that caused `error`, also when it travelled inside an
    /// [`io::Error`], as it does through [`crate::BlockingReader`].
    pub fn in_chain<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            // A source that is a box shows itself as the box, not as what is in it.
            let boxed = error.downcast_ref::<Box<Self>>().map(AsRef::as_ref);
            if let Some(found) = error.downcast_ref::<Self>().or(boxed) {
                return Some(found);
            }
            let inner = error
                .downcast_ref::<io::Error>()
                .and_then(io::Error::get_ref);
            next = match inner {
                Some(inner) => Some(inner),
                None => error.source(),
            };
        }
        None
    }
}

impl Classify for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Reference { .. }
            | Self::Url { .. }
            | Self::Option { .. }
            | Self::Credentials { .. }
            | Self::Config { .. }
            | Self::Forbidden { .. } => ErrorKind::InvalidArgument,
            Self::File { source, .. } => Classify::kind(source),
            Self::Tls { .. }
            | Self::Untrusted { .. }
            | Self::Answer { .. }
            | Self::Status { .. } => ErrorKind::FailedPrecondition,
            Self::Lookup { .. }
            | Self::Unreachable { .. }
            | Self::Interrupted { .. }
            | Self::Unavailable { .. }
            | Self::Changed { .. } => ErrorKind::Unavailable,
            Self::Stalled { .. } => ErrorKind::DeadlineExceeded,
            Self::Unauthenticated { .. } => ErrorKind::Unauthenticated,
            Self::Realm { .. } | Self::Denied { .. } => ErrorKind::PermissionDenied,
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Document { source, .. } => source.kind(),
            Self::DigestMismatch { .. } | Self::Size { .. } => ErrorKind::DataLoss,
            Self::TooLarge { .. } => ErrorKind::OutOfRange,
            Self::Exhausted { source, .. } | Self::NoPlace { source, .. } => source.kind(),
        }
    }
}

impl From<Error> for io::Error {
    /// For readers: the kind tells damage from absence, the error itself travels inside.
    fn from(error: Error) -> Self {
        let kind = match Classify::kind(&error) {
            ErrorKind::DataLoss => io::ErrorKind::InvalidData,
            ErrorKind::NotFound => io::ErrorKind::NotFound,
            ErrorKind::DeadlineExceeded => io::ErrorKind::TimedOut,
            ErrorKind::Unavailable => io::ErrorKind::ConnectionAborted,
            ErrorKind::Unauthenticated | ErrorKind::PermissionDenied => {
                io::ErrorKind::PermissionDenied
            }
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}
