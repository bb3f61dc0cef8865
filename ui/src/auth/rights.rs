//! What people may do, by the rules of the cluster: asked of the API server, and kept for a moment.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use kubernetes::{Api, User};

use crate::access::{API_GROUP, Person, Resource, Verb};
use crate::{Error, Result};

/// How long an answer is good: within this time, whoever loses a right keeps it.
const KEPT: Duration = Duration::from_secs(10);
/// Answers that are kept.
const KEPT_MAX: usize = 4096;

#[derive(Debug, PartialEq, Eq, Hash)]
struct Question {
    name: String,
    groups: Vec<String>,
    verb: Verb,
    resource: Resource,
}

/// The rules of the cluster.
#[derive(Debug)]
pub(super) struct Rights {
    api: Api,
    kept: Mutex<HashMap<Question, (Instant, bool)>>,
}

impl Rights {
    pub(super) fn new(api: Api) -> Self {
        let kept = Mutex::default();
        Self { api, kept }
    }

    /// The person with this token; `None`: it is not good.
    pub(super) async fn whose(&self, token: &str) -> Result<Option<Person>> {
        let user = self.api.review_person(token).await.map_err(Error::from)?;
        Ok(user.map(|user| Person {
            name: user.name,
            groups: user.groups,
            signed_in: true,
        }))
    }

    /// Whether they may.
    pub(super) async fn may(
        &self,
        person: &Person,
        verb: Verb,
        resource: Resource,
    ) -> Result<bool> {
        let question = Question {
            name: person.name.clone(),
            groups: person.groups.clone(),
            verb,
            resource,
        };
        if let Some(known) = self.known(&question) {
            return Ok(known);
        }
        let user = User::new(person.name.clone(), person.groups.clone());
        let asked = Instant::now();
        let may = self
            .api
            .may(&user, verb.as_str(), API_GROUP, resource.as_str())
            .await?;
        self.keep(question, asked, may);
        Ok(may)
    }

    fn known(&self, question: &Question) -> Option<bool> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let (asked, may) = kept.get(question)?;
        (asked.elapsed() < KEPT).then_some(*may)
    }

    fn keep(&self, question: Question, asked: Instant, may: bool) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT_MAX {
            kept.retain(|_, (asked, _)| asked.elapsed() < KEPT);
        }
        if kept.len() < KEPT_MAX {
            kept.insert(question, (asked, may));
        }
    }
}
