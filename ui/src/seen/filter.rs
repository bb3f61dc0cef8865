//! What of a list is shown: the filter and the page, as they are in the URL.

use super::{Seen, SeenImage, SeenVolume, image_state, volume_state};

/// Rows on a page.
pub const PER_PAGE: usize = 50;
/// Characters of a text that is filtered by; what is longer is cut.
const TEXT_MAX: usize = 256;

/// The filter of a list. Empty fields filter nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Part of a name.
    pub q: String,
    /// Part of the name of an image, or of a volume in the list of snapshots.
    pub image: String,
    /// A node.
    pub node: String,
    /// A state.
    pub state: String,
    /// From 1 on.
    pub page: String,
}

/// One page of a list.
#[derive(Debug)]
pub struct Page<T> {
    /// Its rows.
    pub rows: Vec<T>,
    /// Which it is, from 1 on, and of how many.
    pub number: usize,
    /// At least 1.
    pub pages: usize,
    /// How many rows pass the filter,
    pub found: usize,
    /// and how many there are.
    pub all: usize,
}

impl Filter {
    /// The filter in the query of a URL. What it does not know is nothing.
    pub fn parse(query: &str) -> Self {
        let mut filter = Self::default();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let field = match &*name {
                "q" => &mut filter.q,
                "image" => &mut filter.image,
                "node" => &mut filter.node,
                "state" => &mut filter.state,
                "page" => &mut filter.page,
                _ => continue,
            };
            *field = value.trim().chars().take(TEXT_MAX).collect();
        }
        filter
    }

    /// Whether it filters at all.
    pub fn is_empty(&self) -> bool {
        let texts = [&self.q, &self.image, &self.node, &self.state];
        texts.into_iter().all(String::is_empty)
    }

    /// The query of a URL that shows this page of it: empty, or with its question mark.
    pub fn query(&self, page: usize) -> String {
        let page = if page > 1 {
            page.to_string()
        } else {
            String::new()
        };
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        let fields = [
            ("q", &self.q),
            ("image", &self.image),
            ("node", &self.node),
            ("state", &self.state),
            ("page", &page),
        ];
        for (name, value) in fields {
            if !value.is_empty() {
                query.append_pair(name, value);
            }
        }
        let query = query.finish();
        match query.as_str() {
            "" => query,
            _ => format!("?{query}"),
        }
    }

    /// The volumes that pass.
    pub fn volumes<'a>(&self, seen: &'a Seen) -> Page<SeenVolume<'a>> {
        self.page(seen.volumes(), |one| {
            let volume = one.volume;
            holds(&volume.name, &self.q)
                && holds(&volume.image_name, &self.image)
                && (self.node.is_empty()
                    || one.disk.node_id == self.node
                    || volume.published.iter().any(|on| on.node_id == self.node))
                && (self.state.is_empty() || volume_state(one).1 == self.state)
        })
    }

    /// The images that pass and are no snapshots.
    pub fn images<'a>(&self, seen: &'a Seen) -> Page<SeenImage<'a>> {
        let mut images = seen.images();
        images.retain(|image| !image.is_snapshot());
        self.page(images, |one| {
            let best = one.best();
            (holds(&best.name, &self.q) || holds(&best.source, &self.q))
                && (self.node.is_empty()
                    || one.copies.iter().any(|(disk, _)| disk.node_id == self.node))
                && (self.state.is_empty()
                    || one
                        .copies
                        .iter()
                        .any(|(_, copy)| image_state(copy).1 == self.state))
        })
    }

    /// The snapshots that pass.
    pub fn snapshots<'a>(&self, seen: &'a Seen) -> Page<SeenImage<'a>> {
        let mut images = seen.images();
        images.retain(SeenImage::is_snapshot);
        self.page(images, |one| {
            let best = one.best();
            holds(&best.name, &self.q) && holds(&best.source_volume, &self.image)
        })
    }

    /// The page of these that pass.
    pub fn page<T>(&self, all: Vec<T>, passes: impl Fn(&T) -> bool) -> Page<T> {
        let count = all.len();
        let found: Vec<T> = all.into_iter().filter(|one| passes(one)).collect();
        let pages = found.len().div_ceil(PER_PAGE).max(1);
        let number = self.page.parse().unwrap_or(1).clamp(1, pages);
        let total = found.len();
        let skipped = (number - 1) * PER_PAGE;
        Page {
            rows: found.into_iter().skip(skipped).take(PER_PAGE).collect(),
            number,
            pages,
            found: total,
            all: count,
        }
    }
}

/// Whether a text holds another, letter case not counted.
fn holds(text: &str, part: &str) -> bool {
    part.is_empty() || text.to_lowercase().contains(&part.to_lowercase())
}
