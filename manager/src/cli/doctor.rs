//! `backing-image-manager doctor`. The exit code shows the worst result: 0 fine, 1 warnings, 2
//! errors.

use std::path::PathBuf;
use std::process::ExitCode;

use backup_jobs::{TargetArgs, Targets};
use clap::Args;

use super::Failure;
use super::output::{self, Form};
use crate::doctor::{self, Level};

#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// Directory of the disk
    #[arg(long, default_value = "/data", value_name = "DIR")]
    disk: PathBuf,
    /// The stores that backups go to: each is tried by writing, reading, listing and deleting an object of its
    /// own
    #[command(flatten)]
    targets: TargetArgs,
    /// Output format
    #[arg(short, long, value_enum, default_value = "table")]
    output: Form,
}

pub(super) fn run(args: &DoctorArgs) -> Result<ExitCode, Failure> {
    let mut findings = doctor::examine(&args.disk);
    if !args.targets.backup_target.is_empty() {
        let targets = Targets::new(&args.targets, backup::Options::default())?;
        findings.extend(super::runtime()?.block_on(doctor::examine_targets(&targets)));
    }
    if args.output == Form::Table {
        let rows: Vec<_> = findings
            .iter()
            .map(|finding| {
                [
                    finding.name.to_owned(),
                    finding.level.as_str().to_owned(),
                    finding.found.clone(),
                    finding.advice.clone(),
                ]
            })
            .collect();
        output::table(["CHECK", "RESULT", "FOUND", "ADVICE"], &rows)?;
    } else {
        output::json(&findings)?;
    }
    Ok(ExitCode::from(match doctor::worst(&findings) {
        Level::Ok => 0,
        Level::Warning => 1,
        Level::Error => 2,
    }))
}
