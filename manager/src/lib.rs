//! The backing image manager: one daemon per disk that stores, verifies and serves images, and makes
//! volumes from them; and the command line that drives it.
//!
//! The libraries do the work: `store` keeps bytes, `catalog` fetches them and leads each image through its
//! life cycle, `volume` clones, `sync` copies images between managers, `longhorn` serves Longhorn's APIs. Here
//! [`service`] serves our own gRPC API, [`observe`] health and metrics, [`upkeep`] does periodic work,
//! [`daemon`] connects everything, [`cli`] is the command line.

pub mod arguments;
pub mod cli;
pub mod daemon;
pub mod doctor;
mod faces;
pub mod memory;
pub mod observe;
pub mod service;
pub mod upkeep;
