//! The data source's own API: `/v1/file` as Longhorn's, `/v2/upload` as ours.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::get;
use serde::Serialize;
use tracing::{info, warn};
use types::report;

use super::Work;
use super::kind::Kind;
use super::resumable::{self, Resumable};
use crate::Registration;
use crate::error::{Error, Result};
use crate::query::Query;
use crate::rest::{Answer, Refusal, json};
use crate::transfer::register_receiver;
use crate::{FileInfo, Files, backups, multipart};
use catalog::source::{Bringer, Source, upload};
use store::ImageStore;

/// How long the work may take to begin: Longhorn's 60 s.
const BEGIN: Duration = Duration::from_mins(1);
const NOT_BEGUN: &str = "timeout waiting for the datasource file processing begin";
/// Parameters whose values are shown; others may be secret.
const SHOWN: [&str; 22] = [
    "url",
    "volume-name",
    "export-type",
    "backup-target-name",
    "secret-namespace",
    "snapshot-name",
    "sender-address",
    "volume-size",
    "file-type",
    "fileType",
    "file-sync-http-client-timeout",
    "backup-url",
    "concurrent-limit",
    "backing-image",
    "backing-image-uuid",
    "encryption",
    "data-engine",
    "username",
    "decompress",
    "idle-timeout",
    "ca-certificates",
    "checksum",
];

/// What a data source tells of itself, in Longhorn's keys and their order.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Info {
    source_type: String,
    parameters: BTreeMap<String, String>,
    name: String,
    #[serde(flatten)]
    file: FileInfo,
}

/// The one file of this process and what it is told of it. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct DataSource {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    files: Files,
    store: ImageStore,
    path: PathBuf,
    work: Work,
    /// What is told while nothing is known of the file, and after it was handed over.
    base: Info,
    /// Set when the file is no longer ours, or will not come: what is told from then on.
    last: Mutex<Option<Info>>,
    pub(super) resumable: Resumable,
    transferring: tokio::sync::Mutex<()>,
}

impl DataSource {
    /// Begins to prepare the file.
    pub(super) fn begin(
        files: Files,
        store: ImageStore,
        work: Work,
        (source_type, parameters): (String, BTreeMap<String, String>),
    ) -> Result<Self> {
        let path = files.image_path(&work.id);
        let registration = work.registration(&files);
        let parameters = parameters
            .into_iter()
            .map(|(key, value)| {
                let shown = SHOWN.contains(&key.as_str());
                (key, if shown { value } else { "<secret>".to_owned() })
            })
            .collect();
        let base = Info {
            source_type,
            parameters,
            name: work.id.name.to_string(),
            file: FileInfo {
                disk_uuid: files.disk().uuid().to_string(),
                expected_checksum: work.expected.map(String::from).unwrap_or_default(),
                file_path: path.to_string_lossy().into_owned(),
                uuid: work.id.uuid.to_string(),
                state: "pending".to_owned(),
                ..FileInfo::default()
            },
        };
        let begun = match &work.kind {
            Kind::Fetch(source) => {
                let registration = Registration {
                    source: Some(source.clone()),
                    ..registration
                };
                files.register(&path, registration).map(drop)
            }
            Kind::Upload => Ok(()),
            Kind::Restore {
                url,
                limit,
                credential,
            } => {
                let backups = files.backups()?;
                let source = backups::restore(backups, url, limit, credential.0.clone())?;
                let registration = Registration {
                    source: Some(source),
                    ..registration
                };
                files.register(&path, registration).map(drop)
            }
            Kind::Export {
                receiver,
                format,
                size,
            } => {
                let registration = Registration {
                    size: *size,
                    ..registration
                };
                register_receiver(&files, &path, registration, receiver.clone(), *format)
            }
        };
        begun?;
        let source = Self {
            inner: Arc::new(Inner {
                files,
                store,
                path,
                work,
                base,
                last: Mutex::new(None),
                resumable: Resumable::default(),
                transferring: tokio::sync::Mutex::new(()),
            }),
        };
        // It ends when the file has begun, or will not; its process is no longer than the file.
        tokio::spawn(source.clone().watch_begin());
        Ok(source)
    }

    /// Uploads that go on where they broke off.
    pub(super) fn resumable(&self) -> &Resumable {
        &self.inner.resumable
    }

