//! The registry protocol (OCI distribution specification 1.1, Docker registry API v2).
//!
//! A pull has two steps: [`Client::resolve`] resolves a reference to one image manifest and pins it
//! by digest; [`Client::blob`] streams a layer of it. A tag is resolved only once: if it moves
//! later, the pull continues with the digest.
//!
//! Trust: every manifest, config and blob is named by a digest and refused when it does not hash to
//! it. Credentials go to the registry's own host over TLS, to its token server by the rules of
//! `token.rs`, and nowhere else. `urls` in a descriptor (foreign layers) are never followed
//! (CVE-2020-15157).

mod blob;
mod caller;
mod challenge;
mod push;
mod refusal;
mod resolve;
mod session;
mod token;
mod upload;

use std::sync::Arc;

use image::oci::{Digest, LayerDescriptor};

pub use blob::Blob;
pub use caller::Caller;
pub use push::Pusher;

use self::session::{Access, Session, Sessions};
use crate::{Credentials, Network, Platform, Reference, Result};

#[derive(Debug, Clone)]
pub struct Client {
    network: Network,
}

/// A layer of a resolved image.
pub type Layer = LayerDescriptor;

/// An image that a reference led to, pinned.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The image by the digest of its manifest: it names these bytes for ever.
    pub reference: Reference,
    /// Of the image's own manifest, not of an index around it.
    pub manifest_digest: Digest,
    /// What it was chosen for, when there was a choice.
    pub platform: Option<Platform>,
    pub layers: Vec<Layer>,
    /// Where it can be had: the place that answered first, then the others.
    sessions: Sessions,
}

impl Resolved {
    /// Bytes of all layers, as they travel.
    pub fn packed_size(&self) -> u64 {
        self.layers
            .iter()
            .fold(0, |sum, layer| sum.saturating_add(layer.size))
    }
}

impl Client {
    /// A client that connects through `network`.
    pub fn new(network: Network) -> Self {
        Self { network }
    }

    /// Follows `reference` to one image, for `platform` where there is a choice. Mirrors are asked
    /// first, in order; when all fail, what each of them says is reported.
    pub async fn resolve(
        &self,
        reference: &Reference,
        platform: &Platform,
        credentials: &Credentials,
    ) -> Result<Resolved> {
        let sessions = self.sessions(reference, credentials, Access::Pull);
        resolve::resolve(&self.network, reference, platform, sessions).await
    }

    /// The bytes of a layer, as they are packed. Nothing is sent before the first read.
    ///
    /// `pass` counts from 0: how often the layer was read before and came damaged
    /// ([`crate::Error::passes`]); another place is then asked first if there is one.
    pub fn blob(&self, image: &Resolved, layer: &Layer, pass: u32) -> Blob {
        Blob::new(&self.network, image, layer, pass)
    }

    /// Prepares to push to the repository of `reference`; mirrors are not pushed to.
    pub fn pusher(&self, reference: &Reference, credentials: &Credentials) -> Pusher {
        let sessions = self.sessions(reference, credentials, Access::Push);
        let session = sessions
            .last()
            .expect("a reference has at least its own registry");
        Pusher::new(&self.network, Arc::clone(session), reference.clone())
    }

    fn sessions(
        &self,
        reference: &Reference,
        credentials: &Credentials,
        access: Access,
    ) -> Vec<Arc<Session>> {
        let endpoints = self.network.config().endpoints(reference).into_iter();
        let session =
            |endpoint| Arc::new(Session::new(&self.network, endpoint, credentials, access));
        endpoints.map(session).collect()
    }
}
