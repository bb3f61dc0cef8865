//! The page to sign in, what it sends, and signing out.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{ConnectInfo, FromRequest as _, Query, Request, State};
use axum::http::header::{LOCATION, SET_COOKIE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Extension, Form, Router};
use serde::Deserialize;
use types::report;
use zeroize::Zeroizing;

use super::gate::{Gate, Mode};
use super::origin::Site;
use super::rate::Who;
use crate::access::Person;
use crate::{http, pages};

/// What the page sends. None of it is shown by `Debug`, which it has not.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Said {
    token: Zeroizing<String>,
    user: String,
    password: Zeroizing<String>,
    next: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Asked {
    next: String,
}

/// The routes of this file, and the one that says that the program runs.
pub(super) fn routes(gate: Arc<Gate>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/login", get(show).post(sign_in))
        .route("/logout", post(sign_out))
        .with_state(gate)
}

async fn show(State(gate): State<Arc<Gate>>, Query(asked): Query<Asked>) -> Response {
    if gate.mode.has_sessions() {
        page(&gate, StatusCode::OK, None, &asked.next)
    } else {
        to("/")
    }
}

fn page(gate: &Gate, status: StatusCode, why: Option<&str>, next: &str) -> Response {
    let by_password = matches!(gate.mode, Mode::Basic(_));
    let html = axum::response::Html(pages::login(by_password, why, ours(next)).into_string());
    (status, html).into_response()
}

async fn sign_in(
    State(gate): State<Arc<Gate>>,
    Extension(site): Extension<Site>,
    request: Request,
) -> Response {
    let from = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let from: Option<IpAddr> = from.map(|from| from.0.ip());
    let Ok(Form(said)) = Form::<Said>::from_request(request, &()).await else {
        let why = "the form cannot be read; fill it in again";
        return page(&gate, StatusCode::UNPROCESSABLE_ENTITY, Some(why), "/");
    };
    let admitted = gate.rate.admit(Who::Address(from), Instant::now())
        && (said.user.is_empty()
            || gate
                .rate
                .admit(Who::Name(types::shown(&said.user)), Instant::now()));
    if !admitted {
        tracing::warn!(?from, "too many attempts to sign in");
        let why = "too many attempts; wait for a minute";
        return page(&gate, StatusCode::TOO_MANY_REQUESTS, Some(why), &said.next);
    }
    let found: crate::Result<Option<(Person, String)>> = match &gate.mode {
        Mode::Kubernetes(rights) => {
            let person = rights.whose(said.token.trim()).await;
            person.map(|person| person.map(|person| (person, String::new())))
        }
        Mode::Basic(users) => users.whose(&said.user, said.password).await,
        Mode::Nobody | Mode::Header { .. } => return to("/"),
    };
    let begun = match found {
        Ok(Some((person, proof))) => {
            tracing::info!(person = person.name, ?from, "signed in");
            gate.sessions
                .begin(person, proof, gate.is_local(site), Instant::now())
        }
        Ok(None) => {
            tracing::warn!(?from, "an attempt to sign in was refused");
            let why = gate.mode.not_known();
            return page(&gate, StatusCode::UNAUTHORIZED, Some(why), &said.next);
        }
        Err(error) => Err(error),
    };
    match begun {
        Ok(cookie) => {
            let mut response = to(ours(&said.next));
            response.headers_mut().insert(SET_COOKIE, cookie);
            response
        }
        Err(error) => {
            let why = report(&error).to_string();
            tracing::warn!("nobody can sign in: {why}");
            page(
                &gate,
                StatusCode::SERVICE_UNAVAILABLE,
                Some(&why),
                &said.next,
            )
        }
    }
}

async fn sign_out(
    State(gate): State<Arc<Gate>>,
    Extension(site): Extension<Site>,
    headers: HeaderMap,
) -> Response {
    let mut response = to(if gate.mode.has_sessions() {
        "/login"
    } else {
        "/"
    });
    match gate.sessions.end(&headers, gate.is_local(site)) {
        Ok(cookie) => {
            response.headers_mut().insert(SET_COOKIE, cookie);
            response
        }
        Err(error) => http::problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

pub(super) fn to(path: &str) -> Response {
    match path.parse::<axum::http::HeaderValue>() {
        Ok(path) => (StatusCode::SEE_OTHER, [(LOCATION, path)]).into_response(),
        Err(_) => (StatusCode::SEE_OTHER, [(LOCATION, "/")]).into_response(),
    }
}

/// Where to go on, if that is a page of ours: a browser takes two slashes, of either kind, for another site.
fn ours(next: &str) -> &str {
    let is_ours = next.starts_with('/')
        && !next[1..].starts_with(['/', '\\'])
        && next.len() <= 2048
        && next.bytes().all(|byte| byte.is_ascii_graphic());
    if is_ours { next } else { "/" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_signing_in_nobody_is_sent_to_another_site() {
        for (next, to) in [
            ("/volumes?q=a", "/volumes?q=a"),
            ("//evil.example", "/"),
            ("/\\evil.example", "/"),
            ("https://evil.example", "/"),
            ("/a\nb", "/"),
            ("/\t/evil.example", "/"),
            ("", "/"),
        ] {
            assert_eq!(ours(next), to);
        }
    }
}
