//! The gRPC services that the programs of this project speak, as generated. No logic lives here.
#![allow(
    clippy::pedantic,
    unreachable_pub,
    unused_qualifications,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]

/// The Container Storage Interface: `csi.v1`, as of version 1.12 of the specification.
pub mod csi {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("csi.v1");
    }
}

/// The manager's own API: `longhorn.storage.v1`.
pub mod storage {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("longhorn.storage.v1");
    }
}

/// The certificate authority of a cluster: `longhorn.trust.v1`.
pub mod trust {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("longhorn.trust.v1");
    }
}

/// The node service: `longhorn.node.v1`.
pub mod node {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("longhorn.node.v1");
    }
}

/// Longhorn's `BackingImageManagerService`: `bimrpc`, API version 3.
pub mod bimrpc {
    tonic::include_proto!("bimrpc");
}

/// Longhorn's `SyncAgentService` of a replica, as far as a data source needs it: `ptypes`.
pub mod enginerpc {
    tonic::include_proto!("ptypes");
}

/// The kubelet's plugin registration, version 1.
pub mod pluginregistration {
    tonic::include_proto!("pluginregistration");
}

/// A `google.protobuf.FileDescriptorSet` of the services that the manager serves, for reflection.
pub const MANAGER_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/manager.bin"));

/// The methods of those services, as they are called: `/package.Service/Method`.
pub const MANAGER_METHODS: &[&str] = include!(concat!(env!("OUT_DIR"), "/manager_methods.rs"));
/// The methods of the node service.
pub const NODE_METHODS: &[&str] = include!(concat!(env!("OUT_DIR"), "/node_methods.rs"));
/// The methods of the certificate authority.
pub const TRUST_METHODS: &[&str] = include!(concat!(env!("OUT_DIR"), "/trust_methods.rs"));
