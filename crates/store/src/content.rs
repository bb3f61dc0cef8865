//! The contents of a disk, in the vocabulary of the sidecar and of the wire.

use serde::{Deserialize, Serialize};

/// The outcome of probing a disk, as it is stored and sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Content {
    /// What kind of thing it is.
    pub kind: ContentKind,
    /// Its type as blkid spells it: `ext4`, `gpt`, `crypto_LUKS`, or the list of an ambiguous disk.
    #[serde(rename = "type", default, skip_serializing_if = "String::is_empty")]
    pub what: String,
    /// The file system's label.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub label: String,
    /// The file system's uuid.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uuid: String,
    /// Why no node mounts the file system, with what to do; empty: nothing is known against it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub refused: String,
}

/// The kinds of [`Content`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ContentKind {
    /// Not told: an image that another program sealed.
    #[default]
    Unspecified,
    FileSystem,
    PartitionTable,
    Other,
    /// More than one signature.
    Ambiguous,
    /// No signature that we know, and not blank.
    Unknown,
    Blank,
}

impl From<probe::Content> for Content {
    fn from(found: probe::Content) -> Self {
        let of = |kind, what: &str| Self {
            kind,
            what: what.to_owned(),
            ..Self::default()
        };
        match found {
            probe::Content::FileSystem {
                fs_type,
                label,
                uuid,
                refused,
            } => Self {
                kind: ContentKind::FileSystem,
                what: fs_type.to_string(),
                label,
                uuid,
                refused: refused.unwrap_or_default(),
            },
            probe::Content::PartitionTable { table } => of(ContentKind::PartitionTable, table),
            probe::Content::Other { what } => of(ContentKind::Other, what),
            probe::Content::Ambiguous(all) => of(ContentKind::Ambiguous, &all.join(", ")),
            probe::Content::Unknown => of(ContentKind::Unknown, ""),
            probe::Content::Blank => of(ContentKind::Blank, ""),
        }
    }
}
