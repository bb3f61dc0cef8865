//! The advertised capabilities, in one table. A call without a capability answers UNIMPLEMENTED,
//! and a test compares the two. Only GetSnapshot is implemented and not advertised: its capability
//! is alpha, and csi-sanity 5.4.0 fails a plugin with an unknown one.

use csi::controller_service_capability::rpc::Type as Controller;
use csi::group_controller_service_capability::rpc::Type as Group;
use csi::node_service_capability::rpc::Type as Node;
use csi::plugin_capability::service::Type as Service;
use csi::plugin_capability::volume_expansion::Type as Expansion;
use proto::csi::v1 as csi;

/// What the controller service offers.
pub(crate) const CONTROLLER: &[Controller] = &[
    Controller::CreateDeleteVolume,
    Controller::PublishUnpublishVolume,
    Controller::ListVolumes,
    Controller::ListVolumesPublishedNodes,
    Controller::CreateDeleteSnapshot,
    Controller::ListSnapshots,
    Controller::CloneVolume,
    Controller::ModifyVolume,
    Controller::GetCapacity,
    Controller::PublishReadonly,
    Controller::ExpandVolume,
    Controller::VolumeCondition,
    Controller::GetVolume,
    Controller::SingleNodeMultiWriter,
];

/// What the group controller service offers.
pub(crate) const GROUP: &[Group] = &[Group::CreateDeleteGetVolumeGroupSnapshot];

/// What the node service offers.
pub(crate) const NODE: &[Node] = &[
    Node::StageUnstageVolume,
    Node::GetVolumeStats,
    Node::ExpandVolume,
    Node::VolumeCondition,
    Node::SingleNodeMultiWriter,
];

/// What the plugin offers: a controller service only where one is served.
pub(crate) fn plugin(serves_controller: bool) -> Vec<csi::PluginCapability> {
    let service = |service: Service| {
        csi::plugin_capability::Type::Service(csi::plugin_capability::Service {
            r#type: service.into(),
        })
    };
    let online = csi::plugin_capability::VolumeExpansion {
        r#type: Expansion::Online.into(),
    };
    let mut types = vec![
        service(Service::VolumeAccessibilityConstraints),
        csi::plugin_capability::Type::VolumeExpansion(online),
    ];
    if serves_controller {
        types.push(service(Service::ControllerService));
        types.push(service(Service::GroupControllerService));
        types.push(service(Service::SnapshotMetadataService));
    }
    types
        .into_iter()
        .map(|one| csi::PluginCapability { r#type: Some(one) })
        .collect()
}

/// [`CONTROLLER`] as it goes on the wire.
pub(crate) fn controller() -> Vec<csi::ControllerServiceCapability> {
    use csi::controller_service_capability::{Rpc, Type};
    let wire = |rpc: &Controller| csi::ControllerServiceCapability {
        r#type: Some(Type::Rpc(Rpc {
            r#type: (*rpc).into(),
        })),
    };
    CONTROLLER.iter().map(wire).collect()
}

/// [`GROUP`] as it goes on the wire.
pub(crate) fn group() -> Vec<csi::GroupControllerServiceCapability> {
    use csi::group_controller_service_capability::{Rpc, Type};
    let wire = |rpc: &Group| csi::GroupControllerServiceCapability {
        r#type: Some(Type::Rpc(Rpc {
            r#type: (*rpc).into(),
        })),
    };
    GROUP.iter().map(wire).collect()
}

/// [`NODE`] as it goes on the wire.
pub(crate) fn node() -> Vec<csi::NodeServiceCapability> {
    use csi::node_service_capability::{Rpc, Type};
    let wire = |rpc: &Node| csi::NodeServiceCapability {
        r#type: Some(Type::Rpc(Rpc {
            r#type: (*rpc).into(),
        })),
    };
    NODE.iter().map(wire).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use client::Cluster;
    use csi::controller_server::Controller as _;
    use csi::node_server::Node as _;
    use host::Disks;
    use host::staging::Check;
    use tonic::{Code, Request, Response, Status};
    use types::NodeId;

    use super::*;
    use crate::controller::ControllerService;
    use crate::managers::Managers;
    use crate::node::NodeService;

    /// Whether an empty request is answered by more than "not implemented".
    fn offered<T>(reply: Result<Response<T>, Status>) -> bool {
        reply.map_or_else(|status| status.code() != Code::Unimplemented, |_| true)
    }

    macro_rules! agree {
        ($service:ident, $table:ident, $(($capability:ident, $call:ident)),+ $(,)?) => {
            $(
                let is_offered = offered($service.$call(Request::new(Default::default())).await);
                let is_advertised = $table.contains(&$capability);
                assert_eq!(is_offered, is_advertised, stringify!($call));
            )+
        };
    }

    #[tokio::test]
    async fn what_is_advertised_is_offered_and_the_rest_is_not() {
        use Controller::{
            CreateDeleteSnapshot, CreateDeleteVolume, ExpandVolume, GetCapacity, GetVolume,
            ListSnapshots, ListVolumes, ModifyVolume, PublishUnpublishVolume,
        };
        use Node::{GetVolumeStats, StageUnstageVolume};
        let cluster = Cluster::new(
            ["unix:/nonexistent/manager.sock".parse().unwrap()],
            &trust::Dialer::Plain,
        )
        .unwrap();
        let key = "driver.example/node".to_owned();
        let controller = ControllerService::new(
            Managers::new(cluster, key, Duration::ZERO),
            None,
            crate::claims::Claims::default(),
            0,
        );
        agree!(
            controller,
            CONTROLLER,
            (CreateDeleteVolume, create_volume),
            (CreateDeleteVolume, delete_volume),
            (PublishUnpublishVolume, controller_publish_volume),
            (PublishUnpublishVolume, controller_unpublish_volume),
            (ListVolumes, list_volumes),
            (GetCapacity, get_capacity),
            (CreateDeleteSnapshot, create_snapshot),
            (CreateDeleteSnapshot, delete_snapshot),
            (ListSnapshots, list_snapshots),
            (ExpandVolume, controller_expand_volume),
            (GetVolume, controller_get_volume),
            (ModifyVolume, controller_modify_volume),
        );
        let node_id = NodeId::new("node").unwrap();
        let disks = Disks::new(Vec::new());
        let settings = ::node::Settings {
            node_id: node_id.clone(),
            version: "test",
            disks: disks.clone(),
            kubelet_dir: "/var/lib/kubelet".into(),
            records: "/var/lib/kubelet/plugins/test/attachments".into(),
            replicas: "/var/lib/kubelet/plugins/test/replicas".into(),
            storage: None,
            expose: ::node::ExposeSettings {
                records: "/var/lib/kubelet/plugins/test/exposed".into(),
                names: "/dev/longhorn".into(),
                managers: Cluster::new([], &trust::Dialer::Plain).unwrap(),
                targets: None,
            },
        };
        let node = NodeService::new(
            node_id,
            String::new(),
            disks,
            ::node::Service::new(settings, |_, _, _| {}),
            0,
            Check::default(),
            "/var/lib/kubelet".into(),
        );
        let expand = Node::ExpandVolume;
        agree!(
            node,
            NODE,
            (StageUnstageVolume, node_stage_volume),
            (StageUnstageVolume, node_unstage_volume),
            (GetVolumeStats, node_get_volume_stats),
            (expand, node_expand_volume),
        );
    }
}
