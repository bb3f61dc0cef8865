//! Ways of an image to a disk that Longhorn's users have: the upload form, and the push from manager
//! to manager in Longhorn's own protocol.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use e2e::data_source::DataSource;
use e2e::manager::{Options, from_file, init_disk};
use e2e::noise::noise;
use e2e::ssync::Connection;
use e2e::{Disk, FileSystem, Manager, Sandbox, command, ports, wait};

use crate::cost::{Cost, Transfers};
use crate::report::{Budget, Report, Runs};

const MIB: u64 = 1 << 20;
/// Bytes of the image: as in the measurements of the incumbent.
const SIZE: u64 = 2048 * MIB;
const RUNS: usize = 3;

/// A file of the size, of noise.
fn make_noise(path: &Path) {
    let mut file = File::create(path).unwrap();
    for piece in 0..SIZE / MIB {
        file.write_all(&noise(piece, MIB)).unwrap();
    }
    file.sync_all().unwrap();
}

/// `cp` and `sync` of the file to the disk.
fn copy(from: &Path, disk: &Path) -> Cost {
    let to = disk.join("copied");
    let cost = Cost::of_commands(|| {
        command::run("cp", [from, &to]);
        command::run("sync", [&to]);
    });
    std::fs::remove_file(to).unwrap();
    cost
}

/// A disk for images, and a file of noise that is on another.
fn disk_and_file(case: &str) -> (Sandbox, Disk, PathBuf) {
    let sandbox = Sandbox::new(case);
    let disk = Disk::new(&sandbox, "disk", FileSystem::Xfs, 12 << 30);
    init_disk(disk.dir());
    let image = sandbox.path("image");
    make_noise(&image);
    (sandbox, disk, image)
}

pub(crate) fn upload(report: &mut Report) {
    let (sandbox, disk, image) = disk_and_file("bench-upload");
    let form = format!("chunk=@{}", image.display());
    let mut memory = 0;
    let mut run = 0;
    let mut ours = || {
        run += 1;
        let name = format!("up{run}");
        let mut source = DataSource::start(&sandbox, disk.dir(), &name, "upload", "127.0.0.1", &[]);
        let url = format!(
            "http://{}/v1/file?action=upload&size={SIZE}",
            source.address()
        );
        let cost = Cost::of_processes(&[&source.process], || {
            command::run(
                "curl",
                ["--silent", "--show-error", "--fail", "-F", &form, &url],
            );
            source.wait_state("ready-for-transfer");
        });
        memory = memory.max(source.process.memory().0);
        source.process.kill_9();
        std::fs::remove_file(&source.file).unwrap();
        cost
    };
    let runs = Transfers::interleaved(RUNS, &mut ours, || copy(&image, disk.dir()));
    runs.report(report, "upload", SIZE, "cp + sync");
    let mut memory_runs = Runs::default();
    memory_runs.add(memory as f64 / MIB as f64, 64.0);
    report.add(
        "upload-memory",
        &memory_runs,
        "64 MiB",
        "MiB",
        Budget::AtMost(1.0),
    );
}

/// A file sent by our own command line, which does not ask for a SHA-512.
pub(crate) fn upload_pieces(report: &mut Report) {
    let (sandbox, disk, image) = disk_and_file("bench-upload-pieces");
    let manager = Manager::start(&sandbox, &Options::new(disk.dir()));
    let file = image.display().to_string();
    let ours = || {
        let mut sent = Cost::default();
        let received = Cost::of_processes(&[&manager.process], || {
            sent = Cost::of_commands(|| {
                let output = manager.cli("backing-image", &["upload", &file, "--name", "up"]);
                assert!(output.status.success(), "{output:?}");
            });
        });
        // Its sum is left for later: it must not be computed under the next run.
        manager.delete_image("up").unwrap();
        Cost {
            seconds: received.seconds,
            processor: received.processor + sent.processor,
        }
    };
    let runs = Transfers::interleaved(RUNS, ours, || copy(&image, disk.dir()));
    runs.report(report, "upload-pieces", SIZE, "cp + sync");
}

struct Side {
    manager: Manager,
    disk: Disk,
}

fn side(sandbox: &Sandbox, name: &str, import: &Path) -> Side {
    let disk = Disk::new(sandbox, name, FileSystem::Xfs, 8 << 30);
    init_disk(disk.dir());
    let mut options = Options::new(disk.dir()).with("--import-dir", import);
    name.clone_into(&mut options.name);
    let manager = Manager::start(sandbox, &options);
    Side { manager, disk }
}

impl Side {
    fn backing(&self) -> PathBuf {
        self.disk.dir().join("backing-images/img-uuid-img/backing")
    }

    /// One request about the image to the sync server.
    fn ask(&self, method: &str, target: &str) -> String {
        let mut connection = Connection::new(&self.manager.sync_address().to_string(), wait::LONG);
        let (status, body) = connection.ask(method, target, &[], b"").unwrap();
        let body = String::from_utf8_lossy(&body).into_owned();
        assert_eq!(status, 200, "{target}: {body}");
        body
    }

    fn id(&self) -> String {
        self.backing().display().to_string().replace('/', "%2F")
    }
}

pub(crate) fn ssync(report: &mut Report) {
    let sandbox = Sandbox::new("bench-ssync");
    let import = sandbox.make_dir("import");
    let image = import.join("image");
    make_noise(&image);
    let (from, to) = (
        side(&sandbox, "from", &import),
        side(&sandbox, "to", &import),
    );
    let mut request = from_file("img", &image);
    request.uuid = "uuid-img".into();
    let made = from.manager.make_image(request).unwrap();
    assert_eq!(made.progress, 100, "{made:?}");
    let ours = || {
        let port = ports::of_receiver();
        let start = Instant::now();
        to.ask(
            "POST",
            &format!(
                "/v1/files?action=receiveFromPeer&file-path={}&uuid=uuid-img&size={SIZE}&port={port}",
                to.id()
            ),
        );
        let target = format!(
            "/v1/files/{}?action=sendToPeer&to-address=127.0.0.1%3A{port}",
            from.id()
        );
        from.ask("POST", &target);
        wait::until("the copy is ready", || {
            let file = to.ask("GET", &format!("/v1/files/{}", to.id()));
            assert!(!file.contains("\"failed\""), "{file}");
            file.contains("\"state\":\"ready\"").then_some(())
        });
        let took = start.elapsed().as_secs_f64();
        to.ask("DELETE", &format!("/v1/files/{}", to.id()));
        took
    };
    let runs = Runs::interleaved(RUNS, ours, || copy(&image, to.disk.dir()).seconds);
    report.add("ssync", &runs, "cp + sync", "s", Budget::None);
}
