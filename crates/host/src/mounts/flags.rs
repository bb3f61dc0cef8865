//! The allow-list of mount flags.
//!
//! A flag of a StorageClass or a pod reaches the kernel only if it is named here. What could weaken
//! the node (`suid`, `dev`, `errors=panic`), lead elsewhere (`loop=`, `subvol=`, `device=`) or cost
//! acknowledged writes (`nobarrier`) is not.

use probe::FsType;
use rustix::mount::MountAttrFlags;

use crate::{Error, Result};

/// What the mount flags of a request come to, for one type of file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountOptions {
    /// Whether the mount is read-only, by the request or by the flag `ro`.
    pub read_only: bool,
    /// Flags of the mount. `nosuid` and `nodev` are always among them: a volume's content is as
    /// trustworthy as its author.
    pub(super) attributes: MountAttrFlags,
    /// Parameters of the file system: a name, and a value for those that have one.
    pub(super) parameters: Vec<(&'static str, Option<String>)>,
    /// Whether the journal is to be left alone.
    pub(crate) skips_recovery: bool,
}

/// What a flag does.
#[derive(Clone, Copy)]
enum Effect {
    /// It is what happens anyway.
    Nothing,
    ReadOnly,
    Attribute(MountAttrFlags),
    /// A parameter of the file system without a value.
    Parameter(&'static str),
    /// The journal is left alone, by this parameter: read-only mounts only.
    NoRecovery(&'static str),
    /// A parameter with a value that the function likes.
    Value(&'static str, fn(&str) -> bool),
    Refused(&'static str),
}

const EXT: &[FsType] = &[FsType::Ext2, FsType::Ext3, FsType::Ext4];
const JOURNALED: &[FsType] = &[FsType::Ext3, FsType::Ext4];
const XFS: &[FsType] = &[FsType::Xfs];
const BTRFS: &[FsType] = &[FsType::Btrfs];
const DISCARDING: &[FsType] = &[FsType::Ext3, FsType::Ext4, FsType::Xfs, FsType::Btrfs];

const ALWAYS: &str = "a volume is always mounted nosuid,nodev";
const NOT_LISTED: &str = "it is not on the list of allowed flags";

/// Flag, the file systems that have it (none: all of them), and what it does.
const FLAGS: &[(&str, &[FsType], Effect)] = &[
    ("rw", &[], Effect::Nothing),
    ("exec", &[], Effect::Nothing),
    ("defaults", &[], Effect::Nothing),
    ("nosuid", &[], Effect::Nothing),
    ("nodev", &[], Effect::Nothing),
    ("suid", &[], Effect::Refused(ALWAYS)),
    ("dev", &[], Effect::Refused(ALWAYS)),
    ("ro", &[], Effect::ReadOnly),
    (
        "noexec",
        &[],
        Effect::Attribute(MountAttrFlags::MOUNT_ATTR_NOEXEC),
    ),
    ("relatime", &[], Effect::Nothing),
    (
        "noatime",
        &[],
        Effect::Attribute(MountAttrFlags::MOUNT_ATTR_NOATIME),
    ),
    (
        "strictatime",
        &[],
        Effect::Attribute(MountAttrFlags::MOUNT_ATTR_STRICTATIME),
    ),
    (
        "nodiratime",
        &[],
        Effect::Attribute(MountAttrFlags::MOUNT_ATTR_NODIRATIME),
    ),
    (
        "nosymfollow",
        &[],
        Effect::Attribute(MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW),
    ),
    ("sync", &[], Effect::Parameter("sync")),
    ("dirsync", &[], Effect::Parameter("dirsync")),
    ("lazytime", &[], Effect::Parameter("lazytime")),
    ("context", &[], Effect::Value("context", is_selinux_context)),
    ("discard", DISCARDING, Effect::Parameter("discard")),
    ("nodiscard", DISCARDING, Effect::Parameter("nodiscard")),
    ("noload", JOURNALED, Effect::NoRecovery("noload")),
    ("norecovery", JOURNALED, Effect::NoRecovery("noload")),
    ("norecovery", XFS, Effect::NoRecovery("norecovery")),
    ("commit", JOURNALED, Effect::Value("commit", is_number)),
    ("commit", BTRFS, Effect::Value("commit", is_number)),
    (
        "data",
        JOURNALED,
        Effect::Value("data", |v| ["journal", "ordered"].contains(&v)),
    ),
    (
        "errors",
        EXT,
        Effect::Value("errors", |v| ["remount-ro", "continue"].contains(&v)),
    ),
    ("nouuid", XFS, Effect::Nothing),
    ("inode64", XFS, Effect::Parameter("inode64")),
    ("largeio", XFS, Effect::Parameter("largeio")),
    ("swalloc", XFS, Effect::Parameter("swalloc")),
    ("allocsize", XFS, Effect::Value("allocsize", is_number)),
    ("logbufs", XFS, Effect::Value("logbufs", is_number)),
    ("logbsize", XFS, Effect::Value("logbsize", is_number)),
    ("ssd", BTRFS, Effect::Parameter("ssd")),
    ("nossd", BTRFS, Effect::Parameter("nossd")),
    ("autodefrag", BTRFS, Effect::Parameter("autodefrag")),
    ("noautodefrag", BTRFS, Effect::Parameter("noautodefrag")),
    ("compress", BTRFS, Effect::Value("compress", is_compression)),
    (
        "compress-force",
        BTRFS,
        Effect::Value("compress-force", is_compression),
    ),
];

/// Decimal, with an optional unit of the kernel's.
fn is_number(value: &str) -> bool {
    let digits = value
        .strip_suffix(['k', 'm', 'g', 'K', 'M', 'G'])
        .unwrap_or(value);
    (1..=10).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit())
}

fn is_compression(value: &str) -> bool {
    let (name, level) = value.split_once(':').unwrap_or((value, "1"));
    ["zlib", "lzo", "zstd", "no"].contains(&name) && is_number(level)
}

/// `user:role:type:level`, as kubelet passes it when the driver has `seLinuxMount`.
fn is_selinux_context(value: &str) -> bool {
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b"_:.,-".contains(&b);
    (1..=255).contains(&value.len()) && value.bytes().all(is_allowed)
}

/// Checks that every flag may be used with this type of file system; `None`, for callers that do not know
/// the type yet: with at least one.
///
/// # Errors
/// `InvalidArgument` naming the first flag that may not.
pub fn check_flags(flags: &[String], fs_type: Option<FsType>) -> Result<()> {
    flags
        .iter()
        .try_for_each(|flag| effect(flag, fs_type).map(drop))
}

impl MountOptions {
    /// Reads the flags of a request to mount a file system of type `fs_type`.
    ///
    /// # Errors
    /// `InvalidArgument` naming the first flag that is not allowed, or that needs a read-only mount.
    pub fn parse(fs_type: FsType, flags: &[String], read_only: bool) -> Result<Self> {
        let mut options = Self {
            read_only,
            attributes: MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV,
            parameters: Vec::new(),
            skips_recovery: false,
        };
        if fs_type == FsType::Xfs {
            // Two clones of one image have one UUID, and XFS refuses the second without this.
            options.parameters.push(("nouuid", None));
        }
        for flag in flags {
            options.apply(flag, effect(flag, Some(fs_type))?);
        }
        if options.skips_recovery && !options.read_only {
            let flag = flags
                .iter()
                .find(|flag| ["noload", "norecovery"].contains(&flag.as_str()));
            return Err(invalid(
                flag.map_or("", String::as_str),
                "it needs a read-only mount",
            ));
        }
        if EXT.contains(&fs_type) {
            // The superblock may say that the kernel panics instead.
            options.add_defaults(vec![("errors", Some("remount-ro"))]);
        }
        if options.read_only {
            options.attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
            options.parameters.push(("ro", None));
        }
        Ok(options)
    }

    /// Adds parameters of the file system, but for those that the request sets itself.
    pub(crate) fn add_defaults(&mut self, defaults: Vec<(&'static str, Option<&str>)>) {
        for (name, value) in defaults {
            if self.parameters.iter().all(|(set, _)| *set != name) {
                self.parameters.push((name, value.map(ToOwned::to_owned)));
            }
        }
    }

    fn apply(&mut self, flag: &str, effect: Effect) {
        match effect {
            Effect::Nothing | Effect::Refused(_) => {}
            Effect::ReadOnly => self.read_only = true,
            Effect::Attribute(attribute) => self.attributes |= attribute,
            Effect::Parameter(name) => self.parameters.push((name, None)),
            Effect::NoRecovery(name) => {
                self.skips_recovery = true;
                self.parameters.push((name, None));
            }
            Effect::Value(name, _) => {
                let value = flag
                    .split_once('=')
                    .map_or("", |(_, value)| unquoted(value));
                self.parameters.push((name, Some(value.to_owned())));
            }
        }
    }
}

/// Kubelet quotes an SELinux context because it holds commas.
fn unquoted(value: &str) -> &str {
    value
        .strip_prefix('"')
        .and_then(|v| v.strip_suffix('"'))
        .unwrap_or(value)
}

/// What `flag` does to a file system of type `fs_type`, or of any type.
fn effect(flag: &str, fs_type: Option<FsType>) -> Result<Effect> {
    let (name, value) = match flag.split_once('=') {
        Some((name, value)) => (name, Some(unquoted(value))),
        None => (flag, None),
    };
    let fits = |types: &[FsType]| {
        types.is_empty() || fs_type.is_none_or(|fs_type| types.contains(&fs_type))
    };
    let mut named = FLAGS.iter().filter(|(known, ..)| *known == name);
    let Some((_, _, effect)) = named.clone().find(|(_, types, _)| fits(types)) else {
        let is_known = named.next().is_some();
        let why = if is_known {
            "this file system does not have it; docs/parameters.md lists the flags of each file \
             system"
        } else {
            NOT_LISTED
        };
        return Err(invalid(flag, why));
    };
    match (effect, value) {
        (Effect::Refused(why), _) => Err(invalid(flag, why)),
        (Effect::Value(_, is_allowed), Some(value)) if is_allowed(value) => Ok(*effect),
        (Effect::Value(..), _) => Err(invalid(flag, "its value is not allowed")),
        (_, Some(_)) => Err(invalid(flag, "it has no value")),
        (effect, None) => Ok(*effect),
    }
}

fn invalid(flag: &str, why: &'static str) -> Error {
    Error::InvalidFlag {
        flag: flag.chars().take(64).collect(),
        why,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use types::{Classify, ErrorKind};

    fn parse(fs_type: FsType, flags: &[&str], read_only: bool) -> Result<MountOptions> {
        let flags: Vec<String> = flags.iter().map(ToString::to_string).collect();
        MountOptions::parse(fs_type, &flags, read_only)
    }

    #[test]
    fn row_79_flags_that_are_not_listed_are_refused() {
        for bad in [
            "suid",
            "dev",
            "loop",
            "loop=/dev/loop0",
            "x-systemd.automount",
            "x-",
            ";",
            "ro;reboot",
            "",
            "subvol=../x",
            "device=/dev/sda",
            "errors=panic",
            "nobarrier",
            "user",
            "bind",
            "remount",
            "move",
            "offset=4096",
            "data=writeback",
            "commit=",
            "commit=1x",
            "commit=-1",
            "noexec=1",
            "compress=evil",
            "context=a b",
            "lowerdir=/",
            "uid=0",
            "ro,suid",
            "RO",
        ] {
            for fs_type in [FsType::Ext4, FsType::Xfs, FsType::Btrfs] {
                let error = parse(fs_type, &[bad], false).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{bad:?}");
            }
            assert!(check_flags(&[bad.to_owned()], None).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn row_90_nosuid_and_nodev_are_always_set() {
        let always = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        for flags in [&[][..], &["noatime", "rw", "exec"], &["defaults"]] {
            assert!(
                parse(FsType::Ext4, flags, false)
                    .unwrap()
                    .attributes
                    .contains(always)
            );
        }
    }

    #[test]
    fn flags_belong_to_their_file_system() {
        assert!(parse(FsType::Ext4, &["largeio"], false).is_err());
        assert!(parse(FsType::Xfs, &["compress=zstd"], false).is_err());
        assert!(check_flags(&["largeio".into(), "compress=zstd:3".into()], None).is_ok());
        assert!(check_flags(&["largeio".into()], Some(FsType::Ext4)).is_err());
        let xfs = parse(FsType::Xfs, &["noexec", "logbsize=256k"], false).unwrap();
        assert_eq!(
            xfs.parameters,
            [("nouuid", None), ("logbsize", Some("256k".to_owned()))]
        );
        let context = "context=\"system_u:object_r:container_file_t:s0:c1,c2\"";
        let labelled = parse(FsType::Ext4, &[context], false).unwrap();
        assert_eq!(
            labelled.parameters[0].1.as_deref(),
            Some("system_u:object_r:container_file_t:s0:c1,c2")
        );
    }

    #[test]
    fn row_141_an_error_of_ext_never_panics_the_node() {
        for fs_type in [FsType::Ext2, FsType::Ext3, FsType::Ext4] {
            for (flags, expected) in [(&[][..], "remount-ro"), (&["errors=continue"], "continue")] {
                for read_only in [false, true] {
                    let parameters = parse(fs_type, flags, read_only).unwrap().parameters;
                    let errors: Vec<_> = parameters
                        .iter()
                        .filter(|(name, _)| *name == "errors")
                        .collect();
                    assert_eq!(
                        errors,
                        [&("errors", Some(expected.to_owned()))],
                        "{fs_type}"
                    );
                }
            }
        }
    }

    /// The table of docs/parameters.md: a line for each flag, with the file systems that have it.
    #[test]
    fn row_147_the_documented_flags_are_those_of_the_list() {
        let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/parameters.md");
        let document = std::fs::read_to_string(document).unwrap();
        let rows: Vec<(&str, &str)> = document
            .lines()
            .skip_while(|line| !line.starts_with("| flag |"))
            .skip(2)
            .take_while(|line| line.starts_with('|'))
            .filter_map(|line| line.trim_matches('|').split_once('|'))
            .map(|(flags, rest)| (flags.trim(), rest.split('|').next().unwrap_or("").trim()))
            .collect();
        let documented = rows.iter().flat_map(|(flags, systems)| {
            let names = flags.split('`').skip(1).step_by(2);
            names.map(move |flag| (flag.split('=').next().unwrap_or(""), *systems))
        });
        let documented: BTreeSet<(&str, String)> = documented
            .flat_map(|(flag, systems)| systems.split(", ").map(move |one| (flag, one.to_owned())))
            .collect();
        let listed = FLAGS
            .iter()
            .filter(|(_, _, effect)| !matches!(effect, Effect::Refused(_)));
        let listed: BTreeSet<(&str, String)> = listed
            .flat_map(|(flag, types, _)| match types {
                [] => vec![(*flag, "all".to_owned())],
                types => types
                    .iter()
                    .map(|fs_type| (*flag, fs_type.to_string()))
                    .collect(),
            })
            .collect();
        assert_eq!(documented, listed);
    }

    #[test]
    fn the_journal_is_left_alone_only_on_demand_and_read_only() {
        assert!(parse(FsType::Ext4, &["noload"], false).is_err());
        assert!(parse(FsType::Xfs, &["norecovery"], false).is_err());
        assert!(
            parse(FsType::Ext4, &["noload", "ro"], false)
                .unwrap()
                .skips_recovery
        );
        assert!(
            parse(FsType::Xfs, &["norecovery"], true)
                .unwrap()
                .skips_recovery
        );
        let plain = parse(FsType::Ext4, &[], true).unwrap();
        assert!(plain.read_only && !plain.skips_recovery);
    }
}
