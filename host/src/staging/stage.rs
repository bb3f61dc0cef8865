//! Staging: the steps of [`super::stage`], and what is undone when one fails.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use probe::FsType;
use types::{VolumeName, crash_point};

use super::inspect::{self, AtPlace, Found};
use super::plan::{self, Plan};
use super::record::{self, Kind, Record, RecordLock};
use super::{Access, NodeVolume, StageRequest, Staged};
use crate::filesystem;
use crate::loopdev::{self, AttachOptions, FileId, LoopDevice, Status};
use crate::mounts::{self, MountOptions, Unmount};
use crate::paths::{self, Place};
use crate::{Error, Result};

/// A stage under way: what was asked, and the lock that makes it the only one.
struct Stage<'a> {
    request: &'a StageRequest,
    place: Place,
    lock: RecordLock,
    wanted: Record,
}

pub(super) fn stage(request: &StageRequest) -> Result<Staged> {
    if let Access::Mount { flags, .. } = &request.access {
        mounts::check_flags(flags)?;
    }
    let place = Place::open(&request.staging_path)?;
    let lock = RecordLock::acquire(&place, &request.volume.name)?;
    let mut stage = Stage {
        request,
        place,
        lock,
        wanted: Record::new(request),
    };
    match stage.run() {
        Ok(staged) => Ok(staged),
        // An empty record was only the lock.
        Err((error, Undo::Keep)) if stage.lock.record().is_some() => Err(error),
        Err((error, Undo::Keep | Undo::Record)) => {
            if let Err(failure) = stage.lock.remove() {
                tracing::warn!(
                    volume = %request.volume.name,
                    error = %types::report(&failure),
                    "a failed stage leaves its record"
                );
            }
            Err(error)
        }
    }
}

/// What a failure has to take away, besides what it has already taken away itself.
enum Undo {
    /// Nothing: the volume is staged, or something of it is still there.
    Keep,
    /// The record: nothing of the volume is here.
    Record,
}

