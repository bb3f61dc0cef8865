//! What goes wrong between this program and a store, and what it means to the caller.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use types::{Classify, ErrorKind};

/// The result of everything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something did not work. `key` is the path of an object in its store, from `backupstore` on. No
/// text holds the value of a credential.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A name that no program which shares the store would take.
    #[error("name {text:?} is not valid: {why}")]
    Name {
        /// Shortened.
        text: String,
        why: &'static str,
    },
    /// The address of a store or of something in it.
    #[error(
        "backup address {text:?} is not valid: {why}; examples: s3://bucket@region/path/, \
         nfs://server:/export/dir, cifs://server/share, azblob://container@core.windows.net/path, \
         each with ?backup=NAME&volume=NAME for a backup"
    )]
    Address {
        /// Shortened, and without anything that may be a secret.
        text: String,
        why: &'static str,
    },
    /// The keys of a target's Secret, without any of their values.
    #[error("the credentials of the backup target cannot be used: {key}: {why}")]
    Credentials { key: String, why: String },
    /// A value that is none of those that there are.
    #[error("{option} {text:?} is not valid: {why}")]
    Option {
        option: &'static str,
        text: String,
        why: &'static str,
    },
    /// Nobody has mounted it, or the mount is gone: nothing is read or written there.
    #[error(
        "{address} is not mounted at {point}; look at the logs of the node plugin on this node, \
         which mounts it"
    )]
    NotMounted { address: String, point: PathBuf },
    /// The directory of a store must exist before it is one.
    #[error(
        "the backup store's directory {path} does not exist; create it, or correct the address"
    )]
    NoDirectory { path: PathBuf },
    /// It is not there. This is an answer, and asking again gives the same one.
    #[error("the store has no {key}")]
    NoObject { key: String },
    /// More bytes than such an object can have.
    #[error("{key} has {size} bytes, more than the {limit} that it may have")]
    TooLarge { key: String, size: u64, limit: u64 },
    /// A file of the store is not what its name says.
    #[error("{key} is not valid: {why}")]
    Config {
        key: String,
        /// What is wrong with it, where.
        why: String,
    },
    /// The cfg was written by a program that had only begun the backup.
    #[error(
        "{key} is not complete: it was begun and has not been finished, and cannot be restored"
    )]
    Incomplete { key: String },
    /// The bytes of a block are not those that its name says.
    #[error("block {checksum} of {volume} at offset {offset} ({key}) cannot be used")]
    Block {
        volume: String,
        /// Of its first use; bytes.
        offset: u64,
        checksum: String,
        key: String,
        #[source]
        source: BlockError,
    },
    /// A file of a directory store, or one of our own work files.
    #[error("cannot {operation} {path}")]
    File {
        operation: &'static str,
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Nothing came for too long. A write may have been done all the same.
    #[error(
        "cannot {operation} {key}: no answer from the store for {} s; look whether the server is \
         up, then try again",
        after.as_secs_f32()
    )]
    Stalled {
        operation: &'static str,
        key: String,
        after: Duration,
    },
    /// All calls that may wait for it are waiting.
    #[error(
        "the backup store at {path} does not answer: {calls} calls are stuck in it; bring the server \
         back, or unmount it"
    )]
    Stuck { path: PathBuf, calls: usize },
    /// No usable answer came, also after the retries.
    #[error("cannot {operation} {key}: the store does not answer: {why}")]
    Unavailable {
        operation: &'static str,
        key: String,
        /// The status or what failed in the connection.
        why: String,
    },
    /// The store does not know who asks.
    #[error(
        "cannot {operation} {key}: the store refuses the credentials{}; compare the keys of the \
         target's Secret, and the clock of this machine",
        said(code.as_deref())
    )]
    Unauthenticated {
        operation: &'static str,
        key: String,
        /// The store's own word.
        code: Option<String>,
    },
    /// The store knows who asks, and they may not.
    #[error(
        "cannot {operation} {key}: permission denied{}; the credentials need to get, put, list and \
         delete below the store's path",
        said(code.as_deref())
    )]
    Denied {
        operation: &'static str,
        key: String,
        /// The store's own word.
        code: Option<String>,
    },
    /// There is no space left in it.
    #[error("cannot {operation} {key}: the store is full, or a quota of it is used up; make room")]
    Full {
        operation: &'static str,
        key: String,
    },
    /// An answer that nothing here expects.
    #[error("cannot {operation} {key}: {why}")]
    Answer {
        operation: &'static str,
        key: String,
        why: String,
    },
    /// Another program does what excludes this.
    #[error(
        "volume {volume} is locked: {lock} ({kind}) is held by another program; try again later"
    )]
    Locked {
        volume: String,
        lock: String,
        kind: &'static str,
    },
    /// Others may have changed what the lock was to protect.
    #[error(
        "the lock {lock} of volume {volume} was lost: {why}; nothing was changed after that, try again"
    )]
    LockLost {
        volume: String,
        lock: String,
        why: &'static str,
    },
    /// The store has something else of that name.
    #[error("{item} exists already: {why}")]
    Exists {
        item: String,
        /// What it is, and what to do.
        why: String,
    },
    /// What the store has cannot be used for what is asked.
    #[error("{item}: {why}")]
    Refused {
        item: String,
        /// Everything that is wrong with it.
        why: String,
    },
    /// The call itself can never work.
    #[error("{what}")]
    Request { what: String },
    /// The bytes to back up cannot be read.
    #[error("cannot read the volume at offset {offset}")]
    Source {
        /// Bytes.
        offset: u64,
        #[source]
        source: io::Error,
    },
    /// What was written is not what is read back.
    #[error(
        "{key} was written and reads back differently: {why}; the backup is not complete, try again"
    )]
    ReadBack { key: String, why: String },
    /// A task of this program ended without a result.
    #[error("a task of the backup ended early; this is a fault of the program, see its log")]
    Task,
    /// The caller wants it no more.
    #[error("cancelled")]
    Cancelled,
}

