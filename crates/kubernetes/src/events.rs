//! Events: what `kubectl describe` shows of a claim, a volume or an object of ours. They are for people and run out after an
//! hour; nothing is ever decided by them.

mod ledger;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use self::ledger::{Entry, Key, Ledger};
use crate::api::{Call, Outcome, is_name};
use crate::{Api, Error, Result};

/// Characters of the longest text of an Event (`events.k8s.io` allows no more).
const NOTE_MAX: usize = 1024;
/// The namespace of Events about objects that are in none.
const OF_CLUSTER: &str = "default";

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Normal,
    /// Somebody may have to do something.
    Warning,
}

/// Which object an Event is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Regarding {
    /// `v1`, or `GROUP/VERSION`.
    api_version: String,
    plural: &'static str,
    kind: &'static str,
    namespace: Option<String>,
    name: String,
}

impl Regarding {
    /// A claim.
    pub fn claim(namespace: &str, name: &str) -> Self {
        Self {
            api_version: "v1".to_owned(),
            plural: "persistentvolumeclaims",
            kind: "PersistentVolumeClaim",
            namespace: Some(namespace.to_owned()),
            name: name.to_owned(),
        }
    }

    /// A PersistentVolume.
    pub fn volume(name: &str) -> Self {
        Self {
            api_version: "v1".to_owned(),
            plural: "persistentvolumes",
            kind: "PersistentVolume",
            namespace: None,
            name: name.to_owned(),
        }
    }

    /// An object of a kind that is in no namespace.
    pub fn object<S, T>(resource: &crate::Resource<S, T>, name: &str) -> Self {
        Self {
            api_version: format!("{}/{}", resource.group, resource.version),
            plural: resource.plural,
            kind: resource.kind,
            namespace: None,
            name: name.to_owned(),
        }
    }

    fn path(&self) -> String {
        let root = match self.api_version.as_str() {
            "v1" => "/api/v1".to_owned(),
            other => format!("/apis/{other}"),
        };
        let namespace = self.namespace.as_ref();
        let namespace = namespace.map_or_else(String::new, |name| format!("/namespaces/{name}"));
        format!("{root}{namespace}/{}/{}", self.plural, self.name)
    }

    fn is_valid(&self) -> bool {
        is_name(&self.name) && self.namespace.as_deref().is_none_or(is_name)
    }

    /// The namespace of its Events.
    fn of(&self) -> &str {
        self.namespace.as_deref().unwrap_or(OF_CLUSTER)
    }
}

/// Who writes Events. Its clones share what was said.
#[derive(Debug, Clone)]
pub struct Events {
    api: Arc<Api>,
    component: &'static str,
    ledger: Arc<Mutex<Ledger>>,
}

