//! LUKS containers, by cryptsetup. The passphrase goes through standard input and nowhere else.

mod cryptsetup;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};

use types::ImageId;

use self::cryptsetup::Line;
use store::IoContext;

use crate::error::{Error, Result};

/// What a container is larger than what it holds: the header of LUKS2, in bytes.
pub const HEADER: u64 = 16 << 20;
/// A passphrase of cryptsetup has at most 8 MiB; nobody means that.
const PASSPHRASE_MAX: usize = 64 << 10;

/// How a container is made and opened: Longhorn's credential keys, checked.
#[derive(Clone)]
pub struct Luks {
    passphrase: Passphrase,
    cipher: String,
    hash: String,
    key_size: u32,
    pbkdf: String,
    iterations: Option<u32>,
    memory: Option<u32>,
}

#[derive(Clone)]
struct Passphrase(String);

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

impl fmt::Debug for Luks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Luks")
            .field("passphrase", &self.passphrase)
            .field("cipher", &self.cipher)
            .field("key_size", &self.key_size)
            .field("pbkdf", &self.pbkdf)
            .finish_non_exhaustive()
    }
}

impl Luks {
    /// Reads the credential of a clone. Values are checked whether this kernel can encrypt or not.
    pub fn from_credential(credential: &BTreeMap<String, String>) -> Result<Self> {
        let value = |key: &str| credential.get(key).map(String::as_str).unwrap_or_default();
        let or = |key, default: &'static str| match value(key) {
            "" => default.to_owned(),
            value => value.to_owned(),
        };
        let luks = Self {
            passphrase: Passphrase(value("CRYPTO_KEY_VALUE").to_owned()),
            cipher: or("CRYPTO_KEY_CIPHER", "aes-xts-plain64"),
            hash: or("CRYPTO_KEY_HASH", "sha256"),
            key_size: number("CRYPTO_KEY_SIZE", value("CRYPTO_KEY_SIZE"), 64..=1024)?
                .unwrap_or(256),
            pbkdf: or("CRYPTO_PBKDF", "argon2i"),
            iterations: number(
                "CRYPTO_PBKDF_FORCE_ITERATIONS",
                value("CRYPTO_PBKDF_FORCE_ITERATIONS"),
                4..=100_000_000,
            )?,
            // KiB; cryptsetup's own limit is 4 GiB.
            memory: number(
                "CRYPTO_PBKDF_MEMORY",
                value("CRYPTO_PBKDF_MEMORY"),
                32..=4 << 20,
            )?,
        };
        match luks.passphrase.0.len() {
            0 => {
                return Err(wrong(
                    "CRYPTO_KEY_VALUE",
                    "the passphrase is missing".to_owned(),
                ));
            }
            length if length > PASSPHRASE_MAX => {
                let why = format!("a passphrase has at most {PASSPHRASE_MAX} bytes");
                return Err(wrong("CRYPTO_KEY_VALUE", why));
            }
            _ => {}
        }
        match value("CRYPTO_KEY_PROVIDER") {
            "" | "secret" => {}
            other => {
                let why = format!("{other:?} is not known; the one provider is \"secret\"");
                return Err(wrong("CRYPTO_KEY_PROVIDER", why));
            }
        }
        word("CRYPTO_KEY_CIPHER", &luks.cipher)?;
        word("CRYPTO_KEY_HASH", &luks.hash)?;
        if !luks.key_size.is_multiple_of(8) {
            let why = format!("{} is not a multiple of 8 bits", luks.key_size);
            return Err(wrong("CRYPTO_KEY_SIZE", why));
        }
        if !["pbkdf2", "argon2i", "argon2id"].contains(&luks.pbkdf.as_str()) {
            let why = format!("{:?} is not one of pbkdf2, argon2i, argon2id", luks.pbkdf);
            return Err(wrong("CRYPTO_PBKDF", why));
        }
        if luks.pbkdf == "pbkdf2" && luks.iterations.is_some_and(|iterations| iterations < 1000) {
            let why = "pbkdf2 needs at least 1000".to_owned();
            return Err(wrong("CRYPTO_PBKDF_FORCE_ITERATIONS", why));
        }
        if luks.pbkdf == "pbkdf2" && luks.memory.is_some() {
            return Err(wrong(
                "CRYPTO_PBKDF_MEMORY",
                "pbkdf2 does not use it".to_owned(),
            ));
        }
        Ok(luks)
    }

    /// Makes `file` an empty LUKS2 container with a header of [`HEADER`] bytes.
    pub(super) fn format(&self, file: &File) -> Result<()> {
        self.run(&self.format_arguments(), file, &[])
    }

    fn format_arguments(&self) -> Vec<String> {
        let sectors = HEADER / types::SECTOR;
        let mut arguments: Vec<String> = ["luksFormat", "--batch-mode", "--type", "luks2"]
            .map(str::to_owned)
            .to_vec();
        let mut option = |name: &str, value: String| {
            arguments.extend([name.to_owned(), value]);
        };
        option("--cipher", self.cipher.clone());
        option("--hash", self.hash.clone());
        option("--key-size", self.key_size.to_string());
        option("--pbkdf", self.pbkdf.clone());
        if let Some(iterations) = self.iterations {
            option("--pbkdf-force-iterations", iterations.to_string());
        }
        if let Some(memory) = self.memory {
            option("--pbkdf-memory", memory.to_string());
        }
        option("--offset", sectors.to_string());
        option("--key-file", "-".to_owned());
        arguments
    }

    /// Runs cryptsetup on a file, with the passphrase on its standard input.
    fn run(&self, arguments: &[String], file: &File, more: &[&str]) -> Result<()> {
        let arguments = arguments.iter().map(String::as_str);
        let line = Line {
            arguments: &arguments.collect::<Vec<_>>(),
            file: Some(file),
            more,
        };
        cryptsetup::run(&line, self.passphrase.0.as_bytes())
    }
}

