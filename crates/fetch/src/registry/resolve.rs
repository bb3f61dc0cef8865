//! From a reference to one image: index, manifest and config, each verified.

use std::sync::Arc;

use image::oci::{
    Config, DOCKER_INDEX, DOCKER_MANIFEST, Descriptor, Digest, Document, Error as ImageError,
    MANIFEST_LIMIT, Manifest, OCI_INDEX, OCI_MANIFEST,
};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

use super::Resolved;
use super::refusal::refused;
use super::session::Session;
use crate::answer::small_body;
use crate::network::Network;
use crate::retry::Retry;
use crate::{Error, Platform, Reference, Result};

/// An index may hold an index, and that is all.
const INDEX_DEPTH_MAX: usize = 2;
/// What the registry says the manifest hashes to; checked, never believed.
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// The types of manifests that we read, as a registry is told them.
pub(super) fn manifest_types() -> HeaderValue {
    let types = [OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST].join(", ");
    HeaderValue::from_str(&types).expect("media types are ASCII")
}

/// Asks each place in turn; the first that has the image is the first to be asked for its blobs.
pub(super) async fn resolve(
    network: &Network,
    reference: &Reference,
    platform: &Platform,
    mut sessions: Vec<Arc<Session>>,
) -> Result<Resolved> {
    let (mut at, mut before) = (0, Vec::new());
    loop {
        match resolve_at(network, reference, platform, &sessions[at]).await {
            Ok(image) => {
                sessions.rotate_left(at);
                return Ok(Resolved {
                    sessions: sessions.into(),
                    ..image
                });
            }
            Err(error) if at + 1 < sessions.len() => {
                let place = sessions[at].name();
                tracing::warn!(%reference, error = %types::report(&error), "{place}: asking the next place");
                before.push(types::report(&error).to_string());
                at += 1;
            }
            Err(error) => return Err(error.after(&reference.to_string(), before)),
        }
    }
}

async fn resolve_at(
    network: &Network,
    reference: &Reference,
    platform: &Platform,
    session: &Session,
) -> Result<Resolved> {
    let lookup = Lookup { network, session };
    let mut document = lookup
        .manifest(&reference.selector(), reference.digest(), None)
        .await?;
    let mut chosen = None;
    let mut depth = 0;
    let (manifest_digest, manifest) = loop {
        let (digest, index) = match document {
            (digest, Document::Manifest(manifest)) => break (digest, manifest),
            (digest, Document::Index(index)) => (digest, index),
        };
        depth += 1;
        let unusable = |source| lookup.unusable(&digest.to_string(), source);
        if depth > INDEX_DEPTH_MAX {
            return Err(unusable(ImageError::TooDeep {
                limit: INDEX_DEPTH_MAX,
            }));
        }
        let entry = index.choose(platform).map_err(unusable)?;
        if entry.size > MANIFEST_LIMIT {
            let (size, limit) = (entry.size, MANIFEST_LIMIT);
            return Err(unusable(ImageError::TooLarge {
                what: "manifest",
                size,
                limit,
            }));
        }
        chosen.clone_from(&entry.platform);
        document = lookup
            .manifest(&entry.digest.to_string(), Some(&entry.digest), Some(entry))
            .await?;
    };
    let layers = lookup.layers(&manifest_digest, &manifest).await?;
    Ok(Resolved {
        reference: reference.pinned(manifest_digest.clone()),
        manifest_digest,
        platform: chosen,
        layers,
        sessions: Arc::new([]),
    })
}

struct Lookup<'a> {
    network: &'a Network,
    session: &'a Session,
}

impl Lookup<'_> {
    fn unusable(&self, selector: &str, source: ImageError) -> Error {
        Error::Document {
            what: self.what(selector),
            source,
        }
    }

    fn what(&self, selector: &str) -> String {
        let separator = if selector.contains(':') { '@' } else { ':' };
        format!("{}{separator}{selector}", self.session.name())
    }

    /// Gets and verifies the document behind a tag or digest. `entry` is what an index said of it.
    async fn manifest(
        &self,
        selector: &str,
        expected: Option<&Digest>,
        entry: Option<&Descriptor>,
    ) -> Result<(Digest, Document)> {
        let what = self.what(selector);
        let headers = HeaderMap::from_iter([(ACCEPT, manifest_types())]);
        let (headers, bytes) = self
            .small(&what, &format!("manifests/{selector}"), headers)
            .await?;
        let digest = match expected {
            Some(expected) => verified(&what, expected, &bytes)?,
            None => Digest::of(&bytes),
        };
        let text = |name| {
            headers
                .get(name)
                .and_then(|value: &HeaderValue| value.to_str().ok())
        };
        // A registry that contradicts itself was tampered with on the way, or is broken.
        if let Some(said) = text(CONTENT_DIGEST).and_then(|said| said.parse::<Digest>().ok()) {
            verified(&what, &said, &bytes)?;
        }
        let unusable = |source| Error::Document {
            what: what.clone(),
            source,
        };
        let declared = text(CONTENT_TYPE).unwrap_or_default();
        let document = Document::parse(&bytes, declared).map_err(unusable)?;
        if let Some(entry) = entry {
            if entry.size != bytes.len() as u64 {
                let (expected, actual) = (entry.size, bytes.len() as u64);
                return Err(Error::Size {
                    what,
                    expected,
                    actual,
                });
            }
            // The index names the type too, and must mean the same.
            Document::parse(&bytes, &entry.media_type).map_err(unusable)?;
        }
        Ok((digest, document))
    }

    async fn layers(&self, digest: &Digest, manifest: &Manifest) -> Result<Vec<super::Layer>> {
        let unusable = |source| self.unusable(&digest.to_string(), source);
        let config = &manifest.config;
        if !manifest.has_image_config() {
            return manifest.layers_with(None).map_err(unusable);
        }
        let what = self.what(&config.digest.to_string());
        let (_, bytes) = self
            .small(&what, &format!("blobs/{}", config.digest), HeaderMap::new())
            .await?;
        verified(&what, &config.digest, &bytes)?;
        let config = Config::parse(&bytes).map_err(unusable)?;
        manifest.layers_with(Some(&config)).map_err(unusable)
    }

    /// A small document, tried until it comes.
    async fn small(
        &self,
        what: &str,
        rest: &str,
        headers: HeaderMap,
    ) -> Result<(HeaderMap, Vec<u8>)> {
        let mut retry = Retry::new(self.network.tuning());
        loop {
            match self.small_once(what, rest, headers.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => retry.after(what, error).await?,
            }
        }
    }

    async fn small_once(
        &self,
        what: &str,
        rest: &str,
        headers: HeaderMap,
    ) -> Result<(HeaderMap, Vec<u8>)> {
        let response = self.session.get(what, rest, headers).await?;
        if response.status().as_u16() != 200 {
            return Err(refused(what, response, self.network.tuning()).await);
        }
        let headers = response.headers().clone();
        let stall = self.network.tuning().stall_timeout;
        Ok((
            headers,
            small_body(what, response, MANIFEST_LIMIT, stall).await?,
        ))
    }
}

fn verified(what: &str, expected: &Digest, bytes: &[u8]) -> Result<Digest> {
    let mut hasher = expected.hasher();
    hasher.update(bytes);
    let actual = hasher.finish();
    if actual == *expected {
        return Ok(actual);
    }
    Err(Error::DigestMismatch {
        what: what.to_owned(),
        expected: expected.clone(),
        actual,
    })
}
