//! The last steps of staging a file system, on whatever device: check, mount, grow.

use probe::FsType;
use types::crash_point;

use super::inspect::Attached;
use super::{Check, StageRequest};
use crate::mounts::{self, MountOptions, Unmount};
use crate::paths::Place;
use crate::{Error, Result, filesystem};

/// A device that is attached, and the place that it is mounted at.
pub(super) struct Mounting<'a> {
    pub(super) request: &'a StageRequest,
    pub(super) place: &'a Place,
}

impl Mounting<'_> {
    pub(super) fn check_and_mount(
        &self,
        fs_type: FsType,
        options: &MountOptions,
        device: &Attached,
        is_used: bool,
    ) -> Result<()> {
        if self.request.check == Check::All && self.request.volume.has_source && !is_used {
            filesystem::check_all(fs_type, &device.path())?;
        }
        if !options.read_only && !is_used {
            filesystem::check(fs_type, &device.path())?;
            crash_point!("host.stage.checked");
            if filesystem::grows_only_unmounted(fs_type, device)? {
                self.try_unmounted(fs_type, device)?;
            }
        }
        mounts::mount_device(&device.path(), fs_type, options, self.place)?;
        crash_point!("host.stage.mounted");
        if !options.read_only
            && let Err(error) = self.grow_in_use(fs_type, device)
        {
            if is_used || !filesystem::can_grow_unmounted(fs_type) {
                self.is_not_grown(&error);
            } else {
                tracing::info!(error = %types::report(&error), "growing the file system unmounted");
                mounts::unmount(self.place, Unmount::Plain)?;
                self.try_unmounted(fs_type, device)?;
                mounts::mount_device(&device.path(), fs_type, options, self.place)?;
            }
        }
        crash_point!("host.stage.grown");
        Ok(())
    }

    /// Grows a file system that the kernel cannot grow in use (an ext4 without room for more group
    /// descriptors, for one). One that does not grow is mounted as it is, if it is still whole.
    fn try_unmounted(&self, fs_type: FsType, device: &Attached) -> Result<()> {
        if let Err(error) = filesystem::grow_unmounted(device) {
            self.is_not_grown(&error);
            filesystem::check(fs_type, &device.path())?;
        }
        Ok(())
    }

    fn grow_in_use(&self, fs_type: FsType, device: &Attached) -> Result<()> {
        device.refresh_size()?;
        filesystem::grow(fs_type, device, &self.place.pinned_path()).map(drop)
    }

    /// Grows the mounted file system, if it can be grown.
    pub(super) fn grow(&self, fs_type: FsType, device: &Attached) {
        if let Err(error) = self.grow_in_use(fs_type, device) {
            self.is_not_grown(&error);
        }
    }

    /// A file system that does not grow is whole, and is used at the size that it has: the condition of the
    /// volume tells it ([`super::stats`]).
    fn is_not_grown(&self, error: &Error) {
        let volume = &self.request.volume.name;
        tracing::warn!(%volume, "the file system is not grown: {}", types::report(error));
    }
}
