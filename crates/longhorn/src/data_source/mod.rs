//! The data source: a short-lived process that prepares the first copy of one image as a work file of
//! the disk, beside the daemon that serves it, and hands it over.
//!
//! It has two interfaces: its own ([`server`]), with which the control plane queries the progress,
//! clients upload, and the daemon takes the file over; and that of the sync server, for its one
//! file. Its task is on its command line ([`kind`]).

pub mod kind;
mod resumable;
mod server;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use backup_jobs::{Jobs, TargetArgs, Targets};
use clap::Args;
use client::Address;
use fetch::{AddressPolicy, Credentials, Network, Proxies, Tuning};
use ipnet::IpNet;
use listen::{BoundAddresses, Listener, Protocol};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use types::{ImageId, Sha512};

use self::kind::Kind;
use self::server::DataSource;
use super::reach::Transfers;
use super::{Files, address, rest};
use crate::Registration;
use catalog::Catalog;
use store::IoContext;

use crate::error::{Error, Result};
use catalog::source::Sources;
use store::{Disk, ImageStore, Place};

/// Time that running work has to end after the stop signal.
const GRACE: Duration = Duration::from_secs(5);

/// What the control plane says to a data source.
#[derive(Clone, Args)]
pub struct DataSourceArgs {
    /// Directory of the disk
    #[arg(long, default_value = "/data", value_name = "DIR")]
    disk: PathBuf,
    /// Address of the API of the data source
    #[arg(long, default_value = "localhost:8000", value_name = "HOST:PORT",
        value_parser = listen::address)]
    listen: Address,
    /// Address of the sync server for the file
    #[arg(long, default_value = "localhost:8001", value_name = "HOST:PORT",
        value_parser = listen::address)]
    sync_listen: Address,
    /// Name of the backing image
    #[arg(long)]
    name: String,
    /// UUID of the backing image
    #[arg(long)]
    uuid: String,
    /// Source of the data: download, upload, export-from-volume, clone or restore
    #[arg(long, value_name = "TYPE")]
    source_type: String,
    /// Parameter of the source; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    parameters: Vec<(String, String)>,
    /// Expected SHA-512 of the data
    #[arg(long, default_value = "", hide_default_value = true)]
    checksum: String,
    /// Secret of the source; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    credential: Vec<(String, String)>,
    /// Allow downloads from this network although it is loopback, link-local or otherwise special;
    /// may be given several times
    #[arg(long, value_name = "CIDR")]
    allow_address: Vec<IpNet>,
    #[command(flatten)]
    backups: TargetArgs,
    /// File that says which addresses were bound, for a caller that asks for port 0: one line NAME=ADDRESS for
    /// each of http and sync, written when both listen
    #[arg(long, value_name = "FILE")]
    address_file: Option<PathBuf>,
}

impl std::fmt::Debug for DataSourceArgs {
    /// Without what may be secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DataSourceArgs")
            .field("name", &self.name)
            .field("uuid", &self.uuid)
            .field("source_type", &self.source_type)
            .finish_non_exhaustive()
    }
}

/// `KEY=VALUE`, split at the first `=`. The value may be secret: it is not repeated.
fn pair(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some(("", _)) => Err("the key before = is empty".to_owned()),
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => Err("it is not KEY=VALUE".to_owned()),
    }
}

