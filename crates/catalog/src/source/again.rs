//! Reads the source of a damaged image again: only if the source returns the same data twice, or
//! the checksum proves it.

use fetch::Reference;
use store::Provenance;

use super::{OriginKind, Source};

impl Source {
    /// Whether it can be asked again for the same bytes.
    pub fn can_be_repeated(&self) -> bool {
        match self {
            Self::Registry { .. }
            | Self::OciLayout(_)
            | Self::Archive(_)
            | Self::File(_)
            | Self::Url(_)
            | Self::Peers(_) => true,
            Self::Origin(origin) => {
                matches!(
                    origin.kind(),
                    OriginKind::Manager | OriginKind::Store { again: true }
                )
            }
            Self::Adopt { .. } | Self::Upload(_) | Self::Pieces(_) | Self::Volume(_) => false,
        }
    }

    /// The source of a sealed image, or `None` when it cannot be read again: it was an upload, or what
    /// is kept of it leaves out secrets. A registry's image is asked for by its digest.
    pub fn again(provenance: &Provenance, manifest_digest: &str) -> Option<Self> {
        match provenance {
            Provenance::File { path } => Some(Self::File(path.into())),
            Provenance::Registry {
                reference,
                platform,
            } => {
                let reference: Reference = reference.parse().ok()?;
                if manifest_digest.is_empty() {
                    return None;
                }
                let (registry, repository) = (reference.registry(), reference.repository());
                let pinned = format!("{registry}/{repository}@{manifest_digest}");
                Some(Self::Registry {
                    reference: pinned.parse().ok()?,
                    platform: platform.parse().ok()?,
                    credentials: None,
                })
            }
            Provenance::Url { url, .. } => {
                let source = Self::Url(url.parse().ok()?);
                // Another fingerprint: the URL had a query, without which it is another thing.
                (source.provenance() == *provenance).then_some(source)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_read_again_is() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let registry = |reference: &str| Provenance::Registry {
            reference: reference.into(),
            platform: "linux/amd64".into(),
        };
        let again = Source::again(&registry("docker.io/rancher/vm:v1"), &digest).unwrap();
        assert_eq!(
            again.provenance(),
            registry(&format!("docker.io/rancher/vm@{digest}"))
        );
        let whole = Source::Url("https://example.com/disk.qcow2".parse().unwrap()).provenance();
        assert_eq!(Source::again(&whole, "").unwrap().provenance(), whole);
        let secret = Source::Url("https://example.com/disk?token=x".parse().unwrap());
        for provenance in [
            secret.provenance(),
            Provenance::uploaded(""),
            Provenance::Unknown,
            registry("x"),
            registry(""),
        ] {
            assert!(Source::again(&provenance, "").is_none(), "{provenance}");
        }
    }
}
