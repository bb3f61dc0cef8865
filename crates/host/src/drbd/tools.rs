//! Runs `drbdsetup` and `drbdmeta`, and says in an error what of a volume failed.
//!
//! A shared secret is an argument, because `drbdsetup` takes it in no other way. It stands in the list of processes
//! for the milliseconds that the tool runs, and in no error: what the tool says is cleaned of it.

use std::time::Duration;

use replication::Secret;
use types::VolumeName;

use crate::command::{Outcome, Tool};
use crate::{Error, Result};

pub(super) const SETUP: Tool = Tool {
    name: "drbdsetup",
    package: "drbd-utils",
};
pub(super) const META: Tool = Tool {
    name: "drbdmeta",
    package: "drbd-utils",
};

/// How long a command may take: the kernels agree on a change within 30 seconds or give up (`drbd.conf(5)`,
/// twopc-timeout).
const CHANGES_WITHIN: Duration = Duration::from_secs(45);
/// How long the kernel may take to tell its state.
const TELLS_WITHIN: Duration = Duration::from_secs(10);
/// The longest state read, in bytes: a thousand volumes with seven peers each, of about 600 bytes.
const STATE_MAX: u64 = 16 << 20;

/// Lets DRBD change something of a volume. `what` completes "cannot … volume X".
pub(super) fn change<S: AsRef<str>>(
    volume: &VolumeName,
    what: &'static str,
    arguments: &[S],
) -> Result<()> {
    run(SETUP, volume, what, arguments, None).map(drop)
}

/// The same; that it is done already is a success. `code` is what DRBD says then (`drbd.h`, `ERR_…`).
pub(super) fn change_once<S: AsRef<str>>(
    volume: &VolumeName,
    what: &'static str,
    arguments: &[S],
    code: u16,
) -> Result<()> {
    match change(volume, what, arguments) {
        Err(Error::Drbd { said, .. }) if said.contains(&format!("({code})")) => Ok(()),
        done => done,
    }
}

/// The same with the secret of the volume as one of the arguments.
pub(super) fn change_with<S: AsRef<str>>(
    volume: &VolumeName,
    what: &'static str,
    arguments: &[S],
    secret: &Secret,
) -> Result<()> {
    run(SETUP, volume, what, arguments, Some(secret)).map(drop)
}

/// Lets `drbdmeta` do something with the metadata of a volume, and returns what it said.
pub(super) fn metadata<S: AsRef<str>>(
    volume: &VolumeName,
    what: &'static str,
    arguments: &[S],
) -> Result<String> {
    run(META, volume, what, arguments, None)
}

/// What the kernel tells of one resource, or of all: the standard output of `drbdsetup`.
pub(super) fn tell<S: AsRef<str>>(arguments: &[S]) -> Result<Vec<u8>> {
    let arguments: Vec<&str> = arguments.iter().map(AsRef::as_ref).collect();
    let (outcome, answer) = SETUP.ask(&arguments, TELLS_WITHIN, STATE_MAX)?;
    // It exits with 10 for a resource that is unknown, with an answer that says so.
    if outcome.code == Some(0) || !answer.is_empty() {
        Ok(answer)
    } else {
        Err(SETUP.failed(outcome))
    }
}

fn run<S: AsRef<str>>(
    tool: Tool,
    volume: &VolumeName,
    what: &'static str,
    arguments: &[S],
    secret: Option<&Secret>,
) -> Result<String> {
    let arguments: Vec<&str> = arguments.iter().map(AsRef::as_ref).collect();
    let outcome = tool.run(&arguments, CHANGES_WITHIN)?;
    let (succeeded, said) = (succeeded(tool, &outcome), clean(&outcome, secret));
    if succeeded {
        return Ok(said);
    }
    Err(Error::Drbd {
        volume: volume.clone(),
        what,
        said,
    })
}

/// `drbdmeta create-md` exits with 1 when it has warned of data that it found, and has succeeded.
fn succeeded(tool: Tool, outcome: &Outcome) -> bool {
    outcome.code == Some(0)
        || tool == META && outcome.code == Some(1) && outcome.said.contains("successfully created")
}

/// What a tool said, without the secret.
fn clean(outcome: &Outcome, secret: Option<&Secret>) -> String {
    match secret {
        Some(secret) => outcome.said.replace(secret.expose(), "(secret)"),
        None => outcome.said.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_tool_says_is_cleaned_of_the_secret() {
        let outcome = Outcome {
            code: Some(20),
            status: "exit status: 20".to_owned(),
            said: "unknown option '--shared-secret=geheim123'; geheim123".to_owned(),
        };
        let secret = Secret::new("geheim123".to_owned()).unwrap();
        let said = clean(&outcome, Some(&secret));
        assert_eq!(said, "unknown option '--shared-secret=(secret)'; (secret)");
    }

    #[test]
    fn metadata_made_over_data_is_a_success() {
        let outcome = |code, said: &str| Outcome {
            code: Some(code),
            status: String::new(),
            said: said.to_owned(),
        };
        let made = "Found some data; New drbd meta data block successfully created.";
        assert!(succeeded(META, &outcome(1, made)) && succeeded(META, &outcome(0, made)));
        assert!(!succeeded(META, &outcome(1, "Device is configured!")));
        assert!(!succeeded(SETUP, &outcome(1, made)));
    }
}
