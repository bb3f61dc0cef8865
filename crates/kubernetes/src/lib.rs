//! The few calls to the Kubernetes API that the programs make, and the only place that makes them
//! (`docs/adr/0015-kubernetes-client.md`): whose token is this, what is in a Secret or a ConfigMap, and changing
//! one unless somebody else has.
//!
//! | module | owns |
//! |---|---|
//! | `api` | the connection: where the API server is, whom to believe, who we are; the bounds of an answer |
//! | `objects` | Secrets and ConfigMaps, read and changed by compare-and-swap |
//! | `review` | from a token of a ServiceAccount to the pod that has it |
//!
//! What the answers are used for is not known here. Neither tokens nor the contents of Secrets are in any error, log
//! line or `Debug` text.
#![warn(missing_docs)]

mod api;
mod error;
mod objects;
mod review;

pub use api::{ACCOUNT_DIR, Api, is_name};
pub use error::{Error, Result};
pub use objects::{Change, Entries, Kind, Stored, Written};
pub use review::{Reviewed, TokenPod};
