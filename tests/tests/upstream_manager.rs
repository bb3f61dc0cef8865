//! The cases of Longhorn's own `pkg/manager` tests, under their names, against the built program. What
//! they do with 1 GiB is done with less here: sizes prove nothing that these cases are about.
#![allow(
    non_snake_case,
    clippy::unwrap_used,
    reason = "the names are upstream's; a panic with its cause is a test's result"
)]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use e2e::longhorn::{Files, assert_sidecar_agrees, spec};
use e2e::manager::{Options, init_disk};
use e2e::server::{HttpServer, Reply};
use e2e::{Manager, Sandbox, block_on, command};
use proto::bimrpc as pb;
use serde_json::{Value, json};
use tonic::Code;

const MIB: u64 = 1 << 20;

type Images = std::collections::HashMap<String, pb::BackingImageResponse>;

struct Side {
    manager: Manager,
    disk: PathBuf,
}

fn side(sandbox: &Sandbox, name: &str) -> Side {
    let disk = sandbox.make_dir(format!("disk-{name}"));
    init_disk(&disk);
    let mut options = Options::new(&disk).with("--allow-address", "127.0.0.0/8");
    name.clone_into(&mut options.name);
    let manager = Manager::start(sandbox, &options);
    Side { manager, disk }
}

impl Side {
    fn file(&self, name: &str, uuid: &str) -> PathBuf {
        self.disk
            .join(format!("backing-images/{name}-{uuid}/backing"))
    }

    fn files(&self) -> Files {
        self.manager.files()
    }

    /// The name or the uuid cannot be fetched again.
    #[track_caller]
    fn assert_taken(&self, name: &str, uuid: &str) {
        let again = self.manager.fetch(spec(name, uuid, MIB, ""), "");
        let status = again.unwrap_err();
        assert!(status.message().contains("already exists"), "{status}");
    }

    /// Waits until an image is ready, and sees that all three faces and the disk say the same of it.
    #[track_caller]
    fn wait_ready(&self, name: &str, uuid: &str) -> Value {
        let path = self.file(name, uuid);
        let file = self.files().wait_ready(&path.display().to_string());
        let sidecar = std::fs::read(path.with_extension("cfg")).unwrap();
        assert_sidecar_agrees(&file, &serde_json::from_slice(&sidecar).unwrap());
        let image = self.manager.longhorn_get(name, uuid).unwrap();
        let (spec, status) = (image.spec.unwrap(), image.status.unwrap());
        assert_eq!((status.state.as_str(), status.progress), ("ready", 100));
        assert_eq!(file["size"], spec.size);
        assert_eq!(file["currentChecksum"], status.checksum);
        file
    }

    fn list(&self) -> Images {
        self.manager.longhorn_list()
    }

    #[track_caller]
    fn assert_gone(&self, name: &str, uuid: &str) {
        let status = self.manager.longhorn_get(name, uuid).unwrap_err();
        assert_eq!(status.code(), Code::NotFound);
        let file = self.file(name, uuid);
        assert!(!file.exists() && !file.parent().unwrap().exists());
    }
}

/// Bytes that no two images of these tests have in common.
fn write(path: &Path, seed: u64, size: u64) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let file = File::create(path).unwrap();
    let mut state = seed | 1;
    for offset in (0..size).step_by(65536) {
        let words = (0..8192).flat_map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state.to_le_bytes()
        });
        let bytes: Vec<u8> = words
            .take(usize::try_from((size - offset).min(65536)).unwrap())
            .collect();
        file.write_all_at(&bytes, offset).unwrap();
    }
}

fn sha512(path: &Path) -> String {
    command::run("sha512sum", [path])
        .split(' ')
        .next()
        .unwrap()
        .to_owned()
}

