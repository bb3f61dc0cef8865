//! `/v2/upload`: a resumable upload in pieces.
//!
//! ```text
//! PUT  /v2/upload?size=N&offset=K   body: bytes from K on       → 200, Upload-Offset: where it is now
//! HEAD /v2/upload                                               → 200, Upload-Offset, Upload-Length
//! ```
//!
//! The first request starts the upload at offset 0. A request may carry any part of the rest; the
//! received part of an interrupted request is kept. A client gets its position from HEAD, or from
//! the answer to a wrong offset (409). When offset and length are equal, the upload is complete,
//! and `GET /v1/file` shows its state.

use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, put};
use futures_util::StreamExt as _;

use super::server::DataSource;
use crate::error::{Error, Result};
use crate::query::Query;
use crate::rest::{Answer, Refusal};
use catalog::source::Bringer;

const OFFSET: &str = "upload-offset";
const LENGTH: &str = "upload-length";

/// The upload that is under way, if one is.
#[derive(Debug, Default)]
pub(super) struct Resumable {
    state: Mutex<Progress>,
}

#[derive(Debug, Default)]
struct Progress {
    size: u64,
    offset: u64,
    /// Here while no request uses it; `None` also before the first and after the last.
    bringer: Option<Bringer>,
    busy: bool,
}

impl Resumable {
    fn state(&self) -> MutexGuard<'_, Progress> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The methods of `/v2/upload`.
pub(super) fn routes() -> MethodRouter<DataSource> {
    put(bring).head(show)
}

async fn show(State(source): State<DataSource>) -> Answer {
    source.require_upload()?;
    Ok(told(&source, StatusCode::OK, Body::empty()))
}

/// An answer that says where the upload is.
fn told(source: &DataSource, status: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let (mut offset, mut size) = {
        let state = source.resumable().state();
        (state.offset, state.size)
    };
    // One that came by a form, or before a restart, is all there.
    if let Ok(file) = source.file()
        && file.state.starts_with("ready")
    {
        size = u64::try_from(file.size).unwrap_or(0);
        offset = size;
    }
    let headers = response.headers_mut();
    headers.insert(OFFSET, HeaderValue::from(offset));
    headers.insert(LENGTH, HeaderValue::from(size));
    response
}

async fn bring(State(source): State<DataSource>, request: Request) -> Answer {
    source.require_upload()?;
    let query = Query::parse(request.uri().query());
    let number = |key: &'static str| {
        let text = query.required(key)?;
        text.parse::<u64>().map_err(|_| Error::InvalidField {
            field: key,
            why: format!("{text:?} is not a number of bytes"),
        })
    };
    let offset = number("offset").map_err(|error| Refusal::bad_request(error.to_string()))?;
    let taken = take(&source, offset, || number("size"));
    let (turn, bringer) = match taken {
        Ok(taken) => taken,
        Err(Error::UploadOffset(why)) => {
            return Ok(told(&source, StatusCode::CONFLICT, format!("{why}\n")));
        }
        Err(error) => return Err(error.into()),
    };
    let brought = carry(&turn, bringer, request.into_body()).await;
    drop(turn);
    match brought {
        Ok(()) => Ok(told(&source, StatusCode::OK, Body::empty())),
        Err(error) => {
            let refusal = Refusal::from(error);
            Ok(refusal.into_response())
        }
    }
}

/// The upload is somebody's until this is dropped.
struct Turn<'a>(&'a Resumable);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.state().busy = false;
    }
}

/// Takes the upload for one request; the first one begins it.
fn take(
    source: &DataSource,
    offset: u64,
    size: impl Fn() -> Result<u64>,
) -> Result<(Turn<'_>, Bringer)> {
    let resumable = source.resumable();
    let mut state = resumable.state();
    if state.busy {
        let why = "another request uploads; try again when it has ended";
        return Err(Error::UploadOffset(why.to_owned()));
    }
    let bringer = match state.bringer.take() {
        Some(bringer) if bringer.brought() == offset => bringer,
        Some(bringer) => {
            let why = format!("the upload is at {}, not at {offset}", bringer.brought());
            state.bringer = Some(bringer);
            return Err(Error::UploadOffset(why));
        }
        None if offset == 0 => {
            let size = size()?;
            let bringer = source.begin_upload(size)?;
            (state.size, state.offset) = (size, 0);
            bringer
        }
        None => {
            let why = format!("no upload is at {offset}; begin one at 0");
            return Err(Error::UploadOffset(why));
        }
    };
    state.busy = true;
    Ok((Turn(resumable), bringer))
}

/// Brings a body. What has come of one that breaks off stays.
async fn carry(turn: &Turn<'_>, bringer: Bringer, body: Body) -> Result<()> {
    let mut held = Held {
        resumable: turn.0,
        bringer: Some(bringer),
    };
    let mut pieces = body.into_data_stream();
    while let Some(piece) = pieces.next().await {
        let Ok(piece) = piece else {
            // The client went away, and comes back.
            return Err(catalog::Error::UploadEnded("the request broke off".to_owned()).into());
        };
        held.bring(piece).await?;
    }
    if held.bringer().brought() == held.bringer().size() {
        let bringer = held.bringer.take().expect("it is here until it ends");
        bringer.end().await?;
    }
    Ok(())
}

/// The bringer of one request: given back when the request ends, however it does.
struct Held<'a> {
    resumable: &'a Resumable,
    bringer: Option<Bringer>,
}

impl Held<'_> {
    fn bringer(&self) -> &Bringer {
        self.bringer.as_ref().expect("it is here until it ends")
    }

    async fn bring(&mut self, piece: bytes::Bytes) -> Result<()> {
        let bringer = self.bringer.as_mut().expect("it is here until it ends");
        let brought = bringer.bring(piece).await;
        let offset = bringer.brought();
        self.resumable.state().offset = offset;
        if brought.is_err() {
            // The image has failed, or more came than was said: there is nothing to go on with.
            self.bringer = None;
        }
        Ok(brought?)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut state = self.resumable.state();
        state.bringer = self.bringer.take();
    }
}
