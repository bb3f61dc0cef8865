//! What surrounds every handler: bounds of a request, what becomes of a panic, compression, and the headers of every
//! answer.

use std::any::Any;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{Extensions, HeaderMap, Method, StatusCode, Version};
use axum::middleware::{Next, from_fn, map_response};
use axum::response::Response;
use http_body_util::Limited;
use listen::Listener;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;

use super::answer::problem;
use super::headers;

/// The body of a form.
const FORM_MAX: usize = 256 << 10;
/// The body of a PUT, which is a piece of an upload.
const PIECE_MAX: usize = 8 << 20;
/// The time in which an answer has to begin. What it is made of has shorter bounds of its own.
const DEADLINE: Duration = Duration::from_mins(2);
/// What is worth compressing. Images of disks are not, and are large.
const TEXTS: [&str; 5] = [
    "text/html",
    "text/css",
    "text/javascript",
    "application/json",
    "image/svg+xml",
];

/// Answers until `stop`, and until the last answer is sent.
pub async fn serve(listener: Listener, router: Router, stop: CancellationToken) {
    listener.serve(outer(router), stop).await;
}

/// The router with what surrounds every handler.
pub fn outer(router: Router) -> Router {
    let compression = CompressionLayer::new().compress_when(is_text);
    router
        .layer(from_fn(bounded))
        .layer(CatchPanicLayer::custom(after_panic))
        .layer(compression)
        .layer(map_response(headers::add))
}

async fn bounded(request: Request, next: Next) -> Response {
    // A file in a form of a browser without scripts, of any length. Its handler reads it as it comes, and others
    // do not read it.
    let kind = request.headers().get(CONTENT_TYPE);
    if kind.is_some_and(|kind| kind.as_bytes().starts_with(b"multipart/form-data")) {
        return next.run(request).await;
    }
    let most = if *request.method() == Method::PUT {
        PIECE_MAX
    } else {
        FORM_MAX
    };
    let said = request.headers().get(CONTENT_LENGTH);
    let said = said.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if said.is_some_and(|said| said > most as u64) {
        let why = format!("the request has more than {most} bytes; send less at a time");
        return problem(StatusCode::PAYLOAD_TOO_LARGE, &why);
    }
    let request = request.map(|body| Body::new(Limited::new(body, most)));
    match tokio::time::timeout(DEADLINE, next.run(request)).await {
        Ok(response) => response,
        Err(_) => problem(
            StatusCode::GATEWAY_TIMEOUT,
            "there was no answer within two minutes; look at the state of what was asked for before asking again",
        ),
    }
}

/// The log has the panic's own words: they are for who repairs it.
fn after_panic(_: Box<dyn Any + Send>) -> Response {
    problem(
        StatusCode::INTERNAL_SERVER_ERROR,
        "this page failed by a mistake of ours; the log of the UI says where",
    )
}

fn is_text(_: StatusCode, _: Version, headers: &HeaderMap, _: &Extensions) -> bool {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| TEXTS.iter().any(|text| kind.starts_with(text)))
}

#[cfg(test)]
mod tests {
    use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING};
    use axum::routing::{get, post};
    use tower::ServiceExt as _;

    use super::*;

    async fn broken() -> &'static str {
        panic!("on purpose")
    }

    fn router() -> Router {
        let page = || async { ([(CONTENT_TYPE, "text/html")], "x".repeat(4096)) };
        let image = || async {
            let kind = [(CONTENT_TYPE, "application/octet-stream")];
            (kind, "x".repeat(4096))
        };
        let echo = |body: axum::body::Bytes| async move { body.len().to_string() };
        outer(
            Router::new()
                .route("/page", get(page))
                .route("/image", get(image))
                .route("/broken", get(broken))
                .route("/form", post(echo)),
        )
    }

    async fn ask(request: axum::http::request::Builder, body: Body) -> Response {
        let request = request.header(ACCEPT_ENCODING, "gzip").body(body).unwrap();
        router().oneshot(request).await.unwrap()
    }

    #[tokio::test]
    async fn every_answer_has_the_headers_and_texts_alone_are_compressed() {
        for (path, status, compressed) in [
            ("/page", 200, true),
            ("/image", 200, false),
            ("/broken", 500, true),
            ("/nothing", 404, false),
        ] {
            let answer = ask(Request::get(path), Body::empty()).await;
            assert_eq!(answer.status(), status, "{path}");
            let headers = answer.headers();
            let policy = headers["content-security-policy"].to_str().unwrap();
            assert!(policy.starts_with("default-src 'none'"), "{path}: {policy}");
            assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
            assert_eq!(headers["cache-control"], "no-store", "{path}");
            assert_eq!(headers.contains_key(CONTENT_ENCODING), compressed, "{path}");
        }
    }

    #[tokio::test]
    async fn a_body_is_bounded_whether_it_says_its_length_or_not() {
        let small = ask(Request::post("/form"), vec![0; 1000].into()).await;
        assert_eq!(small.status(), StatusCode::OK);
        let said = Request::post("/form").header(CONTENT_LENGTH, FORM_MAX + 1);
        let large = ask(said, vec![0; FORM_MAX + 1].into()).await;
        assert_eq!(large.status(), StatusCode::PAYLOAD_TOO_LARGE);
        let pieces = (0..=16).map(|_| Ok::<_, std::io::Error>(vec![0; FORM_MAX / 16]));
        let stream = Body::from_stream(futures_util::stream::iter(pieces));
        let silent = ask(Request::post("/form"), stream).await;
        assert_eq!(silent.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }
}
