//! The kind of each error of the manager, defined only here.

use types::{Classify, ErrorKind};

use super::Error;

impl Classify for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Name(_)
            | Self::InvalidField { .. }
            | Self::UnalignedSize(_)
            | Self::NotAnImage(_)
            | Self::NotOfImage(_) => ErrorKind::InvalidArgument,
            Self::ImageNotFound(_)
            | Self::FileNotFound(_)
            | Self::NothingToAdopt(_)
            | Self::VolumeNotFound(_)
            | Self::NodeUnknown(_) => ErrorKind::NotFound,
            Self::ImageExists { .. }
            | Self::FileExists(_)
            | Self::VolumeExists { .. }
            | Self::PublishedDifferently { .. } => ErrorKind::AlreadyExists,
            Self::ImageNotReady { .. }
            | Self::ImageInUse { .. }
            | Self::VolumePublished { .. }
            | Self::VolumeAttached { .. }
            | Self::CannotCut { .. }
            | Self::NotADisk { .. }
            | Self::DiskLocked { .. }
            | Self::DiskReplaced(_)
            | Self::OtherDisk { .. }
            | Self::NotMounted(_)
            | Self::CannotEncrypt(_)
            | Self::UploadOffset(_)
            | Self::NewerFormat { .. } => ErrorKind::FailedPrecondition,
            Self::VolumeBusy(_)
            | Self::NodeStateBusy(_)
            | Self::GroupBusy(_)
            | Self::WorkFileBusy(_)
            | Self::Cancelled(_)
            | Self::UploadEnded(_) => ErrorKind::Aborted,
            Self::Draining
            | Self::CutShort { .. }
            | Self::Peer { .. }
            | Self::PeerSilent { .. }
            | Self::DiskSuspect { .. } => ErrorKind::Unavailable,
            Self::NothingCame { .. } | Self::TooSlow { .. } => ErrorKind::DeadlineExceeded,
            Self::OtherManager { source, .. } => source.kind(),
            // A registry may hide what it does not give. No answer is no refusal.
            Self::AccessUnproven { source, .. } => match source.kind() {
                kind @ (ErrorKind::Unauthenticated | ErrorKind::PermissionDenied) => kind,
                ErrorKind::NotFound => ErrorKind::PermissionDenied,
                _ => ErrorKind::Unavailable,
            },
            Self::Size { .. } => ErrorKind::OutOfRange,
            Self::Unimplemented(_) => ErrorKind::Unimplemented,
            Self::NoSpace { .. }
            | Self::Overcommitted { .. }
            | Self::Full { .. }
            | Self::SendingLimit(_)
            | Self::TooManyReceivers(_)
            | Self::PortsInUse(_) => ErrorKind::ResourceExhausted,
            Self::WrongSize { .. }
            | Self::Checksum { .. }
            | Self::SourceChecksum { .. }
            | Self::ChunkMismatch { .. }
            | Self::Incomplete { .. }
            | Self::Damaged { .. }
            | Self::NobodyHas
            | Self::DamagedRecord { .. } => ErrorKind::DataLoss,
            Self::Image(error) => error.kind(),
            Self::Layer(error) => error.kind(),
            Self::Container(error) => error.kind(),
            Self::Fetch(error) => error.kind(),
            Self::SetAside { why, .. } => why.kind(),
            Self::Sync(error) => error.kind(),
            Self::Io { source, .. } => Classify::kind(source),
            Self::Task(_) => ErrorKind::Internal,
        }
    }
}
