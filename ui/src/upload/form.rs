//! An upload in one form, for browsers without scripts: its bytes are passed on as they come.

use axum::body::BodyDataStream;
use axum::extract::Request;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::response::Response;
use bytes::{Buf as _, Bytes, BytesMut};
use client::{Client, wire};
use futures_util::StreamExt as _;
use types::{Classify as _, ErrorKind, ImageName, ImageUuid, report};

use super::multipart::{self, HEAD_BYTES, Head};
use super::{PIECE, asked, write};
use crate::access::Person;
use crate::act::{App, Fields, manager, see};
use crate::pages::{self, ImageForm, Refusal};

/// Takes the whole form.
pub(super) async fn whole(app: &App, person: &Person, request: Request) -> Response {
    let mut form = ImageForm {
        from: "upload".to_owned(),
        ..ImageForm::default()
    };
    match take(app, person, request, &mut form).await {
        Ok(image) => see(&pages::path("images", &image.name)),
        Err(refusal) => {
            let now = app.look.now().await;
            app.image_again(person, &now, &form, &refusal)
        }
    }
}

async fn take(
    app: &App,
    person: &Person,
    request: Request,
    form: &mut ImageForm,
) -> Result<wire::BackingImage, Refusal> {
    let (parts, body) = request.into_parts();
    let text = |name| {
        parts
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    let boundary = text(CONTENT_TYPE).and_then(multipart::boundary);
    let boundary = boundary
        .ok_or_else(|| odd("the form has no boundary"))?
        .to_owned();
    let length = text(CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
    let length = length.ok_or_else(|| {
        odd("the browser does not say how long the form is; use one that does, or turn its scripts on")
    })?;
    let mut body = Body {
        stream: body.into_data_stream(),
        read: BytesMut::new(),
    };
    let head = body.head(&boundary).await?;
    let fields = fields(&head)?;
    fields.text("name").clone_into(&mut form.name);
    fields.text("checksum").clone_into(&mut form.checksum);
    fields.text("disk").clone_into(&mut form.disk);
    let around = (head.file_at + multipart::tail(&boundary).len()) as u64;
    let size = length.checked_sub(around).filter(|size| *size > 0);
    let size = size.ok_or_else(|| Refusal {
        field: "name",
        ..odd("the file is empty, or none was chosen")
    })?;
    let now = app.look.now().await;
    let manager = manager(&now, &form.disk)?;
    let request = asked(&fields, &head.file_name, size);
    let beginning = {
        let manager = manager.clone();
        app.done(person, ("Upload", &form.name), async move {
            manager.create_image(request).await
        })
    };
    let image = beginning.await.map_err(|error| said(&error))?;
    body.read.advance(head.file_at);
    pass_on(&manager, image, body, size, &boundary).await
}

/// Passes the bytes of the file on, from where the manager expects them.
async fn pass_on(
    manager: &Client,
    mut image: wire::BackingImage,
    mut body: Body,
    size: u64,
    boundary: &str,
) -> Result<wire::BackingImage, Refusal> {
    let names = ImageName::new(&image.name)
        .ok()
        .zip(ImageUuid::new(&image.uuid).ok());
    let (name, uuid) =
        names.ok_or_else(|| odd("the manager gave the upload a name that is none"))?;
    // A form is sent from its beginning each time: what has come before is skipped.
    let mut skip = match image.state() {
        wire::State::Ready => size,
        _ => image.processed_size.min(size),
    };
    let (mut offset, mut left) = (0, size);
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE);
        let piece = body.take(most).await?;
        let length = piece.len() as u64;
        let known = skip.min(length);
        skip -= known;
        if known < length {
            let data = piece.slice(usize::try_from(known).unwrap_or(usize::MAX)..);
            let written = write(manager, (&name, &uuid), offset + known, data).await;
            image = written.map_err(|error| said(&error))?;
        }
        offset += length;
        left -= length;
    }
    let tail = multipart::tail(boundary);
    if *body.take(tail.len()).await? != *tail {
        // What was passed on is not the file: a checksum would say so, and there may be none.
        manager
            .delete_image(&name, Some(&uuid))
            .await
            .map_err(|error| said(&error))?;
        return Err(odd(
            "the form does not end after its file; the upload was removed",
        ));
    }
    Ok(image)
}

/// A body that is read in pieces of a given length.
struct Body {
    stream: BodyDataStream,
    read: BytesMut,
}

impl Body {
    /// Reads until the bytes of the file begin.
    async fn head(&mut self, boundary: &str) -> Result<Head, Refusal> {
        loop {
            if let Some(head) = multipart::head(&self.read, boundary).map_err(odd)? {
                return Ok(head);
            }
            if self.read.len() > HEAD_BYTES {
                return Err(odd("the fields before the file are too long"));
            }
            self.more().await?;
        }
    }

    /// The next `length` bytes.
    async fn take(&mut self, length: usize) -> Result<Bytes, Refusal> {
        while self.read.len() < length {
            self.more().await?;
        }
        Ok(self.read.split_to(length).freeze())
    }

    async fn more(&mut self) -> Result<(), Refusal> {
        match self.stream.next().await {
            Some(Ok(bytes)) => {
                self.read.extend_from_slice(&bytes);
                Ok(())
            }
            Some(Err(error)) => Err(odd(&format!("the upload broke: {error}; send it again"))),
            None => Err(odd("the upload ended early; send it again")),
        }
    }
}

fn fields(head: &Head) -> Result<Fields, Refusal> {
    let mut text = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in &head.fields {
        text.append_pair(name, value);
    }
    Fields::parse(text.finish().as_bytes()).map_err(|refused| refused.0)
}

fn odd(why: &str) -> Refusal {
    Refusal {
        field: "",
        sentence: why.to_owned(),
        kind: ErrorKind::InvalidArgument,
    }
}

fn said(error: &client::Error) -> Refusal {
    Refusal {
        field: "name",
        sentence: report(error).to_string(),
        kind: error.kind(),
    }
}
