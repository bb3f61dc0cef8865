//! The cases of Longhorn's own `pkg/datasource` tests, under their names, and cases that they lack:
//! interrupted clients, forms from browsers, resumed uploads, exports, clones.
#![allow(
    non_snake_case,
    clippy::unwrap_used,
    reason = "the names are upstream's; a panic with its cause is a test's result"
)]

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use e2e::data_source::{DataSource, Peer};
use e2e::manager::{Options, from_file, init_disk};
use e2e::noise::noise;
use e2e::server::{HttpServer, Reply};
use e2e::ssync::{Connection, Misbehave};
use e2e::{Manager, Sandbox, block_on, command, wait};
use proto::bimrpc as pb;
use proto::bimrpc::backing_image_manager_service_client::BackingImageManagerServiceClient;

const MIB: u64 = 1 << 20;
const MINUTE: Duration = Duration::from_mins(1);

fn disk(sandbox: &Sandbox) -> PathBuf {
    let disk = sandbox.make_dir("disk");
    init_disk(&disk);
    disk
}

fn sha512(path: &Path) -> String {
    command::run("sha512sum", [path])[..128].to_owned()
}

fn curl(arguments: &[&str]) -> (bool, String) {
    let common = [
        "--silent",
        "--show-error",
        "--fail-with-body",
        "--max-time",
        "100",
    ];
    let output = command::output("curl", common.iter().chain(arguments));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.success(), text + &command::words(&output))
}

fn upload_url(source: &DataSource, size: u64) -> String {
    format!(
        "http://{}/v1/file?action=upload&size={size}",
        source.address()
    )
}

#[test]
fn BenchmarkDownload() {
    let sandbox = Sandbox::new("ds-download");
    let disk = disk(&sandbox);
    let server = HttpServer::start(|_| Reply::ok(vec![1; 4096]));
    let url = format!("url={}", server.url("/mock-download"));
    let source = DataSource::start(
        &sandbox,
        &disk,
        "dl",
        "download",
        "127.0.0.1",
        &["--parameters", &url],
    );
    let file = source.wait_state("ready-for-transfer");
    assert_eq!(std::fs::metadata(&source.file).unwrap().len(), 4096);
    assert_eq!(
        (&file["size"], &file["progress"]),
        (&4096.into(), &100.into())
    );
    assert_eq!(file["sourceType"], "download");
    assert_eq!(file["parameters"]["url"], url["url=".len()..]);
    assert_eq!(file["filePath"], source.file.display().to_string());
}

#[test]
fn BenchmarkUpload() {
    let sandbox = Sandbox::new("ds-upload");
    let disk = disk(&sandbox);
    // Upstream: 1 GiB.
    let original = sandbox.write("original", noise(1, 256 * MIB));
    let checksum = sha512(&original);
    let source = DataSource::start(
        &sandbox,
        &disk,
        "up",
        "upload",
        "127.0.0.1",
        &["--checksum", &checksum, "--parameters", "fileType=qcow2"],
    );
    // Pending until its client comes.
    assert_eq!(source.file()["state"], "pending");
    let form = format!("chunk=@{}", original.display());
    let (done, words) = curl(&["-F", &form, &upload_url(&source, 256 * MIB)]);
    assert!(done, "{words}");
    let file = source.wait_state("ready-for-transfer");
    assert_eq!(file["currentChecksum"], checksum);
    command::run("cmp", [&original, &source.file]);
    let (most, _) = source.process.memory();
    assert!(most < 64 * MIB, "{most} bytes of memory");
}

#[test]
fn TestTimeoutExportingFromVolume() {
    let sandbox = Sandbox::new("ds-timeout");
    let disk = disk(&sandbox);
    let parameters = [
        "--parameters",
        "file-type=qcow2",
        "--parameters",
        "sender-address=invalid-addr",
        "--parameters",
        "snapshot-name=invalid-snap",
    ];
    let source = DataSource::start(
        &sandbox,
        &disk,
        "ex",
        "export-from-volume",
        "127.0.0.2",
        &parameters,
    );
    source.wait_state("starting");
    drop(source);
    let source = DataSource::start_with(
        &sandbox,
        &disk,
        ("ex", "export-from-volume"),
        &parameters,
        &[
            ("POD_IP", "127.0.0.2".to_owned()),
            ("TEST_PATIENCE_SECONDS", "1".to_owned()),
        ],
    );
    let file = source.wait_state("failed");
    let message = file["message"].as_str().unwrap();
    assert!(
        message.contains("invalid-addr") || message.contains("timeout waiting"),
        "{message}"
    );
    let (status, _) = source.transfer();
    assert_eq!(status, 500);
    wait::until("nothing is left of it", || {
        let left = std::fs::read_dir(disk.join("tmp")).unwrap().count();
        (left == 0).then_some(())
    });
}

