//! Downloads from http and https URLs.
//!
//! Nothing vouches for such bytes but a checksum that the caller may have. So a transfer that breaks
//! is resumed only when the server proves, by the same strong `ETag` or the same `Last-Modified`, that
//! it still is the same thing; else it says [`crate::Error::Changed`] and the caller starts from the
//! first byte. Two versions are never spliced. `HEAD` is never asked: servers of presigned URLs refuse
//! it.
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
