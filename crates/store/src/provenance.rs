//! Where an image is from, as a value: it is stored, compared, and printed for people.
//!
//! Releases up to 0.1.0 stored a text alone and compared it. That text is still written, for people who
//! look at a sidecar and for an older release that is started again on the disk. It is parsed when a
//! sidecar has nothing else, and never otherwise.

use std::fmt;

use serde::{Deserialize, Serialize};
use types::{ImageId, ImageName, VolumeName};

/// Where the bytes of an image are from. Without secrets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "type",
    rename_all = "kebab-case",
    rename_all_fields = "camelCase"
)]
pub enum Provenance {
    /// Nobody said: the bytes were found on the disk.
    #[default]
    Unknown,
    /// A container image in a registry.
    Registry {
        /// Its reference, in full.
        reference: String,
        /// The platform that was chosen: `linux/amd64`.
        platform: String,
    },
    /// A container image in an OCI image layout.
    OciLayout(LocalImage),
    /// A container image in a tar archive.
    Archive(LocalImage),
    /// A file of this machine.
    File { path: String },
    Url {
        /// The URL without user, password and query.
        url: String,
        /// A digest of all of it and of how it is unpacked, which tells two URLs apart.
        fingerprint: String,
    },
    /// A file of the disk, which became the image's.
    Disk { path: String },
    /// Somebody brought the bytes.
    Upload {
        /// What he calls the file; empty: he did not say.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        file_name: String,
    },
    /// A program of Longhorn's pushed the bytes.
    Pushed {
        /// `ssync:`, `ssync://HOST:PORT` or `snapshot://HOST:PORT/NAME`.
        from: String,
    },
    /// Another image of the disk.
    Image {
        id: ImageId,
        /// What was done to its bytes.
        encryption: Encryption,
    },
    /// A volume of the disk: the image is a snapshot.
    Volume(Snapshot),
    /// A backup in Longhorn's format.
    Backup {
        /// Its address, without secrets.
        address: String,
    },
    /// The same image on other managers, whichever they were.
    Peers,
    /// A text of an earlier release that says none of these.
    Other { text: String },
}

/// A container image on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalImage {
    /// The layout's directory, or the archive's file.
    pub path: String,
    /// Which image, where there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The platform that was chosen.
    pub platform: String,
}

/// What was done to the bytes of an image that another one was cloned from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encryption {
    /// They are the same.
    Kept,
    Encrypted,
    Decrypted,
}

/// The volume that an image is a snapshot of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    pub volume: VolumeName,
    /// The snapshots that were taken with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<ImageName>,
    /// The address of the store whose backup it was taken for, and nothing else: it is kept until the next
    /// backup there is complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_store: Option<String>,
}

impl Provenance {
    /// The volume that the image is a snapshot of, if it is one.
    pub fn snapshot(&self) -> Option<&Snapshot> {
        match self {
            Self::Volume(snapshot) => Some(snapshot),
            _ => None,
        }
    }

    /// An upload of a file of that name; empty: nobody said.
    pub fn uploaded(file_name: &str) -> Self {
        let file_name = file_name.to_owned();
        Self::Upload { file_name }
    }

    /// What the text of an earlier release says.
    fn of_text(text: &str) -> Self {
        Self::parse(text).unwrap_or_else(|| Self::Other { text: text.into() })
    }

    fn parse(text: &str) -> Option<Self> {
        match text {
            "" => return Some(Self::Unknown),
            "upload" => return Some(Self::uploaded("")),
            "peers" => return Some(Self::Peers),
            _ => {}
        }
        let (scheme, rest) = text.split_once(':')?;
        Some(match scheme {
            "docker" => {
                let (reference, platform) = in_parentheses(rest.strip_prefix("//")?)?;
                Self::Registry {
                    reference,
                    platform,
                }
            }
            "oci-layout" => Self::OciLayout(LocalImage::parse(rest)?),
            "archive" => Self::Archive(LocalImage::parse(rest)?),
            "file" => Self::File { path: rest.into() },
            "disk" => Self::Disk { path: rest.into() },
            "upload" => Self::uploaded(rest),
            "backup" => Self::Backup {
                address: rest.into(),
            },
            "ssync" | "snapshot" => Self::Pushed { from: text.into() },
            "volume" => Self::Volume(Snapshot::parse(rest)?),
            "image" => {
                let (id, encryption) = match in_parentheses(rest) {
                    Some((id, how)) if how == "encrypted" => (id, Encryption::Encrypted),
                    Some((id, how)) if how == "decrypted" => (id, Encryption::Decrypted),
                    _ => (rest.to_owned(), Encryption::Kept),
                };
                let (name, uuid) = id.split_once('/')?;
                let id = ImageId::new(name, uuid).ok()?;
                Self::Image { id, encryption }
            }
            _ => {
                let (url, rest) = text.split_once(" (#")?;
                Self::Url {
                    url: url.into(),
                    fingerprint: rest.strip_suffix(')')?.into(),
                }
            }
        })
    }
}

