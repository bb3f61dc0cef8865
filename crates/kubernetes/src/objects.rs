//! Secrets and ConfigMaps of our own namespace: reading them, and changing entries unless somebody else has
//! changed the object meanwhile. Those of the manifests are never created or deleted; Secrets with one value that
//! belong to something of ours are.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::api::{Call, Outcome, is_name};
use crate::{Api, Error, Result};

/// The content type of a JSON merge patch (RFC 7386): what it does not name stays as it is.
const MERGE_PATCH: &str = "application/merge-patch+json";
/// Who the API server says has written an entry (`metadata.managedFields`).
const AS_MANAGER: &str = "?fieldManager=longhorn-base-image";

/// The label of what the manifests make, as they have it.
const PART_OF: &str = "longhorn-base-image";

/// Which kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Its values are shown to nobody.
    Secret,
    /// Its values are public.
    ConfigMap,
}

impl Kind {
    /// As in paths and rules.
    const fn plural(self) -> &'static str {
        match self {
            Self::Secret => "secrets",
            Self::ConfigMap => "configmaps",
        }
    }

    /// As people say it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Secret => "Secret",
            Self::ConfigMap => "ConfigMap",
        }
    }
}

/// The entries of an object, by their keys.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Entries(BTreeMap<String, String>);

impl fmt::Debug for Entries {
    /// The keys alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Entries {
    /// Of these keys and values.
    pub fn of<const N: usize>(entries: [(&str, &str); N]) -> Self {
        let own = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        Self(entries.into_iter().map(own).collect())
    }

    /// The value of a key; an empty one counts as missing, which is how people empty a field.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0
            .get(key)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }
}

/// An object as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// What changes with the object (`metadata.resourceVersion`).
    pub version: String,
    /// Its entries.
    pub entries: Entries,
}

/// A change of one entry: its key, and its value or nothing to remove it.
pub type Change<'a> = (&'a str, Option<&'a str>);

/// What came of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It is stored.
    Done,
    /// Somebody else has changed the object since it was read: nothing is stored, read it again.
    Conflict,
    /// There is no such object.
    Missing,
}

impl Api {
    /// Reads an object of our namespace; `None`: there is none.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn read(&self, kind: Kind, name: &str) -> Result<Option<Stored>> {
        let call = self.object(Method::GET, "read", "get", kind, name);
        let operation = call.operation.clone();
        match self.call(call).await? {
            Outcome::Done(object) => match stored(kind, &object) {
                Ok(stored) => Ok(Some(stored)),
                Err(why) => Err(Error::Answer { operation, why }),
            },
            Outcome::NotFound => Ok(None),
            Outcome::Conflict => Err(Error::Answer {
                operation,
                why: "is a conflict",
            }),
        }
    }

    /// Changes entries of an object that has still the `version` that was read. Other entries, labels and
    /// annotations stay.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn write(
        &self,
        kind: Kind,
        name: &str,
        version: &str,
        changes: &[Change<'_>],
    ) -> Result<Written> {
        let encoded = changes.iter().map(|(key, value)| {
            let value = match (kind, value) {
                (_, None) => Value::Null,
                (Kind::Secret, Some(value)) => STANDARD.encode(value).into(),
                (Kind::ConfigMap, Some(value)) => Value::from(*value),
            };
            ((*key).to_owned(), value)
        });
        let data: Map<String, Value> = encoded.collect();
        let patch = json!({"metadata": {"resourceVersion": version}, "data": data});
        let mut call = self.object(Method::PATCH, "change", "patch", kind, name);
        call.path.push_str(AS_MANAGER);
        call.body = Some((MERGE_PATCH, &patch));
        Ok(match self.call(call).await? {
            Outcome::Done(_) => Written::Done,
            Outcome::Conflict => Written::Conflict,
            Outcome::NotFound => Written::Missing,
        })
    }

    /// Makes a Secret with one entry, which nobody can change any more (`immutable`). `false`: there is one of this
    /// name, whatever is in it.
    ///
    /// # Errors
    /// See [`Error`]. After some of them it may exist all the same ([`Error::Deadline`]).
    pub async fn create_secret(&self, name: &str, key: &str, value: &str) -> Result<bool> {
        let mut call = self.object(Method::POST, "create", "create", Kind::Secret, name);
        let body = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "labels": {"app.kubernetes.io/part-of": PART_OF}},
            "immutable": true,
            "data": {key: STANDARD.encode(value)},
        });
        let parent = call.path.len() - name.len() - 1;
        call.path.truncate(parent);
        call.path.push_str(AS_MANAGER);
        call.body = Some(("application/json", &body));
        // A rule for creating can name no object.
        "{apiGroups: [\"\"], resources: [secrets], verbs: [create]}".clone_into(&mut call.rule);
        let operation = call.operation.clone();
        match self.call(call).await? {
            Outcome::Done(_) => Ok(true),
            Outcome::Conflict => Ok(false),
            Outcome::NotFound => Err(Error::NoKind { operation }),
        }
    }

    /// Deletes a Secret; that there is none is as good.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn delete_secret(&self, name: &str) -> Result<()> {
        let call = self.object(Method::DELETE, "delete", "delete", Kind::Secret, name);
        let operation = call.operation.clone();
        match self.call(call).await? {
            Outcome::Done(_) | Outcome::NotFound => Ok(()),
            Outcome::Conflict => Err(Error::Answer {
                operation,
                why: "is a conflict",
            }),
        }
    }

    fn object(
        &self,
        method: Method,
        verb: &str,
        right: &str,
        kind: Kind,
        name: &str,
    ) -> Call<'static> {
        debug_assert!(is_name(name), "{name} comes from the command line, checked");
        let (namespace, plural) = (self.namespace(), kind.plural());
        Call {
            method,
            path: format!("/api/v1/namespaces/{namespace}/{plural}/{name}"),
            body: None,
            operation: format!("{verb} the {} {namespace}/{name}", kind.name()),
            rule: format!(
                "{{apiGroups: [\"\"], resources: [{plural}], resourceNames: [{name}], verbs: [{right}]}}"
            ),
            shown: false,
        }
    }
}

fn stored(kind: Kind, object: &Value) -> Result<Stored, &'static str> {
    let version = object["metadata"]["resourceVersion"].as_str();
    let version = version.ok_or("has no resourceVersion")?.to_owned();
    let mut entries = BTreeMap::new();
    // An object without entries has no `data`.
    for (key, value) in object["data"].as_object().into_iter().flatten() {
        let value = value.as_str().ok_or("has an entry that is not text")?;
        let value = match kind {
            Kind::ConfigMap => value.to_owned(),
            Kind::Secret => {
                let bytes = STANDARD
                    .decode(value)
                    .map_err(|_| "has an entry that is not base 64")?;
                // An entry of somebody else may be anything; ours are PEM.
                String::from_utf8(bytes).unwrap_or_default()
            }
        };
        entries.insert(key.clone(), value);
    }
    Ok(Stored {
        version,
        entries: Entries(entries),
    })
}
