//! Health and metrics over HTTP: `/healthz`, `/readyz`, `/metrics`.
//!
//! They say how the daemon is, never what is in an image, and need no credentials.

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use types::report;

use crate::catalog::{Catalog, Lifecycle};
use crate::error::{IoContext, Result};
use crate::store::Disk;

#[derive(Debug, Clone)]
struct Observed {
    catalog: Catalog,
    disk: Arc<Disk>,
}

/// Listens at `address` and answers until `stop`.
pub async fn serve(
    address: SocketAddr,
    catalog: Catalog,
    disk: Arc<Disk>,
    stop: CancellationToken,
) -> Result<JoinHandle<()>> {
    let text = address.to_string();
    let listener = TcpListener::bind(address)
        .await
        .context("listen on", text.as_ref())?;
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(Observed { catalog, disk });
    Ok(tokio::spawn(async move {
        let served = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
        if let Err(error) = served.await {
            tracing::error!(%error, "the metrics server ended");
        }
    }))
}

/// Ready while the disk that was opened is the disk that is there.
async fn ready(State(observed): State<Observed>) -> (StatusCode, String) {
    match observed.disk.healthy() {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(error) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{}\n", report(&error)),
        ),
    }
}

/// The text format of Prometheus, version 0.0.4.
async fn metrics(State(observed): State<Observed>) -> ([(&'static str, &'static str); 1], String) {
    let mut text = String::new();
    let mut family = |name: &str, help: &str, values: &[(String, u64)]| {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
        for (labels, value) in values {
            let _ = writeln!(text, "{name}{labels} {value}");
        }
    };
    let images = observed.catalog.list();
    let states = [
        "pending",
        "starting",
        "in-progress",
        "ready",
        "failed",
        "unknown",
    ];
    let count = |state: &str| {
        images
            .iter()
            .filter(|image| image.state.name() == state)
            .count()
    };
    let by_state: Vec<_> = states
        .iter()
        .map(|state| (format!("{{state=\"{state}\"}}"), count(state) as u64))
        .collect();
    family(
        "backing_image_manager_images",
        "Backing images by state.",
        &by_state,
    );
    let stored: u64 = images
        .iter()
        .map(|image| match &image.state {
            Lifecycle::Ready(sealed) => sealed.sidecar.real_size,
            _ => 0,
        })
        .sum();
    let one = |value| [(String::new(), value)];
    family(
        "backing_image_manager_images_bytes",
        "Disk bytes of ready images.",
        &one(stored),
    );
    if let Ok(space) = observed.disk.space() {
        family(
            "backing_image_manager_disk_size_bytes",
            "Size of the disk.",
            &one(space.size),
        );
        let available = one(space.available);
        family(
            "backing_image_manager_disk_available_bytes",
            "Free bytes of the disk.",
            &available,
        );
    }
    ([("content-type", "text/plain; version=0.0.4")], text)
}
