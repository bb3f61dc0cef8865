//! A typed client of the backing image manager: one address in, one method per call out.
//!
//! It owns the connection, the deadline of each call and the one table between error kinds and gRPC
//! codes, both ways. Names are checked before they are sent. It decides nothing: what an answer means
//! for CSI, FlexVolume or a person at a terminal is theirs to say.

mod address;
mod client;
mod code;
mod error;
mod images;
mod volumes;

pub use address::Address;
pub use client::{Client, DEADLINE};
pub use code::{code_of, kind_of};
pub use error::{Error, Result};
pub use images::{ImageOutcome, Watch};
pub use proto::storage::v1 as wire;
