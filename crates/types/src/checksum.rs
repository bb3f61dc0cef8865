//! SHA-512, Longhorn's checksum of a backing image over the whole file as stored, and SHA-256,
//! which most vendors publish.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A SHA-512 sum. Written as 128 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sha512([u8; 64]);

/// A text that is not a SHA-512 sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a SHA-512 checksum: 128 hexadecimal digits are expected")]
pub struct InvalidChecksum;

impl Sha512 {
    /// Takes the raw 64 bytes.
    pub const fn from_bytes(bytes: [u8; 64]) -> Self {
        Self(bytes)
    }

    /// Hashes `bytes` in one go; for streams use `ring::digest` and [`Sha512::from_digest`].
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_digest(&ring::digest::digest(&ring::digest::SHA512, bytes))
    }

    /// Takes a finished digest.
    ///
    /// # Panics
    /// When `digest` is not a SHA-512 one: that is a slip in the caller, not in its input.
    pub fn from_digest(digest: &ring::digest::Digest) -> Self {
        Self(
            digest
                .as_ref()
                .try_into()
                .expect("a SHA-512 digest has 64 bytes"),
        )
    }

    /// The raw 64 bytes.
    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }
}

impl fmt::Display for Sha512 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha512 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sha512({self})")
    }
}

impl FromStr for Sha512 {
    type Err = InvalidChecksum;

    fn from_str(text: &str) -> Result<Self, InvalidChecksum> {
        hexadecimal(text).map(Self).ok_or(InvalidChecksum)
    }
}

/// A sum that somebody published of some bytes: SHA-512 or SHA-256. Written as `sha512:…` or
/// `sha256:…`; read also as hexadecimal digits alone, whose number tells which it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Checksum {
    /// 128 digits.
    Sha512(Sha512),
    /// 64 digits.
    Sha256([u8; 32]),
}

/// A text that is neither sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a checksum: 128 hexadecimal digits (SHA-512) or 64 (SHA-256) are expected, with or \
         without the prefix sha512: or sha256:"
)]
pub struct UnknownChecksum;

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha512(sum) => write!(f, "sha512:{sum}"),
            Self::Sha256(bytes) => {
                f.write_str("sha256:")?;
                bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}

impl fmt::Debug for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Checksum({self})")
    }
}

impl FromStr for Checksum {
    type Err = UnknownChecksum;

    fn from_str(text: &str) -> Result<Self, UnknownChecksum> {
        let (name, digits) = text.split_once(':').unwrap_or(("", text));
        match (name.to_ascii_lowercase().as_str(), digits.len()) {
            ("" | "sha512", 128) => hexadecimal(digits).map(Sha512).map(Self::Sha512),
            ("" | "sha256", 64) => hexadecimal(digits).map(Self::Sha256),
            _ => None,
        }
        .ok_or(UnknownChecksum)
    }
}

/// Exactly `2 * N` hexadecimal digits as bytes.
fn hexadecimal<const N: usize>(text: &str) -> Option<[u8; N]> {
    let text = text.as_bytes();
    if text.len() != 2 * N {
        return None;
    }
    let digit = |b: u8| {
        char::from(b)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let (high, low) = digit(pair[0]).zip(digit(pair[1]))?;
        *byte = high << 4 | low;
    }
    Some(bytes)
}

impl TryFrom<String> for Sha512 {
    type Error = InvalidChecksum;
    fn try_from(text: String) -> Result<Self, InvalidChecksum> {
        text.parse()
    }
}

impl From<Sha512> for String {
    fn from(sum: Sha512) -> String {
        sum.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sum of "abc" in FIPS 180-4, appendix C.1.
    const ABC: &str = "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                       2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";

    #[test]
    fn text_and_bytes_agree() {
        let sum: Sha512 = ABC.parse().unwrap();
        assert_eq!(sum, Sha512::of(b"abc"));
        assert_eq!(sum.to_string(), ABC);
        assert_eq!(ABC.to_uppercase().parse::<Sha512>(), Ok(sum));
    }

    #[test]
    fn other_texts_are_refused() {
        for bad in [
            "",
            "abc",
            &ABC[1..],
            &format!("{ABC}0"),
            &ABC.replace('d', "g"),
        ] {
            assert!(bad.parse::<Sha512>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn a_published_sum_is_told_by_its_name_or_its_length() {
        let long = Sha512::of(b"abc");
        // FIPS 180-4, appendix B.1.
        let short = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(ABC.parse(), Ok(Checksum::Sha512(long)));
        assert_eq!(format!("sha512:{ABC}").parse(), Ok(Checksum::Sha512(long)));
        let sum: Checksum = short.parse().unwrap();
        assert_eq!(sum.to_string(), format!("sha256:{short}"));
        assert_eq!(format!("SHA256:{}", short.to_uppercase()).parse(), Ok(sum));
        for bad in [
            "",
            "md5:900150983cd24fb0d6963f7d28e17f72",
            "900150983cd24fb0d6963f7d28e17f72",
            "sha256:",
            &format!("sha512:{short}"),
            &format!("sha256:{ABC}"),
            &format!("{}g", &short[1..]),
            &format!(":{short}x"),
        ] {
            assert!(bad.parse::<Checksum>().is_err(), "{bad:?} was taken");
        }
    }
}
