//! Decides what to do with the contents of a volume (the matrix of the CSI reference, §7). Pure.

use probe::{Content, FsType};

use super::NodeVolume;
use crate::filesystem::{DEFAULT, can_format, describe};
use crate::{Error, Result, mounts};

/// What to do with a volume that is to be mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plan {
    /// Mount the file system that is there.
    Mount(FsType),
    /// Make a file system of this type, then mount it.
    Format(FsType),
}

impl Plan {
    /// The type of the file system that will be mounted.
    pub(super) fn fs_type(self) -> FsType {
        match self {
            Self::Mount(fs_type) | Self::Format(fs_type) => fs_type,
        }
    }
}

/// Decides what to do with a volume that holds `content`. Only what is proven blank, has no source
/// and is asked for writing is ever formatted.
pub(super) fn decide(
    volume: &NodeVolume,
    content: &Content,
    asked: Option<FsType>,
    read_only: bool,
) -> Result<Plan> {
    let name = || volume.name.clone();
    let blank = |why| {
        Err(Error::Blank {
            volume: name(),
            why,
        })
    };
    match content {
        Content::FileSystem {
            fs_type: found,
            refused,
            ..
        } => {
            if let Some(asked) = asked.filter(|asked| asked != found) {
                return Err(Error::FsTypeMismatch {
                    volume: name(),
                    asked,
                    found: *found,
                });
            }
            if let Some(why) = refused {
                return Err(Error::RefusedFileSystem {
                    volume: name(),
                    fs_type: *found,
                    why: why.clone(),
                });
            }
            if !mounts::is_supported(*found) {
                return Err(Error::UnsupportedFileSystem(*found));
            }
            if !read_only && !mounts::is_writable(*found) {
                return Err(Error::ReadOnlyFileSystem {
                    volume: name(),
                    fs_type: *found,
                });
            }
            Ok(Plan::Mount(*found))
        }
        Content::Blank if volume.has_source || volume.part.is_some() => blank(
            "it was created from a source without a file system; use it as a raw block \
                   volume",
        ),
        Content::Blank if read_only => blank("the request is read-only"),
        Content::Blank => {
            let fs_type = asked.unwrap_or(DEFAULT);
            if can_format(fs_type) {
                Ok(Plan::Format(fs_type))
            } else {
                Err(Error::UnsupportedFileSystem(fs_type))
            }
        }
        Content::PartitionTable { .. }
        | Content::Other { .. }
        | Content::Ambiguous(_)
        | Content::Unknown => Err(Error::NotAFileSystem {
            volume: name(),
            found: describe(content),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::{ByteSize, Classify, ErrorKind, VolumeName};

    fn holds(fs_type: FsType) -> Content {
        Content::FileSystem {
            fs_type,
            label: String::new(),
            uuid: String::new(),
            refused: None,
        }
    }

    fn decide_for(
        content: &Content,
        asked: Option<FsType>,
        has_source: bool,
        read_only: bool,
    ) -> Result<Plan> {
        let volume = NodeVolume {
            name: VolumeName::new("v").unwrap(),
            file: "/v".into(),
            size: ByteSize(1),
            has_source,
            part: None,
        };
        decide(&volume, content, asked, read_only)
    }

    #[test]
    fn row_73_the_matrix_of_what_is_asked_and_what_is_there() {
        use FsType::{Btrfs, Ext2, Ext3, Ext4, Squashfs, Xfs};
        for fs_type in [Ext2, Ext3, Ext4, Xfs, Btrfs] {
            for has_source in [false, true] {
                for read_only in [false, true] {
                    for asked in [None, Some(fs_type)] {
                        let plan = decide_for(&holds(fs_type), asked, has_source, read_only);
                        assert_eq!(plan.unwrap(), Plan::Mount(fs_type));
                    }
                    let other = if fs_type == Ext4 { Ext3 } else { Ext4 };
                    let error = decide_for(&holds(fs_type), Some(other), has_source, read_only);
                    let error = error.unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
                    let text = error.to_string();
                    assert!(text.contains(fs_type.as_str()) && text.contains(other.as_str()));
                }
            }
        }
        assert!(decide_for(&holds(Squashfs), None, true, true).is_ok());
        assert!(decide_for(&holds(Squashfs), None, true, false).is_err());
        assert!(decide_for(&holds(FsType::Ntfs), None, true, true).is_err());
    }

    #[test]
    fn row_74_only_a_blank_volume_without_a_source_is_formatted() {
        for asked in [
            None,
            Some(FsType::Ext4),
            Some(FsType::Xfs),
            Some(FsType::Btrfs),
        ] {
            let wanted = Plan::Format(asked.unwrap_or(FsType::Ext4));
            assert_eq!(
                decide_for(&Content::Blank, asked, false, false).unwrap(),
                wanted
            );
            for (has_source, read_only) in [(true, false), (true, true), (false, true)] {
                let error = decide_for(&Content::Blank, asked, has_source, read_only).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
            }
            for content in [
                Content::Unknown,
                Content::PartitionTable { table: "gpt" },
                Content::Other {
                    what: "crypto_LUKS",
                },
                Content::Ambiguous(vec!["xfs".into(), "swap".into()]),
            ] {
                for has_source in [false, true] {
                    let error = decide_for(&content, asked, has_source, false).unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{content:?}");
                }
            }
        }
        // What cannot be made is refused before anything is touched.
        assert!(decide_for(&Content::Blank, Some(FsType::Squashfs), false, false).is_err());
    }
}
