//! Longhorn's own faces of a backing image manager, as its control plane, its other managers and its
//! users know them: gRPC ([`grpc`]) and the REST of the sync server ([`rest`]).
//!
//! Both are translations of one set of operations on files ([`files`]). What is on the wire is the
//! incumbent's, byte for byte; docs/compatibility.md lists where we differ on purpose. Our own API is
//! the daemon's. What only Longhorn asks for and shows of an image is kept here ([`memory`]). Files go from process to process by [`ssync`].

pub mod address;
mod backups;
pub mod clone;
pub mod data_source;
pub mod data_source_client;
pub mod download;
mod error;
pub mod files;
pub mod from_manager;
pub mod grpc;
pub mod info;
pub mod luks;
pub mod memory;
pub mod multipart;
pub mod plain_http;
pub mod query;
pub mod reach;
pub mod rest;
pub mod ssync;
pub mod transfer;

pub use error::{Error, Result};
pub use files::Files;
pub use info::FileInfo;
pub use memory::Registration;
