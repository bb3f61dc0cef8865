//! Incoming and outgoing files: receiving and sending by ssync, uploads and clones, as Longhorn's
//! interfaces request them.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::http::HeaderMap;
use fetch::AddressPolicy;
use image::Format;
use tracing::{Instrument, info_span, warn};
use types::{ImageId, report};

use super::query::Query;
use super::ssync::ports::{self, PortRange, Receivers};
use super::ssync::{Batches, Invite, Receiver, Sending};
use super::{Files, multipart, rest};
use crate::catalog::Registration;
use crate::error::{Error, IoContext, Result};
use crate::source::luks::Luks;
use crate::source::{CloneOf, Encryption, Source, upload};
use crate::sync::rate::RateLimit;

/// The largest credential that is read.
const CREDENTIAL_MAX: usize = 256 << 10;

/// How this process and others reach each other.
#[derive(Debug, Clone)]
pub struct Transfers {
    /// Where receivers may listen.
    pub ports: PortRange,
    /// The address that they listen on, and that senders are told.
    pub host: IpAddr,
    /// What all that is sent keeps to.
    pub rate: Arc<RateLimit>,
    /// The memory of what is pushed.
    pub batches: Batches,
    /// Which addresses may be connected to, whoever names them.
    pub policy: AddressPolicy,
    /// Receivers that may be there at once.
    pub receivers: Receivers,
}

impl Default for Transfers {
    fn default() -> Self {
        Self {
            ports: PortRange::default(),
            host: Ipv4Addr::LOCALHOST.into(),
            rate: Arc::new(RateLimit::new(0)),
            batches: Batches::default(),
            policy: AddressPolicy::default(),
            receivers: Receivers::default(),
        }
    }
}

impl Transfers {
    /// Where the bytes come from that a manager of Longhorn's protocol at `address` is asked to push.
    pub fn from_manager(&self, address: &str, size: u64) -> Result<Source> {
        let invite = Invite::Manager {
            address: address.to_owned(),
            host: self.host.to_string(),
        };
        let place = self.receivers.place()?;
        let listener = self.ports.listen(self.host)?;
        let receiver = Receiver::new(listener, size, invite)?.in_place(place);
        Ok(Source::Receive(receiver))
    }
}

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
    let registration = rest::registration(query, id)?;
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
        source: Some(Source::Receive(receiver)),
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
    let opening = {
        let path = path.clone();
        tokio::task::spawn_blocking(move || File::open(&path).context("open", &path))
    };
    let sending = Sending {
        file: opening.await.map_err(Error::Task)??,
        path,
        to: address.to_string(),
        rate: files.transfers().rate.clone(),
        batches: files.transfers().batches.clone(),
        cancel: guard.reading.cancel.clone(),
    };
    let span = info_span!("send", image = %guard.reading.image.id, to);
    let work = async move {
        if let Err(error) = sending.run().await {
            warn!(error = %report(&error), "not sent");
        }
        drop(guard);
    };
    tokio::spawn(work.instrument(span));
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
    let registration = rest::registration(query, id)?;
    let form = multipart::Form::new(headers, body)?;
    let (source, bringer) = upload(registration.size)?;
    let registration = Registration {
        source: Some(Source::Upload(source)),
        ..registration
    };
    files.register(&path, registration)?;
    form.bring(bringer).await
}

/// `action=cloneFromBackingImage`.
pub(super) async fn clone(files: &Files, query: &Query, body: Body) -> Result<()> {
    let credential = to_bytes(body, CREDENTIAL_MAX).await;
    let credential = credential.map_err(|_| Error::InvalidField {
        field: "credential",
        why: format!("it is missing, or has more than {CREDENTIAL_MAX} bytes"),
    })?;
    let credential = if credential.is_empty() {
        BTreeMap::new()
    } else {
        // What it says must not be repeated in an error.
        serde_json::from_slice(&credential).map_err(|_| Error::InvalidField {
            field: "credential",
            why: "the body is not a JSON object of texts".to_owned(),
        })?
    };
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
        ..rest::registration(query, id)?
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
    Ok(Source::Image(CloneOf {
        image: ImageId::new(name, uuid)?,
        encryption,
    }))
}
