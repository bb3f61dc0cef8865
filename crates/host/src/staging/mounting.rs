//! The last steps of staging a file system, on whatever device: check, mount, grow.

use probe::FsType;
use types::crash_point;

use super::inspect::{Attached, Found};
use super::record::{Kind, Record};
use super::{Access, Check, StageRequest};
use crate::mounts::{self, MountOptions, Unmount};
use crate::paths::Place;
use crate::{Error, Result, filesystem};

/// A device that is attached, and the place that it is mounted at.
pub(super) struct Mounting<'a> {
    pub(super) request: &'a StageRequest,
    pub(super) place: &'a Place,
}

impl Mounting<'_> {
    /// Refuses a mount that is there and was not asked for: of another kind or file system, with other access, or with
    /// other flags.
    pub(super) fn suits(
        &self,
        found: &Found,
        recorded: Option<&Record>,
        wanted: &Record,
    ) -> Result<()> {
        let Access::Mount { fs_type, .. } = &self.request.access else {
            return Err(self
                .request
                .incompatible(Kind::Mount.describe(), Kind::Block.describe()));
        };
        let present = &found.mount.fs_type;
        if let Some(asked) = fs_type.filter(|asked| asked.as_str() != present.as_str()) {
            return Err(self
                .request
                .incompatible(&format!("as {present}"), asked.as_str()));
        }
        let read_only = found.mount.has_option("ro");
        if read_only != wanted.read_only {
            return Err(self
                .request
                .incompatible(writing(read_only), writing(wanted.read_only)));
        }
        if let Some(flags) = recorded.map(|record| &record.flags)
            && *flags != wanted.flags
        {
            let (flags, wanted) = (flags.join(","), wanted.flags.join(","));
            return Err(self.request.incompatible(
                &format!("with the mount flags {flags:?}"),
                &format!("{wanted:?}"),
            ));
        }
        Ok(())
    }

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

impl StageRequest {
    /// What is there is not what is asked for.
    pub(super) fn incompatible(&self, present: &str, asked: &str) -> Error {
        Error::Incompatible {
            volume: self.volume.name.clone(),
            path: self.staging_path.clone(),
            present: present.to_owned(),
            asked: asked.to_owned(),
        }
    }
}

/// Access in words.
pub(super) const fn writing(read_only: bool) -> &'static str {
    if read_only {
        "read-only"
    } else {
        "for writing"
    }
}
