//! HTTP to an object store, under our rules: TLS, proxies, time, and how much of an answer is read.
//!
//! The client of the object stores is given this in place of its own, so that nothing of the process's
//! environment counts, no answer is longer than expected, and none of an error's text that a server
//! writes gets into ours, but for its code.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{FutureExt, StreamExt};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
};
use reqwest::{Client, Method, NoProxy, StatusCode};
use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;

use crate::credentials::{HTTP_PROXY, HTTPS_PROXY, NO_PROXY, certificates};
use crate::{Credentials, Error, Result};

/// For TCP and TLS to be set up.
const CONNECT: Duration = Duration::from_secs(10);
/// For an answer to begin, besides the time that the request's bytes take; and between its pieces.
pub(super) const ANSWER: Duration = Duration::from_secs(45);
/// A slower way to the store than this is none.
pub(super) const BYTES_PER_SECOND: u64 = 64 << 10;
/// Most bytes of a page of a listing.
const PAGE_MAX: usize = 16 << 20;
/// Most bytes of an error that are looked at.
const ERROR_MAX: usize = 64 << 10;
/// What is never asked through a proxy: this machine, and where a cloud says who it is.
const DIRECT: &str = "localhost,127.0.0.0/8,::1,169.254.0.0/16,fd00:ec2::254";
const USER_AGENT: &str = concat!("backing-image-manager/", env!("CARGO_PKG_VERSION"));

/// Makes the one client of a store.
#[derive(Clone)]
pub(super) struct Connector(Client);

impl fmt::Debug for Connector {
    /// Without the client, which shows its proxies.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

impl Connector {
    /// `certificate` is the key of the credentials with more authorities.
    pub(super) fn new(credentials: &Credentials, certificate: &'static str) -> Result<Self> {
        let refused = |key: &str, why: String| Error::Credentials {
            key: key.to_owned(),
            why,
        };
        let builder = Client::builder()
            .tls_backend_preconfigured(tls(credentials, certificate)?)
            .http1_only()
            // The environment's: those of the credentials count.
            .no_proxy()
            .referer(false)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            .user_agent(USER_AGENT);
        let mut builder = builder;
        for key in [HTTP_PROXY, HTTPS_PROXY] {
            let Some(url) = credentials.get(key) else {
                continue;
            };
            let proxy = match key {
                HTTP_PROXY => reqwest::Proxy::http(url),
                _ => reqwest::Proxy::https(url),
            };
            let proxy = proxy.map_err(|_| refused(key, "it is no proxy".to_owned()))?;
            let direct = format!("{DIRECT},{}", credentials.get(NO_PROXY).unwrap_or_default());
            builder = builder.proxy(proxy.no_proxy(NoProxy::from_string(&direct)));
        }
        let client = builder
            .build()
            .map_err(|error| refused("TLS", types::report(&error).to_string()))?;
        Ok(Self(client))
    }
}

/// Trusts the system's authorities and those of the credentials.
fn tls(credentials: &Credentials, certificate: &'static str) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    // Some systems ship authorities that cannot be parsed; the others are still good.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let refused = |why: String| Error::Credentials {
        key: certificate.to_owned(),
        why,
    };
    let own = credentials.get(certificate);
    for own in own.map_or(Ok(Vec::new()), |pem| certificates(certificate, pem))? {
        roots.add(own).map_err(|error| refused(error.to_string()))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| refused(error.to_string()))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

type Called<'a> = Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'a>>;

impl HttpService for Connector {
    fn call<'a, 'b>(&'a self, request: HttpRequest) -> Called<'b>
    where
        'a: 'b,
        Self: 'b,
    {
        async move {
            let bytes = request.body().content_length() as u64;
            let patience = ANSWER + Duration::from_secs(bytes / BYTES_PER_SECOND);
            let is_get = request.method() == Method::GET;
            let query = request.uri().query().unwrap_or_default();
            let is_page = ["list-type=", "comp=list", "restype="];
            let is_page = is_page.iter().any(|word| query.contains(word));
            let answer = timeout(patience, self.0.call(request)).await;
            let answer = answer.map_err(|_| late(patience))?.map_err(failed)?;
            if !answer.status().is_success() {
                return Ok(refusal(answer).await);
            }
            if is_get && !is_page {
                return Ok(answer);
            }
            let (parts, body) = answer.into_parts();
            let body = read(body, PAGE_MAX).await?;
            Ok(HttpResponse::from_parts(parts, body.into()))
        }
        .boxed()
    }
}

/// An answer that says no, with a body of ours: what `super::failure` makes an error of.
async fn refusal(answer: HttpResponse) -> HttpResponse {
    let (mut parts, body) = answer.into_parts();
    let status = parts.status;
    let body = read(body, ERROR_MAX).await.unwrap_or_default();
    let said = Refusal {
        status: status.as_u16(),
        code: code(&body),
    };
    // These are answers, and would be asked for again; a redirect loses its body.
    let is_final = [
        StatusCode::NOT_IMPLEMENTED,
        StatusCode::INSUFFICIENT_STORAGE,
    ];
    let is_redirect = status.is_redirection() && status != StatusCode::NOT_MODIFIED;
    if is_final.contains(&status) || is_redirect {
        parts.status = StatusCode::BAD_REQUEST;
    }
    HttpResponse::from_parts(parts, said.to_text().into())
}

/// What a server has said when it refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    /// Its own word for it.
    pub(super) code: Option<String>,
}

impl Refusal {
    fn to_text(&self) -> String {
        format!("[[{} {}]]", self.status, self.code.as_deref().unwrap_or(""))
    }

