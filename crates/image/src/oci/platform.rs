//! The platform of a container image: `os/architecture[/variant]`, in Go's spelling.
//!
//! A base image is data and runs nowhere, but images for several architectures are found behind one
//! index, and each may hold another disk.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::lenient::or_none;

/// An operating system, an architecture and its variant.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    #[serde(default, deserialize_with = "or_none")]
    os: String,
    #[serde(default, deserialize_with = "or_none")]
    architecture: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    variant: Option<String>,
}

/// A text that is not a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("platform {text:?} is not valid: write os/architecture[/variant], for example linux/arm64")]
pub struct InvalidPlatform {
    text: String,
}

impl Platform {
    /// Linux on the architecture that this program was built for.
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "x86" => ("386", None),
            "aarch64" => ("arm64", None),
            "arm" => ("arm", Some("v7")),
            "powerpc64" => ("ppc64le", None),
            "loongarch64" => ("loong64", None),
            other => (other, None),
        };
        Self {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.map(ToOwned::to_owned),
        }
    }

    /// The operating system, for example `linux`.
    pub fn os(&self) -> &str {
        &self.os
    }

    /// The architecture, for example `amd64`.
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// The variant of the architecture, for example `v7` of `arm`.
    pub fn variant(&self) -> Option<&str> {
        self.variant.as_deref()
    }

    /// Whether an image for `other` is one for this platform. A variant that is not given, or is the
    /// only one there is (`v8` of `arm64`), counts as the usual one.
    pub fn accepts(&self, other: &Self) -> bool {
        self.os == other.os
            && self.architecture == other.architecture
            && self.usual_variant() == other.usual_variant()
    }

    /// BuildKit's attestation manifests carry `unknown/unknown`: they are not images.
    pub(super) fn is_unknown(&self) -> bool {
        self.os == "unknown" || self.architecture == "unknown"
    }

    fn usual_variant(&self) -> Option<&str> {
        match (self.architecture.as_str(), self.variant.as_deref()) {
            ("arm64", None | Some("" | "8" | "v8")) => Some("v8"),
            ("arm", None | Some("" | "7" | "v7")) => Some("v7"),
            ("amd64", None | Some("" | "v1")) => Some("v1"),
            (_, None | Some("")) => None,
            (_, variant) => variant,
        }
    }
}

impl Default for Platform {
    fn default() -> Self {
        Self::host()
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match self.variant.as_deref() {
            None | Some("") => Ok(()),
            Some(variant) => write!(f, "/{variant}"),
        }
    }
}

impl FromStr for Platform {
    type Err = InvalidPlatform;

    fn from_str(text: &str) -> Result<Self, InvalidPlatform> {
        let invalid = || InvalidPlatform {
            text: text.chars().take(64).collect(),
        };
        let word = |word: &str| {
            let allowed =
                |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_.-".contains(&b);
            (!word.is_empty() && word.len() <= 32 && word.bytes().all(allowed))
                .then(|| word.to_owned())
        };
        let mut parts = text.split('/');
        let (os, architecture, variant) = (parts.next(), parts.next(), parts.next());
        if parts.next().is_some() {
            return Err(invalid());
        }
        Ok(Self {
            os: os.and_then(word).ok_or_else(invalid)?,
            architecture: architecture.and_then(word).ok_or_else(invalid)?,
            variant: variant.map(|v| word(v).ok_or_else(invalid)).transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_read_and_shown() {
        for text in [
            "linux/amd64",
            "linux/arm64/v8",
            "linux/arm/v7",
            "windows/amd64",
        ] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), text);
        }
        for bad in [
            "",
            "linux",
            "linux/",
            "/amd64",
            "linux/a/b/c",
            "linux/amd 64",
            "Linux/amd64",
        ] {
            assert!(bad.parse::<Platform>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn a_variant_that_goes_without_saying_need_not_be_said() {
        let accepts =
            |a: &str, b: &str| a.parse::<Platform>().unwrap().accepts(&b.parse().unwrap());
        assert!(accepts("linux/arm64", "linux/arm64/v8"));
        assert!(accepts("linux/arm/v7", "linux/arm"));
        assert!(!accepts("linux/arm", "linux/arm/v6"));
        assert!(!accepts("linux/amd64", "linux/arm64"));
        assert!(!accepts("linux/amd64", "windows/amd64"));
    }
}
