//! The builder, beside `mkfs.ext4 -d` alone.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use e2e::{Sandbox, command, programs};

use crate::report::{Budget, Report, Runs};

const FOLDERS: usize = 66_000;
const FILES: usize = 100_000;
const FILES_PER_FOLDER: usize = 100;
const RUNS: usize = 3;
/// The most seconds that a tree of very many folders may take: `mkfs.ext4 -d` alone takes minutes.
const FOLDERS_SECONDS: f64 = 30.0;

/// Seconds of a whole build, from the directory to an archive.
fn build(sandbox: &Sandbox, from: &Path) -> f64 {
    let archive = sandbox.path("built.tar");
    let output = format!("oci-archive:{}", archive.display());
    let start = Instant::now();
    let from = from.as_os_str();
    let arguments = ["build", "--fs", "ext4", "--output", &output, "--from"].map(AsRef::as_ref);
    let program = programs::base_image();
    command::run(
        program.to_str().unwrap(),
        arguments.into_iter().chain([from]),
    );
    let took = start.elapsed().as_secs_f64();
    std::fs::remove_file(archive).unwrap();
    took
}

pub(crate) fn folders(report: &mut Report) {
    let sandbox = Sandbox::new("bench-folders");
    let from = sandbox.make_dir("from");
    for folder in 0..FOLDERS {
        std::fs::create_dir(from.join(format!("folder-{folder}"))).unwrap();
    }
    let runs = Runs::interleaved(RUNS, || build(&sandbox, &from), || FOLDERS_SECONDS);
    let beside = "30 seconds";
    report.add("builder-folders", &runs, beside, "s", Budget::AtMost(1.0));
}

pub(crate) fn files(report: &mut Report) {
    let sandbox = Sandbox::new("bench-files");
    let from = sandbox.make_dir("from");
    for file in 0..FILES {
        let folder = from.join(format!("folder-{}", file / FILES_PER_FOLDER));
        if file % FILES_PER_FOLDER == 0 {
            std::fs::create_dir(&folder).unwrap();
        }
        let mut out = File::create(folder.join(format!("file-{file}"))).unwrap();
        out.write_all(format!("party wizard {file}\n").as_bytes())
            .unwrap();
    }
    let image = sandbox.path("mkfs.raw");
    let mkfs = || {
        File::create(&image).unwrap().set_len(1 << 30).unwrap();
        let start = Instant::now();
        let options = ["-q", "-F", "-N", "150000", "-d"].map(AsRef::as_ref);
        let places = [from.as_os_str(), image.as_os_str()];
        command::run("mkfs.ext4", options.into_iter().chain(places));
        start.elapsed().as_secs_f64()
    };
    let runs = Runs::interleaved(RUNS, || build(&sandbox, &from), mkfs);
    let beside = "mkfs.ext4 -d";
    report.add("builder-files", &runs, beside, "s", Budget::AtMost(2.0));
}