/// Why the stored bytes of a block are not the block.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BlockError {
    /// Its object ends early.
    #[error(
        "it is cut short: {stored} bytes are stored, and {got} of {length} bytes come out of them"
    )]
    CutShort { stored: u64, got: u64, length: u64 },
    /// It unpacks to more than a block.
    #[error("it unpacks to more than the {length} bytes of the block")]
    TooMuch { length: u64 },
    /// It does not unpack.
    #[error("it is damaged: {why}")]
    Damaged { why: String },
    /// Other bytes.
    #[error("it is damaged: the checksum of its {length} bytes is {actual}")]
    Checksum { length: u64, actual: String },
    /// There is none.
    #[error("the store does not have it")]
    Missing,
}

/// The store's own word for an error, if it has one.
fn said(code: Option<&str>) -> String {
    code.map_or_else(String::new, |code| format!(" (it says {code})"))
}

impl Classify for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Name { .. }
            | Self::Address { .. }
            | Self::Credentials { .. }
            | Self::Request { .. }
            | Self::Option { .. } => ErrorKind::InvalidArgument,
            Self::Exists { .. } => ErrorKind::AlreadyExists,
            Self::NotMounted { .. }
            | Self::NoDirectory { .. }
            | Self::Incomplete { .. }
            | Self::Refused { .. }
            | Self::Answer { .. } => ErrorKind::FailedPrecondition,
            Self::NoObject { .. } => ErrorKind::NotFound,
            Self::TooLarge { .. } => ErrorKind::OutOfRange,
            Self::Config { .. } | Self::Block { .. } | Self::ReadBack { .. } => ErrorKind::DataLoss,
            Self::File { source, .. } | Self::Source { source, .. } => Classify::kind(source),
            Self::Task => ErrorKind::Internal,
            Self::Full { .. } => ErrorKind::ResourceExhausted,
            Self::Stalled { .. } => ErrorKind::DeadlineExceeded,
            Self::Stuck { .. } | Self::Unavailable { .. } => ErrorKind::Unavailable,
            Self::Unauthenticated { .. } => ErrorKind::Unauthenticated,
            Self::Denied { .. } => ErrorKind::PermissionDenied,
            Self::Locked { .. } | Self::LockLost { .. } | Self::Cancelled => ErrorKind::Aborted,
        }
    }
}
