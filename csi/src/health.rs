//! Health and metrics over HTTP: `/healthz`, `/readyz`, `/metrics`. They need no credentials and
//! reveal nothing about volumes.
//!
//! `/healthz` fails when only a new start helps: the plugin's socket is gone. `/readyz` fails while
//! the plugin is of no use: the manager does not answer, the node lacks something, the kubelet has not
//! registered it.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use listen::{BoundAddresses, Listener};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};
use crate::metrics;
use crate::readiness::Readiness;
use crate::socket::Place;

/// What is asked about.
#[derive(Debug)]
pub(crate) struct Health {
    pub(crate) readiness: Readiness,
    pub(crate) socket: Place,
}

/// Listens at `address` and answers in a task of `beside`. Returns what was bound, with what was before.
pub(crate) async fn serve(
    address: SocketAddr,
    health: Health,
    bound: BoundAddresses,
    beside: &mut JoinSet<()>,
) -> Result<BoundAddresses> {
    let listener = Listener::for_probes(address)
        .await
        .map_err(Error::io("listen on", address.to_string()))?;
    let bound = bound.with("http", &listener);
    tracing::info!(address = %bound, "health and metrics");
    let router = Router::new()
        .route("/healthz", get(alive))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .fallback(|| async { (StatusCode::NOT_FOUND, "/healthz, /readyz, /metrics\n") })
        .with_state(Arc::new(health));
    beside.spawn(listener.serve(router, CancellationToken::new()));
    Ok(bound)
}

async fn alive(State(health): State<Arc<Health>>) -> Response {
    if health.socket.is_ours() {
        return "ok\n".into_response();
    }
    let gone = "the socket of the plugin was removed: restart the plugin\n";
    (StatusCode::SERVICE_UNAVAILABLE, gone).into_response()
}

async fn ready(State(health): State<Arc<Health>>) -> Response {
    match health.readiness.trouble().await {
        None => "ok\n".into_response(),
        Some(trouble) => (StatusCode::SERVICE_UNAVAILABLE, format!("{trouble}\n")).into_response(),
    }
}

async fn metrics(State(health): State<Arc<Health>>) -> Response {
    let ready = health.readiness.trouble().await.is_none();
    let credential = health.readiness.certificate.as_ref();
    let until = credential.and_then(|held| Some(held.credential()?.not_after()));
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], metrics::text(ready, until)).into_response()
}

#[cfg(test)]
mod tests;
