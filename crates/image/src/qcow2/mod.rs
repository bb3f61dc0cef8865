//! qcow2, QEMU's image format: reading versions 2 and 3, and writing version 3.
//!
//! ```text
//! guest offset ─┬─ L1 index ──► L1 table ──► L2 table ─┬─► data cluster
//!               ├─ L2 index ───────────────────────────┤─► compressed cluster
//!               └─ offset in the cluster               └─► zeros
//! ```
//!
//! Every byte of an image is hostile. The rules:
//! * One file is read, the one that was given: an image that names another is refused.
//! * Nothing is allocated before it is bounded by the file's size and by [`Limits`].
//! * What is not as the format says is an error for the cluster that it concerns, never zeros.
//! * **Dirty** images are read: that bit says that *reference counts* may be stale (lazy
//!   refcounts), and a reader needs none. Images marked **corrupt** are refused.
//! * **Internal snapshots** and bitmaps are ignored: the image is its active state.
//!
//! | file | holds |
//! |---|---|
//! | `units.rs` | offsets of the guest and offsets in the file, which must not be mixed up |
//! | `header.rs` | the header, its extensions and all limits |
//! | `tables.rs` | entries of L1 and L2, and the cache of L2 tables |
//! | `compressed.rs` | one compressed cluster |
//! | `read.rs` | guest offset to bytes |
//! | `write.rs` | a new image |

mod compressed;
mod header;
mod read;
mod tables;
mod units;
mod write;

pub use header::Compression;
pub use read::Qcow2;
pub use write::{CreateOptions, create, create_empty};

use crate::limits::Limits;
