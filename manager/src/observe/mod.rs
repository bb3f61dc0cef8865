//! Health and metrics over HTTP: `/healthz`, `/readyz`, `/metrics`.
//!
//! They describe the state of the daemon, never the contents of an image, and need no credentials.
//! `/healthz` answers while the daemon does; otherwise a restart helps. `/readyz` fails while the
//! daemon cannot be used: its disk is gone or silent, or it is stopping.

mod backups;
mod metrics;
mod process;
mod volumes;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use backup_jobs::Jobs;
use listen::Listener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use trust::Held;
use types::{NodeId, report};

use catalog::Catalog;
use catalog::Result;
use store::Disk;
use sync::Swarm;
use volume::Volumes;

/// A disk that takes longer to answer is not one to rely on.
const DISK_PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug, Clone)]
pub struct Observed {
    pub catalog: Catalog,
    /// The volumes that are made from them.
    pub volumes: Volumes,
    /// The disk they are on.
    pub disk: Arc<Disk>,
    pub node: NodeId,
    /// Backups that run and ran.
    pub backups: Jobs,
    /// Copies from and to other managers.
    pub swarm: Swarm,
    /// The certificate of the daemon, where it has one.
    pub held: Option<Held>,
}

pub fn serve(listener: Listener, observed: Observed, stop: CancellationToken) -> JoinHandle<()> {
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(observed);
    tokio::spawn(listener.serve(router, stop))
}

async fn trouble(observed: &Observed) -> Option<String> {
    not_ready(&observed.catalog, &observed.disk, observed.held.as_ref()).await
}

/// Why the daemon cannot be used now; `None`: it can. Asks the disk in a thread of its own: a disk that hangs must
/// not hang who asks about it.
pub(crate) async fn not_ready(
    catalog: &Catalog,
    disk: &Arc<Disk>,
    held: Option<&Held>,
) -> Option<String> {
    if let Err(error) = catalog.takes_work() {
        return Some(report(&error).to_string());
    }
    if let Some(trouble) = held.and_then(|held| held.trouble(SystemTime::now())) {
        return Some(trouble);
    }
    let disk = disk.clone();
    let looked = tokio::task::spawn_blocking(move || disk.healthy());
    match tokio::time::timeout(DISK_PATIENCE, looked).await {
        Ok(Ok(Ok(()))) => None,
        Ok(Ok(Err(error))) => Some(report(&error).to_string()),
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(format!("the disk does not answer within {DISK_PATIENCE:?}")),
    }
}

async fn ready(State(observed): State<Observed>) -> (StatusCode, String) {
    match trouble(&observed).await {
        None => (StatusCode::OK, format!("ok{}\n", shortage(&observed).await)),
        Some(trouble) => (StatusCode::SERVICE_UNAVAILABLE, format!("{trouble}\n")),
    }
}

/// A disk that is short of room stays ready, or nothing on it could be deleted; it is said.
async fn shortage(observed: &Observed) -> String {
    let disk = observed.disk.clone();
    let space = tokio::task::spawn_blocking(move || disk.space()).await;
    let warning = space
        .ok()
        .and_then(Result::ok)
        .and_then(|space| space.warning());
    warning
        .map(|warning| format!("; {warning}"))
        .unwrap_or_default()
}

async fn metrics(State(observed): State<Observed>) -> Response {
    let is_ready = trouble(&observed).await.is_none();
    let written = tokio::task::spawn_blocking(move || metrics::text(&observed, is_ready));
    match written.await {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        _ => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
