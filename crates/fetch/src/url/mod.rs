//! Downloads from http and https URLs.
//!
//! Only an optional checksum of the caller covers such bytes. An interrupted transfer is therefore
//! resumed only if the server proves, by the same strong `ETag` or the same `Last-Modified`, that
//! the resource is unchanged; otherwise the result is [`crate::Error::Changed`], and the caller
//! starts from the first byte. Two versions are never combined. `HEAD` is not used, because servers
//! of presigned URLs reject it.
//!
//! | file | holds |
//! |---|---|
//! | `source.rs` | a URL that may be fetched, shown without secrets |
//! | `options.rs` | what one download wants besides: headers, credentials, authorities, a proxy |
//! | `download.rs` | the transfer, its resumption and its bounds |

mod download;
mod options;
mod source;

pub use download::Download;
pub use options::Options;
pub use source::Source;
