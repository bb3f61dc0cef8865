//! Who may call what: one table of every method and path that our programs serve between them.
//!
//! A server refuses what has no line here, and does not start while it serves a method without one
//! ([`unlisted`]). `tests/tests/trust_table.rs` compares the table with the protos, and calls each method
//! in every role.

use std::fmt;

use types::NodeId;

use crate::identity::{Identity, Role};

/// Where a caller may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// On any node.
    Cluster,
    /// On the node of the server alone.
    OwnNode,
}

/// Whose interface a method belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Face {
    /// Our own programs'.
    Own,
    /// Longhorn's: served to its control plane as its own daemon serves it, where the operator says so.
    Longhorn,
    /// The small authority's: who asks there has no certificate yet, and proves itself by a token.
    Authority,
}

/// A method, or all paths below one, and who may call it.
#[derive(Debug, Clone, Copy)]
pub struct Line {
    /// `/package.Service/Method` of gRPC; a path that ends with `/` stands for all below it.
    pub path: &'static str,
    /// Whose interface it belongs to.
    pub face: Face,
    /// The roles that may call it, and from where.
    pub roles: &'static [(Role, Reach)],
}

use Reach::{Cluster, OwnNode};
use Role::{Cli, Controller, Manager, Node, Ui};

/// The controller makes and removes images and volumes; a person may do the same.
const CHANGE: &[(Role, Reach)] = &[(Controller, Cluster), (Cli, Cluster)];
/// What only shows something of images and disks is the UI's as well.
const SHOW: &[(Role, Reach)] = &[(Controller, Cluster), (Cli, Cluster), (Ui, Cluster)];
/// Volumes are the controller's and their own node's.
const CHANGE_VOLUME: &[(Role, Reach)] = &[(Controller, Cluster), (Cli, Cluster), (Node, OwnNode)];
const SHOW_VOLUME: &[(Role, Reach)] = &[
    (Controller, Cluster),
    (Cli, Cluster),
    (Ui, Cluster),
    (Node, OwnNode),
];
/// The bytes of images go from manager to manager.
const COPY: &[(Role, Reach)] = &[(Manager, Cluster), (Cli, Cluster)];
/// Longhorn's interface, where it is not open to Longhorn: a person's.
const PERSON: &[(Role, Reach)] = &[(Cli, Cluster)];
/// Whoever has proven anything.
const ANYBODY: &[(Role, Reach)] = &[
    (Controller, Cluster),
    (Manager, Cluster),
    (Node, Cluster),
    (Ui, Cluster),
    (Cli, Cluster),
];

const fn own(path: &'static str, roles: &'static [(Role, Reach)]) -> Line {
    Line {
        path,
        face: Face::Own,
        roles,
    }
}

const fn longhorn(path: &'static str, roles: &'static [(Role, Reach)]) -> Line {
    Line {
        path,
        face: Face::Longhorn,
        roles,
    }
}

