//! The node service (`longhorn.node.v1`): what the privileged side of a node does for others, in few calls.
//!
//! It translates between the wire and [`host::staging`], which attaches, keeps the records and holds the locks, and
//! [`host::drbd`], for which it keeps the layouts of replicated volumes. It parses no image and no partition table, and mounts nothing. Who may call is decided
//! around it ([`router`]): at a unix socket root, over the network the table of roles.
#![warn(missing_docs)]

mod error;
mod exposed;
mod faces;
mod kept;
mod replicas;
mod service;
mod show;

pub use error::{Error, Result};
pub use exposed::Settings as ExposeSettings;
pub use faces::router;
pub use replicas::StorageAddress;
pub use service::{Observe, Service, Settings};

// A method that nobody decided about does not compile.
const _: () = assert!(
    trust::access::lists_all(proto::NODE_METHODS),
    "a method of the node service has no line in trust::access::TABLE"
);