#[test]
fn TestMultipleReuseAndSync() {
    let sandbox = Sandbox::new("reuse");
    let (a, b) = (side(&sandbox, "a"), side(&sandbox, "b"));
    let image = |n: u64| (format!("image-{n}"), format!("{n:08x}"));
    for n in 0..50 {
        let (name, uuid) = image(n);
        write(&a.file(&name, &uuid), n + 1, 256 << 10);
    }
    for n in 0..50 {
        let (name, uuid) = image(n);
        a.manager
            .fetch(spec(&name, &uuid, 256 << 10, ""), "")
            .unwrap();
    }
    let sums: Vec<_> = (0..50)
        .map(|n| {
            let (name, uuid) = image(n);
            let file = a.wait_ready(&name, &uuid);
            file["currentChecksum"].as_str().unwrap().to_owned()
        })
        .collect();
    for (n, sum) in (0..).zip(&sums) {
        let (name, uuid) = image(n);
        b.manager
            .sync(spec(&name, &uuid, 256 << 10, sum), &a.manager)
            .unwrap();
    }
    for (n, sum) in (0..).zip(&sums) {
        let (name, uuid) = image(n);
        let file = b.wait_ready(&name, &uuid);
        assert_eq!(file["currentChecksum"], *sum);
    }
    for side in [&a, &b] {
        let list = side.list();
        assert_eq!(list.len(), 50);
        let ready = |image: &pb::BackingImageResponse| {
            image
                .status
                .as_ref()
                .is_some_and(|status| status.state == "ready")
        };
        assert!(list.values().all(ready));
    }
}

/// A data source that has prepared this file.
fn data_source(file: &Path, uuid: &str) -> (HttpServer, String) {
    let info = json!({
        "sourceType": "upload", "parameters": {}, "name": "x", "uuid": uuid,
        "filePath": file.display().to_string(), "state": "ready-for-transfer", "progress": 100,
    });
    let server = HttpServer::start(move |request| match request.method.as_str() {
        "GET" => Reply::ok(info.to_string()),
        _ => Reply::ok(""),
    });
    let address = server
        .url("")
        .trim_start_matches("http://")
        .trim_end_matches('/')
        .to_owned();
    (server, address)
}

#[test]
fn TestSingleBackingImageFetch() {
    let sandbox = Sandbox::new("fetch");
    let a = side(&sandbox, "a");
    for round in 0..5 {
        let prepared = a.disk.join("tmp/image-0000f00d");
        write(&prepared, round + 7, MIB);
        let sum = sha512(&prepared);
        let (_server, address) = data_source(&prepared, "0000f00d");
        a.manager
            .fetch(spec("image", "0000f00d", MIB, &sum), &address)
            .unwrap();
        let file = a.wait_ready("image", "0000f00d");
        assert_eq!(file["currentChecksum"], sum);
        assert!(!prepared.exists() && a.file("image", "0000f00d").is_file());
        a.manager.longhorn_delete("image", "0000f00d").unwrap();
        a.assert_gone("image", "0000f00d");
    }
}

/// What a data source has not ready is not taken, and stays.
#[test]
fn a_file_that_is_not_ready_or_another_is_not_taken_over() {
    let sandbox = Sandbox::new("fetch-not");
    let a = side(&sandbox, "a");
    let prepared = a.disk.join("tmp/image-0000f00d");
    write(&prepared, 3, MIB);
    for (uuid, state) in [
        ("0000f00d", "in-progress"),
        ("0000f00e", "ready"),
        ("0000f00d", "failed"),
    ] {
        let info =
            json!({"uuid": uuid, "filePath": prepared.display().to_string(), "state": state});
        let server = HttpServer::start(move |_| Reply::ok(info.to_string()));
        let address = server
            .url("")
            .trim_start_matches("http://")
            .trim_end_matches('/')
            .to_owned();
        let status = a
            .manager
            .fetch(spec("image", "0000f00d", MIB, ""), &address)
            .unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    }
    assert!(prepared.is_file());
    assert!(a.list().is_empty());
}

