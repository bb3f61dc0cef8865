//! An image in chunks of a MiB: the manifest with their digests, the holes between them, and writes of
//! whole chunks past the kernel's cache.
//!
//! The store and the sync between managers stand on this. It knows neither of them, nothing of names,
//! and nothing of async.

pub mod direct;
pub mod holes;
pub mod manifest;

pub use manifest::{CHUNK, Chunk, IMAGE_SIZE_MAX, Manifest, chunk_len, is_zero};
