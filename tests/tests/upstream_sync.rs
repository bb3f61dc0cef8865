//! The cases of Longhorn's own `pkg/sync` tests, under their names, against the built program by its
//! REST. Those of ssync are in `ssync.rs`.
#![allow(
    non_snake_case,
    clippy::unwrap_used,
    reason = "the names are upstream's; a panic with its cause is a test's result"
)]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use e2e::longhorn::{Files, assert_sidecar_agrees};
use e2e::manager::{Options, init_disk};
use e2e::noise::noise;
use e2e::server::{HttpServer, Reply};
use e2e::{Manager, Need, Sandbox, command, needs};
use serde_json::Value;

struct Server {
    manager: Manager,
    files: Files,
    disk: PathBuf,
    uuid: String,
}

fn server(sandbox: &Sandbox) -> Server {
    let disk = sandbox.make_dir("disk");
    init_disk(&disk);
    let options = Options::new(&disk).with("--allow-address", "127.0.0.0/8");
    let manager = Manager::start(sandbox, &options);
    let files = manager.files();
    let uuid = manager.disk().unwrap().uuid;
    Server {
        manager,
        files,
        disk,
        uuid,
    }
}

impl Server {
    fn path(&self, id: &str) -> String {
        self.disk
            .join(format!("backing-images/{id}/backing"))
            .display()
            .to_string()
    }

    fn download(&self, id: &str, uuid: &str, url: &str) -> Result<(), String> {
        let path = self.path(id);
        let parameters = [
            ("file-path", path.as_str()),
            ("uuid", uuid),
            ("disk-uuid", &self.uuid),
            ("expected-checksum", ""),
            ("url", url),
            ("data-engine", "v1"),
        ];
        self.files.create("downloadFromURL", &parameters)
    }

    /// Waits until a file is ready, and sees that its sidecar says the same of it.
    #[track_caller]
    fn wait_ready(&self, id: &str) -> Value {
        let path = self.path(id);
        let file = self.files.wait_ready(&path);
        let sidecar = std::fs::read(format!("{path}.cfg")).unwrap();
        assert_sidecar_agrees(&file, &serde_json::from_slice(&sidecar).unwrap());
        file
    }

    fn adopt(&self, id: &str, uuid: &str) -> Result<(), String> {
        let path = self.path(id);
        self.files
            .fetch(&path, &path, uuid, &[("disk-uuid", &self.uuid)])
    }
}

fn write(path: impl AsRef<Path>, byte: u8, size: usize) {
    let path = path.as_ref();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .unwrap();
    file.write_all_at(&vec![byte; size], 0).unwrap();
    file.sync_all().unwrap();
}

#[test]
fn BenchmarkMultipleDownload() {
    let sandbox = Sandbox::new("downloads");
    let server = server(&sandbox);
    let mock = HttpServer::start(|_| Reply::ok(vec![7; 4096]));
    let names: Vec<_> = (0..100)
        .map(|n| (format!("image-{n:04x}"), format!("{n:04x}")))
        .collect();
    for (id, uuid) in &names {
        server.download(id, uuid, &mock.url("/image")).unwrap();
    }
    for (id, _) in &names {
        assert_eq!(server.wait_ready(id)["size"], 4096);
        server.files.act(&server.path(id), "forget").unwrap();
        assert!(server.files.get(&server.path(id)).is_none());
    }
    assert_eq!(server.files.list(), serde_json::json!({}));
}

/// The place of an image of the name, with an empty qcow2 file in it.
fn empty_qcow2(server: &Server, name: &str, size: &str) -> String {
    let path = server.path(name);
    std::fs::create_dir_all(Path::new(&path).parent().unwrap()).unwrap();
    command::run("qemu-img", ["create", "-q", "-f", "qcow2", &path, size]);
    path
}

#[test]
fn TestDownloadToDst() {
    needs!(Need::Tool("qemu-img"));
    let sandbox = Sandbox::new("to-dst");
    let server = server(&sandbox);
    let path = empty_qcow2(&server, "image-0000abcd", "64M");
    command::run("qemu-io", ["-f", "qcow2", "-c", "write -P 7 1M 8M", &path]);
    let sum = command::run("sha512sum", [&path]);
    server.adopt("image-0000abcd", "0000abcd").unwrap();
    let file = server.wait_ready("image-0000abcd");
    assert!(sum.starts_with(file["currentChecksum"].as_str().unwrap()));
    assert_eq!(file["virtualSize"], 64 << 20);
    let packed = sandbox.write("got.gz", server.files.download(&path, "", &[]).body);
    command::run("gunzip", [&packed]);
    let got = sandbox.path("got");
    assert_eq!(command::run("sha512sum", [&got])[..128], sum[..128]);
    let info = command::run(
        "qemu-img",
        ["info".as_ref(), "--output=json".as_ref(), got.as_os_str()],
    );
    assert!(info.contains("\"format\": \"qcow2\""), "{info}");
}

