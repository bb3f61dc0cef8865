//! Bytes that a crate above this one brings: what it has to tell of them.

use std::fmt;

use futures_util::future::BoxFuture;
use store::{Facts, Provenance, Received};

use super::{Job, Peers};
use crate::error::Result;

/// A way in for the bytes of one image that this crate does not know itself.
pub trait Origin: fmt::Debug + Send + Sync {
    /// Where the bytes are from, without secrets.
    fn provenance(&self) -> Provenance;

    /// Which way they come.
    fn kind(&self) -> OriginKind;

    /// Brings the bytes. The turn of a job that is not [`OriginKind::Local`] is taken when the first of
    /// them is there. Cancelling the job's token ends it.
    fn take_in<'a>(&'a self, job: &'a Job) -> BoxFuture<'a, Result<Taken>>;
}

/// The ways in which an [`Origin`] brings bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OriginKind {
    Local,
    /// Another manager is asked for them, and can be asked again.
    Manager,
    /// Somebody pushes them, once.
    Pushed,
    /// They are read from a store of backups.
    Store {
        /// Whether it can be asked again when the request is over, with its credentials.
        again: bool,
    },
}

/// What came of an [`Origin`].
#[derive(Debug)]
pub enum Taken {
    /// The bytes, and what vouches for them.
    Bytes(Box<(Received, Facts)>),
    /// Managers that have the image and give it by our own protocol.
    FromPeers(Peers),
}
