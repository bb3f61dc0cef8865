//! The identity service: the name of the plugin, and whether it can work.

use std::collections::HashMap;

use proto::csi::v1 as csi;
use tonic::{Request, Response, Status};

use crate::capabilities;
use crate::config::DriverName;
use crate::readiness::Readiness;
use crate::status::answer;

/// What answers on the identity service.
#[derive(Debug)]
pub(crate) struct IdentityService {
    pub(crate) name: DriverName,
    pub(crate) readiness: Readiness,
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
        let capabilities = capabilities::plugin(self.readiness.managers.is_some());
        Ok(Response::new(csi::GetPluginCapabilitiesResponse {
            capabilities,
        }))
    }

    async fn probe(
        &self,
        _: Request<csi::ProbeRequest>,
    ) -> Result<Response<csi::ProbeResponse>, Status> {
        answer("Probe", "", async {
            // What will come by itself is "not ready"; what a person must put right is an error.
            let trouble = self.readiness.look().await?;
            if let Some(trouble) = &trouble {
                tracing::warn!("not ready: {trouble}");
            }
            let ready = Some(trouble.is_none());
            Ok(csi::ProbeResponse { ready })
        })
        .await
    }
}
