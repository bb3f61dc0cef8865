//! Who may call what: one table of every method and path that our programs serve between them.
//!
//! A server refuses what has no line here, and does not compile while it serves a method without one
//! ([`lists_all`]).

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
/// What people do in the UI, which has asked who they are and what they may.
const CHANGE_AND_UI: &[(Role, Reach)] = &[(Controller, Cluster), (Cli, Cluster), (Ui, Cluster)];
/// The same of volumes.
const CHANGE_VOLUME_AND_UI: &[(Role, Reach)] = &[
    (Controller, Cluster),
    (Cli, Cluster),
    (Ui, Cluster),
    (Node, OwnNode),
];
/// The bytes of images go from manager to manager.
const COPY: &[(Role, Reach)] = &[(Manager, Cluster), (Cli, Cluster)];
/// The same, and to people who download them in the UI.
const COPY_AND_UI: &[(Role, Reach)] = &[(Manager, Cluster), (Cli, Cluster), (Ui, Cluster)];
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
        CHANGE_AND_UI,
    ),
    own("/longhorn.storage.v1.BackingImages/GetBackingImage", SHOW),
    own("/longhorn.storage.v1.BackingImages/ListBackingImages", SHOW),
    own(
        "/longhorn.storage.v1.BackingImages/DeleteBackingImage",
        CHANGE_AND_UI,
    ),
    own("/longhorn.storage.v1.BackingImages/WatchBackingImage", SHOW),
    own(
        "/longhorn.storage.v1.BackingImages/ListSnapshotBlocks",
        CHANGE,
    ),
    own(
        "/longhorn.storage.v1.BackingImages/InspectSource",
        CHANGE_AND_UI,
    ),
    own(
        "/longhorn.storage.v1.BackingImages/WriteUpload",
        CHANGE_AND_UI,
    ),
    own("/longhorn.storage.v1.Backups/CreateBackup", CHANGE_AND_UI),
    own("/longhorn.storage.v1.Backups/GetBackup", SHOW),
    own("/longhorn.storage.v1.Backups/WatchBackup", SHOW),
    own("/longhorn.storage.v1.Backups/CancelBackup", CHANGE_AND_UI),
    own("/longhorn.storage.v1.Backups/ListBackups", SHOW),
    own("/longhorn.storage.v1.Backups/DeleteBackup", CHANGE_AND_UI),
    own("/longhorn.storage.v1.Backups/RepairBlocks", CHANGE),
    own(
        "/longhorn.storage.v1.Volumes/CreateVolume",
        CHANGE_VOLUME_AND_UI,
    ),
    own("/longhorn.storage.v1.Volumes/FindVolume", SHOW_VOLUME),
    own("/longhorn.storage.v1.Volumes/GetVolume", SHOW_VOLUME),
    own("/longhorn.storage.v1.Volumes/ListVolumes", SHOW_VOLUME),
    own(
        "/longhorn.storage.v1.Volumes/DeleteVolume",
        CHANGE_VOLUME_AND_UI,
    ),
    own(
        "/longhorn.storage.v1.Volumes/GrowVolume",
        CHANGE_VOLUME_AND_UI,
    ),
    own("/longhorn.storage.v1.Volumes/PrepareReplica", CHANGE),
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
    own("/longhorn.node.v1.Node/ListAttachments", CHANGE_AND_UI),
    own("/longhorn.node.v1.Node/GetNode", CHANGE_AND_UI),
    own("/longhorn.node.v1.Node/PutReplica", CHANGE),
    own("/longhorn.node.v1.Node/RemoveReplica", CHANGE),
    own("/longhorn.node.v1.Node/ListReplicas", CHANGE_AND_UI),
    own("/longhorn.node.v1.Node/InitializeReplicas", CHANGE),
    own("/longhorn.node.v1.Node/GrowReplicas", CHANGE),
    own("/longhorn.node.v1.Node/RejoinReplica", CHANGE),
    own("/longhorn.node.v1.Node/SuspendVolume", CHANGE),
    own("/longhorn.node.v1.Node/ResumeVolume", CHANGE),
    own("/longhorn.node.v1.Node/ExposeVolume", CHANGE_AND_UI),
    own("/longhorn.node.v1.Node/UnexposeVolume", CHANGE_AND_UI),
    own("/longhorn.node.v1.Node/ListExposed", CHANGE_AND_UI),
    own("/v2/images/", COPY_AND_UI),
    Line {
        path: "/longhorn.trust.v1.Certificates/IssueCertificate",
        face: Face::Authority,
        roles: ANYBODY,
    },
    longhorn("/bimrpc.BackingImageManagerService/Delete", PERSON),
    longhorn("/bimrpc.BackingImageManagerService/Get", PERSON),
    longhorn("/bimrpc.BackingImageManagerService/List", PERSON),
    longhorn("/bimrpc.BackingImageManagerService/VersionGet", PERSON),
    longhorn("/bimrpc.BackingImageManagerService/Sync", PERSON),
    longhorn("/bimrpc.BackingImageManagerService/Send", PERSON),
    longhorn("/bimrpc.BackingImageManagerService/Fetch", PERSON),
    longhorn("/bimrpc.BackingImageManagerService/PrepareDownload", COPY),
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

