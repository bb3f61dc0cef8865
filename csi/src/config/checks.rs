//! What the values of single flags may be.

use std::path::PathBuf;

use client::Address;
use host::target::{self, Settings};
use node::StorageAddress;
use types::NodeId;

use super::Certificates;
use crate::error::{Error, Result};

/// The path in `unix:///path`, `unix:/path` or a bare absolute path, which is the value of `flag`.
pub(super) fn socket(flag: &'static str, endpoint: &str) -> Result<PathBuf> {
    let path = endpoint
        .strip_prefix("unix://")
        .or_else(|| endpoint.strip_prefix("unix:"));
    let path = PathBuf::from(path.unwrap_or(endpoint));
    let refuse = |why| Err(Error::Flag { flag, why });
    if !path.is_absolute() || path.file_name().is_none() {
        return refuse("must be a unix socket, for example unix:///csi/csi.sock");
    }
    // sockaddr_un has 108 bytes for the path and its final NUL: unix(7).
    if path.as_os_str().len() > 107 {
        return refuse("is too long: the path of a socket has at most 107 bytes");
    }
    Ok(path)
}

/// The managers, as a list.
pub(super) fn managers(list: &str) -> Result<Vec<Address>> {
    let addresses = list.split(',').map(|one| one.trim().parse());
    let addresses = addresses.collect::<std::result::Result<_, _>>();
    Ok(addresses.map_err(client::Error::Address)?)
}

/// A topology key is a Kubernetes label key with a prefix.
pub(super) fn topology_key(key: String) -> Result<String> {
    let why = "must look like a Kubernetes label key with a prefix: driver.longhorn.io/node";
    let part = |text: &str| {
        let edge = |c: char| c.is_ascii_alphanumeric();
        (1..=63).contains(&text.len())
            && text.starts_with(edge)
            && text.ends_with(edge)
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    match key.split_once('/') {
        Some((prefix, name)) if part(prefix) && part(name) => Ok(key),
        _ => Err(Error::Flag {
            flag: "--topology-key",
            why,
        }),
    }
}

/// A node's name is also the value of its topology segment, which is a label's.
pub(super) fn node_id(name: Option<&str>) -> Result<NodeId> {
    let refuse = |why| Error::Flag {
        flag: "--node-id",
        why,
    };
    // An environment variable that is set to nothing is not set.
    let name = name.filter(|name| !name.is_empty()).ok_or_else(|| {
        refuse("is needed to serve the node: give the name of this node, as the manager has it")
    })?;
    if name.len() > 63 {
        return Err(refuse(
            "has more than 63 characters, which a topology segment cannot hold",
        ));
    }
    NodeId::new(name)
        .map_err(|_| refuse("must be a node's name: letters, digits, '.', '-' and '_'"))
}

pub(super) fn disks(disks: Vec<PathBuf>) -> Result<Vec<PathBuf>> {
    let refuse = |why| {
        Err(Error::Flag {
            flag: "--disk",
            why,
        })
    };
    if disks.is_empty() {
        return refuse("is needed to serve the node: give the directory of each disk of this node");
    }
    if !disks.iter().all(|disk| disk.is_absolute()) {
        return refuse("must be an absolute path");
    }
    Ok(disks)
}

pub(super) fn absolute(flag: &'static str, path: PathBuf) -> Result<PathBuf> {
    if path.is_absolute() {
        return Ok(path);
    }
    let why = "must be an absolute path";
    Err(Error::Flag { flag, why })
}

/// The tgtd of this node, as far as it has one.
pub(super) fn targets(socket: Option<PathBuf>, portal: Option<&str>) -> Result<Option<Settings>> {
    let (Some(socket), Some(portal)) = (socket, portal) else {
        return Ok(None);
    };
    let portal = target::portal(portal).ok_or(Error::Flag {
        flag: "--target-portal",
        why: "must be an IP address of this node, or ADDRESS:PORT",
    })?;
    let socket = absolute("--target-socket", socket)?;
    Ok(Some(Settings { socket, portal }))
}

/// Where other nodes reach the replicas of this one.
pub(super) fn storage(address: Option<&str>) -> Result<Option<StorageAddress>> {
    let address = address.filter(|address| !address.is_empty());
    let parsed = address.map(|address| {
        address.parse().map_err(|why| Error::Flag {
            flag: "--replication-address",
            why,
        })
    });
    parsed.transpose()
}

/// The address of the node service for other machines, which is served with a certificate or not at all.
pub(super) fn node_listen(
    address: Option<&str>,
    certificates: &Certificates,
) -> Result<Option<Address>> {
    let refuse = |why| {
        Err(Error::Flag {
            flag: "--node-listen",
            why,
        })
    };
    let Some(address) = address else {
        return Ok(None);
    };
    match listen::address(address) {
        _ if matches!(certificates, Certificates::None) => {
            refuse("needs a certificate: give --certificates, or --authority with its files")
        }
        Ok(address @ Address::Tcp(_)) => Ok(Some(address)),
        _ => refuse("must be HOST:PORT"),
    }
}
