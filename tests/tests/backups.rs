//! Backups in Longhorn's format, made and restored by a daemon with a store in a directory.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use e2e::data_source::DataSource;
use e2e::manager::{
    Options, backup_key, from_backup, from_file, from_volume, init_disk, new_backup,
};
use e2e::noise::noise;
use e2e::programs::sources;
use e2e::{
    Disk, FileSystem, Manager, Need, Sandbox, block_on, command, documents, needs, programs, wait,
};
use proto::bimrpc as bim;
use proto::storage::v1 as pb;
use tonic::Code;

const MIB: u64 = 1 << 20;
const BLOCK: u64 = 2 * MIB;
/// No multiple of a block.
const SIZE: u64 = 24 * MIB + 8192;

/// A disk with its manager, and a store in a directory.
struct Rig {
    sandbox: Sandbox,
    disk: PathBuf,
    store: PathBuf,
    options: Options,
    /// Kept for its mount.
    _mounted: Option<Disk>,
}

impl Rig {
    /// On a directory of whatever file system the tests are on.
    fn plain(name: &str) -> Self {
        let sandbox = Sandbox::new(name);
        let disk = sandbox.make_dir("disk");
        Self::of(sandbox, disk, None)
    }

    /// On a disk that shares extents.
    fn xfs(name: &str) -> Self {
        let sandbox = Sandbox::new(name);
        let mounted = Disk::new(&sandbox, "disk", FileSystem::Xfs, 1 << 30);
        let disk = mounted.dir().to_owned();
        Self::of(sandbox, disk, Some(mounted))
    }

    fn of(sandbox: Sandbox, disk: PathBuf, mounted: Option<Disk>) -> Self {
        init_disk(&disk);
        let (store, import) = (sandbox.make_dir("store"), sandbox.make_dir("import"));
        let options = Options::new(&disk)
            .with(
                "--backup-target",
                format!("default=vfs://{}", store.display()),
            )
            .with("--backup-credentials", sandbox.path("no-credentials"))
            .with("--import-dir", import);
        Self {
            sandbox,
            disk,
            store,
            options,
            _mounted: mounted,
        }
    }

    fn start(&self) -> Manager {
        Manager::start(&self.sandbox, &self.options)
    }

    /// The file of a volume.
    fn file(&self, manager: &Manager, volume: &str) -> PathBuf {
        let volume = manager.volume(volume).unwrap();
        self.disk.join(&volume.replicas[0].path)
    }

    /// A volume with noise in its first 3 blocks, in its fifth, and in its last bytes; what it holds.
    fn volume(&self, manager: &Manager, name: &str) -> Vec<u8> {
        manager.create_volume(name, "", SIZE).unwrap();
        let path = self.file(manager, name);
        let file = File::options().write(true).open(&path).unwrap();
        for (at, length) in [(0, 3 * BLOCK), (4 * BLOCK + 4096, MIB), (SIZE - 4096, 4096)] {
            let bytes = noise(at + 1, length);
            file.write_all_at(&bytes, at).unwrap();
        }
        fs::read(path).unwrap()
    }

    /// Runs a command of `backup` with the daemon and its target.
    fn cli(&self, manager: &Manager, arguments: &[&str]) -> Output {
        let target = format!("default=vfs://{}", self.store.display());
        let whole = [arguments, &["--backup-target", &target]].concat();
        manager.cli("backup", &whole)
    }

    /// The same without a daemon.
    fn alone(&self, arguments: &[&str]) -> Output {
        let target = format!("default=vfs://{}", self.store.display());
        let whole = [&["backup", "--backup-target", &target], arguments].concat();
        command::output(&programs::manager().display().to_string(), whole)
    }

    /// The blocks that the store has.
    fn blocks(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut dirs = vec![self.store.clone()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                match path.extension().and_then(|end| end.to_str()) {
                    _ if path.is_dir() => dirs.push(path),
                    Some("blk") => found.push(path),
                    _ => {}
                }
            }
        }
        found.sort();
        found
    }

    /// The bytes of a ready image's file.
    fn image(&self, image: &pb::BackingImage) -> Vec<u8> {
        let directory = format!("backing-images/{}-{}", image.name, image.uuid);
        fs::read(self.disk.join(directory).join("backing")).unwrap()
    }
}

fn write(path: &Path, at: u64, bytes: &[u8]) {
    let file = File::options().write(true).open(path).unwrap();
    file.write_all_at(bytes, at).unwrap();
}

