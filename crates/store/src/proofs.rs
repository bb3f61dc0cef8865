//! `backing.access`: the callers that proved to a registry that they may have an image that was
//! pulled with credentials. Only salted hashes of the credentials are kept, so that the proof
//! remains valid while the registry does not answer, and nothing of it gives access to the
//! registry.

use std::fs;
use std::io;
use std::num::NonZeroU32;
use std::path::Path;

use ring::pbkdf2;
use serde::{Deserialize, Serialize};

use super::{durable, random_uuid};
use crate::error::{IoContext, Result};

/// Proofs that are kept of one image; the oldest goes first, and its caller is asked again.
const PROOFS_MAX: usize = 1024;
/// The largest file that is read: [`PROOFS_MAX`] of them need half of it.
const FILE_MAX: u64 = 256 << 10;
/// Makes trying out passwords on a stolen disk slow, and a call no slower than some milliseconds.
const ROUNDS: NonZeroU32 = NonZeroU32::new(10_000).expect("not zero");

/// Who has proven what, of one image.
#[derive(Debug, Serialize, Deserialize)]
pub struct Proofs {
    salt: String,
    /// Hexadecimal, the oldest first.
    proofs: Vec<String>,
}

impl Proofs {
    /// What the file says; `None`: there is none. One that cannot be understood proves nothing.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        match fs::symlink_metadata(path) {
            Ok(meta) if meta.is_file() && meta.len() <= FILE_MAX => {}
            Ok(_) => return Ok(Some(Self::none())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).context("inspect", path),
        }
        let bytes = fs::read(path).context("read", path)?;
        Ok(Some(
            serde_json::from_slice(&bytes).unwrap_or_else(|_| Self::none()),
        ))
    }

    /// Nobody has proven anything.
    pub fn none() -> Self {
        Self {
            salt: random_uuid(),
            proofs: Vec::new(),
        }
    }

    /// Whether the caller has proven it.
    pub fn hold(&self, secret: &[u8]) -> bool {
        self.proofs.contains(&self.proof(secret))
    }

    /// Remembers, durably, that the caller has proven it.
    pub fn add(mut self, secret: &[u8], path: &Path) -> Result<()> {
        let proof = self.proof(secret);
        self.proofs.retain(|known| *known != proof);
        self.proofs.push(proof);
        let surplus = self.proofs.len().saturating_sub(PROOFS_MAX);
        self.proofs.drain(..surplus);
        let bytes = serde_json::to_vec(&self).expect("proofs are plain JSON");
        durable::replace(path, &bytes)
    }

    fn proof(&self, secret: &[u8]) -> String {
        use std::fmt::Write as _;
        let mut hash = [0; 32];
        let salt = self.salt.as_bytes();
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ROUNDS, salt, secret, &mut hash);
        let mut text = String::with_capacity(64);
        for byte in hash {
            // Writing to memory does not fail.
            let _ = write!(text, "{byte:02x}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_198_a_proof_is_of_one_caller_and_tells_nothing_of_his_password() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("backing.access");
        assert!(Proofs::read(&path).unwrap().is_none());
        let alice = b"registry.example/site alice:hunter2".as_slice();
        Proofs::none().add(alice, &path).unwrap();
        let proofs = Proofs::read(&path).unwrap().unwrap();
        assert!(proofs.hold(alice));
        for other in [
            "",
            "registry.example/site alice:hunter3",
            "registry.example/site bob:hunter2",
        ] {
            assert!(!proofs.hold(other.as_bytes()));
        }
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            !text.contains("alice") && !text.contains("hunter"),
            "{text}"
        );
        // Bounded, and the oldest goes first; a file that is none proves nothing.
        let full = Proofs {
            proofs: vec![String::new(); PROOFS_MAX],
            ..proofs
        };
        full.add(b"another", &path).unwrap();
        let proofs = Proofs::read(&path).unwrap().unwrap();
        assert_eq!(proofs.proofs.len(), PROOFS_MAX);
        assert!(proofs.hold(b"another"));
        io::Write::write_all(&mut fs::File::create(&path).unwrap(), b"{\"salt\":").unwrap();
        assert!(!Proofs::read(&path).unwrap().unwrap().hold(alice));
    }
}
