//! Certificates in directories, for programs outside Kubernetes: `ca.crt` and `ca.key` of an authority; `ca.crt`,
//! `tls.crt` and `tls.key` of a program. The names are those of a Kubernetes TLS Secret.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tracing::{info, warn};
use types::report;
use zeroize::Zeroizing;

use crate::authority::Authority;
use crate::credential::{Credential, KeyRequest};
use crate::held::Held;
use crate::identity::Identity;
use crate::x509::PEM_MAX;
use crate::{Error, Result};

/// The certificate of the authority; in the directory of a program, of all that are believed.
pub const CA_CERTIFICATE: &str = "ca.crt";
/// The key of the authority.
pub const CA_KEY: &str = "ca.key";
/// The certificate of a program.
pub const CERTIFICATE: &str = "tls.crt";
/// The key of a program.
pub const KEY: &str = "tls.key";
/// How often the files are read again.
const POLL: Duration = Duration::from_secs(10);

/// The three files of a program, read.
#[derive(PartialEq, Eq)]
struct Texts {
    chain: String,
    key: Zeroizing<String>,
    roots: String,
}

/// Reads the credential of a program from its directory.
///
/// # Errors
/// A file is missing or damaged, does not fit the others, or the key can be read by others than its owner.
pub fn load(directory: &Path) -> Result<Credential> {
    texts(directory)?.credential(directory)
}

fn texts(directory: &Path) -> Result<Texts> {
    Ok(Texts {
        chain: read(&directory.join(CERTIFICATE))?,
        key: read_key(&directory.join(KEY))?,
        roots: read(&directory.join(CA_CERTIFICATE))?,
    })
}

impl Texts {
    fn credential(&self, directory: &Path) -> Result<Credential> {
        Credential::from_pem(&self.chain, &self.key, &self.roots).map_err(|error| Error::File {
            path: directory.to_owned(),
            why: format!(
                "{}; the files are ca.crt, tls.crt and tls.key",
                report(&error)
            ),
        })
    }
}

