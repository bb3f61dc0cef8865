//! Writers in a guest and what they were promised: the harness's side of `vm-judge`.

use std::time::{Duration, Instant};

use super::machine::Machine;
use super::remote::{Ran, Remote};
use crate::wait;

/// Blocks that each writer goes round.
const SLOTS: u64 = 200;

/// Writers on a device or a file of a guest, and every acknowledgement that has arrived here.
#[derive(Debug)]
pub struct Writers {
    remote: Remote,
    acknowledged: Vec<u64>,
    /// How much of the output has been read.
    read: usize,
    stalls: Vec<Duration>,
    errors: Vec<String>,
}

impl Writers {
    /// Bytes that the writers go round.
    pub const fn room(count: u64) -> u64 {
        count * SLOTS * 4096
    }

    /// Starts writers on a file or a device that has [`Self::room`].
    #[track_caller]
    pub fn start(machine: &Machine, path: &str, count: usize) -> Self {
        Self::go_on(machine, path, &vec![0; count])
    }

    /// Starts writers that go on after what was acknowledged before, somewhere.
    #[track_caller]
    pub fn go_on(machine: &Machine, path: &str, acknowledged: &[u64]) -> Self {
        let slots = SLOTS.to_string();
        let first: Vec<String> = acknowledged
            .iter()
            .map(|last| (last + 1).to_string())
            .collect();
        let mut words = vec!["vm-judge", "write", path, &slots];
        words.extend(first.iter().map(String::as_str));
        Self {
            remote: machine.start(&words),
            acknowledged: acknowledged.to_vec(),
            read: 0,
            stalls: Vec::new(),
            errors: Vec::new(),
        }
    }

    fn look(&mut self) {
        let output = self.remote.output();
        let Some(whole) = output.rfind('\n') else {
            return;
        };
        let lines: Vec<String> = output[self.read..=whole]
            .lines()
            .map(str::to_owned)
            .collect();
        self.read = whole + 1;
        for line in lines {
            let words: Vec<&str> = line.splitn(4, ' ').collect();
            let number = |at: usize| words[at].parse::<u64>().expect("a number");
            match words[0] {
                "ack" => {
                    let writer = usize::try_from(number(1)).expect("a writer");
                    self.acknowledged[writer] = number(2);
                }
                "stall" => self.stalls.push(Duration::from_millis(number(3))),
                _ => self.errors.push(line.clone()),
            }
        }
    }

    /// The last block of each writer that was acknowledged.
    pub fn acknowledged(&mut self) -> &[u64] {
        self.look();
        &self.acknowledged
    }

    /// The longest that a write has taken, of those that took longer than a second.
    pub fn longest_stall(&mut self) -> Duration {
        self.look();
        self.stalls.iter().max().copied().unwrap_or_default()
    }

    /// What writes have failed with.
    pub fn errors(&mut self) -> &[String] {
        self.look();
        &self.errors
    }

    /// Waits until every writer has had `more` acknowledgements from now on.
    #[track_caller]
    pub fn wait_for(&mut self, more: u64) {
        let before = self.acknowledged().to_vec();
        wait::until("the writers go on", || {
            let now = self.acknowledged();
            let all = now
                .iter()
                .zip(&before)
                .all(|(now, before)| *now >= before + more);
            all.then_some(())
        });
    }

    /// Asserts that nothing is acknowledged for so long.
    #[track_caller]
    pub fn assert_still(&mut self, long: Duration) {
        let before = self.acknowledged().to_vec();
        let end = Instant::now() + long;
        while Instant::now() < end {
            assert_eq!(
                self.acknowledged(),
                before,
                "acknowledged without a majority"
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Ends them, where they are not waiting for a device, and gives what was acknowledged.
    pub fn stop(mut self) -> Vec<u64> {
        self.acknowledged().to_vec()
    }
}

/// Judges what is on a device or in a file by what was acknowledged. Panics when anything is lost.
#[track_caller]
pub fn judge(machine: &Machine, path: &str, acknowledged: &[u64]) -> serde_json::Value {
    let ran = verdict(machine, path, acknowledged);
    assert!(
        ran.is_ok(),
        "{}: {path} after {acknowledged:?}: {ran:?}",
        machine.name()
    );
    let verdict: serde_json::Value = serde_json::from_str(&ran.output).expect("JSON");
    let found = ["sound", "ahead"].map(|word| verdict[word].as_u64().expect("a number"));
    assert!(found.iter().sum::<u64>() > 0, "nothing to judge: {verdict}");
    verdict
}

/// What the judge says.
#[track_caller]
pub fn verdict(machine: &Machine, path: &str, acknowledged: &[u64]) -> Ran {
    let numbers: Vec<String> = acknowledged.iter().map(u64::to_string).collect();
    let slots = SLOTS.to_string();
    let mut words = vec!["vm-judge", "check", path, &slots];
    words.extend(numbers.iter().map(String::as_str));
    machine.start(&words).wait().clone()
}
