//! The state that an earlier stage left: a mount, a device, or leftovers of a crash.

use std::fs::File;
use std::path::Path;

use super::Staged;
use super::inspect::{self, AtPlace, Found};
use super::mounting::writing;
use super::record::{self, Kind};
use super::stage::{Stage, staged};
use crate::filesystem;
use crate::loopdev::{self, FileId, LoopDevice, Status};
use crate::mountinfo;
use crate::mounts::{self, Unmount};
use crate::{Error, Holder, Result};

impl Stage<'_> {
    /// Finds the mount of an earlier stage. A dead one is taken away first.
    pub(super) fn clear_place(&self) -> Result<Option<Found>> {
        match inspect::at(&self.place, self.name())? {
            AtPlace::Nothing => Ok(None),
            AtPlace::Foreign(mount) => Err(inspect::foreign(&mount)),
            AtPlace::Ours(found) if inspect::is_dead(&found)? => {
                tracing::warn!(volume = %self.name(), path = %self.place.path().display(),
                    "dead mount is removed");
                mounts::unmount(&self.place, Unmount::Lazy)?;
                // A new device beside the old one could see late writes of the old one.
                found.device.wait_gone(found.status.file)?;
                self.clear_place()
            }
            AtPlace::Ours(found) => {
                // Killed between mount and growth, where growing needs the file system unmounted.
                if self.lock.record() == Some(&self.wanted)
                    && cannot_grow(&found)?
                    && inspect::mounted_elsewhere(
                        &mountinfo::read()?,
                        &found.device,
                        &[self.place.path()],
                    )
                    .is_empty()
                {
                    mounts::unmount(&self.place, Unmount::Plain)?;
                    found.device.wait_gone(found.status.file)?;
                    return Ok(None);
                }
                Ok(Some(*found))
            }
        }
    }

    /// Takes an existing mount for the result, if it is what was asked for.
    pub(super) fn adopt_mount(&mut self, found: &Found) -> Result<Staged> {
        let mounting = self.mounting();
        mounting.suits(found, self.lock.record(), &self.wanted)?;
        let file = self.open_file(false)?;
        if file_id(&file, &self.volume().file)? != found.status.file {
            return Err(self.request.incompatible("from another file", "this one"));
        }
        self.same_part(&found.status)?;
        self.lock.store(self.wanted.clone())?;
        let fs_type = found.mount.fs_type.parse().ok();
        if cannot_grow(found)? {
            tracing::warn!(volume = %self.name(), "the file system grows when it is staged next");
        } else if let Some(fs_type) = fs_type.filter(|_| !found.mount.is_read_only()) {
            self.mounting().grow(fs_type, &found.device);
        }
        Ok(staged(&found.device, &found.status, fs_type))
    }

    /// The device of ours that the volume's file is attached to and that may be used again. One
    /// that a crash left unused is detached.
    pub(super) fn existing_device(&self) -> Result<Option<(LoopDevice, Status)>> {
        let file = self.open_file(false)?;
        let id = file_id(&file, &self.volume().file)?;
        drop(file);
        let mark = inspect::mark(self.name(), self.holder);
        for (device, status) in loopdev::find(|status| status.file == id)? {
            let is_of = |holder: &Holder| inspect::mark(self.name(), *holder) == status.mark;
            let by = Holder::ALL.into_iter().find(is_of);
            if let Some(by) = by.filter(|by| *by != self.holder) {
                return Err(Error::HeldOtherwise {
                    volume: self.name().clone(),
                    device: device.path(),
                    by,
                });
            }
            if status.mark != mark {
                return Err(Error::ForeignLoop {
                    file: self.volume().file.clone(),
                    device: device.path(),
                    users: loopdev::users(device.name())?,
                });
            }
            if self.may_reuse(&device, &status)? {
                self.same_part(&status)?;
                return Ok(Some((device, status)));
            }
            device.detach()?;
        }
        Ok(None)
    }

    /// Whether a device of ours is in use, so that it must be used again and never be detached.
    fn may_reuse(&self, device: &LoopDevice, status: &Status) -> Result<bool> {
        if self.holder != Holder::Pods {
            // What its callers do with it is their affair. One that is to go with its last user is no use.
            return self.same_access(status).map(|()| !status.autoclear);
        }
        let mounts = mountinfo::read()?;
        let others = inspect::mounted_elsewhere(&mounts, device, &[]);
        for mount in &others {
            let record = record::peek(&mount.point, self.name());
            if record.is_some_and(|record| record.staging_path == mount.point) {
                return Err(Error::Incompatible {
                    volume: self.name().clone(),
                    path: mount.point.clone(),
                    present: "staged".to_owned(),
                    asked: format!("{} as a second mirror", self.place.path().display()),
                });
            }
        }
        let recorded = self.lock.record().map(|record| record.kind);
        let is_block = !status.autoclear
            && (recorded == Some(Kind::Block)
                || others.iter().any(|mount| inspect::is_device_node(mount)));
        let is_mounted = others.iter().any(|mount| !inspect::is_device_node(mount));
        let kind = Kind::of(&self.request.access);
        match kind {
            Kind::Block if is_mounted => Err(self
                .request
                .incompatible(Kind::Mount.describe(), kind.describe())),
            Kind::Mount if is_block => Err(self
                .request
                .incompatible(Kind::Block.describe(), kind.describe())),
            Kind::Block if is_block => self.same_access(status).map(|()| true),
            Kind::Block => Ok(false),
            Kind::Mount => Ok(is_mounted),
        }
    }

    /// Whether a block device in use is writable as it is asked for.
    fn same_access(&self, status: &Status) -> Result<()> {
        if status.read_only == self.wanted.read_only {
            return Ok(());
        }
        let (is, asked) = (writing(status.read_only), writing(self.wanted.read_only));
        Err(self.request.incompatible(is, asked))
    }

    /// Whether a device in use shows the bytes that are asked for.
    fn same_part(&self, status: &Status) -> Result<()> {
        if status.part == self.volume().part {
            return Ok(());
        }
        Err(self
            .request
            .incompatible("with another partition", "this one"))
    }
}

/// Whether a mount for writing is too small and can grow only while it is not mounted.
fn cannot_grow(found: &Found) -> Result<bool> {
    match found.mount.fs_type.parse() {
        Ok(fs_type) if !found.mount.is_read_only() => {
            found.device.refresh_size()?;
            filesystem::grows_only_unmounted(fs_type, &found.device)
        }
        _ => Ok(false),
    }
}

fn file_id(file: &File, path: &Path) -> Result<FileId> {
    FileId::of(file).map_err(Error::io("inspect", path))
}
