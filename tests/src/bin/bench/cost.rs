//! What a way of some bytes costs: seconds of a clock, and of processors.

use std::time::Instant;

use e2e::Process;
use e2e::process::processor;

use crate::load::warm_memory;
use crate::report::{Budget, Report, Runs};

/// What one run took.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cost {
    /// From the request to the end.
    pub(crate) seconds: f64,
    /// Of all processors together.
    pub(crate) processor: f64,
}

impl Cost {
    /// Of work that programs of others do, which are waited for.
    pub(crate) fn of_commands(work: impl FnOnce()) -> Self {
        let own = || processor("self");
        let (before, start) = (own(), Instant::now());
        work();
        Self {
            seconds: start.elapsed().as_secs_f64(),
            processor: own() - before,
        }
    }

    /// Of work that our programs do.
    pub(crate) fn of_processes(processes: &[&Process], work: impl FnOnce()) -> Self {
        let all = || processes.iter().map(|one| one.processor()).sum::<f64>();
        let (before, start) = (all(), Instant::now());
        work();
        Self {
            seconds: start.elapsed().as_secs_f64(),
            processor: all() - before,
        }
    }
}

/// The runs of one transfer and of its reference.
#[derive(Debug, Default)]
pub(crate) struct Transfers {
    pub(crate) seconds: Runs,
    pub(crate) processor: Runs,
}

impl Transfers {
    /// Runs both in turn.
    pub(crate) fn interleaved(
        count: usize,
        mut ours: impl FnMut() -> Cost,
        mut reference: impl FnMut() -> Cost,
    ) -> Self {
        let mut all = Self::default();
        for _ in 0..count {
            warm_memory();
            let ours = ours();
            warm_memory();
            let reference = reference();
            all.seconds.add(ours.seconds, reference.seconds);
            all.processor.add(ours.processor, reference.processor);
        }
        all
    }

    /// Reports the time, and the seconds of processor for each GiB.
    pub(crate) fn report(&self, report: &mut Report, case: &str, bytes: u64, beside: &str) {
        let budget = report.transfer_budget();
        report.add(case, &self.seconds, beside, "s", budget);
        let gib = bytes as f64 / f64::from(1 << 30);
        let each = self.processor.scaled(1.0 / gib);
        report.add(
            &format!("{case}-cpu"),
            &each,
            beside,
            "s/GiB",
            Budget::AtMost(2.0),
        );
    }
}
