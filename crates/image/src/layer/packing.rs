//! How a layer is packed, and the media types that say so.

use serde::{Deserialize, Serialize};

/// How the tar of a layer is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Packing {
    Plain,
    /// RFC 1952, one or several members.
    Gzip,
    /// RFC 8878, one or several frames.
    Zstd,
    /// Not told: its first bytes decide.
    Unknown,
}

impl Packing {
    /// What the media type of a layer says; `None` when it is no layer's.
    pub fn of_media_type(media_type: &str) -> Option<Self> {
        let oci = media_type
            .strip_prefix("application/vnd.oci.image.layer.")
            .map(|rest| rest.strip_prefix("nondistributable.").unwrap_or(rest))
            .and_then(|rest| rest.strip_prefix("v1.tar"));
        let docker = media_type
            .strip_prefix("application/vnd.docker.image.rootfs.")
            .and_then(|rest| {
                rest.strip_prefix("diff.tar")
                    .or_else(|| rest.strip_prefix("foreign.diff.tar"))
            });
        match oci.or(docker)? {
            "" => Some(Self::Plain),
            "+gzip" | ".gzip" => Some(Self::Gzip),
            "+zstd" | ".zstd" => Some(Self::Zstd),
            _ => None,
        }
    }
}
