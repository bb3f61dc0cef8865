//! The task of a data source: its type and its parameters, checked before any work.

use std::collections::BTreeMap;
use std::net::IpAddr;

use fetch::AddressPolicy;
use image::Format;

use crate::error::{Error, Result};
use crate::ssync::{Invite, Receiver, ports};
use crate::transfer;
use catalog::source::{Download, DownloadRequest, Source};

/// Where a data source receives an export: Longhorn's fixed port.
const EXPORT_PORT: u16 = 8002;
/// Seconds that a replica's requests may take when nobody says: the incumbent's default here.
const EXPORT_TIMEOUT: i32 = 60;

/// What is to be done.
#[derive(Debug)]
pub enum Kind {
    /// The bytes are fetched, or cloned.
    Fetch(Source),
    Upload,
    /// A backup is restored.
    Restore {
        url: String,
        limit: String,
        /// The keys of the store.
        credential: Secrets,
    },
    /// A replica pushes them.
    Export {
        /// Waits on the export port.
        receiver: Receiver,
        /// The format that the image is to have.
        format: Option<Format>,
        /// The size of the volume; 0: unknown.
        size: u64,
    },
}

type Pairs = BTreeMap<String, String>;

/// Keys and values that are not shown.
pub struct Secrets(pub Pairs);

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Kind {
    /// Reads what the command line says. `host` is where senders reach us.
    /// A replica may be asked to export where `policy` lets it.
    pub fn read(
        kind: &str,
        parameters: &Pairs,
        credential: &Pairs,
        (host, policy): (IpAddr, &AddressPolicy),
    ) -> Result<Self> {
        match parameters.get("data-engine").map(String::as_str) {
            None | Some("" | "v1") => {}
            Some(other) => {
                return Err(Error::InvalidField {
                    field: "data-engine",
                    why: format!("{other:?} is not supported: images are for engine v1"),
                });
            }
        }
        match kind {
            "download" => download(parameters, credential),
            "upload" => Ok(Self::Upload),
            "export-from-volume" => export(parameters, host, policy),
            "clone" => Ok(Self::Fetch(transfer::clone_of(
                required(parameters, "backing-image")?,
                required(parameters, "backing-image-uuid")?,
                required(parameters, "encryption")?,
                credential,
            )?)),
            "restore" => Ok(Self::Restore {
                url: required(parameters, "backup-url")?.to_owned(),
                limit: required(parameters, "concurrent-limit")?.to_owned(),
                credential: Secrets(credential.clone()),
            }),
            other => Err(Error::InvalidField {
                field: "source-type",
                why: format!(
                    "{other:?} is not known; it is download, upload, export-from-volume, clone or restore"
                ),
            }),
        }
    }
}

fn required<'a>(parameters: &'a Pairs, key: &'static str) -> Result<&'a str> {
    match parameters.get(key).map(String::as_str) {
        None | Some("") => Err(Error::InvalidField {
            field: key,
            why: "it is missing; give --parameters KEY=VALUE".to_owned(),
        }),
        Some(value) => Ok(value),
    }
}

/// A download with the options that ours has beside Longhorn's: what may be secret comes as a
/// credential, the rest as parameters.
fn download(parameters: &Pairs, credential: &Pairs) -> Result<Kind> {
    let value = |pairs: &Pairs, key: &str| pairs.get(key).cloned().unwrap_or_default();
    let idle = value(parameters, "idle-timeout");
    let idle_timeout_seconds = match idle.as_str() {
        "" => 0,
        text => text.parse().map_err(|_| Error::InvalidField {
            field: "idle-timeout",
            why: format!("{text:?} is not a number of seconds"),
        })?,
    };
    let headers = [parameters, credential].into_iter().flatten();
    let headers = headers.filter_map(|(key, value)| {
        let name = key.strip_prefix("header.")?.to_owned();
        Some((name, value.clone()))
    });
    let request = DownloadRequest {
        url: required(parameters, "url")?.to_owned(),
        headers: headers.collect(),
        username: value(parameters, "username"),
        password: value(credential, "password"),
        bearer_token: value(credential, "token"),
        ca_certificates: value(parameters, "ca-certificates").into_bytes(),
        proxy: value(parameters, "proxy"),
        decompress: value(parameters, "decompress"),
        idle_timeout_seconds,
    };
    let download = Download::try_from(request)?;
    Ok(Kind::Fetch(Source::Url(Box::new(download))))
}

