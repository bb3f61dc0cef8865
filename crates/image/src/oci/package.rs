//! An image in an OCI layout, in an OCI archive or in the output of `docker save`.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::Deserialize;

use super::lenient::{Entry, or_none, readable};
use super::store::{Section, Store};
use super::{
    Config, Descriptor, Digest, Document, Error, Hasher, Index, MANIFEST_LIMIT, Manifest,
    OCI_INDEX, Packing, Platform,
};
use crate::layer::Input;

/// An index may hold an index, and that is all.
const INDEX_DEPTH_MAX: usize = 2;
/// The name of an image in an index (OCI image specification, "annotations").
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The full name, as containerd and `docker save` write it.
const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// Container images in a directory or in an archive.
#[derive(Debug)]
pub struct Package {
    store: Store,
    /// `manifest.json` of `docker save`, where there is no OCI layout.
    docker: bool,
}

/// An image that was chosen.
#[derive(Debug, Clone)]
pub struct Selected {
    /// Of its manifest; of its config (Docker's image id) in what `docker save` wrote, which has no
    /// manifest.
    pub digest: Digest,
    pub layers: Vec<StoredLayer>,
}

/// A layer that lies in a package.
#[derive(Debug, Clone)]
pub struct StoredLayer {
    /// Its file inside the package.
    pub name: String,
    /// How its tar is packed, as far as that is told.
    pub packing: Packing,
    /// Names its bytes; `docker save` does not tell it.
    pub digest: Option<Digest>,
    /// Its length in bytes, where it is told.
    pub size: Option<u64>,
    /// Names its unpacked tar.
    pub diff_id: Option<Digest>,
    /// Whether it may be a disk image itself.
    pub bare: bool,
}

/// An entry of `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default, deserialize_with = "or_none")]
    layers: Vec<String>,
}

impl Package {
    /// Takes an opened directory as an OCI layout; `path` is what messages call it.
    pub fn layout(directory: File, path: &Path) -> Result<Self, Error> {
        let store = Store::directory(directory, path)?;
        check_layout(&store)?;
        Ok(Self {
            store,
            docker: false,
        })
    }

    /// Takes an opened tar file as an OCI archive or as what `docker save` writes; `path` is what
    /// messages call it. It must be seekable, and not be compressed as a whole.
    pub fn archive(file: File, path: &Path) -> Result<Self, Error> {
        let store = Store::archive(file, path)?;
        let docker = !store.has("oci-layout") && store.has("manifest.json");
        if !docker {
            check_layout(&store)?;
        }
        Ok(Self { store, docker })
    }

    /// Chooses an image: by its name or digest where there are several, then by its platform.
    pub fn select(&self, reference: Option<&str>, platform: &Platform) -> Result<Selected, Error> {
        if self.docker {
            return self.select_docker(reference);
        }
        let bytes = self.store.read("index.json", "index")?;
        let Document::Index(index) = Document::parse(&bytes, OCI_INDEX)? else {
            return Err(self.missing("index in index.json"));
        };
        let named = self.named(&index, reference)?;
        let mut entry = match named.entries.as_slice() {
            [only] => only.clone(),
            _ if reference.is_none() && named.entries.iter().any(|e| e.platform.is_none()) => {
                return Err(self.no_such("", &index));
            }
            _ => named.choose(platform)?.clone(),
        };
        for _ in 0..=INDEX_DEPTH_MAX {
            let bytes = self.document(&entry, "manifest")?;
            entry = match Document::parse(&bytes, &entry.media_type)? {
                Document::Index(index) => index.choose(platform)?.clone(),
                Document::Manifest(manifest) => return self.selected(entry.digest, &manifest),
            };
        }
        Err(Error::TooDeep {
            limit: INDEX_DEPTH_MAX,
        })
    }

    /// The layers for [`crate::layer::find`], from the top down. What is read is verified against
    /// the digests that name it.
    pub fn inputs(&self, image: &Selected) -> Result<Vec<Input>, Error> {
        image
            .layers
            .iter()
            .rev()
            .map(|layer| self.input(layer))
            .collect()
    }

