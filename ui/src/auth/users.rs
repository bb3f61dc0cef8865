//! People of a file, for where there is no Kubernetes: a name and the hash of a password in each line, and `:read-only`
//! behind it for whoever may look and no more.

use std::fmt;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use argon2::Argon2;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use crate::access::{Person, Verb};
use crate::{Error, Result};

/// The largest file.
const FILE_MAX: u64 = 1 << 20;
/// How long what was read is good.
const KEPT: Duration = Duration::from_secs(10);
/// Passwords are hashed one after the other: each takes 19 MiB, and tens of milliseconds of a processor.
const AT_ONCE: usize = 1;
/// The longest name and password.
const NAME_MAX: usize = 64;
const PASSWORD_MAX: usize = 1024;
const PASSWORD_MIN: usize = 8;
/// What is hashed for whoever is not in the file, so that it takes as long to be told so.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$\
     X1eVFqK1bPuYx2ZIKO2yfSNLLa8M2jZVJ1bTpmVjWOg";
const READ_ONLY: &str = "read-only";

#[derive(Clone, PartialEq, Eq)]
struct Line {
    name: String,
    hash: String,
    read_only: bool,
}

impl Line {
    fn read(text: &str) -> Result<Self, &'static str> {
        let mut parts = text.split(':');
        let (Some(name), Some(hash)) = (parts.next(), parts.next()) else {
            return Err("a line is NAME:HASH, or NAME:HASH:read-only");
        };
        let read_only = match (parts.next(), parts.next()) {
            (None, None) => false,
            (Some(READ_ONLY), None) => true,
            _ => return Err("behind the hash there may be :read-only and nothing else"),
        };
        if !is_name(name) {
            return Err(WRONG_NAME);
        }
        if !hash.starts_with("$argon2id$") {
            return Err("the hash is not one that --hash-password makes (argon2id)");
        }
        Ok(Self {
            name: name.to_owned(),
            hash: hash.to_owned(),
            read_only,
        })
    }
}

const WRONG_NAME: &str = "a name has 1 to 64 characters, and neither a colon nor a space nor anything that cannot be seen";

fn is_name(name: &str) -> bool {
    let is_seen = |c: char| !c.is_control() && !c.is_whitespace() && c != ':';
    (1..=NAME_MAX).contains(&name.len()) && name.chars().all(is_seen) && !name.starts_with('#')
}

/// A line of the file, for somebody with this password.
///
/// # Errors
/// The name or the password cannot be used.
pub fn hash_line(name: &str, password: &str) -> Result<String> {
    if !is_name(name) {
        return Err(Error::Password(WRONG_NAME.to_owned()));
    }
    if !(PASSWORD_MIN..=PASSWORD_MAX).contains(&password.len()) {
        return Err(Error::Password(format!(
            "it has to have {PASSWORD_MIN} to {PASSWORD_MAX} bytes"
        )));
    }
    let hash = Argon2::default().hash_password(password.as_bytes());
    let hash = hash.map_err(|error| Error::Password(error.to_string()))?;
    Ok(format!("{name}:{hash}"))
}

type Lines = Arc<Vec<Line>>;

/// The people of a file.
pub(super) struct Users {
    path: PathBuf,
    kept: Mutex<(Instant, Lines)>,
    hashing: Semaphore,
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Users")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Users {
    pub(super) fn open(path: PathBuf) -> Result<Self> {
        let lines = read(&path)?;
        Ok(Self {
            kept: Mutex::new((Instant::now(), lines)),
            path,
            hashing: Semaphore::new(AT_ONCE),
        })
    }

