//! Rows 330 to 333: replicated volumes, simulated: the decisions of the controller and of the nodes as they are, over a model of
//! DRBD's kernels, with everything that fails around them.
//!
//! `SEED=n` plays one seed and prints what happens; `SEEDS=n` plays that many. The same seed gives the same run.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod kernel;
mod random;
mod world;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use world::{Outcome, play};

/// Seeds that are played when nothing else is said.
const SEEDS: u64 = 10_000;

thread_local! {
    /// Whether what happens is written down.
    static TRACED: Cell<bool> = const { Cell::new(false) };
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn traced(seed: u64) -> Outcome {
    TRACED.set(true);
    let outcome = play(seed);
    TRACED.set(false);
    outcome
}

fn check(seed: u64) -> Result<Outcome, String> {
    let played = std::panic::catch_unwind(|| play(seed));
    let outcome = played.map_err(|_| format!("seed {seed} panicked"))?;
    if outcome.wrong.is_empty() {
        return Ok(outcome);
    }
    let again = traced(seed);
    let trace = &again.trace[again.trace.len().saturating_sub(120)..];
    let (wrong, trace) = (again.wrong.join("\n  "), trace.join("\n  "));
    Err(format!(
        "the end of seed {seed}:\n  {trace}\nwrong in seed {seed}:\n  {wrong}"
    ))
}

#[test]
fn row_330_whatever_fails_no_acknowledged_write_is_lost_and_all_heals() {
    if let Some(seed) = number("SEED") {
        let outcome = traced(seed);
        println!("{}", outcome.trace.join("\n"));
        assert_eq!(outcome.wrong, Vec::<String>::new());
        return;
    }
    let seeds = number("SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(0);
    let counts = Mutex::new(BTreeMap::<&str, u64>::new());
    let threads = thread::available_parallelism().map_or(2, usize::from);
    let failures: Vec<String> = thread::scope(|scope| {
        let worker = || {
            let mut failures = Vec::new();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= seeds || failures.len() > 4 {
                    return failures;
                }
                match check(seed) {
                    Ok(outcome) => {
                        let mut counts = counts.lock().unwrap();
                        for (what, times) in outcome.counts {
                            *counts.entry(what).or_default() += times;
                        }
                    }
                    Err(failure) => failures.push(failure),
                }
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        let joined = workers.into_iter().map(|worker| worker.join().unwrap());
        joined.flatten().collect()
    });
    let counts = counts.into_inner().unwrap();
    println!(
        "{} seeds: {counts:?}",
        next.load(Ordering::Relaxed).min(seeds)
    );
    if let Some(first) = failures.first() {
        let numbers: Vec<&str> = failures
            .iter()
            .filter_map(|text| text.split(':').next())
            .collect();
        panic!("{numbers:?}\n{first}");
    }
}
