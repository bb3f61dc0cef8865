//! Staging of a volume that DRBD attaches: the steps of [`super::stage_replicated`].
//!
//! 1 record · 2 take the right to write (`primary`), or to read · 3 look what it holds · 4 format (blank volumes without
//! a source only) · 5 check, mount, grow. [`super::unstage`] gives the right back after it has unmounted. There is one
//! holder in the cluster, whatever happens here: the kernels see to it.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use probe::{Content, FsType};
use replication::{Engine as _, Layout};
use types::crash_point;

use super::inspect::{self, AtPlace, Attached, Found};
use super::mounting::Mounting;
use super::plan::{self, Plan};
use super::record::{Record, RecordLock};
use super::stage::staged;
use super::{Access, NodeVolume, StageRequest, Staged};
use crate::drbd::{self, Drbd};
use crate::filesystem::{self, FORMATTING};
use crate::loopdev::{AttachOptions, LoopDevice, SECTOR, Status};
use crate::mounts::{self, MountOptions, Unmount};
use crate::paths::Place;
use crate::{Error, Holder, Result};

/// A stage under way.
struct Replicated<'a> {
    request: &'a StageRequest,
    drbd: &'a Drbd,
    layout: &'a Layout,
    place: Place,
    lock: RecordLock,
    wanted: Record,
}

pub(super) fn stage(request: &StageRequest, drbd: &Drbd, layout: &Layout) -> Result<Staged> {
    if let Access::Mount { flags, .. } = &request.access {
        mounts::check_flags(flags, None)?;
    }
    let place = Place::open(&request.staging_path)?;
    let lock = RecordLock::acquire(&place, &request.volume.name)?;
    let was_staged = lock.record().is_some();
    let mut stage = Replicated {
        request,
        drbd,
        layout,
        place,
        lock,
        wanted: Record::new(request),
    };
    let failed = match stage.run() {
        Ok(staged) => return Ok(staged),
        Err(error) => error,
    };
    if !was_staged && stage.is_free() {
        stage.undo();
    }
    Err(failed)
}