    /// The one that the text of an error contains.
    pub(super) fn in_text(text: &str) -> Option<Self> {
        let (_, said) = text.rsplit_once("[[")?;
        let (status, code) = said.split_once("]]")?.0.split_once(' ')?;
        Some(Self {
            status: status.parse().ok()?,
            code: Some(code.to_owned()).filter(|code| !code.is_empty()),
        })
    }
}

/// The code in an error of S3 or Azure: one word, of letters and digits.
fn code(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let (_, code) = text.split_once("<Code>")?;
    let (code, _) = code.split_once("</Code>")?;
    let is_word = !code.is_empty()
        && code.len() <= 64
        && code.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_word.then(|| code.to_owned())
}

/// All of a body that must be short.
async fn read(
    body: object_store::client::HttpResponseBody,
    most: usize,
) -> Result<Bytes, HttpError> {
    let mut pieces = body.bytes_stream();
    let mut all = BytesMut::new();
    while let Some(piece) = timeout(ANSWER, pieces.next())
        .await
        .map_err(|_| late(ANSWER))?
    {
        let piece = piece?;
        if all.len() + piece.len() > most {
            let why = format!("the answer has more than {most} bytes");
            return Err(HttpError::new(HttpErrorKind::Decode, io::Error::other(why)));
        }
        all.extend_from_slice(&piece);
    }
    Ok(all.freeze())
}

fn late(after: Duration) -> HttpError {
    let why = format!("no answer for {} s", after.as_secs());
    HttpError::new(
        HttpErrorKind::Timeout,
        io::Error::new(io::ErrorKind::TimedOut, why),
    )
}

/// A failed exchange. One with somebody who is not trusted fails again.
fn failed(error: HttpError) -> HttpError {
    match untrusted(&error) {
        Some(why) => HttpError::new(HttpErrorKind::Unknown, io::Error::other(why)),
        None => error,
    }
}

/// Why the other side is not trusted, if that is it.
fn untrusted(error: &(dyn StdError + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        let inner = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        let tls = error.downcast_ref().or_else(|| inner?.downcast_ref());
        if let Some(rustls::Error::InvalidCertificate(why)) = tls {
            return Some(format!(
                "its certificate is not trusted ({why:?}); put the certificate of its authority into \
                 the target's Secret"
            ));
        }
        next = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_error_s_body_only_its_code_is_kept() {
        let body = b"<?xml?><Error><Code>AccessDenied</Code><Message>AKIAKEY</Message></Error>";
        let refusal = Refusal {
            status: 403,
            code: code(body),
        };
        assert_eq!(refusal.to_text(), "[[403 AccessDenied]]");
        let text = format!(
            "error at https://host/[[1 x]] - 403 Forbidden: {}",
            refusal.to_text()
        );
        assert_eq!(Refusal::in_text(&text), Some(refusal));
        for body in [
            "",
            "<Code></Code>",
            "<Code>two words</Code>",
            "<Code>[[9 x]]</Code>",
            "{\"a\":1}",
        ] {
            assert_eq!(code(body.as_bytes()), None, "{body}");
        }
        assert_eq!(Refusal::in_text("[[503 ]]").unwrap().code, None);
        assert_eq!(Refusal::in_text("nothing"), None);
    }
}
