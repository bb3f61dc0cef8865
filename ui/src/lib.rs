//! The web UI: volumes, images and disks for people, by the managers' and node services' interfaces.
#![warn(missing_docs)]

pub mod access;
pub mod auth;
mod error;
pub mod http;
pub mod pages;

pub use error::{Error, Result};