/// Prepares the file and serves until a signal says stop.
pub async fn run(args: DataSourceArgs) -> Result<()> {
    let id = ImageId::new(&args.name, &args.uuid)?;
    let expected = super::query::checksum(&args.checksum)?;
    let parameters: BTreeMap<_, _> = args.parameters.iter().cloned().collect();
    let credential: BTreeMap<_, _> = args.credential.iter().cloned().collect();
    let stop = CancellationToken::new();
    watch_signals(&stop)?;
    let path = args.disk.clone();
    let disk = catalog::blocking(move || Disk::open_for_work(&path)).await?;
    let disk = Arc::new(disk);
    let own = bound(&args.listen).await?;
    let sync = bound(&args.sync_listen).await?;
    let listening = sync.local_address().ok_or_else(|| Error::InvalidField {
        field: "sync-listen",
        why: "it must be HOST:PORT".to_owned(),
    })?;
    let policy = AddressPolicy::new(args.allow_address.iter().copied());
    let transfers = Transfers {
        host: address::for_peers(listening),
        policy: policy.clone(),
        ..Transfers::default()
    };
    let host = (transfers.host, &policy);
    let kind = Kind::read(&args.source_type, &parameters, &credential, host)?;
    drop((args.credential, credential));
    let proxies = Proxies::of_environment();
    if !proxies.is_empty() {
        info!(?proxies, "downloads are reached through a proxy");
    }
    let config = fetch::Config::default();
    let network = Network::with_proxies(config, policy, Tuning::default(), proxies);
    let sources = Sources::new(network, Credentials::anonymous(), Vec::new());
    let store = ImageStore::new(disk.clone(), Place::Work);
    let catalog = Catalog::load(store.clone(), sources, stop.child_token())?;
    let options = backup::Options {
        spool: args.disk.clone(),
        ..backup::Options::default()
    };
    let targets = Targets::new(&args.backups, options)?;
    let backups = Jobs::new(targets, catalog.clone(), None, stop.child_token());
    let files = Files::new(disk, vec![catalog.clone()], None)
        .with_transfers(transfers)
        .with_backups(backups);
    let addresses = BoundAddresses::default()
        .with("http", &own)
        .with("sync", &sync);
    let file = args.address_file.as_deref();
    let written = addresses.write(file);
    written.context("write the addresses to", file.unwrap_or(Path::new("")))?;
    info!(image = %id, source = args.source_type, listen = %addresses, "a data source");
    let what = Work { id, expected, kind };
    let source = DataSource::begin(files.clone(), store, what, (args.source_type, parameters))?;
    let answering = async {
        tokio::join!(
            own.serve(server::router(source.clone()), stop.clone()),
            sync.serve(rest::router(files), stop.clone()),
        );
    };
    tokio::select! {
        () = answering => {}
        () = async { stop.cancelled().await; tokio::time::sleep(GRACE).await } => {}
    }
    if tokio::time::timeout(GRACE, catalog.stop()).await.is_err() {
        warn!("some work did not end in time");
    }
    source.let_go();
    Ok(())
}

/// What is to be prepared.
#[derive(Debug)]
struct Work {
    id: ImageId,
    expected: Option<Sha512>,
    kind: Kind,
}

impl Work {
    fn registration(&self, files: &Files) -> Registration {
        Registration {
            id: self.id.clone(),
            source: None,
            size: 0,
            expected: self.expected,
            format: None,
            disk_uuid: Some(files.disk().uuid().clone()),
        }
    }
}

async fn bound(address: &Address) -> Result<Listener> {
    let listener = Listener::bind(address, Protocol::Http1).await;
    Ok(listener.context("listen on", address.to_string().as_ref())?)
}

fn watch_signals(stop: &CancellationToken) -> Result<()> {
    let watch = |kind| signal(kind).context("watch signals for", "a data source".as_ref());
    let mut terminate = watch(SignalKind::terminate())?;
    let mut interrupt = watch(SignalKind::interrupt())?;
    let stop = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => info!("SIGTERM: stopping"),
            _ = interrupt.recv() => info!("SIGINT: stopping"),
        }
        stop.cancel();
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_split_at_the_first_sign_and_never_panic() {
        let ok = |key: &str, value: &str| Ok((key.to_owned(), value.to_owned()));
        assert_eq!(pair("url=http://a/?b=c"), ok("url", "http://a/?b=c"));
        assert_eq!(pair("a="), ok("a", ""));
        for wrong in ["", "=", "=x", "secret"] {
            let error = pair(wrong).unwrap_err();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
