//! The REST interface of the sync server: `/v1/files…`, for Longhorn's managers, data sources and
//! users. Answers are JSON, empty, or plain text with the reason.

use std::path::PathBuf;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use tracing::{debug, warn};
use types::report;

use super::query::{Query, registration, unescape};
use super::{Files, download, transfer};
use crate::Registration;
use crate::error::{Error, Result};
use catalog::source::Source;

/// A request that is refused: the status and the text that Longhorn's server would give.
#[derive(Debug)]
pub struct Refusal {
    status: StatusCode,
    text: String,
}

/// What a handler gives.
pub type Answer = std::result::Result<Response, Refusal>;

impl Refusal {
    /// A path that leads nowhere.
    pub fn page_not_found() -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            text: "404 page not found".to_owned(),
        }
    }

    /// A request that cannot be done as things are.
    pub fn failed(why: impl Into<String>) -> Self {
        Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            text: why.into(),
        }
    }

    /// A request that is not one.
    pub fn bad_request(why: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            text: why.into(),
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        // Longhorn answers 500 for all but what is not there.
        let status = match &error {
            Error::FileNotFound(_) => StatusCode::NOT_FOUND,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let text = report(&error).to_string();
        if status == StatusCode::NOT_FOUND {
            debug!(text, "request refused");
        } else {
            warn!(text, "request refused");
        }
        Self { status, text }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let headers = [
            (CONTENT_TYPE, "text/plain; charset=utf-8"),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ];
        (self.status, headers, self.text + "\n").into_response()
    }
}

/// The routes of the sync server.
pub fn router(files: Files) -> Router {
    Router::new()
        .route("/v1/files", get(list).post(create))
        .route("/v1/files/{id}", get(show).delete(delete).post(act))
        .route("/v1/files/{id}/download", get(bytes))
        .fallback(async || Refusal::page_not_found())
        .with_state(files)
}

/// JSON as Longhorn's server sends it: compact, without a newline.
pub fn json(value: &impl Serialize) -> Response {
    let text = serde_json::to_vec(value).expect("plain data is always JSON");
    let kind = HeaderValue::from_static("application/json");
    ([(CONTENT_TYPE, kind)], text).into_response()
}

/// The path that the third segment of a request's path names.
fn file_of(uri: &Uri) -> std::result::Result<PathBuf, Refusal> {
    let segment = uri.path().split('/').nth(3).unwrap_or_default();
    match unescape(segment) {
        Some(path) => Ok(PathBuf::from(path)),
        None => Err(Refusal::bad_request(format!(
            "invalid URL escape in {segment:?}"
        ))),
    }
}

async fn list(State(files): State<Files>) -> Response {
    json(&files.list())
}

async fn show(State(files): State<Files>, uri: Uri) -> Answer {
    Ok(json(&files.get(&file_of(&uri)?)?))
}

async fn delete(State(files): State<Files>, uri: Uri) -> Answer {
    files.delete(&file_of(&uri)?).await?;
    Ok(Response::default())
}

async fn act(State(files): State<Files>, uri: Uri) -> Answer {
    let (path, query) = (file_of(&uri)?, Query::parse(uri.query()));
    match query.get("action") {
        "forget" => files.forget(&path).await,
        "sendToPeer" => transfer::send(&files, &path, query.required("to-address")?).await?,
        _ => return Err(Refusal::page_not_found()),
    }
    Ok(Response::default())
}

async fn bytes(State(files): State<Files>, request: Request) -> Answer {
    let path = file_of(request.uri())?;
    let reading = files.read(&path).await?;
    Ok(download::answer(reading, &request)?)
}

async fn create(State(files): State<Files>, request: Request) -> Answer {
    let query = Query::parse(request.uri().query());
    match query.get("action") {
        "fetch" => fetch(&files, &query)?,
        "downloadFromURL" => {
            let url = query.required("url")?.parse().map_err(Error::from)?;
            take(&files, &query, Source::Url(url))?;
        }
        "upload" => {
            let (head, body) = request.into_parts();
            transfer::take_upload(&files, &query, &head.headers, body).await?;
        }
        "receiveFromPeer" => transfer::receive(&files, &query)?,
        "cloneFromBackingImage" => transfer::clone(&files, &query, request.into_body()).await?,
        "restoreFromBackupURL" => transfer::restore(&files, &query, request.into_body()).await?,
        _ => return Err(Refusal::page_not_found()),
    }
    Ok(Response::default())
}

/// `action=fetch`: adopts the file at the destination, or takes over the one at the source.
fn fetch(files: &Files, query: &Query) -> Result<()> {
    let (from, to) = (query.path("src-file-path")?, query.path("dst-file-path")?);
    let uuid = query.uuid()?;
    query.required("disk-uuid")?;
    let (_, id) = files.resolve(&to, &uuid)?;
    let registration = Registration {
        source: adoption(&from, &to),
        ..registration(query, id)?
    };
    files.register(&to, registration).map(drop)
}

/// Where the bytes come from that are at `from` and belong at `to`; `None` when they are there.
pub(super) fn adoption(from: &std::path::Path, to: &std::path::Path) -> Option<Source> {
    (from != to).then(|| Source::Adopt {
        from: from.to_owned(),
    })
}

/// A request for a file from a source.
fn take(files: &Files, query: &Query, source: Source) -> Result<()> {
    let path = query.path("file-path")?;
    let (_, id) = files.resolve(&path, &query.uuid()?)?;
    let registration = Registration {
        source: Some(source),
        ..registration(query, id)?
    };
    files.register(&path, registration).map(drop)
}