#[test]
fn TestTransfer() {
    let sandbox = Sandbox::new("ds-transfer");
    let disk = disk(&sandbox);
    let server = HttpServer::start(|_| Reply::ok(vec![2; 4096]));
    let url = format!("url={}", server.url("/mock-download"));
    let mut source = DataSource::start(
        &sandbox,
        &disk,
        "tr",
        "download",
        "127.0.0.1",
        &["--parameters", &url],
    );
    source.wait_state("ready-for-transfer");
    assert_eq!(source.transfer().0, 200);
    source.wait_state("ready");
    // Twice is once.
    assert_eq!(source.transfer().0, 200);
    assert_eq!(std::fs::metadata(&source.file).unwrap().len(), 4096);
    assert!(source.process.terminate().success());
    assert_eq!(std::fs::metadata(&source.file).unwrap().len(), 4096);
}

/// The daemon takes the file over by a rename: nothing is copied, and nothing is read again.
#[test]
fn a_daemon_takes_over_what_was_uploaded() {
    let sandbox = Sandbox::new("ds-fetch");
    let disk = disk(&sandbox);
    let manager = Manager::start(&sandbox, &Options::new(&disk));
    let original = sandbox.write("original", noise(2, 3 * MIB));
    let source = DataSource::start(&sandbox, &disk, "up", "upload", "127.0.0.1", &[]);
    let form = format!("chunk=@{}", original.display());
    let (done, words) = curl(&["-F", &form, &upload_url(&source, 3 * MIB)]);
    assert!(done, "{words}");
    source.wait_state("ready-for-transfer");
    let inode = std::fs::metadata(&source.file).unwrap().ino();
    let spec = pb::BackingImageSpec {
        name: "up".into(),
        uuid: "uuid-up".into(),
        size: i64::try_from(3 * MIB).unwrap(),
        ..Default::default()
    };
    let mut client = BackingImageManagerServiceClient::new(manager.channel());
    let fetch = pb::FetchRequest {
        spec: Some(spec),
        data_source_address: source.address().to_string(),
    };
    block_on(client.fetch(fetch)).unwrap();
    let backing = disk.join("backing-images/up-uuid-up/backing");
    wait::until("the image is there", || {
        let image = manager.image("up").ok()?;
        (image.progress == 100).then_some(())
    });
    assert_eq!(std::fs::metadata(&backing).unwrap().ino(), inode);
    assert!(!source.file.exists());
    command::run("cmp", [&original, &backing]);
    assert_eq!(source.file()["state"], "ready");
}

/// A form as a browser makes it: other fields before and behind, a file name that is not plain.
#[test]
fn a_browsers_form_is_taken() {
    let sandbox = Sandbox::new("ds-form");
    let disk = disk(&sandbox);
    let source = DataSource::start(&sandbox, &disk, "form", "upload", "127.0.0.1", &[]);
    let image = noise(3, 65536);
    let boundary = "----WebKitFormBoundary7MA4YWxkTrZu0gW";
    let part = |name: &str, more: &str, bytes: &[u8]| {
        let head = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"{more}\r\n\r\n"
        );
        [head.as_bytes(), bytes, b"\r\n"].concat()
    };
    let body = [
        part("description", "", b"an image, and \r\n-- not a boundary"),
        part(
            "chunk",
            "; filename=\"caf\u{e9} \\\"1\\\".img\"\r\nContent-Type: application/octet-stream",
            &image,
        ),
        part("submit", "", b"Upload"),
        format!("--{boundary}--\r\n").into_bytes(),
    ]
    .concat();
    let kind = format!("multipart/form-data; boundary={boundary}");
    let target = "/v1/file?action=upload&size=65536";
    let (status, words) = source.ask("POST", target, &[("Content-Type", &kind)], &body);
    assert_eq!(status, 200, "{words}");
    source.wait_state("ready-for-transfer");
    assert!(std::fs::read(&source.file).unwrap() == image);
    // Row 30: the second one comes too late.
    let (status, words) = source.ask("POST", target, &[("Content-Type", &kind)], &body);
    assert_eq!(status, 500);
    assert!(words.contains("already exists"), "{words}");
}

