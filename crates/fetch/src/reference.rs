//! Names of container images, as Docker and OCI spell them.
//!
//! The grammar is that of the distribution project's `reference` package: an optional registry host
//! with a port, a path of lower-case components, then `:tag`, `@digest` or both. What is left out is
//! filled in as Docker does: `docker.io`, `library/`, `:latest`.

use std::fmt;
use std::str::FromStr;

use image::oci::Digest;

use crate::{Error, Result};

/// Docker's own registry, as it is named in references.
pub(crate) const DOCKER_HUB: &str = "docker.io";
/// The most bytes of `host/path` (distribution `reference`, `NameTotalLengthMax`).
const NAME_MAX: usize = 255;
/// The most bytes of a tag (OCI distribution specification, "pulling manifests").
const TAG_MAX: usize = 128;

/// A checked, normalised name of an image in a registry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// The host, with a port where one is given: `docker.io`, `registry.example.com:5000`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; `latest` when neither tag nor digest was given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, which goes before the tag.
    pub const fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The same image by a digest and nothing else: a name that never moves.
    #[must_use]
    pub fn pinned(&self, digest: Digest) -> Self {
        let (registry, repository) = (self.registry.clone(), self.repository.clone());
        Self {
            registry,
            repository,
            tag: None,
            digest: Some(digest),
        }
    }

    /// Host and path: `docker.io/library/busybox`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// What a manifest is asked for by: the digest, else the tag.
    pub(crate) fn selector(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        parse(text).map_err(|why| Error::Reference {
            text: shown(text),
            why,
        })
    }
}

/// The text as an error may repeat it: short, and without anything before an `@` that could be a
/// password.
fn shown(text: &str) -> String {
    let is_digest = |rest: &str| {
        (rest.starts_with("sha256:") || rest.starts_with("sha512:")) && !rest.contains('@')
    };
    let text = match text.split_once('@') {
        Some((_, rest)) if !is_digest(rest) => {
            format!("***@{}", rest.rsplit('@').next().unwrap_or(""))
        }
        _ => text.to_owned(),
    };
    text.chars().take(128).collect()
}

fn parse(text: &str) -> Result<Reference, &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.len() > NAME_MAX + 1 + TAG_MAX + 1 + 136 {
        return Err("it is too long");
    }
    if text.contains("://") {
        return Err("it has a scheme; leave out everything up to ://");
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("it holds white space or characters outside ASCII");
    }
    let (rest, digest) = match text.split_once('@') {
        None => (text, None),
        Some((rest, digest)) => {
            if digest.contains('@') || !digest.starts_with("sha") {
                return Err(
                    "credentials do not belong into it; put them into a Docker config file",
                );
            }
            let digest = digest
                .parse::<Digest>()
                .map_err(|_| "its digest is not valid")?;
            (rest, Some(digest))
        }
    };
    // A colon after the last slash starts a tag; before it, a port.
    let (name, tag) = match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (rest, None),
    };
    let (registry, repository) = split_host(name);
    check_host(registry)?;
    let repository = if registry == DOCKER_HUB && !repository.contains('/') {
        format!("library/{repository}")
    } else {
        repository.to_owned()
    };
    check_repository(&repository)?;
    if registry.len() + 1 + repository.len() > NAME_MAX {
        return Err("its name is longer than 255 characters");
    }
    if let Some(tag) = tag {
        check_tag(tag)?;
    }
    let tag = match (tag, &digest) {
        (Some(tag), _) => Some(tag.to_owned()),
        (None, None) => Some("latest".to_owned()),
        (None, Some(_)) => None,
    };
    Ok(Reference {
        registry: registry.to_ascii_lowercase(),
        repository,
        tag,
        digest,
    })
}

/// The first component is a host when it could not be a path component, or is `localhost`.
fn split_host(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':', '['])
                || first == "localhost"
                || first != first.to_lowercase() =>
        {
            let first = if first == "index.docker.io" {
                DOCKER_HUB
            } else {
                first
            };
            (first, rest)
        }
        _ => (DOCKER_HUB, name),
    }
}

