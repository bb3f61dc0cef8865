//! The bounds of all formats. It must not know any of them.

use types::ByteSize;

/// Bounds on what an image may claim. They hold before anything is allocated for it.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The largest virtual size.
    pub virtual_size_max: ByteSize,
}

impl Default for Limits {
    /// 64 TiB: more than the disks this runs on, less than what makes tables a burden.
    fn default() -> Self {
        Self {
            virtual_size_max: ByteSize(64 << 40),
        }
    }
}
