//! Builds and inspects base images: the tool for authors of base images.
//!
//! Owns everything from a directory to a container image: the scan of the directory, the file
//! system, the disk image, its packaging and the outputs. It knows nothing of the daemon's store,
//! and needs no root, no loop device and no network block device. The program is [`cli`].

mod build;
pub mod cli;
mod disk;
mod error;
mod extract;
mod foreign;
mod fs;
mod inspect;
mod layer;
mod location;
mod manifest;
mod output;
mod progress;
mod registry;
mod request;
mod tool;

pub use error::{Error, Result};
