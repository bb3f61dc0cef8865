//! Typed clients of the backing image manager and of the node service, with one address and one method per call,
//! and the parts that both node programs need to form requests: [`parameters`], [`PullSecret`], [`owner`],
//! [`origin`].
//!
//! It owns the connection, the deadline of each call, and the table between error kinds and gRPC
//! codes. It checks names before it sends them. It decides nothing: CSI, FlexVolume and the command
//! line interpret the answers.
#![warn(missing_docs)]

mod address;
mod backups;
mod census;
pub mod certificates;
mod client;
mod cluster;
mod code;
mod error;
mod hold;
mod images;
mod longhorn;
mod node;
pub mod origin;
pub mod owner;
pub mod parameters;
mod pull_secret;
pub mod replicas;
#[cfg(feature = "terminal")]
pub mod terminal;
#[cfg(feature = "terminal")]
pub mod upload;
mod volumes;

pub use address::{Address, InvalidAddress};
pub use backups::{BackupTarget, backup_failure, backup_state_name};
pub use census::{Census, Member};
pub use client::{Client, DEADLINE};
pub use cluster::{Cluster, LOOK, Look, Wait};
pub use code::{code_of, kind_of};
pub use error::{Error, Result, there};
pub use hold::{hold, hold_by_token, hold_once};
pub use images::{Blocks, ImageOutcome, Watch, progress, state_name};
pub use longhorn::{Download, LIST_ALL, Longhorn, PEER_ADDRESS};
pub use node::{NODE_DEADLINE, Node};
pub use proto::bimrpc;
pub use proto::node::v1 as node_wire;
pub use proto::storage::v1 as wire;
pub use pull_secret::PullSecret;
pub use volumes::{has_source, is_blank_copy};
