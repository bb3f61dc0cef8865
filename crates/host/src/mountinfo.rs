//! The mounts that this process sees: a parser of `/proc/self/mountinfo` (proc(5)).
//!
//! Pure but for [`read`] and its like. It knows nothing of volumes.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::{DeviceNumber, Error, Result};

/// How many bytes of mountinfo are read at most: some 300,000 mounts, where the kernel's own limit
/// (`fs.mount-max`) is 100,000.
const SIZE_MAX: u64 = 64 << 20;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    pub id: u64,
    /// The id of the mount it lies on.
    pub parent: u64,
    /// The `st_dev` of its files. An anonymous number for btrfs, tmpfs and the like.
    pub device: DeviceNumber,
    /// The directory or file of the file system that is seen at the mount point.
    pub root: PathBuf,
    pub point: PathBuf,
    /// Options of this mount, separated by commas.
    pub options: String,
    /// The peer group that mounts made here are passed on to, if any.
    pub shared: Option<u64>,
    /// The peer group that passes its mounts on to this one, if any.
    pub master: Option<u64>,
    /// The type of the file system.
    pub fs_type: String,
    /// What was mounted, usually a device.
    pub source: PathBuf,
    /// Options of the file system, separated by commas.
    pub super_options: String,
}

impl Mount {
    /// Whether this mount, or the whole file system, is read-only.
    pub fn is_read_only(&self) -> bool {
        has(&self.options, "ro") || has(&self.super_options, "ro")
    }

    /// Whether `option` is among the options of the file system.
    pub fn has_super_option(&self, option: &str) -> bool {
        has(&self.super_options, option)
    }

    /// Whether `option` is among the options of this mount.
    pub fn has_option(&self, option: &str) -> bool {
        has(&self.options, option)
    }
}

fn has(options: &str, option: &str) -> bool {
    options.split(',').any(|o| o == option)
}

/// The mounts of this process, oldest first.
pub fn read() -> Result<Vec<Mount>> {
    read_at(Path::new("/proc/self/mountinfo"))
}

/// The same of another process, whose `mountinfo` this is.
pub(crate) fn read_at(path: &Path) -> Result<Vec<Mount>> {
    use std::io::Read;

    let mut text = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(SIZE_MAX).read_to_end(&mut text))
        .map_err(Error::io("read", path))?;
    parse(&text).map_err(Error::io("understand", path))
}

/// Parses the text of mountinfo. A line that does not follow proc(5) is an error: to skip it could
/// hide a mount.
pub fn parse(text: &[u8]) -> io::Result<Vec<Mount>> {
    text.split(|b| *b == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| parse_line(line).ok_or(io::ErrorKind::InvalidData.into()))
        .collect()
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|b| *b == b' ');
    let mut next = || fields.next();
    let id = number(next()?)?;
    let parent = number(next()?)?;
    let device = str::from_utf8(next()?).ok()?.parse().ok()?;
    let root = unescape(next()?).into();
    let point = unescape(next()?).into();
    let options = String::from_utf8_lossy(next()?).into_owned();
    let (mut shared, mut master) = (None, None);
    // Optional fields, ended by a single hyphen.
    loop {
        match next()? {
            b"-" => break,
            tag => {
                if let Some(group) = tag.strip_prefix(b"shared:") {
                    shared = Some(number(group)?);
                } else if let Some(group) = tag.strip_prefix(b"master:") {
                    master = Some(number(group)?);
                }
            }
        }
    }
    let fs_type = String::from_utf8_lossy(next()?).into_owned();
    let source = unescape(next()?).into();
    let super_options = String::from_utf8_lossy(next()?).into_owned();
    Some(Mount {
        id,
        parent,
        device,
        root,
        point,
        options,
        shared,
        master,
        fs_type,
        source,
        super_options,
    })
}

fn number(field: &[u8]) -> Option<u64> {
    str::from_utf8(field).ok()?.parse().ok()
}

/// Undoes the kernel's escapes: a backslash and three octal digits stand for one byte.
fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        if let (b'\\', Some((digits, after))) = (first, tail.split_first_chunk::<3>())
            && let Some(byte) = octal(*digits)
        {
            bytes.push(byte);
            rest = after;
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    OsString::from_vec(bytes)
}

fn octal(digits: [u8; 3]) -> Option<u8> {
    digits.iter().try_fold(0u8, |value, digit| {
        let digit = digit.checked_sub(b'0').filter(|d| *d < 8)?;
        value.checked_mul(8)?.checked_add(digit)
    })
}

/// The mount that is seen at exactly `point`: the youngest of those stacked there.
pub fn at<'a>(mounts: &'a [Mount], point: &Path) -> Option<&'a Mount> {
    mounts.iter().rev().find(|mount| mount.point == point)
}

/// The mount that `path` lies in.
pub fn containing<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    path.ancestors().find_map(|ancestor| at(mounts, ancestor))
}

/// Whether `a` and `b` are one mount, seen at two places: a mount in a shared directory is repeated in each
/// place where that directory is mounted too (mount_namespaces(7)), and all of them go with one of them.
pub fn is_one(mounts: &[Mount], a: &Mount, b: &Mount) -> bool {
    a.device == b.device && a.root == b.root && {
        let (Some(under_a), Some(under_b)) = (below(mounts, a), below(mounts, b)) else {
            return false;
        };
        a.parent != b.parent
            && under_a.device == under_b.device
            && passes_on(under_a, under_b)
            && place_in(under_a, a) == place_in(under_b, b)
    }
}

