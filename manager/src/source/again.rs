//! Reads the source of a damaged image again: only if the source returns the same data twice, or
//! the checksum proves it.

use fetch::Reference;

use super::Source;

impl Source {
    /// Whether it can be asked again for the same bytes.
    pub fn can_be_repeated(&self) -> bool {
        match self {
            Self::Registry { .. }
            | Self::OciLayout(_)
            | Self::Archive(_)
            | Self::File(_)
            | Self::Url(_)
            | Self::Peers(_)
            | Self::Manager(_) => true,
            Self::Adopt { .. }
            | Self::Upload(_)
            | Self::Receive(_)
            | Self::Image(_)
            | Self::Volume(_) => false,
        }
    }

    /// The source that a sealed image's text names, or `None` when it cannot be read again: it was an
    /// upload, or its text leaves out secrets. A registry's image is asked for by its digest.
    pub fn again(text: &str, manifest_digest: &str) -> Option<Self> {
        if let Some(path) = text.strip_prefix("file:") {
            return Some(Self::File(path.into()));
        }
        if let Some(rest) = text.strip_prefix("docker://") {
            let (reference, platform) = rest.strip_suffix(')')?.split_once(" (")?;
            let reference: Reference = reference.parse().ok()?;
            if manifest_digest.is_empty() {
                return None;
            }
            let (registry, repository) = (reference.registry(), reference.repository());
            let pinned = format!("{registry}/{repository}@{manifest_digest}");
            return Some(Self::Registry {
                reference: pinned.parse().ok()?,
                platform: platform.parse().ok()?,
                credentials: None,
            });
        }
        let (url, _) = text.split_once(" (#")?;
        let source = Self::Url(url.parse().ok()?);
        // Another fingerprint: the text leaves a query out, without which it is another thing.
        (source.text() == text).then_some(source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_read_again_is() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let again =
            Source::again("docker://docker.io/rancher/vm:v1 (linux/amd64)", &digest).unwrap();
        assert_eq!(
            again.text(),
            format!("docker://docker.io/rancher/vm@{digest} (linux/amd64)")
        );
        let whole = Source::Url("https://example.com/disk.qcow2".parse().unwrap());
        assert_eq!(
            Source::again(&whole.text(), "").unwrap().text(),
            whole.text()
        );
        let secret = Source::Url("https://example.com/disk?token=x".parse().unwrap());
        for text in [
            &secret.text(),
            "upload",
            "",
            "docker://x (linux/amd64)",
            "docker://",
            "https://x",
        ] {
            assert!(Source::again(text, "").is_none(), "{text}");
        }
    }
}
