//! Content digests as OCI spells them: `sha256:…` and `sha512:…`, nothing else.
//!
//! A [`Digest`] is proof that the text is safe in a path and in a URL: a known algorithm, a colon and
//! exactly as many lower-case hexadecimal digits as that algorithm has.

use std::fmt;
use std::str::FromStr;

use ring::digest::{Context, SHA256, SHA512};
use serde::{Deserialize, Serialize};

/// How a digest is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// SHA-256, what nearly every registry uses.
    Sha256,
    /// SHA-512, the other one that the OCI image specification registers.
    Sha512,
}

impl Algorithm {
    /// As written before the colon.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    const fn digits(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

/// A checked content digest.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest {
    algorithm: Algorithm,
    hex: Box<str>,
}

/// A text that is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "digest {text:?} is not valid: sha256: and 64, or sha512: and 128 lower-case hexadecimal digits \
     are expected"
)]
pub struct InvalidDigest {
    /// The offending text, cut so that an error never carries a megabyte.
    text: String,
}

impl Digest {
    /// Hashes `bytes` in one go with SHA-256.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(bytes);
        hasher.finish()
    }

    /// How it is computed.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The hexadecimal digits after the colon.
    pub fn hex(&self) -> &str {
        &self.hex
    }

    /// A hasher of this digest's algorithm.
    pub fn hasher(&self) -> Hasher {
        Hasher::new(self.algorithm)
    }

    /// Whether `bytes` hash to this.
    pub fn matches(&self, bytes: &[u8]) -> bool {
        let mut hasher = self.hasher();
        hasher.update(bytes);
        hasher.finish() == *self
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        parse(text).ok_or_else(|| InvalidDigest {
            text: text.chars().take(80).collect(),
        })
    }
}

fn parse(text: &str) -> Option<Digest> {
    let (name, hex) = text.split_once(':')?;
    let algorithm = match name {
        "sha256" => Algorithm::Sha256,
        "sha512" => Algorithm::Sha512,
        _ => return None,
    };
    let lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    (hex.len() == algorithm.digits() && hex.bytes().all(lower_hex)).then(|| Digest {
        algorithm,
        hex: hex.into(),
    })
}

impl TryFrom<String> for Digest {
    type Error = InvalidDigest;
    fn try_from(text: String) -> Result<Self, InvalidDigest> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

/// Computes a [`Digest`] over a stream.
#[derive(Clone)]
pub struct Hasher {
    algorithm: Algorithm,
    context: Context,
}

impl Hasher {
    /// Starts with no bytes.
    pub fn new(algorithm: Algorithm) -> Self {
        let context = Context::new(match algorithm {
            Algorithm::Sha256 => &SHA256,
            Algorithm::Sha512 => &SHA512,
        });
        Self { algorithm, context }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
    }

    /// The digest of all bytes taken.
    pub fn finish(self) -> Digest {
        let mut hex = String::with_capacity(self.algorithm.digits());
        for byte in self.context.finish().as_ref() {
            for digit in [byte >> 4, byte & 15] {
                hex.push(char::from_digit(digit.into(), 16).expect("a half byte is one digit"));
            }
        }
        Digest {
            algorithm: self.algorithm,
            hex: hex.into(),
        }
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hasher")
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sum of "abc" in FIPS 180-4, appendix B.1.
    const ABC: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn text_and_bytes_agree() {
        let digest: Digest = ABC.parse().unwrap();
        assert_eq!(digest, Digest::of(b"abc"));
        assert_eq!(digest.to_string(), ABC);
        assert!(digest.matches(b"abc") && !digest.matches(b"abd"));
    }

    #[test]
    fn row_05_a_digest_that_could_leave_a_path_is_refused() {
        let upper = ABC.to_uppercase();
        let upper_hex = format!("sha256:{}", upper[7..].to_owned());
        let long = format!("{ABC}0");
        let of_512_with_64 = ABC.replace("sha256", "sha512");
        for bad in [
            "",
            "sha256:",
            "sha256:../../etc/x",
            "sha256:..",
            &ABC[..70],
            &long,
            &upper,
            &upper_hex,
            &of_512_with_64,
            "md5:900150983cd24fb0d6963f7d28e17f72",
            &ABC[7..],
            &ABC.replace("ba", "/."),
            &format!(" {ABC}"),
            &format!("{ABC}\n"),
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad:?} was taken");
        }
        let text = "x"
            .repeat(1 << 20)
            .parse::<Digest>()
            .unwrap_err()
            .to_string();
        assert!(text.len() < 300);
    }
}
