//! Backups of volumes and backing images in the format of Longhorn's backup store.
//!
//! Owns the format and what is done with it: addresses, the stores behind them, the configuration
//! files, blocks and locks. It must not know what a volume, a disk, CSI or gRPC is: bytes come from a
//! source that the caller gives, and go to whom the caller says.
//!
//! A store is shared with other clusters and with Longhorn, and nothing in it is trusted: sizes,
//! counts and time are bounded before they are used, and a block counts only once its checksum fits.

mod address;
mod backing_image;
mod begin;
mod block;
mod block_set;
mod buffers;
mod check;
mod checksum_set;
mod collect;
mod config;
mod contents;
mod credentials;
mod delete;
mod driver;
mod error;
mod fetch;
mod info;
mod job;
mod layout;
mod listing;
mod lock;
mod make_room;
mod name;
mod options;
pub mod prune;
mod records;
mod restore;
mod spool;
mod store;
#[cfg(test)]
mod tests;
mod upload;
mod uploader;
mod verify;

pub use address::{Address, Item, Mount, Scheme, StoreAddress};
pub use backing_image::NewBackingImage;
pub use begin::{Begin, Begun, Mode, NewBackup, Parent, VolumeFacts};
pub use block::{BlockChecksum, BlockSize, Compression};
pub use block_set::BlockSet;
pub use check::Check;
pub use collect::Collected;
pub use config::volume::BaseImage;
pub use contents::{Contents, Source};
pub use credentials::Credentials;
pub use error::{BlockError, Error, Result};
pub use info::{BackingImageInfo, BackupInfo, Listed, VolumeInfo};
pub use job::{Job, Phase, Progress};
pub use lock::{Kind as LockKind, LockInfo};
pub use name::{Name, is_target_name};
pub use options::Options;
pub use restore::{Piece, Restore, RestoreOptions};
pub use store::Store;
pub use verify::{DamagedBlock, Repair, Sample, VerifyReport};

#[cfg(test)]
mod fixtures;
