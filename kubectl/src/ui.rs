//! `ui`: the web UI through a forwarded port, until Ctrl-C.

use std::time::Duration;

use clap::Args;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::kubernetes::text;
use crate::output::{note, print};
use crate::process::{self, Bounds};
use crate::reach::Reach;

/// The Service of the UI.
const SERVICE: &str = "longhorn-ui";

#[derive(Debug, Args)]
pub(crate) struct UiArgs {
    /// Port of this machine; 0: a free one
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Open the address in the browser of this machine
    #[arg(long)]
    open: bool,
}

pub(crate) async fn run(reach: &Reach, args: &UiArgs) -> Result<()> {
    let kubectl = reach.kubernetes("ui")?;
    let service = ["--namespace", &kubectl.system, "service", SERVICE];
    let Some(service) = kubectl.find(&service).await? else {
        return Err(Error::NotFound(format!(
            "there is no Service {SERVICE} in namespace {}: install the UI (docs/ui.md), or name its namespace with \
             --system-namespace",
            kubectl.system
        )));
    };
    let port = service
        .pointer("/spec/ports/0/port")
        .and_then(Value::as_u64);
    let Some(port) = port else {
        return Err(Error::Refused(format!(
            "Service {SERVICE} has no port: install it again"
        )));
    };
    let scheme = match (text(&service, "/spec/ports/0/name"), port) {
        ("https", _) | (_, 443 | 8443) => "https",
        _ => "http",
    };
    let forward = kubectl
        .forward_from(args.port, &format!("service/{SERVICE}"), &port.to_string())
        .await?;
    let address = format!("{scheme}://{}/", forward.address);
    print(&format!("{address}\n"))?;
    note("for a token: kubectl create token ACCOUNT; Ctrl-C ends this");
    if args.open {
        open(&address).await;
    }
    forward.ended().await;
    Err(Error::Nobody(
        "the forwarded port has ended, because its pod has: run the same command again".to_owned(),
    ))
}

/// Opens an address; a machine without a browser has the printed line.
async fn open(address: &str) {
    let program = if cfg!(target_os = "macos") {
        "open"
    } else if cfg!(windows) {
        "explorer"
    } else {
        "xdg-open"
    };
    let mut command = process::child(program.as_ref());
    command.arg(address);
    let bounds = Bounds {
        bytes: 64 << 10,
        time: Duration::from_secs(10),
    };
    if let Err(error) = process::run(command, bounds).await {
        note(&types::report(&error).to_string());
    }
}