impl Replicated<'_> {
    fn volume(&self) -> &NodeVolume {
        &self.request.volume
    }

    fn run(&mut self) -> Result<Staged> {
        if let Some(found) = self.clear_place()? {
            return self.adopt(&found);
        }
        self.lock.store(self.wanted.clone())?;
        crash_point!("host.stage.recorded");
        self.drbd.attach(self.layout)?;
        crash_point!("host.stage.attached");
        let (device, status) =
            inspect::replicated(&self.volume().name, drbd::device(self.layout.minor)?);
        let is_reader = self.layout.holder.as_ref() != Some(self.drbd.node());
        let is_block = matches!(self.request.access, Access::Block);
        // Opened for writing, a reader would become the holder. A holder who mounts it read-only replays its journal.
        if is_reader || is_block && self.wanted.read_only {
            device.protect(true)?;
        }
        match &self.request.access {
            Access::Block => Ok(staged(&device, &status, None)),
            Access::Mount { fs_type, flags } => self.mount(device, &status, *fs_type, flags),
        }
    }

    /// The mount of an earlier stage. A dead one, of a volume that was taken over meanwhile, is taken away.
    fn clear_place(&self) -> Result<Option<Found>> {
        loop {
            match inspect::at(&self.place, &self.volume().name)? {
                AtPlace::Nothing => return Ok(None),
                AtPlace::Foreign(mount) => return Err(inspect::foreign(&mount)),
                AtPlace::Ours(found) if inspect::is_dead(&found)? => {
                    tracing::warn!(volume = %self.volume().name, path = %self.place.path().display(),
                        "dead mount is removed");
                    mounts::unmount(&self.place, Unmount::Lazy)?;
                }
                AtPlace::Ours(found) => return Ok(Some(*found)),
            }
        }
    }

    /// Takes an existing mount for the result, if it is what was asked for.
    fn adopt(&mut self, found: &Found) -> Result<Staged> {
        let mounting = self.mounting();
        mounting.suits(found, self.lock.record(), &self.wanted)?;
        self.lock.store(self.wanted.clone())?;
        let fs_type = found.mount.fs_type.parse().ok();
        if let Some(fs_type) = fs_type.filter(|_| !self.wanted.read_only) {
            self.mounting().grow(fs_type, &found.device);
        }
        Ok(staged(&found.device, &found.status, fs_type))
    }

    fn mount(
        &self,
        device: Attached,
        status: &Status,
        asked: Option<FsType>,
        flags: &[String],
    ) -> Result<Staged> {
        let (volume, read_only) = (self.volume(), self.wanted.read_only);
        let plan = plan::decide(volume, &self.content(&device)?, asked, read_only)?;
        let fs_type = plan.fs_type();
        let mut options = MountOptions::parse(fs_type, flags, read_only)?;
        if let Plan::Mount(fs_type) = plan {
            let start = volume.part.as_ref().map_or(0, |part| part.start);
            let defaults = filesystem::defaults_to_override(fs_type, device.file()?, start);
            options.add_defaults(defaults.map_err(Error::io("read", &volume.file))?);
        }
        self.place.make_directory()?;
        if let Plan::Format(fs_type) = plan {
            let more = filesystem::mkfs_options(fs_type, &self.request.mkfs_options)?;
            filesystem::format_device(&volume.name, &device, &self.scratch(), fs_type, &more)?;
            crash_point!("host.stage.formatted");
        }
        let device = self.part(device)?;
        self.mounting()
            .check_and_mount(fs_type, &options, &device, false)?;
        Ok(staged(&device, status, Some(fs_type)))
    }

    /// What the volume holds. One whose formatting did not end is as blank as before.
    fn content(&self, device: &Attached) -> Result<Content> {
        let volume = self.volume();
        let failed = |source| Error::Probe {
            volume: volume.name.clone(),
            file: volume.file.clone(),
            source,
        };
        if !volume.has_source {
            let mut start = [0; FORMATTING.len()];
            let read = device.file()?.read_exact_at(&mut start, 0);
            read.map_err(failed)?;
            if start == *FORMATTING {
                return Ok(Content::Blank);
            }
            // That it is blank is proven by reading all of it: where there is a file its holes need not be read.
            if let Some(file) = self.drbd.current_file(self.layout)? {
                return filesystem::part_content(&volume.name, &volume.file, &file, None);
            }
        }
        let part = volume.part.as_ref();
        filesystem::part_content(&volume.name, &volume.file, device.file()?, part)
    }

    /// The device itself, or a loop device on the partition that is asked for, which goes with its mount.
    fn part(&self, device: Attached) -> Result<Attached> {
        let Some(part) = self.volume().part.clone() else {
            return Ok(device);
        };
        let path = device.path();
        let read_only = self.wanted.read_only;
        let file = OpenOptions::new().read(true).write(!read_only).open(&path);
        let options = AttachOptions {
            read_only,
            autoclear: true,
            mark: inspect::mark(&self.volume().name, Holder::Pods),
            part: Some(part),
            sector_max: SECTOR,
        };
        let file = file.map_err(Error::io("open", &path))?;
        LoopDevice::attach(&file, &options).map(Attached::Loop)
    }

    /// Where a file system is made before it is written to the device: beside the record.
    fn scratch(&self) -> PathBuf {
        let name = format!("{}.longhorn.format", self.volume().name);
        self.place.path().with_file_name(name)
    }

    fn mounting(&self) -> Mounting<'_> {
        Mounting {
            request: self.request,
            place: &self.place,
        }
    }

    fn is_free(&self) -> bool {
        let at = inspect::at(&self.place, &self.volume().name);
        matches!(at, Ok(AtPlace::Nothing))
    }

    /// Takes away what a failed stage has left.
    fn undo(self) {
        let volume = &self.request.volume.name;
        let released = drbd::release(volume);
        let removed = released.and_then(|()| self.lock.remove());
        if let Err(failure) = removed {
            tracing::warn!(%volume, error = %types::report(&failure), "a failed stage leaves its record");
        }
    }
}
