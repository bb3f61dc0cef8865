//! Certificates that are replaced or expire while they are in use, and keys that are told nobody.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use e2e::certificates::{self, Authority};
use e2e::manager::{Options, from_file, from_peers, from_registry, init_disk};
use e2e::noise::noise;
use e2e::{Manager, Need, Registry, Sandbox, block_on, command, needs, programs, registry, wait};
use proto::storage::v1 as pb;
use proto::storage::v1::disks_client::DisksClient;
use tokio::io::AsyncReadExt as _;
use trust::authority::CLOCK_SKEW;
use trust::held::HTTP1;
use trust::{Expected, Role};

const MIB: u64 = 1 << 20;
const UUID: &str = "1a2b3c4d";
/// So slow that a program sees twice meanwhile that its files have changed: it looks every 10 s.
const RATE: &str = "1572864";

fn start(sandbox: &Sandbox, authority: &Authority, node: &str, more: &[(&str, &str)]) -> Manager {
    let disk = sandbox.make_dir(format!("disk-{node}"));
    init_disk(&disk);
    let mut options = Options::new(&disk)
        .trusting(authority, node)
        .with("--import-dir", sandbox.make_dir("import"));
    for (name, value) in more {
        options = match name.strip_prefix("--") {
            Some(_) => options.with(name, value),
            None => options.with_environment(name, value),
        };
    }
    Manager::start(sandbox, &options)
}

/// Makes an image of noise with so many MiB.
fn make(sandbox: &Sandbox, manager: &Manager, mebibytes: u64) {
    let file = sandbox.write("import/image", noise(1, mebibytes * MIB));
    let mut request = from_file("image", &file);
    request.uuid = UUID.into();
    assert_eq!(manager.make_image(request).unwrap().progress, 100);
}

#[test]
fn row_268_certificates_are_replaced_in_the_middle_of_a_sync() {
    let sandbox = Sandbox::new("trust-renewal");
    let authority = Authority::new(&sandbox, "authority");
    let from = start(&sandbox, &authority, "n1", &[("--sync-rate-limit", RATE)]);
    let to = start(&sandbox, &authority, "n2", &[]);
    make(&sandbox, &from, 64);
    to.create_image(from_peers("image", UUID, &[from.sync_address()]))
        .unwrap();
    wait::until("the sync is under way", || {
        let image = to.image("image").unwrap();
        (image.progress > 5).then_some(())
    });
    // From now on another authority certifies, and both are believed. Its certificates come to one after the other.
    let next = Authority::new(&sandbox, "next");
    let both =
        [authority.dir(), next.dir()].map(|dir| fs::read_to_string(dir.join("ca.crt")).unwrap());
    let both = both.concat();
    let replace = |node: &str| {
        let old = sandbox.path(format!("authority-issued/manager-{node}-p"));
        let new = next.issue(&format!("manager/{node}/p"));
        for file in ["tls.key", "tls.crt"] {
            fs::rename(new.join(file), old.join(file)).unwrap();
        }
        sandbox.write(old.join("ca.crt"), &both);
    };
    for node in ["n1", "n2"] {
        sandbox.write(
            sandbox.path(format!("authority-issued/manager-{node}-p/ca.crt")),
            &both,
        );
    }
    let took = |manager: &Manager, times: usize| {
        wait::until("the new files are used", || {
            let log = manager.process.log();
            (log.matches("using the certificate in").count() >= times).then_some(())
        });
    };
    took(&from, 2);
    took(&to, 2);
    replace("n1");
    replace("n2");
    took(&from, 3);
    took(&to, 3);
    let image = to.image("image").unwrap();
    assert!(image.progress < 100, "the sync was over before: {image:?}");
    let image = to.wait_image("image").unwrap();
    assert_eq!(image.progress, 100, "{image:?}");
    let stored = |node: &str| {
        fs::read(sandbox.path(format!("disk-{node}/backing-images/image-{UUID}/backing"))).unwrap()
    };
    assert!(stored("n1") == stored("n2"));
}

