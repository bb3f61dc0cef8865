//! What an image from a source would be, and whether it is here: looked at, and nothing is made.

use image::Format;
use image::beginning::Partition;
use store::Content;
use types::ImageName;

use super::request::name_of;
use super::{Catalog, Lifecycle};
use crate::error::Result;
use crate::source::{Looked, Source};

/// What is known of a source without its bytes.
#[derive(Debug, Clone)]
pub struct Look {
    /// The name that an image from it gets unless one is requested.
    pub name: Option<ImageName>,
    /// The reference in full, the URL without secrets, or the path.
    pub source: String,
    /// Of the container image's manifest; empty: it is none.
    pub manifest_digest: String,
    /// Of a container image, as far as there was a choice.
    pub platform: String,
    /// `None`: not known.
    pub format: Option<Format>,
    /// Bytes of the disk image; 0: not known.
    pub size: u64,
    /// Bytes of the disk that a guest sees; 0: not known.
    pub virtual_size: u64,
    /// Bytes that are to be transferred; 0: not known.
    pub transfer_size: u64,
    /// What the disk holds, if its beginning shows it.
    pub content: Option<Content>,
    pub partitions: Vec<Partition>,
    /// The state of the image here that has the name and is from there.
    pub state: Option<Lifecycle>,
    /// What is unusual, or not known and why; for people.
    pub notes: Vec<String>,
}

impl Catalog {
    /// Looks at a source. Dropping the future ends the look.
    ///
    /// # Errors
    /// Those of making an image from it, as far as its beginning shows them.
    pub async fn inspect(&self, source: &Source) -> Result<Look> {
        let Looked {
            shown,
            manifest_digest,
            platform,
            size,
            transfer_size,
            beginning,
            mut notes,
        } = self.inner.sources.look(source).await?;
        let name = name_of(source);
        let state = name.as_ref().and_then(|name| self.state_of(name, source));
        let mut look = Look {
            name,
            source: shown,
            manifest_digest,
            platform,
            format: None,
            size,
            virtual_size: 0,
            transfer_size,
            content: None,
            partitions: Vec::new(),
            state,
            notes: Vec::new(),
        };
        if let Some(beginning) = beginning {
            look.format = Some(beginning.format);
            look.virtual_size = beginning.virtual_size;
            look.content = beginning.content.map(Content::from);
            look.partitions = beginning.partitions;
            notes.extend(beginning.notes);
        }
        let refused = look.content.as_ref().map(|content| content.refused.clone());
        notes.extend(refused.filter(|why| !why.is_empty()));
        look.notes = notes;
        Ok(look)
    }

    fn state_of(&self, name: &ImageName, source: &Source) -> Option<Lifecycle> {
        let status = self.get(name, None).ok()?;
        (status.provenance == source.provenance()).then_some(status.state)
    }
}
