//! What is shown of a volume that is used without a pod.

use client::node_wire;
use serde::Serialize;

use crate::output::{Row, size};
use crate::view::value;

/// Of what is exposed.
pub(crate) const EXPOSED: [&str; 10] = [
    "VOLUME",
    "NODE",
    "ACCESS",
    "AT",
    "USED BY",
    "STATE",
    "SIZE",
    "READ ONLY",
    "CHAP USER",
    "INITIATORS",
];

/// A volume that is used without a pod.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Exposed {
    pub(crate) volume: String,
    pub(crate) node: String,
    pub(crate) disk: String,
    pub(crate) access: &'static str,
    pub(crate) path: String,
    pub(crate) device: String,
    pub(crate) size: u64,
    pub(crate) read_only: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) target: Option<Target>,
    pub(crate) troubles: Vec<String>,
}

/// An iSCSI target.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) portal: String,
    pub(crate) lun: u32,
    pub(crate) initiators: Vec<String>,
    pub(crate) chap_user: String,
    pub(crate) sessions: Vec<String>,
}

impl Exposed {
    pub(crate) fn new(exposed: node_wire::Exposed, node: &str) -> Self {
        let target = exposed.target.map(|target| Target {
            sessions: target
                .sessions
                .iter()
                .map(|session| format!("{} ({})", session.initiator_name, session.address))
                .collect(),
            name: target.name,
            portal: target.portal,
            lun: target.lun,
            initiators: target.initiator_names,
            chap_user: target.chap_user,
        });
        Self {
            volume: exposed.volume,
            node: node.to_owned(),
            disk: exposed.disk_uuid,
            access: if target.is_some() {
                "iscsi"
            } else {
                "blockdev"
            },
            path: exposed.path,
            device: exposed.device,
            size: exposed.size,
            read_only: exposed.read_only,
            target,
            troubles: exposed.troubles,
        }
    }

    /// Where its users find it: a path of the node, or `iscsi://HOST:PORT/IQN/LUN`.
    pub(crate) fn at(&self) -> String {
        match &self.target {
            Some(target) => format!("iscsi://{}/{}/{}", target.portal, target.name, target.lun),
            None => self.path.clone(),
        }
    }

    pub(crate) fn row(&self) -> Row {
        let target = self.target.as_ref();
        let each =
            |texts: Option<&Vec<String>>| texts.map(|texts| texts.join(", ")).unwrap_or_default();
        Row {
            name: self.volume.clone(),
            cells: vec![
                self.volume.clone(),
                self.node.clone(),
                self.access.to_owned(),
                self.at(),
                each(target.map(|target| &target.sessions)),
                match &*self.troubles {
                    [] => "well".to_owned(),
                    troubles => troubles.join("; "),
                },
                size(self.size),
                if self.read_only { "yes" } else { "no" }.to_owned(),
                target
                    .map(|target| target.chap_user.clone())
                    .unwrap_or_default(),
                each(target.map(|target| &target.initiators)),
            ],
            value: value(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_cells_as_heads() {
        let exposed = Exposed::new(node_wire::Exposed::default(), "n");
        assert_eq!(exposed.row().cells.len(), EXPOSED.len());
    }
}
