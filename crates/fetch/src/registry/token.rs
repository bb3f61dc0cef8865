//! Bearer tokens: where credentials may be sent for one, and the exchange itself.
//!
//! The realm comes from an unverified answer, so it is trusted only within limits: over TLS, on the
//! registry's own host or on a host that the configuration lists as its token server. A registry
//! that is configured as insecure and speaks plain HTTP may name only itself, including the port.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Body, Method, Request};
use serde::Deserialize;
use url::Url;

use super::challenge::Bearer;
use crate::address::authority;
use crate::answer::{small_body, status_error};
use crate::config::Endpoint;
use crate::credentials::Login;
use crate::network::Network;
use crate::{Error, Result};

/// The most bytes of a token server's answer; tokens are a few KiB.
const ANSWER_MAX: u64 = 64 << 10;

/// Who wants a token, for what.
pub(super) struct Wanted<'a> {
    pub(super) what: &'a str,
    pub(super) endpoint: &'a Endpoint,
    pub(super) base: &'a Url,
    pub(super) login: Option<&'a Login>,
    /// `repository:NAME:pull`, for when the registry does not say.
    pub(super) scope: &'a str,
}

/// What a token server sends; some call it by the one name, some by the other.
#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
}

/// Asks the token server that `bearer` names.
pub(super) async fn fetch(
    network: &Network,
    wanted: &Wanted<'_>,
    bearer: &Bearer,
) -> Result<HeaderValue> {
    let realm = allowed_realm(wanted, &bearer.realm)?;
    let request = request(wanted, bearer, realm.clone());
    let trust = network.trust_at(&realm, wanted.base, &wanted.endpoint.trust);
    let response = network.send(wanted.what, request, &trust).await?;
    let status = response.status();
    if matches!(status.as_u16(), 400 | 401 | 403) {
        let who = if wanted.login.is_some() {
            "our credentials"
        } else {
            "us without credentials"
        };
        let why = format!("its token server {} refuses {who}", authority(&realm));
        return Err(Error::Unauthenticated {
            what: wanted.what.to_owned(),
            why,
        });
    }
    if !status.is_success() {
        return Err(status_error(wanted.what, &response));
    }
    let body = small_body(
        wanted.what,
        response,
        ANSWER_MAX,
        network.tuning().stall_timeout,
    )
    .await?;
    let answer: Option<Answer> = serde_json::from_slice(&body).ok();
    let tokens = answer.map(|answer| [answer.token, answer.access_token]);
    let mut tokens = tokens.into_iter().flatten().flatten();
    let token = tokens.find(|token| !token.is_empty());
    let header = token.and_then(|token| bearer_header(&token));
    let why = "the token server sends no token";
    header.ok_or_else(|| Error::Answer {
        what: wanted.what.to_owned(),
        why,
    })
}

/// The header of a token, if it can be one.
pub(super) fn bearer_header(token: &str) -> Option<HeaderValue> {
    secret(&format!("Bearer {token}"))
}

/// The header of a user and password, if it can be one.
pub(super) fn basic_header(user: &str, password: &str) -> Option<HeaderValue> {
    secret(&format!(
        "Basic {}",
        STANDARD.encode(format!("{user}:{password}"))
    ))
}

fn secret(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The realm as a URL that may be asked; the rules are those of the module.
fn allowed_realm(wanted: &Wanted<'_>, realm: &str) -> Result<Url> {
    let refuse = |realm: String, why| {
        Err(Error::Realm {
            what: wanted.what.to_owned(),
            realm,
            why,
        })
    };
    let Ok(url) = Url::parse(realm) else {
        return refuse("no valid URL".to_owned(), "the registry is set up wrongly");
    };
    let shown = format!("{}://{}", url.scheme(), authority(&url));
    let same_host = url.host().is_some() && url.host() == wanted.base.host();
    match url.scheme() {
        "https" if same_host => Ok(url),
        "https" if wanted.endpoint.auth_hosts.contains(&authority(&url)) => Ok(url),
        "https" => refuse(
            shown,
            "it is another host; if it is the right one, list it in auth-hosts of \
                                  this registry in the registry configuration",
        ),
        "http" if wanted.endpoint.trust.insecure && url.origin() == wanted.base.origin() => Ok(url),
        "http" => refuse(shown, "credentials are not sent over plain http"),
        _ => refuse(shown, "a token server answers over https"),
    }
}

fn request(wanted: &Wanted<'_>, bearer: &Bearer, mut url: Url) -> Request {
    let scope = bearer.scope.as_deref().unwrap_or(wanted.scope);
    let service = bearer.service.as_deref();
    if let Some(Login::Identity(refresh)) = wanted.login {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "refresh_token");
        form.append_pair("client_id", "backing-image-manager");
        form.append_pair("refresh_token", refresh);
        form.append_pair("scope", scope);
        service.map(|service| form.append_pair("service", service));
        let mut request = Request::new(Method::POST, url);
        let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers_mut().insert(CONTENT_TYPE, form_type);
        *request.body_mut() = Some(Body::from(form.finish()));
        return request;
    }
    {
        let mut query = url.query_pairs_mut();
        service.map(|service| query.append_pair("service", service));
        query.append_pair("scope", scope);
    }
    let mut request = Request::new(Method::GET, url);
    if let Some(Login::Password { user, password }) = wanted.login
        && let Some(header) = basic_header(user, password)
    {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, header);
        *request.headers_mut() = headers;
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    fn realm(config: &str, base: &str, realm: &str) -> Result<Url> {
        let config = Config::from_toml(config).unwrap();
        let endpoint = &config.endpoints(&"registry.example:5000/x".parse().unwrap())[0];
        let base = Url::parse(base).unwrap();
        let wanted = Wanted {
            what: "x",
            endpoint,
            base: &base,
            login: None,
            scope: "",
        };
        allowed_realm(&wanted, realm)
    }

    #[test]
    fn row_07_only_the_registry_or_a_listed_host_is_a_token_server() {
        const BASE: &str = "https://registry.example:5000/v2/";
        const LISTED: &str =
            "[[registry]]\nlocation='registry.example:5000'\nauth-hosts=['auth.example']";
        const INSECURE: &str = "[[registry]]\nlocation='registry.example:5000'\ninsecure=true";
        const HTTP: &str = "http://registry.example:5000/v2/";
        for (config, base, url) in [
            ("", BASE, "https://registry.example:5000/token"),
            ("", BASE, "https://registry.example/token"),
            (LISTED, BASE, "https://auth.example/token"),
            (INSECURE, HTTP, "http://registry.example:5000/token"),
        ] {
            assert!(realm(config, base, url).is_ok(), "{url} was refused");
        }
        for (config, base, url) in [
            ("", BASE, "https://evil.example/token"),
            ("", BASE, "http://registry.example:5000/token"),
            ("", BASE, "file:///etc/passwd"),
            ("", BASE, "http://169.254.169.254/latest"),
            ("", BASE, "https://registry.example.evil.example/"),
            ("", BASE, "https://registry.example@evil.example/"),
            ("", BASE, "/token"),
            ("", BASE, ""),
            (LISTED, BASE, "https://auth.example:8443/token"),
            (LISTED, BASE, "http://auth.example/token"),
            (INSECURE, HTTP, "http://registry.example:5001/token"),
            (INSECURE, HTTP, "http://evil.example:5000/token"),
            (INSECURE, BASE, "http://registry.example:5000/token"),
        ] {
            let error = realm(config, base, url).expect_err(url);
            assert!(matches!(error, Error::Realm { .. }), "{error}");
        }
    }
}
