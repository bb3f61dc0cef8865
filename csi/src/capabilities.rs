//! What the plugin advertises: the one table. A call that is not in it answers UNIMPLEMENTED, and a
//! test holds the two together.

use csi::controller_service_capability::rpc::Type as Controller;
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
    Controller::GetCapacity,
    Controller::PublishReadonly,
    Controller::ExpandVolume,
    Controller::VolumeCondition,
    Controller::GetVolume,
    Controller::SingleNodeMultiWriter,
];

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