/// A DNS name, an IPv4 address or an IPv6 one in brackets, with an optional port.
pub(crate) fn check_host(host: &str) -> Result<(), &'static str> {
    const BAD: &str = "its registry host is not valid";
    let (name, port) = if let Some(rest) = host.strip_prefix('[') {
        let (address, after) = rest.split_once(']').ok_or(BAD)?;
        address.parse::<std::net::Ipv6Addr>().map_err(|_| BAD)?;
        (
            None,
            if after.is_empty() {
                None
            } else {
                Some(after.strip_prefix(':').ok_or(BAD)?)
            },
        )
    } else {
        let (name, port) = host
            .split_once(':')
            .map_or((host, None), |(name, port)| (name, Some(port)));
        (Some(name), port)
    };
    if let Some(name) = name {
        let label = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if name.len() > 253 || !name.split('.').all(label) {
            return Err(BAD);
        }
    }
    match port {
        None => Ok(()),
        Some(port) => match port.parse::<u16>() {
            Ok(1..) if port.bytes().all(|b| b.is_ascii_digit()) => Ok(()),
            _ => Err("its port is not valid"),
        },
    }
}

/// Components of lower-case letters and digits, parted by `.`, `_`, `__` or any number of `-`.
pub(crate) fn check_repository(path: &str) -> Result<(), &'static str> {
    let component = |component: &str| {
        let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let bytes = component.as_bytes();
        let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
            return false;
        };
        alphanumeric(*first)
            && alphanumeric(*last)
            && bytes.split(|b| alphanumeric(*b)).all(|gap| {
                matches!(gap, b"" | b"." | b"_" | b"__") || gap.iter().all(|b| *b == b'-')
            })
    };
    if path.split('/').all(component) {
        Ok(())
    } else {
        Err(
            "its path may contain only lower-case letters and digits, separated by '.', '_', \
             '__', '-' or '/'",
        )
    }
}

fn check_tag(tag: &str) -> Result<(), &'static str> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let ok = !tag.is_empty()
        && tag.len() <= TAG_MAX
        && word(tag.as_bytes()[0])
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-');
    if ok {
        Ok(())
    } else {
        Err("its tag must be 1 to 128 letters, digits, '_', '.' or '-'")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn references_are_normalised_as_docker_does() {
        for (text, canonical) in [
            ("busybox", "docker.io/library/busybox:latest"),
            (
                "rancher/longhorn-test:baseimage-ext4",
                "docker.io/rancher/longhorn-test:baseimage-ext4",
            ),
            (
                "index.docker.io/busybox",
                "docker.io/library/busybox:latest",
            ),
            ("docker.io/busybox:1", "docker.io/library/busybox:1"),
            ("localhost/x", "localhost/x:latest"),
            (
                "localhost:5000/a/b__c--d.e:T_1",
                "localhost:5000/a/b__c--d.e:T_1",
            ),
            ("127.0.0.1:5000/x", "127.0.0.1:5000/x:latest"),
            ("[::1]:5000/x:1", "[::1]:5000/x:1"),
            ("Registry.Example/x", "registry.example/x:latest"),
            ("vm-images", "docker.io/library/vm-images:latest"),
            (
                &format!("x.y/z@sha256:{HEX}"),
                &format!("x.y/z@sha256:{HEX}"),
            ),
            (
                &format!("x.y/z:t@sha256:{HEX}"),
                &format!("x.y/z:t@sha256:{HEX}"),
            ),
        ] {
            let reference: Reference = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(reference.to_string(), canonical, "{text}");
            assert_eq!(canonical.parse::<Reference>().unwrap(), reference, "{text}");
        }
    }

    #[test]
    fn row_05_what_is_no_reference_is_refused() {
        let long = format!("x.y/{}", "a".repeat(252));
        let long_tag = format!("x:{}", "t".repeat(129));
        for text in [
            "",
            " busybox",
            "busybox ",
            "bus\nybox",
            "https://docker.io/busybox",
            "x.y/Upper",
            "x.y/",
            "/x",
            "x//y",
            "x.y/../etc",
            "x:",
            "x:-t",
            "x:a/b:c:d",
            "x@sha256:abc",
            "x.y:0/z",
            "x.y:65536/z",
            "x.y:a/z",
            "-x.y/z",
            "x_.y/z_",
            "é",
            "x.y/z@sha256:../../etc/x",
            "[::1/x",
            "[::g]/x",
            &long,
            &long_tag,
            "x.y:+5/z",
            "x?y",
            "x#y",
            "x%2fy",
            &format!("x@SHA256:{HEX}"),
            "x._y",
            "x___y",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn row_09_a_password_in_a_reference_is_refused_and_not_repeated() {
        for text in [
            "user:hunter2@x.y/z",
            "https://user:hunter2@x.y/z",
            "user:hunter2@x.y/z@sha256:00",
        ] {
            let error = text.parse::<Reference>().unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
    }
}
