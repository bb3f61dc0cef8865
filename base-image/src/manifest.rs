//! The documents of the container image: its config and its manifest, as bytes that follow from the
//! layer alone.

use image::oci::{Digest, OCI_CONFIG, OCI_MANIFEST, Platform};
use serde_json::{Value, json};

use super::layer::Layer;

/// When every base image was made: a real time would give every build another digest.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// A container image with one layer.
#[derive(Debug)]
pub(super) struct ContainerImage {
    pub(super) config: Vec<u8>,
    pub(super) manifest: Vec<u8>,
    pub(super) layer: Layer,
}

impl ContainerImage {
    /// Describes an image that holds `layer`.
    pub(super) fn new(layer: Layer, platform: &Platform) -> Self {
        let config = config(&layer, platform).to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {
                "mediaType": OCI_CONFIG,
                "digest": Digest::of(&config).to_string(),
                "size": config.len(),
            },
            "layers": [{
                "mediaType": layer.compression.media_type(),
                "digest": layer.digest.to_string(),
                "size": layer.size,
            }],
        });
        Self {
            manifest: manifest.to_string().into_bytes(),
            config,
            layer,
        }
    }

    /// The digest that names the image for ever.
    pub(super) fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }

    /// The digest of the config: Docker's image id.
    pub(super) fn config_digest(&self) -> Digest {
        Digest::of(&self.config)
    }
}

fn config(layer: &Layer, platform: &Platform) -> Value {
    let mut config = json!({
        "created": CREATED,
        "os": platform.os(),
        "architecture": platform.architecture(),
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": [layer.diff_id.to_string()] },
        "history": [{ "created": CREATED, "created_by": "base-image build" }],
    });
    if let Some(variant) = platform.variant() {
        config["variant"] = variant.into();
    }
    config
}
