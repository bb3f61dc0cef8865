//! What a person waits for in the web UI of a full disk.

use e2e::command;
use e2e::longhorn::fill;
use e2e::manager::{Options, init_disk};
use e2e::ui::Ui;
use e2e::{Disk, FileSystem, Manager, Sandbox};

use crate::report::{Budget, Report, Runs};

const IMAGES: u32 = 200;
const VOLUMES: usize = 1_000;

/// Pages of 1,000 volumes and 200 images, as `curl --compressed` gets them: the time of each and its bytes on the
/// wire, beside the bounds.
pub(crate) fn pages(report: &mut Report) {
    let sandbox = Sandbox::new("bench-pages");
    let disk = Disk::new(&sandbox, "disk", FileSystem::Xfs, 8 << 30);
    init_disk(disk.dir());
    let manager = Manager::start(&sandbox, &Options::new(disk.dir()));
    fill(&manager, disk.dir(), IMAGES);
    drop(manager);
    let manager = Manager::start(&sandbox, &Options::new(disk.dir()));
    for number in 0..VOLUMES {
        manager
            .create_volume(&format!("volume-{number}"), "", 1 << 20)
            .unwrap();
    }
    let address = manager.address().to_string();
    let ui = Ui::start(
        &sandbox,
        "ui",
        &["--auth", "none", "--manager", &address],
        &[],
    );
    for (name, path) in [
        ("ui-overview", "/"),
        ("ui-volumes", "/volumes"),
        ("ui-volumes-last-page", "/volumes?page=20"),
        ("ui-images", "/images"),
        ("ui-create-volume", "/volumes/new"),
    ] {
        let url = format!("{}{path}", ui.url());
        let ask = || {
            let said = command::run(
                "curl",
                [
                    "-sSf",
                    "--compressed",
                    "-o",
                    "/dev/null",
                    "-w",
                    "%{time_total} %{size_download}",
                    &url,
                ],
            );
            let (seconds, bytes) = said.split_once(' ').unwrap();
            (
                seconds.parse::<f64>().unwrap(),
                bytes.parse::<f64>().unwrap(),
            )
        };
        let mut time = Runs::default();
        let mut size = Runs::default();
        for _ in 0..21 {
            let (seconds, bytes) = ask();
            time.add(seconds * 1e3, 100.0);
            size.add(bytes / 1024.0, 30.0);
        }
        report.add(name, &time, "the bound", "ms", Budget::AtMost(1.0));
        report.add(
            &format!("{name}-size"),
            &size,
            "the bound",
            "KiB",
            Budget::AtMost(1.0),
        );
    }
}
