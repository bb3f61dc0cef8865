//! The parameters with which Longhorn's StorageClasses name a backing image today. Like
//! `baseImage`, they name the image of a volume and its source.

use std::collections::BTreeMap;

use client::wire;
use types::{ImageName, Sha512, VolumeName};

use crate::error::{Error, Result, shown};

pub(crate) const BACKING_IMAGE: &str = "backingImage";
pub(super) const SOURCE_TYPE: &str = "backingImageDataSourceType";
pub(super) const SOURCE_PARAMETERS: &str = "backingImageDataSourceParameters";
pub(super) const CHECKSUM: &str = "backingImageChecksum";

/// A backing image by its name, and how to make it if it is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BackingImage {
    pub(crate) name: ImageName,
    /// `None`: it must be there.
    pub(crate) source: Option<ImageSource>,
    /// SHA-512 in hexadecimal; empty: whatever it has.
    pub(crate) checksum: String,
}

/// Where a backing image comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ImageSource {
    Download(String),
    Volume(VolumeName),
}

/// The parameters as they came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Raw {
    pub(super) name: String,
    pub(super) source_type: String,
    pub(super) source_parameters: String,
    pub(super) checksum: String,
}

impl Raw {
    /// Takes them together; `None`: none is set.
    pub(super) fn checked(self) -> Result<Option<BackingImage>> {
        let refuse = |key, value: &str, why| Error::Parameter {
            key,
            value: shown(value),
            why,
        };
        if self == Self::default() {
            return Ok(None);
        }
        let name = ImageName::new(&self.name).map_err(|_| {
            let why = "the name of a backing image is needed: letters, digits, '_', '.' and '-'";
            refuse(BACKING_IMAGE, &self.name, why)
        })?;
        if !self.checksum.is_empty() && self.checksum.parse::<Sha512>().is_err() {
            let why = "a SHA-512 has 128 hexadecimal digits";
            return Err(refuse(CHECKSUM, &self.checksum, why));
        }
        let source = match self.source_type.as_str() {
            "" if self.source_parameters.is_empty() => None,
            "download" => {
                let mut given = self.parameters(&["url"])?;
                Some(ImageSource::Download(
                    given.remove("url").unwrap_or_default(),
                ))
            }
            "export-from-volume" => {
                let mut given = self.parameters(&["volume-name", "export-type"])?;
                if given
                    .remove("export-type")
                    .is_some_and(|kind| kind != "raw")
                {
                    let why = "export-type must be raw";
                    return Err(refuse(SOURCE_PARAMETERS, &self.source_parameters, why));
                }
                let name = given.remove("volume-name").unwrap_or_default();
                let why = "volume-name is not the name of a volume";
                let volume = VolumeName::new(&name)
                    .map_err(|_| refuse(SOURCE_PARAMETERS, &self.source_parameters, why))?;
                Some(ImageSource::Volume(volume))
            }
            _ => {
                let why = "use download or export-from-volume";
                return Err(refuse(SOURCE_TYPE, &self.source_type, why));
            }
        };
        Ok(Some(BackingImage {
            name,
            source,
            checksum: self.checksum,
        }))
    }

    /// The JSON object of texts, of which the first key must be there and no other may.
    fn parameters(&self, keys: &[&str]) -> Result<BTreeMap<String, String>> {
        let refuse = |why| Error::Parameter {
            key: SOURCE_PARAMETERS,
            value: shown(&self.source_parameters),
            why,
        };
        let given: BTreeMap<String, String> = serde_json::from_str(&self.source_parameters)
            .map_err(|_| {
                refuse("a JSON object of texts is expected, such as {\"url\": \"https://…\"}")
            })?;
        if !given.keys().all(|key| keys.contains(&key.as_str())) {
            return Err(refuse(
                "it has a key that this type of source does not know",
            ));
        }
        if keys
            .first()
            .is_some_and(|key| given.get(*key).is_none_or(String::is_empty))
        {
            return Err(refuse("it does not name the source of the image"));
        }
        Ok(given)
    }
}

impl BackingImage {
    /// The request that makes it, unless it must be there.
    pub(crate) fn request(&self) -> Option<wire::CreateBackingImageRequest> {
        use wire::source::Source;
        let source = match self.source.as_ref()? {
            ImageSource::Download(url) => Source::Url(wire::UrlSource {
                url: url.clone(),
                ..Default::default()
            }),
            ImageSource::Volume(volume) => Source::Volume(wire::VolumeSource {
                name: volume.to_string(),
            }),
        };
        Some(wire::CreateBackingImageRequest {
            name: self.name.to_string(),
            source: Some(wire::Source {
                source: Some(source),
            }),
            expected_checksum: self.checksum.clone(),
            ..Default::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(name: &str, source_type: &str, source_parameters: &str, checksum: &str) -> Raw {
        Raw {
            name: name.to_owned(),
            source_type: source_type.to_owned(),
            source_parameters: source_parameters.to_owned(),
            checksum: checksum.to_owned(),
        }
    }

    #[test]
    fn longhorns_parameters_name_an_image_and_its_source() {
        assert_eq!(Raw::default().checked().unwrap(), None);
        let there = raw("parrot", "", "", "").checked().unwrap().unwrap();
        assert_eq!(there.request(), None);
        let sum = "a".repeat(128);
        let download = raw(
            "parrot",
            "download",
            r#"{"url": "https://h/p.qcow2"}"#,
            &sum,
        );
        let image = download.checked().unwrap().unwrap();
        assert_eq!(
            image.source,
            Some(ImageSource::Download("https://h/p.qcow2".to_owned()))
        );
        assert_eq!(image.request().unwrap().expected_checksum, sum);
        let export = r#"{"volume-name": "pvc-1", "export-type": "raw"}"#;
        let image = raw("p", "export-from-volume", export, "")
            .checked()
            .unwrap()
            .unwrap();
        assert_eq!(
            image.source,
            Some(ImageSource::Volume(VolumeName::new("pvc-1").unwrap()))
        );
    }

    #[test]
    fn what_can_never_work_is_refused() {
        for (name, source_type, parameters, checksum) in [
            ("", "download", r#"{"url": "https://h/p"}"#, ""),
            ("a/b", "", "", ""),
            ("p", "", "", "abc"),
            ("p", "", r#"{"url": "https://h/p"}"#, ""),
            ("p", "upload", "{}", ""),
            ("p", "download", "", ""),
            ("p", "download", "{}", ""),
            ("p", "download", r#"{"url": ""}"#, ""),
            ("p", "download", r#"{"url": 1}"#, ""),
            ("p", "download", r#"{"url": "https://h/p", "x": "y"}"#, ""),
            ("p", "download", "[]", ""),
            ("p", "export-from-volume", r#"{"volume-name": "a/b"}"#, ""),
            (
                "p",
                "export-from-volume",
                r#"{"volume-name": "a", "export-type": "qcow2"}"#,
                "",
            ),
        ] {
            let result = raw(name, source_type, parameters, checksum).checked();
            assert!(
                result.is_err(),
                "{name} {source_type} {parameters} {checksum}"
            );
        }
    }
}
