//! Indexes, manifests and configs of container images: bounded, and of one shape only.
//!
//! The required fields are parsed strictly (a duplicate field is rejected). Other fields are
//! ignored, and so are index entries that cannot be selected. Three sources determine the type of a
//! document, and those that are present must agree: the announced media type, the media type
//! inside, and the fields.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::lenient::{Entry, or_none, readable, texts};
use super::{Digest, Error, Platform};
use crate::layer::Packing;

/// The most bytes of an index, a manifest or a config: what registries themselves accept (OCI
/// distribution specification 1.1, "manifests": 4 MiB).
pub const MANIFEST_LIMIT: u64 = 4 << 20;
/// Docker stops at 127 layers; the manifest's size allows far more.
const LAYERS_MAX: usize = 512;
const INDEX_ENTRIES_MAX: usize = 1024;

/// Media type of an OCI index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of an OCI manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an OCI config.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Media type of Docker's index.
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Media type of Docker's manifest, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// What media types of disk images begin with, as KubeVirt has them: `…qcow2`, `…raw+gzip`.
const DISK_TYPES: &str = "application/vnd.kubevirt.disk.";
/// Media type of a blob that stands for none.
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// Media type of Docker's config.
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// What names a piece of content.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    #[serde(default, deserialize_with = "or_none")]
    pub media_type: String,
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// For an entry of an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// For people and tools, such as the name of an image in a layout.
    #[serde(
        default,
        deserialize_with = "texts",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
}

/// A layer of an image, the digest of its unpacked tar included where the config tells it.
#[derive(Debug, Clone)]
pub struct LayerDescriptor {
    /// Names the packed bytes.
    pub digest: Digest,
    /// Length of the packed bytes.
    pub size: u64,
    /// As in the manifest.
    pub media_type: String,
    /// What the media type says.
    pub packing: Packing,
    /// Names the unpacked tar; images without a config have none.
    pub diff_id: Option<Digest>,
    /// Whether it may be a disk image itself, and no tar that holds one: the blob of an artifact.
    pub bare: bool,
}

/// A document that a reference may lead to.
#[derive(Debug, Clone)]
pub enum Document {
    /// A choice of images.
    Index(Index),
    Manifest(Manifest),
}

/// A choice of images, by platform or by name.
#[derive(Debug, Clone)]
pub struct Index {
    /// Those that can be read, in the order of the document.
    pub entries: Vec<Descriptor>,
}

/// One image: its config and layers, lowest first.
#[derive(Debug, Clone)]
pub struct Manifest {
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
}

/// Every field that tells an index from a manifest, so that a document with both is seen.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: Option<u32>,
    media_type: Option<String>,
    manifests: Option<Vec<Entry<Descriptor>>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    fs_layers: Option<serde::de::IgnoredAny>,
}

/// An index of which no entry can be read: read so, it says why.
#[derive(Deserialize)]
struct Strict {
    #[serde(rename = "manifests")]
    _manifests: Vec<Descriptor>,
}

impl Document {
    /// Reads a document that was announced as `declared`; an empty or generic type (`text/plain`,
    /// `application/json`) leaves it to the document's own `mediaType`.
    pub fn parse(bytes: &[u8], declared: &str) -> Result<Self, Error> {
        let size = bytes.len() as u64;
        if size > MANIFEST_LIMIT {
            return Err(Error::TooLarge {
                what: "manifest",
                size,
                limit: MANIFEST_LIMIT,
            });
        }
        let json = |source| Error::Json {
            what: "manifest",
            source,
        };
        let raw: Raw = serde_json::from_slice(bytes).map_err(json)?;
        let media_type = agreed_type(declared, raw.media_type.as_deref())?;
        if raw.fs_layers.is_some() || raw.schema_version.is_some_and(|version| version != 2) {
            return Err(Error::Unsupported {
                media_type: "a manifest of schema 1".to_owned(),
            });
        }
        let mismatch = |found: &str| Error::MediaType {
            what: "manifest",
            declared: media_type.clone(),
            found: found.to_owned(),
        };
        match (media_type.as_str(), raw.manifests, raw.config, raw.layers) {
            (_, Some(_), Some(_), _) | (_, Some(_), _, Some(_)) => Err(Error::TwoFaced),
            (OCI_INDEX | DOCKER_INDEX, Some(entries), None, None) => {
                bounded("manifests", entries.len(), INDEX_ENTRIES_MAX)?;
                let is_empty = entries.is_empty();
                let entries = readable(entries);
                if entries.is_empty() && !is_empty {
                    serde_json::from_slice::<Strict>(bytes).map_err(json)?;
                }
                Ok(Self::Index(Index { entries }))
            }
            (OCI_MANIFEST | DOCKER_MANIFEST, None, Some(config), Some(layers)) => {
                bounded("layers", layers.len(), LAYERS_MAX)?;
                Ok(Self::Manifest(Manifest { config, layers }))
            }
            (_, Some(_), None, None) => Err(mismatch("an index")),
            (OCI_INDEX | DOCKER_INDEX, ..) => Err(mismatch("not an index")),
            _ => Err(mismatch("not a manifest with config and layers")),
        }
    }
}

