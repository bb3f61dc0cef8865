//! Where a base image is or goes: `docker://…`, `oci-layout:…`, `oci-archive:…`, `docker-archive:…`,
//! `file:…`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use fetch::Reference;

use super::error::{Error, Result};

/// A place of a base image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Location {
    Registry(Reference),
    /// A directory in the form of the OCI image layout.
    OciLayout(PathBuf),
    /// The same as a tar file.
    OciArchive(PathBuf),
    /// A tar file in the form of `docker save`.
    DockerArchive(PathBuf),
    /// A bare disk image, in no container image.
    File(PathBuf),
}

impl Location {
    /// Reads what was typed for `option`.
    pub(super) fn parse(option: &'static str, text: &str) -> Result<Self> {
        let problem = |problem: String| Error::Option { option, problem };
        let Some((kind, rest)) = text.split_once(':') else {
            return Err(problem(format!(
                "{text:?} has no type: write docker://{text}, oci-layout:{text}, \
                 oci-archive:{text} or docker-archive:{text}"
            )));
        };
        if rest.is_empty() {
            return Err(problem(format!("{text:?} names nothing after {kind}:")));
        }
        Ok(match kind {
            "docker" => {
                let name = rest.strip_prefix("//").ok_or_else(|| {
                    problem(format!("{text:?} lacks two slashes: write docker://{rest}"))
                })?;
                let reference = Reference::from_str(name).map_err(|source| Error::Fetch {
                    what: "read the image's name",
                    source,
                })?;
                Self::Registry(reference)
            }
            "oci-layout" | "oci" => Self::OciLayout(rest.into()),
            "oci-archive" => Self::OciArchive(rest.into()),
            "docker-archive" => Self::DockerArchive(rest.into()),
            "file" => Self::File(rest.into()),
            _ => {
                return Err(problem(format!(
                    "{text:?} starts with {kind:?}; use docker://, oci-layout:, oci-archive:, \
                     docker-archive: or file:"
                )));
            }
        })
    }

    /// The path, unless it is in a registry.
    pub(super) fn path(&self) -> Option<&PathBuf> {
        match self {
            Self::Registry(_) => None,
            Self::OciLayout(path)
            | Self::OciArchive(path)
            | Self::DockerArchive(path)
            | Self::File(path) => Some(path),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(reference) => write!(f, "docker://{reference}"),
            Self::OciLayout(path) => write!(f, "oci-layout:{}", path.display()),
            Self::OciArchive(path) => write!(f, "oci-archive:{}", path.display()),
            Self::DockerArchive(path) => write!(f, "docker-archive:{}", path.display()),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_and_shown() {
        for text in [
            "docker://registry.example.com:5000/web:v1",
            "oci-layout:/a/dir",
            "oci-archive:a:b.tar",
            "docker-archive:x.tar",
            "file:disk.qcow2",
        ] {
            assert_eq!(Location::parse("--output", text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_place_is_refused_with_what_to_write() {
        for text in [
            "",
            "web",
            "docker:web:v1",
            "oci-archive:",
            "ftp://x/y",
            "docker://u:p@x/y",
        ] {
            let error = Location::parse("--output", text).unwrap_err().to_string();
            assert!(!error.contains(":p@"), "{error}");
        }
    }
}
