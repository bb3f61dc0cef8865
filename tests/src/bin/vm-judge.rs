//! Writes blocks that tell when they were written, and judges later what is left of them.
//!
//! `vm-judge write FILE SLOTS FIRST…`, with the number of the first block for each writer: each writes one block after the other, each with O_DIRECT and
//! O_DSYNC, round its own slots, and prints `ack WRITER NUMBER` when the kernel has acknowledged one: whoever reads the
//! lines knows what must be there. An error ends its writer with `error WRITER NUMBER TEXT`, and a block that took longer
//! than a second is told by `stall WRITER NUMBER MILLISECONDS`. It goes on until it is killed or every writer has ended.
//!
//! `vm-judge check FILE SLOTS ACKNOWLEDGED…`, with one number for each writer: nothing acknowledged is lost, no block is
//! older than what was acknowledged in its slot, and no block is half old and half new. Prints what it found as JSON;
//! exits with 1 when something is wrong.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a judge: what it prints is its result"
)]

use std::cmp::Ordering;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

/// Bytes of a block, and what it is aligned to: more than any sector.
const BLOCK: usize = 4096;
/// What a block of ours begins with.
const MAGIC: &[u8; 8] = b"vmjudge1";

/// A page-aligned block (open(2), `O_DIRECT`).
#[repr(align(4096))]
struct Block([u8; BLOCK]);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |word: &str| word.parse::<u64>().expect("a number");
    match words[..] {
        ["write", file, slots, ref first @ ..] if !first.is_empty() => {
            let first: Vec<u64> = first.iter().map(|word| number(word)).collect();
            write(file, number(slots), &first);
        }
        ["check", file, slots, ref acknowledged @ ..] if !acknowledged.is_empty() => {
            let acknowledged: Vec<u64> = acknowledged.iter().map(|word| number(word)).collect();
            let flags = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).unwrap();
            let opened = OpenOptions::new().read(true).custom_flags(flags).open(file);
            let opened = opened.unwrap_or_else(|error| panic!("{file}: {error}"));
            let verdict = check(&opened, number(slots), &acknowledged);
            println!("{}", verdict.to_json());
            return ExitCode::from(u8::from(!verdict.is_sound()));
        }
        _ => {
            eprintln!("vm-judge write FILE SLOTS FIRST… | vm-judge check FILE SLOTS ACKNOWLEDGED…");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

/// The block `number` of a writer.
fn block(writer: u64, number: u64) -> Box<Block> {
    let mut block = Box::new(Block([0; BLOCK]));
    let bytes = &mut block.0;
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..16].copy_from_slice(&writer.to_be_bytes());
    bytes[16..24].copy_from_slice(&number.to_be_bytes());
    // The rest differs in every block, so that a mixture of two is seen.
    let mut filler = blake3::Hasher::new().update(&bytes[..24]).finalize_xof();
    filler.fill(&mut bytes[24..]);
    block
}

/// Whose block it is and which; `None`: it is none, or not whole.
fn read(bytes: &[u8; BLOCK]) -> Option<(u64, u64)> {
    let word = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
    let (writer, number) = (word(8), word(16));
    (bytes[..8] == *MAGIC && block(writer, number).0 == *bytes).then_some((writer, number))
}

/// Where a writer's block is, in bytes.
fn place(writer: u64, slots: u64, number: u64) -> u64 {
    (writer * slots + number % slots) * BLOCK as u64
}

