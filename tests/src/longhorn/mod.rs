//! The manager as Longhorn's control plane, its other managers and its users meet it: REST by hand,
//! gRPC as bytes, the disk at `/data`.

mod calls;
mod daemon;
mod fixture;
pub mod frames;
mod grpc;
mod http;
mod many;
mod pod;
mod rest;
mod sealed;

pub use calls::spec;
pub use daemon::{LonghornDaemon, in_namespaces};
pub use fixture::{Exchange, GrpcExchange, cli, empty, from_hex, grpc, rest};
pub use grpc::{RawGrpc, SERVICE};
pub use http::{Response, request};
pub use many::fill;
pub use pod::Pod;
pub use rest::{Files, assert_sidecar_agrees, file_id};
pub use sealed::{sealed, sealed_as};
