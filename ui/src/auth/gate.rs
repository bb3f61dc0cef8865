//! The decision before every handler: 421 for another `Host`, 403 for what another site asks, 404 for a route without a
//! line in the table, 401 (or the page to sign in) for nobody, 403 for whoever may not.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use types::report;
use zeroize::Zeroizing;

use super::origin::{Foreign, Hosts, Site, site};
use super::rate::Rate;
use super::rights::Rights;
use super::session::{Session, Sessions};
use super::sign_in;
use super::users::Users;
use crate::Result;
use crate::access::{LOCAL_USER, Need, Person, Resource, Verb, need};
use crate::http::problem;

const USER: &str = "x-forwarded-user";
const GROUPS: &str = "x-forwarded-groups";
const SECRET: &str = "x-forwarded-secret";
/// Groups of one person, and the longest name.
const GROUPS_MAX: usize = 512;
const NAME_MAX: usize = 253;
/// Names that Kubernetes keeps for itself: no proxy may give them to anybody.
const KEPT: &str = "system:";

/// How people prove who they are, with what that needs.
#[derive(Debug)]
pub(super) enum Mode {
    Nobody,
    Kubernetes(Rights),
    Header {
        secret: Option<Zeroizing<String>>,
        rights: Rights,
    },
    Basic(Users),
}

impl Mode {
    /// Whether there is a page to sign in.
    pub(super) const fn has_sessions(&self) -> bool {
        matches!(self, Self::Kubernetes(_) | Self::Basic(_))
    }

    /// What somebody is told whose proof is none.
    pub(super) const fn not_known(&self) -> &'static str {
        match self {
            Self::Basic(_) => "no such name with this password",
            Self::Header { .. } => {
                "the proxy in front of this UI has not said who you are (X-Forwarded-User); go through it"
            }
            _ => "the cluster does not accept this token: it is wrong, or has expired",
        }
    }
}

/// What decides about requests.
#[derive(Debug)]
pub struct Gate {
    pub(super) mode: Mode,
    pub(super) sessions: Sessions,
    pub(super) rate: Rate,
    hosts: Hosts,
    tls: bool,
}

/// Somebody, with what has to hold for as long as they are signed in.
#[derive(Debug, Clone)]
struct Known {
    person: Person,
    proof: String,
}

/// What else somebody may: for a form that asks for two things, of which the route is but one. In the extensions of each
/// request that has a [`Person`].
#[derive(Debug, Clone)]
pub struct May {
    gate: Arc<Gate>,
    known: Known,
}

impl May {
    /// The answer to whoever may not, or of whom that cannot be known; `None`: they may.
    pub async fn refusal(&self, verb: Verb, resource: Resource) -> Option<Response> {
        let wanted = Some((verb, resource));
        match self.gate.may(&self.known, wanted).await {
            Ok(Some(true)) => None,
            Ok(Some(false) | None) => Some(may_not(&self.known.person, wanted)),
            Err(error) => Some(not_decided(&error)),
        }
    }
}

impl Gate {
    pub(super) fn new(mode: Mode, hosts: Hosts, tls: bool) -> Self {
        Self {
            mode,
            sessions: Sessions::default(),
            rate: Rate::default(),
            hosts,
            tls,
        }
    }

    /// Whether people can sign out here.
    pub fn has_sessions(&self) -> bool {
        self.mode.has_sessions()
    }

    /// Whether a cookie goes in the clear because it leaves no machine.
    pub(super) const fn is_local(&self, site: Site) -> bool {
        site.is_local && !self.tls
    }

    /// Who asks; `None`: nobody who is known.
    fn whose(&self, request: &Request, site: Site) -> Option<Known> {
        let headers = request.headers();
        let known = |person| Known {
            person,
            proof: String::new(),
        };
        match &self.mode {
            Mode::Nobody => Some(known(Person {
                name: LOCAL_USER.to_owned(),
                groups: Vec::new(),
                signed_in: false,
            })),
            Mode::Kubernetes(_) | Mode::Basic(_) => {
                let found = self
                    .sessions
                    .find(headers, self.is_local(site), Instant::now())?;
                let Session { person, proof, .. } = found;
                Some(Known { person, proof })
            }
            Mode::Header { secret, .. } => {
                let believed = match secret {
                    Some(secret) => is_secret(headers, secret),
                    None => is_near(request),
                };
                believed.then(|| named(headers)).flatten().map(known)
            }
        }
    }

    /// Whether they may; `None`: they are not known any more.
    async fn may(&self, known: &Known, wanted: Option<(Verb, Resource)>) -> Result<Option<bool>> {
        match &self.mode {
            Mode::Nobody => Ok(Some(true)),
            Mode::Basic(users) => {
                users.may(&known.person, &known.proof, wanted.map(|(verb, _)| verb))
            }
            Mode::Kubernetes(rights) | Mode::Header { rights, .. } => match wanted {
                Some((verb, resource)) => rights.may(&known.person, verb, resource).await.map(Some),
                None => Ok(Some(true)),
            },
        }
    }
}