fn write(path: &str, slots: u64, first: &[u64]) {
    let flags = rustix::fs::OFlags::DIRECT | rustix::fs::OFlags::DSYNC;
    let flags = i32::try_from(flags.bits()).unwrap();
    let open = || {
        let file = OpenOptions::new()
            .write(true)
            .custom_flags(flags)
            .open(path);
        file.unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    let threads: Vec<_> = (0..)
        .zip(first.iter().copied())
        .map(|(writer, first)| {
            let file = open();
            thread::spawn(move || write_on(&file, writer, slots, first))
        })
        .collect();
    for thread in threads {
        let _ = thread.join();
    }
}

fn write_on(file: &File, writer: u64, slots: u64, first: u64) {
    for number in first.. {
        let block = block(writer, number);
        let start = Instant::now();
        // Each line in one write: `println` of several threads does not mix.
        if let Err(error) = file.write_all_at(&block.0, place(writer, slots, number)) {
            println!("error {writer} {number} {error}");
            return;
        }
        if start.elapsed() > Duration::from_secs(1) {
            println!("stall {writer} {number} {}", start.elapsed().as_millis());
        }
        println!("ack {writer} {number}");
    }
}

/// What is left of what was written.
#[derive(Debug, Default)]
struct Verdict {
    /// Slots as new as they must be.
    sound: u64,
    /// Slots that are newer than what was acknowledged: written, and the answer did not get through.
    ahead: u64,
    /// `WRITER NUMBER`: acknowledged, and an older block or nothing is in its place.
    lost: Vec<String>,
    /// `WRITER NUMBER`: in its place is something that nobody wrote.
    broken: Vec<String>,
}

impl Verdict {
    fn is_sound(&self) -> bool {
        self.lost.is_empty() && self.broken.is_empty()
    }

    fn to_json(&self) -> serde_json::Value {
        serde_json::json!({"sound": self.sound, "ahead": self.ahead, "lost": self.lost, "broken": self.broken})
    }
}

fn check(file: &File, slots: u64, acknowledged: &[u64]) -> Verdict {
    let mut verdict = Verdict::default();
    for (writer, acknowledged) in (0..).zip(acknowledged) {
        for number in acknowledged.saturating_sub(slots - 1)..=*acknowledged {
            if number > 0 {
                judge(file, writer, slots, number, &mut verdict);
            }
        }
    }
    verdict
}

/// Judges the slot in which `number` is the last that was acknowledged. A later one in it was written, and its
/// acknowledgement did not get through.
fn judge(file: &File, writer: u64, slots: u64, number: u64, verdict: &mut Verdict) {
    let mut block = Box::new(Block([0; BLOCK]));
    let at = place(writer, slots, number);
    file.read_exact_at(&mut block.0, at).unwrap();
    let name = format!("{writer} {number}");
    match read(&block.0) {
        Some((of, found)) if of == writer && found % slots == number % slots => {
            match found.cmp(&number) {
                Ordering::Less => verdict.lost.push(format!("{name} (found {found})")),
                Ordering::Equal => verdict.sound += 1,
                Ordering::Greater => verdict.ahead += 1,
            }
        }
        Some((of, found)) => verdict
            .broken
            .push(format!("{name} (block {found} of {of})")),
        None if block.0 == [0; BLOCK] => verdict.lost.push(format!("{name} (nothing)")),
        None => verdict.broken.push(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOTS: u64 = 4;

    /// What is said of a file in which two writers wrote these blocks, of which two and six were acknowledged.
    fn verdict(blocks: &[(u64, u64)], breakage: impl FnOnce(&File)) -> Verdict {
        let file = tempfile::tempfile().unwrap();
        file.set_len(2 * SLOTS * BLOCK as u64).unwrap();
        for (writer, number) in blocks {
            let block = block(*writer, *number);
            file.write_all_at(&block.0, place(*writer, SLOTS, *number))
                .unwrap();
        }
        breakage(&file);
        check(&file, SLOTS, &[2, 6])
    }

    const WRITTEN: [(u64, u64); 6] = [(0, 1), (0, 2), (1, 3), (1, 4), (1, 5), (1, 6)];

    #[test]
    fn what_was_acknowledged_and_is_there_is_sound() {
        let found = verdict(&WRITTEN, |_| {});
        assert!(found.is_sound(), "{found:?}");
        assert_eq!((found.sound, found.ahead), (6, 0));
        // One that was written and whose acknowledgement did not arrive is no fault.
        let found = verdict(&[&WRITTEN[..], &[(1, 7)]].concat(), |_| {});
        assert!(found.is_sound(), "{found:?}");
        assert_eq!((found.sound, found.ahead), (5, 1));
    }

    #[test]
    fn an_old_a_missing_and_a_torn_block_are_told_apart() {
        let old = verdict(&[&WRITTEN[..], &[(1, 2)]].concat(), |_| {});
        assert_eq!(old.lost, ["1 6 (found 2)"]);
        let missing = verdict(&WRITTEN[1..], |_| {});
        assert_eq!(missing.lost, ["0 1 (nothing)"]);
        let torn = verdict(&WRITTEN, |file| {
            let other = block(1, 2);
            let at = place(1, SLOTS, 6);
            file.write_all_at(&other.0[..512], at).unwrap();
        });
        assert_eq!(torn.broken, ["1 6"]);
        let strange = verdict(&[&WRITTEN[..], &[(0, 5)]].concat(), |file| {
            let stray = block(0, 3);
            file.write_all_at(&stray.0, place(1, SLOTS, 3)).unwrap();
        });
        assert_eq!(strange.broken, ["1 3 (block 3 of 0)"]);
    }
}
