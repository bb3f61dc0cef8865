//! The two steps that need force. Everywhere else the kernels decide.

use replication::{Connection, Layout, MemberId, Role};
use types::{NodeId, VolumeName};

use super::status::Resource;
use super::{resource_name, tools};
use crate::{Error, Result};

/// Gives up the right to write at once: what waits in the device fails.
///
/// Why force is right here. The layout names another holder, or none: nobody on this node has the right to write any
/// more, and the pod was moved by somebody who decided so. A write that waits was never acknowledged, so none that was
/// is lost. Without force the kernel refuses while a process has the device open, and that process hangs in the very
/// write that waits for the majority: only the error lets it end. If the layout were wrong, and this node should be the
/// holder, its pods would see errors and be started anew; no data would be wrong.
pub(super) fn let_go(layout: &Layout, node: &NodeId) -> Result<()> {
    let volume = &layout.volume;
    if layout.admits(node) {
        return Err(Error::Drbd {
            volume: volume.clone(),
            what: "let go of",
            said: "this node may have it open".to_owned(),
        });
    }
    tracing::warn!(%volume, "lets go: this node is not its holder; what waits to be written fails");
    let name = resource_name(volume);
    tools::change(volume, "let go of", &["secondary", "--force", &name])
}

/// Joins the others again, and gives up what only this replica has.
///
/// Why it is right here. It is asked for by the controller alone, of a node that the layout does not name as its holder,
/// and only while a majority without this node is connected, current and quorate (`replication`, plan). A write that
/// was acknowledged was on a majority when it was; two majorities share a replica, so that the others have it. What
/// only this replica has was acknowledged to nobody. The kernel still compares the two, and copies only what differs.
pub(super) fn rejoin(layout: &Layout, node: &NodeId, resource: &Resource) -> Result<()> {
    let volume = &layout.volume;
    let refuse = |said: &str| {
        Err(Error::Drbd {
            volume: volume.clone(),
            what: "discard what only this node has of",
            said: said.to_owned(),
        })
    };
    if layout.holder.as_ref() == Some(node) {
        return refuse("the layout names this node as its holder");
    }
    if resource.role != Role::Secondary {
        return refuse("this node may still write to it");
    }
    let name = resource_name(volume);
    let alone = resource
        .peers
        .iter()
        .filter(|peer| peer.link.connection != Connection::Connected);
    for peer in alone {
        let id = peer.link.peer;
        if peer.link.connection != Connection::StandAlone {
            tools::change(
                volume,
                "disconnect",
                &["disconnect", &name, &id.to_string()],
            )?;
        }
        discard(volume, &name, id)?;
    }
    Ok(())
}

fn discard(volume: &VolumeName, name: &str, peer: MemberId) -> Result<()> {
    tracing::warn!(%volume, %peer, "joins again and gives up what only this node has");
    let (what, peer) = ("join the replicas of", peer.to_string());
    tools::change(volume, what, &["connect", name, &peer, "--discard-my-data"])
}