/// Puts the decision before each handler of a router, and adds the routes to sign in and out. A handler finds the
/// [`Person`] in the request's extensions.
pub fn protect(router: Router, gate: Gate) -> Router {
    let gate = Arc::new(gate);
    sign_in::routes(gate.clone())
        .merge(router)
        .layer(from_fn_with_state(gate, decide))
}

async fn decide(State(gate): State<Arc<Gate>>, mut request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let site = match site(&gate.hosts, &method, request.headers()) {
        Ok(site) => site,
        Err(Foreign::Host) => {
            return problem(
                StatusCode::MISDIRECTED_REQUEST,
                "this UI is not known by that name; whoever started it can add it with --host",
            );
        }
        Err(Foreign::Site) => {
            return problem(
                StatusCode::FORBIDDEN,
                "another site has made your browser ask this; nothing was done",
            );
        }
    };
    request.extensions_mut().insert(site);
    let path = request.extensions().get::<MatchedPath>().cloned();
    let wanted = path.and_then(|path| need(&method, path.as_str()));
    let wanted = match wanted {
        None => return problem(StatusCode::NOT_FOUND, "there is no such page"),
        Some(Need::Nothing) => return next.run(request).await,
        Some(Need::SignedIn) => None,
        Some(Need::May(verb, resource)) => Some((verb, resource)),
    };
    let Some(known) = gate.whose(&request, site) else {
        return nobody(&gate, &request);
    };
    match gate.may(&known, wanted).await {
        Ok(Some(true)) => {
            request.extensions_mut().insert(known.person.clone());
            request.extensions_mut().insert(May { gate, known });
            next.run(request).await
        }
        Ok(Some(false)) => may_not(&known.person, wanted),
        Ok(None) => nobody(&gate, &request),
        Err(error) => not_decided(&error),
    }
}

fn not_decided(error: &crate::Error) -> Response {
    let why = report(error).to_string();
    tracing::warn!("nobody can be let in: {why}");
    problem(StatusCode::SERVICE_UNAVAILABLE, &why)
}

/// The page to sign in for whoever asks for a page; 401 for what is asked by a page, or changes something.
fn nobody(gate: &Gate, request: &Request) -> Response {
    let is_part = request.headers().contains_key("hx-request");
    let looks = [Method::GET, Method::HEAD].contains(request.method());
    if !gate.mode.has_sessions() {
        return problem(StatusCode::UNAUTHORIZED, gate.mode.not_known());
    }
    if looks && !is_part {
        let path = request
            .uri()
            .path_and_query()
            .map_or("/", |path| path.as_str());
        let next: String = url::form_urlencoded::byte_serialize(path.as_bytes()).collect();
        return sign_in::to(&format!("/login?next={next}"));
    }
    let mut response = problem(StatusCode::UNAUTHORIZED, "nobody is signed in any more");
    if is_part {
        let to = HeaderValue::from_static("/login");
        response
            .headers_mut()
            .insert(HeaderName::from_static("hx-redirect"), to);
    }
    response
}

fn may_not(person: &Person, wanted: Option<(Verb, Resource)>) -> Response {
    let what = wanted.map_or_else(String::new, |(verb, resource)| {
        let group = crate::access::API_GROUP;
        format!(" {} {}.{group}", verb.as_str(), resource.as_str())
    });
    let why = format!(
        "{} may not{what}; an administrator of the cluster can allow it by a role",
        types::shown(&person.name)
    );
    problem(StatusCode::FORBIDDEN, &why)
}

/// Whether the other end is on this machine, or in this pod. Who cannot be told where they are, are not near.
fn is_near(request: &Request) -> bool {
    let from = request.extensions().get::<ConnectInfo<SocketAddr>>();
    from.is_some_and(|from| from.0.ip().to_canonical().is_loopback())
}

/// Whether the proxy has said its secret. The digests are compared: how long that takes says nothing of the secret.
fn is_secret(headers: &HeaderMap, secret: &str) -> bool {
    let digest = |text: &[u8]| ring::digest::digest(&ring::digest::SHA256, text);
    let mut said = headers.get_all(SECRET).into_iter();
    let (Some(one), None) = (said.next(), said.next()) else {
        return false;
    };
    digest(one.as_bytes()).as_ref() == digest(secret.as_bytes()).as_ref()
}

/// Who the proxy says they are. Of two names nobody knows which one it is.
fn named(headers: &HeaderMap) -> Option<Person> {
    let mut names = headers.get_all(USER).into_iter();
    let name = names.next()?.to_str().ok()?.trim();
    let is_good = |name: &str| (1..=NAME_MAX).contains(&name.len()) && !name.starts_with(KEPT);
    if names.next().is_some() || !is_good(name) {
        return None;
    }
    let lines = headers.get_all(GROUPS).into_iter();
    let said = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .filter(|group| is_good(group))
        .take(GROUPS_MAX);
    let groups = said.map(str::to_owned);
    Some(Person {
        name: name.to_owned(),
        groups: groups.chain(["system:authenticated".to_owned()]).collect(),
        signed_in: false,
    })
}

#[cfg(test)]
mod tests;