#[track_caller]
fn json(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{}", command::words(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The names of images, in order.
fn images(manager: &Manager) -> Vec<String> {
    let images = manager.list_images().unwrap();
    images.into_iter().map(|image| image.name).collect()
}

fn complete(backup: &pb::Backup) -> bool {
    backup.state() == pb::BackupState::Complete
}

/// Backed up, changed, backed up again, restored: what the first held, byte for byte, and volumes of it
/// that share its extents.
#[test]
fn a_volume_is_backed_up_and_restored_and_the_second_time_only_what_changed() {
    needs!(Need::Root, Need::FileSystem("xfs"));
    let rig = Rig::xfs("backup-round");
    let manager = rig.start();
    let first = rig.volume(&manager, "vol");
    let backup = json(&rig.cli(&manager, &["create", "--volume", "vol", "--name", "b1"]));
    assert_eq!(backup["state"], "complete", "{backup}");
    assert_eq!(backup["volumeSize"], SIZE);
    assert_eq!(images(&manager), ["b1"], "its snapshot is kept");
    let blocks = rig.blocks();
    assert_eq!(blocks.len(), 5, "{blocks:#?}");

    let path = rig.file(&manager, "vol");
    write(&path, 6 * BLOCK + 5, b"one more block");
    let second = fs::read(&path).unwrap();
    let backup = json(&rig.cli(&manager, &["create", "--volume", "vol", "--name", "b2"]));
    assert_eq!(backup["incremental"], true);
    let uploaded = backup["uploadedSize"].as_u64().unwrap();
    assert!(
        uploaded < 64 << 10,
        "one block of zeros but for some bytes: {uploaded}"
    );
    assert_eq!(rig.blocks().len(), 6);
    assert_eq!(
        images(&manager),
        ["b2"],
        "the snapshot of the first one is gone"
    );
    let said = manager.process.log();
    assert!(!said.contains("is not on this disk any more"), "{said}");

    let restore = [
        "restore", "--volume", "vol", "--name", "b1", "--image", "back",
    ];
    let image = json(&rig.cli(&manager, &restore));
    assert_eq!(image["unverified"], false);
    let restored = manager.image("back").unwrap();
    assert!(rig.image(&restored) == first);
    assert!(restored.real_size < 16 * MIB, "{}", restored.real_size);
    for name in ["one", "two"] {
        let volume = manager.create_volume(name, "back", 0).unwrap();
        assert_eq!((volume.size, &*volume.made_by), (SIZE, "reflink"));
        assert!(fs::read(rig.file(&manager, name)).unwrap() == first);
    }
    // Without a name all who restore one backup share one image.
    let again = manager.make_image(from_backup("", "vol", "b2")).unwrap();
    assert!(again.name.starts_with("backup-b2-"), "{}", again.name);
    assert!(rig.image(&again) == second);
    let joined = manager.make_image(from_backup("", "vol", "b2")).unwrap();
    assert_eq!(joined.uuid, again.uuid);
}

/// The daemon is killed at each step of making a backup; the same request then completes it, and what was
/// restored from it is what the volume held.
#[test]
fn kill_9_at_each_step_of_a_backup_and_the_same_request_completes_it() {
    needs!(Need::Failpoints);
    let points = documents::crash_points(&["crates/backup-jobs/src", "crates/backup/src"]);
    let making = points.iter().filter(|point| {
        [
            "backup.make.",
            "backup.begin.",
            "backup.upload.",
            "backup.finish.",
        ]
        .iter()
        .any(|start| point.starts_with(start))
    });
    let making: Vec<_> = making.collect();
    assert!(making.len() >= 7, "{points:?}");
    let rig = Rig::plain("backup-crash");
    let mut manager = rig.start();
    for (number, point) in making.iter().enumerate() {
        let volume = format!("vol-{number}");
        let bytes = rig.volume(&manager, &volume);
        // That step is one of the first backup alone.
        if point.as_str() != "backup.begin.volume" {
            assert!(complete(
                &manager.make_backup(new_backup(&volume, "b0")).unwrap()
            ));
        }
        manager.process.terminate();
        let failing = rig
            .options
            .clone()
            .with_failpoint(format!("{point}=return"));
        manager = Manager::start(&rig.sandbox, &failing);
        // So that there is something to upload.
        let at = 8 * BLOCK;
        let fresh = noise(number as u64 + 100, 4096);
        write(&rig.file(&manager, &volume), at, &fresh);
        // It may be killed before it has answered.
        let _ = manager.create_backup(new_backup(&volume, &format!("b1-{number}")));
        let end = manager.process.wait_end();
        assert_eq!(end.signal(), Some(9), "{point}: {}", manager.process.log());
        manager = rig.start();
        let name = format!("b1-{number}");
        let backup = manager.make_backup(new_backup(&volume, &name)).unwrap();
        assert!(complete(&backup), "{point}: {}", backup.message);
        let image = manager.make_image(from_backup(&format!("r{number}"), &volume, &name));
        let image = image.unwrap();
        assert_eq!(
            image.state(),
            pb::State::Ready,
            "{point}: {}",
            image.message
        );
        let mut expected = bytes.clone();
        let range = usize::try_from(at).unwrap()..usize::try_from(at + 4096).unwrap();
        expected[range].copy_from_slice(&fresh);
        assert!(rig.image(&image) == expected, "{point}");
        let listed = manager.list_images().unwrap();
        let kept = listed.iter().filter(|image| image.source_volume == volume);
        let kept: Vec<_> = kept.map(|image| &image.name).collect();
        assert_eq!(kept, [&name], "{point}: only the last snapshot is kept");
        manager.delete_volume(&volume).unwrap();
    }
    let whole = rig.alone(&["verify"]);
    assert!(whole.status.success(), "{}", command::words(&whole));
    let listed = manager.list_backups().unwrap();
    assert_eq!(listed.problems, [""; 0]);
    assert!(listed.backups.iter().all(complete), "{:#?}", listed.backups);
}

/// A daemon that is killed while it restores leaves nothing or a finished image.
#[test]
fn kill_9_at_each_step_of_a_restore_leaves_nothing_or_a_whole_image() {
    needs!(Need::Failpoints);
    let rig = Rig::plain("restore-crash");
    let mut manager = rig.start();
    let bytes = rig.volume(&manager, "vol");
    assert!(complete(
        &manager.make_backup(new_backup("vol", "b1")).unwrap()
    ));
    let mut points = documents::crash_points(&["crates/backup-jobs/src", "crates/store/src"]);
    points.retain(|point| {
        [
            "backup.restore.",
            "store.begin.",
            "store.ingest.",
            "store.seal.",
        ]
        .iter()
        .any(|start| point.starts_with(start))
    });
    assert!(points.len() >= 6, "{points:?}");
    for (number, point) in points.iter().enumerate() {
        let name = format!("r{number}");
        manager.process.terminate();
        let failing = rig
            .options
            .clone()
            .with_failpoint(format!("{point}=return"));
        manager = Manager::start(&rig.sandbox, &failing);
        let _ = manager.create_image(from_backup(&name, "vol", "b1"));
        let end = manager.process.wait_end();
        assert_eq!(end.signal(), Some(9), "{point}: {}", manager.process.log());
        manager = rig.start();
        if let Ok(left) = manager.image(&name) {
            let left = manager.wait_image(&left.name).unwrap();
            assert_eq!(left.state(), pb::State::Ready, "{point}: {}", left.message);
        }
        let image = manager.make_image(from_backup(&name, "vol", "b1")).unwrap();
        assert_eq!(
            image.state(),
            pb::State::Ready,
            "{point}: {}",
            image.message
        );
        assert!(rig.image(&image) == bytes, "{point}");
    }
}

/// On its base image a volume's backup holds what differs, names the image, and needs it.
#[test]
fn a_backup_on_a_base_image_holds_what_differs_and_needs_the_image() {
    needs!(Need::Root, Need::FileSystem("xfs"));
    let rig = Rig::xfs("backup-base");
    let manager = rig.start();
    let base = rig.sandbox.write("import/base.raw", noise(3, 16 * MIB));
    let image = manager.make_image(from_file("base", &base)).unwrap();
    manager.create_volume("vol", "base", 20 * MIB).unwrap();
    let path = rig.file(&manager, "vol");
    write(&path, 3 * BLOCK + 100, b"not of the image");
    // Where the image has data and the volume has zeros.
    write(&path, 5 * BLOCK, &vec![0; usize::try_from(BLOCK).unwrap()]);
    let bytes = fs::read(&path).unwrap();

    let whole = manager.make_backup(new_backup("vol", "whole")).unwrap();
    assert!(complete(&whole) && whole.base_image.is_empty(), "{whole:?}");
    assert_eq!(whole.size, 7 * BLOCK, "a block of zeros is none");
    let image_of = |backup: &str, name: &str| {
        let image = manager
            .make_image(from_backup(name, "vol", backup))
            .unwrap();
        (image.state(), image.message.clone(), image)
    };
    let (state, message, restored) = image_of("whole", "r1");
    assert_eq!(state, pb::State::Ready, "{message}");
    assert!(rig.image(&restored) == bytes);

    // All backups of a volume in one store are made the same way.
    let refused = pb::CreateBackupRequest {
        on_base: true,
        ..new_backup("vol", "above")
    };
    let failed = manager.make_backup(refused.clone()).unwrap();
    assert_eq!(failed.state(), pb::BackupState::Failed, "{failed:?}");
    assert!(failed.message.contains("base image"), "{}", failed.message);
    manager.delete_backup(backup_key("vol", "whole")).unwrap();
    let above = manager.make_backup(refused).unwrap();
    assert!(complete(&above), "{}", above.message);
    assert_eq!(above.size, 2 * BLOCK);
    assert_eq!(above.base_image, "base");
    assert_eq!(above.base_image_checksum, image.current_checksum);
    let (state, message, restored) = image_of("above", "r2");
    assert_eq!(state, pb::State::Ready, "{message}");
    assert!(rig.image(&restored) == bytes);

    manager.delete_volume("vol").unwrap();
    manager.delete_image("base").unwrap();
    let (state, message, _) = image_of("above", "r3");
    assert_eq!(state, pb::State::Failed);
    assert!(
        message.contains("base image base") && message.contains("create that image"),
        "{message}"
    );
    // A blank volume has none.
    manager.create_volume("blank", "", 4 * MIB).unwrap();
    let request = pb::CreateBackupRequest {
        on_base: true,
        ..new_backup("blank", "b1")
    };
    let failed = manager.make_backup(request).unwrap();
    assert_eq!(
        failed.failure_code,
        Code::FailedPrecondition as u32,
        "{failed:?}"
    );
}

/// A backup that is called off ends, and the same request goes on. A deleted volume takes along what was kept
/// for its next backup, and needs no store for that.
#[test]
fn a_cancelled_backup_goes_on_later_and_a_deleted_volume_leaves_nothing_here() {
    needs!(Need::Failpoints);
    let rig = Rig::plain("backup-cancel");
    let slow = rig
        .options
        .clone()
        .with_failpoint("backup.make.advanced=sleep(200)");
    let mut manager = Manager::start(&rig.sandbox, &slow);
    rig.volume(&manager, "vol");
    let begun = manager.create_backup(new_backup("vol", "b1")).unwrap();
    assert!(!complete(&begun));
    let key = || backup_key("vol", "b1");
    wait::until("it uploads", || {
        let backup = manager.backup(key()).unwrap();
        (backup.state() == pb::BackupState::Uploading).then_some(())
    });
    manager.cancel_backup(key()).unwrap();
    let ended = manager.backup(key()).unwrap();
    assert_eq!(ended.state(), pb::BackupState::Failed);
    assert_eq!(ended.failure_code, Code::Aborted as u32, "{ended:?}");
    let refused = rig.alone(&[
        "restore",
        "--volume",
        "vol",
        "--name",
        "b1",
        "--salvage",
        "--file",
        "/dev/null",
    ]);
    assert!(!refused.status.success());
    manager.process.terminate();
    manager = rig.start();
    let stored = manager.backup(key()).unwrap();
    assert_eq!(stored.state(), pb::BackupState::Incomplete);
    let image = manager.make_image(from_backup("rr", "vol", "b1")).unwrap();
    assert_eq!(
        image.state(),
        pb::State::Failed,
        "an unfinished backup is not restored"
    );
    let backup = manager.make_backup(new_backup("vol", "b1")).unwrap();
    assert!(complete(&backup), "{}", backup.message);

    // A snapshot that somebody asked for is theirs; what was kept for backups goes.
    manager.make_image(from_volume("mine", "vol")).unwrap();
    let request = pb::CreateBackupRequest {
        snapshot: "mine".into(),
        ..new_backup("vol", "")
    };
    let of_mine = manager.make_backup(request.clone()).unwrap();
    assert!(complete(&of_mine) && of_mine.name == "mine", "{of_mine:?}");
    assert_eq!(images(&manager), ["mine", "rr"]);
    assert!(complete(
        &manager.make_backup(new_backup("vol", "b3")).unwrap()
    ));
    assert_eq!(images(&manager), ["b3", "mine", "rr"]);
    fs::rename(&rig.store, rig.sandbox.path("away")).unwrap();
    manager.delete_volume("vol").unwrap();
    assert_eq!(images(&manager), ["mine", "rr"]);
    let gone = manager.list_backups().unwrap_err();
    assert_eq!(gone.code(), Code::FailedPrecondition, "{gone:?}");
    fs::rename(rig.sandbox.path("away"), &rig.store).unwrap();
    assert_eq!(manager.list_backups().unwrap().backups.len(), 3);
    // Another snapshot of that name is another backup.
    let other = pb::CreateBackupRequest {
        snapshot: "rr".into(),
        ..request
    };
    let refused = manager.make_backup(other).unwrap();
    assert_eq!(
        refused.failure_code,
        Code::InvalidArgument as u32,
        "{refused:?}"
    );
}

/// Each command that looks after a store, and its exit code.
#[test]
#[expect(
    clippy::too_many_lines,
    reason = "one store from its first backup to its last block"
)]
fn the_commands_verify_repair_prune_collect_and_delete() {
    let rig = Rig::plain("backup-cli");
    let manager = rig.start();
    let bytes = rig.volume(&manager, "vol");
    for name in ["b1", "b2", "b3"] {
        write(&rig.file(&manager, "vol"), 9 * BLOCK, name.as_bytes());
        assert!(complete(
            &manager.make_backup(new_backup("vol", name)).unwrap()
        ));
    }
    let listed = json(&rig.alone(&["list"]));
    assert_eq!(listed.as_array().unwrap().len(), 3);
    let address = listed[0]["address"].as_str().unwrap();
    let shown = json(&rig.alone(&["show", address]));
    assert_eq!(
        (&shown["name"], &shown["volume"]),
        (&"b1".into(), &"vol".into())
    );
    let table = rig.alone(&["list", "-o", "table", "--volume", "vol"]);
    assert!(
        command::words(&table).contains("SNAPSHOT OF"),
        "{}",
        command::words(&table)
    );
    assert_eq!(
        rig.alone(&["show", "--volume", "vol", "--name", "nope"])
            .status
            .code(),
        Some(1)
    );
    assert_eq!(rig.alone(&["show"]).status.code(), Some(2));
    assert_eq!(
        json(&rig.alone(&["lock", "list", "--volume", "vol"])),
        serde_json::json!([])
    );

    let whole = rig.alone(&["verify", "--volume", "vol", "-o", "table"]);
    assert!(whole.status.success(), "{}", command::words(&whole));
    // One block is cut short, another one is gone.
    let blocks = rig.blocks();
    File::options()
        .write(true)
        .open(&blocks[0])
        .unwrap()
        .set_len(9)
        .unwrap();
    fs::remove_file(&blocks[1]).unwrap();
    let damaged = rig.alone(&["verify"]);
    assert_eq!(
        damaged.status.code(),
        Some(1),
        "{}",
        command::words(&damaged)
    );
    let report: serde_json::Value = serde_json::from_slice(&damaged.stdout).unwrap();
    let of = report[0]["damaged"].as_array().unwrap();
    assert_eq!(of.len(), 2, "{report}");
    assert!(
        of.iter().all(|block| block["uses"].as_u64().unwrap() >= 1),
        "{report}"
    );

    let file = rig.sandbox.path("salvaged");
    let path = file.display().to_string();
    let salvage = [
        "restore",
        "--volume",
        "vol",
        "--name",
        "b1",
        "--salvage",
        "--file",
        &path,
    ];
    let salvaged = rig.alone(&salvage);
    assert_eq!(
        salvaged.status.code(),
        Some(1),
        "{}",
        command::words(&salvaged)
    );
    let said: serde_json::Value = serde_json::from_slice(&salvaged.stdout).unwrap();
    let mut got = fs::read(&file).unwrap();
    assert_eq!(got.len() as u64, SIZE);
    for lost in said["lost"].as_array().unwrap() {
        let start = usize::try_from(lost["offset"].as_u64().unwrap()).unwrap();
        let end = start + usize::try_from(lost["length"].as_u64().unwrap()).unwrap();
        let end = end.min(got.len());
        assert!(got[start..end].iter().all(|byte| *byte == 0));
        got[start..end].copy_from_slice(&bytes[start..end]);
    }
    let at = usize::try_from(9 * BLOCK).unwrap();
    got[at..at + 2].copy_from_slice(&[0, 0]);
    assert!(got == bytes, "all the rest is whole");
    assert_eq!(
        rig.alone(&salvage).status.code(),
        Some(1),
        "nothing is overwritten"
    );

    // What the last snapshot still has is healed.
    let repaired = rig.cli(&manager, &["verify", "--volume", "vol", "--repair"]);
    let report: serde_json::Value = serde_json::from_slice(&repaired.stdout).unwrap();
    let of = report[0]["damaged"].as_array().unwrap();
    let healed = of.iter().filter(|block| block["repaired"] == true).count();
    assert!(healed >= 1, "{report}");
    assert_eq!(repaired.status.success(), healed == of.len(), "{report}");

    let would = rig.alone(&["prune", "--volume", "vol", "--keep-last", "1"]);
    assert!(would.status.success(), "{}", command::words(&would));
    assert!(
        command::words(&would).contains("--yes"),
        "{}",
        command::words(&would)
    );
    assert_eq!(manager.list_backups().unwrap().backups.len(), 3);
    assert_eq!(
        rig.alone(&["prune", "--volume", "vol"]).status.code(),
        Some(2),
        "a rule is needed"
    );
    let none = rig.alone(&["prune", "--volume", "vol", "--keep-last", "0"]);
    assert_eq!(none.status.code(), Some(1), "{}", command::words(&none));
    let gone = rig.alone(&["prune", "--keep-last", "1", "--yes", "-o", "json"]);
    assert!(gone.status.success(), "{}", command::words(&gone));
    let left = manager.list_backups().unwrap().backups;
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].name, "b3");
    let dry = rig.alone(&["gc", "--dry-run", "-o", "json"]);
    assert_eq!(json(&dry)[0]["blocks"], 0);
    for _ in 0..2 {
        let deleted = rig.alone(&["delete", "--volume", "vol", "--name", "b3"]);
        assert!(deleted.status.success(), "{}", command::words(&deleted));
    }
    assert_eq!(rig.blocks(), Vec::<PathBuf>::new());
}

