//! The one table from errors to gRPC codes, and the one place where a failed call is logged.

use tonic::{Code, Response, Status};
use tracing::Instrument as _;
use types::{Classify as _, ErrorKind, report};

use crate::error::{Error, Result};

/// Runs one call in its own span and turns its result into what goes on the wire.
///
/// The span carries the call's name and the volume's id, nothing else of the request: requests hold
/// secrets.
pub(crate) async fn answer<T>(
    rpc: &'static str,
    volume_id: &str,
    call: impl Future<Output = Result<T>>,
) -> Result<Response<T>, Status> {
    let volume_id: String = volume_id.chars().take(128).collect();
    let span = tracing::info_span!("rpc", name = rpc, volume_id);
    async {
        let started = std::time::Instant::now();
        let result = call.await;
        let milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        match result {
            Ok(message) => {
                tracing::debug!(milliseconds, "done");
                Ok(Response::new(message))
            }
            Err(error) => Err(refuse(&error, milliseconds)),
        }
    }
    .instrument(span)
    .await
}

fn refuse(error: &Error, milliseconds: u64) -> Status {
    let kind = error.kind();
    let text = report(error).to_string();
    match kind {
        ErrorKind::Aborted | ErrorKind::Unimplemented => {
            tracing::debug!(%kind, milliseconds, "{text}");
        }
        ErrorKind::NotFound => tracing::info!(%kind, milliseconds, "{text}"),
        ErrorKind::DataLoss | ErrorKind::Internal => tracing::error!(%kind, milliseconds, "{text}"),
        _ => tracing::warn!(%kind, milliseconds, "{text}"),
    }
    Status::new(code_of(kind), text)
}

/// The gRPC code of a kind of error.
const fn code_of(kind: ErrorKind) -> Code {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_survives_the_wire() {
        for kind in [
            ErrorKind::InvalidArgument,
            ErrorKind::NotFound,
            ErrorKind::AlreadyExists,
            ErrorKind::FailedPrecondition,
            ErrorKind::Aborted,
            ErrorKind::OutOfRange,
            ErrorKind::ResourceExhausted,
            ErrorKind::Unimplemented,
            ErrorKind::Unavailable,
            ErrorKind::DeadlineExceeded,
            ErrorKind::Unauthenticated,
            ErrorKind::PermissionDenied,
            ErrorKind::DataLoss,
            ErrorKind::Internal,
        ] {
            assert_eq!(client::kind_of(code_of(kind)), kind);
        }
    }
}