/// `A (B)` as both.
fn in_parentheses(text: &str) -> Option<(String, String)> {
    let (before, inside) = text.strip_suffix(')')?.rsplit_once(" (")?;
    Some((before.to_owned(), inside.to_owned()))
}

impl LocalImage {
    /// Reads `PATH (PLATFORM)` or `PATH:REFERENCE (PLATFORM)`. A path with a colon in it is not told from
    /// the second: the text of earlier releases did not tell them either.
    fn parse(text: &str) -> Option<Self> {
        let (local, platform) = in_parentheses(text)?;
        let (path, reference) = match local.split_once(':') {
            Some((path, reference)) => (path.to_owned(), Some(reference.to_owned())),
            None => (local, None),
        };
        Some(Self {
            path,
            reference,
            platform,
        })
    }
}

impl Snapshot {
    fn parse(names: &str) -> Option<Self> {
        let (names, backup_store) = match names.split_once(" backup-store:") {
            Some((names, store)) => (names, Some(store.to_owned())),
            None => (names, None),
        };
        let (volume, group) = match names.split_once(" group:") {
            Some((volume, group)) => (volume, Some(ImageName::new(group).ok()?)),
            None => (names, None),
        };
        let volume = VolumeName::new(volume).ok()?;
        Some(Self {
            volume,
            group,
            backup_store,
        })
    }
}

/// For people, and for earlier releases.
impl fmt::Display for Provenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => Ok(()),
            Self::Registry {
                reference,
                platform,
            } => write!(f, "docker://{reference} ({platform})"),
            Self::OciLayout(local) => write!(f, "oci-layout:{local}"),
            Self::Archive(local) => write!(f, "archive:{local}"),
            Self::File { path } => write!(f, "file:{path}"),
            Self::Url { url, fingerprint } => write!(f, "{url} (#{fingerprint})"),
            Self::Disk { path } => write!(f, "disk:{path}"),
            Self::Upload { file_name } if file_name.is_empty() => f.write_str("upload"),
            Self::Upload { file_name } => write!(f, "upload:{file_name}"),
            Self::Pushed { from } => f.write_str(from),
            Self::Image { id, encryption } => {
                write!(f, "image:{}/{}", id.name, id.uuid)?;
                match encryption {
                    Encryption::Kept => Ok(()),
                    Encryption::Encrypted => f.write_str(" (encrypted)"),
                    Encryption::Decrypted => f.write_str(" (decrypted)"),
                }
            }
            Self::Volume(Snapshot {
                volume,
                group,
                backup_store,
            }) => {
                write!(f, "volume:{volume}")?;
                if let Some(group) = group {
                    write!(f, " group:{group}")?;
                }
                match backup_store {
                    Some(store) => write!(f, " backup-store:{store}"),
                    None => Ok(()),
                }
            }
            Self::Backup { address } => write!(f, "backup:{address}"),
            Self::Peers => f.write_str("peers"),
            Self::Other { text } => f.write_str(text),
        }
    }
}

impl fmt::Display for LocalImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)?;
        if let Some(reference) = &self.reference {
            write!(f, ":{reference}")?;
        }
        write!(f, " ({})", self.platform)
    }
}

/// As a sidecar holds it: the text beside the value.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Stored {
    source: String,
    #[serde(default)]
    provenance: Option<Provenance>,
}

impl From<Stored> for Provenance {
    fn from(stored: Stored) -> Self {
        let of_text = || Self::of_text(&stored.source);
        stored.provenance.unwrap_or_else(of_text)
    }
}

impl From<Provenance> for Stored {
    fn from(provenance: Provenance) -> Self {
        Self {
            source: provenance.to_string(),
            provenance: Some(provenance),
        }
    }
}

/// Keeps a [`Provenance`] in a sidecar as [`Stored`].
pub(crate) mod stored {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{Provenance, Stored};

