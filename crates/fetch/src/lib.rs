//! Bytes from the network: OCI registries and URLs, with bounded trust in them.
//!
//! Owns the way from a reference or a URL to a stream of bytes: permitted addresses, TLS,
//! credentials and tokens, redirects, retries and resumption, and the digests of a registry's data.
//! It must not know the destination of the bytes or the content of a layer.
//!
//! All input is hostile until a digest covers it: sizes are limited before they are trusted, bodies
//! of errors never become part of a message, and secrets go only where [`Config`] and the rules of
//! [`registry`] permit.

mod address;
mod answer;
mod config;
mod credentials;
mod error;
mod network;
mod proxy;
mod range;
mod reader;
mod reference;
pub mod registry;
mod retry;
mod tls;
pub mod url;

pub use address::AddressPolicy;
pub use config::Config;
pub use credentials::Credentials;
pub use error::{Error, Result};
pub use image::oci::{Digest, Platform};
pub use network::{Network, Tuning};
pub use proxy::Proxies;
pub use reader::BlockingReader;
pub use reference::Reference;
