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
//! | [`auth`] | who may ask, decided before every handler |
//! | [`http`] | answers of HTTP, their headers and bounds, and TLS |
//! | [`routes`], [`assets`] | which handler answers what; the files that pages need |
//! | [`options`] | the command line |
//!
//! It knows the managers and the node services by `client` alone, and nothing of disks, images or the kernel.
#![warn(missing_docs)]

pub mod access;
pub mod act;
pub mod assets;
pub mod auth;
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

use listen::{BoundAddresses, Listener, Protocol, Security};
use tokio_util::sync::CancellationToken;
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
    let (gate, listener) = listen(&args).await?;
    let router = auth::protect(routes::router(app), gate);
    let stopping = CancellationToken::new();
    tokio::spawn({
        let stopping = stopping.clone();
        async move {
            stop.await;
            stopping.cancel();
        }
    });
    http::serve(listener, router, stopping).await;
    Ok(())
}

/// The port, and what decides about requests that come to it.
async fn listen(args: &Args) -> Result<(auth::Gate, Listener)> {
    let io = |operation| Error::io(operation, &*args.listen);
    let address = listen::address(&args.listen).map_err(client::Error::Address)?;
    let mut listener = Listener::bind(&address, Protocol::Http1)
        .await
        .map_err(io("listen on"))?;
    // The address that was bound: a name, or port 0, says too little.
    let gate = args.people.check(listener.local_address()).await?;
    if let Some(files) = args.people.tls() {
        listener = listener.secured(Security {
            people: Some(http::watch(files).await?),
            ..Security::default()
        });
    }
    let bound = BoundAddresses::default().with("http", &listener);
    bound
        .write(args.address_file.as_deref())
        .map_err(io("write the address file of"))?;
    tracing::info!("serving {bound}");
    Ok((gate, listener))
}

/// Writes a file of a test.
#[cfg(test)]
fn written(path: impl AsRef<std::path::Path>, bytes: impl AsRef<[u8]>) {
    use std::io::Write as _;
    let mut file = std::fs::File::create(path).unwrap();
    file.write_all(bytes.as_ref()).unwrap();
}