/// Every method that our programs serve to each other.
pub const TABLE: &[Line] = &[
    own("/longhorn.storage.v1.BackingImages/SnapshotGroup", CHANGE),
    own(
        "/longhorn.storage.v1.BackingImages/CreateBackingImage",
        CHANGE,
    ),
    own("/longhorn.storage.v1.BackingImages/GetBackingImage", SHOW),
    own("/longhorn.storage.v1.BackingImages/ListBackingImages", SHOW),
    own(
        "/longhorn.storage.v1.BackingImages/DeleteBackingImage",
        CHANGE,
    ),
    own("/longhorn.storage.v1.BackingImages/WatchBackingImage", SHOW),
    own("/longhorn.storage.v1.Volumes/CreateVolume", CHANGE_VOLUME),
    own("/longhorn.storage.v1.Volumes/FindVolume", SHOW_VOLUME),
    own("/longhorn.storage.v1.Volumes/GetVolume", SHOW_VOLUME),
    own("/longhorn.storage.v1.Volumes/ListVolumes", SHOW_VOLUME),
    own("/longhorn.storage.v1.Volumes/DeleteVolume", CHANGE_VOLUME),
    own("/longhorn.storage.v1.Volumes/GrowVolume", CHANGE_VOLUME),
    own("/longhorn.storage.v1.Volumes/ModifyVolume", CHANGE_VOLUME),
    own("/longhorn.storage.v1.Volumes/PublishVolume", CHANGE_VOLUME),
    own(
        "/longhorn.storage.v1.Volumes/UnpublishVolume",
        CHANGE_VOLUME,
    ),
    own("/longhorn.storage.v1.Disks/GetDisk", SHOW_VOLUME),
    own("/longhorn.storage.v1.Disks/RecordDisks", CHANGE),
    own("/longhorn.storage.v1.Disks/ForgetDisk", CHANGE),
    // What changes a node as root.
    own("/longhorn.node.v1.Node/AttachVolume", CHANGE),
    own("/longhorn.node.v1.Node/DetachVolume", CHANGE),
    own("/longhorn.node.v1.Node/ListAttachments", CHANGE),
    own("/longhorn.node.v1.Node/GetNode", CHANGE),
    own("/v2/images/", COPY),
    longhorn("/bimrpc.BackingImageManagerService/Delete", PERSON),
    longhorn("/bimrpc.BackingImageManagerService/Get", PERSON),
    longhorn("/bimrpc.BackingImageManagerService/List", PERSON),
    longhorn("/bimrpc.BackingImageManagerService/VersionGet", PERSON),
    longhorn("/bimrpc.BackingImageManagerService/Sync", PERSON),
    longhorn("/bimrpc.BackingImageManagerService/Send", PERSON),
    longhorn("/bimrpc.BackingImageManagerService/Fetch", PERSON),
    longhorn("/bimrpc.BackingImageManagerService/PrepareDownload", PERSON),
    longhorn("/bimrpc.BackingImageManagerService/BackupCreate", PERSON),
    longhorn("/bimrpc.BackingImageManagerService/BackupStatus", PERSON),
    longhorn("/bimrpc.BackingImageManagerService/Watch", PERSON),
    longhorn("/v1/", PERSON),
    // What a server serves is no secret to whoever has a certificate.
    longhorn(
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        ANYBODY,
    ),
    longhorn(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        ANYBODY,
    ),
];

/// The line of a path.
pub fn line(path: &str) -> Option<&'static Line> {
    TABLE.iter().find(|line| match line.path.strip_suffix('/') {
        Some(_) => path.starts_with(line.path),
        None => path == line.path,
    })
}

/// Methods that have no line: a server that serves one is not to start.
pub fn unlisted<'a>(methods: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let methods = methods.into_iter();
    methods.filter(|method| line(method).is_none()).collect()
}

/// Who calls, as far as the connection proves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// Somebody on a unix socket of this machine who may do everything here: root, or our own user.
    Local,
    /// Somebody over TCP without TLS: anybody.
    Anybody,
    /// Longhorn's control plane, by Longhorn's own certificates.
    Longhorn,
    /// A program of ours.
    Program(Identity),
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("a local user"),
            Self::Anybody => f.write_str("a caller without a certificate"),
            Self::Longhorn => f.write_str("a caller with a certificate of Longhorn's"),
            Self::Program(identity) => identity.fmt(f),
        }
    }
}

/// Which interfaces are open to callers without a certificate of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faces {
    /// Our own: only by an explicit choice of the operator.
    pub own: bool,
    /// Longhorn's: where its control plane speaks plain.
    pub longhorn: bool,
}

/// What a server asks of its callers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// The node that the server is on.
    pub node: Option<NodeId>,
    /// What is open.
    pub open: Faces,
}

/// Why a call is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nobody may call it.
    #[error("{0} is not in the table of methods that may be called")]
    Unlisted(String),
    /// The caller has proven nothing.
    #[error(
        "{path} needs a certificate: connect with TLS and a certificate of this cluster \
         (--certificates), or over the unix socket of the program"
    )]
    Unproven {
        /// What was called.
        path: String,
    },
    /// The caller may not call it.
    #[error("{caller} may not call {path}: {why}")]
    Denied {
        /// Who calls.
        caller: Caller,
        /// What was called.
        path: String,
        /// Why not.
        why: &'static str,
    },
}

