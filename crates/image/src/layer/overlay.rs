//! The visible contents of a directory in stacked layers, determined from the top down.

use std::collections::{BTreeMap, BTreeSet};

use super::Directory;
use super::tar::Kind;

/// The most names that are remembered of one directory: an image of ours holds one.
const NAMES_MAX: usize = 4096;

/// What an entry of a layer means for one of the two directories.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Nothing to it, or nothing any more: it is hidden.
    None,
    /// The directory itself is something else.
    NotDirectory(Kind),
    /// A visible thing directly in the directory.
    Item(Vec<u8>, Kind),
}

/// One of the two directories.
#[derive(Debug)]
pub(super) struct Overlay {
    directory: Directory,
    /// Layers above hide everything below.
    masked: bool,
    /// A layer above has the directory, so that something else of this name below is hidden.
    is_directory: bool,
    /// Names that layers above define or white out.
    hidden: BTreeSet<Vec<u8>>,
    /// What this layer does to those below it.
    layer: Layer,
    /// What is visible so far.
    items: BTreeMap<Vec<u8>, Kind>,
    too_many: bool,
}

#[derive(Debug, Default)]
struct Layer {
    masks: bool,
    is_directory: bool,
    names: BTreeSet<Vec<u8>>,
}

impl Overlay {
    pub(super) fn new(directory: Directory) -> Self {
        Self {
            directory,
            masked: false,
            is_directory: false,
            hidden: BTreeSet::new(),
            layer: Layer::default(),
            items: BTreeMap::new(),
            too_many: false,
        }
    }

    /// Takes an entry by the parts of its path.
    pub(super) fn take(&mut self, parts: &[&[u8]], kind: Kind) -> Meaning {
        let own = self.directory.name().as_bytes();
        match parts {
            // Whiteouts say something of the layers below alone (OCI image specification, "layer").
            [first] if *first == OPAQUE || first.strip_prefix(WHITEOUT) == Some(own) => {
                self.layer.masks = true;
                Meaning::None
            }
            [first] if *first == own => self.take_directory(kind),
            [first, OPAQUE] if *first == own => {
                self.layer.masks = true;
                self.layer.is_directory = true;
                Meaning::None
            }
            // What macOS leaves beside a file, in every archive that it makes.
            [first, name, ..]
                if *first == own && (name.starts_with(b"._") || *name == b".DS_Store") =>
            {
                self.layer.is_directory = true;
                Meaning::None
            }
            [first, name, rest @ ..] if *first == own => {
                self.layer.is_directory = true;
                match name.strip_prefix(WHITEOUT) {
                    Some(name) if rest.is_empty() => {
                        self.remember(name);
                        Meaning::None
                    }
                    _ => self.take_item(
                        name,
                        if rest.is_empty() {
                            kind
                        } else {
                            Kind::Directory
                        },
                    ),
                }
            }
            _ => Meaning::None,
        }
    }

    fn take_directory(&mut self, kind: Kind) -> Meaning {
        if kind == Kind::Directory {
            self.layer.is_directory = true;
            return Meaning::None;
        }
        self.layer.masks = true;
        let hidden = self.masked || self.is_directory;
        if hidden {
            Meaning::None
        } else {
            Meaning::NotDirectory(kind)
        }
    }

    fn take_item(&mut self, name: &[u8], kind: Kind) -> Meaning {
        self.remember(name);
        if self.masked || self.hidden.contains(name) {
            return Meaning::None;
        }
        if self.items.len() < NAMES_MAX {
            self.items.insert(name.to_vec(), kind);
        }
        Meaning::Item(name.to_vec(), kind)
    }

    fn remember(&mut self, name: &[u8]) {
        if self.layer.names.len() + self.hidden.len() < NAMES_MAX {
            self.layer.names.insert(name.to_vec());
        } else {
            self.too_many = true;
        }
    }

    /// The layer is at its end: what it hides is hidden from here on.
    pub(super) fn end_layer(&mut self) {
        let layer = std::mem::take(&mut self.layer);
        self.masked |= layer.masks;
        self.is_directory |= layer.is_directory;
        self.hidden.extend(layer.names);
    }

    /// Whether layers below can no longer show anything here.
    pub(super) const fn is_masked(&self) -> bool {
        self.masked
    }

    /// More names than are kept: what is hidden can no longer be told.
    pub(super) const fn has_too_many(&self) -> bool {
        self.too_many
    }

    /// The visible names and what they are.
    pub(super) const fn items(&self) -> &BTreeMap<Vec<u8>, Kind> {
        &self.items
    }
}

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

#[cfg(test)]
mod tests {
    use super::*;

    /// Layers from the top down, entries as text; gives the visible names.
    fn visible(layers: &[&[&str]]) -> Vec<String> {
        let mut overlay = Overlay::new(Directory::BaseImage);
        for layer in layers {
            for path in *layer {
                let kind = if path.ends_with('/') {
                    Kind::Directory
                } else {
                    Kind::File
                };
                let parts: Vec<_> = path
                    .split('/')
                    .filter(|p| !p.is_empty())
                    .map(str::as_bytes)
                    .collect();
                overlay.take(&parts, kind);
            }
            overlay.end_layer();
        }
        overlay
            .items()
            .keys()
            .map(|name| String::from_utf8(name.clone()).unwrap())
            .collect()
    }

    #[test]
    fn row_19_layers_hide_what_is_below_them() {
        for (layers, expected) in [
            (
                &[&["base_image/", "base_image/a"][..], &["base_image/a"]][..],
                &["a"][..],
            ),
            (&[&["base_image/b"], &["base_image/a"]], &["a", "b"]),
            (
                &[&["base_image/.wh.a", "base_image/b"], &["base_image/a"]],
                &["b"],
            ),
            (&[&["base_image/.wh.a"], &["base_image/a"]], &[]),
            // A whiteout says nothing of its own layer, wherever in it it stands.
            (&[&["base_image/.wh.a", "base_image/a"]], &["a"]),
            (
                &[&["base_image/a", "base_image/.wh.a"], &["base_image/a"]],
                &["a"],
            ),
            (
                &[
                    &["base_image/b", "base_image/.wh..wh..opq"],
                    &["base_image/a"],
                ],
                &["b"],
            ),
            (&[&[".wh.base_image"], &["base_image/a"]], &[]),
            (
                &[&[".wh.base_image", "base_image/b"], &["base_image/a"]],
                &["b"],
            ),
            (&[&[".wh..wh..opq"], &["base_image/a"]], &[]),
            (&[&["etc/x"], &[".wh.base_image"], &["base_image/a"]], &[]),
            // The directory was replaced by a file, and that by a directory again.
            (
                &[&["base_image/b"], &["base_image"], &["base_image/a"]],
                &["b"],
            ),
            (&[&["base_image/a/b/c"]], &["a"]),
            (
                &[&["base_image/._a", "base_image/.DS_Store", "base_image/a"]],
                &["a"],
            ),
            (&[&["base_imag/a", "x/base_image/a", "base_image2/a"]], &[]),
        ] {
            assert_eq!(visible(layers), expected, "{layers:?}");
        }
    }
}
