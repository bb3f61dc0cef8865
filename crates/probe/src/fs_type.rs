//! The names of file systems, as `blkid`, `mount` and `fsType` spell them.

use std::fmt;
use std::str::FromStr;

macro_rules! fs_types {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A type of file system.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum FsType { $($(#[$doc])* $variant,)* }

        impl FsType {
            /// Every type this crate knows.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// `blkid`'s spelling, which is also that of `mount -t`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

fs_types! {
    /// ext2: no journal, nothing that ext2's driver does not know.
    Ext2 = "ext2",
    /// ext3: a journal, nothing that ext3's driver does not know.
    Ext3 = "ext3",
    /// ext4: at least one feature that ext3 does not know.
    Ext4 = "ext4",
    Xfs = "xfs",
    Btrfs = "btrfs",
    /// FAT12, FAT16 or FAT32.
    Vfat = "vfat",
    Exfat = "exfat",
    Ntfs = "ntfs",
    /// Squashfs 4, little-endian.
    Squashfs = "squashfs",
    /// An older or big-endian Squashfs.
    Squashfs3 = "squashfs3",
    /// ISO 9660, a CD image.
    Iso9660 = "iso9660",
    /// UDF, a DVD image.
    Udf = "udf",
    F2fs = "f2fs",
    Erofs = "erofs",
    Bcachefs = "bcachefs",
    Jfs = "jfs",
    /// ReiserFS 3.
    Reiserfs = "reiserfs",
    Reiser4 = "reiser4",
    Gfs2 = "gfs2",
    Ocfs2 = "ocfs2",
    Cramfs = "cramfs",
    Romfs = "romfs",
    Hfsplus = "hfsplus",
    Ufs = "ufs",
    Apfs = "apfs",
}

/// A text that names no file system that this crate can tell.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("file system type {0:?} is not known; use for example ext4, xfs or btrfs")]
pub struct UnknownFsType(String);

impl fmt::Display for FsType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for FsType {
    type Err = UnknownFsType;

    fn from_str(text: &str) -> Result<Self, UnknownFsType> {
        let found = Self::ALL.iter().find(|fs_type| fs_type.as_str() == text);
        found
            .copied()
            .ok_or_else(|| UnknownFsType(text.chars().take(64).collect()))
    }
}
