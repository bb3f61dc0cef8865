//! ssync, Longhorn's way to copy a file from one process to another, in both directions.
//!
//! A *sender* pushes the file over plain HTTP to a *receiver* that exists only for this copy: a
//! manager to a manager (`Sync` and `Send`), or a replica of a volume to a data source (export).
//! Our own managers use `sync` between each other; this protocol is for Go's managers and for
//! replicas.
//!
//! | file | holds |
//! |---|---|
//! | `wire` | the requests |
//! | `receiver`, `connection`, `session` | what is received, and when it is complete |
//! | `sender`, `plan`, `batches` | what is sent, how a file is cut, and in how much memory |
//! | `invite` | how a sender is asked to send |
//! | `convert` | the qcow2 form of what came |
//! | `ports` | the ports of receivers |

mod batches;
mod connection;
mod convert;
mod invite;
mod plan;
pub mod ports;
mod receiver;
mod sender;
mod session;
pub mod wire;

pub use batches::Batches;
pub use invite::Invite;
pub use receiver::{Patience, Receiver};
pub use sender::{Sending, Sent};

#[cfg(test)]
mod tests;
