//! Kinds of objects with a `spec` and a `status`, and such objects as values.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use reqwest::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::Api;
use crate::api::{Call, is_name};

/// A kind of object whose `spec` is an `S` and whose `status` is a `T`.
pub struct Resource<S, T> {
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) plural: &'static str,
    pub(crate) kind: &'static str,
    /// Whether its objects are in our namespace; else they are in none.
    ours: bool,
    of: PhantomData<fn() -> (S, T)>,
}

impl<S, T> fmt::Debug for Resource<S, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}/{}", self.plural, self.group, self.version)
    }
}

/// An object as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Object<S, T> {
    /// Its name.
    pub name: String,
    /// What tells it from others that had its name before.
    pub uid: String,
    /// What changes with every change of it (`metadata.resourceVersion`).
    pub version: String,
    /// Its annotations. They are replaced together with the spec.
    pub annotations: BTreeMap<String, String>,
    /// Whether it is being deleted, and stays only as long as others have put finalizers on it.
    pub deleting: bool,
    /// What is wanted of it.
    pub spec: S,
    /// What is seen of it; `None`: nobody has said yet.
    pub status: Option<T>,
    /// The rest of `metadata`: labels, finalizers and owners of others, which a change must not take away.
    rest: Map<String, Value>,
}

/// What came of making an object.
#[derive(Debug, Clone, PartialEq)]
pub enum Created<O> {
    /// It is stored.
    Done(O),
    /// There is one of this name.
    Exists,
}

/// An object that is not what its kind says. Somebody else wrote it, or another version of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// Its name.
    pub name: String,
    /// What cannot be read.
    pub why: String,
}

/// The objects of a kind.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed<O> {
    /// Those that can be read, by name.
    pub objects: Vec<O>,
    /// The others: they exist, and what belongs to them must not be taken for left over.
    pub unreadable: Vec<Unreadable>,
}

impl<S, T> Resource<S, T> {
    /// A kind whose objects are in no namespace.
    pub const fn of_cluster(
        group: &'static str,
        version: &'static str,
        plural: &'static str,
        kind: &'static str,
    ) -> Self {
        Self {
            group,
            version,
            plural,
            kind,
            ours: false,
            of: PhantomData,
        }
    }

    /// A kind whose objects are looked for in our namespace.
    pub const fn of_namespace(
        group: &'static str,
        version: &'static str,
        plural: &'static str,
        kind: &'static str,
    ) -> Self {
        Self {
            ours: true,
            ..Self::of_cluster(group, version, plural, kind)
        }
    }

    pub(crate) fn call(&self, api: &Api, method: Method, right: &str, name: &str) -> Call<'static> {
        debug_assert!(
            name.is_empty() || is_name(name),
            "{name} is a checked name or none"
        );
        let (group, version, plural) = (self.group, self.version, self.plural);
        let mut path = format!("/apis/{group}/{version}");
        let mut shown = String::new();
        if self.ours {
            path = format!("{path}/namespaces/{}", api.namespace());
            shown = format!("{}/", api.namespace());
        }
        path = format!("{path}/{plural}");
        if method != Method::POST && !name.is_empty() {
            path = format!("{path}/{name}");
        }
        let object = if name.is_empty() {
            plural.to_owned()
        } else {
            format!("the {} {shown}{name}", self.kind)
        };
        Call {
            method,
            path,
            body: None,
            operation: format!("{right} {object}"),
            rule: format!("{{apiGroups: [{group}], resources: [{plural}], verbs: [{right}]}}"),
            shown: true,
        }
    }

    pub(crate) fn whole(&self, metadata: &Map<String, Value>, spec: &S, status: Option<&T>) -> Value
    where
        S: Serialize,
        T: Serialize,
    {
        let mut whole = json!({
            "apiVersion": format!("{}/{}", self.group, self.version),
            "kind": self.kind,
            "metadata": metadata,
            "spec": spec,
        });
        if let Some(status) = status {
            whole["status"] = json!(status);
        }
        whole
    }
}

impl<S: DeserializeOwned, T: DeserializeOwned> Object<S, T> {
    pub(crate) fn read(mut object: Value) -> Result<Self, Unreadable> {
        let mut rest = match object["metadata"].take() {
            Value::Object(metadata) => metadata,
            _ => Map::new(),
        };
        let mut text = |key: &str| match rest.remove(key) {
            Some(Value::String(text)) => text,
            _ => String::new(),
        };
        let (name, uid, version) = (text("name"), text("uid"), text("resourceVersion"));
        let unreadable = |why: String| Unreadable {
            name: name.clone(),
            why,
        };
        if name.is_empty() || version.is_empty() {
            return Err(unreadable(
                "it has no name or no resourceVersion".to_owned(),
            ));
        }
        // Half of an object, and of no use to who replaces it.
        rest.remove("managedFields");
        let annotations = rest.remove("annotations").unwrap_or_default();
        let annotations = serde_json::from_value::<Option<_>>(annotations);
        let annotations = annotations.map_err(|error| unreadable(error.to_string()))?;
        let spec = serde_json::from_value(object["spec"].take());
        let spec = spec.map_err(|error| unreadable(format!("spec: {error}")))?;
        // Like every status, it can be made again: one that cannot be read is one that is not there.
        let status = serde_json::from_value(object["status"].take()).ok();
        Ok(Self {
            deleting: rest.contains_key("deletionTimestamp"),
            annotations: annotations.unwrap_or_default(),
            name,
            uid,
            version,
            spec,
            status,
            rest,
        })
    }
}

impl<S, T> Object<S, T> {
    pub(crate) fn metadata(&self) -> Map<String, Value> {
        let mut metadata = self.rest.clone();
        metadata.insert("name".to_owned(), self.name.clone().into());
        metadata.insert("uid".to_owned(), self.uid.clone().into());
        metadata.insert("resourceVersion".to_owned(), self.version.clone().into());
        metadata.insert("annotations".to_owned(), json!(self.annotations));
        metadata
    }
}
