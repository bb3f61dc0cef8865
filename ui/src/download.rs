//! GET /images/{name}/download: the bytes of an image as they are stored, passed on from the manager of a disk.

use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE, HOST};
use axum::http::{HeaderValue, Request, Response, StatusCode};
use client::wire;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use trust::held::HTTP1;
use trust::{Dialer, Expected, Role};
use types::{ErrorKind, ImageName, ImageUuid, report};

use crate::access::Person;
use crate::act::{App, Refused};
use crate::pages;

/// How long a manager may take to begin.
const BEGIN: Duration = Duration::from_secs(20);
/// The version of the protocol by which managers give images, which is all that we need of it.
const PROTOCOL: (&str, &str) = ("sync-protocol", "1");

/// The image as a file.
pub async fn download(
    State(app): State<App>,
    Extension(person): Extension<Person>,
    Path(name): Path<String>,
) -> Result<Response<Body>, Refused> {
    let now = app.look.now().await;
    let image = now
        .seen
        .image(&name)
        .ok_or_else(|| Refused::missing("image", &name))?;
    let ready = image
        .copies
        .iter()
        .find(|(disk, copy)| copy.state() == wire::State::Ready && !disk.sync_address.is_empty());
    let Some((disk, copy)) = ready else {
        let why = "the image is ready on no disk that answers; wait for it, or look at its page";
        return Err(Refused::new(ErrorKind::FailedPrecondition, why));
    };
    // Both become part of a request.
    let names = ImageName::new(&copy.name)
        .ok()
        .zip(ImageUuid::new(&copy.uuid).ok());
    let (name, uuid) = names.ok_or_else(|| Refused::missing("image", &name))?;
    let path = format!("/v2/images/{name}/{uuid}/data");
    let begun = app.journal.begin(&person.name, "Download", name.as_str());
    let asking = ask(&app.dialer, &disk.sync_address, &path);
    let answer = match tokio::time::timeout(BEGIN, asking).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("it did not begin within {BEGIN:?}; try again")),
    };
    let answer = answer.map_err(|why| {
        Refused::new(
            ErrorKind::Unavailable,
            format!(
                "the manager of disk {} does not give the image: {why}",
                disk.uuid
            ),
        )
    });
    let answer = match answer {
        Ok(answer) => answer,
        Err(refused) => {
            begun.end(Some(&refused.0.sentence));
            return Err(refused);
        }
    };
    begun.end(None);
    let mut response = Response::new(Body::new(answer));
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(copy.size));
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let disposition = format!("attachment; filename=\"{}\"", pages::file_name(copy));
    if let Ok(disposition) = HeaderValue::from_str(&disposition) {
        headers.insert(CONTENT_DISPOSITION, disposition);
    }
    Ok(response)
}

/// The body of what a manager gives to others.
async fn ask(dialer: &Dialer, address: &str, path: &str) -> Result<Incoming, String> {
    let said = |error: &(dyn std::error::Error + 'static)| report(error).to_string();
    let expected = Expected::role(Role::Manager);
    let connecting = dialer.connect(address, &expected, HTTP1);
    let (stream, _) = connecting.await.map_err(|error| said(&error))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| said(&error))?;
    // It ends with the body.
    tokio::spawn(connection);
    let request = Request::get(path)
        .header(HOST, address)
        .header(PROTOCOL.0, PROTOCOL.1)
        .body(Body::empty())
        .map_err(|error| said(&error))?;
    let answer = sender
        .send_request(request)
        .await
        .map_err(|error| said(&error))?;
    match answer.status() {
        StatusCode::OK => Ok(answer.into_body()),
        status => Err(format!("HTTP status {status}")),
    }
}
