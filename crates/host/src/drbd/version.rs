//! Whether this node has a DRBD that is good enough.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::tools::{META, SETUP};
use crate::{Error, Result};

/// The version of the module in the kernel. To ask `drbdsetup` would let it call modprobe.
const MODULE: &str = "/sys/module/drbd/version";
/// The least of the 9.2 and 9.3 series: those before may diverge silently under a Primary without a disk (the change
/// log of 9.3.3).
const LEAST: [(u32, u32, u32); 2] = [(9, 2, 19), (9, 3, 3)];
/// How it is got, for an error.
const WAYS: &str = "it comes as a system extension of Talos, in LINBIT's packages, or by the module loader of the \
                    Piraeus project (docs/replication.md); volumes with one replica work without it";

/// The version of DRBD in this kernel, with the tools for it.
pub(super) fn version() -> Result<String> {
    let version = fs::read_to_string(MODULE).ok();
    let version = judge(version.as_deref()).map_err(|why| Error::Replication { why })?;
    SETUP.find()?;
    META.find()?;
    Ok(version)
}

/// Whether the module and the tools can encrypt connections: the kernel's TLS is there, and `drbdsetup` has the option.
pub(super) fn has_tls() -> bool {
    Path::new("/sys/module/tls").exists()
        && SETUP
            .ask(&["help", "new-peer"], Duration::from_secs(5), 64 << 10)
            .is_ok_and(|(_, text)| String::from_utf8_lossy(&text).contains("--tls="))
}

/// The version that the module says it has, if that is good enough.
fn judge(version: Option<&str>) -> Result<String, String> {
    let Some(version) = version.map(str::trim) else {
        return Err(format!(
            "the module drbd of DRBD 9 is not loaded (modprobe drbd); {WAYS}"
        ));
    };
    let numbers: Vec<u32> = version
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|number| number.parse().ok())
        .take(3)
        .collect();
    let [major, minor, patch] = numbers[..] else {
        return Err(format!(
            "the module drbd says that it is version {:?}, which is none; {WAYS}",
            types::shown(version)
        ));
    };
    if major < 9 {
        return Err(format!(
            "the module drbd is {version}, which has two nodes and no quorum; DRBD 9.2.19, 9.3.3 or newer is needed: \
             {WAYS}"
        ));
    }
    let found = (major, minor, patch);
    let least = LEAST
        .into_iter()
        .find(|least| (least.0, least.1) == (major, minor));
    if found < LEAST[0] || least.is_some_and(|least| found < least) {
        return Err(format!(
            "the module drbd is {version}, whose replicas may differ without a word when their user has none; update \
             it to 9.2.19, 9.3.3 or newer: {WAYS}"
        ));
    }
    Ok(version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_versions_without_silent_divergence_are_good_enough() {
        for good in ["9.2.19", "9.2.20\n", "9.3.3", "9.4.0", "10.0.1", "9.2.19-1"] {
            assert_eq!(judge(Some(good)), Ok(good.trim().to_owned()), "{good}");
        }
        for bad in ["9.2.18", "9.1.99", "9.3.0", "9.3.2", "9.0.32"] {
            let why = judge(Some(bad)).unwrap_err();
            assert!(why.contains("update it") && why.contains(bad), "{why}");
        }
        let why = judge(Some("8.4.11")).unwrap_err();
        for part in ["8.4.11", "Talos", "LINBIT", "Piraeus", "no quorum"] {
            assert!(why.contains(part), "{why}");
        }
        assert!(judge(None).unwrap_err().contains("modprobe drbd"));
        for none in ["", "nine", "9", "9.2"] {
            assert!(judge(Some(none)).is_err(), "{none}");
        }
    }
}
