//! Longhorn's own faces of a backing image manager, as its control plane, its other managers and its
//! users know them: gRPC ([`grpc`]) and the REST of the sync server ([`rest`]).
//!
//! Both are translations of one set of operations on files ([`files`]). What is on the wire is the
//! incumbent's, byte for byte; docs/compatibility.md lists where we differ on purpose. Our own API is
//! [`crate::service`]. Files go from process to process by [`ssync`].

pub mod address;
pub mod data_source;
pub mod data_source_client;
pub mod download;
pub mod files;
pub mod grpc;
pub mod info;
pub mod multipart;
pub mod plain_http;
pub mod query;
pub mod rest;
pub mod ssync;
pub mod transfer;

pub use files::Files;
pub use info::FileInfo;
