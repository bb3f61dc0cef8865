//! The manager's errors as gRPC statuses, each logged once.

use tonic::Status;
use tracing::{debug, error, warn};
use types::{Classify, ErrorKind, report};

use catalog::Error;

/// The status of an error, logged once here.
pub(super) fn of(error: &Error) -> Status {
    let kind = error.kind();
    let message = report(error).to_string();
    match kind {
        ErrorKind::Internal | ErrorKind::DataLoss => error!(?kind, message, "request failed"),
        ErrorKind::NotFound | ErrorKind::Aborted => debug!(?kind, message, "request refused"),
        _ => warn!(?kind, message, "request refused"),
    }
    Status::new(client::code_of(kind), message)
}
