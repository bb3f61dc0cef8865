//! The one place where a failed call is logged and becomes a gRPC status.

use tonic::{Code, Response, Status};
use tracing::Instrument as _;
use types::{Classify as _, ErrorKind, report};

use crate::error::{Error, Result};
use crate::metrics;

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
        let took = started.elapsed();
        let code = result
            .as_ref()
            .map_or_else(|error| client::code_of(error.kind()), |_| Code::Ok);
        metrics::count(rpc, code, took);
        let milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
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

/// The status of an error, logged once here.
pub(crate) fn refuse(error: &Error, milliseconds: u64) -> Status {
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
    Status::new(client::code_of(kind), text)
}
