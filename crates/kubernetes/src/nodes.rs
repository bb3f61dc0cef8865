//! What the API server knows of a node.

use reqwest::Method;

use crate::api::{Call, Outcome, is_name};
use crate::{Api, Result};

/// The well-known label of a node's zone.
const ZONE: &str = "topology.kubernetes.io/zone";

impl Api {
    /// The zone of a node; `None`: it is in none, or there is no such node.
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub async fn zone_of(&self, node: &str) -> Result<Option<String>> {
        if !is_name(node) {
            return Ok(None);
        }
        let call = Call {
            method: Method::GET,
            path: format!("/api/v1/nodes/{node}"),
            body: None,
            operation: format!("read the Node {node}"),
            rule: "{apiGroups: [\"\"], resources: [nodes], verbs: [get]}".to_owned(),
            shown: true,
        };
        let Outcome::Done(object) = self.call(call).await? else {
            return Ok(None);
        };
        let zone = object["metadata"]["labels"][ZONE].as_str();
        // As long as the value of a label may be.
        Ok(zone
            .filter(|zone| (1..=63).contains(&zone.len()))
            .map(str::to_owned))
    }
}
