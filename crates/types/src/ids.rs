//! Names from outside that become part of paths: each type proves that the text is safe there.
//!
//! A safe name is one path component that is never hidden, never an option of a command, and never
//! `.` or `..`: it starts with a letter or a digit and continues with letters, digits, `_`, `.` and
//! `-`. This is Longhorn's own rule for names (backing-image-manager.md §1.13).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A text that cannot be a name, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{what} {text:?} is not valid: {why}; use 1 to {max} letters, digits, '_', '.' or '-', \
     starting with a letter or a digit"
)]
pub struct InvalidName {
    what: &'static str,
    /// The offending text, cut so that an error never carries a megabyte.
    text: String,
    why: &'static str,
    max: usize,
}

fn check(what: &'static str, text: &str, max: usize) -> Result<(), InvalidName> {
    let why = if text.is_empty() {
        "it is empty"
    } else if text.len() > max {
        "it is too long"
    } else if !text.as_bytes()[0].is_ascii_alphanumeric() {
        "it starts with another character"
    } else if !text
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
    {
        "it holds another character"
    } else {
        return Ok(());
    };
    let text = crate::shown(text);
    Err(InvalidName {
        what,
        text,
        why,
        max,
    })
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal, $max:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// Checks `text` and takes it as a name.
            pub fn new(text: &str) -> Result<Self, InvalidName> {
                check($what, text, $max)?;
                Ok(Self(text.to_owned()))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $type {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $type {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                check($what, &text, $max)?;
                Ok(Self(text))
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }
    };
}

name!(
    /// What people call a backing image. At most 128 bytes, so that `<name>-<uuid>` fits a file name.
    ImageName, "image name", 128
);
name!(
    /// What tells two images of one name apart; Longhorn uses 8 hexadecimal digits, any name will do.
    ImageUuid, "image uuid", 64
);
name!(
    /// The name of a volume, and its CSI `volume_id`. 128 bytes is the CSI limit of a string.
    VolumeName, "volume name", 128
);
name!(
    /// The `diskUUID` of `longhorn-disk.cfg`.
    DiskUuid, "disk uuid", 64
);
name!(
    /// The name of a Kubernetes node, and the CSI `node_id`. A DNS subdomain has at most 253 bytes.
    NodeId, "node id", 253
);

/// The identity of a backing image: name and uuid together name its directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ImageId {
    /// What people call it.
    pub name: ImageName,
    /// What tells it from an earlier image of the same name.
    pub uuid: ImageUuid,
}

impl ImageId {
    /// Checks both halves.
    pub fn new(name: &str, uuid: &str) -> Result<Self, InvalidName> {
        Ok(Self {
            name: ImageName::new(name)?,
            uuid: ImageUuid::new(uuid)?,
        })
    }
}

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.name, self.uuid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_32_names_that_could_leave_the_directory_are_refused() {
        for bad in [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "-rf",
            "$(reboot)",
            "a\nb",
            "a\0b",
            "ü",
            " a",
            "_a",
        ] {
            assert!(ImageName::new(bad).is_err(), "{bad:?} was taken");
            assert!(VolumeName::new(bad).is_err(), "{bad:?} was taken");
        }
        assert!(ImageName::new(&"a".repeat(300)).is_err());
        assert!(VolumeName::new(&"a".repeat(129)).is_err());
        assert!(VolumeName::new(&"a".repeat(128)).is_ok());
        assert!(ImageName::new("default-image-7b2wq").is_ok());
    }

    #[test]
    fn an_error_never_repeats_a_long_name() {
        let text = ImageName::new(&"x".repeat(1 << 20))
            .unwrap_err()
            .to_string();
        assert!(text.len() < 300, "{} bytes", text.len());
    }

    #[test]
    fn a_name_read_from_json_is_checked() {
        assert!(serde_json::from_str::<ImageName>("\"../etc\"").is_err());
    }
}
