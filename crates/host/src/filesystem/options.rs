//! The mkfs options that a user may set: those that affect the layout of the file system. None of
//! them names a file or a device, invalidates a proof about the volume, or reaches a shell.

use probe::FsType;

use crate::{Error, Result};

/// The longest text, in bytes: every option there is, once.
const TEXT_MAX: usize = 1024;

/// What a value may be.
enum Value {
    /// A number of this range.
    Number(u64, u64),
    /// A power of two of this range.
    Power(u64, u64),
    /// One of these words.
    Word(&'static [&'static str]),
    /// Any of these words, separated by commas, each with a `^` before it to turn it off.
    Features(&'static [&'static str]),
    /// `key=value` pairs, separated by commas.
    Pairs(&'static [(&'static str, Value)]),
    /// The option has none.
    None,
}

use Value::{Features, None as Alone, Number, Pairs, Power, Word};

const ON_OFF: Value = Word(&["0", "1"]);

/// mke2fs(8) and ext4(5).
const EXT: &[(&str, Value)] = &[
    ("-b", Power(1024, 4096)),
    ("-I", Power(128, 4096)),
    ("-i", Number(1024, 64 << 20)),
    ("-N", Number(16, u32::MAX as u64)),
    ("-m", Number(0, 50)),
    (
        "-T",
        Word(&["small", "big", "huge", "largefile", "largefile4", "news"]),
    ),
    ("-O", Features(EXT_FEATURES)),
    (
        "-E",
        Pairs(&[
            ("lazy_itable_init", ON_OFF),
            ("lazy_journal_init", ON_OFF),
            ("packed_meta_blocks", ON_OFF),
            ("stride", Number(1, 1 << 20)),
            ("stripe_width", Number(1, 1 << 20)),
        ]),
    ),
];
const EXT_FEATURES: &[&str] = &[
    "64bit",
    "dir_index",
    "dir_nlink",
    "extent",
    "extents",
    "extra_isize",
    "ext_attr",
    "filetype",
    "flex_bg",
    "huge_file",
    "inline_data",
    "large_dir",
    "large_file",
    "metadata_csum",
    "metadata_csum_seed",
    "orphan_file",
    "project",
    "quota",
    "resize_inode",
    "sparse_super",
    "sparse_super2",
    "uninit_bg",
    "verity",
];

/// mkfs.xfs(8).
const XFS: &[(&str, Value)] = &[
    ("-K", Alone),
    ("-b", Pairs(&[("size", Power(1024, 4096))])),
    ("-s", Pairs(&[("size", Power(512, 4096))])),
    (
        "-n",
        Pairs(&[("size", Power(4096, 65536)), ("ftype", Word(&["1"]))]),
    ),
    ("-d", Pairs(&[("agcount", Number(1, 1024))])),
    (
        "-l",
        Pairs(&[
            ("size", Number(8 << 20, 2 << 30)),
            ("lazy-count", Word(&["1"])),
        ]),
    ),
    (
        "-i",
        Pairs(&[
            ("size", Power(256, 2048)),
            ("maxpct", Number(0, 100)),
            ("sparse", ON_OFF),
            ("nrext64", ON_OFF),
        ]),
    ),
    (
        "-m",
        Pairs(&[
            ("crc", Word(&["1"])),
            ("finobt", ON_OFF),
            ("rmapbt", ON_OFF),
            ("reflink", ON_OFF),
            ("bigtime", ON_OFF),
            ("inobtcount", ON_OFF),
        ]),
    ),
];

/// mkfs.btrfs(8).
const BTRFS: &[(&str, Value)] = &[
    ("-K", Alone),
    ("-M", Alone),
    ("-n", Power(4096, 65536)),
    ("-s", Word(&["4096"])),
    ("-m", Word(&["single", "dup"])),
    ("-d", Word(&["single", "dup"])),
    (
        "-O",
        Features(&[
            "block-group-tree",
            "extref",
            "free-space-tree",
            "no-holes",
            "skinny-metadata",
        ]),
    ),
];

