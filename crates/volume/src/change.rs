//! Changes of an existing volume: its size, and the settings of its owner.

use std::fs::File;

use types::{ByteSize, VolumeName, crash_point};

use super::contents::{can_grow, set_size};
use super::owner::Owner;
use super::replica;
use super::request::rounded;
use super::{Volume, Volumes};
use store::IoContext;
use store::held::hold;

use crate::error::{Error, Result};

impl Volumes {
    /// Grows a volume to at least `required` bytes; one that is that large is left as it is.
    pub fn grow(
        &self,
        name: &VolumeName,
        required: ByteSize,
        limit: Option<ByteSize>,
    ) -> Result<Volume> {
        let _busy = self.lock(name)?;
        let mut volume = self.get(name)?;
        let size = rounded(required)?.max(volume.record.size);
        if volume.record.partition.is_some() && size > volume.record.size {
            return Err(Error::Size {
                asked: required,
                why: "it is used by one of its partitions, which cannot grow".to_owned(),
            });
        }
        if let Some(limit) = limit.filter(|limit| size > *limit) {
            return Err(Error::Size {
                asked: required,
                why: format!("it would be {size}, more than the limit of {limit}"),
            });
        }
        let paths = self.disk.layout().volume(name);
        replica::can_cover(&paths.metadata, size)?;
        self.disk.check()?;
        let promised = if size > volume.record.size {
            Some(self.promise_to(name, size)?)
        } else {
            None
        };
        let file = File::options()
            .read(true)
            .write(true)
            .open(&paths.data)
            .context("open", &paths.data)?;
        if size > volume.record.size {
            can_grow(&file, size, &paths.data)?;
        }
        // The file first: a record that promises more than there is would be wrong.
        if file.metadata().context("inspect", &paths.data)?.len() < size.bytes() {
            set_size(&file, size, &paths.data)?;
            file.sync_all().context("sync", &paths.data)?;
        }
        crash_point!("volume.grow.data");
        if volume.record.size < size {
            volume.record.size = size;
            volume.record.write(&paths.record)?;
        }
        if let Some(promised) = promised {
            promised.keep();
        }
        Ok(volume)
    }

    /// Changes what may change of a volume; `None` leaves it as it is.
    pub fn modify(
        &self,
        name: &VolumeName,
        number_of_replicas: Option<u32>,
        stale_replica_timeout: Option<u32>,
        owner: Option<Owner>,
    ) -> Result<Volume> {
        let _busy = self.lock(name)?;
        let mut volume = self.get(name)?;
        let before = volume.record.clone();
        let record = &mut volume.record;
        record.number_of_replicas = number_of_replicas.unwrap_or(record.number_of_replicas);
        record.stale_replica_timeout =
            stale_replica_timeout.unwrap_or(record.stale_replica_timeout);
        if *record != before {
            // A repeated request for the volume is compared with it.
            record.made_with = Some(before.made_with());
        }
        if let Some(owner) = owner {
            let own = record.owner();
            let completes = own.is_some_and(|own| own == owner || own.is_completed_by(&owner));
            if let Some(publication) = volume.published.first().filter(|_| !completes) {
                return Err(Error::VolumePublished {
                    name: name.clone(),
                    node: publication.node_id.clone(),
                    by: publication.by,
                });
            }
            if !completes {
                let data = self.disk.layout().volume(name).data;
                let file = File::open(&data).context("open", &data)?;
                if !hold(&file, &data)? {
                    let (name, node) = (name.clone(), self.node_id.clone());
                    return Err(Error::VolumeAttached { name, node });
                }
            }
            record.owner = Some(owner);
        }
        if *record != before {
            self.disk.check()?;
            record.write(&self.disk.layout().volume(name).record)?;
            crash_point!("volume.modify.recorded");
        }
        Ok(volume)
    }
}
