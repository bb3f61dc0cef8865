//! The call by which a pod is certified. Kubernetes says which pod has the token; nothing that the caller says of
//! itself counts.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use kubernetes::{Reviewed, TokenPod};
use proto::trust::v1::certificates_server::Certificates;
use proto::trust::v1::{IssueCertificateRequest, IssueCertificateResponse};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};
use trust::{Identity, Issued, Role};
use types::{Classify as _, NodeId, report};

use super::keeper::Keeper;
use super::rate::{self, Rate};
use super::refusal::Refusal;
use super::token::Claims;

/// For whom a token has to be.
pub(crate) const AUDIENCE: &str = "longhorn-base-image";
/// The account for which a person makes a token (`kubectl create token`); no pod has it.
const PERSON: &str = "longhorn-base-image-cli";
/// Questions to Kubernetes at a time: with some milliseconds for each, a hundred pods that start at once are
/// certified within a second, and the API server has other things to do.
const AT_ONCE: usize = 16;
/// How long a pod waits for its turn. It asks again by itself.
const TURN: Duration = Duration::from_secs(20);

/// `longhorn.trust.v1.Certificates`.
#[derive(Debug, Clone)]
pub(crate) struct CertificatesService {
    keeper: Keeper,
    asking: Arc<Semaphore>,
    rate: Arc<Rate>,
}

impl CertificatesService {
    pub(crate) fn new(keeper: Keeper) -> Self {
        Self {
            keeper,
            asking: Arc::new(Semaphore::new(AT_ONCE)),
            rate: Arc::default(),
        }
    }

    async fn issue(&self, token: Option<&str>, csr_pem: &str) -> Result<Issued, Refusal> {
        let token = token.ok_or(Refusal::NoToken)?;
        let claims = Claims::of(token).ok_or(Refusal::NoToken)?;
        let identity = {
            let Ok(Ok(_turn)) = tokio::time::timeout(TURN, self.asking.acquire()).await else {
                return Err(Refusal::Busy);
            };
            self.whose(token, &claims).await?
        };
        let issued = self.keeper.issue(csr_pem, &identity, SystemTime::now());
        let issued = issued.ok_or_else(|| Refusal::NoAuthority {
            why: self.keeper.held().failure().unwrap_or_default(),
        })??;
        tracing::info!(%identity, "certified a pod");
        Ok(issued)
    }

    /// A person, by a token that was made for the account of persons: whoever may make one is an administrator of the
    /// cluster.
    fn person(&self, user: String) -> Result<Identity, Refusal> {
        let namespace = self.keeper.api().namespace();
        if user != format!("system:serviceaccount:{namespace}:{PERSON}") {
            return Err(Refusal::NoPod { user });
        }
        let who = || format!("the service account {PERSON}");
        self.admit(PERSON, rate::MOST_OF_PERSONS, who)?;
        Ok(Identity::new(Role::Cli, None, PERSON)?)
    }

    /// Counts a certificate for `key`, of which there may be `most` in a while.
    fn admit(&self, key: &str, most: u32, who: impl FnOnce() -> String) -> Result<(), Refusal> {
        if self.rate.admit(key, most, Instant::now()) {
            return Ok(());
        }
        Err(Refusal::TooOften {
            who: who(),
            most,
            minutes: rate::WINDOW.as_secs() / 60,
        })
    }

    /// Whom a token proves the caller to be.
    async fn whose(&self, token: &str, claims: &Claims) -> Result<Identity, Refusal> {
        let api = self.keeper.api();
        let pod = match api.review(token, AUDIENCE).await? {
            Reviewed::Pod(pod) => pod,
            Reviewed::NoPod { user } => return self.person(user),
            Reviewed::Rejected => return Err(claims.why_rejected(SystemTime::now())),
        };
        if pod.namespace != api.namespace() {
            return Err(Refusal::Namespace {
                found: pod.namespace,
                namespace: api.namespace().to_owned(),
            });
        }
        let role = role(&pod)?;
        self.admit(&pod.uid, rate::MOST, || format!("the pod {}", pod.name))?;
        let node = api.node_of(&pod).await?;
        let node = node.and_then(|node| NodeId::new(&node).ok());
        let node = node.ok_or_else(|| Refusal::PodGone {
            name: pod.name.clone(),
        })?;
        let node = role.has_node().then_some(node);
        Ok(Identity::new(role, node, &pod.name)?)
    }
}

/// The role of a service account of the manifests. The controller is not among them: it signs its own
/// certificate, and nobody else gets one with its role.
fn role(pod: &TokenPod) -> Result<Role, Refusal> {
    match pod.account.as_str() {
        "backing-image-manager" => Ok(Role::Manager),
        "longhorn-csi-plugin" => Ok(Role::Node),
        "longhorn-ui" => Ok(Role::Ui),
        _ => Err(Refusal::Account {
            account: pod.account.clone(),
        }),
    }
}

#[tonic::async_trait]
impl Certificates for CertificatesService {
    async fn issue_certificate(
        &self,
        request: Request<IssueCertificateRequest>,
    ) -> Result<Response<IssueCertificateResponse>, Status> {
        let authorization = request.metadata().get("authorization");
        let authorization = authorization.and_then(|value| value.to_str().ok());
        let token = authorization.and_then(|value| value.strip_prefix("Bearer "));
        match self.issue(token, &request.get_ref().csr_pem).await {
            Ok(Issued {
                chain_pem,
                bundle_pem,
            }) => Ok(Response::new(IssueCertificateResponse {
                chain_pem,
                bundle_pem,
            })),
            Err(refusal) => {
                let text = report(&refusal).to_string();
                let kind = refusal.kind();
                if matches!(refusal, Refusal::NoToken) {
                    // Anybody who reaches the port can cause it, as often as he likes.
                    tracing::debug!(%kind, "{text}");
                } else {
                    tracing::warn!(%kind, "a pod is not certified: {text}");
                }
                Err(Status::new(client::code_of(kind), text))
            }
        }
    }
}

#[cfg(test)]
mod tests;
