//! `backing.cfg`: the record of a sealed image, in Longhorn's keys and a few of ours.
//!
//! Longhorn's keys are `name` (which contains the *path*), `uuid`, `size`, `virtualSize`,
//! `realSize`, `expectedChecksum`, `currentChecksum` and `modificationTime` (Go's text of a time in
//! UTC). Both programs ignore unknown keys, so each can adopt the files of the other.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use image::Format;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use types::ImageUuid;

use super::durable;
use crate::content::Content;
use crate::error::{Error, IoContext, Result};
use crate::provenance::Provenance;

/// The newest version of our keys that this program understands. It is that of a sidecar without a checksum, which
/// versions before it take for damage.
pub const VERSION: u32 = 2;
/// The version of all other sidecars.
const SUMMED: u32 = 1;
/// The largest sidecar that is read.
const SIDECAR_MAX: u64 = 1 << 20;

/// The content of `backing.cfg`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sidecar {
    /// The path of the image's file; Longhorn calls it so. Never trusted: the directory tells.
    pub name: String,
    /// Tells images of one name apart.
    pub uuid: ImageUuid,
    /// Bytes of the file.
    pub size: u64,
    /// Bytes that a guest sees.
    #[serde(default)]
    pub virtual_size: u64,
    /// Bytes of the disk that the file takes.
    #[serde(default)]
    pub real_size: u64,
    /// SHA-512 that was asked for, or empty.
    #[serde(default)]
    pub expected_checksum: String,
    /// SHA-512 of the file; empty in one of ours whose sum is not computed yet.
    #[serde(default)]
    pub current_checksum: String,
    /// mtime of the file, as Go prints it: `2026-11-21 22:38:39.978804256 +0000 UTC`.
    #[serde(default)]
    pub modification_time: String,
    /// What only this program knows; absent in a sidecar of Longhorn's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seal: Option<Seal>,
}

/// Our own part of the sidecar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Seal {
    pub version: u32,
    /// What the file looked like when it was sealed.
    pub stamp: Stamp,
    /// `raw` or `qcow2`: declared or told once, never guessed again.
    pub format: String,
    /// Where the bytes are from.
    #[serde(flatten, with = "crate::provenance::stored")]
    pub provenance: Provenance,
    /// Digest of the container image's manifest, for images that came in one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub manifest_digest: String,
    /// Whether nothing but the bytes themselves vouches for the bytes.
    pub unverified: bool,
    /// The SHA-512 is not known, or is what a peer's manifest or Longhorn's sidecar says, and is being computed here.
    #[serde(
        rename = "checksumTold",
        default,
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub checksum_unproven: bool,
    /// How it was asked for.
    #[serde(flatten)]
    pub asked: AskedFor,
    /// What the disk holds.
    pub content: Content,
    /// When it was sealed, RFC 3339.
    pub created_at: String,
    /// Extents of the file, which is what cloning it costs.
    pub extents: u64,
    /// `sha512:…` and `sha256:…` of what the image was unpacked, converted or padded from, as far as
    /// they are known and not the image's own SHA-512.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub source_checksums: Vec<String>,
}

/// How an image was asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AskedFor {
    /// It was pulled with credentials of who asked for it: others have to prove that they may have it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub private: bool,
    /// Drivers asked for it, for their volumes, and nobody else: it may go when no volume uses it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub for_volumes: bool,
}

/// The version of a sidecar that has its checksum, or lacks it.
pub(super) const fn version(has_checksum: bool) -> u32 {
    if has_checksum { SUMMED } else { VERSION }
}

impl Seal {
    /// The format as a value.
    pub fn format(&self) -> Format {
        if self.format == "qcow2" {
            Format::Qcow2
        } else {
            Format::Raw
        }
    }
}

/// What stat(2) says of a file: when it agrees, nobody has written to the file since. The change time
/// cannot be set back by utimensat(2), so that a forged modification time is noticed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stamp {
    pub inode: u64,
    pub size: u64,
    /// Modification time, seconds and nanoseconds since the epoch.
    pub modified: (i64, i64),
    pub changed: (i64, i64),
}

impl Stamp {
    /// The stamp of the regular file at `path`; `None` when there is none.
    pub fn of(path: &Path) -> Result<Option<Self>> {
        match fs::symlink_metadata(path) {
            Ok(meta) if meta.is_file() => Ok(Some(Self::from(&meta))),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context("inspect", path),
        }
    }

