//! Row 76: a process is killed (SIGKILL) after every step of a volume's life; the same calls then
//! converge, and so does giving up. Nothing is left: no mount, no loop device, no record.
//!
//! The process that dies is this test binary itself, started again for the test `child`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may print and panic"
)]

mod rig;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use host::staging::{self, Access, NodeVolume, PublishRequest, StageRequest};
use rig::{MIB, Rig, make_image, size_of};
use types::{ByteSize, VolumeName};

/// The steps that every kind of volume goes through.
const COMMON: [&str; 9] = [
    "host.stage.recorded",
    "host.stage.attached",
    "host.publish.created",
    "host.publish.mounted",
    "host.expand.resized",
    "host.expand.grown",
    "host.unpublish.unmounted",
    "host.unstage.unmounted",
    "host.unstage.detached",
];
const MOUNTED: [&str; 3] = [
    "host.stage.checked",
    "host.stage.mounted",
    "host.stage.grown",
];
const FORMATTED: [&str; 5] = [
    "host.format.created",
    "host.format.made",
    "host.format.synced",
    "host.format.renamed",
    "host.stage.formatted",
];
/// What kind of volume a child works on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Blank,
    Image,
    Block,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Blank, Self::Image, Self::Block];

    fn points(self) -> Vec<&'static str> {
        let more: &[&[&str]] = match self {
            Self::Blank => &[&MOUNTED, &FORMATTED],
            Self::Image => &[&MOUNTED],
            Self::Block => &[],
        };
        COMMON
            .iter()
            .chain(more.iter().copied().flatten())
            .copied()
            .collect()
    }
}

/// The whole life of a volume, as kubelet asks for it.
struct Life {
    staged: StageRequest,
    target: PathBuf,
    /// Of the target: a device that is protected between the steps.
    read_only: bool,
}

impl Life {
    fn of(rig: &Rig, kind: Kind) -> Self {
        let tag = rig.dir().file_name().unwrap().to_str().unwrap();
        let volume = NodeVolume {
            name: VolumeName::new(&format!("victim-{tag}")).unwrap(),
            file: rig.dir().join("volumes/victim/volume"),
            size: ByteSize(48 * MIB),
            has_source: kind == Kind::Image,
            part: None,
        };
        let mut staged = rig.mount_request(&volume, None);
        if kind == Kind::Block {
            staged.access = Access::Block;
        }
        Self {
            staged,
            target: rig.target("pod"),
            read_only: kind == Kind::Block,
        }
    }

    fn begin(&self, rig: &Rig) -> host::Result<()> {
        staging::stage(&self.staged)?;
        staging::publish(&PublishRequest {
            read_only: self.read_only,
            ..rig.publish_request(&self.staged, &self.target)
        })?;
        staging::expand(&self.staged.volume.name, &self.target).map(drop)
    }

    fn end(&self) -> host::Result<()> {
        let name = &self.staged.volume.name;
        staging::unpublish(name, &self.target)?;
        staging::unstage(name, &self.staged.staging_path)
    }
}

#[test]
fn child() {
    let Ok(dir) = std::env::var("HOST_CRASH_DIR") else {
        return;
    };
    let kind = std::env::var("HOST_CRASH_KIND").unwrap();
    let kind = Kind::ALL
        .into_iter()
        .find(|k| format!("{k:?}") == kind)
        .unwrap();
    types::crash::init();
    let rig = Rig::join(Path::new(&dir));
    let life = Life::of(&rig, kind);
    life.begin(&rig).unwrap();
    life.end().unwrap();
}

