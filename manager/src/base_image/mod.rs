//! Builds base images, and says what is in one: the product's tool for whoever makes the data.
//!
//! Owns everything from a directory to a container image: the scan of the directory, the file
//! system, the disk image, its packaging and the outputs. It knows nothing of the daemon's store,
//! and needs no root, no loop device and no network block device.

pub mod cli;
mod error;
mod fs;
mod tool;
mod tree;

pub use error::{Error, Result};