/// The mount that `mount` lies on.
fn below<'a>(mounts: &'a [Mount], mount: &Mount) -> Option<&'a Mount> {
    mounts.iter().find(|other| other.id == mount.parent)
}

/// Whether what is mounted in one of the two is mounted in the other too.
fn passes_on(a: &Mount, b: &Mount) -> bool {
    let groups = |mount: &Mount| {
        [mount.shared, mount.master]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
    };
    groups(a).iter().any(|group| groups(b).contains(group))
}

/// Where `mount` is in the file system of the mount `below` it.
fn place_in(below: &Mount, mount: &Mount) -> Option<PathBuf> {
    Some(
        below
            .root
            .join(mount.point.strip_prefix(&below.point).ok()?),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
        27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard\n\
        36 27 7:3 / /mnt/a\\040b\\134c rw,nosuid,nodev shared:12 master:3 - xfs /dev/loop3 ro,noquota\n\
        37 27 0:6 /loop3 /mnt/block ro - devtmpfs devtmpfs rw,size=1k\n\
        38 36 0:40 /x\\012y /mnt/a\\040b\\134c rw - btrfs /dev/loop4 rw\n\
        39 27 0:41 / /mnt/empty rw - tmpfs  rw\n";

    #[test]
    fn fields_are_those_of_proc_5() {
        let mounts = parse(TEXT.as_bytes()).unwrap();
        assert_eq!(mounts.len(), 5);
        let xfs = &mounts[1];
        assert_eq!((xfs.id, xfs.parent), (36, 27));
        assert_eq!(xfs.device, DeviceNumber { major: 7, minor: 3 });
        assert_eq!(xfs.point, Path::new("/mnt/a b\\c"));
        assert_eq!((xfs.shared, xfs.master), (Some(12), Some(3)));
        assert!(xfs.is_read_only() && !xfs.has_option("ro"));
        assert!(mounts[2].has_option("ro") && !mounts[2].has_super_option("ro"));
        assert_eq!(mounts[2].root, Path::new("/loop3"));
        assert_eq!(mounts[3].root, Path::new("/x\ny"));
        assert_eq!(mounts[4].source, Path::new(""));
    }

    #[test]
    fn the_youngest_mount_at_a_point_is_the_one_seen() {
        let mounts = parse(TEXT.as_bytes()).unwrap();
        assert_eq!(at(&mounts, Path::new("/mnt/a b\\c")).unwrap().id, 38);
        assert_eq!(at(&mounts, Path::new("/mnt")), None);
        assert_eq!(
            containing(&mounts, Path::new("/mnt/block/x")).unwrap().id,
            37
        );
        assert_eq!(containing(&mounts, Path::new("/mnt/other")).unwrap().id, 27);
    }

    #[test]
    fn a_mount_repeated_in_a_peer_is_one_and_another_target_is_not() {
        const PEERS: &str = "\
            1 0 254:0 / / rw - ext4 /dev/vda rw\n\
            2 1 0:40 / /data rw shared:1 - tmpfs t rw\n\
            3 1 0:40 /kubelet /kl rw shared:1 - tmpfs t rw\n\
            4 1 0:40 /kubelet /slave rw master:1 - tmpfs t rw\n\
            5 1 0:40 /kubelet /private rw - tmpfs t rw\n\
            10 3 7:3 / /kl/globalmount rw shared:9 - ext4 /dev/loop3 rw\n\
            11 2 7:3 / /data/kubelet/globalmount rw shared:9 - ext4 /dev/loop3 rw\n\
            12 4 7:3 / /slave/globalmount rw master:9 - ext4 /dev/loop3 rw\n\
            13 3 7:3 / /kl/pod rw shared:9 - ext4 /dev/loop3 rw\n\
            14 5 7:3 / /private/globalmount rw - ext4 /dev/loop3 rw\n\
            15 3 7:3 /sub /kl/globalmount rw shared:9 - ext4 /dev/loop3 rw\n";
        let mounts = parse(PEERS.as_bytes()).unwrap();
        let by_id = |id| mounts.iter().find(|mount| mount.id == id).unwrap();
        for (other, expected) in [
            (11, true),
            (12, true),
            (13, false),
            (14, false),
            (15, false),
        ] {
            let (a, b) = (by_id(10), by_id(other));
            assert_eq!(is_one(&mounts, a, b), expected, "{other}");
            assert_eq!(is_one(&mounts, b, a), expected, "{other}");
        }
        assert!(is_one(&mounts, by_id(11), by_id(12)));
    }

    #[test]
    fn a_broken_line_is_an_error_and_never_a_panic() {
        for bad in [
            "x",
            "1 2 3",
            "1 2 7:3 / /a rw",
            "1 2 7:3 / /a rw shared:x - a b c",
            "1 2 7 / /a rw - a b c",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn escapes_that_are_none_stay() {
        assert_eq!(unescape(b"\\08a\\777\\04"), "\\08a\\777\\04");
        assert_eq!(unescape(b"\\134040"), "\\040");
    }

    #[test]
    fn this_process_has_mounts() {
        let mounts = read().unwrap();
        assert!(containing(&mounts, Path::new("/")).is_some());
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = parse(&text);
        }
    }
}
