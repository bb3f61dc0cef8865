//! The few calls to the Kubernetes API that the programs make, and the only place that makes them
//! (`docs/adr/0018-custom-resources.md`): whose token is this, what is in a Secret or a ConfigMap, objects of our own
//! kinds, who leads, and Events.
//!
//! | module | owns |
//! |---|---|
//! | `api` | the connection: where the API server is, whom to believe, who we are; the bounds of an answer |
//! | `objects` | Secrets and ConfigMaps, read and changed by compare-and-swap |
//! | `resource`, `verbs` | objects with a spec and a status, of any kind: as values, and changed by compare-and-swap |
//! | `condition` | conditions in a status |
//! | `election`, `lease` | which of several processes works: decisions, and the Lease that they stand in |
//! | `events` | what `kubectl describe` says of an object |
//! | `review` | from a token to the pod or the person that has it, and what a person may do |
//!
//! What the answers are used for is not known here. Neither tokens nor the contents of Secrets are in any error, log
//! line or `Debug` text.
#![warn(missing_docs)]

mod api;
mod condition;
mod election;
mod error;
mod events;
mod lease;
mod nodes;
mod objects;
mod resource;
mod review;
mod verbs;

pub use api::{ACCOUNT_DIR, Api, is_name};
pub use condition::{Condition, Conditioned};
pub use error::{Error, Result};
pub use events::{Events, Level, Regarding};
pub use lease::Leadership;
pub use objects::{Change, Entries, Kind, Stored, Written};
pub use resource::{Created, Listed, Object, Resource, Unreadable};
pub use review::{Reviewed, TokenPod, User};