    fn input(&self, layer: &StoredLayer) -> Result<Input, Error> {
        let section = self.store.open(&layer.name)?;
        if let (Some(expected), Some(digest)) = (layer.size, &layer.digest)
            && expected != section.left
        {
            let (digest, actual) = (digest.clone(), section.left);
            return Err(Error::SizeMismatch {
                digest,
                expected,
                actual,
            });
        }
        let hasher = layer
            .digest
            .as_ref()
            .map(|digest| (digest.hasher(), digest.clone()));
        let reader = Box::new(Verified { section, hasher });
        let (packing, digest, diff_id) =
            (layer.packing, layer.digest.clone(), layer.diff_id.clone());
        let name = digest
            .as_ref()
            .map_or_else(|| layer.name.clone(), Digest::to_string);
        Ok(Input {
            name,
            packing,
            digest,
            diff_id,
            bare: layer.bare,
            reader,
        })
    }

    /// The entries of an index that a reference names.
    fn named(&self, index: &Index, reference: Option<&str>) -> Result<Index, Error> {
        let is_image = |e: &&Descriptor| !e.platform.as_ref().is_some_and(Platform::is_unknown);
        let images = index.entries.iter().filter(is_image);
        let entries: Vec<Descriptor> = match reference {
            None => images.cloned().collect(),
            Some(wanted) => {
                let names = spellings(wanted);
                let matches = |entry: &&Descriptor| {
                    let named = [REF_NAME, CONTAINERD_NAME]
                        .iter()
                        .filter_map(|k| entry.annotations.get(*k));
                    named.into_iter().any(|name| names.contains(name))
                        || entry.digest.to_string() == wanted
                };
                images.filter(matches).cloned().collect()
            }
        };
        if entries.is_empty() {
            Err(self.no_such(reference.unwrap_or(""), index))
        } else {
            Ok(Index { entries })
        }
    }

    fn selected(&self, digest: Digest, manifest: &Manifest) -> Result<Selected, Error> {
        let config = if manifest.has_image_config() {
            Some(Config::parse(&self.document(&manifest.config, "config")?)?)
        } else {
            None
        };
        let layers = manifest
            .layers_with(config.as_ref())?
            .into_iter()
            .map(|layer| StoredLayer {
                name: blob_name(&layer.digest),
                packing: layer.packing,
                size: Some(layer.size),
                diff_id: layer.diff_id,
                digest: Some(layer.digest),
                bare: layer.bare,
            });
        Ok(Selected {
            digest,
            layers: layers.collect(),
        })
    }

    /// A document of the layout, verified.
    fn document(&self, entry: &Descriptor, what: &'static str) -> Result<Vec<u8>, Error> {
        if entry.size > MANIFEST_LIMIT {
            return Err(Error::TooLarge {
                what,
                size: entry.size,
                limit: MANIFEST_LIMIT,
            });
        }
        let bytes = self.store.read(&blob_name(&entry.digest), what)?;
        let expected = entry.digest.clone();
        if bytes.len() as u64 != entry.size {
            let actual = bytes.len() as u64;
            return Err(Error::SizeMismatch {
                digest: expected,
                expected: entry.size,
                actual,
            });
        }
        let mut hasher = expected.hasher();
        hasher.update(&bytes);
        let actual = hasher.finish();
        if actual == expected {
            Ok(bytes)
        } else {
            Err(Error::DigestMismatch { expected, actual })
        }
    }

