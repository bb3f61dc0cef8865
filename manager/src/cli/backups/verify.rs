//! `backup verify`.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use backup::{DamagedBlock, Name, Sample, VerifyReport};
use clap::Args;
use client::wire;
use serde::Serialize;

use super::place::{Place, volumes};
use super::{Context, Failure};
use crate::cli::output::{self, Form};
use crate::cli::progress;

/// Blocks that are repaired in one request, and how long that may take: each may be read from several snapshots,
/// and is uploaded.
const REPAIR_MAX: usize = 500;
const REPAIR: Duration = Duration::from_hours(1);

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    place: Place,
    /// The volume [default: all volumes of the target]
    #[arg(long, value_name = "NAME")]
    volume: Option<Name>,
    /// Read only so many of a hundred blocks, others each time; that a block exists is checked for each
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=100))]
    sample: Option<u8>,
    /// Have the daemon upload damaged blocks again, from the snapshots of the volume on its disk that still
    /// have the same bytes
    #[arg(long)]
    repair: bool,
    /// Output format
    #[arg(short, long, value_enum, default_value = "json")]
    output: Form,
}

/// The report about a volume.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    volume: String,
    backups: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unfinished: Vec<String>,
    blocks: u64,
    blocks_read: u64,
    bytes_read: u64,
    damaged: Vec<Damaged>,
    /// Damaged blocks that are not listed.
    more_damaged: u64,
    problems: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Damaged {
    checksum: String,
    why: String,
    /// Backups that need it, each with an offset.
    places: Vec<PlaceOf>,
    uses: u64,
    repaired: bool,
}

#[derive(Debug, Serialize)]
struct PlaceOf {
    backup: String,
    offset: u64,
}

impl Report {
    fn new(volume: &Name, report: VerifyReport, repaired: &BTreeSet<String>) -> Self {
        let text = |names: Vec<Name>| names.iter().map(Name::to_string).collect();
        let damaged = |block: DamagedBlock| {
            let checksum = block.checksum.to_string();
            let places = block.places.into_iter();
            Damaged {
                why: block.why.to_string(),
                places: places
                    .map(|(backup, offset)| PlaceOf {
                        backup: backup.to_string(),
                        offset,
                    })
                    .collect(),
                uses: block.uses,
                repaired: repaired.contains(&checksum),
                checksum,
            }
        };
        Self {
            volume: volume.to_string(),
            backups: text(report.backups),
            unfinished: text(report.unfinished),
            blocks: report.blocks,
            blocks_read: report.read,
            bytes_read: report.bytes,
            damaged: report.damaged.into_iter().map(damaged).collect(),
            more_damaged: report.more,
            problems: report.problems,
        }
    }

    fn is_whole(&self) -> bool {
        self.damaged.iter().all(|block| block.repaired)
            && self.more_damaged == 0
            && self.problems.is_empty()
    }
}

pub(super) async fn run(context: &Context, args: VerifyArgs) -> Result<ExitCode, Failure> {
    let (_, store) = args.place.open(context)?;
    let (volumes, problems) = volumes(&store, args.volume.as_ref()).await?;
    let sample = args.sample.map_or(Sample::All, Sample::Percent);
    let mut reports = Vec::new();
    for volume in volumes {
        let job = progress::own(volume.as_str());
        let report = store.verify(&volume, sample, &job).await?;
        let repaired = if args.repair && !report.damaged.is_empty() {
            repair(context, &args.place, &volume, &report.damaged).await?
        } else {
            BTreeSet::new()
        };
        reports.push(Report::new(&volume, report, &repaired));
    }
    match args.output {
        Form::Table => table(&reports)?,
        Form::Json | Form::JsonFull => output::json(&reports)?,
    }
    super::show::say(&problems);
    let whole = problems.is_empty() && reports.iter().all(Report::is_whole);
    Ok(if whole {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Has the daemon repair blocks; which it did.
async fn repair(
    context: &Context,
    place: &Place,
    volume: &Name,
    damaged: &[DamagedBlock],
) -> Result<BTreeSet<String>, Failure> {
    let client = context.client().await?.with_deadline(REPAIR);
    let mut repaired = BTreeSet::new();
    // The bytes may have moved in the volume since: each place is one to look at.
    let places = damaged.iter().flat_map(|block| {
        block.places.iter().map(|(_, offset)| wire::DamagedBlock {
            checksum: block.checksum.to_string(),
            offset: *offset,
            length: block.length,
        })
    });
    let places: Vec<_> = places.collect();
    for part in places.chunks(REPAIR_MAX) {
        let request = wire::RepairBlocksRequest {
            target: Some(place.wire()),
            volume: volume.to_string(),
            blocks: part.to_vec(),
        };
        repaired.extend(client.repair_blocks(request).await?.repaired);
    }
    Ok(repaired)
}

/// A line for each block that is not whole, and one for each volume that is.
fn table(reports: &[Report]) -> std::io::Result<()> {
    let mut rows = Vec::new();
    for report in reports {
        let read = format!("{} of {}", report.blocks_read, report.blocks);
        let row = |result: &str, backup: &str, offset: &str, what: &str| {
            [
                report.volume.clone(),
                result.to_owned(),
                read.clone(),
                backup.to_owned(),
                offset.to_owned(),
                what.to_owned(),
            ]
        };
        if report.is_whole() && report.damaged.is_empty() {
            let backups = format!("{} backups", report.backups.len());
            rows.push(row("whole", &backups, "-", "-"));
        }
        for block in &report.damaged {
            let result = if block.repaired {
                "repaired"
            } else {
                "damaged"
            };
            for place in &block.places {
                let what = format!("{}: {}", block.checksum, block.why);
                rows.push(row(result, &place.backup, &place.offset.to_string(), &what));
            }
        }
        for problem in &report.problems {
            rows.push(row("damaged", "-", "-", problem));
        }
        for backup in &report.unfinished {
            rows.push(row(
                "incomplete",
                backup,
                "-",
                "it was begun and never finished",
            ));
        }
        if report.more_damaged > 0 {
            let what = format!("{} more damaged blocks", report.more_damaged);
            rows.push(row("damaged", "-", "-", &what));
        }
    }
    let head = [
        "VOLUME",
        "RESULT",
        "BLOCKS READ",
        "BACKUP",
        "OFFSET",
        "WHAT",
    ];
    output::table(head, &rows)
}
