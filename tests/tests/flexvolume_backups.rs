//! Option `fromBackup` of a FlexVolume: a volume that is restored from a backup, where the operator lets pods do that.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs::{self, File};
use std::io::Write as _;

use e2e::flexvolume::Driver;
use e2e::manager::{Options, init_disk, new_backup};
use e2e::{Disk, FileSystem, Manager, Need, Sandbox, needs};

#[test]
fn a_pod_restores_a_backup_where_the_operator_lets_it() {
    needs!(Need::Root, Need::FileSystem("xfs"));
    let sandbox = Sandbox::new("flex-backup");
    let disk = Disk::new(&sandbox, "disk", FileSystem::Xfs, 1 << 30);
    init_disk(disk.dir());
    let store = format!("vfs://{}", sandbox.make_dir("store").display());
    let target = format!("default={store}");
    let options = Options::new(disk.dir()).with("--backup-target", target);
    let manager = Manager::start(&sandbox, &options);
    let at = manager.address().to_string();
    let driver = Driver::install_with(&sandbox, &at, disk.dir(), "");
    let (source, mounted) = driver.mount("a", "source", &[("size", "64Mi")]);
    mounted.success();
    let mut file = File::create(source.join("kept")).unwrap();
    file.write_all(b"what the backup has").unwrap();
    file.sync_all().unwrap();
    drop(file);
    File::open(&source).unwrap().sync_all().unwrap();
    manager.make_backup(new_backup("source", "first")).unwrap();
    fs::remove_file(source.join("kept")).unwrap();
    driver.unmount("a", "source").success();

    let backup = format!("{store}?backup=first&volume=source");
    let options = [("fromBackup", backup.as_str())];
    let (_, refused) = driver.mount("b", "restored", &options);
    refused.failure(&["restore-backups"]);
    let allowed = "restore-backups = true\nimage-wait = \"60s\"";
    let driver = Driver::install_with(&sandbox, &at, disk.dir(), allowed);
    let (restored, mounted) = driver.mount("b", "restored", &options);
    mounted.success();
    assert_eq!(
        fs::read(restored.join("kept")).unwrap(),
        b"what the backup has"
    );
    driver.unmount("b", "restored").success();
    // The next pod gets the same volume, and no other backup is in it.
    driver.mount("c", "restored", &options).1.success();
    driver.unmount("c", "restored").success();
    let other = backup.replace("first", "second");
    let (_, refused) = driver.mount("d", "restored", &[("fromBackup", &other)]);
    refused.failure(&["restored", "first", "second"]);
    let (_, refused) = driver.mount("d", "other", &[("fromBackup", &other)]);
    refused.failure(&["second"]);
    let elsewhere = "s3://bucket@region/path/?backup=back&volume=vol";
    let (_, refused) = driver.mount("e", "other", &[("fromBackup", elsewhere)]);
    refused.failure(&["s3://bucket@region/path/", "--backup-target"]);
    let both = [options[0], ("baseImage", "a:1")];
    let (_, refused) = driver.mount("e", "other", &both);
    refused.failure(&["fromBackup", "baseImage"]);
    driver.assert_nothing_left(&sandbox, disk.dir());
}
