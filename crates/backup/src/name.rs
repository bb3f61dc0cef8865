//! The names of volumes, backups and backing images in a store.

use std::fmt;
use std::str::FromStr;

use crate::{Error, Result};

/// Most bytes of a name: `backup_NAME.cfg` must be a file name with room for a suffix.
const LENGTH_MAX: usize = 220;

/// Whether a text can name a target in a configuration: it is the name of a directory as well.
pub fn is_target_name(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

/// A name that every program which shares the store takes: a letter or digit, then one or more
/// letters, digits, `_`, `.` or `-`. Never a path, and never part of one that leads elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

impl Name {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut bytes = text.bytes();
        let first = bytes
            .next()
            .is_some_and(|byte| byte.is_ascii_alphanumeric());
        let rest = bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
        let why = match text.len() {
            0 | 1 => "it has fewer than two characters",
            2..=LENGTH_MAX if first && rest => return Ok(Self(text.to_owned())),
            2..=LENGTH_MAX => {
                "it must begin with a letter or digit, and have letters, digits, '_', '.' and '-' only"
            }
            _ => "it has more than 220 characters",
        };
        Err(Error::Name {
            text: types::shown(text),
            why,
        })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
