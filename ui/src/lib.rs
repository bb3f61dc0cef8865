//! The web UI: volumes, images and disks for people, by the managers' and node services' interfaces.
//!
//! | module | owns |
//! |---|---|
//! | [`access`] | the table of who may ask for each route |
//! | [`seen`] | what is known of the cluster at one moment, and filters of it |
//! | [`look`] | looking at the cluster, one look for all |
//! | [`pages`] | pages, as functions of what is known |
//! | [`show`] | handlers of pages |
//! | [`act`] | handlers of what people do |
//! | [`upload`], [`download`] | the bytes of images, which are passed on |
//! | [`journal`] | the last things that were done |
//! | [`routes`], [`assets`] | which handler answers what; the files that pages need |
//! | [`options`] | the command line |
//!
//! It knows the managers and the node services by `client` alone, and nothing of disks, images or the kernel.
#![warn(missing_docs)]

pub mod access;
pub mod act;
pub mod assets;
pub mod download;
mod error;
pub mod http;
pub mod journal;
pub mod look;
pub mod options;
pub mod pages;
pub mod routes;
pub mod seen;
pub mod show;
pub mod upload;

use std::sync::Arc;

use tokio::net::TcpListener;
use trust::Dialer;

pub use error::{Error, Result};
pub use options::{Args, LogFormat};

use crate::act::App;
use crate::look::Look;

/// Serves until `stop`.
///
/// # Errors
/// The options contradict each other, or the address cannot be bound.
pub async fn run(args: Args, stop: impl Future<Output = ()> + Send + 'static) -> Result<()> {
    let dialer = match args.certificates.source()? {
        None => Dialer::Plain,
        Some(source) => {
            let (held, keeping) = client::hold(source);
            tokio::spawn(keeping);
            Dialer::Proven(held)
        }
    };
    let app = App {
        look: Look::new(args.managers()?, args.nodes()?, &dialer)?,
        inspector: Arc::default(),
        creations: act::Creations::default(),
        journal: journal::Journal::default(),
        dialer,
        driver: args.driver()?.into(),
    };
    let listener = TcpListener::bind(&args.listen)
        .await
        .map_err(Error::io("listen on", &*args.listen))?;
    let address = listener.local_addr();
    let address = address.map_err(Error::io("listen on", &*args.listen))?;
    tracing::info!(%address, "serving");
    let router = routes::router(app);
    axum::serve(listener, router)
        .with_graceful_shutdown(stop)
        .await
        .map_err(Error::io("serve", address.to_string()))
}
