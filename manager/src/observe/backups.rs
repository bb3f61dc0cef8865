//! The metrics of backups and restores.

use std::time::UNIX_EPOCH;

use backup_jobs::Jobs;

use super::metrics::{Labels, Writer};

impl Writer {
    pub(super) fn backups(&mut self, jobs: &Jobs) {
        let counts = jobs.counts();
        self.gauge(
            "longhorn_backup_running",
            "Backups that run or wait for their turn",
            jobs.running() as u64,
        );
        let none = Labels::new;
        for (name, help, value) in [
            (
                "longhorn_backup_completed",
                "Backups that were completed",
                counts.completed,
            ),
            (
                "longhorn_backup_uploaded_bytes",
                "Bytes that backups uploaded, as they are stored",
                counts.uploaded,
            ),
            (
                "longhorn_backup_duration_seconds",
                "Time that completed backups took, in seconds, all together",
                counts.took.as_secs(),
            ),
            (
                "longhorn_backup_restored_bytes",
                "Bytes of images that were restored from backups",
                counts.restored,
            ),
        ] {
            self.counter(name, help, &[(none(), value)]);
        }
        let failed = counts.failed.iter();
        let failed =
            failed.map(|(kind, count)| (vec![("reason", kind.kind().to_string())], *count));
        let failed: Vec<_> = failed.collect();
        let help = "Backups that failed, by the kind of error";
        self.counter("longhorn_backup_failures", help, &failed);
        let last = self.family(
            "longhorn_backup_last_success_timestamp_seconds",
            "When the last backup of a volume was completed, in seconds since 1970",
        );
        for (volume, at) in &counts.last_success {
            let labels = [&[("volume", volume.clone())][..], self.place()].concat();
            let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
            last.get_or_create(&labels).set(since.as_secs());
        }
    }
}
