//! Health and metrics over HTTP: `/healthz`, `/readyz`, `/metrics`. No credentials are needed and
//! nothing of a volume is told.
//!
//! `/healthz` fails when only a new start helps: the plugin's socket is gone. `/readyz` fails while
//! the plugin is of no use: the manager does not answer, the node lacks something, the kubelet has not
//! registered it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::error::{Error, Result};
use crate::metrics;
use crate::readiness::Readiness;
use crate::socket::Place;

/// How long a caller may take to ask, and then to be answered.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// Connections at once; a kubelet and a Prometheus open one each.
const CONNECTIONS_MAX: usize = 32;
/// After an error of accepting, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// What is asked about.
#[derive(Debug)]
pub(crate) struct Health {
    pub(crate) readiness: Readiness,
    pub(crate) socket: Place,
}

/// Listens at `address` and answers in a task that goes on for as long as the process.
pub(crate) async fn serve(address: SocketAddr, health: Health) -> Result<()> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(Error::io("listen on", address.to_string()))?;
    tracing::info!(%address, "health and metrics");
    let (health, slots) = (Arc::new(health), Arc::new(Semaphore::new(CONNECTIONS_MAX)));
    tokio::spawn(async move {
        loop {
            let Ok(slot) = slots.clone().acquire_owned().await else {
                return;
            };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let health = health.clone();
                    tokio::spawn(async move {
                        let _slot = slot;
                        answer(stream, health).await;
                    });
                }
                Err(error) => {
                    tracing::debug!("cannot accept a connection: {error}");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    });
    Ok(())
}

/// Answers one caller.
async fn answer(stream: TcpStream, health: Arc<Health>) {
    let service = hyper::service::service_fn(move |request| {
        let health = health.clone();
        async move { Ok::<_, Infallible>(health.reply(&request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_LIMIT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // A caller that goes away is no matter.
    let _ = tokio::time::timeout(2 * REQUEST_LIMIT, connection).await;
}

impl Health {
    async fn reply(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "GET only\n");
        }
        match request.uri().path() {
            "/healthz" if self.socket.is_ours() => text(StatusCode::OK, "ok\n"),
            "/healthz" => text(
                StatusCode::SERVICE_UNAVAILABLE,
                "the plugin's socket is gone: start the plugin anew\n",
            ),
            "/readyz" => match self.readiness.trouble().await {
                None => text(StatusCode::OK, "ok\n"),
                Some(trouble) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{trouble}\n")),
            },
            "/metrics" => {
                let ready = self.readiness.trouble().await.is_none();
                let mut reply = text(StatusCode::OK, metrics::text(ready));
                let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                let kind = HeaderValue::from_static(kind);
                reply.headers_mut().insert(CONTENT_TYPE, kind);
                reply
            }
            _ => text(StatusCode::NOT_FOUND, "/healthz, /readyz, /metrics\n"),
        }
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    reply.headers_mut().insert(CONTENT_TYPE, kind);
    reply
}

#[cfg(test)]
mod tests;
