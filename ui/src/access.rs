//! Who may see and do what: one table of every route of the UI.
//!
//! A request whose method and route have no line here is answered 404, so that no page, fragment or action is served
//! without a decision. This file knows neither how people prove who they are nor what the pages show.

use axum::http::Method;

/// The API group of our resources in Kubernetes' RBAC. These resources need not exist there: rules may name them, and
/// a `SubjectAccessReview` decides about them.
pub const API_GROUP: &str = "baseimage.longhorn.io";

/// What somebody does, as RBAC names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// Look at one.
    Get,
    /// Look at all.
    List,
    /// Make one.
    Create,
    /// Change one.
    Update,
    /// Delete one.
    Delete,
    /// Make a volume usable without a pod, and take that back.
    Expose,
}

impl Verb {
    /// As it is written in a rule.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Expose => "expose",
        }
    }
}

/// With what they do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// Volumes.
    Volumes,
    /// Backing images, with what looks at their sources.
    BackingImages,
    /// Snapshots: backing images whose source is a volume.
    Snapshots,
    /// Backups.
    Backups,
    /// Disks and nodes.
    Disks,
    /// What was done in this UI.
    Events,
}

impl Resource {
    /// As it is written in a rule.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Volumes => "volumes",
            Self::BackingImages => "backingimages",
            Self::Snapshots => "snapshots",
            Self::Backups => "backups",
            Self::Disks => "disks",
            Self::Events => "events",
        }
    }
}

/// What a route asks of whoever wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Nothing: the page to sign in, and the files that it needs.
    Nothing,
    /// To be signed in.
    SignedIn,
    /// The right to do this.
    May(Verb, Resource),
}

/// A route and what it asks.
#[derive(Debug, Clone)]
pub struct Route {
    /// `GET` (which stands for `HEAD` as well), `POST` or `PUT`.
    pub method: Method,
    /// As axum matches it: `/volumes/{name}`.
    pub path: &'static str,
    /// What it asks.
    pub need: Need,
}

use Resource::{BackingImages, Backups, Disks, Events, Snapshots, Volumes};
use Verb::{Create, Delete, Expose, Get, List, Update};

/// Every route.
pub const ROUTES: &[Route] = &[
    get("/assets/{file}", Need::Nothing),
    get("/favicon.ico", Need::Nothing),
    get("/healthz", Need::Nothing),
    get("/login", Need::Nothing),
    post("/login", Need::Nothing),
    post("/logout", Need::SignedIn),
    get("/", may(List, Disks)),
    get("/fragments/overview", may(List, Disks)),
    get("/volumes", may(List, Volumes)),
    post("/volumes", may(Create, Volumes)),
    get("/fragments/volumes", may(List, Volumes)),
    get("/volumes/new", may(Create, Volumes)),
    post("/fragments/base-image", may(Create, Volumes)),
    get("/volumes/{name}", may(Get, Volumes)),
    get("/fragments/volumes/{name}", may(Get, Volumes)),
    post("/volumes/{name}/snapshot", may(Create, Snapshots)),
    post("/volumes/{name}/clone", may(Create, Volumes)),
    post("/volumes/{name}/grow", may(Update, Volumes)),
    post("/volumes/{name}/expose", may(Expose, Volumes)),
    post("/volumes/{name}/take-back", may(Expose, Volumes)),
    get("/volumes/{name}/delete", may(Delete, Volumes)),
    post("/volumes/{name}/delete", may(Delete, Volumes)),
    get("/images", may(List, BackingImages)),
    post("/images", may(Create, BackingImages)),
    get("/fragments/images", may(List, BackingImages)),
    get("/images/new", may(Create, BackingImages)),
    get("/images/{name}", may(Get, BackingImages)),
    get("/fragments/images/{name}", may(Get, BackingImages)),
    post("/images/{name}/copy", may(Create, BackingImages)),
    get("/images/{name}/delete", may(Delete, BackingImages)),
    post("/images/{name}/delete", may(Delete, BackingImages)),
    get("/images/{name}/download", may(Get, BackingImages)),
    post("/uploads", may(Create, BackingImages)),
    get("/uploads/{disk}/{name}/{uuid}", may(Create, BackingImages)),
    put("/uploads/{disk}/{name}/{uuid}", may(Create, BackingImages)),
    get("/snapshots", may(List, Snapshots)),
    get("/fragments/snapshots", may(List, Snapshots)),
    get("/snapshots/{name}/delete", may(Delete, Snapshots)),
    post("/snapshots/{name}/delete", may(Delete, Snapshots)),
    get("/backups", may(List, Backups)),
    get("/disks", may(List, Disks)),
    get("/fragments/disks", may(List, Disks)),
    get("/events", may(List, Events)),
    get("/fragments/events", may(List, Events)),
];

const fn may(verb: Verb, resource: Resource) -> Need {
    Need::May(verb, resource)
}

const fn get(path: &'static str, need: Need) -> Route {
    route(Method::GET, path, need)
}

const fn post(path: &'static str, need: Need) -> Route {
    route(Method::POST, path, need)
}

const fn put(path: &'static str, need: Need) -> Route {
    route(Method::PUT, path, need)
}

const fn route(method: Method, path: &'static str, need: Need) -> Route {
    Route { method, path, need }
}

/// What this route asks; `None`: it has no line.
pub fn need(method: &Method, path: &str) -> Option<Need> {
    let method = if method == Method::HEAD {
        &Method::GET
    } else {
        method
    };
    let line = |route: &&Route| route.method == *method && route.path == path;
    ROUTES.iter().find(line).map(|route| route.need)
}

/// The name of who uses it where nobody is asked to sign in.
pub const LOCAL_USER: &str = "local user";

/// Somebody who is signed in. In the extensions of each request that asks more than [`Need::Nothing`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// As the API server, the proxy or the file calls them; [`LOCAL_USER`] without any.
    pub name: String,
    /// Their groups.
    pub groups: Vec<String>,
    /// Whether they have signed in here, and so can sign out.
    pub signed_in: bool,
}
