//! Conditions in the status of an object: what `kubectl wait --for=condition=…` waits for.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A condition, as Kubernetes has them (`metav1.Condition`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What it says: `Healthy`.
    pub r#type: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Why, in a word.
    pub reason: String,
    /// The same in a sentence.
    pub message: String,
    /// Since when the status is as it is (RFC 3339).
    pub last_transition_time: String,
}

impl Condition {
    /// A condition that holds, does not, or (`None`) is not known to hold, since now.
    pub fn new(kind: &str, holds: Option<bool>, reason: &str, message: &str) -> Self {
        let status = match holds {
            Some(true) => "True",
            Some(false) => "False",
            None => "Unknown",
        };
        Self {
            r#type: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            last_transition_time: format!("{:.0}", Timestamp::now()),
        }
    }
}

/// A status with conditions beside its own fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conditioned<T> {
    /// The fields.
    #[serde(flatten)]
    pub status: T,
    /// The conditions.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

impl<T> Conditioned<T> {
    /// A status after `before`: a condition whose status is the same has it since then.
    pub fn after(before: Option<&Self>, status: T, mut conditions: Vec<Condition>) -> Self {
        let known = before.map_or(&[][..], |before| &before.conditions);
        for new in &mut conditions {
            let mut known = known.iter();
            let old = known.find(|old| old.r#type == new.r#type && old.status == new.status);
            if let Some(old) = old {
                new.last_transition_time
                    .clone_from(&old.last_transition_time);
            }
        }
        Self { status, conditions }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_condition_has_its_time_until_it_changes() {
        let long_ago = "2020-01-01T00:00:00Z";
        let before: Conditioned<Value> = serde_json::from_value(json!({"health": "Healthy",
            "conditions": [{"type": "Healthy", "status": "True", "reason": "AsWanted", "message": "",
                "lastTransitionTime": long_ago}]}))
        .unwrap();
        let time = |holds| {
            let next = vec![Condition::new("Healthy", holds, "Other", "words")];
            let after = Conditioned::after(Some(&before), json!({"health": "x"}), next);
            assert_eq!(after.conditions[0].message, "words");
            after.conditions[0].last_transition_time.clone()
        };
        assert_eq!(time(Some(true)), long_ago);
        assert_ne!(time(Some(false)), long_ago);
        assert_ne!(time(None), long_ago);
        let shown = serde_json::to_value(&before).unwrap();
        assert_eq!(shown["health"], "Healthy", "{shown}");
    }
}
