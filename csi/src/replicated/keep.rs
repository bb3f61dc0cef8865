//! The loop of the leader: every volume is looked at, brought nearer to its record, and what is seen of it is written down
//! and said.

use std::sync::Arc;
use std::time::Duration;

use kubernetes::{Conditioned, Leadership, Level, Regarding};
use tokio::time::Instant;
use types::report;

use super::drive::named;
use super::look::Look;
use super::records::{self, RECORDS, Stored};
use super::{Replicated, lock};
use crate::error::Result;

/// Between two rounds. Kernels do what is urgent by themselves.
const ROUND: Duration = Duration::from_secs(2);
/// How often the cluster is looked at for lost records while there is none: a look asks every manager and node.
const WITHOUT_RECORDS: Duration = Duration::from_secs(30);
/// How long one round may keep a volume.
const SLOW: Duration = Duration::from_mins(2);
/// Volumes that are worked on at a time.
const AT_A_TIME: usize = 16;

impl Replicated {
    /// Keeps all volumes as long as the process runs, while it leads.
    pub(crate) async fn keep(self, leadership: Arc<Leadership>) {
        loop {
            leadership.gained().await;
            tracing::info!("keeps the replicated volumes of the cluster");
            let mut looked = None;
            while leadership.leads() {
                if let Err(error) = self.round(&leadership, &mut looked).await {
                    tracing::warn!("replicated volumes wait: {}", report(&error));
                }
                tokio::time::sleep(ROUND).await;
            }
            tracing::info!("another controller keeps the replicated volumes");
        }
    }

    async fn round(&self, leadership: &Leadership, looked: &mut Option<Instant>) -> Result<()> {
        let mut records = self.records.list().await?;
        self.settle_addresses(&mut records).await?;
        lock(&self.known).clone_from(&records);
        let names: std::collections::HashSet<_> =
            records.iter().map(|one| one.spec.volume.clone()).collect();
        lock(&self.filling).retain(|volume| names.contains(volume));
        let states = records
            .iter()
            .map(|one| records::seen(one).map_or("Unknown", |status| status.health.as_str()));
        crate::metrics::replicated(states);
        let is_idle = records.is_empty() && lock(&self.orphans).is_empty();
        if is_idle && looked.is_some_and(|at| at.elapsed() < WITHOUT_RECORDS) {
            return Ok(());
        }
        *looked = Some(Instant::now());
        // One look for all: it asks the whole cluster.
        let look = self.look().await?;
        self.rebuild(&look, &records).await;
        let places = Arc::new(tokio::sync::Semaphore::new(AT_A_TIME));
        let mut tasks = tokio::task::JoinSet::new();
        for stored in records {
            if !leadership.leads() {
                break;
            }
            let (this, places) = (self.clone(), Arc::clone(&places));
            let look = Arc::clone(&look);
            tasks.spawn(async move {
                let _place = places.acquire_owned().await;
                let volume = stored.spec.volume.clone();
                match tokio::time::timeout(SLOW, this.one(stored, look)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::warn!(%volume, "waits: {}", report(&error)),
                    Err(_) => {
                        tracing::warn!(%volume, "took more than {SLOW:?}; the next round goes on");
                    }
                }
            });
        }
        while tasks.join_next().await.is_some() {}
        Ok(())
    }

    /// One volume: what is seen is written down, and what can be done at once is done.
    async fn one(&self, mut stored: Stored, mut look: Arc<Look>) -> Result<()> {
        let volume = stored.spec.volume.clone();
        // A call has it, and does the same.
        let Some(_turn) = self.turns.try_take(&volume) else {
            return Ok(());
        };
        let began = Instant::now();
        loop {
            let (mut driven, plan) = self.see(stored, look).await;
            self.write_down(&mut driven.stored, &driven.view).await?;
            let again = plan.steps.len() == 1;
            let done = self
                .all(plan.steps, &mut driven.stored, &driven.look, None)
                .await;
            let mut failed = false;
            for (step, result) in &done {
                if let Err(error) = result {
                    failed = true;
                    tracing::debug!(%volume, "{}: {}", named(step), report(error));
                }
            }
            // What follows a change of the record need not wait for the next round.
            if done.is_empty() || failed || !again || began.elapsed() > ROUND {
                return Ok(());
            }
            look = self.look().await?;
            match self.records.get(&volume).await? {
                Some(changed) => stored = changed,
                None => return Ok(()),
            }
        }
    }

    async fn write_down(&self, stored: &mut Stored, view: &replication::View) -> Result<()> {
        let status = replication::judge(&stored.spec, view);
        let was_well = records::seen(stored).is_none_or(|before| before.trouble().is_none());
        if records::seen(stored) != Some(&status) {
            let before = stored.status.take();
            let conditions = records::conditions(&status);
            stored.status = Some(Conditioned::after(
                before.as_ref(),
                status.clone(),
                conditions,
            ));
            self.records.report(stored).await?;
        }
        let (level, reason, note) = match status.trouble() {
            None if was_well => return Ok(()),
            None => (Level::Normal, "Healthy".to_owned(), status.message.as_str()),
            Some(note) => (Level::Warning, format!("{:?}", status.reason), note),
        };
        let object = Regarding::object(&RECORDS, &stored.name);
        self.say(object, level, &reason, note).await;
        // A volume that is being made has none of these yet. The claim is looked up only when there is news.
        let volume = Regarding::volume(&stored.name);
        if self.say(volume, level, &reason, note).await
            && let Ok(Some(claim)) = self.api.claim_of(&stored.name).await
        {
            // Who has claims knows no records: VolumeDegraded, VolumeHealthy.
            let reason = format!("Volume{}", status.health.as_str());
            self.say(claim, level, &reason, note).await;
        }
        Ok(())
    }

    /// Says whether an Event was written.
    async fn say(&self, regarding: Regarding, level: Level, reason: &str, note: &str) -> bool {
        let said = self.events.say(&regarding, level, reason, note).await;
        said.unwrap_or_else(|error| {
            tracing::debug!("no event was written: {}", report(&error));
            false
        })
    }
}