impl Events {
    /// As `component`, which people see as the source.
    pub fn new(api: Arc<Api>, component: &'static str) -> Self {
        let ledger = Arc::new(Mutex::new(Ledger::new(Instant::now())));
        Self {
            api,
            component,
            ledger,
        }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says something of an object. It may be said in each round of a loop: the same reason is one Event for ten
    /// minutes, which is counted up, and the same words are written once a minute at most. Nothing is written of an
    /// object that does not exist. Says whether something was written.
    ///
    /// # Errors
    /// The Event is not written. There is nothing to do but to say so; the next call may succeed.
    pub async fn say(
        &self,
        regarding: &Regarding,
        level: Level,
        reason: &str,
        note: &str,
    ) -> Result<bool> {
        if !regarding.is_valid() {
            return Ok(false);
        }
        let note: String = note.chars().take(NOTE_MAX).collect();
        let key = Key {
            regarding: regarding.clone(),
            level,
            reason: reason.to_owned(),
        };
        let entry = self.ledger().say(&key, &note, Instant::now());
        let done = match entry {
            Entry::Quiet => return Ok(false),
            Entry::New => self.make(&key, &note).await,
            Entry::Count(name, count) => match self.count(&key, &name, count, &note).await {
                Ok(true) => Ok(Some(name)),
                // It ran out while it was still said.
                Ok(false) => self.make(&key, &note).await,
                Err(error) => Err(error),
            },
        };
        match &done {
            Ok(Some(name)) => self.ledger().made(&key, name),
            Ok(None) => self.ledger().gone(&key, true),
            Err(_) => self.ledger().gone(&key, false),
        }
        Ok(done?.is_some())
    }

    /// Makes an Event and says its name; `None`: the object does not exist.
    async fn make(&self, key: &Key, note: &str) -> Result<Option<String>> {
        let Some((uid, version)) = self.api.identity_of(&key.regarding).await? else {
            return Ok(None);
        };
        let Regarding {
            api_version,
            kind,
            namespace,
            name,
            ..
        } = &key.regarding;
        let now = format!("{:.0}", Timestamp::now());
        let mut involved = json!({"apiVersion": api_version, "kind": kind, "name": name,
            "uid": uid, "resourceVersion": version});
        if let Some(namespace) = namespace {
            involved["namespace"] = namespace.as_str().into();
        }
        // The API server makes the rest of the name, and cuts this to what it allows.
        let body = json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": format!("{name}."), "namespace": key.regarding.of()},
            "involvedObject": involved,
            "type": match key.level {
                Level::Normal => "Normal",
                Level::Warning => "Warning",
            },
            "reason": key.reason,
            "message": note,
            "source": {"component": self.component},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        });
        let call = Self::event(key, Method::POST, "create", "", Some(&body));
        let operation = call.operation.clone();
        match self.api.call(call).await? {
            Outcome::Done(event) => match event["metadata"]["name"].as_str() {
                Some(name) if is_name(name) => Ok(Some(name.to_owned())),
                _ => Err(Error::Answer {
                    operation,
                    why: "has no name",
                }),
            },
            // The namespace is being deleted, and everything in it.
            Outcome::NotFound | Outcome::Conflict => Ok(None),
        }
    }

    /// Counts an Event up; `false`: it is not there any more.
    async fn count(&self, key: &Key, event: &str, count: u32, note: &str) -> Result<bool> {
        let now = format!("{:.0}", Timestamp::now());
        let patch = json!({"count": count, "lastTimestamp": now, "message": note});
        let call = Self::event(key, Method::PATCH, "patch", event, Some(&patch));
        Ok(match self.api.call(call).await? {
            Outcome::Done(_) => true,
            Outcome::NotFound | Outcome::Conflict => false,
        })
    }

    fn event<'a>(
        key: &Key,
        method: Method,
        right: &str,
        name: &str,
        body: Option<&'a Value>,
    ) -> Call<'a> {
        let Regarding { kind, name: of, .. } = &key.regarding;
        let kind_of_body = match method {
            Method::PATCH => "application/merge-patch+json",
            _ => "application/json",
        };
        let slash = if name.is_empty() { "" } else { "/" };
        let namespace = key.regarding.of();
        Call {
            method,
            path: format!("/api/v1/namespaces/{namespace}/events{slash}{name}"),
            body: body.map(|body| (kind_of_body, body)),
            operation: format!("{right} an Event about the {kind} {of}"),
            rule: format!("{{apiGroups: [\"\"], resources: [events], verbs: [{right}]}}"),
            shown: true,
        }
    }
}

impl Api {
    /// The UID and the version of an object; `None`: there is none.
    async fn identity_of(&self, regarding: &Regarding) -> Result<Option<(String, String)>> {
        let Regarding {
            api_version,
            plural,
            kind,
            name,
            ..
        } = regarding;
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        let call = Call {
            method: Method::GET,
            path: regarding.path(),
            body: None,
            operation: format!("read the {kind} {name}"),
            rule: format!("{{apiGroups: [\"{group}\"], resources: [{plural}], verbs: [get]}}"),
            shown: true,
        };
        let Outcome::Done(object) = self.call(call).await? else {
            return Ok(None);
        };
        let text = |key: &str| object["metadata"][key].as_str().unwrap_or_default();
        Ok(Some((
            text("uid").to_owned(),
            text("resourceVersion").to_owned(),
        )))
    }

    /// The claim of a PersistentVolume, by namespace and name; `None`: there is no such volume, or it has none.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn claim_of(&self, volume: &str) -> Result<Option<Regarding>> {
        let regarding = Regarding::volume(volume);
        if !regarding.is_valid() {
            return Ok(None);
        }
        let call = Call {
            method: Method::GET,
            path: regarding.path(),
            body: None,
            operation: format!("read the PersistentVolume {volume}"),
            rule: "{apiGroups: [\"\"], resources: [persistentvolumes], verbs: [get]}".to_owned(),
            shown: true,
        };
        let Outcome::Done(object) = self.call(call).await? else {
            return Ok(None);
        };
        let claim = &object["spec"]["claimRef"];
        let text = |key: &str| claim[key].as_str().unwrap_or_default();
        let claim = Regarding::claim(text("namespace"), text("name"));
        Ok(claim.is_valid().then_some(claim))
    }
}

#[cfg(test)]
mod tests;
