//! Options that more than one command has.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use client::Address;

use crate::output::Form;

/// The options of every command.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// File with the way to the cluster, as in kubectl
    #[arg(long, global = true, value_name = "FILE", help_heading = "Kubernetes")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Context of that file
    #[arg(long, global = true, value_name = "NAME", help_heading = "Kubernetes")]
    pub(crate) context: Option<String>,
    /// Namespace of claims and pods [default: that of the context]
    #[arg(
        short,
        long,
        global = true,
        value_name = "NAME",
        help_heading = "Kubernetes"
    )]
    pub(crate) namespace: Option<String>,
    /// Namespace in which the programs are installed
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        default_value = "longhorn-system",
        env = "LONGHORN_SYSTEM_NAMESPACE",
        help_heading = "Kubernetes"
    )]
    pub(crate) system_namespace: String,
    /// The kubectl that is run
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        default_value = "kubectl",
        env = "LONGHORN_KUBECTL",
        help_heading = "Kubernetes"
    )]
    pub(crate) kubectl: PathBuf,
    /// Address of a manager: HOST:PORT, unix:/path, or a name that stands for several; repeatable. Kubernetes is
    /// not asked then
    #[arg(
        long,
        visible_alias = "url",
        global = true,
        value_name = "ADDR",
        value_delimiter = ',',
        help_heading = "Without Kubernetes"
    )]
    pub(crate) manager: Vec<Address>,
    /// Address of a node service; repeatable
    #[arg(
        long,
        global = true,
        value_name = "ADDR",
        value_delimiter = ',',
        help_heading = "Without Kubernetes"
    )]
    pub(crate) node_service: Vec<Address>,
    /// Directory with ca.crt, tls.crt and tls.key, made by `backing-image-manager certs issue --role cli`
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "LONGHORN_CERTIFICATES",
        help_heading = "Without Kubernetes"
    )]
    pub(crate) certificates: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// What
    #[arg(value_enum)]
    pub(crate) what: Kind,
    /// Only those of these names
    pub(crate) names: Vec<String>,
    /// Output format
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Form,
}

/// What can be listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Volumes of all disks
    #[value(alias = "volume")]
    Volumes,
    /// Backing images that are no snapshots
    #[value(alias = "image")]
    Images,
    /// Snapshots of volumes
    #[value(alias = "snapshot")]
    Snapshots,
    /// Disks, each with its manager
    #[value(alias = "disk")]
    Disks,
    /// Volumes that are used without a pod
    Exposed,
}
