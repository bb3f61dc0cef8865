//! Why a pod is not certified, for the pod, and so for whoever reads its log or asks whether it is ready.

use types::{Classify, ErrorKind};

use super::service::AUDIENCE;

/// A pod gets no certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// No token, or something that is none.
    #[error(
        "the request has no token: send one of the pod's service account, for the audience {AUDIENCE}, as \
         `authorization: Bearer`"
    )]
    NoToken,
    /// For somebody else.
    #[error(
        "the token is for {audiences}, not for the audience {AUDIENCE}: mount a projected token of that audience"
    )]
    Audience { audiences: String },
    /// Too old.
    #[error(
        "the token expired {seconds} s ago by the clock of the controller: the kubelet replaces the file in time, \
         so compare the clocks of the nodes"
    )]
    Expired { seconds: u64 },
    /// Kubernetes does not know it.
    #[error(
        "Kubernetes does not accept the token{of}: its pod or service account has been deleted, or the token is not \
         of this cluster"
    )]
    Rejected {
        /// ` of pod NAME` as the token says, or nothing.
        of: String,
    },
    /// Its pod is gone, or another one has its name.
    #[error("the pod {name} of this token does not exist any more")]
    PodGone { name: String },
    /// It is not that of a pod.
    #[error(
        "the token is that of {user:?} and of no pod: only pods are certified here, and a person by \
         `kubectl create token longhorn-base-image-cli --audience longhorn-base-image`"
    )]
    NoPod { user: String },
    /// It is that of a pod elsewhere.
    #[error("the token is of the namespace {found}; only pods of {namespace} are certified here")]
    Namespace { found: String, namespace: String },
    /// The pod is none of ours.
    #[error(
        "the service account {account} has no role here: certified are backing-image-manager, longhorn-csi-plugin \
         and longhorn-ui"
    )]
    Account { account: String },
    /// One pod asks too often, or all persons together.
    #[error("{who} has asked for {most} certificates within {minutes} minutes; ask again later")]
    TooOften {
        who: String,
        most: u32,
        minutes: u64,
    },
    /// Too many ask at once.
    #[error("too many pods ask at once; ask again")]
    Busy,
    /// There is nothing to sign with.
    #[error("this controller has no certificate authority: {why}")]
    NoAuthority { why: String },
    /// Kubernetes cannot be asked.
    #[error(transparent)]
    Kubernetes(#[from] kubernetes::Error),
    /// What was sent is not right, or cannot be signed.
    #[error(transparent)]
    Trust(#[from] trust::Error),
}

impl Classify for Refusal {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoToken
            | Self::Audience { .. }
            | Self::Expired { .. }
            | Self::Rejected { .. }
            | Self::PodGone { .. } => ErrorKind::Unauthenticated,
            Self::NoPod { .. } | Self::Namespace { .. } | Self::Account { .. } => {
                ErrorKind::PermissionDenied
            }
            Self::TooOften { .. } | Self::Busy => ErrorKind::ResourceExhausted,
            // Whatever is wrong between us and Kubernetes, the pod can only wait.
            Self::NoAuthority { .. } | Self::Kubernetes(_) => ErrorKind::Unavailable,
            Self::Trust(error) => error.kind(),
        }
    }
}
