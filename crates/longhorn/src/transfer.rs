//! Incoming and outgoing files: receiving and sending by ssync, uploads and clones, as Longhorn's
//! interfaces request them.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::http::HeaderMap;
use image::Format;
use tracing::{Instrument, info_span, warn};
use types::{ImageId, report};

use super::query::{Query, registration};
use super::ssync::ports;
use super::ssync::{Invite, Receiver, Sending};
use super::{Files, backups, multipart};
use crate::Registration;
use store::IoContext;

use crate::clone::{CloneOf, Encryption};
use crate::error::{Error, Result};
use crate::luks::Luks;
use catalog::source::{Source, upload};

/// The largest credential that is read.
const CREDENTIAL_MAX: usize = 256 << 10;

/// `action=receiveFromPeer`: waits on a port that the caller chose for somebody who sends.
pub(super) fn receive(files: &Files, query: &Query) -> Result<()> {
    let size = query.size()?;
    let wanted = query.file_type()?;
    let path = query.path("file-path")?;
    let (_, id) = files.resolve(&path, &query.uuid()?)?;
    let port = query.required("port")?;
    let port = port.parse::<u16>().map_err(|_| Error::InvalidField {
        field: "port",
        why: format!("{port:?} is not a port"),
    })?;
    let registration = registration(query, id)?;
    let transfers = files.transfers();
    if !transfers.ports.contains(port) && files.get(&path).is_err() {
        return Err(Error::InvalidField {
            field: "port",
            why: format!("receivers listen on {} (--port-range)", transfers.ports),
        });
    }
    let place = transfers.receivers.place()?;
    let address = (transfers.host, port).into();
    let listener = match ports::listen_on(address) {
        // The port of the copy that is under way.
        Err(_) if files.get(&path).is_ok() => return Err(Error::FileExists(path)),
        listening => listening?,
    };
    let receiver = Receiver::new(listener, size, Invite::Unasked)?.in_place(place);
    register_receiver(files, &path, registration, receiver, wanted)
}

/// Takes up a file that a receiver gets. What is pushed is raw; with `wanted` qcow2 it is converted.
pub(super) fn register_receiver(
    files: &Files,
    path: &Path,
    registration: Registration,
    receiver: Receiver,
    wanted: Option<Format>,
) -> Result<()> {
    let converted = wanted == Some(Format::Qcow2);
    let (receiver, size) = if converted {
        // The size that was told is that of the raw bytes.
        (receiver.converted(), 0)
    } else {
        (receiver, registration.size)
    };
    let registration = Registration {
        source: Some(Source::Origin(Arc::new(receiver))),
        format: wanted,
        size,
        ..registration
    };
    files.register(path, registration).map(drop)
}

/// `action=sendToPeer`: begins to push a ready file, and answers.
pub(super) async fn send(files: &Files, path: &Path, to: &str) -> Result<()> {
    let address = files.transfers().policy.resolve_one(to).await?;
    let guard = files.begin_send(path).await?;
    let path = path.to_owned();
    let open = {
        let path = path.clone();
        move || File::open(&path).context("open", &path)
    };
    let sending = Sending {
        file: catalog::blocking(open).await?,
        path,
        to: address.to_string(),
        rate: files.transfers().rate.clone(),
        batches: files.transfers().batches.clone(),
        cancel: guard.reading.cancel.clone(),
    };
    let span = info_span!("send", image = %guard.reading.image.id(), to);
    let work = async move {
        if let Err(error) = sending.run().await {
            warn!(error = %report(&error), "not sent");
        }
    };
    guard.send(work.instrument(span));
    Ok(())
}

/// `action=upload`: takes the part `chunk` of a form, and answers when all of it is in the file.
pub(super) async fn take_upload(
    files: &Files,
    query: &Query,
    headers: &HeaderMap,
    body: Body,
) -> Result<()> {
    let path = query.path("file-path")?;
    let (_, id) = files.resolve(&path, &query.uuid()?)?;
    query.required("size")?;
    let registration = registration(query, id)?;
    let form = multipart::Form::new(headers, body)?;
    let (source, bringer) = upload(registration.size)?;
    let registration = Registration {
        source: Some(Source::Upload(source)),
        ..registration
    };
    files.register(&path, registration)?;
    form.bring(bringer).await
}

/// The credentials of a request: its body.
async fn credential_of(body: Body) -> Result<BTreeMap<String, String>> {
    let credential = to_bytes(body, CREDENTIAL_MAX).await;
    let credential = credential.map_err(|_| Error::InvalidField {
        field: "credential",
        why: format!("it is missing, or has more than {CREDENTIAL_MAX} bytes"),
    })?;
    if credential.is_empty() {
        return Ok(BTreeMap::new());
    }
    // What it says must not be repeated in an error. Longhorn sends null where there is none.
    let parsed = serde_json::from_slice::<Option<BTreeMap<String, String>>>(&credential);
    let parsed = parsed.map_err(|_| Error::InvalidField {
        field: "credential",
        why: "the body is not a JSON object of texts".to_owned(),
    })?;
    Ok(parsed.unwrap_or_default())
}

/// `action=restoreFromBackupURL`.
pub(super) async fn restore(files: &Files, query: &Query, body: Body) -> Result<()> {
    let credential = credential_of(body).await?;
    let (url, limit) = (
        query.required("backup-url")?,
        query.required("concurrent-limit")?,
    );
    let source = backups::restore(files.backups()?, url, limit, credential)?;
    let path = query.path("file-path")?;
    let (_, id) = files.resolve(&path, &query.uuid()?)?;
    let registration = Registration {
        source: Some(source),
        ..registration(query, id)?
    };
    files.register(&path, registration).map(drop)
}

/// `action=cloneFromBackingImage`.
pub(super) async fn clone(files: &Files, query: &Query, body: Body) -> Result<()> {
    let credential = credential_of(body).await?;
    let source = clone_of(
        query.required("backing-image")?,
        query.required("backing-image-uuid")?,
        query.required("encryption")?,
        &credential,
    )?;
    let path = query.path("file-path")?;
    let (_, id) = files.resolve(&path, &query.uuid()?)?;
    let registration = Registration {
        source: Some(source),
        ..registration(query, id)?
    };
    files.register(&path, registration).map(drop)
}

/// A clone as a request asks for it.
pub fn clone_of(
    name: &str,
    uuid: &str,
    encryption: &str,
    credential: &BTreeMap<String, String>,
) -> Result<Source> {
    let encryption = match encryption {
        "ignore" => Encryption::Keep,
        "encrypt" => Encryption::Encrypt(Luks::from_credential(credential)?),
        "decrypt" => Encryption::Decrypt(Luks::from_credential(credential)?),
        other => {
            return Err(Error::InvalidField {
                field: "encryption",
                why: format!("{other:?} is not one of encrypt, decrypt, ignore"),
            });
        }
    };
    Ok(Source::Origin(Arc::new(CloneOf {
        image: ImageId::new(name, uuid)?,
        encryption,
    })))
}
