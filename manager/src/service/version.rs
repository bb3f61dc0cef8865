//! The versions of lists: whoever has a list is not sent it again.
//!
//! A version is a hash of the encoded answer, so that nothing has to be kept track of: it is the same for as long as
//! the list is, whichever process answers.

use std::collections::{BTreeMap, HashMap};

use prost::Message;
use proto::storage::v1 as pb;
use ring::digest::{Context, SHA256};

/// An answer that is a list with a version.
pub(super) trait Listed: Default {
    fn set(&mut self, version: u64, unchanged: bool);
    /// Adds all that the list says, in an order that is always the same.
    fn hash(&self, into: &mut Context);
}

impl Listed for pb::ListBackingImagesResponse {
    fn set(&mut self, version: u64, unchanged: bool) {
        (self.version, self.unchanged) = (version, unchanged);
    }

    fn hash(&self, into: &mut Context) {
        into.update(&self.encode_to_vec());
    }
}

impl Listed for pb::ListVolumesResponse {
    fn set(&mut self, version: u64, unchanged: bool) {
        (self.version, self.unchanged) = (version, unchanged);
    }

    /// The parameters of a volume come in another order each time.
    fn hash(&self, into: &mut Context) {
        for volume in &self.volumes {
            let parameters: BTreeMap<_, _> = volume.parameters.iter().collect();
            for text in parameters.into_iter().flat_map(|(key, value)| [key, value]) {
                into.update(&text.len().to_be_bytes());
                into.update(text.as_bytes());
            }
            let volume = pb::Volume {
                parameters: HashMap::default(),
                ..volume.clone()
            };
            into.update(&volume.encode_length_delimited_to_vec());
        }
        into.update(&[u8::from(self.more)]);
    }
}

/// The list with its version, or only that when it is the one that is known (0: none).
pub(super) fn since<L: Listed>(mut list: L, known: u64) -> L {
    let mut hash = Context::new(&SHA256);
    list.hash(&mut hash);
    let head = hash.finish().as_ref().first_chunk().copied();
    // 0 is no version.
    let version = u64::from_be_bytes(head.unwrap_or_default()).max(1);
    if version == known {
        let mut unchanged = L::default();
        unchanged.set(version, true);
        return unchanged;
    }
    list.set(version, false);
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_one_version_until_it_changes() {
        let list = |processed_size| pb::ListBackingImagesResponse {
            backing_images: vec![pb::BackingImage {
                name: "img".into(),
                processed_size,
                ..Default::default()
            }],
            ..Default::default()
        };
        let first = since(list(1), 0);
        assert!(first.version != 0 && !first.unchanged);
        assert_eq!(first.backing_images.len(), 1);
        let again = since(list(1), first.version);
        assert_eq!((again.version, again.unchanged), (first.version, true));
        assert!(again.backing_images.is_empty());
        let later = since(list(2), first.version);
        assert!(later.version != first.version && !later.unchanged);
        let volumes = || pb::ListVolumesResponse {
            volumes: vec![pb::Volume {
                parameters: (0..50).map(|n| (n.to_string(), "x".to_owned())).collect(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let first = since(volumes(), 0);
        assert!(since(volumes(), first.version).unchanged);
        let empty = since(pb::ListVolumesResponse::default(), 0);
        assert_ne!(empty.version, 0);
    }
}
