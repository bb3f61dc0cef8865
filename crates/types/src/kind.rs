//! What an error means to the caller: the one thing that callers may branch on.

use std::fmt;

/// The meaning of an error. Each protocol maps it once, in one file (docs/errors.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request can never work.
    InvalidArgument,
    /// The named thing is not there.
    NotFound,
    /// The name is taken by something of another shape.
    AlreadyExists,
    /// The system is not in the state that the request needs.
    FailedPrecondition,
    /// An operation on the same thing is under way: try again.
    Aborted,
    /// A size or an offset is outside what is possible.
    OutOfRange,
    /// Space, inodes or another bounded resource is used up.
    ResourceExhausted,
    /// The whole operation is not offered.
    Unimplemented,
    /// Something this depends on does not answer: try again.
    Unavailable,
    /// The time allowed is up.
    DeadlineExceeded,
    /// Who asks is not known to the other side (a registry that wants a password).
    Unauthenticated,
    /// Who asks is known and may not.
    PermissionDenied,
    /// Bytes are not what they must be: a checksum or a format is broken.
    DataLoss,
    /// A bug of ours, or an operating system error that nobody expected.
    Internal,
}

impl ErrorKind {
    /// Every kind, in the order in which they are declared: `ALL[kind as usize]` is `kind`.
    pub const ALL: [Self; Self::Internal as usize + 1] = [
        Self::InvalidArgument,
        Self::NotFound,
        Self::AlreadyExists,
        Self::FailedPrecondition,
        Self::Aborted,
        Self::OutOfRange,
        Self::ResourceExhausted,
        Self::Unimplemented,
        Self::Unavailable,
        Self::DeadlineExceeded,
        Self::Unauthenticated,
        Self::PermissionDenied,
        Self::DataLoss,
        Self::Internal,
    ];
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// An error that knows its [`ErrorKind`].
pub trait Classify: std::error::Error {
    /// What this error means to the caller.
    fn kind(&self) -> ErrorKind;
}

/// The kind of a plain I/O error, for errors that wrap one.
impl Classify for std::io::Error {
    fn kind(&self) -> ErrorKind {
        use std::io::ErrorKind as Io;
        match std::io::Error::kind(self) {
            Io::NotFound => ErrorKind::NotFound,
            Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => ErrorKind::ResourceExhausted,
            Io::InvalidData | Io::UnexpectedEof => ErrorKind::DataLoss,
            Io::TimedOut => ErrorKind::DeadlineExceeded,
            Io::ConnectionRefused
            | Io::ConnectionReset
            | Io::ConnectionAborted
            | Io::NotConnected
            | Io::HostUnreachable
            | Io::NetworkUnreachable => ErrorKind::Unavailable,
            Io::ReadOnlyFilesystem => ErrorKind::FailedPrecondition,
            _ => ErrorKind::Internal,
        }
    }
}
