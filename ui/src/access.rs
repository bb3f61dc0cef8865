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

/// Every route.
pub const ROUTES: &[Route] = &[];

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

/// Somebody who is signed in. In the extensions of each request that asks more than [`Need::Nothing`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// As the API server, the proxy or the file calls them; `local user` without any.
    pub name: String,
    /// Their groups.
    pub groups: Vec<String>,
}
