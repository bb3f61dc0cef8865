//! The vocabulary of the project: names, sizes, checksums and error kinds.
//!
//! Everything here is a value: parsed once at the edge, then passed on as proof that it was checked.
//! This crate knows nothing of files, networks, gRPC or Kubernetes.
#![warn(missing_docs)]

mod authority;
mod cancel;
mod checksum;
pub mod crash;
mod ids;
mod kind;
mod quantity;
mod report;
mod size;

pub use authority::is_authority;
pub use cancel::Cancel;
pub use checksum::{Checksum, Sha512, UnknownChecksum};
pub use ids::{DiskUuid, ImageId, ImageName, ImageUuid, InvalidName, NodeId, VolumeName};
pub use kind::{Classify, ErrorKind};
pub use quantity::{InvalidQuantity, parse_quantity};
pub use report::{Report, report, shown};
pub use size::{BLOCK, ByteSize, SECTOR};
