//! Backups of the volumes and images of one disk: where they may go, the work on them, and restoring them.
//!
//! `backup` knows the format and the stores, the catalog the images; here the two meet. A backup is made of a
//! snapshot, which is an image; a restored backup is an image whose source is a backup. The store is the only
//! record of backups, and the disk that of snapshots: what is in memory here is what runs, and how it ended for
//! those who ask soon after.

mod blocks;
mod board;
pub mod counters;
mod error;
mod forget;
mod images;
mod job;
mod jobs;
mod kept;
mod make;
mod repair;
mod request;
mod restore;
mod room;
mod targets;

pub use self::board::{Stage, State};
pub use self::error::{Error, Result};
pub use self::job::View;
pub use self::jobs::{Jobs, list};
pub use self::repair::{DAMAGED_MAX, Damaged, Repaired};
pub use self::request::{NewBackup, NewImageBackup};
pub use self::restore::{Restore, derived_name};
pub use self::targets::{Asked, CREDENTIALS, DEFAULT, NamedTarget, Target, TargetArgs, Targets};
