//! Whether the contents of an image fit the intended use of a volume: the matrix of fsType and base
//! image (csi-and-flexvolume.md §7), as far as it is known before a device exists.
//!
//! The node looks again, at the device itself, when it stages the volume.

use client::wire;
use client::wire::content::Kind;
use host::FsType;
use host::staging::Access;
use types::ByteSize;

use crate::error::{Error, Result};
use crate::request::{Capability, Capacity};

/// Checks an image's content against each of the capabilities. A block device takes anything.
pub(crate) fn suits(
    image: &str,
    content: Option<&wire::Content>,
    capabilities: &[Capability],
) -> Result<()> {
    // An image that nobody looked at yet is looked at when it is staged.
    let Some(content) = content.filter(|content| content.kind() != Kind::Unspecified) else {
        return Ok(());
    };
    for capability in capabilities {
        if let Access::Mount { fs_type, flags } = &capability.access {
            let found = mountable(image, content, *fs_type)?;
            host::mounts::check_flags(flags, Some(found))?;
        }
    }
    Ok(())
}

/// Whether it is known that there is nothing but zeros.
pub(crate) fn is_blank(content: Option<&wire::Content>) -> bool {
    content.is_some_and(|content| content.kind() == Kind::Blank)
}

/// The type of the file system that an image holds, if it can be mounted.
fn mountable(image: &str, content: &wire::Content, asked: Option<FsType>) -> Result<FsType> {
    let found = || content.r#type.chars().take(64).collect::<String>();
    let what = match content.kind() {
        Kind::FileSystem if !content.refused.is_empty() => {
            format!("{} that is not mounted: {}", found(), content.refused)
        }
        Kind::FileSystem => match (asked, content.r#type.parse::<FsType>()) {
            (Some(asked), Ok(found)) if asked == found => return Ok(found),
            (Some(asked), _) => {
                let (image, found) = (image.to_owned(), found());
                return Err(Error::FsTypeMismatch {
                    image,
                    found,
                    asked,
                });
            }
            (None, Ok(found)) if host::mounts::is_supported(found) => return Ok(found),
            (None, _) => format!("{}, which is not mounted here", found()),
        },
        Kind::PartitionTable => format!(
            "a partition table ({}), not a file system; name one of its partitions with the parameter \
             partition, or",
            found()
        ),
        Kind::Other => format!("{}, not a file system", found()),
        Kind::Ambiguous => format!("more than one signature ({})", found()),
        Kind::Unknown | Kind::Unspecified => "nothing that is known as a file system".to_owned(),
        Kind::Blank => "no file system, and a base image is never formatted".to_owned(),
    };
    Err(Error::NotMountable {
        image: image.to_owned(),
        what,
    })
}

/// Checks that the mount flags go with the file system that a blank volume gets.
pub(crate) fn flags_fit(asked: Option<FsType>, capabilities: &[Capability]) -> Result<()> {
    let fs_type = asked.unwrap_or(host::filesystem::DEFAULT);
    for capability in capabilities {
        if let Access::Mount { flags, .. } = &capability.access {
            host::mounts::check_flags(flags, Some(fs_type))?;
        }
    }
    Ok(())
}

/// Checks that a blank volume can get the file system asked for, and gives the size to ask for: one that is
/// too small for it becomes the least, as far as the limit lets it.
pub(crate) fn can_format(capacity: Capacity, asked: Option<FsType>) -> Result<Option<ByteSize>> {
    if asked.is_some_and(|fs_type| !host::filesystem::can_format(fs_type)) {
        let why = "a blank volume is formatted with ext4, ext3, ext2, xfs or btrfs only";
        return Err(Error::Invalid {
            field: "fs_type",
            why,
        });
    }
    let fs_type = asked.unwrap_or(FsType::Ext4);
    let sizes = host::filesystem::sizes(fs_type);
    let (least, most) = (ByteSize(*sizes.start()), ByteSize(*sizes.end()));
    let size = capacity.required.or(capacity.limit);
    if let Some(size) = capacity.limit.filter(|limit| *limit < least) {
        return Err(Error::TooSmallToFormat {
            size,
            fs_type,
            least,
        });
    }
    if let Some(size) = size.filter(|size| capacity.required.is_some() && *size > most) {
        return Err(Error::TooLargeToFormat {
            size,
            fs_type,
            most,
        });
    }
    Ok(capacity.required.map(|size| size.max(least)))
}

#[cfg(test)]
mod tests {
    use types::{Classify as _, ErrorKind};

    use super::*;
    use crate::request::Mode;

    fn check(kind: Kind, found: &str, access: Access) -> Result<()> {
        let content = wire::Content {
            kind: kind.into(),
            r#type: found.to_owned(),
            ..Default::default()
        };
        suits(
            "image",
            Some(&content),
            &[Capability {
                access,
                mode: Mode::SingleNodeWriter,
            }],
        )
    }

    fn mount(fs_type: Option<FsType>) -> Access {
        Access::Mount {
            fs_type,
            flags: Vec::new(),
        }
    }