/// Whether each of these methods has a line; asked while a server is compiled.
pub const fn lists_all(methods: &[&str]) -> bool {
    let mut method = 0;
    while method < methods.len() {
        let mut line = 0;
        while line < TABLE.len() && !same(TABLE[line].path, methods[method]) {
            line += 1;
        }
        if line == TABLE.len() {
            return false;
        }
        method += 1;
    }
    true
}

/// Whether two texts are equal.
const fn same(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    if one.len() != other.len() {
        return false;
    }
    let mut at = 0;
    while at < one.len() {
        if one[at] != other[at] {
            return false;
        }
        at += 1;
    }
    true
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

impl Caller {
    /// Whether it is a manager of another node than `node`: one that gets images, and nothing of a volume.
    pub fn is_manager_elsewhere(&self, node: &NodeId) -> bool {
        match self {
            Self::Program(identity) => identity.role() == Manager && identity.node() != Some(node),
            Self::Local | Self::Anybody | Self::Longhorn => false,
        }
    }
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

/// To whom an interface is open over the network. On a local socket each is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Open {
    /// To nobody: as if it were not there.
    Off,
    /// To callers that have proven who they are.
    #[default]
    Proven,
    /// To everybody.
    Plain,
}

/// What a server asks of its callers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// The node that the server is on.
    pub node: Option<NodeId>,
    /// Our own interface: plain only by an explicit choice of the operator.
    pub own: Open,
    /// Longhorn's: plain where its control plane speaks plain.
    pub longhorn: Open,
}

/// Why a call is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nobody may call it, or not over the network: for the caller it is not there.
    #[error("{0} is not served here")]
    NotServed(String),
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
            return Err(Refusal::NotServed(types::shown(path)));
        };
        let denied = |why| {
            Err(Refusal::Denied {
                caller: caller.clone(),
                path: line.path.to_owned(),
                why,
            })
        };
        let open = match line.face {
            Face::Own => self.own,
            Face::Longhorn => self.longhorn,
            Face::Authority => Open::Plain,
        };
        match (caller, open) {
            (Caller::Local, _) | (_, Open::Plain) => return Ok(()),
            (_, Open::Off) => return Err(Refusal::NotServed(types::shown(path))),
            (_, Open::Proven) => {}
        }
        match caller {
            Caller::Local => Ok(()),
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
            ..Policy::default()
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
            let open = policy().check(&Caller::Anybody, &path).is_ok();
            assert_eq!(open, line.face == Face::Authority, "{path}");
        }
    }

    #[test]
    fn volumes_are_their_own_nodes_and_the_controllers() {
        for line in TABLE.iter().filter(|line| line.path.contains(".Volumes/")) {
            let ok = |caller: &str| policy().check(&program(caller), line.path).is_ok();
            assert!(ok("controller/c"), "{}", line.path);
            // Where a volume has replicas is the controller's alone.
            let of_node = !line.path.ends_with("/PrepareReplica");
            assert_eq!(ok("node/n1/p"), of_node, "{}", line.path);
            assert!(!ok("node/n2/p"), "{}", line.path);
            assert!(!ok("manager/n1/p") && !ok("manager/n2/p"), "{}", line.path);
        }
    }

    #[test]
    fn what_is_open_is_open_for_its_own_interface_alone() {
        let mut policy = policy();
        policy.longhorn = Open::Plain;
        let get = "/bimrpc.BackingImageManagerService/Get";
        let create = "/longhorn.storage.v1.Volumes/CreateVolume";
        let copy = "/v2/images/a/b/data";
        assert!(policy.check(&Caller::Anybody, get).is_ok());
        assert!(policy.check(&Caller::Anybody, create).is_err());
        assert!(policy.check(&Caller::Anybody, copy).is_err());
        assert!(policy.check(&Caller::Longhorn, create).is_err());
        (policy.own, policy.longhorn) = (Open::Plain, Open::Proven);
        assert!(policy.check(&Caller::Anybody, get).is_err());
        assert!(policy.check(&Caller::Longhorn, get).is_ok());
        assert!(policy.check(&Caller::Anybody, create).is_ok());
        policy.own = Open::Off;
        let refused = policy.check(&program("controller/c"), create);
        assert!(matches!(refused, Err(Refusal::NotServed(_))));
        assert!(policy.check(&Caller::Local, create).is_ok());
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
        assert!(lists_all(&[TABLE[0].path, TABLE[7].path]));
        assert!(!lists_all(&[
            TABLE[0].path,
            "/longhorn.storage.v1.Volumes/CreateVolum"
        ]));
    }
}
