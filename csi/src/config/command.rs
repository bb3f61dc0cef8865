//! The commands for people, as they are typed.

use std::ffi::OsString;
use std::path::PathBuf;

use kubernetes::ACCOUNT_DIR;

/// Commands instead of serving.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Replicated volumes. Run it in the pod of the controller: kubectl exec deploy/longhorn-csi-controller -c plugin
    /// -- longhorn-csi-plugin volume list
    #[command(subcommand)]
    Volume(VolumeCommand),
    /// iSCSI targets: what runs in the pod longhorn-target of a node.
    #[command(subcommand)]
    Target(TargetCommand),
    /// What the plugin starts itself as to look at a share of backups, which may hang.
    #[command(name = host::shares::COMMAND, hide = true)]
    Share {
        /// What to do, and the path.
        words: Vec<OsString>,
    },
}

/// What the pod of the targets does.
#[derive(Debug, clap::Subcommand)]
pub enum TargetCommand {
    /// Serve targets: start tgtd, pass on to it what the node plugin says, end it in order at SIGTERM.
    Serve {
        #[command(flatten)]
        socket: TargetSocket,
    },
    /// Make the directory of the socket and give it to the user that serves, before it does.
    Prepare {
        #[command(flatten)]
        socket: TargetSocket,
        /// The user and the group: numbers.
        #[arg(long, value_name = "UID:GID", value_parser = owner)]
        owner: (u32, u32),
    },
    /// Fail unless tgtd answers.
    Check {
        #[command(flatten)]
        socket: TargetSocket,
    },
}

/// Where the node plugin reaches the targets.
#[derive(Debug, clap::Args)]
pub struct TargetSocket {
    /// The socket, in a directory that nobody else may enter.
    #[arg(long, value_name = "PATH", default_value = "/run/longhorn-target/ctl")]
    pub(crate) socket: PathBuf,
}

fn owner(text: &str) -> Result<(u32, u32), &'static str> {
    let both = text
        .split_once(':')
        .and_then(|(uid, gid)| Some((uid.parse().ok()?, gid.parse().ok()?)));
    both.ok_or("write UID:GID, for example 65532:65532")
}

/// What can be done with replicated volumes.
#[derive(Debug, clap::Subcommand)]
pub enum VolumeCommand {
    /// Show the replicated volumes and their state.
    List {
        #[command(flatten)]
        account: Account,
    },
    /// Move all replicas away from a node, before it is removed for good. Each gets a new replica elsewhere first.
    /// Waits until the node has none, and can be interrupted: it goes on.
    Evacuate {
        /// The node, as in `kubectl get nodes`.
        node: String,
        /// Let the node have replicas again.
        #[arg(long)]
        undo: bool,
        #[command(flatten)]
        account: Account,
    },
    /// Make the record of a volume again from what its nodes and disks have. Running pods do not notice.
    RebuildRecord {
        /// The name of the volume: that of its PersistentVolume.
        volume: String,
        #[command(flatten)]
        account: Account,
    },
}

/// Where the rights come from.
#[derive(Debug, clap::Args)]
pub struct Account {
    /// The directory with the files of the pod's service account, for the Kubernetes API.
    #[arg(long, default_value = ACCOUNT_DIR, value_name = "DIR")]
    pub(crate) account_dir: PathBuf,
}
