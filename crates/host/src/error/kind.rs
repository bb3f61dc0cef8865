//! The kind of each error of the host, defined only here.

use std::io;

use types::{Classify, ErrorKind};

use super::Error;

impl Classify for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { source, .. } => source.kind_of_io(),
            Self::InvalidPath { .. }
            | Self::InvalidFlag { .. }
            | Self::InvalidMkfsOption { .. }
            | Self::InvalidTarget { .. } => ErrorKind::InvalidArgument,
            Self::UnsupportedFileSystem(_)
            | Self::NotADisk { .. }
            | Self::NoSuchDisk { .. }
            | Self::SeveralDisks { .. }
            | Self::NotStaged { .. }
            | Self::ForeignMount { .. }
            | Self::Occupied { .. }
            | Self::SecondTarget { .. }
            | Self::FsTypeMismatch { .. }
            | Self::NotAFileSystem { .. }
            | Self::ReadOnlyFileSystem { .. }
            | Self::RefusedFileSystem { .. }
            | Self::OtherDevices(_)
            | Self::MixedBlock { .. }
            | Self::Blank { .. }
            | Self::ForeignLoop { .. }
            | Self::HeldOtherwise { .. }
            | Self::IsReplica { .. }
            | Self::StillInUse { .. }
            | Self::VolumeTooSmall { .. }
            | Self::NoLoopDevice { .. }
            | Self::CannotGrowInUse { .. }
            | Self::NotGrown { .. }
            | Self::NotJudged { .. }
            | Self::Requirement { .. }
            | Self::Replication { .. }
            | Self::Drbd { .. }
            | Self::TargetPortal { .. }
            | Self::TargetInUse { .. }
            | Self::TargetUser { .. }
            | Self::ToolMissing { .. } => ErrorKind::FailedPrecondition,
            Self::VolumeMissing { .. } | Self::NotHere { .. } => ErrorKind::NotFound,
            Self::VolumeDamaged { .. } | Self::NeedsRepair { .. } => ErrorKind::DataLoss,
            Self::Busy(_) => ErrorKind::Aborted,
            Self::Incompatible { .. } => ErrorKind::AlreadyExists,
            // A read that failed may work next time; what it would have said stays unknown.
            Self::Probe { .. }
            | Self::Share { .. }
            | Self::TargetEnded { .. }
            | Self::TargetSilent { .. } => ErrorKind::Unavailable,
            Self::TooSmall { .. } => ErrorKind::OutOfRange,
            Self::Mount { source, .. } => mount_kind(source),
            Self::Unmount { source, .. } => busy_or(source),
            Self::Tool { .. } | Self::TargetRefused { .. } => ErrorKind::Internal,
            Self::ToolTimeout { .. } | Self::Hung { .. } => ErrorKind::DeadlineExceeded,
        }
    }
}

/// What a failed mount means: a broken file system, a state that somebody must change, or a fault.
fn mount_kind(source: &io::Error) -> ErrorKind {
    match source.raw_os_error() {
        Some(libc::EUCLEAN | libc::EBADMSG) => ErrorKind::DataLoss,
        Some(
            libc::EROFS | libc::EACCES | libc::EEXIST | libc::EBUSY | libc::ENODEV | libc::EINVAL,
        ) => ErrorKind::FailedPrecondition,
        Some(libc::EIO) => ErrorKind::Unavailable,
        _ => match source.kind_of_io() {
            // It is not the volume that is missing.
            ErrorKind::NotFound => ErrorKind::FailedPrecondition,
            kind => kind,
        },
    }
}

fn busy_or(source: &io::Error) -> ErrorKind {
    if source.raw_os_error() == Some(libc::EBUSY) {
        ErrorKind::FailedPrecondition
    } else {
        source.kind_of_io()
    }
}

/// [`io::Error`] has a `kind` of its own that hides the trait's.
trait KindOfIo {
    fn kind_of_io(&self) -> ErrorKind;
}

impl KindOfIo for io::Error {
    fn kind_of_io(&self) -> ErrorKind {
        Classify::kind(self)
    }
}
