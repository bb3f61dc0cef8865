//! Which node may use a volume: the holder in its record, and the nodes that only read. The kernels decide who does.

use std::collections::HashMap;

use replication::{Record, View};
use tokio::time::Instant;
use types::{NodeId, VolumeName};

use super::create::PATIENCE;
use super::records::Stored;
use super::{Error, Replicated, Result};
use crate::location;
use crate::request::PublishVolume;

/// How a volume with a record is published.
#[derive(Debug)]
pub(crate) enum Published {
    /// On this node, which must know this.
    There(HashMap<String, String>),
    /// It has no DRBD: its manager publishes it.
    ByManager,
}

impl Replicated {
    /// Lets a node use a volume. `None`: it has no record.
    pub(crate) async fn publish(
        &self,
        request: &PublishVolume,
    ) -> Result<Option<Published>, crate::Error> {
        let (volume, node) = (&request.volume, &request.node);
        let Some(mut stored) = self.records.get(volume).await? else {
            return Ok(None);
        };
        if stored.spec.deleting {
            return Err(Error::Deleting(volume.clone()).into());
        }
        let readonly = request.readonly || request.capability.mode.read_only();
        let shared = readonly && request.capability.mode.multi_node();
        let by_manager = stored.spec.address.is_none();
        if admit(&mut stored.spec, node, shared)? {
            if !by_manager && let Some(why) = self.look().await?.trouble(node) {
                let (volume, node) = (volume.clone(), node.clone());
                return Err(Error::Node { volume, node, why }.into());
            }
            stored.spec.generation += 1;
            self.records.replace(&mut stored).await?;
            types::crash_point!("csi.controller_publish.published");
        }
        if by_manager {
            // Named here all the same: meanwhile it does not become one with DRBD.
            return Ok(Some(Published::ByManager));
        }
        let until = Instant::now() + PATIENCE;
        let there = |record: &Record, view: &View| replication::usable(record, view, node).is_ok();
        let driven = self.drive(volume, None, until, there).await?;
        let driven = driven.ok_or_else(|| Error::Deleting(volume.clone()))?;
        let record = &driven.stored.spec;
        let Some(address) = record.address else {
            return Err(Error::Changed {
                volume: volume.clone(),
            }
            .into());
        };
        let context = location::replicated_context(record.size, address.minor, readonly);
        Ok(Some(Published::There(context)))
    }

    /// Takes that back, or all of it; fine when there is nothing to take back. `None`: it has no record.
    pub(crate) async fn unpublish(
        &self,
        volume: &VolumeName,
        node: Option<&NodeId>,
    ) -> Result<Option<Published>, crate::Error> {
        let Some(mut stored) = self.records.get(volume).await? else {
            return Ok(None);
        };
        if stored.spec.address.is_none() {
            return Ok(Some(Published::ByManager));
        }
        if self.withdraw(&mut stored, node).await? {
            self.tell(stored);
        }
        Ok(Some(Published::There(HashMap::new())))
    }

    /// Notes that a volume was taken back by its manager.
    pub(crate) async fn released(&self, volume: &VolumeName, node: Option<&NodeId>) -> Result<()> {
        if let Some(mut stored) = self.records.get(volume).await?
            && stored.spec.address.is_none()
        {
            self.withdraw(&mut stored, node).await?;
        }
        Ok(())
    }

    /// Takes a node, or all, out of a record; whether that changes it.
    async fn withdraw(&self, stored: &mut Stored, node: Option<&NodeId>) -> Result<bool> {
        let mut next = stored.spec.clone();
        let goes = |one: &NodeId| node.is_none_or(|node| node == one);
        next.holder.take_if(|holder| goes(holder));
        next.readers.retain(|reader| !goes(reader));
        let Some(next) = stored.spec.changed(next) else {
            return Ok(false);
        };
        stored.spec = next;
        self.records.replace(stored).await?;
        types::crash_point!("csi.controller_unpublish.recorded");
        Ok(true)
    }

    /// Tells the nodes of a volume what has changed, as soon as it goes; the leader's loop does the rest.
    fn tell(&self, stored: Stored) {
        let this = self.clone();
        drop(tokio::spawn(async move {
            let volume = stored.spec.volume;
            let generation = stored.spec.generation;
            let told = |record: &Record, view: &View| {
                record.generation > generation
                    || record.members.iter().all(|member| {
                        let part = view.part(member);
                        part.is_none_or(|part| part.generation >= generation)
                    })
            };
            if let Err(error) = this.drive(&volume, None, Instant::now(), told).await {
                tracing::debug!(%volume, "{}", types::report(&error));
            }
        }));
    }
}

/// Names a node in a record; whether that changes it.
fn admit(record: &mut Record, node: &NodeId, shared: bool) -> Result<bool> {
    let volume = || record.volume.clone();
    if shared {
        if let Some(holder) = record.holder.clone() {
            let volume = volume();
            return Err(if holder == *node {
                let (node, how) = (holder, "writing");
                Error::HeldDifferently { volume, node, how }
            } else {
                let node = holder;
                Error::Held { volume, node }
            });
        }
        if record.readers.contains(node) {
            return Ok(false);
        }
        record.readers.push(node.clone());
        return Ok(true);
    }
    if let Some(reader) = record.readers.first().cloned() {
        let volume = volume();
        return Err(if record.readers.contains(node) {
            let (node, how) = (node.clone(), "reading by several nodes");
            Error::HeldDifferently { volume, node, how }
        } else {
            let node = reader;
            Error::Held { volume, node }
        });
    }
    match record.holder.clone() {
        Some(holder) if holder == *node => Ok(false),
        Some(node) => {
            let volume = volume();
            Err(Error::Held { volume, node })
        }
        None => {
            record.holder = Some(node.clone());
            Ok(true)
        }
    }
}

#[cfg(test)]
mod tests {
    use replication::Origin;
    use types::{ByteSize, Classify as _, ErrorKind};

    use super::*;

    fn record() -> Record {
        let volume = VolumeName::new("v").unwrap();
        Record::new(volume, ByteSize(4096), Origin::Blank)
    }

    #[test]
    fn one_node_writes_or_many_read() {
        let node = |name| NodeId::new(name).unwrap();
        let (a, b) = (node("a"), node("b"));
        let mut one = record();
        assert!(admit(&mut one, &a, false).unwrap());
        assert!(!admit(&mut one, &a, false).unwrap(), "a repeated call");
        let kind = |result: Result<bool>| result.unwrap_err().kind();
        assert_eq!(
            kind(admit(&mut one, &b, false)),
            ErrorKind::FailedPrecondition
        );
        assert_eq!(
            kind(admit(&mut one, &b, true)),
            ErrorKind::FailedPrecondition
        );
        assert_eq!(kind(admit(&mut one, &a, true)), ErrorKind::AlreadyExists);
        let mut many = record();
        assert!(admit(&mut many, &a, true).unwrap());
        assert!(admit(&mut many, &b, true).unwrap());
        assert!(!admit(&mut many, &b, true).unwrap());
        assert_eq!(kind(admit(&mut many, &b, false)), ErrorKind::AlreadyExists);
        assert_eq!(
            kind(admit(&mut many, &node("c"), false)),
            ErrorKind::FailedPrecondition
        );
        assert_eq!(many.readers, [a, b]);
    }
}