    fn last(&self) -> MutexGuard<'_, Option<Info>> {
        self.inner
            .last
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The file as it is now.
    fn info(&self) -> Result<Info> {
        if let Some(last) = &*self.last() {
            return Ok(last.clone());
        }
        let inner = &self.inner;
        let mut file = match inner.files.get(&inner.path) {
            Ok(file) => file,
            // Not begun: an upload waits for its client.
            Err(Error::FileNotFound(_)) if matches!(inner.work.kind, Kind::Upload) => {
                return Ok(inner.base.clone());
            }
            Err(error) => return Err(error),
        };
        if file.state == "ready" {
            "ready-for-transfer".clone_into(&mut file.state);
        }
        Ok(Info {
            file,
            ..inner.base.clone()
        })
    }

    /// Gives up when the work has not begun in time.
    async fn watch_begin(self) {
        tokio::time::sleep(types::crash::patience(BEGIN)).await;
        let Ok(mut info) = self.info() else { return };
        if !matches!(info.file.state.as_str(), "" | "pending" | "starting") {
            return;
        }
        warn!(image = %self.inner.work.id, NOT_BEGUN);
        "failed".clone_into(&mut info.file.state);
        NOT_BEGUN.clone_into(&mut info.file.message);
        *self.last() = Some(info);
        if let Err(error) = self.inner.files.delete(&self.inner.path).await {
            warn!(error = %report(&error), "cannot remove a file whose preparation did not \
                                            start");
        }
    }

    /// Lets go of the file: from now on it is the daemon's.
    async fn transfer(&self) -> Result<(), Refusal> {
        let _one = self.inner.transferring.lock().await;
        let info = self.info()?;
        if info.file.state == "ready" && self.last().is_some() {
            return Ok(());
        }
        if info.file.state != "ready-for-transfer" {
            return Err(Refusal::failed(format!(
                "datasource file current state is {} rather than ready-for-transfer, cannot do \
                 transfer",
                info.file.state
            )));
        }
        let inner = &self.inner;
        inner.files.forget(&inner.path).await;
        inner.store.release(&inner.work.id).map_err(Error::from)?;
        let mut info = info;
        "ready".clone_into(&mut info.file.state);
        *self.last() = Some(info);
        info!(image = %inner.work.id, "handed over");
        Ok(())
    }

    /// Begins an upload of `size` bytes. A raw image of an odd size is padded when it is sealed.
    pub(super) fn begin_upload(&self, size: u64) -> Result<Bringer> {
        let inner = &self.inner;
        if let Some(last) = &*self.last() {
            return Err(catalog::Error::UploadEnded(last.file.message.clone()).into());
        }
        let (source, bringer) = upload(size)?;
        let registration = Registration {
            source: Some(Source::Upload(source)),
            size,
            // As the incumbent's, which does not pass it on.
            disk_uuid: None,
            ..inner.work.registration(&inner.files)
        };
        inner.files.register(&inner.path, registration)?;
        Ok(bringer)
    }

    /// Whether this is a data source for uploads.
    pub(super) fn require_upload(&self) -> Result<(), Refusal> {
        if matches!(self.inner.work.kind, Kind::Upload) {
            return Ok(());
        }
        Err(Refusal::bad_request(format!(
            "cannot do upload since data source type is {} rather than upload",
            self.inner.base.source_type
        )))
    }

    /// The file as it is now, for those who upload.
    pub(super) fn file(&self) -> Result<FileInfo> {
        Ok(self.info()?.file)
    }

    /// The process ends: nobody is to find its lock.
    pub(super) fn let_go(&self) {
        if let Err(error) = self.inner.store.tidy_after(&self.inner.work.id) {
            warn!(error = %report(&error), "the record of the file is left behind");
        }
        if let Err(error) = self.inner.store.release(&self.inner.work.id) {
            warn!(error = %report(&error), "a lock is left behind");
        }
    }
}

pub(super) fn router(source: DataSource) -> Router {
    Router::new()
        .route("/v1/file", get(show).post(act))
        .route("/v2/upload", resumable::routes())
        .fallback(async || Refusal::page_not_found())
        .with_state(source)
}

async fn show(State(source): State<DataSource>) -> Answer {
    Ok(json(&source.info()?))
}

async fn act(State(source): State<DataSource>, request: Request) -> Answer {
    let query = Query::parse(request.uri().query());
    match query.get("action") {
        "upload" => {
            source.require_upload()?;
            query.required("size")?;
            let size = query.size()?;
            let (head, body) = request.into_parts();
            let form = multipart::Form::new(&head.headers, body)?;
            let bringer = source.begin_upload(size)?;
            form.bring(bringer).await?;
        }
        "transfer" => source.transfer().await?,
        _ => return Err(Refusal::page_not_found()),
    }
    Ok(Response::default())
}