/// What our addition to the download gives: any part of the bytes, and a way to be sure that they
/// are of the same image.
#[test]
fn a_raw_download_goes_on_where_it_broke() {
    let sandbox = Sandbox::new("ranges");
    let server = server(&sandbox);
    let path = server.path("image-0000abce");
    write(&path, 9, 1 << 20);
    server.adopt("image-0000abce", "0000abce").unwrap();
    let file = server.wait_ready("image-0000abce");
    let query = "?forV2Creation=true";
    let whole = server.files.download(&path, query, &[]);
    assert_eq!((whole.status, whole.body.len()), (200, 1 << 20));
    let tag = whole.header("etag").unwrap().to_owned();
    assert_eq!(
        tag.trim_matches('"'),
        file["currentChecksum"].as_str().unwrap()
    );
    let headers = [("Range", "bytes=1048000-"), ("If-Range", tag.as_str())];
    let rest = server.files.download(&path, query, &headers);
    assert_eq!((rest.status, rest.body.len()), (206, 576));
    assert_eq!(
        rest.header("content-range"),
        Some("bytes 1048000-1048575/1048576")
    );
    let other = server.files.download(
        &path,
        query,
        &[("Range", "bytes=0-1"), ("If-Range", "\"x\"")],
    );
    assert_eq!((other.status, other.body.len()), (200, 1 << 20));
    let beyond = server
        .files
        .download(&path, query, &[("Range", "bytes=1048576-")]);
    assert_eq!(beyond.status, 416);
}

/// Sends the part `chunk` of a form; the answer comes when all of it was taken.
fn upload(server: &Server, id: &str, bytes: &[u8], checksum: &str) -> Result<(), String> {
    let (path, size) = (server.path(id), bytes.len().to_string());
    let parameters = [
        ("file-path", path.as_str()),
        ("uuid", id.rsplit('-').next().unwrap()),
        ("disk-uuid", &server.uuid),
        ("expected-checksum", checksum),
        ("size", &size),
    ];
    let begin = "--x\r\nContent-Disposition: form-data; name=\"chunk\"; filename=\"blob\"\r\n\r\n";
    let form = [begin.as_bytes(), bytes, b"\r\n--x--\r\n"].concat();
    let kind = [("Content-Type", "multipart/form-data; boundary=x")];
    server
        .files
        .create_with("upload", &parameters, &kind, &form)
}

/// Upstream's five at once have 1 GiB each.
#[test]
fn BenchmarkUpload() {
    let sandbox = Sandbox::new("uploads");
    let server = server(&sandbox);
    let images: Vec<_> = (0..5_u64)
        .map(|n| {
            let bytes = noise(n, 16 << 20);
            let file = sandbox.write(format!("original-{n}"), &bytes);
            let sum = command::run("sha512sum", [&file])[..128].to_owned();
            (format!("image-0000bb1{n}"), bytes, sum)
        })
        .collect();
    std::thread::scope(|scope| {
        for (id, bytes, sum) in &images {
            scope.spawn(|| upload(&server, id, bytes, sum).unwrap());
        }
    });
    for (id, bytes, sum) in &images {
        let file = server.wait_ready(id);
        assert_eq!(
            (&file["currentChecksum"], &file["expectedChecksum"]),
            (&sum.as_str().into(), &sum.as_str().into())
        );
        assert!(std::fs::read(server.path(id)).unwrap() == *bytes);
    }
}