#[test]
fn row_269_a_connection_ends_with_the_certificate_that_it_was_made_by() {
    let sandbox = Sandbox::new("trust-expiry");
    let authority = Authority::new(&sandbox, "authority");
    let manager = start(&sandbox, &authority, "n1", &[]);
    let life = Duration::from_secs(8);
    let short = authority.issue_at("manager/n2/p", SystemTime::now(), life);
    let held = certificates::held(&short);
    let until = held.credential().unwrap().not_after();
    assert!(until < SystemTime::now() + life + CLOCK_SKEW);
    // One that is idle is closed in order: the end of the stream, not a reset.
    let idle = async {
        let stream = tokio::net::TcpStream::connect(manager.sync_address())
            .await
            .unwrap();
        let expected = Expected::role(Role::Manager);
        let (mut stream, _) = held.connect(stream, &expected, HTTP1).await.unwrap();
        // A request that is not complete yet keeps its connection for a moment.
        tokio::time::timeout(wait::LONG, stream.read_to_end(&mut Vec::new())).await
    };
    let ended = block_on(idle).unwrap();
    assert_eq!(ended.unwrap(), 0);
    // A call on a channel that was good goes to a new connection, and is told why that does not work.
    let person = authority.issue_at("cli/short", SystemTime::now(), life);
    let channel = certificates::channel(manager.address(), &certificates::held(&person));
    let ask = || {
        let mut disks = DisksClient::new(channel.clone());
        block_on(disks.get_disk(pb::GetDiskRequest::default()))
    };
    ask().unwrap();
    wait::until("the certificate ends", || ask().err());
    manager.disk().unwrap();
}

/// Pieces of a text that nobody else has: its lines that are long enough.
fn secrets(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with("-----"));
    lines
        .map(str::to_owned)
        .filter(|line| line.len() > 20)
        .collect()
}

#[test]
fn row_259_private_keys_are_in_no_log() {
    let sandbox = Sandbox::new("trust-secrets");
    let authority = Authority::new(&sandbox, "authority");
    let trace = [("LOG_LEVEL", "trace")];
    let from = start(&sandbox, &authority, "n1", &trace);
    let to = start(&sandbox, &authority, "n2", &trace);
    make(&sandbox, &from, 2);
    let image = to.make_image(from_peers("image", UUID, &[from.sync_address()]));
    assert_eq!(image.unwrap().progress, 100);
    let issued = sandbox.path("authority-issued");
    // One that cannot be read is talked of as well.
    let damaged = issued.join("manager-n2-p/tls.crt");
    fs::copy(issued.join("manager-n1-p/tls.crt"), &damaged).unwrap();
    wait::until("the wrong file is told", || {
        to.process.log().contains("it is not the key").then_some(())
    });
    let program = programs::manager().display().to_string();
    let url = from.address().to_string();
    let person = issued.join("cli-harness");
    let directory = person.display().to_string();
    let shown = command::output(
        &program,
        [
            "--log-level",
            "trace",
            "volume",
            "--url",
            &url,
            "--certificates",
            &directory,
            "list",
        ],
    );
    assert!(shown.status.success(), "{}", command::words(&shown));
    let logs = [from.process.log(), to.process.log(), command::words(&shown)];
    for log in &logs {
        assert!(log.contains("TRACE"), "no log at that level:\n{log}");
    }
    let keys = ["manager-n1-p", "manager-n2-p", "cli-harness"]
        .map(|program| issued.join(program).join("tls.key"));
    let keys = keys
        .iter()
        .chain([&authority.dir().join("ca.key")])
        .flat_map(|key| secrets(key))
        .collect::<Vec<_>>();
    assert!(keys.len() >= 8, "{}", keys.len());
    for key in keys {
        assert!(
            logs.iter().all(|log| !log.contains(&key)),
            "a line of a key is in a log"
        );
    }
}

#[test]
fn row_259_pull_secrets_are_in_no_log() {
    needs!(Need::Tool("docker-registry"), Need::Tool("htpasswd"));
    let sandbox = Sandbox::new("trust-pull-secret");
    let authority = Authority::new(&sandbox, "authority");
    let registry = Registry::start(&sandbox);
    let config = registry.registry_config.display().to_string();
    let options = [
        ("LOG_LEVEL", "trace"),
        ("--registry-config", config.as_str()),
    ];
    let manager = start(&sandbox, &authority, "n1", &options);
    // By the network, with TLS, in a message; then to the registry, in a header.
    let mut request = from_registry("private", &registry.reference("private/none:v1"));
    let Some(pb::source::Source::Registry(source)) = request
        .source
        .as_mut()
        .and_then(|source| source.source.as_mut())
    else {
        panic!("not from a registry");
    };
    source.docker_config_json = fs::read(&registry.docker_config).unwrap();
    let image = manager.make_image(request).unwrap();
    assert!(image.message.contains("private/none"), "{image:?}");
    assert!(
        registry.requests(&["/manifests/", "401"]) + registry.requests(&["/manifests/", "404"]) > 0
    );
    let log = manager.process.log();
    assert!(log.contains("TRACE"), "no log at that level");
    // In base 64, as the header has it (RFC 7617): wizard:abracadabra.
    let login = "d2l6YXJkOmFicmFjYWRhYnJh";
    for secret in [registry::PASSWORD, login] {
        let line = log.lines().find(|line| line.contains(secret));
        assert!(line.is_none(), "{line:?}");
    }
}
