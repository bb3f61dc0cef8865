//! The maximum number of volumes per node. The scheduler respects NodeGetInfo, but two schedulers
//! together, or a person who sets the node of a pod, do not: this check is final.

use client::wire;
use tokio::sync::{Mutex, MutexGuard};
use types::{NodeId, VolumeName};

use crate::error::{Error, Result};

/// The limit of every node.
#[derive(Debug)]
pub(crate) struct NodeLimit {
    /// 0: none.
    most: u32,
    /// Held from the count until the volume is published: two calls at once must not both take the
    /// last place.
    counting: Mutex<()>,
}

impl NodeLimit {
    pub(crate) fn new(most: u32) -> Self {
        let counting = Mutex::default();
        Self { most, counting }
    }

    /// Refuses a node that has its volumes already, of all that `listed` gives. What comes back is to be
    /// held until the volume is published.
    ///
    /// # Errors
    /// `ResourceExhausted`.
    pub(crate) async fn admit(
        &self,
        volume: &VolumeName,
        node: &NodeId,
        listed: impl Future<Output = Result<Vec<wire::Volume>>>,
    ) -> Result<Option<MutexGuard<'_, ()>>> {
        if self.most == 0 {
            return Ok(None);
        }
        let counted = self.counting.lock().await;
        let is_there = |other: &&wire::Volume| {
            let mut nodes = other.published.iter();
            other.name != volume.as_str()
                && nodes.any(|to| to.node_id == node.as_str() && to.r#use() == wire::Use::Pods)
        };
        let there = listed.await?.iter().filter(is_there).count();
        if usize::try_from(self.most).is_ok_and(|most| there >= most) {
            return Err(Error::NodeFull {
                node: node.clone(),
                most: self.most,
            });
        }
        Ok(Some(counted))
    }
}

#[cfg(test)]
mod tests {
    use types::{Classify as _, ErrorKind};

    use super::*;

    fn published(name: &str, node: &str) -> wire::Volume {
        let publication = wire::Publication {
            node_id: node.to_owned(),
            ..Default::default()
        };
        wire::Volume {
            name: name.to_owned(),
            published: vec![publication],
            ..Default::default()
        }
    }

    #[tokio::test]
    async fn a_full_node_takes_only_what_it_has() {
        let there = [
            published("a", "one"),
            published("b", "one"),
            published("c", "two"),
        ];
        let admit = async |most: u32, name: &str, node: &str| {
            let (name, node) = (VolumeName::new(name).unwrap(), NodeId::new(node).unwrap());
            let listed = std::future::ready(Ok(there.to_vec()));
            let limit = NodeLimit::new(most);
            limit.admit(&name, &node, listed).await.map(drop)
        };
        admit(0, "d", "one").await.unwrap();
        admit(3, "d", "one").await.unwrap();
        admit(2, "d", "two").await.unwrap();
        admit(2, "b", "one").await.unwrap();
        let error = admit(2, "d", "one").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ResourceExhausted);
        assert!(error.to_string().contains("one"), "{error}");
    }
}
