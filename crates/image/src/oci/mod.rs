//! Container images as documents and files: digests, manifests, layouts and archives.
//!
//! Owns the OCI vocabulary ([`Digest`], [`Platform`], [`Document`]), which the network side shares,
//! and the readers ([`Package`]) and writers ([`write`]) of images on a disk. It must not know the
//! network or the content of layers: that is [`crate::layer`].
//!
//! Documents are untrusted: each is limited in size, verified with the digest that named it, and
//! rejected if its media type and its content disagree (CVE-2021-41190).

mod document;
mod error;
mod lenient;
mod package;
mod platform;
mod store;
pub mod write;

pub use crate::digest::{Algorithm, Digest, Hasher, InvalidDigest};
pub use crate::layer::Packing;
pub use document::{
    Config, DOCKER_INDEX, DOCKER_MANIFEST, Descriptor, Document, Index, LayerDescriptor,
    MANIFEST_LIMIT, Manifest, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST,
};
pub use error::Error;
pub use package::{Package, Selected, StoredLayer};
pub use platform::{InvalidPlatform, Platform};
pub use store::open_beneath;
