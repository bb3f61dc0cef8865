//! The stores that Longhorn's library wrote, by the command line: eight backups of volumes and one of an image come
//! back bit for bit, and of 21 stores that somebody has spoilt nothing comes back that is not whole.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use e2e::backup_site::{hostile_stores, longhorn_stores};
use e2e::command::{run, words};
use e2e::manager::{Options, init_disk};
use e2e::{Disk, FileSystem, Manager, Need, Sandbox, needs};
use serde_json::Value;

/// Of the first backup of `vol-gzip`, which all spoilt stores were made from.
const FIRST: &str = "189f45ffbbf130dec24d42901ce01e2cdfde10724932aa7dbc7fca47feefee29";

struct Case {
    manager: Manager,
    disk: Disk,
    stores: PathBuf,
    _sandbox: Sandbox,
}

fn case(name: &str, targets: impl Fn(&Path) -> Vec<(String, PathBuf)>) -> Case {
    let sandbox = Sandbox::new(name);
    let stores = longhorn_stores(&sandbox);
    let disk = Disk::new(&sandbox, "disk", FileSystem::Xfs, 4 << 30);
    init_disk(disk.dir());
    let mut options = Options::new(disk.dir());
    for (name, store) in targets(&stores) {
        options = options.with(
            "--backup-target",
            format!("{name}=vfs://{}", store.display()),
        );
    }
    Case {
        manager: Manager::start(&sandbox, &options),
        disk,
        stores,
        _sandbox: sandbox,
    }
}

impl Case {
    fn restore(&self, target: &str, volume: &str, backup: &str, image: &str) -> Output {
        let names = ["--volume", volume, "--name", backup, "--image", image];
        let command = ["restore", "--target", target].into_iter().chain(names);
        self.manager.cli("backup", &command.collect::<Vec<_>>())
    }

    /// The SHA-256 of a volume of an image.
    fn digest(&self, image: &str) -> String {
        self.manager.create_volume(image, image, 0).unwrap();
        let file = self.disk.dir().join("volumes").join(image).join("volume");
        let said = run("sha256sum", [file.as_os_str()]);
        self.manager.delete_volume(image).unwrap();
        said.split(' ').next().unwrap().to_owned()
    }
}

/// Every file below a directory with its bytes.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.append(&mut contents(&path));
        } else {
            let bytes = fs::read(&path).unwrap();
            found.insert(path, bytes);
        }
    }
    found
}

#[test]
fn row_350_what_longhorn_backed_up_comes_back_bit_for_bit() {
    needs!(Need::Root, Need::FileSystem("xfs"));
    let it = case("longhorn-restore", |stores| {
        vec![("default".to_owned(), stores.join("longhorn-store"))]
    });
    let before = contents(&it.stores);
    let expected = fs::read(it.stores.join("expected.json")).unwrap();
    let expected: Value = serde_json::from_slice(&expected).unwrap();
    // One of the volumes has it as its base.
    let image = &expected["backing_images"][0];
    let address = format!(
        "vfs://{}?backingImage=img-a",
        it.stores.join("longhorn-store").display()
    );
    let made = it
        .manager
        .cli("backup", &["restore", &address, "--image", "img-a"]);
    assert!(made.status.success(), "{}", words(&made));
    let restored = it.manager.image("img-a").unwrap();
    assert_eq!(Some(restored.size), image["size"].as_u64());
    let backups = expected["volumes"].as_array().unwrap();
    assert_eq!(backups.len(), 8);
    std::thread::scope(|scope| {
        for backup in backups {
            let it = &it;
            scope.spawn(move || {
                let url = backup["url"].as_str().unwrap();
                let (name, volume) = url
                    .trim_start_matches("?backup=")
                    .split_once("&volume=")
                    .unwrap();
                let made = it.restore("default", volume, name, name);
                assert!(made.status.success(), "{url}: {}", words(&made));
                let image = it.manager.image(name).unwrap();
                assert_eq!(Some(image.size), backup["restored_size"].as_u64(), "{url}");
                let size = backup["size"].as_u64().unwrap();
                it.manager.create_volume(name, name, 0).unwrap();
                let file = it.disk.dir().join("volumes").join(name).join("volume");
                let bytes = fs::read(file).unwrap();
                let (told, behind) = bytes.split_at(usize::try_from(size).unwrap());
                assert!(
                    behind.iter().all(|byte| *byte == 0),
                    "{url}: bytes behind its end"
                );
                let beside = it.stores.join(name);
                fs::File::create(&beside)
                    .and_then(|mut file| std::io::Write::write_all(&mut file, told))
                    .unwrap();
                let digest = run("sha256sum", [beside.as_os_str()]);
                fs::remove_file(beside).unwrap();
                assert!(
                    digest.starts_with(backup["sha256"].as_str().unwrap()),
                    "{url}"
                );
            });
        }
    });
    assert!(
        before == contents(&it.stores),
        "a restore changes nothing in the store"
    );
}

#[test]
fn row_351_what_is_spoilt_is_refused_by_name_and_what_is_whole_comes_back() {
    needs!(Need::Root, Need::FileSystem("xfs"));
    let it = case("longhorn-hostile", |stores| {
        let names = hostile_stores(stores).into_iter();
        names
            .map(|(name, _)| (name.clone(), stores.join("hostile").join(name)))
            .collect()
    });
    let before = contents(&it.stores);
    let hostile = hostile_stores(&it.stores);
    assert_eq!(hostile.len(), 21);
    std::thread::scope(|scope| {
        for (name, expected) in &hostile {
            let it = &it;
            scope.spawn(move || {
                let made = it.restore(name, "vol-gzip", "backup-00000000000000b1", name);
                let said = words(&made);
                // One of these may be restored if its only odd block fits, and one if the caller knows its size.
                let may = expected.starts_with("restore if") || expected.contains("or restore if");
                if expected.starts_with("restore;") || (may && made.status.success()) {
                    assert!(made.status.success(), "{name}: {said}");
                    assert_eq!(it.digest(name), FIRST, "{name}");
                    return;
                }
                assert!(!made.status.success(), "{name} was restored: {expected}");
                assert!(!said.contains("panicked"), "{name}: {said}");
                assert!(
                    said.contains("vol-gzip") || said.contains("b1"),
                    "{name} is not named: {said}"
                );
                if expected.contains("naming block") || expected.contains("the same (the same)") {
                    assert!(said.contains("offset"), "{name}: {said}");
                }
                assert!(it.manager.create_volume(name, name, 0).is_err(), "{name}");
            });
        }
    });
    let listed = it.manager.list_images().unwrap();
    let ready = listed.iter().filter(|image| image.progress == 100).count();
    assert!(ready >= 4, "{listed:#?}");
    assert!(
        before == contents(&it.stores),
        "a restore changes nothing in the store"
    );
    let log = it.manager.process.log();
    assert!(!log.contains("panicked"), "{log}");
}
