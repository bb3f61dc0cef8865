//! What a look at the Secret of the authority means, together with what is in memory.
//!
//! | Secret | in memory | the Secret is ours | somebody else's (`--ca-external`) |
//! |---|---|---|---|
//! | good, the same | the same | goes on; the next authority when a year is left | goes on |
//! | good, another one | any | is taken over: another controller, or a person, has written it | is taken over, and signs when it has been published for an hour |
//! | empty | something | is written back | goes on with what is in memory, and says so |
//! | empty | nothing | a new authority is made | waits, and says so |
//! | damaged or missing | something | goes on with what is in memory, and says so | the same |
//! | damaged or missing | nothing | waits, and says so: what is damaged may be repaired by whoever has a copy | the same |

use std::time::SystemTime;

use kubernetes::{Change, Entries};
use trust::{Authority, Lineage};
use types::report;
use zeroize::Zeroizing;

/// The keys of the Secret; the first two are those of every TLS Secret.
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const PREVIOUS_CERTIFICATE: &str = "previous.crt";
const PREVIOUS_KEY: &str = "previous.key";

/// What is in the Secret.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one at a time, for a moment"
)]
pub(crate) enum Found {
    /// There is no Secret.
    Missing,
    /// Nothing of an authority.
    Empty,
    /// An authority.
    Good(Lineage),
    /// Something that is not one, and why.
    Damaged(String),
}

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Step {
    /// Nothing: what is in memory is what is stored.
    GoOn,
    /// The Secret has another authority than memory: take it.
    Take(Lineage),
    /// Store this authority, and use it when that has succeeded.
    Store(Lineage),
    /// Somebody has to put something right. What is in memory is used meanwhile.
    Trouble(String),
}

/// Reads the entries of the Secret.
pub(crate) fn found(entries: &Entries, now: SystemTime) -> Found {
    let authority = |certificate, key| match (entries.get(certificate), entries.get(key)) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => Authority::from_pem(certificate, key)
            .map(Some)
            .map_err(|error| report(&error).to_string()),
        (None, Some(_)) => Err(format!("{certificate} is missing beside {key}")),
        (Some(_), None) => Err(format!("{key} is missing beside {certificate}")),
    };
    let newest = match authority(CERTIFICATE, KEY) {
        Ok(Some(newest)) => newest,
        Ok(None) => return Found::Empty,
        Err(why) => return Found::Damaged(why),
    };
    // The one before only bridges an hour: without it, the newest signs at once.
    let previous = authority(PREVIOUS_CERTIFICATE, PREVIOUS_KEY).unwrap_or_else(|why| {
        tracing::warn!("the authority before the present one is not used: {why}");
        None
    });
    let previous = previous.filter(|previous| previous.not_after() > now);
    Found::Good(Lineage { newest, previous })
}

/// What to do about it. `owned`: the Secret is ours to write.
///
/// # Errors
/// No authority can be made: the system has no random numbers.
pub(crate) fn decide(
    found: Found,
    held: Option<&Lineage>,
    owned: bool,
    now: SystemTime,
) -> trust::Result<Step> {
    let step = match (found, held) {
        (Found::Good(stored), _) if owned && stored.is_due(now) => {
            Step::Store(stored.succeed(now)?)
        }
        (Found::Good(stored), Some(held)) if is_same(&stored, held) => Step::GoOn,
        (Found::Good(stored), Some(held)) if !owned => Step::Take(Lineage {
            newest: stored.newest,
            previous: Some(copy(&held.newest)?),
        }),
        (Found::Good(stored), _) => Step::Take(stored),
        (Found::Empty, Some(held)) if owned => Step::Store(copy_all(held)?),
        (Found::Empty, None) if owned => Step::Store(Lineage::create(now)?),
        (Found::Empty, _) => {
            let why = "is empty: put the certificate and key of a certificate authority into it as tls.crt and \
                       tls.key, or wait until cert-manager does";
            Step::Trouble(why.to_owned())
        }
        (Found::Missing, _) if owned => {
            let why = "does not exist: apply the manifests again, which create it empty";
            Step::Trouble(why.to_owned())
        }
        (Found::Missing, _) => {
            let why = "does not exist: create it with tls.crt and tls.key, or wait until cert-manager does";
            Step::Trouble(why.to_owned())
        }
        (Found::Damaged(why), _) => {
            let next = if owned {
                "restore it from a copy, or remove its entries: the controller then writes the authority that it \
                 has in memory, or makes a new one"
            } else {
                "correct it"
            };
            Step::Trouble(format!("holds no certificate authority: {why}; {next}"))
        }
    };
    Ok(step)
}

/// The same authorities. Whether an expired one is still stored makes no difference.
fn is_same(stored: &Lineage, held: &Lineage) -> bool {
    let certificate = |authority: &Authority| authority.certificate_pem().trim().to_owned();
    certificate(&stored.newest) == certificate(&held.newest)
}

fn copy(authority: &Authority) -> trust::Result<Authority> {
    Authority::from_pem(authority.certificate_pem(), &authority.key_pem())
}

fn copy_all(lineage: &Lineage) -> trust::Result<Lineage> {
    Ok(Lineage {
        newest: copy(&lineage.newest)?,
        previous: lineage.previous.as_ref().map(copy).transpose()?,
    })
}

/// The entries by which an authority is stored.
pub(crate) struct Texts {
    newest: Pair,
    previous: Option<Pair>,
}

/// A certificate and its key.
struct Pair(String, Zeroizing<String>);

impl Texts {
    pub(crate) fn of(lineage: &Lineage) -> Self {
        let pair = |authority: &Authority| {
            Pair(authority.certificate_pem().to_owned(), authority.key_pem())
        };
        Self {
            newest: pair(&lineage.newest),
            previous: lineage.previous.as_ref().map(pair),
        }
    }

    /// All four; a missing one is removed.
    pub(crate) fn changes(&self) -> [Change<'_>; 4] {
        let previous = self.previous.as_ref();
        [
            (CERTIFICATE, Some(&self.newest.0)),
            (KEY, Some(&self.newest.1)),
            (PREVIOUS_CERTIFICATE, previous.map(|pair| &*pair.0)),
            (PREVIOUS_KEY, previous.map(|pair| &**pair.1)),
        ]
    }
}

#[cfg(test)]
mod tests;