/// The commands of the document, in its order.
#[test]
fn the_commands_of_the_document_work_as_they_are_written() {
    let rig = Rig::plain("backup-document");
    let manager = rig.start();
    rig.volume(&manager, "pvc-1");
    let text = fs::read_to_string(sources().join("docs/backup.md")).unwrap();
    let commands = text.lines().filter_map(|line| {
        let command = line.trim().strip_prefix("backing-image-manager backup ")?;
        Some(
            command
                .split('#')
                .next()
                .unwrap()
                .replace("VOLUME", "pvc-1"),
        )
    });
    let mut ran = Vec::new();
    for command in commands {
        let arguments: Vec<&str> = command.split_whitespace().collect();
        let output = rig.cli(&manager, &arguments);
        assert!(
            output.status.success(),
            "{command}: {}",
            command::words(&output)
        );
        ran.push(arguments[0].to_owned());
    }
    for verb in [
        "create", "list", "show", "restore", "verify", "prune", "gc", "delete", "lock",
    ] {
        assert!(
            ran.iter().any(|ran| ran == verb),
            "{verb} is not in the document: {ran:?}"
        );
    }
}

/// Each target is tried, and what it refuses is said.
#[test]
fn the_doctor_tries_each_target() {
    let rig = Rig::plain("backup-doctor");
    let doctor = |address: &str| {
        let disk = rig.disk.display().to_string();
        let target = format!("nightly={address}");
        let arguments = [
            "doctor",
            "--disk",
            &disk,
            "-o",
            "json",
            "--backup-target",
            &target,
        ];
        let output = command::output(&programs::manager().display().to_string(), arguments);
        let findings: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let mut findings = findings.as_array().unwrap().clone();
        findings.retain(|finding| finding["name"] == "backup-target");
        assert_eq!(findings.len(), 1, "{}", command::words(&output));
        (findings[0].clone(), output.status.code())
    };
    let (good, _) = doctor(&format!("vfs://{}", rig.store.display()));
    assert_eq!(good["level"], "ok", "{good}");
    for step in ["put", "get", "list", "delete"] {
        assert!(good["found"].as_str().unwrap().contains(step), "{good}");
    }
    assert_eq!(rig.blocks(), Vec::<PathBuf>::new());
    let (bad, code) = doctor("vfs:///nowhere/at/all");
    assert_eq!((&bad["level"], code), (&"error".into(), Some(2)), "{bad}");
    assert!(bad["found"].as_str().unwrap().contains("nightly"), "{bad}");
}

