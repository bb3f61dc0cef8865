//! Disk-image formats, container-image layers and sparse extents: blocking, no network.

pub mod layer;
pub mod oci;
