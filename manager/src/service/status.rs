//! The manager's errors as gRPC statuses: the only place that maps them.

use tonic::{Code, Status};
use tracing::{debug, error, warn};
use types::{Classify, ErrorKind, report};

use crate::error::Error;

/// The status of an error, logged once here.
pub(super) fn of(error: &Error) -> Status {
    let kind = error.kind();
    let message = report(error).to_string();
    match kind {
        ErrorKind::Internal | ErrorKind::DataLoss => error!(?kind, message, "request failed"),
        ErrorKind::NotFound | ErrorKind::Aborted => debug!(?kind, message, "request refused"),
        _ => warn!(?kind, message, "request refused"),
    }
    Status::new(code(kind), message)
}

/// The gRPC code of a kind of error.
pub(super) fn code(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::InvalidArgument => Code::InvalidArgument,
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::AlreadyExists => Code::AlreadyExists,
        ErrorKind::FailedPrecondition => Code::FailedPrecondition,
        ErrorKind::Aborted => Code::Aborted,
        ErrorKind::OutOfRange => Code::OutOfRange,
        ErrorKind::ResourceExhausted => Code::ResourceExhausted,
        ErrorKind::Unimplemented => Code::Unimplemented,
        ErrorKind::Unavailable => Code::Unavailable,
        ErrorKind::DeadlineExceeded => Code::DeadlineExceeded,
        ErrorKind::Unauthenticated => Code::Unauthenticated,
        ErrorKind::PermissionDenied => Code::PermissionDenied,
        ErrorKind::DataLoss => Code::DataLoss,
        ErrorKind::Internal => Code::Internal,
    }
}
