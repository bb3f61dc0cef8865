//! From the options to the certificate of this program: got from files or from the controller, or made here where
//! this controller is the authority.

use std::sync::Arc;

use axum::Router;
use kubernetes::Api;
use listen::{BoundAddresses, Listener, Protocol, Security, access};
use proto::trust::v1::certificates_server::CertificatesServer;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use trust::held::Proof;
use trust::{Dialer, Held, Identity, Policy, Role};

use super::keeper::Keeper;
use super::service::CertificatesService;
use crate::config::{AuthorityConfig, Certificates};
use crate::error::{Error, Result};

/// The certificate of this program; `None`: it uses none.
#[derive(Debug, Default)]
pub(crate) struct Started {
    pub(crate) held: Option<Held>,
    /// Where certificates are issued, for --address-file.
    pub(crate) bound: BoundAddresses,
}

impl Started {
    /// How other programs are reached.
    pub(crate) fn dialer(&self) -> Dialer {
        match &self.held {
            Some(held) => Dialer::Proven(held.clone()),
            None => Dialer::Plain,
        }
    }
}

/// Starts what gets this program its certificate, and what issues those of others. It goes on in `beside`.
pub(crate) async fn start(config: Certificates, beside: &mut JoinSet<()>) -> Result<Started> {
    match config {
        Certificates::None => Ok(Started::default()),
        Certificates::From(source) => {
            let (held, keeping) = client::hold(source);
            beside.spawn(keeping);
            Ok(Started {
                held: Some(held),
                bound: BoundAddresses::default(),
            })
        }
        Certificates::Authority(config) => authority(config, beside).await,
    }
}

async fn authority(config: AuthorityConfig, beside: &mut JoinSet<()>) -> Result<Started> {
    let AuthorityConfig {
        place,
        listen,
        account,
    } = config;
    let api = Api::in_cluster(&account).await.map_err(Error::Kubernetes)?;
    let host = rustix::system::uname();
    // In a pod, the name of the host is that of the pod.
    let host = host.nodename().to_string_lossy().into_owned();
    let identity = Identity::new(Role::Controller, None, &host).map_err(Error::Certificates)?;
    let keeper = Keeper::new(api, place, identity);
    let held = keeper.held().clone();
    let listener = Listener::bind(&listen, Protocol::Grpc)
        .await
        .map_err(Error::io("listen on", listen.to_string()))?
        .secured(Security {
            held: Some(held.clone()),
            proof: Proof::Optional,
            ..Security::default()
        });
    let bound = BoundAddresses::default().with("authority", &listener);
    tracing::info!(address = %bound, "issuing certificates");
    let service = CertificatesService::new(keeper.clone());
    beside.spawn(keeper.keep());
    beside.spawn(listener.serve(router(service), CancellationToken::new()));
    Ok(Started {
        held: Some(held),
        bound,
    })
}

fn router(service: CertificatesService) -> Router {
    // Nothing but this service is here, whoever calls.
    let policy = Arc::new(Policy::default());
    access::grpc(Routes::new(CertificatesServer::new(service)), policy)
}

// A method that nobody decided about does not compile.
const _: () = assert!(
    trust::access::lists_all(proto::TRUST_METHODS),
    "a method of the certificate authority has no line in trust::access::TABLE"
);