    fn select_docker(&self, reference: Option<&str>) -> Result<Selected, Error> {
        let bytes = self.store.read("manifest.json", "manifest.json")?;
        let json = |source| Error::Json {
            what: "manifest.json",
            source,
        };
        let images: Vec<Entry<DockerImage>> = serde_json::from_slice(&bytes).map_err(json)?;
        let images = readable(images);
        let tags = |image: &DockerImage| image.repo_tags.clone().unwrap_or_default();
        let fits = |image: &&DockerImage| match reference {
            None => images.len() == 1,
            Some(wanted) => spellings(wanted)
                .iter()
                .any(|name| tags(image).contains(name)),
        };
        let Some(image) = images.iter().find(fits) else {
            let names: Vec<String> = images.iter().flat_map(tags).take(16).collect();
            return Err(self.no_such_of(reference.unwrap_or(""), &names));
        };
        let bytes = self.store.read(&image.config, "config")?;
        let digest = Digest::of(&bytes);
        // The name of the file is the digest of its content, and old and new writers agree on it.
        let stem = image
            .config
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .trim_end_matches(".json");
        if let Ok(expected) = format!("sha256:{stem}").parse::<Digest>()
            && expected != digest
        {
            return Err(Error::DigestMismatch {
                expected,
                actual: digest,
            });
        }
        let config = Config::parse(&bytes)?;
        let (layers, diff_ids) = (image.layers.len(), config.diff_ids.len());
        if layers != diff_ids {
            return Err(Error::LayerCount { layers, diff_ids });
        }
        let layers = image
            .layers
            .iter()
            .zip(config.diff_ids)
            .map(|(name, diff_id)| StoredLayer {
                name: name.clone(),
                packing: Packing::Unknown,
                digest: None,
                size: None,
                diff_id: Some(diff_id),
                bare: false,
            });
        Ok(Selected {
            digest,
            layers: layers.collect(),
        })
    }

    fn missing(&self, part: &str) -> Error {
        Error::Missing {
            path: self.store.path.clone(),
            part: part.to_owned(),
        }
    }

    fn no_such(&self, wanted: &str, index: &Index) -> Error {
        let name = |e: &Descriptor| {
            let name = e
                .annotations
                .get(CONTAINERD_NAME)
                .or_else(|| e.annotations.get(REF_NAME));
            name.cloned().unwrap_or_else(|| e.digest.to_string())
        };
        self.no_such_of(
            wanted,
            &index.entries.iter().take(16).map(name).collect::<Vec<_>>(),
        )
    }

    fn no_such_of(&self, wanted: &str, names: &[String]) -> Error {
        let available = if names.is_empty() {
            "no named image".to_owned()
        } else {
            names.join(", ")
        };
        let available = available.chars().take(512).collect();
        Error::NoSuchImage {
            wanted: wanted.to_owned(),
            path: self.store.path.clone(),
            available,
        }
    }
}

/// Whether it is a layout of the version that there is.
fn check_layout(store: &Store) -> Result<(), Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Layout {
        image_layout_version: String,
    }
    let bytes = store.read("oci-layout", "oci-layout file")?;
    let json = |source| Error::Json {
        what: "oci-layout file",
        source,
    };
    let layout: Layout = serde_json::from_slice(&bytes).map_err(json)?;
    if layout.image_layout_version.starts_with("1.") {
        return Ok(());
    }
    Err(Error::Unsupported {
        media_type: "an OCI layout of another version than 1".to_owned(),
    })
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

/// The ways in which tools write one name: with and without Docker's defaults.
fn spellings(name: &str) -> Vec<String> {
    let short = name.strip_prefix("docker.io/").unwrap_or(name);
    let short = short.strip_prefix("library/").unwrap_or(short);
    let mut all: Vec<String> = ["", "docker.io/", "docker.io/library/"]
        .map(|p| format!("{p}{short}"))
        .into();
    all.push(name.to_owned());
    if !short.rsplit('/').next().unwrap_or_default().contains(':') {
        all.extend(all.clone().into_iter().map(|name| format!("{name}:latest")));
    }
    all
}

/// Hashes what is read and compares at the end.
struct Verified {
    section: Section,
    hasher: Option<(Hasher, Digest)>,
}

impl Read for Verified {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.section.read(buf)?;
        if n > 0 || buf.is_empty() {
            if let Some((hasher, _)) = &mut self.hasher {
                hasher.update(&buf[..n]);
            }
            return Ok(n);
        }
        if let Some((hasher, expected)) = self.hasher.take() {
            let actual = hasher.finish();
            if actual != expected {
                let error = Error::DigestMismatch { expected, actual };
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        }
        Ok(0)
    }
}