/// The one media type that all who say one agree on.
fn agreed_type(declared: &str, own: Option<&str>) -> Result<String, Error> {
    let declared = declared.split(';').next().unwrap_or_default().trim();
    let known = [OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST];
    let generic = [
        "",
        "text/plain",
        "application/json",
        "application/octet-stream",
    ];
    let own = own.filter(|own| !own.is_empty());
    let cut = |text: &str| text.chars().take(128).collect::<String>();
    let media_type = match own {
        None => declared,
        Some(own) if generic.contains(&declared) || own == declared => own,
        Some(own) => {
            let (declared, found) = (cut(declared), cut(own));
            return Err(Error::MediaType {
                what: "manifest",
                declared,
                found,
            });
        }
    };
    if known.contains(&media_type) {
        Ok(media_type.to_owned())
    } else {
        Err(Error::Unsupported {
            media_type: cut(media_type),
        })
    }
}

fn bounded(what: &'static str, count: usize, limit: usize) -> Result<(), Error> {
    if count > limit {
        Err(Error::TooMany { what, count, limit })
    } else {
        Ok(())
    }
}

impl Index {
    /// The image for `wanted`: the first that names this platform, or the only image there is if
    /// that names none.
    pub fn choose(&self, wanted: &Platform) -> Result<&Descriptor, Error> {
        let is_image =
            |entry: &&Descriptor| !entry.platform.as_ref().is_some_and(Platform::is_unknown);
        let images: Vec<_> = self.entries.iter().filter(is_image).collect();
        let fits =
            |entry: &&&Descriptor| entry.platform.as_ref().is_some_and(|p| wanted.accepts(p));
        if let Some(entry) = images.iter().find(fits) {
            return Ok(entry);
        }
        match images.as_slice() {
            [only] if only.platform.is_none() => Ok(only),
            _ => {
                let mut names: Vec<String> = images
                    .iter()
                    .filter_map(|e| Some(e.platform.as_ref()?.to_string()))
                    .collect();
                names.truncate(16);
                let available = if names.is_empty() {
                    "no named platform".to_owned()
                } else {
                    names.join(", ")
                };
                Err(Error::NoPlatform {
                    wanted: Box::new(wanted.clone()),
                    available,
                })
            }
        }
    }
}

impl Manifest {
    /// Whether the config is an image's. Artifacts carry an empty one or one of their own, which tells
    /// no `diff_id`s.
    pub fn has_image_config(&self) -> bool {
        matches!(self.config.media_type.as_str(), OCI_CONFIG | DOCKER_CONFIG)
    }

    /// The layers, the lowest first, each with its `diff_id` from the config if there is one.
    pub fn layers_with(&self, config: Option<&Config>) -> Result<Vec<LayerDescriptor>, Error> {
        let diff_ids = config
            .map(|config| config.diff_ids.as_slice())
            .unwrap_or_default();
        if let Some(disk) = self.disk() {
            return Ok(vec![disk]);
        }
        if !diff_ids.is_empty() && diff_ids.len() != self.layers.len() {
            let (layers, diff_ids) = (self.layers.len(), diff_ids.len());
            return Err(Error::LayerCount { layers, diff_ids });
        }
        let layer = |(at, layer): (usize, &Descriptor)| {
            let unsupported = || Error::Unsupported {
                media_type: layer.media_type.clone(),
            };
            Ok(LayerDescriptor {
                digest: layer.digest.clone(),
                size: layer.size,
                packing: Packing::of_media_type(&layer.media_type).ok_or_else(unsupported)?,
                media_type: layer.media_type.clone(),
                diff_id: diff_ids.get(at).cloned(),
                bare: false,
            })
        };
        self.layers.iter().enumerate().map(layer).collect()
    }

    /// The blob that is a disk image, or may be one: the one that its media type calls so, or the only
    /// one of an artifact, which tools push as they find it, also as a layer that it is not.
    fn disk(&self) -> Option<LayerDescriptor> {
        let is_disk = |layer: &&Descriptor| layer.media_type.starts_with(DISK_TYPES);
        let mut disks = self.layers.iter().filter(is_disk);
        let disk = match (disks.next(), disks.next(), self.layers.as_slice()) {
            (Some(disk), None, _) => disk,
            (None, _, [only]) if !self.has_image_config() => only,
            _ => return None,
        };
        if disk.media_type == EMPTY || disk.media_type.ends_with("+encrypted") {
            return None;
        }
        let packing = Packing::of_media_type(&disk.media_type);
        Some(LayerDescriptor {
            digest: disk.digest.clone(),
            size: disk.size,
            media_type: disk.media_type.clone(),
            packing: packing
                .filter(|packing| *packing != Packing::Plain)
                .unwrap_or(Packing::Unknown),
            diff_id: None,
            bare: true,
        })
    }
}

/// What we read of an image's config.
#[derive(Debug, Clone)]
pub struct Config {
    /// Digests of the unpacked layers, the lowest first.
    pub diff_ids: Vec<Digest>,
}

impl Config {
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct RootFs {
            #[serde(default, deserialize_with = "or_none")]
            diff_ids: Vec<Digest>,
        }
        #[derive(Deserialize)]
        struct RawConfig {
            rootfs: Option<RootFs>,
        }
        let size = bytes.len() as u64;
        if size > MANIFEST_LIMIT {
            return Err(Error::TooLarge {
                what: "config",
                size,
                limit: MANIFEST_LIMIT,
            });
        }
        let json = |source| Error::Json {
            what: "config",
            source,
        };
        let raw: RawConfig = serde_json::from_slice(bytes).map_err(json)?;
        Ok(Self {
            diff_ids: raw.rootfs.map(|rootfs| rootfs.diff_ids).unwrap_or_default(),
        })
    }
}
