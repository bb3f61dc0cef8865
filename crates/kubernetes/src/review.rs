//! From a token to who has it, and from who somebody is to what they may do.
//!
//! From a token of a ServiceAccount to the pod that has it: the API server says whose token it is (TokenReview),
//! and the pod itself on which node it is. Since Kubernetes 1.30 the TokenReview says that too; but for ten seconds it
//! also accepts the token of a pod that has been deleted (the API server remembers tokens), so the pod is read anyway.

use reqwest::Method;
use serde::Deserialize;
use serde_json::json;

use crate::api::{Call, Outcome, is_name};
use crate::{Api, Error, Result};

/// The largest token; one of a ServiceAccount has some 1,200 bytes.
const TOKEN_MAX: usize = 16 << 10;
/// Keys of `status.user.extra` in a TokenReview.
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
/// What the name of a ServiceAccount begins with, as a user.
const ACCOUNT: &str = "system:serviceaccount:";

/// The pod that has a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenPod {
    /// The namespace of the pod and of its account.
    pub namespace: String,
    /// The name of its ServiceAccount.
    pub account: String,
    /// The name of the pod.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// What the API server says of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reviewed {
    /// It is the token of a pod, for our audience.
    Pod(TokenPod),
    /// It is good, but of a person or of an account without a pod.
    NoPod {
        /// The name of the user.
        user: String,
    },
    /// It is not good: forged, expired, of an account or a pod that is gone, or for somebody else.
    Rejected,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Status {
    authenticated: bool,
    user: User,
    audiences: Vec<String>,
}

/// Somebody whom the API server knows, or of whom it is to be asked.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Default)]
#[serde(default)]
pub struct User {
    /// Their name.
    #[serde(rename = "username")]
    pub name: String,
    /// Their groups.
    pub groups: Vec<String>,
    extra: std::collections::BTreeMap<String, Vec<String>>,
}

impl User {
    /// Somebody whom somebody else has found out.
    pub fn new(name: String, groups: Vec<String>) -> Self {
        Self {
            name,
            groups,
            extra: std::collections::BTreeMap::new(),
        }
    }
}

impl Api {
    /// Asks whose token this is. It has to be for `audience`.
    ///
    /// # Errors
    /// The API server cannot be asked: nothing is known of the token.
    pub async fn review(&self, token: &str, audience: &str) -> Result<Reviewed> {
        let spec = json!({"token": token, "audiences": [audience]});
        let Some(status) = self.token_review(token, spec).await? else {
            return Ok(Reviewed::Rejected);
        };
        // A server that knows no audiences names none, and has not checked ours.
        let for_us = status.audiences.iter().any(|one| one == audience);
        if !status.authenticated || !for_us {
            return Ok(Reviewed::Rejected);
        }
        Ok(whose(&status.user))
    }

    /// Asks which person, or which account, has this token. It has to be one for the API server itself, as
    /// `kubectl` uses it. `None`: it is not good.
    ///
    /// # Errors
    /// The API server cannot be asked: nothing is known of the token.
    pub async fn review_person(&self, token: &str) -> Result<Option<User>> {
        let status = self.token_review(token, json!({"token": token})).await?;
        let user = status.filter(|status| status.authenticated);
        let user = user.map(|status| status.user);
        Ok(user.filter(|user| !user.name.is_empty()))
    }

    /// Whether the cluster's rules let a user do this with all objects of a resource, which need not exist.
    ///
    /// # Errors
    /// The API server cannot be asked: nothing is known.
    pub async fn may(&self, user: &User, verb: &str, group: &str, resource: &str) -> Result<bool> {
        let body = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": user.name, "groups": user.groups,
                "resourceAttributes": {"verb": verb, "group": group, "resource": resource}},
        });
        let operation = "find out what somebody may do".to_owned();
        let call = Call {
            method: Method::POST,
            path: "/apis/authorization.k8s.io/v1/subjectaccessreviews".to_owned(),
            body: Some(("application/json", &body)),
            operation: operation.clone(),
            rule: "{apiGroups: [authorization.k8s.io], resources: [subjectaccessreviews], verbs: [create]}"
                .to_owned(),
            shown: false,
        };
        let unexpected = |why| Error::Answer { operation, why };
        let Outcome::Done(answer) = self.call(call).await? else {
            return Err(unexpected("is that there are no SubjectAccessReviews"));
        };
        match answer["status"]["allowed"].as_bool() {
            Some(allowed) => Ok(allowed && answer["status"]["denied"] != true),
            None => Err(unexpected("is not a SubjectAccessReview")),
        }
    }

    /// What the API server says of a token; `None`: it is no token at all.
    async fn token_review(&self, token: &str, spec: serde_json::Value) -> Result<Option<Status>> {
        if token.is_empty() || token.len() > TOKEN_MAX {
            return Ok(None);
        }
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": spec,
        });
        let operation = "find out whose token this is".to_owned();
        let call = Call {
            method: Method::POST,
            path: "/apis/authentication.k8s.io/v1/tokenreviews".to_owned(),
            body: Some(("application/json", &body)),
            operation: operation.clone(),
            rule:
                "{apiGroups: [authentication.k8s.io], resources: [tokenreviews], verbs: [create]}"
                    .to_owned(),
            shown: false,
        };
        let Outcome::Done(mut answer) = self.call(call).await? else {
            let why = "is that there are no TokenReviews";
            return Err(Error::Answer { operation, why });
        };
        let status = serde_json::from_value(answer["status"].take());
        status.map(Some).map_err(|_| Error::Answer {
            operation,
            why: "is not a TokenReview",
        })
    }

    /// The node of a pod of our own namespace. `None`: there is no such pod any more, or it is another one of
    /// the same name.
    ///
    /// # Errors
    /// The API server cannot be asked.
    pub async fn node_of(&self, pod: &TokenPod) -> Result<Option<String>> {
        let (namespace, name) = (self.namespace(), &pod.name);
        let call = Call {
            method: Method::GET,
            path: format!("/api/v1/namespaces/{namespace}/pods/{name}"),
            body: None,
            operation: format!("read the pod {namespace}/{name}"),
            rule: "{apiGroups: [\"\"], resources: [pods], verbs: [get]}".to_owned(),
            shown: false,
        };
        if pod.namespace != namespace || !is_name(name) {
            return Ok(None);
        }
        Ok(match self.call(call).await? {
            Outcome::Done(object) if object["metadata"]["uid"].as_str() == Some(&pod.uid) => {
                let node = object["spec"]["nodeName"].as_str();
                node.filter(|node| !node.is_empty()).map(str::to_owned)
            }
            Outcome::Done(_) | Outcome::NotFound | Outcome::Conflict => None,
        })
    }
}

fn whose(user: &User) -> Reviewed {
    let extra = |key: &str| match user.extra.get(key).map(Vec::as_slice) {
        Some([one]) if !one.is_empty() => Some(one.clone()),
        _ => None,
    };
    let account = user.name.strip_prefix(ACCOUNT);
    let account = account.and_then(|account| account.split_once(':'));
    match (account, extra(POD_NAME), extra(POD_UID)) {
        (Some((namespace, account)), Some(name), Some(uid)) => Reviewed::Pod(TokenPod {
            namespace: namespace.to_owned(),
            account: account.to_owned(),
            name,
            uid,
        }),
        _ => Reviewed::NoPod {
            user: types::shown(&user.name),
        },
    }
}
