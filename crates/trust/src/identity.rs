//! Who a program is: its role, the node that it runs on, and which instance it is.
//!
//! In a certificate this is one URI, as SPIFFE writes identities (SPIFFE-ID, section 2: a trust
//! domain and a path): `spiffe://base-image.longhorn.io/manager/worker-1/backing-image-manager-x7k2p`.

use std::fmt;
use std::str::FromStr;

use types::NodeId;

use crate::{Error, Result};

/// The trust domain of the project. Clusters differ by their certificate authorities.
const DOMAIN: &str = "spiffe://base-image.longhorn.io/";
/// The longest name of a Kubernetes pod (RFC 1123 subdomain), and of a host.
const INSTANCE_MAX: usize = 253;

/// What a program is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// The CSI controller.
    Controller,
    /// A backing image manager, on one node.
    Manager,
    /// The node service, on one node.
    Node,
    /// The web UI.
    Ui,
    /// A person at a command line.
    Cli,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 5] = [
        Self::Controller,
        Self::Manager,
        Self::Node,
        Self::Ui,
        Self::Cli,
    ];

    /// The role as it stands in a certificate and on a command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Controller => "controller",
            Self::Manager => "manager",
            Self::Node => "node",
            Self::Ui => "ui",
            Self::Cli => "cli",
        }
    }

    /// Whether a program of this role belongs to a node, which its certificate names.
    pub const fn has_node(self) -> bool {
        matches!(self, Self::Manager | Self::Node)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|role| role.as_str() == text);
        found.ok_or_else(|| Error::Identity {
            text: types::shown(text),
            why: "the role is none of controller, manager, node, ui and cli",
        })
    }
}

/// A program: checked, so that its text is safe in a certificate and in a log.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    role: Role,
    node: Option<NodeId>,
    instance: String,
}

impl Identity {
    /// The program of a role that has a node: `instance` is the name of its pod or host.
    ///
    /// # Errors
    /// The instance is not a name, or a node is missing where the role has one, or given where it has none.
    pub fn new(role: Role, node: Option<NodeId>, instance: &str) -> Result<Self> {
        let refuse = |why| Error::Identity {
            text: types::shown(instance),
            why,
        };
        if role.has_node() != node.is_some() {
            return Err(refuse(if role.has_node() {
                "a manager and a node service are on a node: name it"
            } else {
                "only managers and node services are on a node"
            }));
        }
        let is_name = instance
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
            && instance.starts_with(|first: char| first.is_ascii_alphanumeric());
        if !is_name || instance.len() > INSTANCE_MAX {
            return Err(refuse(
                "the instance is not a name of at most 253 letters, digits, '_', '.' and '-'",
            ));
        }
        Ok(Self {
            role,
            node,
            instance: instance.to_owned(),
        })
    }

    /// What it is.
    pub const fn role(&self) -> Role {
        self.role
    }

    /// Where it is, for a role that has a node.
    pub const fn node(&self) -> Option<&NodeId> {
        self.node.as_ref()
    }

    /// Which one it is: the name of its pod or host.
    pub fn instance(&self) -> &str {
        &self.instance
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{DOMAIN}{}/", self.role)?;
        if let Some(node) = &self.node {
            write!(f, "{node}/")?;
        }
        f.write_str(&self.instance)
    }
}

impl FromStr for Identity {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = |why| Error::Identity {
            text: types::shown(text),
            why,
        };
        let path = text
            .strip_prefix(DOMAIN)
            .ok_or_else(|| refuse("it does not begin with spiffe://base-image.longhorn.io/"))?;
        let parts: Vec<&str> = path.split('/').collect();
        let (role, node, instance) = match parts[..] {
            [role, instance] => (role.parse()?, None, instance),
            [role, node, instance] => {
                let node = NodeId::new(node).map_err(|_| refuse("its node is not a name"))?;
                (role.parse()?, Some(node), instance)
            }
            _ => return Err(refuse("write role/node/instance, or role/instance")),
        };
        Self::new(role, node, instance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_its_text() {
        for text in [
            "spiffe://base-image.longhorn.io/controller/longhorn-csi-controller-6f-x2",
            "spiffe://base-image.longhorn.io/manager/worker-1.example/backing-image-manager-abc",
            "spiffe://base-image.longhorn.io/node/n1/p",
            "spiffe://base-image.longhorn.io/cli/laptop",
        ] {
            let identity: Identity = text.parse().unwrap();
            assert_eq!(identity.to_string(), text);
        }
    }

    #[test]
    fn other_texts_are_no_identity() {
        for text in [
            "",
            "spiffe://base-image.longhorn.io/",
            "spiffe://base-image.longhorn.io/manager",
            "spiffe://base-image.longhorn.io/manager/pod",
            "spiffe://base-image.longhorn.io/controller/n1/pod",
            "spiffe://base-image.longhorn.io/root/n1/pod",
            "spiffe://base-image.longhorn.io/manager/../pod",
            "spiffe://base-image.longhorn.io/manager/n1/",
            "spiffe://base-image.longhorn.io/manager/n1/a/b",
            "spiffe://base-image.longhorn.io/manager/n1/a%2fb",
            "spiffe://base-image.longhorn.io/Manager/n1/a",
            "spiffe://example.org/manager/n1/a",
            "https://base-image.longhorn.io/manager/n1/a",
        ] {
            assert!(text.parse::<Identity>().is_err(), "{text:?} was taken");
        }
    }
}