/// Rows 30 and 31: more or less than was said, no form, no size, a size that no image has.
#[test]
fn row_30_row_31_uploads_that_are_not_what_they_say() {
    let sandbox = Sandbox::new("ds-wrong");
    let disk = disk(&sandbox);
    let image = sandbox.write("image", noise(4, 8192));
    let form = format!("chunk=@{}", image.display());
    let other = format!("file=@{}", image.display());
    for (number, (part, size, why)) in [
        (&form, "4096", "bytes"),
        (&form, "16384", "received 8192 of 16384 bytes"),
        (&other, "8192", "no part"),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("wrong{number}");
        let source = DataSource::start(&sandbox, &disk, &name, "upload", "127.0.0.1", &[]);
        let url = format!(
            "http://{}/v1/file?action=upload&size={size}",
            source.address()
        );
        let (done, words) = curl(&["-F", part, &url]);
        assert!(!done && words.contains(why), "{part} {size}: {words}");
        source.wait_state("failed");
        assert!(!source.file.exists());
        let mut tmp = source.file.into_os_string();
        tmp.push(".tmp");
        assert!(!Path::new(&tmp).exists());
    }
    let source = DataSource::start(&sandbox, &disk, "right", "upload", "127.0.0.1", &[]);
    for (query, why) in [
        ("", "size"),
        ("&size=0", "size"),
        ("&size=-512", "size"),
        ("&size=1000", "should be a multiple of 512 bytes"),
        ("&size=x", "size"),
    ] {
        let url = format!("http://{}/v1/file?action=upload{query}", source.address());
        let (done, words) = curl(&["-F", &form, &url]);
        assert!(!done && words.contains(why), "{query}: {words}");
    }
    let url = upload_url(&source, 8192);
    let (done, words) = curl(&["--data-binary", &form, &url]);
    assert!(!done && words.contains("multipart/form-data"), "{words}");
    // None of these has taken the place of the right one.
    let (done, words) = curl(&["-F", &form, &url]);
    assert!(done, "{words}");
    source.wait_state("ready-for-transfer");
}

/// Row 30: a client that goes away leaves nothing.
#[test]
fn row_30_a_client_that_dies_is_cleared_up_after() {
    use std::io::Write;

    let sandbox = Sandbox::new("ds-dies");
    let disk = disk(&sandbox);
    let source = DataSource::start(&sandbox, &disk, "dies", "upload", "127.0.0.1", &[]);
    let mut client = std::net::TcpStream::connect(source.address()).unwrap();
    let head = format!(
        "POST /v1/file?action=upload&size={} HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\
         Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n\
         Content-Disposition: form-data; name=\"chunk\"\r\n\r\n",
        64 * MIB
    );
    client.write_all(head.as_bytes()).unwrap();
    client.write_all(&noise(5, 20 * MIB)).unwrap();
    source.wait_state("in-progress");
    let (status, words) = {
        let form = format!("chunk=@{}", sandbox.write("other", noise(6, 512)).display());
        let (done, words) = curl(&["-F", &form, &upload_url(&source, 512)]);
        (done, words)
    };
    assert!(!status && words.contains("already exists"), "{words}");
    drop(client);
    let file = source.wait_state("failed");
    let message = file["message"].as_str().unwrap();
    assert!(
        message.contains("bytes, then the client went away"),
        "{message}"
    );
    assert_eq!(std::fs::read_dir(disk.join("tmp")).unwrap().count(), 0);
}

