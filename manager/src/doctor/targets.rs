//! The stores that backups go to: what backups do there is tried once.

use backup::Check;
use backup_jobs::{Asked, Targets};
use types::report;

use super::Finding;

const NAME: &str = "backup-target";

/// Tries each configured target, in a folder of its own that is empty afterwards.
pub async fn examine_targets(targets: &Targets) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, address) in targets.named() {
        let asked = Asked {
            name: name.clone(),
            ..Asked::default()
        };
        let opened = targets
            .choose(&asked)
            .and_then(|target| targets.open(&target));
        let which = format!("{name} ({address})");
        match opened {
            Ok(store) => findings.push(told(&which, &store.check().await)),
            Err(error) => findings.push(Finding::error(
                NAME,
                format!("{which}: {}", report(&error)),
                "the daemon cannot make backups there",
            )),
        }
    }
    findings
}

fn told(which: &str, checks: &[Check]) -> Finding {
    let refused = |needed: bool| {
        let refused = checks.iter().filter(move |check| check.needed == needed);
        let refused = refused.filter_map(|check| Some((check.step, check.refused.as_ref()?)));
        let refused: Vec<_> = refused
            .map(|(step, why)| format!("{step}: {why}"))
            .collect();
        refused.join("; ")
    };
    let (needed, other) = (refused(true), refused(false));
    let done = checks.iter().filter(|check| check.refused.is_none());
    let done: Vec<&str> = done.map(|check| check.step).collect();
    let found = format!("{which}: {} work", done.join(", "));
    if !needed.is_empty() {
        let advice = "backups need each of these: look at the address, the credentials and their permissions";
        Finding::error(NAME, format!("{which}: {needed}"), advice)
    } else if !other.is_empty() {
        Finding::ok(NAME, format!("{found}; not needed, refused: {other}"))
    } else {
        Finding::ok(NAME, found)
    }
}
