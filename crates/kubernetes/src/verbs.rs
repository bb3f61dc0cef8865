//! The verbs for objects with a spec and a status: create, get, list, replace and delete, by compare-and-swap. They are
//! polled: who needs their changes at once needs a watch, which nobody here does.

use std::collections::BTreeMap;

use reqwest::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::api::{Call, Outcome};
use crate::resource::{Created, Listed, Object, Resource, Unreadable};
use crate::{Api, Error, Result, Written};

const JSON: &str = "application/json";
/// Who the API server says has written a field (`metadata.managedFields`).
const AS_MANAGER: &str = "fieldManager=longhorn-base-image";
/// Objects in one answer of a list. With what the API server itself adds to an object (some 3 KiB of
/// `managedFields`), that many stay far below the limit of an answer.
const PAGE: usize = 200;
/// The most objects that a list has: 50 pages.
const LIST_MAX: usize = 50 * PAGE;
/// How often a list begins again because it took longer than the API server remembers (five minutes).
const LISTS: usize = 3;
/// What an object may have of annotations, as the API server allows.
const ANNOTATIONS_MAX: usize = 256 << 10;

impl Api {
    /// Makes an object, unless there is one of its name.
    ///
    /// # Errors
    /// See [`Error`]. After some of them the object may exist all the same ([`Error::Deadline`]).
    pub async fn create<S, T>(
        &self,
        resource: &Resource<S, T>,
        name: &str,
        annotations: &BTreeMap<String, String>,
        spec: &S,
    ) -> Result<Created<Object<S, T>>>
    where
        S: Serialize + DeserializeOwned,
        T: Serialize + DeserializeOwned,
    {
        let mut call = resource.call(self, Method::POST, "create", name);
        bounded(annotations, &call.operation)?;
        let mut metadata = Map::new();
        metadata.insert("name".to_owned(), name.into());
        metadata.insert("annotations".to_owned(), json!(annotations));
        let body = resource.whole(&metadata, spec, None);
        call.path = format!("{}?{AS_MANAGER}", call.path);
        call.body = Some((JSON, &body));
        let operation = call.operation.clone();
        match self.call(call).await? {
            Outcome::Done(object) => Ok(Created::Done(one(object, operation)?)),
            Outcome::Conflict => Ok(Created::Exists),
            Outcome::NotFound => Err(Error::NoKind { operation }),
        }
    }

    /// Reads an object; `None`: there is none.
    ///
    /// # Errors
    /// See [`Error`]; that there is no such kind looks as if there were no such object.
    pub async fn get<S, T>(
        &self,
        resource: &Resource<S, T>,
        name: &str,
    ) -> Result<Option<Object<S, T>>>
    where
        S: DeserializeOwned,
        T: DeserializeOwned,
    {
        let call = resource.call(self, Method::GET, "get", name);
        let operation = call.operation.clone();
        match self.call(call).await? {
            Outcome::Done(object) => one(object, operation).map(Some),
            Outcome::NotFound => Ok(None),
            Outcome::Conflict => Err(conflict(operation)),
        }
    }

    /// Reads all objects of a kind, as they are at one moment.
    ///
    /// # Errors
    /// See [`Error`]; there are more than ten thousand.
    pub async fn list<S, T>(&self, resource: &Resource<S, T>) -> Result<Listed<Object<S, T>>>
    where
        S: DeserializeOwned,
        T: DeserializeOwned,
    {
        let mut begun = 1;
        loop {
            match self.list_once(resource).await {
                // 410 Gone: the moment of the first page is forgotten.
                Err(Error::Refused { status: 410, .. }) if begun < LISTS => begun += 1,
                listed => return listed,
            }
        }
    }

    async fn list_once<S, T>(&self, resource: &Resource<S, T>) -> Result<Listed<Object<S, T>>>
    where
        S: DeserializeOwned,
        T: DeserializeOwned,
    {
        let mut listed = Listed {
            objects: Vec::new(),
            unreadable: Vec::new(),
        };
        let mut next = String::new();
        loop {
            let mut call = resource.call(self, Method::GET, "list", "");
            call.path = format!("{}?limit={PAGE}{next}", call.path);
            let operation = call.operation.clone();
            let mut page = match self.call(call).await? {
                Outcome::Done(page) => page,
                Outcome::NotFound => return Err(Error::NoKind { operation }),
                Outcome::Conflict => return Err(conflict(operation)),
            };
            let Value::Array(items) = page["items"].take() else {
                let why = "is not a list";
                return Err(Error::Answer { operation, why });
            };
            for item in items {
                match Object::read(item) {
                    Ok(object) => listed.objects.push(object),
                    Err(unreadable) => listed.unreadable.push(unreadable),
                }
            }
            if listed.objects.len() + listed.unreadable.len() > LIST_MAX {
                let why = "has more than 10000 objects";
                return Err(Error::Answer { operation, why });
            }
            match page["metadata"]["continue"].as_str() {
                None | Some("") => return Ok(listed),
                // It goes into a query as it is: base 64 of the API server's own.
                Some(token) if token.len() <= 4096 && token.bytes().all(is_token) => {
                    next = format!("&continue={token}");
                }
                Some(_) => {
                    let why = "goes on with something that is not a token";
                    return Err(Error::Answer { operation, why });
                }
            }
        }
    }

