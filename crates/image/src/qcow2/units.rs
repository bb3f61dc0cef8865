//! Offsets of two worlds: the disk that the guest sees, and the file that holds it.

use std::fmt;

/// An offset on the guest's disk, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct GuestOffset(pub(super) u64);

/// An offset in the image file, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct HostOffset(pub(super) u64);

impl HostOffset {
    /// The offset `bytes` later. Offsets have at most 61 bits and lengths fewer.
    pub(super) const fn plus(self, bytes: u64) -> Self {
        Self(self.0.saturating_add(bytes))
    }
}

impl fmt::LowerHex for HostOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::LowerHex::fmt(&self.0, f)
    }
}

/// How guest offsets split into table indices, which follows from two header fields.
#[derive(Debug, Clone, Copy)]
pub(super) struct Geometry {
    /// log2 of the cluster size: 9 to 21.
    pub(super) cluster_bits: u32,
    /// Whether an L2 entry has 16 bytes and tells of 32 subclusters.
    pub(super) has_subclusters: bool,
}

impl Geometry {
    /// Bytes in a cluster.
    pub(super) const fn cluster_size(self) -> u64 {
        1 << self.cluster_bits
    }

    /// log2 of the smallest unit that an L2 entry tells of.
    pub(super) const fn unit_bits(self) -> u32 {
        if self.has_subclusters {
            self.cluster_bits - 5
        } else {
            self.cluster_bits
        }
    }

    /// log2 of the entries of an L2 table, which fills one cluster.
    pub(super) const fn l2_bits(self) -> u32 {
        self.cluster_bits - if self.has_subclusters { 4 } else { 3 }
    }

    /// log2 of the guest bytes that one L2 table tells of.
    pub(super) const fn l1_bits(self) -> u32 {
        self.cluster_bits + self.l2_bits()
    }

    /// The offset of `guest` in its cluster.
    pub(super) const fn in_cluster(self, guest: GuestOffset) -> u64 {
        guest.0 & (self.cluster_size() - 1)
    }
}
