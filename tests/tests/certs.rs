//! Certificates by hand: `certs init`, `issue` and `show`, as docs/certificates.md prints them.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, SystemTime};

use e2e::{Sandbox, command, documents, programs};
use trust::{Identity, Role, files};

const DAY: Duration = Duration::from_hours(24);

/// `backing-image-manager certs …` in a directory.
fn certs(dir: &Path, arguments: &[&str]) -> Output {
    std::process::Command::new(programs::manager())
        .arg("certs")
        .args(arguments)
        .current_dir(dir)
        .output()
        .unwrap()
}

#[track_caller]
fn json(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{}", command::words(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// It fails with this exit code and says that.
#[track_caller]
fn assert_fails(output: &Output, code: i32, says: &str) {
    let words = command::words(output);
    assert_eq!(output.status.code(), Some(code), "{words}");
    assert!(words.contains(says), "{words}");
}

/// A certificate that was made at another time.
fn issue_at(dir: &Path, output: &str, now: SystemTime) {
    let node = Some("n1".parse().unwrap());
    let identity = Identity::new(Role::Manager, node, "p").unwrap();
    let (authority, output) = (dir.join("authority"), dir.join(output));
    files::issue(&authority, &identity, DAY, &output, now).unwrap();
}

#[test]
fn the_commands_of_the_document_make_certificates() {
    let sandbox = Sandbox::new("certs");
    let shown = documents::commands("docs/certificates.md", "## Make certificates by hand");
    let mut made = 0;
    for line in &shown {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let ["backing-image-manager", "certs", rest @ ..] = &words[..] {
            let output = certs(sandbox.dir(), rest);
            assert!(
                output.status.success(),
                "{line}: {}",
                command::words(&output)
            );
            made += 1;
        }
    }
    assert_eq!(made, 6, "{shown:#?}");
    let view = json(&certs(sandbox.dir(), &["show", "worker-1", "-o", "json"]));
    let certificate = &view["certificate"];
    assert_eq!(
        certificate["identity"],
        "spiffe://base-image.longhorn.io/manager/worker-1/worker-1"
    );
    assert_eq!(certificate["problem"], serde_json::Value::Null);
    assert_eq!(view["authorities"].as_array().unwrap().len(), 1);
    let until = files::load(&sandbox.path("worker-1")).unwrap().not_after();
    let left = until.duration_since(SystemTime::now()).unwrap();
    assert!(left > 89 * DAY && left <= 90 * DAY, "{left:?}");
    let alice = json(&certs(sandbox.dir(), &["show", "alice", "-o", "json"]));
    assert_eq!(alice["certificate"]["instance"], "alice");
    let table = certs(sandbox.dir(), &["show", "alice"]);
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.contains("cli/alice") && table.contains("authority"));
    // Of the authority there is something to tell as well.
    let view = json(&certs(sandbox.dir(), &["show", "authority", "-o", "json"]));
    assert_eq!(view["certificate"], serde_json::Value::Null);
    assert_eq!(view["authorities"][0]["isExpired"], false);
}

#[test]
fn row_260_what_nobody_would_believe_is_told_with_exit_code_1() {
    let sandbox = Sandbox::new("certs");
    let dir = sandbox.dir();
    json(&certs(dir, &["init", "authority"]));
    let now = SystemTime::now();
    issue_at(dir, "old", now - 2 * DAY);
    issue_at(dir, "early", now + Duration::from_mins(30));
    issue_at(dir, "good", now + Duration::from_mins(5));
    assert_fails(&certs(dir, &["show", "old"]), 1, "it has expired");
    assert_fails(&certs(dir, &["show", "early"]), 1, "it is not valid yet");
    json(&certs(dir, &["show", "good", "-o", "json"]));
    // The authority of somebody else.
    json(&certs(dir, &["init", "other"]));
    fs::copy(dir.join("other/ca.crt"), dir.join("good/ca.crt")).unwrap();
    let output = certs(dir, &["show", "good"]);
    assert_fails(&output, 1, "no authority in ca.crt signed it");
    issue_at(dir, "good", now);
    let key = dir.join("good/tls.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    assert_fails(&certs(dir, &["show", "good"]), 1, "can be read by others");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    fs::copy(dir.join("old/tls.key"), &key).unwrap();
    assert_fails(&certs(dir, &["show", "good"]), 1, "it is not the key");
    assert_fails(&certs(dir, &["show", "nowhere"]), 1, "nowhere/ca.crt");
}

#[test]
fn row_260_mistakes_of_the_command_line_name_the_next_step() {
    let sandbox = Sandbox::new("certs");
    let dir = sandbox.dir();
    let issue = |more: &[&str]| {
        let base = ["issue", "--ca", "authority", "--output", "out"];
        certs(dir, &[&base, more].concat())
    };
    assert_fails(&issue(&["--role", "cli"]), 1, "authority/ca.crt");
    json(&certs(dir, &["init", "authority"]));
    assert_fails(
        &certs(dir, &["init", "authority"]),
        1,
        "it is there already",
    );
    assert_fails(&issue(&["--role", "manager"]), 1, "add --node NAME");
    assert_fails(&issue(&["--role", "root"]), 2, "the role is none of");
    assert_fails(&issue(&["--role", "cli", "--days", "0"]), 2, "--days");
    let node = issue(&["--role", "ui", "--node", "n1"]);
    assert_fails(&node, 1, "only managers and node services are on a node");
    let name = issue(&["--role", "cli", "--instance", "a/b"]);
    assert_fails(&name, 1, "the instance is not a name");
    assert!(!dir.join("out").exists(), "a mistake leaves nothing");
    // No longer than the authority, which is said.
    let long = json(&issue(&["--role", "cli", "--days", "1826"]));
    assert_eq!(long["role"], "cli");
    let mode = fs::metadata(dir.join("out/tls.key")).unwrap().permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
}
