//! Images by the name of their directory or work file, which is how Longhorn names them; and forgetting
//! them without touching their files.

use tracing::info;
use types::ImageId;

use super::Catalog;
use super::status::count;

impl Catalog {
    /// Whether the chunk manifest of an image is there: what Longhorn's manager sealed has none until it
    /// was read.
    pub fn has_manifest(&self, id: &ImageId) -> bool {
        self.inner.store.paths(id).chunks.exists()
    }

    /// The image whose directory or work file has this name.
    pub fn by_name(&self, name: &str) -> Option<ImageId> {
        let images = self.images();
        images.keys().find(|id| is_named(id, name)).cloned()
    }

    /// Ends the work on an image and forgets it; its files stay as they are. Fine when there is none.
    pub async fn forget(&self, id: &ImageId) {
        let Ok(entry) = self.entry(&id.name, Some(&id.uuid)) else {
            return;
        };
        entry.cancel().cancel();
        entry.tasks.close();
        entry.tasks.wait().await;
        if self.is_current(&entry) {
            self.images().remove(id);
            count(&self.inner.changes);
            info!(image = %id, "forgotten; its files stay");
        }
    }
}

/// Whether `name` is the name of the image's directory or work file.
fn is_named(id: &ImageId, name: &str) -> bool {
    name.strip_prefix(id.name.as_str())
        .and_then(|rest| rest.strip_prefix('-'))
        == Some(id.uuid.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_that_of_one_image_however_it_is_split() {
        for (name, uuid) in [("a", "b-c"), ("a-b", "c")] {
            assert!(is_named(&ImageId::new(name, uuid).unwrap(), "a-b-c"));
        }
        for other in ["a-b", "a-b-c-d", "ab-c", "", "-"] {
            assert!(!is_named(&ImageId::new("a-b", "c").unwrap(), other));
        }
    }
}