/// Takes a text of options apart, for a blank volume that is formatted as `fs_type`.
///
/// # Errors
/// `InvalidArgument` that names the first option that is not on the list, or whose value is not.
pub fn mkfs_options(fs_type: FsType, text: &str) -> Result<Vec<String>> {
    let refuse = |option: &str, why: &str| Error::InvalidMkfsOption {
        option: option.chars().take(64).collect(),
        why: format!("{why} for {fs_type}"),
    };
    if text.len() > TEXT_MAX {
        return Err(refuse(text, "they are longer than any options there are"));
    }
    let known = match fs_type {
        FsType::Ext2 | FsType::Ext3 | FsType::Ext4 => EXT,
        FsType::Xfs => XFS,
        FsType::Btrfs => BTRFS,
        _ => &[],
    };
    let mut options = Vec::new();
    let mut words = text.split_ascii_whitespace();
    while let Some(word) = words.next() {
        let Some((_, value)) = known.iter().find(|(name, _)| *name == word) else {
            return Err(refuse(word, "it is not on the list of options"));
        };
        options.push(word.to_owned());
        if matches!(value, Alone) {
            continue;
        }
        let given = words
            .next()
            .ok_or_else(|| refuse(word, "its value is missing"))?;
        if !value.takes(given) {
            return Err(refuse(
                &format!("{word} {given}"),
                "its value is not on the list",
            ));
        }
        options.push(given.to_owned());
    }
    Ok(options)
}

impl Value {
    fn takes(&self, given: &str) -> bool {
        let number = || {
            let digits = given.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| given.parse::<u64>().ok()).flatten()
        };
        match self {
            Number(least, most) => number().is_some_and(|n| (*least..=*most).contains(&n)),
            Power(least, most) => {
                number().is_some_and(|n| n.is_power_of_two() && (*least..=*most).contains(&n))
            }
            Word(words) => words.contains(&given),
            Features(words) => given
                .split(',')
                .all(|one| words.contains(&one.strip_prefix('^').unwrap_or(one))),
            Pairs(pairs) => given.split(',').all(|pair| {
                let Some((key, given)) = pair.split_once('=') else {
                    return false;
                };
                let known = pairs.iter().find(|(name, _)| *name == key);
                known.is_some_and(|(_, value)| value.takes(given))
            }),
            Alone => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use types::{Classify as _, ErrorKind};

    use super::*;

    #[test]
    fn what_shapes_a_file_system_is_taken() {
        for (fs_type, text) in [
            (FsType::Ext4, ""),
            (FsType::Ext4, "-I 256 -b 4096 -O ^64bit,^metadata_csum"),
            (FsType::Ext3, " -m 1   -i 8192 "),
            (FsType::Ext2, "-E lazy_itable_init=0,stride=16"),
            (FsType::Xfs, "-b size=4096 -m reflink=0,rmapbt=1 -K"),
            (FsType::Btrfs, "-n 16384 -O ^no-holes -m single"),
        ] {
            let words: Vec<&str> = text.split_whitespace().collect();
            assert_eq!(
                mkfs_options(fs_type, text).unwrap(),
                words,
                "{fs_type} {text}"
            );
        }
    }

    #[test]
    fn row_79_what_names_a_file_or_hides_a_command_is_refused() {
        let long = "-K ".repeat(500);
        for (fs_type, text) in [
            (FsType::Ext4, "-d /etc"),
            (FsType::Ext4, "-J device=/dev/sda"),
            (FsType::Ext4, "-E offset=4096"),
            (FsType::Ext4, "-E lazy_itable_init"),
            (FsType::Ext4, "-O journal_dev"),
            (FsType::Ext4, "-O ^^64bit"),
            (FsType::Ext4, "-b 4096;reboot"),
            (FsType::Ext4, "-b 3000"),
            (FsType::Ext4, "-b"),
            (FsType::Ext4, "-F"),
            (FsType::Ext4, "/dev/sda"),
            (FsType::Ext4, "--help"),
            (FsType::Ext4, "-b4096"),
            (FsType::Xfs, "-f"),
            (FsType::Xfs, "-p /etc/passwd"),
            (FsType::Xfs, "-l logdev=/dev/sda"),
            (FsType::Xfs, "-d file,name=/etc/passwd"),
            (FsType::Xfs, "-m uuid=00000000-0000-0000-0000-000000000000"),
            (FsType::Xfs, &long),
            (FsType::Btrfs, "-r /etc"),
            (FsType::Btrfs, "-b 4096"),
            (FsType::Vfat, "-n x"),
        ] {
            let error = mkfs_options(fs_type, text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{fs_type} {text}");
            assert!(error.to_string().len() < 300, "{error}");
        }
    }
}