#[test]
fn TestSingleBackingImageSync() {
    let sandbox = Sandbox::new("sync");
    let (a, b) = (side(&sandbox, "a"), side(&sandbox, "b"));
    let size = 64 * MIB;
    write(&a.file("image", "0000cafe"), 11, size);
    let sum = sha512(&a.file("image", "0000cafe"));
    a.manager
        .fetch(spec("image", "0000cafe", size, ""), "")
        .unwrap();
    a.wait_ready("image", "0000cafe");
    for _ in 0..2 {
        b.manager
            .sync(spec("image", "0000cafe", size, &sum), &a.manager)
            .unwrap();
        let file = b.wait_ready("image", "0000cafe");
        assert_eq!(file["currentChecksum"], sum);
        assert_eq!(sha512(&b.file("image", "0000cafe")), sum);
        b.manager.longhorn_delete("image", "0000cafe").unwrap();
        b.assert_gone("image", "0000cafe");
    }
}

#[test]
fn TestBackingImageDownloadToLocal() {
    let sandbox = Sandbox::new("local");
    let a = side(&sandbox, "a");
    write(&a.file("image", "0000beef"), 13, 4 * MIB);
    let sum = sha512(&a.file("image", "0000beef"));
    a.manager
        .fetch(spec("image", "0000beef", 4 * MIB, ""), "")
        .unwrap();
    a.wait_ready("image", "0000beef");
    let request = pb::PrepareDownloadRequest {
        name: "image".into(),
        uuid: "0000beef".into(),
    };
    let prepared = block_on(a.manager.longhorn().prepare_download(request))
        .unwrap()
        .into_inner();
    assert_eq!(
        prepared.src_file_path,
        a.file("image", "0000beef").display().to_string()
    );
    assert_eq!(prepared.address, a.manager.sync_address().to_string());
    let packed = Files {
        address: prepared.address,
    }
    .download(&prepared.src_file_path, "", &[]);
    assert_eq!(
        packed.header("content-disposition"),
        Some("attachment; filename=image.gz")
    );
    let packed = sandbox.write("image.gz", &packed.body);
    let unpacked = command::run(
        "sh",
        ["-c", &format!("gunzip -c {} | sha512sum", packed.display())],
    );
    assert!(unpacked.starts_with(&sum));
}

#[test]
fn TestDuplicateCalls() {
    let sandbox = Sandbox::new("duplicate");
    let (a, b) = (side(&sandbox, "a"), side(&sandbox, "b"));
    write(&a.file("image", "0000dddd"), 17, MIB);
    write(&b.file("image", "0000dddd"), 17, MIB);
    a.manager
        .fetch(spec("image", "0000dddd", MIB, ""), "")
        .unwrap();
    a.wait_ready("image", "0000dddd");
    let from = a.manager.address().to_string();
    let calls = (0..100).map(|n| {
        let (mut service, from) = (b.manager.longhorn(), from.clone());
        async move {
            let spec = Some(spec("image", "0000dddd", MIB, ""));
            if n % 2 == 0 {
                let data_source_address = String::new();
                service
                    .fetch(pb::FetchRequest {
                        spec,
                        data_source_address,
                    })
                    .await
            } else {
                let from_address = from;
                service.sync(pb::SyncRequest { spec, from_address }).await
            }
        }
    });
    let calls: Vec<_> = block_on(async {
        let running: Vec<_> = calls.map(tokio::spawn).collect();
        let mut ended = Vec::new();
        for call in running {
            ended.push(call.await.unwrap());
        }
        ended
    });
    let refused = calls.iter().filter_map(|call| call.as_ref().err());
    let refused: Vec<_> = refused.map(|status| status.message().to_owned()).collect();
    assert_eq!(refused.len(), 99);
    assert!(
        refused.iter().all(|text| text.contains("already exists")),
        "{refused:?}"
    );
    b.wait_ready("image", "0000dddd");
    // The uuid is taken as well.
    b.assert_taken("other", "0000dddd");
}