/// Who may write where: configured targets, and object stores with credentials of the request.
#[test]
#[expect(
    clippy::too_many_lines,
    reason = "each request beside the one that is refused"
)]
fn an_address_counts_as_a_target_or_with_credentials_which_nobody_sees() {
    let rig = Rig::plain("backup-targets");
    let secret = "hush-hush-0123456789";
    let credentials = rig.sandbox.make_dir("keys/cloud");
    for (key, value) in [
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", secret),
        // Nobody listens there.
        ("AWS_ENDPOINTS", "http://127.0.0.1:1"),
    ] {
        let path = credentials.join(key);
        File::create(&path)
            .unwrap()
            .write_all(format!(" {value}\n").as_bytes())
            .unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    let keys = rig.sandbox.path("keys");
    let options = Options::new(&rig.disk)
        .with(
            "--backup-target",
            format!("default=vfs://{}", rig.store.display()),
        )
        .with("--backup-target", "cloud=s3://bucket@region/path/")
        .with("--backup-credentials", &keys);
    let manager = Manager::start(&rig.sandbox, &options);
    rig.volume(&manager, "vol");
    let asked = |name: &str, address: &str, secret: &str| pb::CreateBackupRequest {
        target: Some(pb::BackupTarget {
            name: name.into(),
            address: address.into(),
            credentials: match secret {
                "" => HashMap::default(),
                secret => [
                    ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
                    ("AWS_SECRET_ACCESS_KEY", secret),
                    ("AWS_ENDPOINTS", "http://127.0.0.1:1"),
                ]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            },
        }),
        ..new_backup("vol", "b1")
    };
    let other = rig.sandbox.make_dir("other");
    let other = format!("vfs://{}", other.display());
    for (name, address, given, code) in [
        ("nope", "", "", Code::FailedPrecondition),
        ("", "s3://other@region/", "", Code::FailedPrecondition),
        ("", other.as_str(), "", Code::FailedPrecondition),
        ("", other.as_str(), secret, Code::FailedPrecondition),
        (
            "",
            "nfs://127.0.0.1:/export",
            secret,
            Code::FailedPrecondition,
        ),
        ("", "gopher://x", secret, Code::InvalidArgument),
        (
            "cloud",
            "s3://bucket@region/path/",
            "",
            Code::InvalidArgument,
        ),
    ] {
        let refused = manager
            .create_backup(asked(name, address, given))
            .unwrap_err();
        assert_eq!(refused.code(), code, "{name} {address}: {refused:?}");
        assert!(!refused.message().contains(secret), "{refused:?}");
    }
    // Nothing was written anywhere.
    assert_eq!(fs::read_dir(rig.sandbox.path("other")).unwrap().count(), 0);
    for request in [
        asked("cloud", "", ""),
        asked("", "s3://bucket@region/path/", ""),
        asked("", "s3://another@region/path/", secret),
    ] {
        let failed = manager.make_backup(request).unwrap();
        assert_eq!(failed.state(), pb::BackupState::Failed, "{failed:?}");
        assert_eq!(failed.failure_code, Code::Unavailable as u32, "{failed:?}");
        assert!(!failed.message.contains(secret), "{}", failed.message);
    }
    let log = manager.process.log();
    assert!(
        !log.contains(secret) && log.contains("white space"),
        "{log}"
    );
    for entry in fs::read_dir(rig.disk.join("backing-images")).unwrap() {
        let directory = entry.unwrap().path();
        let sidecar = fs::read_to_string(directory.join("backing.cfg")).unwrap_or_default();
        assert!(!sidecar.contains(secret), "{sidecar}");
    }

    // A wrong address ends the daemon; a store that is not there does not.
    let target = |address: &str| {
        let options = Options::new(&rig.disk).with("--backup-target", format!("default={address}"));
        Manager::spawn(&rig.sandbox, &options)
    };
    drop(manager);
    let mut wrong = target("gopher://x");
    assert_eq!(
        wrong.process.wait_end().code(),
        Some(2),
        "{}",
        wrong.process.log()
    );
    let mut away = target("vfs:///nowhere/at/all");
    away.wait_ready();
    let refused = away.list_backups().unwrap_err();
    assert!(refused.message().contains("/nowhere/at/all"), "{refused:?}");
}

/// What Longhorn's library wrote is restored through the command line, bit for bit: a backing image, and then
/// the volumes, one of which lies on it.
#[test]
fn stores_of_longhorn_are_restored_by_the_command_line() {
    let rig = Rig::plain("backup-longhorn");
    let store = longhorn_store(&rig.sandbox);
    let target = format!("default=vfs://{}", store.display());
    let options = Options::new(&rig.disk).with("--backup-target", &target);
    let manager = Manager::start(&rig.sandbox, &options);
    let listed = manager.list_backups().unwrap();
    assert_eq!(listed.problems, [""; 0]);
    let expected = fs::read(sources().join("crates/backup/tests/data/expected.json")).unwrap();
    let expected: serde_json::Value = serde_json::from_slice(&expected).unwrap();
    let all = ["backing_images", "volumes"].map(|kind| expected[kind].as_array().unwrap());
    let mut restored = 0;
    for (number, item) in all.into_iter().flatten().enumerate() {
        let address = format!("vfs://{}{}", store.display(), item["url"].as_str().unwrap());
        let name = format!("restored-{number}");
        let output = manager.cli("backup", &["restore", &address, "--image", &name]);
        assert!(output.status.success(), "{}", command::words(&output));
        let bytes = rig.image(&manager.image(&name).unwrap());
        let size = usize::try_from(item["size"].as_u64().unwrap()).unwrap();
        let (bytes, rest) = bytes.split_at(size);
        assert!(rest.iter().all(|byte| *byte == 0), "{address}");
        let file = rig.sandbox.write("restored", bytes).display().to_string();
        let sum = command::run("sha256sum", [&file]);
        assert_eq!(sum.split(' ').next(), item["sha256"].as_str(), "{address}");
        restored += 1;
    }
    assert!(restored >= 9, "{restored}");
}

/// The store that Longhorn's library wrote, unpacked.
fn longhorn_store(sandbox: &Sandbox) -> PathBuf {
    let packed = sources().join("crates/backup/tests/data/backup-fixtures.tar.gz");
    let into = sandbox.make_dir("fixtures");
    let [packed, dir] = [&packed, &into].map(|path| path.display().to_string());
    command::run("tar", ["-xzf", &packed, "-C", &dir]);
    into.join("longhorn-store")
}

/// The backup of a backing image, as Longhorn's control plane has it made and asks about it; and its ways to
/// restore it.
#[test]
fn longhorns_control_plane_backs_up_an_image_and_restores_it() {
    let rig = Rig::plain("backup-bim");
    let manager = rig.start();
    let bytes = noise(5, 5 * MIB);
    let file = rig.sandbox.write("import/img.raw", &bytes);
    let image = manager.make_image(from_file("img", &file)).unwrap();
    let target = format!("vfs://{}", rig.store.display());
    let request = bim::BackupCreateRequest {
        name: "img".into(),
        uuid: image.uuid.clone(),
        checksum: image.current_checksum.clone(),
        backup_target: target.clone(),
        labels: vec!["from=test".into()],
        compression_method: "lz4".into(),
        concurrent_limit: 2,
        ..Default::default()
    };
    let status = || {
        let request = bim::BackupStatusRequest { name: "img".into() };
        block_on(manager.longhorn().backup_status(request)).map(tonic::Response::into_inner)
    };
    assert!(status().unwrap_err().message().contains("not found"));
    let create = |request| block_on(manager.longhorn().backup_create(request));
    let wrong = bim::BackupCreateRequest {
        checksum: "0".repeat(128),
        ..request.clone()
    };
    create(wrong).unwrap();
    let ended = || {
        wait::until("the backup of the image has ended", || {
            let now = status().unwrap();
            (now.state != "in_progress").then_some(now)
        })
    };
    let failed = ended();
    assert_eq!(failed.state, "error");
    assert!(failed.error.contains("checksum"), "{failed:?}");
    create(request).unwrap();
    let done = ended();
    assert_eq!((&*done.state, done.progress), ("complete", 100), "{done:?}");
    assert_eq!(done.backup_url, format!("{target}?backingImage=img"));

    let path = |id: &str| rig.disk.join(format!("backing-images/{id}/backing"));
    let file_path = path("one-uuid-one").display().to_string();
    let parameters = [
        ("backup-url", &*done.backup_url),
        ("file-path", &file_path),
        ("uuid", "uuid-one"),
        ("concurrent-limit", "2"),
    ];
    let files = manager.files();
    files.create("restoreFromBackupURL", &parameters).unwrap();
    let ready = files.wait_ready(&file_path);
    assert_eq!(ready["currentChecksum"], image.current_checksum);
    assert!(fs::read(&file_path).unwrap() == bytes);
    let refused = files
        .create("restoreFromBackupURL", &parameters[..3])
        .unwrap_err();
    assert!(refused.contains("concurrent-limit"), "{refused}");

    let configured = format!("store={target}");
    let url = format!("backup-url={}", done.backup_url);
    let more = [
        "--backup-target",
        &configured,
        "--parameters",
        &url,
        "--parameters",
        "concurrent-limit=2",
    ];
    let mut source = DataSource::start(
        &rig.sandbox,
        &rig.disk,
        "two",
        "restore",
        "127.0.0.1",
        &more,
    );
    let ready = source.wait_state("ready-for-transfer");
    assert_eq!(ready["currentChecksum"], image.current_checksum);
    source.process.terminate();
}