fn wrong(field: &'static str, why: String) -> Error {
    Error::InvalidField { field, why }
}

fn number(
    field: &'static str,
    text: &str,
    range: std::ops::RangeInclusive<u32>,
) -> Result<Option<u32>> {
    if text.is_empty() {
        return Ok(None);
    }
    match text.parse() {
        Ok(number) if range.contains(&number) => Ok(Some(number)),
        _ => {
            let why = format!(
                "{text:?} is not a number from {} to {}",
                range.start(),
                range.end()
            );
            Err(wrong(field, why))
        }
    }
}

/// A word as the kernel's crypto API spells algorithms: it never looks like an option.
fn word(field: &'static str, text: &str) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_:().".contains(&byte);
    let begins = text.starts_with(|first: char| first.is_ascii_alphanumeric());
    if begins && text.len() <= 64 && text.bytes().all(plain) {
        return Ok(());
    }
    Err(wrong(field, format!("{text:?} is not the name of one")))
}

/// Refuses where this kernel, or this container image, cannot do it.
pub fn require() -> Result<()> {
    let devices = std::fs::read_to_string("/proc/misc").unwrap_or_default();
    let mapper = devices
        .lines()
        .any(|line| line.split_whitespace().nth(1) == Some("device-mapper"));
    if !mapper || !Path::new("/dev/mapper/control").exists() {
        return Err(Error::CannotEncrypt(
            "this kernel has no device mapper (module dm_crypt), or /dev/mapper is not visible here"
                .to_owned(),
        ));
    }
    Ok(())
}

/// An open container. Dropping it closes it.
#[derive(Debug)]
pub(super) struct Mapping {
    name: String,
    device: PathBuf,
    open: bool,
}

impl Mapping {
    /// Opens `file` as `/dev/mapper/backing-<uuid>`. cryptsetup makes the loop device, and the kernel
    /// takes it away with the mapping.
    pub(super) fn open(luks: &Luks, file: &Path, id: &ImageId, read_only: bool) -> Result<Self> {
        let name = format!("backing-{}", id.uuid);
        let device = Path::new("/dev/mapper").join(&name);
        if device.exists() {
            return Err(Error::CannotEncrypt(format!(
                "{} is in use; close it with `cryptsetup close {name}`",
                device.display()
            )));
        }
        let mut arguments = ["open", "--batch-mode", "--type", "luks2", "--key-file", "-"]
            .map(str::to_owned)
            .to_vec();
        if read_only {
            arguments.push("--readonly".to_owned());
        }
        let options = File::options().read(true).write(!read_only).open(file);
        luks.run(&arguments, &options.context("open", file)?, &[&name])?;
        Ok(Self {
            name,
            device,
            open: true,
        })
    }

    /// The block device with the plain bytes.
    pub(super) fn device(&self) -> &Path {
        &self.device
    }

    /// Closes the container; everything was written by then.
    pub(super) fn close(mut self) -> Result<()> {
        self.shut()
    }

    fn shut(&mut self) -> Result<()> {
        if !std::mem::replace(&mut self.open, false) {
            return Ok(());
        }
        let line = Line {
            arguments: &["close"],
            file: None,
            more: &[&self.name],
        };
        cryptsetup::run(&line, &[])
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if let Err(error) = self.shut() {
            tracing::error!(device = %self.device.display(), error = %types::report(&error),
                "a mapping is left behind");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credential(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let all = [("CRYPTO_KEY_VALUE", "hush")].iter().chain(pairs);
        all.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn longhorns_defaults_are_filled_in() {
        let luks =
            Luks::from_credential(&credential(&[("CRYPTO_KEY_PROVIDER", "secret")])).unwrap();
        let line = luks.format_arguments().join(" ");
        assert_eq!(
            line,
            "luksFormat --batch-mode --type luks2 --cipher aes-xts-plain64 --hash sha256 \
             --key-size 256 --pbkdf argon2i --offset 32768 --key-file -"
        );
    }

    #[test]
    fn every_value_is_checked_before_anything_is_done() {
        for (key, value) in [
            ("CRYPTO_KEY_VALUE", ""),
            ("CRYPTO_KEY_PROVIDER", "vault"),
            ("CRYPTO_KEY_CIPHER", "--help"),
            ("CRYPTO_KEY_CIPHER", "aes xts"),
            ("CRYPTO_KEY_HASH", "$(reboot)"),
            ("CRYPTO_KEY_SIZE", "257"),
            ("CRYPTO_KEY_SIZE", "-1"),
            ("CRYPTO_PBKDF", "scrypt"),
            ("CRYPTO_PBKDF_FORCE_ITERATIONS", "1"),
            ("CRYPTO_PBKDF_MEMORY", "99999999"),
        ] {
            let refused = Luks::from_credential(&credential(&[(key, value)]));
            assert!(
                matches!(refused, Err(Error::InvalidField { field, .. }) if field == key),
                "{key}={value}"
            );
        }
    }

    #[test]
    fn a_passphrase_is_in_no_argument_and_in_no_text() {
        let luks = Luks::from_credential(&credential(&[])).unwrap();
        assert!(!format!("{luks:?}").contains("hush"));
        assert!(
            luks.format_arguments()
                .iter()
                .all(|argument| !argument.contains("hush"))
        );
    }
}
