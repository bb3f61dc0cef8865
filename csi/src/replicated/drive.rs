//! Drives a volume towards its record: look, plan, do, and again, until nothing is left to do or the time is up. Calls of
//! CSI and the loop of the leader drive by the same steps; of one volume, one of them at a time in this process. What
//! another process does meanwhile is found out by the compare-and-swap of the record.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use client::wire;
use futures_util::future::join_all;
use replication::{Plan, Record, Step, View};
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;
use types::{Classify as _, ErrorKind, VolumeName, report};

use super::look::Look;
use super::records::Stored;
use super::{Error, Replicated, Result};

/// Between two looks while nothing changes. Kernels connect within a second.
const PAUSE: Duration = Duration::from_millis(200);

/// Where a drive has come to.
#[derive(Debug)]
pub(super) struct Driven {
    pub(super) stored: Stored,
    pub(super) view: View,
    pub(super) look: Arc<Look>,
}

/// Who drives a volume in this process.
#[derive(Debug, Clone, Default)]
pub(super) struct Turns(Arc<Mutex<HashMap<VolumeName, Weak<tokio::sync::Mutex<()>>>>>);

impl Turns {
    fn of(&self, volume: &VolumeName) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = turns.get(volume).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::default();
        turns.insert(volume.clone(), Arc::downgrade(&turn));
        turn
    }

    /// Waits for the turn.
    pub(super) async fn take(&self, volume: &VolumeName) -> OwnedMutexGuard<()> {
        self.of(volume).lock_owned().await
    }

    /// The turn, unless somebody has it.
    pub(super) fn try_take(&self, volume: &VolumeName) -> Option<OwnedMutexGuard<()>> {
        self.of(volume).try_lock_owned().ok()
    }
}

impl Replicated {
    /// Drives a volume until `reached`. `None`: it is gone.
    ///
    /// # Errors
    /// `Waiting` with what it waits for when it is `until`; an error that another try cannot mend, at once.
    pub(super) async fn drive(
        &self,
        volume: &VolumeName,
        wanted: Option<&wire::CreateVolumeRequest>,
        until: Instant,
        reached: impl Fn(&Record, &View) -> bool,
    ) -> Result<Option<Driven>, crate::Error> {
        let _turn = self.turns.take(volume).await;
        loop {
            let look = self.look().await?;
            let Some(stored) = self.records.get(volume).await? else {
                return Ok(None);
            };
            let (driven, plan) = self.see(stored, look).await;
            if reached(&driven.stored.spec, &driven.view) {
                return Ok(Some(driven));
            }
            let mut why = plan.waiting.clone();
            let (mut done, mut stored) = (false, driven.stored);
            for (step, result) in self
                .all(plan.steps, &mut stored, &driven.look, wanted)
                .await
            {
                match result {
                    Ok(()) => done = true,
                    Err(Error::Changed { .. }) => {}
                    Err(error) if is_final(error.kind()) && wanted.is_some() => {
                        return Err(error.into());
                    }
                    Err(error) => why.push(format!("{}: {}", named(&step), report(&error))),
                }
            }
            if Instant::now() >= until {
                why.dedup();
                let why = match why.len() {
                    0 => "its nodes are at work".to_owned(),
                    _ => why.join("; "),
                };
                let volume = volume.clone();
                return Err(Error::Waiting { volume, why }.into());
            }
            if !done {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// What is seen of a volume, and what is to do.
    pub(super) async fn see(&self, stored: Stored, look: Arc<Look>) -> (Driven, Plan) {
        let mut view = self.view(&look, &stored.spec).await;
        view.may_fill = self.may_fill(&stored.spec, &view);
        if stored.spec.address.is_none() {
            view.free = self.free_address().await.ok();
        }
        let plan = replication::plan(&stored.spec, &view);
        let driven = Driven { stored, view, look };
        (driven, plan)
    }

    /// Does the steps of one plan: a change of the record alone, others at once.
    pub(super) async fn all(
        &self,
        steps: Vec<Step>,
        stored: &mut Stored,
        look: &Look,
        wanted: Option<&wire::CreateVolumeRequest>,
    ) -> Vec<(Step, Result<()>)> {
        if let [step @ (Step::Change(_) | Step::Release)] = steps.as_slice() {
            let done = self.execute(step.clone(), stored, look, wanted).await;
            return vec![(step.clone(), done)];
        }
        let as_it_is = &*stored;
        let doing = steps.into_iter().map(|step| async move {
            let mut stored = as_it_is.clone();
            let done = self.execute(step.clone(), &mut stored, look, wanted).await;
            (step, done)
        });
        join_all(doing).await
    }
}

/// Whether another try of a request cannot help.
const fn is_final(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::InvalidArgument
            | ErrorKind::OutOfRange
            | ErrorKind::AlreadyExists
            | ErrorKind::PermissionDenied
            | ErrorKind::Unimplemented
            | ErrorKind::ResourceExhausted
    )
}

/// A step in words.
pub(super) fn named(step: &Step) -> String {
    match step {
        Step::Change(_) => "the record".to_owned(),
        Step::MakeFile { disk } => format!("a replica on disk {disk}"),
        Step::GrowFile { disk, .. } => format!("growing the replica on disk {disk}"),
        Step::Put { node } => format!("telling node {node}"),
        Step::Initialize { node } => format!("declaring the replicas equal on node {node}"),
        Step::Grow { node } => format!("growing the device on node {node}"),
        Step::Rejoin { node } => format!("joining again on node {node}"),
        Step::Remove { node } => format!("taking the part of node {node} down"),
        Step::DeleteFile { disk } => format!("deleting the replica on disk {disk}"),
        Step::Release => "removing the record".to_owned(),
    }
}
