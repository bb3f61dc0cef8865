//! The backing image manager: one daemon per disk that stores, verifies and serves images, and makes
//! volumes from them; and the command line that drives it.
//!
//! From the bottom up: [`store`] keeps bytes, [`source`] fetches them, [`catalog`] leads each image
//! through its life cycle, [`volume`] clones, [`service`] serves our own gRPC API and [`longhorn`]
//! Longhorn's, [`listen`] limits peers, [`daemon`] connects everything, [`cli`] is the command
//! line.

pub mod catalog;
pub mod cli;
pub mod content;
pub mod daemon;
pub mod doctor;
mod error;
pub mod longhorn;
pub mod memory;
pub mod observe;
pub mod service;
pub mod source;
pub mod store;
pub mod sync;
pub mod upkeep;
pub mod volume;

pub use error::{Error, Result};
