//! Two gRPC stacks that are not ours drive every method: Go's, by `grpcurl` and our reflection, and
//! Python's. Whatever they send, the process stays up and small.
#![allow(
    clippy::unwrap_used,
    reason = "a panic with its cause is a test's result"
)]

use std::process::Output;

use e2e::manager::{Options, init_disk};
use e2e::{Manager, Need, Sandbox, command, needs, programs};

/// What a daemon may hold after everything that was thrown at it, in bytes.
const MEMORY_MAX: u64 = 160 << 20;

fn manager(sandbox: &Sandbox) -> Manager {
    let disk = sandbox.make_dir("disk");
    init_disk(&disk);
    Manager::start(sandbox, &Options::new(&disk))
}

fn words(output: &Output) -> String {
    command::words(output)
}

#[test]
fn grpcurl_drives_every_method_through_reflection() {
    needs!(Need::Tool("grpcurl"));
    let sandbox = Sandbox::new("grpcurl");
    let mut manager = manager(&sandbox);
    let address = manager.address().to_string();
    let grpcurl = |arguments: &[&str]| {
        let mut all = vec!["-plaintext", "-max-time", "5"];
        all.extend_from_slice(arguments);
        command::output("grpcurl", all)
    };
    let listed = grpcurl(&[&address, "list"]);
    let services = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.status.success(), "{}", words(&listed));
    let mut methods = 0;
    for service in services.lines().filter(|name| !name.starts_with("grpc.")) {
        let listed = grpcurl(&[&address, "list", service]);
        assert!(listed.status.success(), "{}", words(&listed));
        for method in String::from_utf8_lossy(&listed.stdout).lines() {
            methods += 1;
            let described = grpcurl(&[&address, "describe", method]);
            assert!(described.status.success(), "{}", words(&described));
            for data in [
                "{}",
                r#"{"name": "../x", "uuid": "$(reboot)"}"#,
                r#"{"nope": 1}"#,
            ] {
                let called = grpcurl(&["-d", data, &address, method]);
                assert!(
                    manager.process.ended().is_none(),
                    "{method} {data}: {}",
                    words(&called)
                );
            }
        }
    }
    assert!(methods >= 11, "{services}");
    let bimrpc = "bimrpc.BackingImageManagerService";
    let version = grpcurl(&["-d", "{}", &address, &format!("{bimrpc}/VersionGet")]);
    let text = String::from_utf8_lossy(&version.stdout).into_owned();
    assert!(
        text.contains(r#""backingImageManagerApiVersion": "3""#),
        "{text}"
    );
    let absent = grpcurl(&[
        "-d",
        r#"{"name":"a","uuid":"b"}"#,
        &address,
        &format!("{bimrpc}/Get"),
    ]);
    assert!(
        words(&absent).contains("cannot find backing image a(b)"),
        "{}",
        words(&absent)
    );
    assert!(manager.list_images().unwrap().is_empty());
}

#[test]
fn pythons_grpc_drives_every_method_and_sends_rubbish() {
    needs!(Need::Tool("python3"));
    let known = command::output("python3", ["-c", "import grpc, grpc_reflection"]);
    if !known.status.success() {
        return needs::skip("Python's grpcio and grpcio-reflection");
    }
    let sandbox = Sandbox::new("python");
    let mut manager = manager(&sandbox);
    let script = programs::sources().join("tests/fixtures/longhorn/foreign.py");
    let address = manager.address().to_string();
    let arguments = [script.to_str().unwrap(), &address, "84"];
    let driven = command::output("python3", arguments);
    assert!(driven.status.success(), "{}", words(&driven));
    assert!(
        String::from_utf8_lossy(&driven.stdout).contains("methods"),
        "{}",
        words(&driven)
    );
    assert!(manager.process.ended().is_none());
    let (most, _) = manager.process.memory();
    assert!(most < MEMORY_MAX, "{} MiB", most >> 20);
}
