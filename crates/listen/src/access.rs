//! Asks of every request whether its caller may make it, before any handler sees it.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tonic::Status;
use tracing::warn;
use trust::access::Refusal;
use trust::{Caller, Policy};

/// The middleware of a gRPC router; inside of [`crate::calls::bounded`], which names methods that are not served.
pub async fn of_grpc(State(policy): State<Arc<Policy>>, request: Request, next: Next) -> Response {
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

/// The middleware of an HTTP/1.1 router.
pub async fn of_http(State(policy): State<Arc<Policy>>, request: Request, next: Next) -> Response {
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
