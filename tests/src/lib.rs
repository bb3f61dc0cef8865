//! The harness of the end-to-end tests, the demonstration and the benchmarks.
//!
//! It drives the built programs as users do: by command line, by gRPC over TCP and unix sockets,
//! by the files on a disk. It knows nothing of their insides: of our crates it uses only the
//! generated protocol, the vocabulary, and what makes certificates.
//!
//! A harness has no caller for its errors: if the machine does not do what it must, it panics with
//! the operation and the object, and every guard cleans up.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a harness: a broken machine ends the test, and what it says is its result"
)]

pub mod addresses;
pub mod api_server;
pub mod backup_site;
pub mod baseimage;
pub mod capture;
pub mod certificates;
pub mod churn;
pub mod cluster;
pub mod command;
pub mod csi;
pub mod data_source;
pub mod disk;
pub mod documents;
pub mod export;
pub mod fan_out;
pub mod flexvolume;
pub mod kube_api;
pub mod leftovers;
pub mod life;
pub mod longhorn;
pub mod manager;
pub mod modules;
pub mod needs;
pub mod netns;
pub mod node;
pub mod noise;
pub mod ports;
pub mod power;
pub mod process;
pub mod programs;
pub mod registry;
pub mod requests;
pub mod s3;
pub mod sandbox;
pub mod server;
pub mod sockets;
pub mod ssync;
pub mod stuck;
pub mod ui;
pub mod vm;
pub mod wait;
pub mod web;

pub use addresses::AddressFile;
pub use api_server::{ApiServer, PodToken};
pub use disk::{Disk, FileSystem};
pub use kube_api::KubeApi;
pub use manager::Manager;
pub use needs::Need;
pub use node::Node;
pub use process::Process;
pub use registry::Registry;
pub use sandbox::Sandbox;

use std::future::Future;
use std::sync::OnceLock;

/// Runs a future to its end: tests are plain threads, so that every guard is dropped in order.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME
        .get_or_init(|| tokio::runtime::Runtime::new().expect("start the tokio runtime"))
        .block_on(future)
}

/// Returns from the test with `skipped: needs …` unless the machine has all of these.
///
/// `needs!(Need::Root, Need::LoopMount, Need::Tool("mkfs.xfs"))`.
#[macro_export]
macro_rules! needs {
    ($($need:expr),+ $(,)?) => {
        if let Some(missing) = $crate::needs::missing(&[$($need),+]) {
            $crate::needs::skip(&missing);
            return;
        }
    };
}
