//! Proxies: those of the environment, which the operator chose, and those of one download.

use std::fmt;
use std::str::FromStr;

use ::url::{Host, Url};
use reqwest::NoProxy;

use crate::address::authority;
use crate::{Error, Result};

/// Never asked through a proxy of the environment, as everywhere in this field.
const LOCAL: &str = "localhost,127.0.0.0/8,::1";

/// Which proxy a download goes through.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub(crate) enum Proxy {
    /// That of the environment, if this program heeds it.
    #[default]
    Environment,
    Direct,
    /// This one, with its user and password.
    Through(Url),
}

impl FromStr for Proxy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "direct" {
            return Ok(Self::Direct);
        }
        proxy_url(text).map(Self::Through).ok_or(Error::Option {
            option: "proxy",
            why: "it must be http://host:port, https://host:port or direct",
        })
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment => f.write_str("Environment"),
            Self::Direct => f.write_str("Direct"),
            Self::Through(url) => write!(f, "Through({})", authority(url)),
        }
    }
}

/// A proxy's URL; its scheme may be left out, as in environment variables.
fn proxy_url(text: &str) -> Option<Url> {
    let text = text.trim();
    let url = if text.contains("://") {
        Url::parse(text)
    } else {
        Url::parse(&format!("http://{text}"))
    };
    let url = url.ok()?;
    let usable = matches!(url.scheme(), "http" | "https") && url.host_str().is_some();
    usable.then_some(url)
}

/// The proxies of an environment: `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`, in capitals
/// or not.
#[derive(Clone, Default)]
pub struct Proxies {
    http: Option<Url>,
    https: Option<Url>,
    except: String,
}

impl Proxies {
    /// Those of this process's environment.
    pub fn of_environment() -> Self {
        Self::of(|name| std::env::var(name).ok())
    }

    fn of(variable: impl Fn(&str) -> Option<String>) -> Self {
        let either = |name: &str| {
            let given = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
            given(&name.to_lowercase()).or_else(|| given(name))
        };
        let proxy = |name| {
            let text = either(name).or_else(|| either("ALL_PROXY"))?;
            let url = proxy_url(&text);
            if url.is_none() {
                tracing::warn!("{name} names no http or https proxy: it is not used");
            }
            url
        };
        Self {
            http: proxy("HTTP_PROXY"),
            https: proxy("HTTPS_PROXY"),
            except: either("NO_PROXY").unwrap_or_default(),
        }
    }

    /// Whether there are any.
    pub const fn is_empty(&self) -> bool {
        self.http.is_none() && self.https.is_none()
    }

    /// The names of their hosts: they may have addresses that nothing else may have.
    pub(crate) fn hosts(&self) -> Vec<String> {
        let urls = self.http.iter().chain(&self.https);
        urls.filter_map(|url| match url.host()? {
            Host::Domain(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        })
        .collect()
    }

    /// For the HTTP client.
    pub(crate) fn rules(&self) -> reqwest::Result<Vec<reqwest::Proxy>> {
        let except = || NoProxy::from_string(&format!("{LOCAL},{}", self.except));
        let http = self.http.iter().cloned().map(reqwest::Proxy::http);
        let https = self.https.iter().cloned().map(reqwest::Proxy::https);
        http.chain(https)
            .map(|proxy| Ok(proxy?.no_proxy(except())))
            .collect()
    }
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |url: &Option<Url>| url.as_ref().map(authority).unwrap_or_default();
        f.debug_struct("Proxies")
            .field("http", &shown(&self.http))
            .field("https", &shown(&self.https))
            .field("except", &self.except)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Proxies {
        Proxies::of(|name| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_environment_is_read_as_elsewhere() {
        assert!(of(&[]).is_empty());
        assert!(of(&[("HTTP_PROXY", "")]).is_empty());
        assert!(of(&[("HTTP_PROXY", "socks5://x:1")]).is_empty());
        let some = of(&[
            ("HTTP_PROXY", "http://one:3128"),
            ("http_proxy", "two:3128"),
            ("ALL_PROXY", "http://u:hunter2@three:1"),
            ("NO_PROXY", ".svc,10.0.0.0/8"),
        ]);
        assert_eq!(some.hosts(), ["two", "three"]);
        let shown = format!("{some:?}");
        assert!(
            shown.contains("three:1") && !shown.contains("hunter2"),
            "{shown}"
        );
        assert_eq!(some.rules().unwrap().len(), 2);
    }

    #[test]
    fn a_proxy_is_a_url_or_none_at_all() {
        assert_eq!("direct".parse::<Proxy>().unwrap(), Proxy::Direct);
        let proxy: Proxy = "http://u:hunter2@x:3128".parse().unwrap();
        assert_eq!(format!("{proxy:?}"), "Through(x:3128)");
        for bad in ["", "ftp://x", "http://", "socks5://x:1"] {
            assert!(bad.parse::<Proxy>().is_err(), "{bad}");
        }
    }
}