    /// The modification time as Go prints a time in UTC.
    pub fn modification_time(&self) -> String {
        let (seconds, nanoseconds) = self.modified;
        let Ok(time) = i32::try_from(nanoseconds)
            .map_err(|_| ())
            .and_then(|nanoseconds| Timestamp::new(seconds, nanoseconds).map_err(|_| ()))
        else {
            return String::new();
        };
        // Go leaves out trailing zeros of the fraction, and the point with them.
        let fraction = format!(".{nanoseconds:09}");
        let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
        format!("{}{fraction} +0000 UTC", time.strftime("%Y-%m-%d %H:%M:%S"))
    }
}

impl From<&fs::Metadata> for Stamp {
    fn from(meta: &fs::Metadata) -> Self {
        Self {
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

/// What reading a sidecar can give.
#[derive(Debug)]
pub enum SidecarFile {
    Missing,
    /// There is one, but its content is not a sidecar: it is as good as missing, and why.
    Damaged(String),
    /// It can be read.
    Good(Box<Sidecar>),
}

impl Sidecar {
    /// Writes the sidecar durably.
    pub fn write(&self, path: &Path) -> Result<()> {
        let content = serde_json::to_vec(self).expect("a sidecar is plain JSON");
        durable::replace(path, &content)
    }

    /// Reads the sidecar at `path`. A version newer than ours is an error: nothing of the image may
    /// be touched then.
    pub fn read(path: &Path) -> Result<SidecarFile> {
        let content = match read_small(path) {
            Ok(Some(content)) => content,
            Ok(None) => return Ok(SidecarFile::Missing),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Ok(SidecarFile::Damaged(error.to_string()));
            }
            Err(error) => return Err(error).context("read", path),
        };
        check_version(&content, path)?;
        Ok(match serde_json::from_slice::<Self>(&content) {
            Ok(sidecar) => SidecarFile::Good(Box::new(sidecar)),
            Err(error) => SidecarFile::Damaged(error.to_string()),
        })
    }
}

/// Looks at the version alone, so that a newer shape of the rest does not read as damage.
fn check_version(content: &[u8], path: &Path) -> Result<()> {
    #[derive(Deserialize)]
    struct Versioned {
        seal: Option<Version>,
    }
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    match serde_json::from_slice::<Versioned>(content) {
        Ok(Versioned {
            seal: Some(Version { version }),
        }) if version > VERSION => Err(Error::NewerFormat {
            path: PathBuf::from(path),
            version,
        }),
        _ => Ok(()),
    }
}

/// Reads a regular file of at most [`SIDECAR_MAX`] bytes.
fn read_small(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if !meta.is_file() || meta.len() > SIDECAR_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "not a small regular file",
        ));
    }
    fs::read(path).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sidecar_of_longhorn_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("backing.cfg");
        let text = r#"{"name":"/data/backing-images/a-1/backing","uuid":"1","size":512,
            "virtualSize":512,"realSize":4096,"expectedChecksum":"","currentChecksum":"ab",
            "modificationTime":"2026-11-21 22:38:39.978804256 +0000 UTC"}"#;
        io::Write::write_all(&mut fs::File::create(&path).unwrap(), text.as_bytes()).unwrap();
        let SidecarFile::Good(sidecar) = Sidecar::read(&path).unwrap() else {
            panic!()
        };
        assert_eq!((sidecar.size, sidecar.seal), (512, None));
    }

    #[test]
    fn times_are_spelled_as_go_spells_them() {
        let stamp = |nanoseconds| Stamp {
            inode: 1,
            size: 1,
            modified: (1_795_300_719, nanoseconds),
            changed: (0, 0),
        };
        assert_eq!(
            stamp(978_804_256).modification_time(),
            "2026-11-21 22:38:39.978804256 +0000 UTC"
        );
        assert_eq!(
            stamp(500_000_000).modification_time(),
            "2026-11-21 22:38:39.5 +0000 UTC"
        );
        assert_eq!(
            stamp(0).modification_time(),
            "2026-11-21 22:38:39 +0000 UTC"
        );
    }

    /// Row 62: what is no sidecar is told from what must not be touched.
    #[test]
    fn row_62_damaged_and_newer_sidecars_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("backing.cfg");
        for bad in [
            &b""[..],
            b"{",
            b"\xff\xfe",
            b"[]",
            b"{\"uuid\":\"../x\"}",
            b"{\"size\":1}",
        ] {
            io::Write::write_all(&mut fs::File::create(&path).unwrap(), bad).unwrap();
            assert!(
                matches!(Sidecar::read(&path), Ok(SidecarFile::Damaged(_))),
                "{bad:?}"
            );
        }
        let newer = br#"{"uuid":"1","size":1,"name":"x","seal":{"version":3,"what":"ever"}}"#;
        io::Write::write_all(&mut fs::File::create(&path).unwrap(), newer).unwrap();
        assert!(matches!(
            Sidecar::read(&path),
            Err(Error::NewerFormat { version: 3, .. })
        ));
    }
}
