//! What is wanted of a target, checked: names, secrets and paths that tgtd understands as one word each.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use types::{Sha512, VolumeName, shown};

use crate::{Error, Result};

/// What the names of our targets start with; a volume's name follows.
pub(super) const PREFIX: &str = "iqn.2019-10.io.longhorn:";
/// The port of iSCSI (RFC 7143 §13).
const PORT: u16 = 3260;
/// The most bytes of an iSCSI name (RFC 3720 §3.2.6.1).
const NAME_MAX: usize = 223;
/// The unit in which initiators count, in bytes.
pub(super) const SECTOR: u64 = 512;

/// `ADDRESS` (at the port of iSCSI) or `ADDRESS:PORT`, of IPv4 or IPv6.
pub fn portal(text: &str) -> Option<SocketAddr> {
    let alone = text
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<IpAddr>();
    match alone {
        Ok(address) => Some(SocketAddr::new(address, PORT)),
        Err(_) => text.parse().ok(),
    }
}

/// The name of an initiator: `iqn.`, `eui.` or `naa.` (RFC 3720 §3.2.6), in its normal form.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Initiator(String);

impl Initiator {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Initiator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Initiator {
    type Err = Error;

    /// # Errors
    /// [`Error::InvalidTarget`]. Capital letters are refused: the normal form has none, and names are compared
    /// byte by byte.
    fn from_str(text: &str) -> Result<Self> {
        let hex = |digits: &str, lens: &[usize]| {
            lens.contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        let word =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-:".contains(&byte);
        let why = if text.len() > NAME_MAX {
            "it has more than 223 bytes"
        } else if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            "it has capital letters; write them small here and at the initiator"
        } else if let Some(rest) = text.strip_prefix("iqn.") {
            if is_dated(rest) && rest.bytes().all(word) {
                return Ok(Self(text.to_owned()));
            }
            "write iqn.YEAR-MONTH.DOMAIN, and what you like after a colon, of letters, digits, '.', '-' and ':'"
        } else if let Some(digits) = text.strip_prefix("eui.") {
            if hex(digits, &[16]) {
                return Ok(Self(text.to_owned()));
            }
            "write eui. and 16 hexadecimal digits"
        } else if let Some(digits) = text.strip_prefix("naa.") {
            if hex(digits, &[16, 32]) {
                return Ok(Self(text.to_owned()));
            }
            "write naa. and 16 or 32 hexadecimal digits"
        } else {
            "it starts with neither iqn. nor eui. nor naa."
        };
        Err(invalid("initiator name", text, why))
    }
}

/// `2026-01.` and something after it.
fn is_dated(rest: &str) -> bool {
    let Some((date, domain)) = rest.split_once('.') else {
        return false;
    };
    let number =
        |digits: &str, len| digits.len() == len && digits.bytes().all(|b| b.is_ascii_digit());
    let (year, month) = date.split_once('-').unwrap_or_default();
    number(year, 4)
        && number(month, 2)
        && domain.starts_with(|first: char| first.is_ascii_alphanumeric())
}

/// The user and the secret by which an initiator proves itself (RFC 1994).
#[derive(Clone, PartialEq, Eq)]
pub struct Chap {
    user: String,
    secret: String,
}

impl Chap {
    /// Checks both: a user of 1 to 64 letters, digits and `._:@-`; a secret of 12 to 16 printable characters
    /// without spaces and commas (some initiators take no less and no more).
    ///
    /// # Errors
    /// [`Error::InvalidTarget`], which never shows the secret.
    pub fn new(user: &str, secret: &str) -> Result<Self> {
        let in_user = |byte: u8| byte.is_ascii_alphanumeric() || b"._:@-".contains(&byte);
        if user.is_empty() || user.len() > 64 || !user.bytes().all(in_user) {
            let why = "use 1 to 64 letters, digits, '.', '_', ':', '@' or '-'";
            return Err(invalid("CHAP user", user, why));
        }
        let in_secret = |byte: u8| byte.is_ascii_graphic() && byte != b',';
        if !(12..=16).contains(&secret.len()) || !secret.bytes().all(in_secret) {
            let why = "use 12 to 16 printable characters without spaces and commas";
            return Err(invalid("CHAP secret", "(not shown)", why));
        }
        Ok(Self {
            user: user.to_owned(),
            secret: secret.to_owned(),
        })
    }

    pub fn user(&self) -> &str {
        &self.user
    }

    /// For tgtd and for the record alone.
    pub fn secret(&self) -> &str {
        &self.secret
    }
}

impl fmt::Debug for Chap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chap")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// What a target should be.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub volume: VolumeName,
    /// The volume's file, as tgtd sees it, which is as this process sees it.
    pub file: PathBuf,
    /// In bytes; of a file that has grown beyond it, all is served.
    pub size: u64,
    pub read_only: bool,
    /// Who may connect; all others do not even see it.
    pub initiators: Vec<Initiator>,
    /// What they must prove; `None`: their names are enough, and anybody can say a name.
    pub chap: Option<Chap>,
}

impl Wanted {
    /// Whether tgtd can be told all of it.
    ///
    /// # Errors
    /// [`Error::InvalidTarget`].
    pub(super) fn check(&self) -> Result<()> {
        check_name(&self.volume)?;
        let file = self.file.to_str().filter(|file| {
            file.starts_with('/') && !file.contains(|c: char| c == ',' || c.is_control())
        });
        if file.is_none_or(|file| file.len() > 1024) {
            let why = "a target's file needs an absolute path of at most 1024 bytes without commas";
            return Err(invalid("file", &self.file.display().to_string(), why));
        }
        if self.size == 0 || !self.size.is_multiple_of(SECTOR) {
            let why = "a target's size is a multiple of 512 bytes";
            return Err(invalid("size", &self.size.to_string(), why));
        }
        if self.initiators.is_empty() {
            let why = "name at least one: without, nobody may connect";
            return Err(invalid("list of initiators", "", why));
        }
        Ok(())
    }
}

