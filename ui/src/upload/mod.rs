//! Uploads: bytes that are passed on to the manager of a disk, piece by piece. Nothing of them is kept here.
//!
//! By script: `POST /uploads` begins one and says where it is, `HEAD` there says how much has come, `PUT` appends a
//! piece. A piece at another place is answered 409 with the true one. Without scripts: one form, which is streamed.

mod form;
mod multipart;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery, Request, State};
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use client::{Client, wire};
use types::{Classify as _, ErrorKind, ImageName, ImageUuid};

use crate::access::Person;
use crate::act::{App, FORM_BYTES, Fields, Refused, manager};

/// Bytes of a piece at the most: what every usual proxy lets through.
pub const PIECE: usize = 1 << 20;
/// How much has come.
const OFFSET: HeaderName = HeaderName::from_static("upload-offset");

type Answered = Result<Response, Refused>;

/// POST /uploads: begins an upload, or joins the one that was begun; or takes a whole form with its file.
pub async fn begin(
    State(app): State<App>,
    Extension(person): Extension<Person>,
    request: Request,
) -> Answered {
    let kind = request.headers().get(CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind.starts_with("multipart/form-data") {
        return Ok(form::whole(&app, &person, request).await);
    }
    let body = axum::body::to_bytes(request.into_body(), FORM_BYTES).await;
    let body = body.map_err(|error| {
        Refused::new(
            ErrorKind::InvalidArgument,
            format!("the form could not be read: {error}"),
        )
    })?;
    let fields = Fields::parse(&body)?;
    let size = fields.text("size").parse().map_err(|_| {
        Refused::new(
            ErrorKind::InvalidArgument,
            "size is the number of bytes of the file",
        )
    })?;
    let now = app.look.now().await;
    let disk = fields.text("disk").to_owned();
    let manager = manager(&now, &disk).map_err(Refused)?;
    let asked = asked(&fields, fields.text("file_name"), size);
    let object = fields.text("name").to_owned();
    let beginning = app.done(&person, ("Upload", &object), async move {
        manager.create_image(asked).await
    });
    let image = beginning.await?;
    let place = place(&disk, &image);
    let place = HeaderValue::from_str(&place).map_err(|_| {
        Refused::new(
            ErrorKind::Internal,
            "the manager gave the upload a name that is none",
        )
    })?;
    let headers = [(LOCATION, place), (OFFSET, come(&image))];
    Ok((StatusCode::CREATED, headers).into_response())
}

/// HEAD /uploads/{disk}/{name}/{uuid}: how much has come.
pub async fn offset(
    State(app): State<App>,
    Path((disk, name, uuid)): Path<(String, String, String)>,
) -> Answered {
    let (manager, name, uuid) = find(&app, &disk, &name, &uuid).await?;
    let image = manager.image(&name, Some(&uuid)).await?;
    if image.state() == wire::State::Failed {
        return Ok((StatusCode::GONE, image.message).into_response());
    }
    Ok((StatusCode::OK, [(OFFSET, come(&image))]).into_response())
}

/// PUT /uploads/{disk}/{name}/{uuid}?offset=BYTES: the next piece.
pub async fn piece(
    State(app): State<App>,
    Path((disk, name, uuid)): Path<(String, String, String)>,
    RawQuery(query): RawQuery,
    data: Bytes,
) -> Answered {
    let query = query.unwrap_or_default();
    let offset = query
        .strip_prefix("offset=")
        .and_then(|offset| offset.parse().ok());
    let offset = offset.ok_or_else(|| {
        Refused::new(
            ErrorKind::InvalidArgument,
            "write ?offset= with the bytes before this piece",
        )
    })?;
    let (manager, name, uuid) = find(&app, &disk, &name, &uuid).await?;
    match write(&manager, (&name, &uuid), offset, data).await {
        Ok(image) => Ok((StatusCode::OK, [(OFFSET, come(&image))]).into_response()),
        Err(error) if error.kind() == ErrorKind::OutOfRange => {
            let image = manager.image(&name, Some(&uuid)).await?;
            let mut answer = Refused::from(error).into_response();
            *answer.status_mut() = StatusCode::CONFLICT;
            answer.headers_mut().insert(OFFSET, come(&image));
            Ok(answer)
        }
        Err(error) => Err(error.into()),
    }
}

/// Appends a piece, to its end even where the browser has gone.
async fn write(
    manager: &Client,
    (name, uuid): (&ImageName, &ImageUuid),
    offset: u64,
    data: Bytes,
) -> client::Result<wire::BackingImage> {
    let manager = manager.clone();
    let request = wire::WriteUploadRequest {
        name: name.to_string(),
        uuid: uuid.to_string(),
        offset,
        data,
    };
    let writing = tokio::spawn(async move { manager.write_upload(request).await });
    writing.await.unwrap_or_else(|error| {
        Err(client::Error::Refused {
            kind: ErrorKind::Internal,
            message: format!("the piece was broken off: {error}"),
        })
    })
}

/// The request that begins an upload.
fn asked(fields: &Fields, file_name: &str, size: u64) -> wire::CreateBackingImageRequest {
    let file_name = file_name
        .chars()
        .filter(|letter| !letter.is_control())
        .take(60)
        .collect();
    let upload = wire::UploadSource { size, file_name };
    wire::CreateBackingImageRequest {
        name: fields.text("name").to_owned(),
        source: Some(wire::Source {
            source: Some(wire::source::Source::Upload(upload)),
        }),
        expected_checksum: fields.text("checksum").to_owned(),
        ..Default::default()
    }
}

/// The manager of an upload, and its checked names.
async fn find(
    app: &App,
    disk: &str,
    name: &str,
    uuid: &str,
) -> Result<(Client, ImageName, ImageUuid), Refused> {
    let missing = || Refused::missing("upload", name);
    let (checked, uuid) = (
        ImageName::new(name).map_err(|_| missing())?,
        ImageUuid::new(uuid).map_err(|_| missing())?,
    );
    // Pieces come many in a second: they share one look.
    let now = app.look.now().await;
    let manager = now.manager(disk).cloned();
    // Silent managers are back when the browser asks again.
    let manager = manager.ok_or_else(|| {
        Refused::new(
            ErrorKind::Unavailable,
            "the manager of the upload's disk does not answer; try again",
        )
    })?;
    Ok((manager, checked, uuid))
}

fn place(disk: &str, image: &wire::BackingImage) -> String {
    format!("/uploads/{disk}/{}/{}", image.name, image.uuid)
}

/// All of it has come once it is more than an upload.
fn come(image: &wire::BackingImage) -> HeaderValue {
    let come = match image.state() {
        wire::State::Ready | wire::State::ReadyForTransfer => {
            image.total_size.max(image.processed_size)
        }
        _ => image.processed_size,
    };
    HeaderValue::from(come)
}