/// Keeps `held` what the files of a directory say, as long as the program runs: whoever replaces them need not
/// restart it.
pub async fn watch(held: Held, directory: PathBuf) {
    let mut known = None;
    let mut said = String::new();
    loop {
        let looked = directory.clone();
        let found = tokio::task::spawn_blocking(move || texts(&looked)).await;
        let taken = match found {
            Ok(Ok(texts)) if known.as_ref() == Some(&texts) => Ok(()),
            Ok(Ok(texts)) => texts.credential(&directory).and_then(|credential| {
                info!(identity = %credential.identity(), "using the certificate in {}", directory.display());
                known = Some(texts);
                held.set(credential)
            }),
            Ok(Err(error)) => Err(error),
            // The runtime is shutting down.
            Err(_) => return,
        };
        match taken {
            Ok(()) => said.clear(),
            Err(error) => {
                let why = report(&error).to_string();
                if why != said {
                    warn!("the certificate is not replaced: {why}");
                    held.failed(why.clone());
                    said = why;
                }
            }
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Makes an authority in a directory, which is created where it is missing.
///
/// # Errors
/// There is one already.
pub fn init(directory: &Path, now: SystemTime) -> Result<()> {
    fs::create_dir_all(directory).map_err(Error::io("create the directory", directory))?;
    let authority = Authority::create(now)?;
    // The key comes first: a certificate without its key would look like an authority.
    create(
        &directory.join(CA_KEY),
        authority.key_pem().as_bytes(),
        0o600,
    )?;
    let certificate = authority.certificate_pem().as_bytes();
    create(&directory.join(CA_CERTIFICATE), certificate, 0o644)?;
    sync(directory)
}

/// Makes the certificate of a program, by the authority in one directory, in another one. What is there is
/// replaced; a program that reads between the two files goes on with what it has and reads again.
///
/// # Errors
/// The authority is missing or damaged, or the files cannot be written.
pub fn issue(
    authority: &Path,
    identity: &Identity,
    life: Duration,
    output: &Path,
    now: SystemTime,
) -> Result<Credential> {
    let roots = read(&authority.join(CA_CERTIFICATE))?;
    let key = read_key(&authority.join(CA_KEY))?;
    let signer = Authority::from_pem(&roots, &key).map_err(|error| Error::File {
        path: authority.to_owned(),
        why: report(&error).to_string(),
    })?;
    let request = KeyRequest::new()?;
    let chain = signer.sign(request.csr_pem(), identity, life, now)?;
    let credential = request.complete(&chain, &roots)?;
    fs::create_dir_all(output).map_err(Error::io("create the directory", output))?;
    replace(&output.join(CA_CERTIFICATE), roots.as_bytes(), 0o644)?;
    replace(&output.join(KEY), request.key_pem().as_bytes(), 0o600)?;
    replace(&output.join(CERTIFICATE), chain.as_bytes(), 0o644)?;
    sync(output)?;
    Ok(credential)
}

/// The text of a certificate file; of a bundle too.
///
/// # Errors
/// It cannot be read, or is too large to be one.
pub fn read(path: &Path) -> Result<String> {
    let mut text = String::new();
    bounded(path)?
        .read_to_string(&mut text)
        .map_err(Error::io("read", path))?;
    whole(path, text.len())?;
    Ok(text)
}

/// The text of a private key, which nobody else may be able to read.
fn read_key(path: &Path) -> Result<Zeroizing<String>> {
    let file = bounded(path)?;
    let meta = file
        .get_ref()
        .metadata()
        .map_err(Error::io("inspect", path))?;
    if meta.mode() & 0o077 != 0 {
        return Err(Error::File {
            path: path.to_owned(),
            why: format!(
                "this private key can be read by others (mode {:03o}): make a new certificate if they may have \
                 read it, and run chmod 600",
                meta.mode() & 0o777
            ),
        });
    }
    let mut text = Zeroizing::new(String::new());
    let mut file = file;
    file.read_to_string(&mut text)
        .map_err(Error::io("read", path))?;
    whole(path, text.len())?;
    Ok(text)
}

fn bounded(path: &Path) -> Result<std::io::Take<File>> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    Ok(file.take(PEM_MAX as u64 + 1))
}

fn whole(path: &Path, length: usize) -> Result<()> {
    if length <= PEM_MAX {
        return Ok(());
    }
    Err(Error::File {
        path: path.to_owned(),
        why: "it is larger than 256 KiB, which no certificate is".to_owned(),
    })
}

/// Writes a file that is not there yet.
fn create(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(mode);
    let mut file = options.open(path).map_err(|error| {
        if error.kind() != ErrorKind::AlreadyExists {
            return Error::io("create", path)(error);
        }
        Error::File {
            path: path.to_owned(),
            why: "it is there already: use that authority, or choose another directory".to_owned(),
        }
    })?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(Error::io("write", path))
}

/// Writes a file in the place of another one.
fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    // What a crash has left.
    let _ = fs::remove_file(&new);
    create(&new, bytes, mode)?;
    fs::rename(&new, path).map_err(Error::io("rename", &new))
}

fn sync(directory: &Path) -> Result<()> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(Error::io("sync the directory", directory))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::Role;

    fn manager() -> Identity {
        let node = Some("n1".parse().unwrap());
        Identity::new(Role::Manager, node, "host").unwrap()
    }

    #[test]
    fn a_directory_is_made_used_and_made_again() {
        let root = tempfile::tempdir().unwrap();
        let (ca, out) = (root.path().join("ca"), root.path().join("manager"));
        let now = SystemTime::now();
        init(&ca, now).unwrap();
        let error = init(&ca, now).unwrap_err();
        assert!(error.to_string().contains("there already"), "{error}");
        for _ in 0..2 {
            issue(&ca, &manager(), Duration::from_hours(1), &out, now).unwrap();
            assert_eq!(load(&out).unwrap().identity(), &manager());
        }
        for (directory, key) in [(&ca, CA_KEY), (&out, KEY)] {
            let mode = fs::metadata(directory.join(key)).unwrap().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        init(root.path(), now).unwrap();
        let out = root.path().join("x");
        issue(root.path(), &manager(), Duration::from_hours(1), &out, now).unwrap();
        for mode in [0o640, 0o604, 0o644, 0o666] {
            fs::set_permissions(out.join(KEY), fs::Permissions::from_mode(mode)).unwrap();
            let error = load(&out).unwrap_err();
            assert!(error.to_string().contains("chmod 600"), "{error}");
        }
        fs::set_permissions(out.join(KEY), fs::Permissions::from_mode(0o400)).unwrap();
        load(&out).unwrap();
    }

    #[test]
    fn files_that_do_not_fit_are_named() {
        let root = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let (one, two) = (root.path().join("1"), root.path().join("2"));
        init(root.path(), now).unwrap();
        for out in [&one, &two] {
            issue(root.path(), &manager(), Duration::from_hours(1), out, now).unwrap();
        }
        fs::copy(two.join(KEY), one.join(KEY)).unwrap();
        let error = load(&one).unwrap_err();
        assert!(error.to_string().contains("not the key"), "{error}");
        let large = "x".repeat(PEM_MAX + 1);
        replace(&two.join(CERTIFICATE), large.as_bytes(), 0o644).unwrap();
        let error = load(&two).unwrap_err();
        assert!(error.to_string().contains("256 KiB"), "{error}");
        fs::remove_file(two.join(CERTIFICATE)).unwrap();
        assert!(load(&two).unwrap_err().to_string().contains(CERTIFICATE));
    }
}