/// Our own API: an upload goes on where it broke off.
#[test]
fn an_upload_in_pieces_goes_on_where_it_broke_off() {
    use std::io::Write;

    let sandbox = Sandbox::new("ds-pieces");
    let disk = disk(&sandbox);
    let source = DataSource::start(&sandbox, &disk, "parts", "upload", "127.0.0.1", &[]);
    let image = noise(7, 12 * MIB);
    let size = image.len();
    let half = size / 2;
    let put = |offset: usize, bytes: &[u8]| {
        let target = format!("/v2/upload?size={size}&offset={offset}");
        source.ask("PUT", &target, &[], bytes)
    };
    assert_eq!(put(5, &image[5..9]).0, 409);
    assert_eq!(put(0, &image[..half]).0, 200);
    let headers = source.ask("HEAD", "/v2/upload", &[], b"").1;
    assert!(
        headers.contains(&format!("upload-offset: {half}")),
        "{headers}"
    );
    assert!(
        headers.contains(&format!("upload-length: {size}")),
        "{headers}"
    );
    // A wrong place is told the right one.
    assert_eq!(put(half - 1, &image[half..half + 4]).0, 409);
    // A connection that breaks: what has come stays.
    let mut client = std::net::TcpStream::connect(source.address()).unwrap();
    let head = format!(
        "PUT /v2/upload?size={size}&offset={half} HTTP/1.1\r\nHost: x\r\nContent-Length: {half}\r\n\r\n"
    );
    client.write_all(head.as_bytes()).unwrap();
    client.write_all(&image[half..half + 1_000_000]).unwrap();
    drop(client);
    let offset = wait::until("the broken request has ended", || {
        let headers = source.ask("HEAD", "/v2/upload", &[], b"").1;
        let mut lines = headers.lines();
        let offset = lines.find_map(|line| line.strip_prefix("upload-offset: "))?;
        let offset: usize = offset.parse().unwrap();
        let busy = put(offset, &[]).0 == 409;
        (offset > half && !busy).then_some(offset)
    });
    assert!(offset <= half + 1_000_000);
    // More than was said is refused, and ends it; so this is the last piece exactly.
    assert_eq!(put(offset, &image[offset..]).0, 200);
    source.wait_state("ready-for-transfer");
    assert!(std::fs::read(&source.file).unwrap() == image);
}

/// Row 31: a raw image of an odd size is padded, and its sum is that of what came.
#[test]
fn row_31_an_upload_in_pieces_of_an_odd_size_is_padded() {
    let sandbox = Sandbox::new("ds-odd");
    let disk = disk(&sandbox);
    let original = sandbox.write("odd", noise(12, 70_001));
    let sum = sha512(&original);
    let more = ["--checksum", &sum];
    let source = DataSource::start(&sandbox, &disk, "odd", "upload", "127.0.0.1", &more);
    let bytes = std::fs::read(&original).unwrap();
    let (status, words) = source.ask("PUT", "/v2/upload?size=70001&offset=0", &[], &bytes);
    assert_eq!(status, 200, "{words}");
    let file = source.wait_state("ready-for-transfer");
    assert_eq!(file["size"], 70_144);
    let padded = std::fs::read(&source.file).unwrap();
    assert!(padded[..70_001] == bytes && padded[70_001..].iter().all(|byte| *byte == 0));
}

/// A snapshot of a volume, flattened, as a replica pushes it: raw and qcow2.
#[test]
fn an_export_is_taken_raw_or_made_qcow2() {
    let sandbox = Sandbox::new("ds-export");
    let disk = disk(&sandbox);
    let volume = sandbox.write("volume", noise(8, 5 * MIB));
    let file = File::options().write(true).open(&volume).unwrap();
    file.set_len(64 * MIB).unwrap();
    file.write_all_at(&noise(9, 4096), 40 * MIB).unwrap();
    let data = [0..5 * MIB, 40 * MIB..40 * MIB + 4096];
    let replica = Peer::new(&volume, &data, Misbehave::default());
    let address = replica.serve_as_replica();
    for (name, kind) in [("raw", "raw"), ("qcow", "qcow2")] {
        let parameters = [
            "snapshot-name=snap".to_owned(),
            format!("sender-address={address}"),
            format!("file-type={kind}"),
            format!("volume-size={}", 64 * MIB),
        ];
        let more: Vec<_> = parameters
            .iter()
            .flat_map(|p| ["--parameters", p])
            .collect();
        let source = DataSource::start(
            &sandbox,
            &disk,
            name,
            "export-from-volume",
            "127.0.0.3",
            &more,
        );
        let file = source.wait_state("ready-for-transfer");
        let convert = ["compare", "-f", "raw", "-F", kind].map(AsRef::as_ref);
        command::run(
            "qemu-img",
            convert
                .into_iter()
                .chain([volume.as_os_str(), source.file.as_os_str()]),
        );
        assert_eq!(file["virtualSize"], 64 * MIB);
        let real = file["realSize"].as_u64().unwrap();
        assert!(real < 8 * MIB, "{real} bytes on the disk");
    }
    assert_eq!(replica.asked(), ["127.0.0.3:8002", "127.0.0.3:8002"]);
}