impl Stage<'_> {
    fn volume(&self) -> &NodeVolume {
        &self.request.volume
    }

    fn name(&self) -> &VolumeName {
        &self.request.volume.name
    }

    fn run(&mut self) -> Result<Staged, (Error, Undo)> {
        let keep = |error| (error, Undo::Keep);
        if let Some(found) = self.clear_place().map_err(keep)? {
            return self.adopt_mount(&found).map_err(keep);
        }
        let staged_before = self.lock.record().is_some();
        let device = match self.existing_device() {
            Ok(device) => device,
            // The record of a volume whose device is in use stays: unstage will want it.
            Err(error) if staged_before => return Err(keep(error)),
            Err(error) => return Err((error, Undo::Record)),
        };
        let in_use = device.is_some();
        let staged = match &self.request.access {
            Access::Block => self.stage_block(device),
            Access::Mount { fs_type, flags } => self.stage_mount(device, *fs_type, flags),
        };
        staged.map_err(|error| (error, if in_use { Undo::Keep } else { Undo::Record }))
    }

    /// Finds the mount of an earlier stage. A dead one is taken away first.
    fn clear_place(&self) -> Result<Option<Found>> {
        match inspect::at(&self.place, self.name())? {
            AtPlace::Nothing => Ok(None),
            AtPlace::Foreign(mount) => Err(inspect::foreign(&mount)),
            AtPlace::Ours(found) if inspect::is_dead(&found)? => {
                tracing::warn!(volume = %self.name(), path = %self.place.path().display(),
                    "dead mount is taken away");
                mounts::unmount(&self.place, Unmount::Lazy)?;
                // A new device beside the old one could see late writes of the old one.
                found.device.wait_gone(found.status.file)?;
                self.clear_place()
            }
            AtPlace::Ours(found) => {
                // Killed between mount and growth, where growing needs the file system unmounted.
                if cannot_grow(&found)?
                    && inspect::mounted_elsewhere(found.device.name(), &[self.place.path()])?
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
    fn adopt_mount(&mut self, found: &Found) -> Result<Staged> {
        let Access::Mount { fs_type, .. } = &self.request.access else {
            return Err(self.incompatible(Kind::Mount.describe(), Kind::Block.describe()));
        };
        let present = &found.mount.fs_type;
        if let Some(asked) = fs_type.filter(|asked| asked.as_str() != present.as_str()) {
            return Err(self.incompatible(&format!("as {present}"), asked.as_str()));
        }
        let read_only = found.mount.has_option("ro");
        if read_only != self.wanted.read_only {
            return Err(self.incompatible(writing(read_only), writing(self.wanted.read_only)));
        }
        if let Some(flags) = self.lock.record().map(|record| &record.flags)
            && *flags != self.wanted.flags
        {
            let (flags, wanted) = (flags.join(","), self.wanted.flags.join(","));
            return Err(self.incompatible(
                &format!("with the mount flags {flags:?}"),
                &format!("{wanted:?}"),
            ));
        }
        let file = self.open_file(false)?;
        if file_id(&file, &self.volume().file)? != found.status.file {
            return Err(self.incompatible("from another file", "this one"));
        }
        self.lock.store(self.wanted.clone())?;
        let fs_type = present.parse().ok();
        if cannot_grow(found)? {
            tracing::warn!(volume = %self.name(), "the file system grows when it is staged next");
        } else if let Some(fs_type) = fs_type.filter(|_| !found.mount.is_read_only()) {
            self.grow(fs_type, &found.device)?;
        }
        Ok(staged(&found.device, &found.status, fs_type))
    }

    /// The device of ours that the volume's file is attached to and that may be used again. One
    /// that a crash left unused is detached.
    fn existing_device(&self) -> Result<Option<(LoopDevice, Status)>> {
        let file = self.open_file(false)?;
        let id = file_id(&file, &self.volume().file)?;
        drop(file);
        let mark = inspect::mark(self.name());
        for (device, status) in loopdev::find(|status| status.file == id)? {
            if status.mark != mark {
                return Err(Error::ForeignLoop {
                    file: self.volume().file.clone(),
                    device: device.path(),
                    users: loopdev::users(device.name())?,
                });
            }
            if self.may_reuse(&device, &status)? {
                return Ok(Some((device, status)));
            }
            device.detach()?;
        }
        Ok(None)
    }

    /// Whether a device of ours is in use, so that it must be used again and never be detached.
    fn may_reuse(&self, device: &LoopDevice, status: &Status) -> Result<bool> {
        let others = inspect::mounted_elsewhere(device.name(), &[])?;
        for mount in &others {
            let record = record::peek(&mount.point, self.name());
            if record.is_some_and(|record| record.staging_path == mount.point) {
                return Err(Error::Incompatible {
                    volume: self.name().clone(),
                    path: mount.point.clone(),
                    present: "staged".to_owned(),
                    asked: format!("{} as a second place", self.place.path().display()),
                });
            }
        }
        let recorded = self.lock.record().map(|record| record.kind);
        let is_block = !status.autoclear
            && (recorded == Some(Kind::Block) || others.iter().any(inspect::is_device_node));
        let is_mounted = others.iter().any(|mount| !inspect::is_device_node(mount));
        let kind = Kind::of(&self.request.access);
        match kind {
            Kind::Block if is_mounted => {
                Err(self.incompatible(Kind::Mount.describe(), kind.describe()))
            }
            Kind::Mount if is_block => {
                Err(self.incompatible(Kind::Block.describe(), kind.describe()))
            }
            Kind::Block if is_block && status.read_only != self.wanted.read_only => {
                let (is, asked) = (writing(status.read_only), writing(self.wanted.read_only));
                Err(self.incompatible(is, asked))
            }
            Kind::Block => Ok(is_block),
            Kind::Mount => Ok(is_mounted),
        }
    }

    fn stage_block(&mut self, device: Option<(LoopDevice, Status)>) -> Result<Staged> {
        self.lock.store(self.wanted.clone())?;
        crash_point!("host.stage.recorded");
        if let Some((device, status)) = device {
            device.refresh_size()?;
            return Ok(staged(&device, &status, None));
        }
        let (device, status) = self.attach(Kind::Block, self.wanted.read_only)?;
        crash_point!("host.stage.attached");
        Ok(staged(&device, &status, None))
    }

    fn stage_mount(
        &mut self,
        device: Option<(LoopDevice, Status)>,
        asked: Option<FsType>,
        flags: &[String],
    ) -> Result<Staged> {
        let read_only = self.wanted.read_only;
        let content = {
            let file = self.open_file(false)?;
            filesystem::content(self.name(), &self.volume().file, &file)?
        };
        let plan = plan::decide(self.volume(), &content, asked, read_only)?;
        let options = MountOptions::parse(plan.fs_type(), flags, read_only)?;
        self.place.make_directory()?;
        self.lock.store(self.wanted.clone())?;
        crash_point!("host.stage.recorded");

        // Whoever uses the device already has checked it.
        let is_used = device.is_some();
        if let Plan::Format(fs_type) = plan {
            filesystem::format(self.name(), &self.volume().file, fs_type)?;
            crash_point!("host.stage.formatted");
        }
        if let Some((device, status)) = device {
            self.check_and_mount(plan.fs_type(), &options, &device, is_used)?;
            return Ok(staged(&device, &status, Some(plan.fs_type())));
        }
        // A reader's device is read-only, so that not even the driver's own housekeeping writes.
        match self.attach_and_mount(plan.fs_type(), &options, read_only) {
            Err(error) if read_only && needs_replay(&error) && !options.skips_recovery => {
                tracing::info!(volume = %self.name(), "journal is replayed for a reader");
                self.attach_and_mount(plan.fs_type(), &options, false)
            }
            result => result,
        }
    }

    fn attach_and_mount(
        &self,
        fs_type: FsType,
        options: &MountOptions,
        read_only: bool,
    ) -> Result<Staged> {
        let (device, status) = self.attach(Kind::Mount, read_only)?;
        crash_point!("host.stage.attached");
        match self.check_and_mount(fs_type, options, &device, false) {
            Ok(()) => Ok(staged(&device, &status, Some(fs_type))),
            Err(error) => {
                self.let_go(device, status.file);
                Err(error)
            }
        }
    }

    fn check_and_mount(
        &self,
        fs_type: FsType,
        options: &MountOptions,
        device: &LoopDevice,
        is_used: bool,
    ) -> Result<()> {
        if !options.read_only && !is_used {
            filesystem::check(fs_type, &device.path())?;
            crash_point!("host.stage.checked");
            if filesystem::grows_only_unmounted(fs_type, device)? {
                filesystem::grow_unmounted(device)?;
            }
        }
        mounts::mount_device(&device.path(), fs_type, options, &self.place)?;
        crash_point!("host.stage.mounted");
        if !options.read_only
            && let Err(error) = self.grow(fs_type, device)
        {
            if let Err(failure) = mounts::unmount(&self.place, Unmount::Plain) {
                tracing::warn!(error = %types::report(&failure), "a failed stage leaves its mount");
            }
            return Err(error);
        }
        crash_point!("host.stage.grown");
        Ok(())
    }

    fn grow(&self, fs_type: FsType, device: &LoopDevice) -> Result<()> {
        device.refresh_size()?;
        filesystem::grow(fs_type, device, &self.place.pinned_path()).map(drop)
    }

    /// Lets go of a device whose mount failed. The device is autoclear, so closing it is enough; the
    /// wait is for callers who count devices.
    fn let_go(&self, device: LoopDevice, file: FileId) {
        if let Err(failure) = device.wait_gone(file) {
            tracing::warn!(
                volume = %self.name(),
                error = %types::report(&failure),
                "a failed stage leaves its loop device"
            );
        }
    }

    fn attach(&self, kind: Kind, read_only: bool) -> Result<(LoopDevice, Status)> {
        let (file, read_only) = match self.open_file(!read_only) {
            // A disk that cannot be written to still serves readers.
            Err(Error::Io { source, .. }) if self.wanted.read_only && is_denied(&source) => {
                (self.open_file(false)?, true)
            }
            file => (file?, read_only),
        };
        let mark = inspect::mark(self.name());
        let options = AttachOptions {
            read_only,
            autoclear: kind == Kind::Mount,
            mark,
        };
        let device = LoopDevice::attach(&file, &options)?;
        let status = device
            .status()?
            .ok_or_else(|| Error::Busy(self.name().clone()))?;
        if !status.direct_io {
            tracing::warn!(
                volume = %self.name(),
                file = %self.volume().file.display(),
                "the disk cannot do direct I/O in 512-byte sectors: the volume goes through its \
                 page cache, slower"
            );
        }
        Ok((device, status))
    }

    /// Opens the volume's file and looks that it is all there.
    fn open_file(&self, writable: bool) -> Result<File> {
        let volume = self.volume();
        let file = match paths::open_regular(&volume.file, writable) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                let (volume, file) = (volume.name.clone(), volume.file.clone());
                return Err(Error::VolumeMissing { volume, file });
            }
            file => file?,
        };
        let len = file
            .metadata()
            .map_err(Error::io("look at", &volume.file))?
            .len();
        if len < volume.size.bytes() || len == 0 {
            return Err(Error::VolumeDamaged {
                volume: volume.name.clone(),
                file: volume.file.clone(),
                why: format!("it has {len} bytes and the volume {}", volume.size),
            });
        }
        Ok(file)
    }

    fn incompatible(&self, present: &str, asked: &str) -> Error {
        Error::Incompatible {
            volume: self.name().clone(),
            path: self.request.staging_path.clone(),
            present: present.to_owned(),
            asked: asked.to_owned(),
        }
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

/// Whether a read-only mount failed because the journal has to be replayed first, which needs a
/// device that can be written to.
fn needs_replay(error: &Error) -> bool {
    matches!(error, Error::Mount { source, .. } if is_denied(source))
}

fn is_denied(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EROFS | libc::EACCES | libc::EPERM)
    )
}

fn file_id(file: &File, path: &Path) -> Result<FileId> {
    FileId::of(file).map_err(Error::io("look at", path))
}

fn writing(read_only: bool) -> &'static str {
    if read_only {
        "read-only"
    } else {
        "for writing"
    }
}

fn staged(device: &LoopDevice, status: &Status, fs_type: Option<FsType>) -> Staged {
    let device: PathBuf = device.path();
    Staged {
        device,
        fs_type,
        direct_io: status.direct_io,
    }
}