    #[test]
    fn row_73_a_file_system_is_never_asked_into_another_one() {
        for found in ["ext3", "ext4", "xfs", "btrfs"] {
            check(Kind::FileSystem, found, mount(None)).unwrap();
            for asked in [FsType::Ext3, FsType::Ext4, FsType::Xfs, FsType::Btrfs] {
                let result = check(Kind::FileSystem, found, mount(Some(asked)));
                if asked.as_str() == found {
                    result.unwrap();
                } else {
                    let error = result.unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
                    let text = error.to_string();
                    assert!(
                        text.contains(found) && text.contains(asked.as_str()),
                        "{text}"
                    );
                }
            }
        }
    }

    #[test]
    fn row_147_flags_go_with_the_file_system_that_is_known() {
        let with = |fs_type, flag: &str| Capability {
            access: Access::Mount {
                fs_type,
                flags: vec![flag.to_owned()],
            },
            mode: Mode::SingleNodeWriter,
        };
        for (found, flag, fits) in [
            ("ext4", "nouuid", false),
            ("ext4", "logbsize=256k", false),
            ("ext4", "compress=zstd:1", false),
            ("ext4", "data=journal", true),
            ("ext2", "commit=30", false),
            ("xfs", "errors=continue", false),
            ("xfs", "logbsize=256k", true),
            ("btrfs", "noload", false),
            ("btrfs", "compress=zstd:1", true),
            ("squashfs", "discard", false),
        ] {
            let content = wire::Content {
                kind: Kind::FileSystem.into(),
                r#type: found.to_owned(),
                ..Default::default()
            };
            let fs_type: FsType = found.parse().unwrap();
            let by_image = suits("image", Some(&content), &[with(None, flag)]);
            let blank = flags_fit(Some(fs_type), &[with(Some(fs_type), flag)]);
            for result in [by_image, blank] {
                assert_eq!(result.is_ok(), fits, "{found} {flag}");
                if let Err(error) = result {
                    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
                    assert!(error.to_string().contains(flag), "{error}");
                }
            }
        }
        // A blank volume of no asked type gets ext4.
        assert!(flags_fit(None, &[with(None, "nouuid")]).is_err());
        flags_fit(None, &[with(None, "data=journal")]).unwrap();
    }

    #[test]
    fn row_140_what_no_node_mounts_is_refused_before_there_is_a_volume() {
        let content = wire::Content {
            kind: Kind::FileSystem.into(),
            r#type: "btrfs".to_owned(),
            refused: "it has 2 devices".to_owned(),
            ..Default::default()
        };
        let with = |access| Capability {
            access,
            mode: Mode::SingleNodeWriter,
        };
        for asked in [None, Some(FsType::Btrfs)] {
            let error = suits("image", Some(&content), &[with(mount(asked))]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(error.to_string().contains("2 devices"), "{error}");
        }
        suits("image", Some(&content), &[with(Access::Block)]).unwrap();
    }

    #[test]
    fn row_74_what_is_no_file_system_is_for_block_only() {
        for (kind, found) in [
            (Kind::FileSystem, "ntfs"),
            (Kind::PartitionTable, "gpt"),
            (Kind::Other, "crypto_LUKS"),
            (Kind::Ambiguous, "ext4, xfs"),
            (Kind::Unknown, ""),
            (Kind::Blank, ""),
        ] {
            for asked in [None, Some(FsType::Ext4)] {
                let error = check(kind, found, mount(asked)).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{kind:?}");
                assert!(error.to_string().contains(found), "{error}");
            }
            check(kind, found, Access::Block).unwrap();
        }
    }

    #[test]
    fn a_blank_volume_has_room_for_its_file_system() {
        let capacity = |required| Capacity {
            required: Some(ByteSize(required)),
            limit: None,
        };
        let size = |required, fs_type| can_format(capacity(required), fs_type).unwrap().unwrap();
        for (fs_type, least) in [
            (Some(FsType::Xfs), 300 << 20),
            (Some(FsType::Btrfs), 109 << 20),
            (Some(FsType::Ext4), 8 << 20),
            (None, 8 << 20),
        ] {
            assert_eq!(size(1, fs_type), ByteSize(least));
            assert_eq!(size(1 << 30, fs_type), ByteSize(1 << 30));
            let bounded = Capacity {
                limit: Some(ByteSize(least - 1)),
                ..capacity(4096)
            };
            let small = can_format(bounded, fs_type).unwrap_err();
            assert_eq!(small.kind(), ErrorKind::OutOfRange);
            assert!(small.to_string().contains("needs"), "{small}");
        }
        let large = can_format(capacity(17 << 40), Some(FsType::Ext2)).unwrap_err();
        assert_eq!(large.kind(), ErrorKind::OutOfRange);
        assert_eq!(
            can_format(Capacity::default(), Some(FsType::Xfs)).unwrap(),
            None
        );
        let squashfs = can_format(Capacity::default(), Some(FsType::Squashfs)).unwrap_err();
        assert_eq!(squashfs.kind(), ErrorKind::InvalidArgument);
    }
}
