//! Where the members of each volume meet: one number for the whole cluster, which is that of the device on every node
//! and of the TCP port. Who writes a number down looks afterwards whether another volume has it too, and then takes
//! another one: of two that write at once, at least one sees the other.

use std::collections::{HashMap, HashSet};

use replication::Address;
use types::VolumeName;

use super::records::Stored;
use super::{Error, Replicated, Result};

impl Replicated {
    /// An address that no volume has.
    pub(super) async fn free_address(&self) -> Result<Address> {
        self.free_of(&self.records.list().await?)
    }

    fn free_of(&self, records: &[Stored]) -> Result<Address> {
        let taken = records.iter().filter_map(|stored| stored.spec.address);
        let taken: HashSet<u32> = taken.map(|address| address.minor).collect();
        let mut all = self.settings.ports.clone();
        let free = all.find(|port| !taken.contains(&u32::from(*port)));
        let (first, last) = (*self.settings.ports.start(), *self.settings.ports.end());
        let port = free.ok_or(Error::NoPort { first, last })?;
        Ok(Address {
            minor: port.into(),
            port,
        })
    }

    /// Sees to it that no other volume has the address of this one. To be called once it is written, before any node
    /// is told.
    pub(super) async fn settle_address(&self, stored: &mut Stored) -> Result<()> {
        let _alone = self.addressing.lock().await;
        // Nodes use it.
        if stored.spec.initialized {
            return Ok(());
        }
        while let Some(address) = stored.spec.address {
            let records = self.records.list().await?;
            let volume = &stored.spec.volume;
            let has = |other: &Stored| {
                other.spec.volume != *volume && other.spec.address == Some(address)
            };
            if !records.iter().any(has) {
                break;
            }
            stored.spec.address = Some(self.free_of(&records)?);
            stored.spec.generation += 1;
            self.records.replace(stored).await?;
        }
        Ok(())
    }

    /// Volumes that were given an address that another one has, by a controller that died before it looked. No node has
    /// been told of them.
    pub(super) async fn settle_addresses(&self, records: &mut [Stored]) -> Result<()> {
        let mut owners: HashMap<Address, VolumeName> = HashMap::new();
        // Those that nodes know come first.
        records.sort_by_key(|stored| !stored.spec.initialized);
        for stored in records.iter_mut() {
            let Some(address) = stored.spec.address else {
                continue;
            };
            let volume = stored.spec.volume.clone();
            let owner = owners.entry(address).or_insert_with(|| volume.clone());
            if *owner != volume {
                let owner = owner.clone();
                tracing::warn!(%volume, %owner, "has the address of another volume, and gets its own");
                self.settle_address(stored).await?;
            }
        }
        Ok(())
    }
}
