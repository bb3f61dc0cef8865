//! `backing-image-manager doctor`: what this disk and this kernel support.
//!
//! Everything is found out by doing it once, in files without names that vanish by themselves; nothing
//! on the disk is changed. It runs beside a daemon that serves the disk.

mod disk;
mod features;
mod leftovers;
mod machine;
mod targets;

use std::path::Path;

use serde::Serialize;

pub use self::targets::examine_targets;

/// How good an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, but slower, or not everything does.
    Warning,
    /// A daemon cannot work like this.
    Error,
}

impl Level {
    /// The word in a table.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at; the same in each version.
    pub name: &'static str,
    /// How good it is.
    pub level: Level,
    pub found: String,
    /// What it means and what to do; empty when there is nothing to do.
    pub advice: String,
}

impl Finding {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self {
            name,
            level: Level::Ok,
            found: found.into(),
            advice: String::new(),
        }
    }

    fn warning(name: &'static str, found: impl Into<String>, advice: &str) -> Self {
        Self {
            level: Level::Warning,
            advice: advice.to_owned(),
            ..Self::ok(name, found)
        }
    }

    fn error(name: &'static str, found: impl Into<String>, advice: &str) -> Self {
        Self {
            level: Level::Error,
            ..Self::warning(name, found, advice)
        }
    }

    fn either(name: &'static str, good: bool, found: [&str; 2], advice: &str) -> Self {
        if good {
            Self::ok(name, found[0])
        } else {
            Self::warning(name, found[1], advice)
        }
    }
}

/// Looks at the disk at `path` and the machine around it.
pub fn examine(path: &Path) -> Vec<Finding> {
    let mut findings = disk::examine(path);
    // Without a directory that can be written to there is nothing to try.
    if findings.iter().all(|finding| finding.level < Level::Error) {
        findings.extend(features::examine(path));
        findings.extend(leftovers::examine(path));
    }
    findings.extend(machine::examine());
    findings
}

/// The worst of all findings.
pub fn worst(findings: &[Finding]) -> Level {
    findings
        .iter()
        .map(|finding| finding.level)
        .max()
        .unwrap_or(Level::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::Disk;

    fn of<'a>(findings: &'a [Finding], name: &str) -> &'a Finding {
        let found = findings.iter().find(|finding| finding.name == name);
        found.unwrap_or_else(|| panic!("no {name}: {findings:#?}"))
    }

    #[test]
    fn a_disk_is_looked_at_and_left_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        assert_eq!(worst(&examine(&path.join("missing"))), Level::Error);
        let findings = examine(path);
        assert_eq!(of(&findings, "disk").level, Level::Error);
        Disk::init(path, None).unwrap();
        let findings = examine(path);
        assert_eq!(of(&findings, "disk").level, Level::Ok);
        assert_eq!(of(&findings, "lock").found, "free");
        for name in ["holes", "space", "sync", "direct-io", "clock", "leftovers"] {
            assert!(of(&findings, name).level < Level::Error, "{findings:#?}");
        }
        assert_eq!(
            std::fs::read_dir(path).unwrap().count(),
            1,
            "only longhorn-disk.cfg"
        );
    }

    #[test]
    fn who_serves_the_disk_and_what_lies_about_is_told() {
        let dir = tempfile::tempdir().unwrap();
        Disk::init(dir.path(), None).unwrap();
        let served = Disk::open(dir.path()).unwrap();
        for name in [".deleting-x-1", ".quarantine-img-2.1", "old images"] {
            std::fs::create_dir(served.layout().images().join(name)).unwrap();
        }
        let findings = examine(dir.path());
        let lock = &of(&findings, "lock").found;
        assert!(lock.contains(&std::process::id().to_string()), "{lock}");
        let leftovers = of(&findings, "leftovers");
        assert_eq!(leftovers.level, Level::Warning);
        assert!(
            leftovers.found.contains("1 quarantined"),
            "{}",
            leftovers.found
        );
    }
}