/// A fresh volume, and a process that dies at `point` of its life.
fn crash_at(point: &str, kind: Kind) -> Option<(Rig, Life)> {
    let rig = Rig::new()?;
    match kind {
        Kind::Image => {
            let image = rig.path("image");
            make_image(&image, "ext4", 16 * MIB);
            rig.clone_of(&image, "victim", 48 * MIB);
        }
        Kind::Blank | Kind::Block => drop(rig.volume("victim", 48 * MIB)),
    }
    let life = Life::of(&rig, kind);
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--nocapture"])
        .env("HOST_CRASH_DIR", rig.dir())
        .env("HOST_CRASH_KIND", format!("{kind:?}"))
        .env("FAILPOINTS", format!("{point}=return"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(
        output.status.signal(),
        Some(9),
        "{kind:?} did not reach {point}: {said}"
    );
    if kind != Kind::Block && ["host.stage.attached", "host.stage.checked"].contains(&point) {
        // The kernel gives back what was attached and not mounted, without any call of ours.
        let deadline = Instant::now() + Duration::from_mins(5);
        while !rig.loops().is_empty() {
            assert!(
                Instant::now() < deadline,
                "{kind:?} killed at {point} left a loop device"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    Some((rig, life))
}

fn only_the_volume_is_left(rig: &Rig, at: &str) {
    rig.assert_clean();
    let files: Vec<_> = fs::read_dir(rig.dir().join("volumes/victim"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(files, ["volume"], "{at}");
}

#[test]
fn row_76_the_same_calls_after_a_kill_converge() {
    for kind in Kind::ALL {
        for point in kind.points() {
            let Some((rig, life)) = crash_at(point, kind) else {
                return;
            };
            let at = format!("{kind:?} killed at {point}");
            life.begin(&rig)
                .unwrap_or_else(|e| panic!("{at}: {}", types::report(&e)));
            let mounts = if kind == Kind::Block { 1 } else { 2 };
            assert_eq!(rig.left(), (mounts, 1), "{at}");
            if kind != Kind::Block {
                assert!(size_of(&life.target) > 30 * MIB, "{at}: not grown");
                fs::File::create(life.target.join("written")).unwrap();
            }
            life.end()
                .unwrap_or_else(|e| panic!("{at}: {}", types::report(&e)));
            // A leftover of formatting is removed when the volume is formatted; it must be by now.
            only_the_volume_is_left(&rig, &at);
        }
    }
}

#[test]
fn row_76_giving_up_after_a_kill_leaves_nothing() {
    for kind in Kind::ALL {
        for point in kind.points() {
            let Some((rig, life)) = crash_at(point, kind) else {
                return;
            };
            let at = format!("{kind:?} killed at {point}");
            life.end()
                .unwrap_or_else(|e| panic!("{at}: {}", types::report(&e)));
            rig.assert_clean();
            // The volume is blank or formatted, and never in between.
            let disk = probe::FileDisk::open(&life.staged.volume.file).unwrap();
            let content = probe::probe(&disk).unwrap();
            let is_whole = match content {
                probe::Content::Blank => kind != Kind::Image,
                probe::Content::FileSystem { .. } => kind != Kind::Block,
                _ => false,
            };
            assert!(is_whole, "{at}: {content:?}");
        }
    }
}

/// Of DRBD, which this kernel may not have. The node service is killed after each of its commands, and so beside
/// these points (`crates/node/tests/drbd`, row 320).
const OF_DRBD: &str = "host.drbd.";
/// Nothing is killed at these yet, which need a device of DRBD: a blank replicated volume is being formatted.
const UNTRIED: [&str; 2] = ["host.format.copied", "host.format.marked"];

#[test]
fn row_76_every_crash_point_of_the_crate_is_tried() {
    let mut tried: BTreeSet<String> = UNTRIED.map(str::to_owned).into();
    for kind in Kind::ALL {
        tried.extend(kind.points().into_iter().map(str::to_owned));
    }
    let mut written = BTreeSet::new();
    let mut directories = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let points = text.split("crash_point!(\"").skip(1);
            written.extend(points.filter_map(|rest| rest.split('"').next().map(str::to_owned)));
        }
    }
    let (of_drbd, written): (BTreeSet<_>, BTreeSet<_>) = written
        .into_iter()
        .partition(|point| point.starts_with(OF_DRBD));
    assert!(!of_drbd.is_empty());
    assert_eq!(written, tried);
}
