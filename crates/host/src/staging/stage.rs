//! Staging: the steps of [`super::stage`], and how a failure undoes them.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use probe::FsType;
use rustix::fs::AtFlags;
use rustix::io::Errno;
use types::{VolumeName, crash_point};

use super::inspect::{self, Attached};
use super::mounting::Mounting;
use super::plan::{self, Plan};
use super::record::{Record, RecordLock};
use super::{Access, NodeVolume, StageRequest, Staged};
use crate::device::BlockDevice;
use crate::disks::{self, DirectoryLock};
use crate::drbd::METADATA;
use crate::loopdev::{AttachOptions, FileId, LoopDevice, SECTOR, Status};
use crate::mounts::{self, MountOptions};
use crate::paths::{self, Place};
use crate::{Error, Holder, Result, filesystem};

/// A stage under way: what was asked, and the lock that makes it the only one.
pub(super) struct Stage<'a> {
    pub(super) request: &'a StageRequest,
    /// For whom the device is attached.
    pub(super) holder: Holder,
    /// The directory of the volume's file, opened once: what is looked at in it is what is used.
    directory: OwnedFd,
    pub(super) place: Place,
    pub(super) lock: RecordLock,
    pub(super) wanted: Record,
}

pub(super) fn stage(request: &StageRequest, holder: Holder) -> Result<Staged> {
    if let Access::Mount { flags, .. } = &request.access {
        mounts::check_flags(flags, None)?;
    }
    let place = Place::open(&request.staging_path)?;
    let directory = open_directory(&request.volume)?;
    let _alone = DirectoryLock::acquire(&directory, &request.volume.name, &request.volume.file)?;
    let lock = RecordLock::acquire(&place, &request.volume.name)?;
    let mut stage = Stage {
        request,
        holder,
        directory,
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

fn open_directory(volume: &NodeVolume) -> Result<OwnedFd> {
    paths::check(&volume.file)?;
    disks::open_directory(&volume.file).map_err(|errno| match errno {
        Errno::NOENT => {
            let (volume, file) = (volume.name.clone(), volume.file.clone());
            Error::VolumeMissing { volume, file }
        }
        errno => Error::io("open the directory of", &volume.file)(errno),
    })
}

/// What a failure has to take away, besides what it has already taken away itself.
enum Undo {
    /// Nothing: the volume is staged, or something of it is still there.
    Keep,
    /// The record: nothing of the volume is here.
    Record,
}

impl Stage<'_> {
    pub(super) fn volume(&self) -> &NodeVolume {
        &self.request.volume
    }

    pub(super) fn name(&self) -> &VolumeName {
        &self.request.volume.name
    }

    /// A path that leads to the volume's file through the open directory, for this process and its children.
    fn pinned_file(&self) -> PathBuf {
        let name = self.volume().file.file_name().unwrap_or_default();
        paths::process_path(&self.directory).join(name)
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
        // What the node service was asked for before a reboot is still wanted when it does not work now.
        let keep_record = device.is_some() || staged_before && self.holder != Holder::Pods;
        let staged = match &self.request.access {
            Access::Block => self.stage_block(device),
            Access::Mount { fs_type, flags } => self.stage_mount(device, *fs_type, flags),
        };
        staged.map_err(|error| {
            (
                error,
                if keep_record {
                    Undo::Keep
                } else {
                    Undo::Record
                },
            )
        })
    }

    fn stage_block(&mut self, device: Option<(LoopDevice, Status)>) -> Result<Staged> {
        self.lock.store(self.wanted.clone())?;
        crash_point!("host.stage.recorded");
        if let Some((device, status)) = device {
            device.refresh_size()?;
            return Ok(staged(&device, &status, None));
        }
        // Its user may address sectors, as a partition table does.
        let (device, status) = self.attach(None, self.wanted.read_only)?;
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
        // Kept to the end: until a device holds the volume, this does.
        let file = self.open_file(false)?;
        let content = {
            let volume = self.volume();
            filesystem::part_content(&volume.name, &volume.file, &file, volume.part.as_ref())?
        };
        let plan = plan::decide(self.volume(), &content, asked, read_only)?;
        let mut options = MountOptions::parse(plan.fs_type(), flags, read_only)?;
        if let Plan::Mount(fs_type) = plan {
            let start = self.volume().part.as_ref().map_or(0, |part| part.start);
            let defaults = filesystem::defaults_to_override(fs_type, &file, start);
            options.add_defaults(defaults.map_err(Error::io("read", &self.volume().file))?);
        }
        let mkfs = match plan {
            Plan::Format(fs_type) => filesystem::mkfs_options(fs_type, &self.request.mkfs_options)?,
            Plan::Mount(_) => Vec::new(),
        };
        self.place.make_directory()?;
        self.lock.store(self.wanted.clone())?;
        crash_point!("host.stage.recorded");

        // Whoever uses the device already has checked it.
        let is_used = device.is_some();
        if let Plan::Format(fs_type) = plan {
            filesystem::format(self.name(), &self.pinned_file(), fs_type, &mkfs)?;
            crash_point!("host.stage.formatted");
        }
        if let Some((device, status)) = device {
            let device = &Attached::Loop(device);
            self.mounting()
                .check_and_mount(plan.fs_type(), &options, device, is_used)?;
            return Ok(staged(device, &status, Some(plan.fs_type())));
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
        let (device, status) = self.attach(Some(fs_type), read_only)?;
        let device = Attached::Loop(device);
        crash_point!("host.stage.attached");
        let mounting = self.mounting();
        match mounting.check_and_mount(fs_type, options, &device, false) {
            Ok(()) => Ok(staged(&device, &status, Some(fs_type))),
            Err(error) => {
                self.let_go(device, status.file);
                Err(error)
            }
        }
    }

    /// What is done to the device from here on.
    pub(super) fn mounting(&self) -> Mounting<'_> {
        Mounting {
            request: self.request,
            place: &self.place,
        }
    }

    /// Lets go of a device whose mount failed. The device is autoclear, so closing it is enough; the
    /// wait is for callers who count devices.
    fn let_go(&self, device: Attached, file: FileId) {
        if let Err(failure) = device.wait_gone(file) {
            tracing::warn!(
                volume = %self.name(),
                error = %types::report(&failure),
                "a failed stage leaves its loop device"
            );
        }
    }

    /// Attaches the volume, to be mounted as a file system of this type or as a block device.
    fn attach(&self, fs_type: Option<FsType>, read_only: bool) -> Result<(LoopDevice, Status)> {
        let (file, read_only) = match self.open_file(!read_only) {
            // A disk that cannot be written to still serves readers.
            Err(Error::Io { source, .. }) if self.wanted.read_only && is_denied(&source) => {
                (self.open_file(false)?, true)
            }
            file => (file?, read_only),
        };
        let mark = inspect::mark(self.name(), self.holder);
        let volume = self.volume();
        let start = volume.part.as_ref().map_or(0, |part| part.start);
        let sector_max = fs_type.map_or(Ok(SECTOR), |fs_type| {
            filesystem::sector_max(fs_type, &file, start)
        });
        let options = AttachOptions {
            read_only,
            autoclear: fs_type.is_some(),
            mark,
            part: volume.part.clone(),
            sector_max: sector_max.map_err(Error::io("read", &volume.file))?,
        };
        let device = LoopDevice::attach(&file, &options)?;
        let status = device
            .status()?
            .ok_or_else(|| Error::Busy(self.name().clone()))?;
        if !status.direct_io {
            tracing::warn!(
                volume = %self.name(),
                file = %self.volume().file.display(),
                "the disk cannot do direct I/O in sectors of the volume's size: it goes through the \
                 page cache of the disk, slower"
            );
        }
        Ok((device, status))
    }

    /// Refuses the file of a replica: what is written past DRBD its peers never get. A manager refuses to publish it; a
    /// cluster that attaches nothing does not ask. Called with the lock of the file, without which no metadata is made.
    fn refuse_replica(&self) -> Result<()> {
        let path = self.volume().file.with_file_name(METADATA);
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        match rustix::fs::statat(&self.directory, METADATA, flags) {
            Ok(_) => Err(Error::IsReplica {
                volume: self.name().clone(),
                metadata: path,
            }),
            Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(Error::io("look for", &path)(errno)),
        }
    }

    /// Opens the volume's file and looks that it is all there. Who has it open, or attached through it,
    /// holds the file (flock(2), shared): meanwhile its manager does not delete the volume or copy it.
    pub(super) fn open_file(&self, writable: bool) -> Result<File> {
        let volume = self.volume();
        let file = match paths::open_regular_in(&self.directory, &volume.file, writable) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                let (volume, file) = (volume.name.clone(), volume.file.clone());
                return Err(Error::VolumeMissing { volume, file });
            }
            file => file?,
        };
        match disks::hold(&file) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(Error::Busy(volume.name.clone())),
            Err(errno) => return Err(Error::io("lock", &volume.file)(errno)),
        }
        self.refuse_replica()?;
        let metadata = file.metadata();
        let metadata = metadata.map_err(Error::io("inspect", &volume.file))?;
        if metadata.nlink() == 0 {
            let (volume, file) = (volume.name.clone(), volume.file.clone());
            return Err(Error::VolumeMissing { volume, file });
        }
        let len = metadata.len();
        let needed = volume.part.as_ref().map_or(0, |part| part.end);
        if len < volume.size.bytes().max(needed) || len == 0 {
            return Err(Error::VolumeDamaged {
                volume: volume.name.clone(),
                file: volume.file.clone(),
                why: format!("it has {len} bytes and the volume {}", volume.size),
            });
        }
        Ok(file)
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

pub(super) fn staged(device: &BlockDevice, status: &Status, fs_type: Option<FsType>) -> Staged {
    Staged {
        device: device.path(),
        fs_type,
        direct_io: status.direct_io,
    }
}