/// What failed is "already exists" too, until it is deleted; what a restart found is taken over once.
#[test]
fn the_registry_keeps_what_failed_and_finds_again_what_is_ready() {
    let sandbox = Sandbox::new("registry");
    let mut a = side(&sandbox, "a");
    a.manager
        .fetch(spec("gone", "00000404", MIB, ""), "")
        .unwrap();
    let path = a.file("gone", "00000404").display().to_string();
    a.files().wait(&path, &["failed"]);
    a.assert_taken("gone", "00000404");
    a.manager.longhorn_delete("gone", "00000404").unwrap();
    write(&a.file("gone", "00000404"), 19, MIB);
    a.manager
        .fetch(spec("gone", "00000404", MIB, ""), "")
        .unwrap();
    let sum = a.wait_ready("gone", "00000404")["currentChecksum"].clone();
    a.manager.process.kill_9();
    let mut options = Options::new(&a.disk);
    "a".clone_into(&mut options.name);
    a.manager = Manager::start(&sandbox, &options);
    // The control plane deletes what it is shown and does not carry yet: it is shown nothing until it
    // asks, and what it asks for is ready at once.
    assert!(a.list().is_empty());
    let all = a.manager.longhorn_list_all();
    assert_eq!(all["gone"].status.as_ref().unwrap().state, "ready");
    let sum = sum.as_str().unwrap();
    let fetched = a.manager.fetch(spec("gone", "00000404", MIB, sum), "");
    assert_eq!(fetched.unwrap().status.unwrap().state, "ready");
    assert_eq!(a.list()["gone"].status.as_ref().unwrap().state, "ready");
    e2e::wait::until("the sidecar expects the checksum", || {
        let file = a.files().get(&path)?;
        (file["expectedChecksum"] == *sum).then_some(())
    });
    a.wait_ready("gone", "00000404");
    a.assert_taken("gone", "00000404");
}

/// Of two images of one name `List` shows the one that was asked for last, as the control plane would
/// delete the other for ever under a name that no image has. People see both.
#[test]
fn of_one_name_the_image_that_was_asked_for_last_is_listed() {
    let sandbox = Sandbox::new("names");
    let a = side(&sandbox, "a");
    for (n, uuid) in [(1, "11111111"), (2, "22222222")] {
        write(&a.file("twin", uuid), n, MIB);
        a.manager.fetch(spec("twin", uuid, MIB, ""), "").unwrap();
        a.wait_ready("twin", uuid);
    }
    let uuid_of = |list: &Images, key: &str| list[key].spec.as_ref().unwrap().uuid.clone();
    let list = a.list();
    assert_eq!((list.len(), uuid_of(&list, "twin")), (1, "22222222".into()));
    let all = a.manager.longhorn_list_all();
    assert_eq!(all.len(), 2);
    assert_eq!(
        (uuid_of(&all, "twin"), uuid_of(&all, "twin-11111111")),
        ("22222222".into(), "11111111".into())
    );
    a.manager.longhorn_delete("twin", "22222222").unwrap();
    assert_eq!(a.list()["twin"].spec.as_ref().unwrap().uuid, "11111111");
}

/// Watch tells of changes when they happen, and of none when there are none.
#[test]
fn watch_tells_of_changes_at_once() {
    let sandbox = Sandbox::new("watch");
    let a = side(&sandbox, "a");
    write(&a.file("image", "0000aaaa"), 23, MIB);
    block_on(async {
        let mut changes = a.manager.longhorn().watch(()).await.unwrap().into_inner();
        let quiet = tokio::time::timeout(Duration::from_millis(500), changes.message()).await;
        assert!(quiet.is_err(), "a change of nothing");
        let request = pb::FetchRequest {
            spec: Some(spec("image", "0000aaaa", MIB, "")),
            data_source_address: String::new(),
        };
        a.manager.longhorn().fetch(request).await.unwrap();
        for _ in 0..100 {
            let told = tokio::time::timeout(e2e::wait::LONG, changes.message()).await;
            told.expect("told of a change").unwrap().unwrap();
            let list = a.manager.longhorn().list(()).await.unwrap().into_inner();
            if list.backing_images["image"].status.as_ref().unwrap().state == "ready" {
                return;
            }
        }
        panic!("a hundred changes and not ready");
    });
}
