//! The identity service: who the plugin is, and whether it can work.

use std::collections::HashMap;
use std::time::Duration;

use client::Client;
use proto::csi::v1 as csi;
use tonic::{Request, Response, Status};

use crate::capabilities;
use crate::config::DriverName;
use crate::node::NodeService;
use crate::status::answer;

/// Probe must be quick: the liveness probe gives it one second by default.
const PROBE_DEADLINE: Duration = Duration::from_millis(700);

/// What answers on the identity service.
#[derive(Debug)]
pub(crate) struct IdentityService {
    pub(crate) name: DriverName,
    /// The manager, where a controller is served.
    pub(crate) client: Option<Client>,
    /// The node, where one is served.
    pub(crate) node: Option<NodeService>,
}

impl IdentityService {
    /// Whether calls can work now. What will come by itself is "not ready"; what a person must put
    /// right is an error.
    async fn probe_parts(&self) -> crate::error::Result<bool> {
        let mut ready = true;
        if let Some(client) = &self.client {
            let answer = client.clone().with_deadline(PROBE_DEADLINE).disk().await;
            if let Err(error) = answer {
                tracing::warn!("not ready: {}", types::report(&error));
                ready = false;
            }
        }
        if let Some(node) = &self.node {
            ready &= node.probe().await?;
        }
        Ok(ready)
    }
}

#[tonic::async_trait]
impl csi::identity_server::Identity for IdentityService {
    async fn get_plugin_info(
        &self,
        _: Request<csi::GetPluginInfoRequest>,
    ) -> Result<Response<csi::GetPluginInfoResponse>, Status> {
        let manifest = HashMap::from([("csi".to_owned(), "1.12".to_owned())]);
        let vendor_version = env!("CARGO_PKG_VERSION").to_owned();
        let name = self.name.to_string();
        Ok(Response::new(csi::GetPluginInfoResponse {
            name,
            vendor_version,
            manifest,
        }))
    }

    async fn get_plugin_capabilities(
        &self,
        _: Request<csi::GetPluginCapabilitiesRequest>,
    ) -> Result<Response<csi::GetPluginCapabilitiesResponse>, Status> {
        let capabilities = capabilities::plugin(self.client.is_some());
        Ok(Response::new(csi::GetPluginCapabilitiesResponse {
            capabilities,
        }))
    }

    async fn probe(
        &self,
        _: Request<csi::ProbeRequest>,
    ) -> Result<Response<csi::ProbeResponse>, Status> {
        answer("Probe", "", async {
            let ready = self.probe_parts().await?;
            Ok(csi::ProbeResponse { ready: Some(ready) })
        })
        .await
    }
}