/// A file that is there is taken over, with what is known of it and without, where it is and from a
/// data source's place; a missing one fails; a deletion leaves neither file nor sidecar.
#[test]
fn TestFetch() {
    let sandbox = Sandbox::new("fetch");
    let server = server(&sandbox);
    let id = "image-0000fe01";
    let path = server.path(id);
    let sidecar = format!("{path}.cfg");
    write(&path, 3, 8 << 20);
    let sum = command::run("sha512sum", [&path])[..128].to_owned();
    // Without a sidecar, then with the one that came of it.
    for _ in 0..2 {
        server.adopt(id, "0000fe01").unwrap();
        assert_eq!(server.wait_ready(id)["currentChecksum"], sum.as_str());
        server.files.act(&path, "forget").unwrap();
        assert!(Path::new(&sidecar).is_file());
    }
    // From the place of a data source: with a sidecar, and without.
    for (name, uuid, known) in [("moved", "0000fe02", true), ("bare", "0000fe03", false)] {
        let work = server.disk.join(format!("tmp/{name}-{uuid}"));
        std::fs::create_dir_all(work.parent().unwrap()).unwrap();
        std::fs::copy(&path, &work).unwrap();
        if known {
            std::fs::copy(&sidecar, work.with_extension("cfg")).unwrap();
        }
        let to = server.path(&format!("{name}-{uuid}"));
        let disk = [("disk-uuid", server.uuid.as_str())];
        let work_path = work.display().to_string();
        server.files.fetch(&work_path, &to, uuid, &disk).unwrap();
        let file = server.wait_ready(&format!("{name}-{uuid}"));
        assert_eq!(file["currentChecksum"], sum.as_str());
        assert!(!work.exists() && !work.with_extension("cfg").exists());
        server.files.delete(&to).unwrap();
        assert!(!Path::new(&to).exists() && !Path::new(&format!("{to}.cfg")).exists());
    }
    // There is nothing to take over.
    server.adopt("none-0000fe04", "0000fe04").unwrap();
    let none = server.path("none-0000fe04");
    server.files.wait(&none, &["failed"]);
}

#[test]
fn TestVirtualSizeQcow2() {
    needs!(Need::Tool("qemu-img"));
    let sandbox = Sandbox::new("virtual-qcow2");
    let server = server(&sandbox);
    let path = empty_qcow2(&server, "image-0000ee01", "20G");
    server.adopt("image-0000ee01", "0000ee01").unwrap();
    let file = server.wait_ready("image-0000ee01");
    assert_eq!(file["virtualSize"], 20_u64 << 30);
    let size = std::fs::metadata(&path).unwrap().len();
    assert_eq!(file["size"], size);
    assert!(size < 20 << 30);
}

#[test]
fn TestVirtualSizeRaw() {
    let sandbox = Sandbox::new("virtual-raw");
    let server = server(&sandbox);
    write(server.path("image-0000ee02"), 5, 3 << 20);
    server.adopt("image-0000ee02", "0000ee02").unwrap();
    let file = server.wait_ready("image-0000ee02");
    assert_eq!(
        (&file["virtualSize"], &file["size"]),
        (&(3 << 20).into(), &(3 << 20).into())
    );
}

#[test]
fn TestDuplicateCalls() {
    let sandbox = Sandbox::new("duplicates");
    let server = server(&sandbox);
    let mock = HttpServer::start(|_| Reply::ok(vec![7; 4096]));
    server
        .download("image-0000dd01", "0000dd01", &mock.url("/image"))
        .unwrap();
    for (id, uuid) in [
        ("image-0000dd01", "0000dd01"),
        ("other-0000dd01", "0000dd01"),
    ] {
        let again = server.download(id, uuid, &mock.url("/image")).unwrap_err();
        assert!(again.contains("already exists"), "{again}");
        let path = server.path(id);
        let to = [
            ("file-path", path.as_str()),
            ("uuid", uuid),
            ("disk-uuid", &server.uuid),
            ("size", "4096"),
            ("port", "30999"),
        ];
        let again = server.files.create("receiveFromPeer", &to).unwrap_err();
        assert!(again.contains("already exists"), "{again}");
        let again = upload(&server, id, &[7; 4096], "").unwrap_err();
        assert!(again.contains("already exists"), "{again}");
    }
    server.wait_ready("image-0000dd01");
    for _ in 0..10 {
        server.files.delete(&server.path("image-0000dd01")).unwrap();
        server
            .files
            .act(&server.path("image-0000dd01"), "forget")
            .unwrap();
    }
    assert!(server.files.get(&server.path("image-0000dd01")).is_none());
    assert!(!Path::new(&server.path("image-0000dd01")).exists());
}

