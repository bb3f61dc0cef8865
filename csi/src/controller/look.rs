//! What the controller service sees of volumes before it answers.

use client::wire;
use types::VolumeName;

use super::ControllerService;
use crate::content;
use crate::error::Result;
use crate::location;
use crate::managers::Located;
use crate::replicated::Replicated;
use crate::request::{self, Capability, Mutable, ORIGINAL_NAME, Parameters, SNAPSHOT_ID};
use crate::volumes::create;

impl ControllerService {
    /// A volume as its record has it, else as its manager has it.
    pub(super) async fn volume(&self, name: &VolumeName) -> Result<wire::Volume> {
        if let Some(replicated) = &self.replicated
            && let Some(volume) = replicated.get(name).await?
        {
            return Ok(volume);
        }
        Ok(self.managers.of_volume(name).await?.1)
    }

    /// The volume of a request, made or found.
    pub(super) async fn made(&self, request: &request::CreateVolume) -> Result<wire::Volume> {
        if let Some(replicated) = &self.replicated
            && Replicated::is_for(request)
        {
            return Box::pin(replicated.create(request)).await;
        }
        let volume = match self.managers.locate(request).await? {
            Located::Has(volume) => {
                create::suits(&volume, &request.capabilities)?;
                *volume
            }
            // The largest future by far: kept off the stack of the others.
            Located::New(volumes) => Box::pin(volumes.create(request)).await?,
        };
        self.managers.seen().volume(&volume);
        self.claims.made(&volume);
        Ok(volume)
    }

    /// Volumes of a page, each once, as their records have them.
    pub(super) fn merged(&self, volumes: Vec<wire::Volume>) -> Vec<wire::Volume> {
        match &self.replicated {
            Some(replicated) => replicated.merge(volumes),
            None => volumes,
        }
    }

    /// Why a volume cannot be used as asked, or `None`. Errors are the manager's.
    pub(super) async fn objection(
        &self,
        request: &request::ValidateVolume,
    ) -> Result<Option<String>> {
        let volume = self.volume(&request.volume).await?;
        let expected = location::volume_context(&volume);
        if !location::is_context(&request.context, &expected) {
            return Ok(Some(
                "volume_context does not belong to the volume".to_owned(),
            ));
        }
        let checked =
            Capability::parse_all(request.capabilities.clone()).and_then(|capabilities| {
                if !client::is_blank_copy(&volume) {
                    content::suits(&volume.image_name, volume.content.as_ref(), &capabilities)?;
                }
                let mutable = Mutable::parse(&request.mutable_parameters)?;
                let has = |asked: Option<u32>, own| asked.is_none_or(|asked| asked == own);
                let mutable_fit = has(mutable.number_of_replicas, volume.number_of_replicas)
                    && has(mutable.stale_replica_timeout, volume.stale_replica_timeout);
                let parameters = Parameters::parse(&request.parameters)?.recorded();
                let mut recorded = volume.parameters.clone();
                recorded.remove(ORIGINAL_NAME);
                recorded.remove(SNAPSHOT_ID);
                let fit = request.parameters.is_empty() || parameters == recorded;
                Ok(fit && mutable_fit)
            });
        Ok(match checked {
            Ok(true) => None,
            Ok(false) => Some("parameters differ from those of the volume".to_owned()),
            Err(error) => Some(types::report(&error).to_string()),
        })
    }
}
