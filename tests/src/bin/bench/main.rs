//! `make bench`: our programs and the closest tool of other projects, in one run on one machine:
//! ratios, never bare times.
//!
//! `bench [CASE]…` runs the cases whose names start with one of these; without arguments, all of
//! them.
#![allow(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people: a broken machine ends it, and its table is its result"
)]

mod adopt;
mod backup;
mod blocks;
mod builder;
mod cost;
mod csi;
mod download;
mod faces;
mod flexvolume;
mod footprint;
mod ingest;
mod io;
mod load;
mod pages;
mod report;
mod scale;
mod sync;
mod transfer;
mod trust;
mod volume;

use std::process::ExitCode;

use e2e::{Need, needs};
use report::Report;

type Case = (&'static str, fn(&mut Report));

const CASES: [Case; 34] = [
    ("volume-xfs", volume::on_xfs),
    ("volume-ext4", volume::on_ext4),
    ("pull", ingest::pull),
    ("packaging", ingest::packaging),
    ("convert", ingest::convert),
    ("adopt", adopt::adopt),
    ("download", download::run),
    ("upload", transfer::upload),
    ("upload-pieces", transfer::upload_pieces),
    ("ssync", transfer::ssync),
    ("io", io::steady),
    ("first-touch", io::first_touch),
    ("memory", footprint::memory),
    ("start", footprint::start),
    ("scale", scale::scale),
    ("csi-sanity", csi::sanity),
    ("csi-create-publish", csi::latency),
    ("churn", csi::churn_of_500),
    ("flexvolume", flexvolume::calls),
    ("changed-blocks", blocks::changed),
    ("peer-copy", sync::peer_copy),
    ("peer-shapes", sync::shapes),
    ("peer-tiny", sync::tiny),
    ("fan-out", sync::fan_out),
    ("trust-copy", trust::copy),
    ("trust-call", trust::call),
    ("backup-directory", backup::directory),
    ("backup-s3", backup::objects),
    ("backup-sparse", backup::sparse),
    ("ui", pages::pages),
    ("list", faces::list),
    ("latency", faces::latency),
    ("builder-folders", builder::folders),
    ("builder-files", builder::files),
];

/// Those that are run once more beside a busy loop on one of the processors.
const LOADED: [&str; 7] = [
    "pull",
    "adopt",
    "download",
    "upload",
    "upload-pieces",
    "peer-copy",
    "backup-directory",
];

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let chosen = CASES.into_iter().filter(|(name, _)| {
        wanted.is_empty() || wanted.iter().any(|wish| name.starts_with(wish.as_str()))
    });
    let chosen: Vec<Case> = chosen.collect();
    if chosen.is_empty() {
        let names = CASES.map(|(name, _)| name).join(", ");
        eprintln!(
            "bench: no case is called {}; there are {names}",
            wanted.join(" ")
        );
        return ExitCode::FAILURE;
    }
    let needs = [
        Need::Root,
        Need::FileSystem("xfs"),
        Need::Tool("fio"),
        Need::Tool("docker-registry"),
    ];
    if let Some(missing) = needs::missing(&needs) {
        eprintln!("bench: needs {missing}");
        return ExitCode::FAILURE;
    }
    let mut report = Report::new();
    let mut whole = true;
    let again = chosen.iter().filter(|(name, _)| LOADED.contains(name));
    let again: Vec<Case> = again.copied().collect();
    let idle = chosen.into_iter().map(|case| (case, false));
    for ((name, run), loaded) in idle.chain(again.into_iter().map(|case| (case, true))) {
        eprintln!(
            "bench: {name}{}",
            if loaded { " beside a busy loop" } else { "" }
        );
        report.loaded = loaded;
        let _load = loaded.then(load::Load::start);
        // One case that breaks does not take the figures of the others with it.
        let case = std::panic::AssertUnwindSafe(|| run(&mut report));
        whole &= std::panic::catch_unwind(case).is_ok();
    }
    report.print();
    let path = report.write();
    println!("\nwritten to {}", path.display());
    if whole {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
