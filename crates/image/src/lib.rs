//! Disk images: their formats, their conversion, the container images that carry them, and the
//! extents of the files that hold them.
//!
//! Everything is blocking, and nothing here knows of networks, gRPC or Kubernetes. Every byte of an
//! image is taken to be hostile.
//!
//! | module | holds |
//! |---|---|
//! | [`Format`] | the formats that are taken, told by magic once, at import |
//! | [`Image`] | an open image, read as a [`probe::Disk`] |
//! | [`qcow2`] | the qcow2 format |
//! | [`beginning`] | what the first bytes of an image tell |
//! | [`convert`] | the raw form of an image |
//! | [`extents`] | where the data of a file is, clones, sparse copies |
//! | [`changes`] | in which ranges two files differ that share extents |
//! | [`packed`] | images that come as one compressed file |
//! | [`refuse_no_disk`] | archives, pages and pointers, which are no disks |
//! | [`layer`], [`oci`] | layers of container images, and their layouts and archives |

pub mod beginning;
pub mod changes;
pub mod convert;
mod digest;
mod error;
pub mod extents;
mod fiemap;
mod format;
pub mod layer;
mod limits;
mod no_disk;
pub mod oci;
mod open;
pub mod packed;
mod packing;
pub mod qcow2;

pub use error::{Error, Refusal, Result};
pub use format::{Format, UnknownFormat};
pub use limits::Limits;
pub use no_disk::refuse_no_disk;
pub use open::Image;
