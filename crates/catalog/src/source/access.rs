//! Who asks for an image of a registry, and whether the registry would give it to him.

use fetch::registry::Caller;
use fetch::{Credentials, Reference};

use super::Sources;
use crate::error::Result;

/// When a caller has to prove that he may have an image of a registry that is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum VerifyAccess {
    /// For every image from a registry.
    Always,
    /// For images that were pulled with the credentials of a caller.
    #[default]
    IfPrivate,
    /// Never: every caller of this manager gets every image.
    Never,
}

impl Sources {
    /// With another rule of when callers prove that they may have an image.
    #[must_use]
    pub fn with_verify_access(mut self, verify_access: VerifyAccess) -> Self {
        self.verify_access = verify_access;
        self
    }

    pub const fn verify_access(&self) -> VerifyAccess {
        self.verify_access
    }

    /// Who asks: the caller's own credentials are sent, or else the manager's.
    pub fn caller(&self, reference: &Reference, own: Option<&Credentials>) -> Caller {
        let credentials = own.unwrap_or(&self.credentials);
        self.registries.caller(reference, credentials)
    }

    /// Who asks without any credentials.
    pub fn anybody(&self, reference: &Reference) -> Caller {
        self.registries.caller(reference, &Credentials::anonymous())
    }

    /// Asks the registry whether the caller may have an image of it.
    pub async fn may_pull(&self, reference: &Reference, own: Option<&Credentials>) -> Result<()> {
        let credentials = own.unwrap_or(&self.credentials);
        Ok(self.registries.may_pull(reference, credentials).await?)
    }
}
