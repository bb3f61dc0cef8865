//! The options about replicated volumes, for the controller.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use client::Address;
use kubernetes::is_name;

use super::checks;
use crate::error::{Error, Result};

/// Replicated volumes.
#[derive(Debug, clap::Args)]
pub(crate) struct ReplicationArgs {
    /// The node services, for replicated volumes: HOST:PORT or unix:/path, separated by commas. A name means all
    /// addresses to which it resolves. Volumes with numberOfReplicas above 1 then have a record in Kubernetes
    /// (kubectl get replicatedvolumes) [default: none, and every volume has one replica].
    #[arg(long, env = "NODE_SERVICE", value_name = "ADDRESS")]
    node_service: Option<String>,

    /// TCP ports between the nodes for replicated volumes, one for each. Open them between the nodes, and nowhere
    /// else.
    #[arg(long, default_value = "20000-23999", value_name = "FIRST-LAST")]
    replication_ports: String,

    /// How many replicas are filled at a time in the cluster, when lost ones are replaced.
    #[arg(long, default_value_t = 2, value_name = "NUMBER",
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    replication_rebuilds: u16,

    /// The Lease by which one of several controllers looks after the replicated volumes.
    #[arg(
        long,
        default_value = "longhorn-base-image-replication",
        value_name = "NAME"
    )]
    replication_lease: String,
}

/// What the controller needs for replicated volumes.
#[derive(Debug)]
pub(crate) struct ReplicationConfig {
    pub(crate) node_services: Vec<Address>,
    pub(crate) ports: RangeInclusive<u16>,
    pub(crate) rebuilds: usize,
    pub(crate) lease: String,
    /// The directory with the files of the service account.
    pub(crate) account: PathBuf,
}

impl ReplicationArgs {
    /// Checks what was typed; `None`: there are no replicated volumes.
    pub(super) fn check(self, account: PathBuf) -> Result<Option<ReplicationConfig>> {
        let Some(list) = self.node_service.filter(|list| !list.is_empty()) else {
            return Ok(None);
        };
        let refuse = |flag, why| Error::Flag { flag, why };
        let ports = ports(&self.replication_ports).ok_or_else(|| {
            refuse(
                "--replication-ports",
                "must be two port numbers from 1024, the smaller one first: 20000-23999",
            )
        })?;
        if !is_name(&self.replication_lease) {
            return Err(refuse(
                "--replication-lease",
                "must be the name of a Lease: lower case letters, digits, '-' and '.'",
            ));
        }
        Ok(Some(ReplicationConfig {
            node_services: checks::managers(&list)?,
            ports,
            rebuilds: self.replication_rebuilds.into(),
            lease: self.replication_lease,
            account,
        }))
    }
}

fn ports(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-')?;
    let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port >= 1024);
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some(first..=last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_ports() {
        assert_eq!(ports("20000-23999"), Some(20000..=23999));
        assert_eq!(ports("2000-2000"), Some(2000..=2000));
        for bad in [
            "",
            "20000",
            "3000-2000",
            "80-90",
            "2000-70000",
            "a-b",
            "2000-",
        ] {
            assert_eq!(ports(bad), None, "{bad}");
        }
    }
}
