//! A typed client of the backing image manager: one address in, one method per call out.
//!
//! It owns the connection, the deadline of each call and the way back from a gRPC status to an
//! [`ErrorKind`]. Names are checked before they are sent. It decides nothing: what an answer means
//! for CSI, FlexVolume or a person at a terminal is theirs to say.

mod address;
mod client;
mod error;
mod images;
mod volumes;

pub use address::Address;
pub use client::{Client, DEADLINE};
pub use error::{Error, Result};
pub use images::{ImageOutcome, Watch};
pub use proto::storage::v1 as wire;

use types::ErrorKind;

/// The kind of a gRPC status code: the way back of every server's table.
pub const fn kind_of(code: tonic::Code) -> ErrorKind {
    use tonic::Code;
    match code {
        Code::InvalidArgument => ErrorKind::InvalidArgument,
        Code::NotFound => ErrorKind::NotFound,
        Code::AlreadyExists => ErrorKind::AlreadyExists,
        Code::FailedPrecondition => ErrorKind::FailedPrecondition,
        // A cancelled call may have been done or not: the caller asks again, as after ABORTED.
        Code::Aborted | Code::Cancelled => ErrorKind::Aborted,
        Code::OutOfRange => ErrorKind::OutOfRange,
        Code::ResourceExhausted => ErrorKind::ResourceExhausted,
        Code::Unimplemented => ErrorKind::Unimplemented,
        Code::Unavailable => ErrorKind::Unavailable,
        Code::DeadlineExceeded => ErrorKind::DeadlineExceeded,
        Code::Unauthenticated => ErrorKind::Unauthenticated,
        Code::PermissionDenied => ErrorKind::PermissionDenied,
        Code::DataLoss => ErrorKind::DataLoss,
        Code::Ok | Code::Unknown | Code::Internal => ErrorKind::Internal,
    }
}
