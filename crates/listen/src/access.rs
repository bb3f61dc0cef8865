//! Asks of every request whether its caller may make it, before any handler sees it.
//!
//! [`grpc`] and [`http`] are the only ways to a router of ours: what holds around all calls is not to be forgotten
//! around one.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use tonic::Status;
use tonic::service::Routes;
use tracing::warn;
use trust::access::Refusal;
use trust::{Caller, Policy};

use crate::calls::bounded;

/// gRPC services as a [`crate::Listener`] serves them: within the bounds of [`crate::calls`], to whom `policy` lets in.
pub fn grpc(routes: Routes, policy: Arc<Policy>) -> Router {
    let router = routes.prepare().into_axum_router();
    router
        .layer(from_fn_with_state(policy, of_grpc))
        // Outside of the other: it names methods that are not served.
        .layer(from_fn(bounded))
}

/// Routes of HTTP/1.1, to whom `policy` lets in.
pub fn http(router: Router, policy: Arc<Policy>) -> Router {
    router.layer(from_fn_with_state(policy, of_http))
}

async fn of_grpc(State(policy): State<Arc<Policy>>, request: Request, next: Next) -> Response {
    let Err(refusal) = check(&policy, &request) else {
        return next.run(request).await;
    };
    let status = match &refusal {
        Refusal::NotServed(_) => Status::unimplemented(""),
        Refusal::Unproven { .. } => Status::unauthenticated(refusal.to_string()),
        Refusal::Denied { .. } => Status::permission_denied(refusal.to_string()),
    };
    status.into_http::<Body>().into_response()
}

async fn of_http(State(policy): State<Arc<Policy>>, request: Request, next: Next) -> Response {
    let Err(refusal) = check(&policy, &request) else {
        return next.run(request).await;
    };
    let (status, text) = match &refusal {
        // As Go's servers say it, Longhorn's too.
        Refusal::NotServed(_) => (StatusCode::NOT_FOUND, "404 page not found".to_owned()),
        Refusal::Unproven { .. } => (StatusCode::UNAUTHORIZED, refusal.to_string()),
        Refusal::Denied { .. } => (StatusCode::FORBIDDEN, refusal.to_string()),
    };
    let headers = [
        (CONTENT_TYPE, "text/plain; charset=utf-8"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (status, headers, text + "\n").into_response()
}

fn check(policy: &Policy, request: &Request) -> Result<(), Refusal> {
    let caller = request.extensions().get::<Caller>();
    let caller = caller.unwrap_or(&Caller::Anybody);
    let checked = policy.check(caller, request.uri().path());
    if let Err(refusal @ Refusal::Denied { .. }) = &checked {
        // Programs of ours do not call what they may not: somebody tries what a certificate is good for.
        warn!(%refusal, "a call is refused");
    }
    checked
}
