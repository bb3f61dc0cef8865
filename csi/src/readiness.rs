//! Whether the plugin can work now: one look for the CSI Probe and for `/readyz`.

use std::time::{Duration, SystemTime};

use trust::Held;
use types::report;

use crate::error::Result;
use crate::managers::Managers;
use crate::node::NodeService;
use crate::registration::Outcome;

/// Probe must be quick: the liveness probe gives it one second by default.
const DEADLINE: Duration = Duration::from_millis(700);

/// What the plugin depends on.
#[derive(Debug, Clone)]
pub(crate) struct Readiness {
    /// The managers, where a controller is served.
    pub(crate) managers: Option<Managers>,
    /// The node, where one is served.
    pub(crate) node: Option<NodeService>,
    /// The certificate of this program, where it uses one.
    pub(crate) certificate: Option<Held>,
    /// What the kubelet said, where the plugin registers itself.
    pub(crate) registration: Option<Outcome>,
}

impl Readiness {
    /// Why calls cannot work now, though they may later without anybody's doing; `None`: they can.
    /// Whether the kubelet knows the plugin is left out: no call needs that.
    ///
    /// # Errors
    /// What a person must put right.
    pub(crate) async fn look(&self) -> Result<Option<String>> {
        if let Some(node) = &self.node
            && let Some(trouble) = node.look().await?
        {
            return Ok(Some(trouble));
        }
        if let Some(managers) = &self.managers {
            let answer = managers.probe(DEADLINE).await;
            return Ok(answer.err().map(|error| report(&error).to_string()));
        }
        Ok(None)
    }

    /// Why the plugin is of no use to the kubelet or to the sidecars; `None`: it is.
    pub(crate) async fn trouble(&self) -> Option<String> {
        match self.look().await {
            // Without a certificate no manager answers, which would be all that is said.
            Ok(Some(_)) | Err(_) if self.uncertified().is_some() => self.uncertified(),
            Err(error) => Some(report(&error).to_string()),
            Ok(Some(trouble)) => Some(trouble),
            Ok(None) => self
                .uncertified()
                .or_else(|| self.registration.as_ref().and_then(Outcome::trouble)),
        }
    }

    /// Why other programs would not believe this one. The kubelet and the sidecars, which ask by Probe, do: they
    /// are on this machine.
    fn uncertified(&self) -> Option<String> {
        let held = self.certificate.as_ref()?;
        held.trouble(SystemTime::now())
    }
}
