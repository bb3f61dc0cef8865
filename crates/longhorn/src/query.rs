//! The path and query of a REST request, parsed as Go's server does.

use std::path::PathBuf;

use image::Format;
use types::{DiskUuid, ImageId, ImageUuid, Sha512};
use url::form_urlencoded;

use crate::Registration;
use crate::error::{Error, Result};

/// The sectors that direct I/O reads, in bytes.
const SECTOR: u64 = 512;

/// The query of a request. Where a key is given twice, the first counts.
#[derive(Debug, Clone, Default)]
pub struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    /// Reads the part of a URI after the question mark.
    pub fn parse(text: Option<&str>) -> Self {
        let pairs = form_urlencoded::parse(text.unwrap_or_default().as_bytes());
        Self {
            pairs: pairs.into_owned().collect(),
        }
    }

    /// The value of a key, or the empty text.
    pub fn get(&self, key: &str) -> &str {
        let mut pairs = self.pairs.iter();
        pairs
            .find(|(k, _)| k == key)
            .map_or("", |(_, value)| value.as_str())
    }

    /// The value of a key that must be there.
    pub fn required(&self, key: &'static str) -> Result<&str> {
        match self.get(key) {
            "" => Err(Error::InvalidField {
                field: key,
                why: "it is missing".to_owned(),
            }),
            value => Ok(value),
        }
    }

    /// A path that must be there.
    pub fn path(&self, key: &'static str) -> Result<PathBuf> {
        Ok(PathBuf::from(self.required(key)?))
    }

    /// The uuid of the image.
    pub fn uuid(&self) -> Result<ImageUuid> {
        Ok(ImageUuid::new(self.required("uuid")?)?)
    }

    /// The disk that is meant.
    pub fn disk_uuid(&self) -> Result<Option<DiskUuid>> {
        match self.get("disk-uuid") {
            "" => Ok(None),
            uuid => Ok(Some(DiskUuid::new(uuid)?)),
        }
    }

    /// The SHA-512 that is expected.
    pub fn expected_checksum(&self) -> Result<Option<Sha512>> {
        checksum(self.get("expected-checksum"))
    }

    /// A size of a file, 0 when it is not given; only whole sectors are taken.
    pub fn size(&self) -> Result<u64> {
        let text = self.get("size");
        let size = if text.is_empty() {
            0
        } else {
            text.parse::<u64>().map_err(|_| Error::InvalidField {
                field: "size",
                why: format!("{text:?} is not a number of bytes"),
            })?
        };
        aligned(size)
    }

    /// Refuses an image for another engine than the first: its files are not made raw here.
    pub fn require_engine_v1(&self) -> Result<()> {
        match self.get("data-engine") {
            "" | "v1" => Ok(()),
            other => Err(Error::InvalidField {
                field: "data-engine",
                why: format!("{other:?} is not supported: images are for engine v1"),
            }),
        }
    }

    /// The format that the file is to have; `None`: that in which it comes.
    pub fn file_type(&self) -> Result<Option<Format>> {
        match self.get("file-type") {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|error| Error::InvalidField {
                field: "file-type",
                why: format!("{error}"),
            }),
        }
    }
}

/// Refuses what Longhorn's engine could not read.
pub fn aligned(size: u64) -> Result<u64> {
    if size.is_multiple_of(SECTOR) {
        Ok(size)
    } else {
        Err(Error::UnalignedSize(size))
    }
}

/// A checksum, or none.
pub fn checksum(text: &str) -> Result<Option<Sha512>> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|error| Error::InvalidField {
        field: "expected-checksum",
        why: format!("{error}"),
    })
}

/// Undoes Go's `url.QueryEscape`; `None` for what it cannot have made.
pub fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                let text = std::str::from_utf8(&digits).ok()?;
                if !digits.iter().all(u8::is_ascii_hexdigit) {
                    return None;
                }
                u8::from_str_radix(text, 16).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

/// What every request for a file says of it.
pub(crate) fn registration(query: &Query, id: ImageId) -> Result<Registration> {
    query.require_engine_v1()?;
    Ok(Registration {
        id,
        source: None,
        size: query.size()?,
        expected: query.expected_checksum()?,
        format: None,
        disk_uuid: query.disk_uuid()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_in_paths_are_read_as_go_writes_them() {
        assert_eq!(
            unescape("%2Fdata%2Fbacking-images%2Fa+b%2Bc").as_deref(),
            Some("/data/backing-images/a b+c")
        );
        for wrong in ["%", "%2", "%zz", "%+1", "%ff"] {
            assert_eq!(unescape(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn sizes_are_whole_sectors() {
        let size = |text: &str| Query::parse(Some(text)).size();
        assert_eq!(size("size=8388608").unwrap(), 8_388_608);
        assert_eq!(size("").unwrap(), 0);
        assert_eq!(
            size("size=1000").unwrap_err().to_string(),
            "the uploaded file size 1000 should be a multiple of 512 bytes since Longhorn uses \
             directIO by default"
        );
        for wrong in ["size=-512", "size=x", "size=99999999999999999999"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