    /// The file as it was a moment ago. Where it cannot be read, nobody is let in.
    fn lines(&self) -> Result<Lines> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.0.elapsed() >= KEPT {
            *kept = (Instant::now(), read(&self.path)?);
        }
        Ok(kept.1.clone())
    }

    /// Who has this name and password, with what has to be as it is now for as long as they are signed in.
    pub(super) async fn whose(
        &self,
        name: &str,
        password: Zeroizing<String>,
    ) -> Result<Option<(Person, String)>> {
        let lines = self.lines()?;
        let line = lines.iter().find(|line| line.name == name).cloned();
        let hash = line.as_ref().map_or(NOBODY, |line| &line.hash).to_owned();
        let Ok(_turn) = self.hashing.acquire().await else {
            return Ok(None);
        };
        let is_right = tokio::task::spawn_blocking(move || {
            password.len() <= PASSWORD_MAX
                && Argon2::default()
                    .verify_password(password.as_bytes(), hash.as_str())
                    .is_ok()
        });
        let is_right = is_right.await.unwrap_or(false);
        Ok(line.filter(|_| is_right).map(|line| {
            let person = Person {
                name: line.name,
                groups: Vec::new(),
                signed_in: true,
            };
            (person, line.hash)
        }))
    }

    /// Whether somebody who signed in with `proof` may; `None`: they are not in the file any more.
    pub(super) fn may(
        &self,
        person: &Person,
        proof: &str,
        verb: Option<Verb>,
    ) -> Result<Option<bool>> {
        let lines = self.lines()?;
        let line = lines.iter().find(|line| line.name == person.name);
        let line = line.filter(|line| line.hash == proof);
        let looks = matches!(verb, None | Some(Verb::Get | Verb::List));
        Ok(line.map(|line| looks || !line.read_only))
    }
}

fn read(path: &std::path::Path) -> Result<Lines> {
    let shown = || path.display().to_string();
    let file = std::fs::File::open(path).map_err(Error::io("open", shown()))?;
    let mut text = String::new();
    file.take(FILE_MAX)
        .read_to_string(&mut text)
        .map_err(Error::io("read", shown()))?;
    let mut lines: Vec<Line> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |why: &str| Error::File {
            path: path.to_owned(),
            why: format!("line {}: {why}", number + 1),
        };
        let line = Line::read(line).map_err(wrong)?;
        if lines.iter().any(|known| known.name == line.name) {
            return Err(wrong("there is a line of this name already"));
        }
        lines.push(line);
    }
    Ok(Arc::new(lines))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(text: &str) -> Result<Users> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users");
        crate::written(&path, text);
        Users::open(path)
    }

    #[tokio::test]
    async fn the_right_password_lets_in_and_a_reader_changes_nothing() {
        let ada = hash_line("ada", "correct horse").unwrap();
        let bob = hash_line("bob", "battery staple").unwrap();
        let users = users(&format!("# people\n{ada}\n\n{bob}:read-only\n")).unwrap();
        let whose = async |name: &str, password: &str| {
            let password = Zeroizing::new(password.to_owned());
            users.whose(name, password).await.unwrap()
        };
        assert!(whose("ada", "battery staple").await.is_none());
        assert!(whose("nobody", "correct horse").await.is_none());
        let (ada, proof) = whose("ada", "correct horse").await.unwrap();
        assert_eq!(
            users.may(&ada, &proof, Some(Verb::Delete)).unwrap(),
            Some(true)
        );
        // Another password since.
        assert_eq!(users.may(&ada, "other", Some(Verb::Get)).unwrap(), None);
        let (bob, proof) = whose("bob", "battery staple").await.unwrap();
        assert_eq!(
            users.may(&bob, &proof, Some(Verb::List)).unwrap(),
            Some(true)
        );
        assert_eq!(
            users.may(&bob, &proof, Some(Verb::Expose)).unwrap(),
            Some(false)
        );
    }

    /// What is compared for nobody has to be a hash, or nobody would be told so at once.
    #[test]
    fn the_hash_of_nobody_is_one_like_all_others() {
        let line = hash_line("ada", "correct horse").unwrap();
        let head = |hash: &str| {
            hash.split('$')
                .take(4)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let hash = line.split_once(':').unwrap().1;
        assert_eq!(head(hash), head(NOBODY));
        let wrong = Argon2::default().verify_password(b"x", NOBODY).unwrap_err();
        assert!(
            matches!(wrong, argon2::password_hash::Error::PasswordInvalid),
            "{wrong}"
        );
    }

    #[test]
    fn wrong_lines_are_named_without_their_hashes() {
        for (line, why) in [
            ("ada", "NAME:HASH"),
            ("ada:secret", "argon2id"),
            ("a da:$argon2id$x", "a name has"),
            ("ada:$argon2id$x:admin", "read-only"),
            (
                "ada:$argon2id$x\nada:$argon2id$y",
                "line 2: there is a line",
            ),
        ] {
            let error = users(line).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
        assert!(hash_line("ada", "short").is_err());
    }
}