    pub(crate) fn serialize<S: Serializer>(
        provenance: &Provenance,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        Stored::from(provenance.clone()).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Provenance, D::Error> {
        Stored::deserialize(deserializer).map(Provenance::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(reference: Option<&str>) -> LocalImage {
        LocalImage {
            path: "/import/layout".into(),
            reference: reference.map(str::to_owned),
            platform: "linux/amd64".into(),
        }
    }

    fn all() -> Vec<(&'static str, Provenance)> {
        let id = ImageId::new("cirros", "a93b9a55").unwrap();
        let image = |encryption| Provenance::Image {
            id: id.clone(),
            encryption,
        };
        let mut all = vec![
            ("", Provenance::Unknown),
            (
                "docker://docker.io/rancher/vm:v1 (linux/arm64/v8)",
                Provenance::Registry {
                    reference: "docker.io/rancher/vm:v1".into(),
                    platform: "linux/arm64/v8".into(),
                },
            ),
            (
                "oci-layout:/import/layout (linux/amd64)",
                Provenance::OciLayout(local(None)),
            ),
            (
                "archive:/import/layout:v1 (linux/amd64)",
                Provenance::Archive(local(Some("v1"))),
            ),
            (
                "file:/import/a b (1).img",
                Provenance::File {
                    path: "/import/a b (1).img".into(),
                },
            ),
            (
                "https://example.com/disk.qcow2 (#0badc0de)",
                Provenance::Url {
                    url: "https://example.com/disk.qcow2".into(),
                    fingerprint: "0badc0de".into(),
                },
            ),
            (
                "disk:/disk/tmp/x-1",
                Provenance::Disk {
                    path: "/disk/tmp/x-1".into(),
                },
            ),
            ("upload", Provenance::uploaded("")),
            ("upload:disk.qcow2", Provenance::uploaded("disk.qcow2")),
            (
                "ssync://10.0.0.1:8000",
                Provenance::Pushed {
                    from: "ssync://10.0.0.1:8000".into(),
                },
            ),
            (
                "ssync:",
                Provenance::Pushed {
                    from: "ssync:".into(),
                },
            ),
            ("image:cirros/a93b9a55", image(Encryption::Kept)),
            (
                "image:cirros/a93b9a55 (encrypted)",
                image(Encryption::Encrypted),
            ),
            (
                "image:cirros/a93b9a55 (decrypted)",
                image(Encryption::Decrypted),
            ),
            ("peers", Provenance::Peers),
            (
                "volume:a/b",
                Provenance::Other {
                    text: "volume:a/b".into(),
                },
            ),
        ];
        all.extend(of_volumes());
        all
    }

    fn of_volumes() -> Vec<(&'static str, Provenance)> {
        let snapshot = |group: Option<&str>| Snapshot {
            volume: VolumeName::new("pvc-1").unwrap(),
            group: group.map(|group| ImageName::new(group).unwrap()),
            backup_store: None,
        };
        let for_backup = Snapshot {
            backup_store: Some("s3://backups@eu-1/a/".into()),
            ..snapshot(None)
        };
        vec![
            ("volume:pvc-1", Provenance::Volume(snapshot(None))),
            (
                "volume:pvc-1 group:all",
                Provenance::Volume(snapshot(Some("all"))),
            ),
            (
                "volume:pvc-1 backup-store:s3://backups@eu-1/a/",
                Provenance::Volume(for_backup),
            ),
            (
                "backup:s3://backups@eu-1/a/?backup=b1&volume=v1",
                Provenance::Backup {
                    address: "s3://backups@eu-1/a/?backup=b1&volume=v1".into(),
                },
            ),
        ]
    }

    #[test]
    fn the_text_of_the_last_release_is_the_value() {
        for (text, value) in all() {
            assert_eq!(value.to_string(), text);
            let stored = serde_json::json!({ "source": text });
            let stored: Stored = serde_json::from_value(stored).unwrap();
            assert_eq!(Provenance::from(stored), value, "{text}");
        }
    }

    #[test]
    fn a_value_reads_back_and_its_text_is_not_asked() {
        for (_, value) in all() {
            let mut json = serde_json::to_value(Stored::from(value.clone())).unwrap();
            json["source"] = "upload".into();
            let stored: Stored = serde_json::from_value(json).unwrap();
            assert_eq!(Provenance::from(stored), value);
        }
    }
}
