//! The owner of a volume: the driver that created it, and for whom. Drivers decide who may use
//! which volumes; this file records the owner, and changes it on request of an operator.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What versions before [`Owner`] remembered the namespace of a FlexVolume's pod by.
const POD_NAMESPACE: &str = "kubernetes.io/pod.namespace";
/// The longest name of Kubernetes.
const NAME_MAX: usize = 253;

/// The owner of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    /// Which program made it.
    pub driver: Driver,
    /// The Kubernetes namespace whose pods may use it; empty: the driver knew none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// The claim that it was made for, or empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub claim: String,
}

/// The programs that make volumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Driver {
    Csi,
    Flexvolume,
    /// A person, or another program.
    Api,
}

impl Owner {
    /// An owner with names that Kubernetes can have given.
    ///
    /// # Errors
    /// A name is longer than Kubernetes has them, or holds other characters.
    pub fn new(driver: Driver, namespace: String, claim: String) -> Result<Self> {
        for (field, name) in [("owner.namespace", &namespace), ("owner.claim", &claim)] {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
            if name.len() > NAME_MAX || !name.bytes().all(fits) {
                let why = "it is not a name of Kubernetes: at most 253 letters, digits, `-` and \
                           `.`";
                let why = why.to_owned();
                return Err(Error::InvalidField { field, why });
            }
        }
        Ok(Self {
            driver,
            namespace,
            claim,
        })
    }

    /// The owner of a volume that was made before owners were recorded: a FlexVolume's remembers the
    /// namespace of its pod among its parameters; of others nothing is known.
    pub(super) fn of_parameters(parameters: &BTreeMap<String, String>) -> Option<Self> {
        let namespace = parameters.get(POD_NAMESPACE)?;
        Some(Self {
            driver: Driver::Flexvolume,
            namespace: namespace.clone(),
            claim: String::new(),
        })
    }

    /// Whether a volume of this owner may become `next`'s while nodes use it: it only learns for whom
    /// it is.
    pub(super) fn is_completed_by(&self, next: &Self) -> bool {
        self.driver == next.driver && self.namespace.is_empty()
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.driver {
            Driver::Csi => "CSI",
            Driver::Flexvolume => "FlexVolume",
            Driver::Api => "the API",
        })?;
        if self.namespace.is_empty() {
            return Ok(());
        }
        write!(f, " for namespace {}", self.namespace)
    }
}
