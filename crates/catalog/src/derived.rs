//! Names that are derived: all who ask for the same source without a name share one image.

use fetch::Platform;
use ring::digest::{SHA256, digest};
use types::ImageName;

use crate::source::Source;

/// The name of an image from this source when none is requested; `None`: one must be.
pub(super) fn name_of(source: &Source) -> Option<ImageName> {
    match source {
        Source::Registry {
            reference,
            platform,
            ..
        } => Some(derived_name(&reference.to_string(), platform)),
        _ => None,
    }
}

/// The end of a name that is derived from a text: 8 digits of its SHA-256.
pub fn short_hash(text: &str) -> String {
    let hash = digest(&SHA256, text.as_bytes());
    let head = hash
        .as_ref()
        .first_chunk::<4>()
        .expect("a SHA-256 has 32 bytes");
    format!("{:08x}", u32::from_be_bytes(*head))
}

fn derived_name(reference: &str, platform: &Platform) -> ImageName {
    let hash = short_hash(&format!("{reference} {platform}"));
    let last = reference.rsplit('/').next().unwrap_or(reference);
    let last = last.split('@').next().unwrap_or(last);
    let safe: String = last
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '.' {
                c
            } else {
                '-'
            }
        })
        .skip_while(|c| !c.is_ascii_alphanumeric())
        .take(60)
        .collect();
    let name = if safe.is_empty() {
        format!("image-{hash}")
    } else {
        format!("{safe}-{hash}")
    };
    ImageName::new(&name).expect("made of safe characters only")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_reference_gives_one_name_and_another_another() {
        let platform = Platform::host();
        let name = |reference| derived_name(reference, &platform).to_string();
        let first = name("docker.io/rancher/longhorn-test:baseimage-ext4");
        assert!(
            first.starts_with("longhorn-test-baseimage-ext4-"),
            "{first}"
        );
        assert_eq!(
            first,
            name("docker.io/rancher/longhorn-test:baseimage-ext4")
        );
        assert_ne!(first, name("quay.io/rancher/longhorn-test:baseimage-ext4"));
        let long = format!("host:5000/{}:{}", "a".repeat(200), "b".repeat(128));
        assert!(name(&long).len() < 80);
    }
}