#[test]
fn TestForgetFile() {
    let sandbox = Sandbox::new("forget");
    let server = server(&sandbox);
    let path = server.path("image-0000ff01");
    write(&path, 1, 4096);
    server.adopt("image-0000ff01", "0000ff01").unwrap();
    server.wait_ready("image-0000ff01");
    server.files.act(&path, "forget").unwrap();
    assert!(server.files.get(&path).is_none());
    server.files.delete(&path).unwrap();
    assert!(
        Path::new(&path).is_file(),
        "a forgotten file is not deleted"
    );
    // It can be adopted again.
    server.adopt("image-0000ff01", "0000ff01").unwrap();
    server.wait_ready("image-0000ff01");
    server.files.delete(&path).unwrap();
    assert!(!Path::new(&path).exists());
}

#[test]
fn TestReadyFileValidation() {
    let sandbox = Sandbox::new("validation");
    let server = server(&sandbox);
    let path = server.path("image-0000aa01");
    write(&path, 1, 4 << 20);
    server.adopt("image-0000aa01", "0000aa01").unwrap();
    let before = server.wait_ready("image-0000aa01");
    // The same bytes again.
    write(&path, 1, 4 << 20);
    let noticed = server.files.get(&path).unwrap();
    assert_ne!(noticed["state"], "ready");
    let after = server.wait_ready("image-0000aa01");
    assert_eq!(before["currentChecksum"], after["currentChecksum"]);
    assert_ne!(before["modificationTime"], after["modificationTime"]);
    // Other bytes.
    write(&path, 2, 4096);
    let noticed = server.files.get(&path).unwrap();
    assert_ne!(noticed["state"], "ready");
    server.files.wait(&path, &["failed"]);
    let dir = server.disk.join("backing-images");
    let names = std::fs::read_dir(dir).unwrap();
    let names: Vec<_> = names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(
        names.iter().any(|name| name.starts_with(".quarantine-")),
        "{names:?}"
    );
    assert!(server.manager.list_images().is_ok());
}

#[test]
fn TestRemoveReferer() {
    let sandbox = Sandbox::new("referer");
    let server = server(&sandbox);
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = seen.clone();
    let mock = HttpServer::start(move |request| {
        log.lock()
            .unwrap()
            .push(request.header("referer").map(str::to_owned));
        if request.path == "/from" {
            let location = ("Location".to_owned(), "/to".to_owned());
            return Reply {
                status: 302,
                headers: vec![location],
                ..Reply::default()
            };
        }
        Reply::ok(vec![7; 4096])
    });
    server
        .download("image-0000bb01", "0000bb01", &mock.url("/from"))
        .unwrap();
    server.wait_ready("image-0000bb01");
    let seen = seen.lock().unwrap();
    assert!(
        seen.len() >= 2 && seen.iter().all(Option::is_none),
        "{seen:?}"
    );
}

/// Row 32 for paths: a request reaches no file but those of images of the own disk.
#[test]
fn row_32_paths_lead_nowhere_but_to_images_of_this_disk() {
    let sandbox = Sandbox::new("paths");
    let server = server(&sandbox);
    let outside = sandbox.write("outside/backing", [1; 4096]);
    let outside = outside.display().to_string();
    let root = server.disk.display().to_string();
    for path in [
        outside.clone(),
        "/etc/passwd".to_owned(),
        format!("{root}/longhorn-disk.cfg"),
        format!("{root}/backing-images/../../outside/x-0000cc01/backing"),
        format!("{root}/backing-images/x-0000cc01/backing.cfg"),
        format!("{root}/volumes/x-0000cc01/backing"),
        format!("{root}/backing-images/.quarantine-x-0000cc01/backing"),
        "relative-0000cc01".to_owned(),
        String::new(),
    ] {
        let disk = [("disk-uuid", server.uuid.as_str())];
        let refused = server.files.fetch(&path, &path, "0000cc01", &disk);
        assert!(refused.is_err(), "{path:?} was taken");
        let to = server.path("x-0000cc01");
        let moved = server.files.fetch(&path, &to, "0000cc01", &disk);
        if moved.is_ok() {
            server.files.wait(&to, &["failed"]);
            server.files.delete(&to).unwrap();
        }
        if !path.is_empty() {
            server.files.delete(&path).unwrap();
            assert!(server.files.get(&path).is_none());
        }
    }
    assert!(Path::new(&outside).is_file() && Path::new("/etc/passwd").is_file());
    assert!(server.disk.join("longhorn-disk.cfg").is_file());
}
