//! Bytes from the network: OCI registries and URLs, with bounded trust in them.
//!
//! Owns the whole way from a reference or a URL that somebody typed to a stream of bytes: addresses
//! that may be connected to, TLS, credentials and tokens, redirects, retries and resumption, and the
//! digests of what a registry sends. It must not know where the bytes go, nor what is in a layer.
//!
//! Everything that the other side says is hostile until a digest vouches for it: sizes are bounded
//! before they are believed, bodies of errors are never read into a message, and secrets go only
//! where [`Config`] and the rules of [`registry`] let them.

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