/// Defect 1 of the incumbent: an export that broke becomes the truth there.
#[test]
fn row_47_a_broken_export_is_never_the_truth() {
    let sandbox = Sandbox::new("ds-broken");
    let disk = disk(&sandbox);
    let volume = sandbox.write("volume", noise(10, 32 * MIB));
    let broken = Misbehave {
        fail_after: Some(8 * MIB),
        dies: false,
    };
    let whole = 0..32 * MIB;
    let replica = Peer::new(&volume, std::slice::from_ref(&whole), broken);
    let address = replica.serve_as_replica();
    for (name, snapshot, why) in [
        ("cut", "snap", "of 33554432 bytes, then"),
        ("gone", "no-such-snapshot", "cannot find snapshot"),
    ] {
        let parameters = [
            format!("snapshot-name={snapshot}"),
            format!("sender-address={address}"),
        ];
        let more: Vec<_> = parameters
            .iter()
            .flat_map(|p| ["--parameters", p])
            .collect();
        let source = DataSource::start(
            &sandbox,
            &disk,
            name,
            "export-from-volume",
            "127.0.0.4",
            &more,
        );
        let file = source.wait_state("failed");
        let message = file["message"].as_str().unwrap();
        assert!(message.contains(why), "{message}");
        assert!(message.contains("it cannot send: "), "{message}");
        assert!(!source.file.exists());
    }
}

#[test]
fn a_clone_has_the_same_bytes_and_the_original_stays() {
    let sandbox = Sandbox::new("ds-clone");
    let disk = disk(&sandbox);
    let import = sandbox.make_dir("import");
    let original = sandbox.write("import/image", noise(11, 9 * MIB));
    let options = Options::new(&disk).with("--import-dir", &import);
    let manager = Manager::start(&sandbox, &options);
    let mut request = from_file("base", &original);
    request.uuid = "uuid-base".into();
    let image = manager.make_image(request).unwrap();
    let more = [
        "--parameters",
        "backing-image=base",
        "--parameters",
        "backing-image-uuid=uuid-base",
        "--parameters",
    ];
    let clone = [&more[..], &["encryption=ignore"]].concat();
    let source = DataSource::start(&sandbox, &disk, "clone", "clone", "127.0.0.1", &clone);
    let file = source.wait_state("ready-for-transfer");
    command::run("cmp", [&original, &source.file]);
    assert_eq!(file["currentChecksum"], image.current_checksum);
    // Where the kernel cannot encrypt it says so, and no secret is in any log.
    let encrypt = [
        &more[..],
        &[
            "encryption=encrypt",
            "--credential",
            "CRYPTO_KEY_VALUE=hush-hush",
        ],
    ]
    .concat();
    let source = DataSource::start(&sandbox, &disk, "crypt", "clone", "127.0.0.1", &encrypt);
    let file = wait::until("the clone has ended", || {
        let file = source.file();
        matches!(
            file["state"].as_str(),
            Some("failed" | "ready-for-transfer")
        )
        .then_some(file)
    });
    if file["state"] == "failed" {
        let message = file["message"].as_str().unwrap();
        assert!(
            message.contains("device mapper") || message.contains("cryptsetup"),
            "{message}"
        );
    } else {
        assert_eq!(file["size"], 25 * MIB);
    }
    assert!(!source.process.log().contains("hush-hush"));
    assert!(!Path::new("/dev/mapper/backing-uuid-crypt").exists());
}

/// What it cannot do it says at once, by its exit code and in words.
#[test]
fn wrong_command_lines_end_the_process() {
    let sandbox = Sandbox::new("ds-args");
    let disk = disk(&sandbox);
    for (source_type, more, why) in [
        ("teleport", &[][..], "source-type"),
        ("download", &[], "url"),
        ("download", &["--parameters", "url"], "KEY=VALUE"),
        ("download", &["--parameters", "=x"], "key"),
        ("clone", &["--credential", "nosign"], "KEY=VALUE"),
        (
            "restore",
            &["--parameters", "backup-url=s3://x"],
            "concurrent-limit",
        ),
        (
            "restore",
            &[
                "--parameters",
                "backup-url=s3://x",
                "--parameters",
                "concurrent-limit=5",
            ],
            "s3://x",
        ),
        // Only an object store may be named by a request, and only with its keys.
        (
            "restore",
            &[
                "--parameters",
                "backup-url=vfs:///var/lib/store?backingImage=img",
                "--parameters",
                "concurrent-limit=5",
            ],
            "configured target",
        ),
    ] {
        let mut source = DataSource::spawn(&sandbox, &disk, "args", source_type, "127.0.0.1", more);
        assert!(
            !source.process.wait_end().success(),
            "{source_type} {more:?}"
        );
        let log = source.process.log();
        assert!(log.contains(why) && !log.contains("panicked"), "{log}");
    }
    let mut connection = Connection::new("127.0.0.1:1", MINUTE);
    assert!(connection.ask("GET", "/", &[], b"").is_err());
}
