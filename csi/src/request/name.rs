//! The names that callers give to volumes, snapshots and groups. CSI accepts nearly any text; here
//! a name is also a directory name and the id. A name that cannot be either gets an id derived from
//! it, always the same.

use types::{ImageName, Sha512, VolumeName};

use crate::error::{Error, Result};

/// Bytes of a name (CSI specification, "Size Limits").
const NAME_MAX: usize = 128;
/// What stands between the readable part of an id and the digest of the name that it was made from.
const MARK: &str = "-name-";
/// Hexadecimal digits of that digest: 128 bits.
const DIGITS: usize = 32;
/// What is kept of the name.
const READABLE: usize = NAME_MAX - MARK.len() - DIGITS;

/// The id of a volume, and its name where that is another one.
pub(super) fn volume(name: &str) -> Result<(VolumeName, Option<String>)> {
    if let Ok(id) = VolumeName::new(name) {
        return Ok((id, None));
    }
    let id = VolumeName::new(&made_from(name)?).map_err(Error::Name)?;
    Ok((id, Some(name.to_owned())))
}

/// The id of a snapshot or of a group of them. There is no record of its name to compare with: a name that
/// looks like such an id is not taken as one, but gets its own.
pub(super) fn snapshot(name: &str) -> Result<ImageName> {
    match ImageName::new(name) {
        Ok(id) if !looks_made(name) => Ok(id),
        _ => ImageName::new(&made_from(name)?).map_err(Error::Name),
    }
}

/// The name of a backup, which is a snapshot's with two characters at least.
pub(super) fn backup(name: &str) -> Result<ImageName> {
    if name.len() < 2 {
        return ImageName::new(&made_from(name)?).map_err(Error::Name);
    }
    snapshot(name)
}

fn made_from(name: &str) -> Result<String> {
    let invalid = |why| Error::Invalid { field: "name", why };
    if name.len() > NAME_MAX {
        return Err(invalid("it has more than 128 bytes"));
    }
    // Those of CreateVolumeRequest.name in the specification; white space is allowed there.
    if name
        .chars()
        .any(|c| c.is_control() && !"\t\n\r".contains(c))
    {
        return Err(invalid("it holds a control character"));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    let readable = name.chars().map(|c| if plain(c) { c } else { '-' });
    let readable = readable.skip_while(|c| !c.is_ascii_alphanumeric());
    let mut readable: String = readable.take(READABLE).collect();
    if readable.is_empty() {
        readable.push('x');
    }
    let digest = Sha512::of(name.as_bytes()).to_string();
    let digest: String = digest.chars().take(DIGITS).collect();
    Ok(format!("{readable}{MARK}{digest}"))
}

fn looks_made(name: &str) -> bool {
    let end = name.rsplit_once(MARK).map(|(_, end)| end);
    end.is_some_and(|end| end.len() == DIGITS && end.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use types::{Classify as _, ErrorKind};

    use super::*;

    #[test]
    fn row_161_a_name_that_can_be_an_id_is_the_id() {
        let long = "v".repeat(128);
        for name in [
            "pvc-1",
            "0",
            "a_b.c-d",
            long.as_str(),
            "x-name-0123456789abcdef0123456789abcdef",
        ] {
            let (id, original) = volume(name).unwrap();
            assert_eq!((id.as_str(), original), (name, None));
        }
        assert_eq!(snapshot("snapshot-1").unwrap().as_str(), "snapshot-1");
    }

    #[test]
    fn row_161_every_other_name_has_an_id_of_its_own() {
        let long = "ä".repeat(64);
        let names = [
            "vol[0]",
            "vol[1]",
            "my volume",
            "my\tvolume",
            "Datensätze",
            "a/b",
            "a-b/",
            "pvc:1",
            "../x",
            ".",
            "..",
            "-rf",
            "_a",
            " ",
            "日本",
            "日中",
            "$(reboot)",
            "vol+1",
            long.as_str(),
        ];
        let mut ids = HashSet::new();
        for name in names {
            let (id, original) = volume(name).unwrap();
            assert_eq!(volume(name).unwrap().0, id, "always the same");
            assert_eq!(original.as_deref(), Some(name));
            assert_eq!(snapshot(name).unwrap().as_str(), id.as_str());
            assert!(ids.insert(id), "{name:?} has another's id");
        }
        assert!(
            volume("vol[0]")
                .unwrap()
                .0
                .as_str()
                .starts_with("vol-0--name-")
        );
        assert!(volume("日本").unwrap().0.as_str().starts_with("x-name-"));
        // The id of one is no way to the snapshot of the other.
        let forged = snapshot("snap 1").unwrap();
        assert_ne!(snapshot(forged.as_str()).unwrap(), forged);
    }

    #[test]
    fn row_161_what_csi_bans_is_refused() {
        let long = "v".repeat(129);
        for name in [
            "a\0b",
            "a\u{7}",
            "\u{7f}",
            "\u{85}",
            "a/b\u{b}",
            long.as_str(),
        ] {
            for error in [volume(name).unwrap_err(), snapshot(name).unwrap_err()] {
                assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{name:?}");
            }
        }
    }
}