    /// Replaces the spec and the annotations of an object that has still the version that was read. When it is done,
    /// `object` is what is stored.
    ///
    /// # Errors
    /// See [`Error`]. After some of them it may be stored all the same ([`Error::Deadline`]): read it again.
    pub async fn replace<S, T>(
        &self,
        resource: &Resource<S, T>,
        object: &mut Object<S, T>,
    ) -> Result<Written>
    where
        S: Serialize + DeserializeOwned,
        T: Serialize + DeserializeOwned,
    {
        let call = resource.call(self, Method::PUT, "update", &object.name);
        bounded(&object.annotations, &call.operation)?;
        self.put(resource, call, object).await
    }

    /// Replaces the status of an object that has still the version that was read, and nothing else of it.
    ///
    /// # Errors
    /// As of [`Api::replace`].
    pub async fn replace_status<S, T>(
        &self,
        resource: &Resource<S, T>,
        object: &mut Object<S, T>,
    ) -> Result<Written>
    where
        S: Serialize + DeserializeOwned,
        T: Serialize + DeserializeOwned,
    {
        let mut call = resource.call(self, Method::PUT, "update", &object.name);
        call.path.push_str("/status");
        call.operation = format!(
            "update the status of {}",
            &call.operation["update ".len()..]
        );
        let (group, plural) = (resource.group, resource.plural);
        call.rule =
            format!("{{apiGroups: [{group}], resources: [{plural}/status], verbs: [update]}}");
        self.put(resource, call, object).await
    }

    async fn put<S, T>(
        &self,
        resource: &Resource<S, T>,
        mut call: Call<'_>,
        object: &mut Object<S, T>,
    ) -> Result<Written>
    where
        S: Serialize + DeserializeOwned,
        T: Serialize + DeserializeOwned,
    {
        let body = resource.whole(&object.metadata(), &object.spec, object.status.as_ref());
        call.path = format!("{}?{AS_MANAGER}", call.path);
        let operation = call.operation.clone();
        let stored = self
            .call(Call {
                body: Some((JSON, &body)),
                ..call
            })
            .await?;
        Ok(match stored {
            Outcome::Done(stored) => {
                *object = one(stored, operation)?;
                Written::Done
            }
            Outcome::Conflict => Written::Conflict,
            Outcome::NotFound => Written::Missing,
        })
    }

    /// Deletes an object that has still the version that was read.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn delete<S, T>(
        &self,
        resource: &Resource<S, T>,
        object: &Object<S, T>,
    ) -> Result<Written> {
        let mut call = resource.call(self, Method::DELETE, "delete", &object.name);
        let body = json!({"preconditions":
            {"uid": object.uid, "resourceVersion": object.version}});
        call.body = Some((JSON, &body));
        Ok(match self.call(call).await? {
            Outcome::Done(_) => Written::Done,
            Outcome::Conflict => Written::Conflict,
            Outcome::NotFound => Written::Missing,
        })
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte)
}

fn one<S, T>(object: Value, operation: String) -> Result<Object<S, T>>
where
    S: DeserializeOwned,
    T: DeserializeOwned,
{
    Object::read(object).map_err(|Unreadable { why, .. }| Error::Unreadable { operation, why })
}

fn bounded(annotations: &BTreeMap<String, String>, operation: &str) -> Result<()> {
    let length = |(key, value): (&String, &String)| key.len() + value.len();
    if annotations.iter().map(length).sum::<usize>() <= ANNOTATIONS_MAX {
        return Ok(());
    }
    Err(Error::Unreadable {
        operation: operation.to_owned(),
        why: "its annotations have more than 256 KiB".to_owned(),
    })
}

fn conflict(operation: String) -> Error {
    let why = "is a conflict";
    Error::Answer { operation, why }
}

#[cfg(test)]
mod tests;
