//! `backing-image-manager version`.

use serde::Serialize;

use super::connection::{Connection, Url};
use super::{Failure, output};
use longhorn::grpc::API_VERSION;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Do not ask a daemon
    #[arg(long)]
    client_only: bool,
    #[command(flatten)]
    url: Url,
}

/// In Longhorn's keys.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Versions {
    client_version: Program,
    server_version: Option<Program>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Program {
    version: String,
    git_commit: String,
    build_date: String,
    #[serde(rename = "backingImageManagerAPIVersion")]
    api_version: i64,
    #[serde(rename = "backingImageManagerAPIMinVersion")]
    api_min_version: i64,
}

pub(super) async fn run(args: Args, trust: &trust::Options) -> Result<(), Failure> {
    let server_version = if args.client_only {
        None
    } else {
        let connection = Connection::new(args.url, trust).await?;
        let version = connection.client()?.longhorn().version().await?;
        Some(Program {
            version: version.version,
            git_commit: version.git_commit,
            build_date: version.build_date,
            api_version: version.backing_image_manager_api_version,
            api_min_version: version.backing_image_manager_api_min_version,
        })
    };
    let client_version = Program {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        git_commit: String::new(),
        build_date: String::new(),
        api_version: API_VERSION,
        api_min_version: API_VERSION,
    };
    output::json(&Versions {
        client_version,
        server_version,
    })?;
    Ok(())
}