fn export(parameters: &Pairs, host: IpAddr, policy: &AddressPolicy) -> Result<Kind> {
    let invite = Invite::Replica {
        snapshot: required(parameters, "snapshot-name")?.to_owned(),
        address: required(parameters, "sender-address")?.to_owned(),
        host: host.to_string(),
        timeout: parameters
            .get("file-sync-http-client-timeout")
            .and_then(|seconds| seconds.parse().ok())
            .filter(|seconds| *seconds > 0)
            .unwrap_or(EXPORT_TIMEOUT),
        policy: policy.clone(),
    };
    let format = match parameters.get("file-type").map(String::as_str) {
        None | Some("") => None,
        Some(text) => Some(text.parse().map_err(|error| Error::InvalidField {
            field: "file-type",
            why: format!("{error}"),
        })?),
    };
    // As the incumbent: a size that is none is left out.
    let size = parameters.get("volume-size");
    let size = size.and_then(|size| size.parse().ok()).unwrap_or(0);
    let listener = ports::listen_on((host, EXPORT_PORT).into())?;
    let receiver = Receiver::new(listener, size, invite)?;
    Ok(Kind::Export {
        receiver,
        format,
        size,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn read(kind: &str, parameters: &[(&str, &str)]) -> Result<Kind> {
        let parameters = parameters
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let host = (Ipv4Addr::LOCALHOST.into(), &AddressPolicy::default());
        Kind::read(kind, &parameters, &Pairs::new(), host)
    }

    #[test]
    fn what_is_missing_or_unknown_is_said_before_anything_is_done() {
        for (kind, parameters, field) in [
            ("", &[][..], "source-type"),
            ("Download", &[], "source-type"),
            ("download", &[], "url"),
            (
                "export-from-volume",
                &[("snapshot-name", "s")],
                "sender-address",
            ),
            (
                "export-from-volume",
                &[("sender-address", "a:1")],
                "snapshot-name",
            ),
            (
                "export-from-volume",
                &[
                    ("snapshot-name", "s"),
                    ("sender-address", "a:1"),
                    ("file-type", "vmdk"),
                ],
                "file-type",
            ),
            ("clone", &[("backing-image", "b")], "backing-image-uuid"),
            (
                "clone",
                &[("backing-image", "b"), ("backing-image-uuid", "u")],
                "encryption",
            ),
            (
                "clone",
                &[
                    ("backing-image", "b"),
                    ("backing-image-uuid", "u"),
                    ("encryption", "rot13"),
                ],
                "encryption",
            ),
            (
                "clone",
                &[
                    ("backing-image", "b"),
                    ("backing-image-uuid", "u"),
                    ("encryption", "encrypt"),
                ],
                "CRYPTO_KEY_VALUE",
            ),
            ("upload", &[("data-engine", "v2")], "data-engine"),
            ("restore", &[("backup-url", "s3://x")], "concurrent-limit"),
        ] {
            let error = read(kind, parameters).unwrap_err();
            assert!(
                matches!(error, Error::InvalidField { field: f, .. } if f == field),
                "{kind} {parameters:?}: {error}"
            );
        }
        let restore = read(
            "restore",
            &[("backup-url", "s3://x"), ("concurrent-limit", "5")],
        );
        assert!(matches!(restore, Ok(Kind::Restore { .. })));
        assert!(matches!(read("upload", &[]), Ok(Kind::Upload)));
    }
}
