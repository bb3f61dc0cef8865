//! A URL that may be fetched.

use std::fmt;
use std::str::FromStr;

use ::url::Url;
use reqwest::header::HeaderValue;

use super::Options;
use crate::network::shown;
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
    options: Options,
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
        let authorization = authorization_of(&url);
        // These cannot fail on a URL with a host.
        let _ = url.set_username("").and_then(|()| url.set_password(None));
        url.set_fragment(None);
        let options = Options::default();
        Ok(Self {
            url,
            authorization,
            options,
        })
    }
}

fn authorization_of(url: &Url) -> Option<HeaderValue> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let plain = |text: &str| percent_decoded(text);
    let text = format!(
        "{}:{}",
        plain(url.username()),
        plain(url.password().unwrap_or_default())
    );
    basic(&text)
}

/// `Authorization: Basic` for `user:password`.
pub(super) fn basic(user_and_password: &str) -> Option<HeaderValue> {
    let encoded = base64::Engine::encode(
        &base64::engine::general_purpose::STANDARD,
        user_and_password,
    );
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
    /// The same URL, fetched as `options` say. Credentials are in one place: the URL or the options.
    pub fn with(mut self, options: Options) -> Result<Self> {
        if self.authorization.is_some() && options.authorization().is_some() {
            return Err(Error::Option {
                option: "username",
                why: "the URL has credentials of its own; give them once",
            });
        }
        self.options = options;
        Ok(self)
    }

    pub(super) const fn url(&self) -> &Url {
        &self.url
    }

    pub(super) const fn options(&self) -> &Options {
        &self.options
    }

    pub(super) fn authorization(&self) -> Option<HeaderValue> {
        self.authorization
            .clone()
            .or_else(|| self.options.authorization())
    }

    /// The last part of the URL's path: what a person would call the file.
    pub fn file_name(&self) -> &str {
        self.url.path().rsplit('/').next().unwrap_or_default()
    }

    /// A few digits that tell this URL from another one that is shown alike: a hash of all of it but
    /// the user and password, and of what `besides` the URL makes another image of it.
    pub fn fingerprint(&self, besides: &str) -> String {
        let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
        hash.update(self.url.as_str().as_bytes());
        hash.update(besides.as_bytes());
        let hash = hash.finish();
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
