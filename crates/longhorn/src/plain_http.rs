//! The HTTP client for other processes of the same cluster: no TLS, no proxy, no redirects.

use std::sync::Arc;

use reqwest::{ClientBuilder, redirect};
use rustls::crypto::ring::default_provider;
use rustls::{ClientConfig, RootCertStore};

/// A client that speaks with the host it is told and nobody else.
pub fn client() -> ClientBuilder {
    // reqwest wants to know how to do TLS, though it is never asked to.
    let tls = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has the default versions of TLS")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .http1_only()
        .redirect(redirect::Policy::none())
}
