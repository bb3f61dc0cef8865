//! How much may be promised to the volumes of a disk: volumes are thin, and use space only for
//! written data.
//!
//! The sizes of all volumes and the space of the images are compared with the disk, minus the
//! reserve of images, times `--overcommit`. GetDisk reports the same figures, so that the reported
//! capacity can be created.

use std::collections::HashMap;
use std::sync::{MutexGuard, PoisonError};

use types::{ByteSize, VolumeName};

use super::Volumes;
use crate::error::{Error, Result};
use store::space::{FULL, Shortage, floor};

/// Percent of a disk that its volumes may be promised: fifteen times. Volumes of one base image share it, and
/// blank ones are seldom full; the condition of the volumes tells in time when they are.
pub const OVERCOMMIT: u32 = 1500;

/// What was promised of a disk, and what can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Promise {
    /// Bytes of all volumes, and what the images take.
    pub promised: u64,
    /// Bytes of all volumes.
    pub volumes: u64,
    /// What the images take, in bytes.
    pub images: u64,
    /// How many volumes there are.
    pub count: usize,
    /// The most that this may be; `None`: no bound.
    pub most: Option<u64>,
    /// Bytes that a new volume may have.
    pub creatable: u64,
}

/// A size that is promised to a volume; given back on drop unless the volume has it.
pub(super) struct Promised<'a> {
    volumes: &'a Volumes,
    name: &'a VolumeName,
    before: Option<u64>,
    kept: bool,
}

impl Promised<'_> {
    /// The volume has that size now.
    pub(super) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Promised<'_> {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let mut sizes = self.volumes.sizes();
        match self.before {
            Some(before) => sizes.insert(self.name.clone(), before),
            None => sizes.remove(self.name),
        };
    }
}

impl Volumes {
    /// Bounds what volumes are promised, in percent of the disk; 0: no bound.
    #[must_use]
    pub fn with_overcommit(mut self, percent: u32) -> Self {
        self.overcommit = percent;
        self
    }

    pub(super) fn sizes(&self) -> MutexGuard<'_, HashMap<VolumeName, u64>> {
        self.sizes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was promised, and what can be.
    pub fn promise(&self) -> Result<Promise> {
        let images = self.disk.images_size()?;
        let (count, volumes) = {
            let sizes = self.sizes();
            let sum = |sum: u64, size: &u64| sum.saturating_add(*size);
            (sizes.len(), sizes.values().fold(0, sum))
        };
        let promised = volumes.saturating_add(images);
        let (most, creatable) = self.bounds(promised)?;
        Ok(Promise {
            promised,
            volumes,
            images,
            count,
            most,
            creatable,
        })
    }

    /// The most that may be promised, and what a new volume may have when so much is.
    fn bounds(&self, promised: u64) -> Result<(Option<u64>, u64)> {
        let space = self.disk.space()?;
        let whole = space.size.saturating_sub(floor(space.size));
        let most = (self.overcommit > 0).then(|| {
            let most = u128::from(whole) * u128::from(self.overcommit) / 100;
            u64::try_from(most).unwrap_or(u64::MAX)
        });
        let creatable = match most {
            _ if matches!(space.shortage(), Some(Shortage::Full)) => 0,
            Some(most) => most.saturating_sub(promised) / types::BLOCK * types::BLOCK,
            None => super::request::SIZE_MAX - types::BLOCK,
        };
        let creatable = creatable.min(super::request::SIZE_MAX - types::BLOCK);
        Ok((most, creatable))
    }

    /// Promises `size` to a volume that is made or grown, or refuses it.
    pub(super) fn promise_to<'a>(
        &'a self,
        name: &'a VolumeName,
        size: ByteSize,
    ) -> Result<Promised<'a>> {
        let space = self.disk.space()?;
        if space.shortage() == Some(Shortage::Full) {
            let (available, needed) = (space.available, FULL);
            return Err(store::Error::NoSpace { available, needed }.into());
        }
        let images = self.disk.images_size()?;
        let mut sizes = self.sizes();
        let others = sizes.iter().filter(|(other, _)| *other != name);
        let others = others.fold(images, |sum, (_, size)| sum.saturating_add(*size));
        let (most, creatable) = self.bounds(others)?;
        if size.bytes() > creatable {
            return Err(Error::Overcommitted {
                asked: size,
                promised: others,
                most: most.unwrap_or(u64::MAX),
                creatable,
            });
        }
        let before = sizes.insert(name.clone(), size.bytes());
        Ok(Promised {
            volumes: self,
            name,
            before,
            kept: false,
        })
    }
}
