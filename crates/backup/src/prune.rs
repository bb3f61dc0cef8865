//! Which backups of a volume a rule of retention keeps. Pure: it deletes nothing.

use std::collections::BTreeSet;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::Name;
use crate::info::BackupInfo;

/// How many backups of each kind are kept. A backup stays if one of the rules keeps it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Policy {
    /// The newest ones.
    pub keep_last: u32,
    /// The newest of each hour, for as many hours that have one.
    pub keep_hourly: u32,
    /// The newest of each day (UTC).
    pub keep_daily: u32,
    /// The newest of each ISO week (Monday to Sunday).
    pub keep_weekly: u32,
    /// The newest of each month.
    pub keep_monthly: u32,
    /// The newest of each year.
    pub keep_yearly: u32,
}

/// What becomes of one backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The backup.
    pub backup: Name,
    /// When its snapshot was taken.
    pub snapshot_created_at: Timestamp,
    /// Why it stays, each rule in a word or two; it goes if there is no reason.
    pub reasons: Vec<&'static str>,
}

impl Decision {
    /// Whether it stays.
    pub fn keeps(&self) -> bool {
        !self.reasons.is_empty()
    }
}

/// A rule: its name, how many it keeps, and what makes two backups the same to it.
type Rule = (&'static str, u32, fn(DateTime) -> (i16, i16, i16));

impl Policy {
    /// Whether no rule keeps anything. Such a policy removes nothing: it was not given.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn rules(&self) -> [Rule; 5] {
        [
            ("hourly", self.keep_hourly, |at| {
                (at.year(), at.day_of_year(), i16::from(at.hour()))
            }),
            ("daily", self.keep_daily, |at| {
                (at.year(), at.day_of_year(), 0)
            }),
            ("weekly", self.keep_weekly, |at| {
                let week = at.date().iso_week_date();
                (week.year(), i16::from(week.week()), 0)
            }),
            ("monthly", self.keep_monthly, |at| {
                (at.year(), i16::from(at.month()), 0)
            }),
            ("yearly", self.keep_yearly, |at| (at.year(), 0, 0)),
        ]
    }

    /// What becomes of the backups of one volume, newest snapshot first. One that is not complete stays
    /// and counts for nothing: it is finished, or set aside by collection.
    pub fn decide(&self, backups: &[BackupInfo]) -> Vec<Decision> {
        let mut ordered: Vec<&BackupInfo> = backups.iter().collect();
        ordered.sort_by(|a, b| {
            let newest_first = b.snapshot_created_at.cmp(&a.snapshot_created_at);
            newest_first.then_with(|| b.name.cmp(&a.name))
        });
        let mut decisions: Vec<Decision> = ordered
            .iter()
            .map(|backup| Decision {
                backup: backup.name.clone(),
                snapshot_created_at: backup.snapshot_created_at,
                reasons: match (backup.created_at, self.is_empty()) {
                    (None, _) => vec!["not complete"],
                    (Some(_), true) => vec!["no rule was given"],
                    (Some(_), false) => Vec::new(),
                },
            })
            .collect();
        let complete: Vec<usize> = (0..ordered.len())
            .filter(|&index| ordered[index].created_at.is_some())
            .collect();
        for &index in complete.iter().take(self.keep_last as usize) {
            decisions[index].reasons.push("last");
        }
        for (name, count, key) in self.rules() {
            let mut seen = BTreeSet::new();
            for &index in &complete {
                if seen.len() >= count as usize {
                    break;
                }
                let at = TimeZone::UTC.to_datetime(ordered[index].snapshot_created_at);
                if seen.insert(key(at)) {
                    decisions[index].reasons.push(name);
                }
            }
        }
        decisions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backup(name: &str, at: &str) -> BackupInfo {
        BackupInfo {
            name: name.parse().unwrap(),
            snapshot_created_at: at.parse().unwrap(),
            created_at: Some(at.parse().unwrap()),
            ..crate::info::tests::backup()
        }
    }

    fn kept(policy: Policy, backups: &[BackupInfo]) -> Vec<String> {
        let decisions = policy.decide(backups);
        let kept = decisions.iter().filter(|decision| decision.keeps());
        kept.map(|decision| decision.backup.to_string()).collect()
    }

    fn chain() -> Vec<BackupInfo> {
        vec![
            backup("year-ago", "2025-11-30T10:00:00Z"),
            backup("october", "2026-10-31T23:59:59Z"),
            backup("sunday", "2026-11-29T10:00:00Z"),
            backup("monday-early", "2026-11-30T10:00:00Z"),
            backup("monday-late", "2026-11-30T10:59:59Z"),
            backup("monday-next-hour", "2026-11-30T11:00:00Z"),
        ]
    }

    #[test]
    fn each_rule_keeps_the_newest_of_as_many_periods() {
        let backups = chain();
        let none = Policy::default();
        let keep = |policy| kept(policy, &backups);
        assert_eq!(
            keep(Policy {
                keep_last: 2,
                ..none
            }),
            ["monday-next-hour", "monday-late"]
        );
        assert_eq!(
            keep(Policy {
                keep_hourly: 3,
                ..none
            }),
            ["monday-next-hour", "monday-late", "sunday"]
        );
        assert_eq!(
            keep(Policy {
                keep_daily: 2,
                ..none
            }),
            ["monday-next-hour", "sunday"]
        );
        assert_eq!(
            keep(Policy {
                keep_weekly: 2,
                ..none
            }),
            ["monday-next-hour", "sunday"],
            "a week begins on Monday"
        );
        assert_eq!(
            keep(Policy {
                keep_monthly: 9,
                ..none
            }),
            ["monday-next-hour", "october", "year-ago"]
        );
        assert_eq!(
            keep(Policy {
                keep_yearly: 2,
                ..none
            }),
            ["monday-next-hour", "year-ago"]
        );
    }

    #[test]
    fn rules_add_up_and_say_why() {
        let policy = Policy {
            keep_last: 1,
            keep_daily: 1,
            keep_yearly: 2,
            ..Policy::default()
        };
        let decisions = policy.decide(&chain());
        assert_eq!(decisions[0].reasons, ["last", "daily", "yearly"]);
        assert_eq!(decisions.last().unwrap().reasons, ["yearly"]);
        assert_eq!(decisions.iter().filter(|one| one.keeps()).count(), 2);
    }

    #[test]
    fn a_policy_without_rules_removes_nothing() {
        assert_eq!(kept(Policy::default(), &chain()).len(), chain().len());
    }

    #[test]
    fn an_unfinished_backup_stays_and_takes_no_place() {
        let mut backups = chain();
        let mut running = backup("running", "2026-11-30T12:00:00Z");
        running.created_at = None;
        backups.push(running);
        let policy = Policy {
            keep_last: 1,
            ..Policy::default()
        };
        assert_eq!(kept(policy, &backups), ["running", "monday-next-hour"]);
    }
}