/// The name of a volume's target.
pub(super) fn target_name(volume: &VolumeName) -> String {
    format!("{PREFIX}{volume}")
}

/// The volume of a target of ours.
pub(super) fn volume_of(target: &str) -> Option<VolumeName> {
    VolumeName::new(target.strip_prefix(PREFIX)?).ok()
}

/// Names of volumes have more letters than those of iSCSI.
pub(super) fn check_name(volume: &VolumeName) -> Result<()> {
    let foreign = |byte: u8| byte == b'_' || byte.is_ascii_uppercase();
    if volume.as_str().bytes().any(foreign) {
        let why = "the name of a target has no capital letters and no '_'";
        return Err(invalid("volume name", volume.as_str(), why));
    }
    Ok(())
}

/// By what initiators know the disk again: its serial number, and its identity (SPC-4 §7.8.6). Hexadecimal digits, of
/// which tgtd makes the NAA identifier that Linux names disks by. Its own default comes of a number that differs
/// after each start.
pub(super) fn serial(volume: &VolumeName) -> String {
    let mut serial = Sha512::of(target_name(volume).as_bytes()).to_string();
    serial.truncate(32);
    serial
}

/// A path as a parameter.
pub(super) fn path_text(path: &Path) -> &str {
    // Checked: `Wanted::check`.
    path.to_str().unwrap_or_default()
}

fn invalid(what: &'static str, text: &str, why: &'static str) -> Error {
    Error::InvalidTarget {
        what,
        text: shown(text),
        why,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_initiators_are_one_word_of_tgtds() {
        for good in [
            "iqn.2026-01.org.example:host1",
            "iqn.2026-01.org.example",
            "iqn.1993-08.org.debian:01:a1b2c3",
            "eui.02004567a425678d",
            "naa.52004567ba64678d",
            "naa.62004567ba64678d0123456789abcdef",
        ] {
            assert_eq!(good.parse::<Initiator>().unwrap().as_str(), good);
        }
        let long = format!("iqn.2026-01.org.example:{}", "a".repeat(200));
        for bad in [
            "",
            "ALL",
            "10.0.0.0/8",
            "iqn.",
            "iqn.2026.org.example",
            "iqn.2026-01.",
            "iqn.2026-01.org.example:Host",
            "iqn.2026-01.org.example:a,b",
            "iqn.2026-01.org.example:a initiator-address=ALL",
            "iqn.2026-01.org.example:initiator-address=ALL",
            "iqn.2026-01.org.example:a\nTarget 2: x",
            "iqn.2026-01.org.example:a\0",
            "iqn.2026-01.org.example:ü",
            "eui.02004567a425678",
            "naa.xyz",
            &long,
        ] {
            let error = bad.parse::<Initiator>().unwrap_err().to_string();
            assert!(error.starts_with("initiator name"), "{error}");
            assert!(error.len() < 400 && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_secret_is_never_shown() {
        let chap = Chap::new("site", "correct-horse").unwrap();
        assert!(!format!("{chap:?}").contains("horse"));
        for (user, secret) in [
            ("site", "short"),
            ("site", "seventeen-letters"),
            ("site", "with space 12"),
            ("site", "with,comma-12"),
            ("site", "with\nnewline"),
            ("", "correct-horse"),
            ("a,password=x", "correct-horse"),
            ("a b", "correct-horse"),
        ] {
            let error = Chap::new(user, secret).unwrap_err().to_string();
            assert!(!error.contains(secret), "{error}");
        }
    }

    #[test]
    fn what_tgtd_would_take_for_something_else_is_refused() {
        let good = Wanted {
            volume: VolumeName::new("site-1.a").unwrap(),
            file: "/disk/volumes/site-1.a/volume".into(),
            size: 4096,
            read_only: false,
            initiators: vec!["iqn.2026-01.org.example:a".parse().unwrap()],
            chap: None,
        };
        good.check().unwrap();
        let bad: [fn(&mut Wanted); 8] = [
            |it| it.volume = VolumeName::new("Site").unwrap(),
            |it| it.volume = VolumeName::new("a_b").unwrap(),
            |it| it.file = "/disk/a,bstype=aio/volume".into(),
            |it| it.file = "volume".into(),
            |it| it.file = "/disk/a\nb".into(),
            |it| it.size = 0,
            |it| it.size = 4097,
            |it| it.initiators.clear(),
        ];
        for change in bad {
            let mut wanted = good.clone();
            change(&mut wanted);
            assert!(matches!(wanted.check(), Err(Error::InvalidTarget { .. })));
        }
    }

    #[test]
    fn a_portal_is_an_address_with_or_without_a_port() {
        let cases = [
            ("10.0.0.5", Some("10.0.0.5:3260")),
            ("10.0.0.5:3261", Some("10.0.0.5:3261")),
            ("fd00::5", Some("[fd00::5]:3260")),
            ("[fd00::5]", Some("[fd00::5]:3260")),
            ("[fd00::5]:1", Some("[fd00::5]:1")),
            ("node-1", None),
            ("", None),
        ];
        for (text, expected) in cases {
            let found = portal(text).map(|portal| portal.to_string());
            assert_eq!(found.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn two_volumes_have_two_identities() {
        let [a, b] = ["a", "b"].map(|name| serial(&VolumeName::new(name).unwrap()));
        assert_ne!(a, b);
        assert!(a.len() == 32 && a.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
}
