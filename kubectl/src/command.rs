//! The command line: what can be typed. What it means is the commands' own.

use clap::{Parser, Subcommand};

use crate::options::{GetArgs, Global};
use crate::{change, doctor, dump, make, ui, upload, why};

const EXIT_CODES: &str = "\
Exit codes: 0 done, and for `why`: the claim waits for nothing; 1 it failed; 2 the command line is wrong;
3 `why`: the claim waits; `doctor`: something is wrong.

Everything of Kubernetes is asked by kubectl, with your rights. The managers and node services are reached by
`kubectl port-forward` and a certificate that a token of the account longhorn-base-image-cli proves. That takes the
rights to get pods and the ConfigMap longhorn-base-image-ca, and to create pods/portforward and
serviceaccounts/token, in the namespace of the programs.";

/// Volumes and images of a cluster that Longhorn's base image programs serve.
#[derive(Debug, Parser)]
#[command(
    name = "kubectl-longhorn_image",
    bin_name = "kubectl longhorn-image",
    version,
    max_term_width = 100,
    after_help = EXIT_CODES
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List volumes, images, snapshots, disks, or what is exposed
    Get(GetArgs),
    /// Show everything of one volume: disk, claim, pods, access, events
    #[command(subcommand)]
    Describe(Describe),
    /// Look at a container image without pulling it
    Inspect(make::InspectArgs),
    /// Pull a container image from a registry as a backing image
    Pull(make::PullArgs),
    /// Upload a file as a backing image; continues one that was interrupted
    Upload(upload::UploadArgs),
    /// Create a volume
    #[command(subcommand)]
    Create(Create),
    /// Grow a volume
    Grow(change::GrowArgs),
    /// Take a snapshot of a volume
    Snapshot(change::SnapshotArgs),
    /// Make a volume usable without a pod: as a block device of its node, or as an iSCSI target
    Expose(change::ExposeArgs),
    /// Take that back
    Unexpose(change::UnexposeArgs),
    /// Delete a volume, an image or a snapshot
    Delete(change::DeleteArgs),
    /// Say in one sentence what a claim waits for
    Why(why::WhyArgs),
    /// Check the installation, all its disks and nodes
    Doctor(doctor::DoctorArgs),
    /// Write a support bundle without secrets
    Dump(dump::DumpArgs),
    /// Open the web UI through a port-forward, until Ctrl-C
    Ui(ui::UiArgs),
    /// Print a completion script
    #[command(
        after_help = "For bash: source <(kubectl longhorn-image completion bash). kubectl itself completes plugins \
        by a program kubectl_complete-longhorn_image in PATH; see docs/kubectl.md."
    )]
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Describe {
    /// One volume
    Volume {
        /// Its name
        name: types::VolumeName,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Create {
    /// Create a volume from a base image, or a blank one
    Volume(Box<make::VolumeArgs>),
}
