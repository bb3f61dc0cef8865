//! Sync: managers give images to each other, over plain HTTP/1.1.
//!
//! ```text
//!   receiver                                        sender (or another receiver)
//!   find      GET …/manifest  ───────────────────▶  its chunk manifest: size, SHA-512, BLAKE3s
//!   planner   GET …/have      ───────────────────▶  the chunks that it can send
//!   receive   GET …/data, Range: bytes=…  ───────▶  some chunks, never a hole
//!             POST …/check    ───────────────────▶  is your copy of that chunk right?
//! ```
//!
//! The manifest is the contract: every chunk is verified by its BLAKE3 digest on arrival, whatever
//! peer sent it, and the whole by its SHA-512 before it becomes an image. A receiver serves its
//! chunks to others while it receives, and each answer names the others: so N receivers fetch
//! little more than one image from the source, and the rest from each other.
//!
//! [`planner`] decides and performs no I/O. [`ask`] speaks to one peer, [`receive`] executes a
//! copy, [`serve`] answers. This crate knows no store and no catalog: [`offer`] and [`target`] define
//! what it needs from them. docs/sync.md describes the protocol.

pub mod address;
mod answer;
pub mod ask;
pub mod bits;
pub mod buffers;
pub mod connect;
mod connection;
mod error;
mod fetch;
pub mod files;
mod find;
pub mod manifest;
pub mod metrics;
pub mod offer;
pub mod planner;
pub mod protocol;
pub mod rate;
pub mod receive;
pub mod serve;
pub mod swarm;
pub mod target;

pub use address::PeerAddress;
pub use connect::{Connect, Patience};
pub use error::Error;
pub use receive::Receiver;
pub use swarm::{Settings, Swarm};
pub use target::Wanted;

/// Peers known for one sync at most.
const PEERS_KNOWN_MAX: usize = 32;