impl Policy {
    /// Whether `caller` may call `path`.
    ///
    /// # Errors
    /// It may not; the error says why.
    pub fn check(&self, caller: &Caller, path: &str) -> Result<(), Refusal> {
        let Some(line) = line(path) else {
            return Err(Refusal::Unlisted(types::shown(path)));
        };
        let denied = |why| {
            Err(Refusal::Denied {
                caller: caller.clone(),
                path: line.path.to_owned(),
                why,
            })
        };
        let open = match line.face {
            Face::Own => self.open.own,
            Face::Longhorn => self.open.longhorn,
            Face::Authority => true,
        };
        match caller {
            Caller::Local => Ok(()),
            _ if open => Ok(()),
            Caller::Anybody => Err(Refusal::Unproven {
                path: line.path.to_owned(),
            }),
            Caller::Longhorn if line.face == Face::Longhorn => Ok(()),
            Caller::Longhorn => denied("Longhorn's certificates are for Longhorn's own interface"),
            Caller::Program(identity) => {
                let role = line.roles.iter().find(|(role, _)| *role == identity.role());
                match role {
                    None => denied("its role is not in the line of this method"),
                    Some((_, OwnNode)) if identity.node() != self.node.as_ref() => {
                        denied("it is on another node")
                    }
                    Some(_) => Ok(()),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Policy {
        Policy {
            node: Some(NodeId::new("n1").unwrap()),
            open: Faces::default(),
        }
    }

    fn program(text: &str) -> Caller {
        let uri = format!("spiffe://base-image.longhorn.io/{text}");
        Caller::Program(uri.parse().unwrap())
    }

    #[test]
    fn every_pair_of_method_and_role_is_what_its_line_says() {
        for line in TABLE {
            let path = format!(
                "{}{}",
                line.path,
                if line.path.ends_with('/') { "x" } else { "" }
            );
            for role in Role::ALL {
                for node in ["n1", "n2"] {
                    let caller = if role.has_node() {
                        program(&format!("{role}/{node}/pod"))
                    } else {
                        program(&format!("{role}/pod"))
                    };
                    let listed = line.roles.iter().find(|(listed, _)| *listed == role);
                    let may = listed.is_some_and(|(_, reach)| {
                        *reach == Cluster || !role.has_node() || node == "n1"
                    });
                    let checked = policy().check(&caller, &path);
                    assert_eq!(
                        checked.is_ok(),
                        may,
                        "{role} of {node}, {path}: {checked:?}"
                    );
                }
            }
            assert!(policy().check(&Caller::Local, &path).is_ok());
            assert!(policy().check(&Caller::Anybody, &path).is_err());
        }
    }

    #[test]
    fn volumes_are_their_own_nodes_and_the_controllers() {
        for line in TABLE.iter().filter(|line| line.path.contains(".Volumes/")) {
            let ok = |caller: &str| policy().check(&program(caller), line.path).is_ok();
            assert!(ok("controller/c") && ok("node/n1/p"), "{}", line.path);
            assert!(!ok("node/n2/p"), "{}", line.path);
            assert!(!ok("manager/n1/p") && !ok("manager/n2/p"), "{}", line.path);
        }
    }

    #[test]
    fn what_is_open_is_open_for_its_own_interface_alone() {
        let mut policy = policy();
        policy.open.longhorn = true;
        let get = "/bimrpc.BackingImageManagerService/Get";
        let create = "/longhorn.storage.v1.Volumes/CreateVolume";
        assert!(policy.check(&Caller::Anybody, get).is_ok());
        assert!(policy.check(&Caller::Anybody, create).is_err());
        assert!(
            policy
                .check(&Caller::Anybody, "/v2/images/a/b/data")
                .is_err()
        );
        assert!(policy.check(&Caller::Longhorn, create).is_err());
        policy.open = Faces {
            own: true,
            longhorn: false,
        };
        assert!(policy.check(&Caller::Anybody, get).is_err());
        assert!(policy.check(&Caller::Longhorn, get).is_ok());
        assert!(policy.check(&Caller::Anybody, create).is_ok());
    }

    #[test]
    fn what_has_no_line_is_nobodys() {
        for path in [
            "/longhorn.storage.v1.Volumes/Format",
            "/v3/x",
            "/",
            "",
            "/v2",
        ] {
            assert!(
                policy().check(&program("controller/c"), path).is_err(),
                "{path}"
            );
            assert!(policy().check(&Caller::Local, path).is_err(), "{path}");
        }
        assert_eq!(unlisted(["/a.B/C", TABLE[0].path]), ["/a.B/C"]);
    }
}
