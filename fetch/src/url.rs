//! Downloads from http and https URLs.
//!
//! Nothing vouches for such bytes but a checksum that the caller may have. So a transfer that breaks
//! is resumed only when the server proves, by the same strong `ETag` or the same `Last-Modified`, that
//! it still is the same thing; else it says [`Error::Changed`] and the caller starts from the first
//! byte. Two versions are never spliced.

use std::fmt;
use std::str::FromStr;

use ::url::Url;
use bytes::Bytes;
use futures_util::{Stream, stream};
use reqwest::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, HeaderName,
    HeaderValue, IF_RANGE, LAST_MODIFIED, RANGE,
};
use reqwest::{Response, StatusCode};

use crate::network::{Get, Network, next_chunk, shown, status_error};
use crate::range::ContentRange;
use crate::retry::Retry;
use crate::tls::Trust;
use crate::{Error, Result};

/// The most characters of a URL.
const LENGTH_MAX: usize = 8192;

/// A URL that may be fetched: http or https, with a host. Its text is shown without user, password
/// and query.
#[derive(Clone, PartialEq, Eq)]
pub struct Source {
    /// Without user and password.
    url: Url,
    authorization: Option<HeaderValue>,
}

impl FromStr for Source {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = |url: &str, why| {
            Err(Error::Url {
                url: url.to_owned(),
                why,
            })
        };
        if text.len() > LENGTH_MAX {
            return refuse("", "it has more than 8192 characters");
        }
        let Ok(mut url) = Url::parse(text) else {
            return refuse(
                "",
                "it is not a URL; write for example https://example.com/disk.qcow2",
            );
        };
        if !matches!(url.scheme(), "http" | "https") {
            return refuse(
                &format!("{}:…", url.scheme()),
                "only http and https are fetched",
            );
        }
        // `http:host` and `http:///host` are read as `http://host` by browsers, and by nobody else.
        let rest = text.trim().get(url.scheme().len()..).unwrap_or_default();
        let has_host = rest
            .strip_prefix("://")
            .is_some_and(|rest| !rest.starts_with(['/', '\\', '?', '#']));
        if !has_host || url.host_str().is_none_or(str::is_empty) {
            return refuse(&format!("{}:…", url.scheme()), "it names no host");
        }
        let authorization = authorization(&url);
        // These cannot fail on a URL with a host.
        let _ = url.set_username("").and_then(|()| url.set_password(None));
        url.set_fragment(None);
        Ok(Self { url, authorization })
    }
}

fn authorization(url: &Url) -> Option<HeaderValue> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let plain = |text: &str| percent_decoded(text);
    let text = format!(
        "{}:{}",
        plain(url.username()),
        plain(url.password().unwrap_or_default())
    );
    let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text);
    let mut value = HeaderValue::from_str(&format!("Basic {encoded}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Undoes the percent encoding of a URL's user or password.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..2).filter(|_| *first == b'%');
        let code = code.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        if let Some(byte) = code {
            bytes.push(byte);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Source {
    /// A few digits that tell this URL from another one that is shown alike: a hash of all of it but
    /// the user and password.
    pub fn fingerprint(&self) -> String {
        let hash = ring::digest::digest(&ring::digest::SHA256, self.url.as_str().as_bytes());
        let head = hash
            .as_ref()
            .first_chunk::<4>()
            .expect("a SHA-256 has 32 bytes");
        format!("{:08x}", u32::from_be_bytes(*head))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.url))
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({self})")
    }
}

/// A download under way.
#[derive(Debug)]
pub struct Download {
    network: Network,
    source: Source,
    name: String,
    limit: u64,
    size: Option<u64>,
    content_type: Option<String>,
    validator: Option<Validator>,
    offset: u64,
    response: Option<Response>,
    /// Bytes at the start of the response that we have already.
    skip: u64,
    ended: bool,
    retry: Retry,
}

/// What tells one version of a thing from another.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Validator {
    header: HeaderName,
    value: HeaderValue,
}

impl Validator {
    /// A strong `ETag`, else a date.
    fn of(headers: &HeaderMap) -> Option<Self> {
        let strong = headers
            .get(ETAG)
            .filter(|value| value.as_bytes().starts_with(b"\""));
        let tag = strong.map(|value| Self {
            header: ETAG,
            value: value.clone(),
        });
        let date = headers.get(LAST_MODIFIED);
        tag.or_else(|| {
            date.map(|value| Self {
                header: LAST_MODIFIED,
                value: value.clone(),
            })
        })
    }
}

impl Download {
    /// Connects and reads the head of the answer. More than `limit` bytes are refused, at once where
    /// the server announces them.
    pub async fn start(network: &Network, source: &Source, limit: u64) -> Result<Self> {
        let mut download = Self {
            retry: Retry::new(network.tuning()),
            network: network.clone(),
            source: source.clone(),
            name: source.to_string(),
            limit,
            size: None,
            content_type: None,
            validator: None,
            offset: 0,
            response: None,
            skip: 0,
            ended: false,
        };
        loop {
            match download.connect().await {
                Ok(()) => return Ok(download),
                Err(error) => download.retry.after(&download.name, error).await?,
            }
        }
    }

    /// How many bytes the server announced.
    pub const fn size(&self) -> Option<u64> {
        self.size
    }

    /// What the server calls it: an HTML page here is a login page rather than a disk.
    pub fn content_type(&self) -> Option<&str> {
        self.content_type.as_deref()
    }

    /// Whether the server says that this is a page for people.
    pub fn is_html(&self) -> bool {
        let html = |t: &str| t.starts_with("text/html") || t.starts_with("application/xhtml");
        self.content_type()
            .is_some_and(|t| html(&t.to_ascii_lowercase()))
    }

    /// The next bytes; `None` after the last one, when as many came as were announced.
    ///
    /// A call that is dropped loses nothing.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        while !self.ended {
            match self.next().await {
                Ok(Some(bytes)) if bytes.is_empty() => {}
                Ok(Some(bytes)) => return Ok(Some(bytes)),
                Ok(None) => self.ended = true,
                Err(error) => {
                    self.response = None;
                    self.retry.after(&self.name, error).await?;
                }
            }
        }
        Ok(None)
    }

    /// All chunks, for [`crate::BlockingReader`] and other consumers of streams.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
        stream::try_unfold(self, async |mut download| {
            Ok(download.chunk().await?.map(|chunk| (chunk, download)))
        })
    }

    async fn next(&mut self) -> Result<Option<Bytes>> {
        if self.response.is_none() {
            self.connect().await?;
        }
        let stall = self.network.tuning().stall_timeout;
        let Some(response) = &mut self.response else {
            return Ok(None);
        };
        let Some(mut chunk) = next_chunk(&self.name, response, self.offset, stall).await? else {
            return match self.size {
                Some(size) if self.offset < size => {
                    let (what, received) = (self.name.clone(), self.offset);
                    Err(Error::Interrupted {
                        what,
                        received,
                        source: None,
                    })
                }
                _ => Ok(None),
            };
        };
        let skipped = self.skip.min(chunk.len() as u64);
        self.skip -= skipped;
        let chunk = chunk.split_off(usize::try_from(skipped).expect("not more than the chunk has"));
        let end = self.offset + chunk.len() as u64;
        if end > self.limit {
            return Err(self.too_large());
        }
        if let Some(size) = self.size
            && end > size
        {
            return Err(Error::Size {
                what: self.name.clone(),
                expected: size,
                actual: end,
            });
        }
        if !chunk.is_empty() {
            self.offset = end;
            self.retry.progressed();
        }
        Ok(Some(chunk))
    }

    /// The first request, or one for the rest.
    async fn connect(&mut self) -> Result<()> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if self.offset > 0 {
            let Some(validator) = &self.validator else {
                return Err(
                    self.changed("the server gives neither an ETag nor a date to tell versions by")
                );
            };
            let last = self
                .size
                .map(|size| (size - 1).to_string())
                .unwrap_or_default();
            let range = format!("bytes={}-{last}", self.offset);
            headers.insert(
                RANGE,
                HeaderValue::from_str(&range).expect("digits are ASCII"),
            );
            headers.insert(IF_RANGE, validator.value.clone());
        }
        let trust = self
            .network
            .config()
            .trust_of(&crate::network::authority(&self.source.url));
        let trust = trust.cloned().unwrap_or_else(Trust::default);
        let (url, authorization) = (self.source.url.clone(), self.source.authorization.clone());
        let get = Get {
            what: &self.name,
            url,
            headers,
            authorization,
            trust: &trust,
        };
        let response = self.network.get(get).await?;
        self.accept(response)
    }

    fn accept(&mut self, response: Response) -> Result<()> {
        let status = response.status();
        if status == StatusCode::UNAUTHORIZED {
            let why = "the server wants a user and a password".to_owned();
            return Err(Error::Unauthenticated {
                what: self.name.clone(),
                why,
            });
        }
        if self.offset > 0 && status == StatusCode::RANGE_NOT_SATISFIABLE {
            return Err(self.changed("the server no longer has that many bytes"));
        }
        if !matches!(status, StatusCode::OK | StatusCode::PARTIAL_CONTENT) {
            return Err(status_error(&self.name, &response));
        }
        let encoding = response.headers().get(CONTENT_ENCODING);
        if encoding.is_some_and(|e| !e.as_bytes().eq_ignore_ascii_case(b"identity")) {
            let why = "it is compressed (Content-Encoding) though that was not asked for";
            return Err(Error::Answer {
                what: self.name.clone(),
                why,
            });
        }
        if self.offset > 0 {
            self.accept_rest(response)
        } else {
            self.accept_first(response)
        }
    }

    fn accept_first(&mut self, response: Response) -> Result<()> {
        if response.status() != StatusCode::OK {
            let why = "a part came where the whole was asked for";
            return Err(Error::Answer {
                what: self.name.clone(),
                why,
            });
        }
        let headers = response.headers();
        let content_type = headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok());
        self.content_type = content_type.map(|text| text.chars().take(128).collect());
        self.validator = Validator::of(headers);
        self.size = response.content_length();
        if self.size.is_some_and(|size| size > self.limit) {
            return Err(self.too_large());
        }
        self.skip = 0;
        self.response = Some(response);
        Ok(())
    }

    fn accept_rest(&mut self, response: Response) -> Result<()> {
        let headers = response.headers();
        let same = Validator::of(headers);
        let same_version = same == self.validator;
        if response.status() == StatusCode::OK {
            // The whole again: usable only when it is provably the same bytes.
            let strong = same.is_some_and(|validator| validator.header == ETAG);
            if !(same_version && strong && response.content_length() == self.size) {
                return Err(
                    self.changed("the server sends the whole again, and not provably the same")
                );
            }
            self.skip = self.offset;
            self.response = Some(response);
            return Ok(());
        }
        // A 206 may leave its validator out (RFC 9110 section 15.3.7), but not give another.
        if !same_version && Validator::of(headers).is_some() {
            return Err(self.changed("its ETag or date is another one now"));
        }
        let range = headers.get(CONTENT_RANGE).and_then(ContentRange::parse);
        let Some(range) = range.filter(|range| range.fits(self.offset, self.size)) else {
            return Err(self.changed("another range came than was asked for"));
        };
        self.size = self.size.or(range.total);
        self.skip = 0;
        self.response = Some(response);
        Ok(())
    }

    fn changed(&self, why: &'static str) -> Error {
        Error::Changed {
            what: self.name.clone(),
            received: self.offset,
            why,
        }
    }

    fn too_large(&self) -> Error {
        Error::TooLarge {
            what: self.name.clone(),
            limit: self.limit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_22_only_http_and_https_with_a_host_are_taken() {
        for text in [
            "file:///etc/passwd",
            "gopher://x/",
            "httpsinvalid://x/",
            "https://",
            "http:",
            "http:///x",
            "x",
            "",
            "//x/y",
            "ftp://x/y",
            "data:,x",
            "http:x",
            "https:/x",
            "unix:/run/x",
            "http://?x",
            "http://#x",
        ] {
            let error = text.parse::<Source>().expect_err(text);
            assert!(matches!(error, Error::Url { .. }), "{text}: {error}");
        }
        for text in [
            "http://x/y",
            "https://x.example:8443/y?z",
            "http://[2001:db8::1]/y",
        ] {
            assert!(text.parse::<Source>().is_ok(), "{text} was refused");
        }
    }

    #[test]
    fn row_09_a_url_is_shown_without_its_secrets() {
        let source: Source =
            "https://us%40er:hunter2@x.example:8443/d.img?X-Signature=hunter2#hunter2"
                .parse()
                .unwrap();
        assert_eq!(source.to_string(), "https://x.example:8443/d.img?…");
        assert!(!format!("{source:?}").contains("hunter2"));
        assert_eq!(source.authorization.unwrap(), "Basic dXNAZXI6aHVudGVyMg==");
        let error = "ssh://u:hunter2@x/".parse::<Source>().unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
}
