//! The program, other people's tools, and small things to build from.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What a run of the program gave.
pub(crate) struct Run {
    pub(crate) ok: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs `base-image` with `arguments` in `directory`.
pub(crate) fn base_image(directory: &Path, arguments: &[&str]) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_base-image"));
    command.args(arguments).current_dir(directory);
    command.env("HOME", directory).env_remove("DOCKER_CONFIG");
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Run {
        ok: status.success(),
        stdout: text(stdout),
        stderr: text(stderr),
    }
}

/// The same, which must succeed; what it printed.
#[track_caller]
pub(crate) fn succeeds(directory: &Path, arguments: &[&str]) -> String {
    let run = base_image(directory, arguments);
    assert!(run.ok, "{arguments:?}: {}", run.stderr);
    run.stdout
}

/// The same, which must fail; what it said.
#[track_caller]
pub(crate) fn fails(directory: &Path, arguments: &[&str]) -> String {
    let run = base_image(directory, arguments);
    assert!(!run.ok, "{arguments:?} succeeded: {}", run.stdout);
    run.stderr
}

/// What `inspect` says as JSON.
#[track_caller]
pub(crate) fn inspect(directory: &Path, arguments: &[&str]) -> serde_json::Value {
    let all = [&["inspect", "-o", "json"], arguments].concat();
    serde_json::from_str(&succeeds(directory, &all)).unwrap()
}

/// Whether a tool is there; says so when a test is skipped for want of it.
pub(crate) fn has(tool: &str) -> bool {
    let found = Command::new(tool).arg("--version").output().is_ok();
    if !found {
        println!("skipped: needs {tool}");
    }
    found
}

/// Runs another program, which must succeed; what it printed.
#[track_caller]
pub(crate) fn tool<I: AsRef<OsStr>>(
    directory: &Path,
    name: &str,
    arguments: impl IntoIterator<Item = I>,
) -> String {
    let output = Command::new(name)
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A small directory to make an image of.
pub(crate) fn web(directory: &Path) -> PathBuf {
    let web = directory.join("web");
    fs::create_dir_all(web.join("guests/hd")).unwrap();
    fs::write(web.join("index.html"), "<h1>hello</h1>").unwrap();
    fs::write(web.join("guests/hd/a picture.gif"), vec![b'G'; 100_000]).unwrap();
    tool(
        &web,
        "touch",
        [
            "-d",
            "2020-02-02 02:02:02",
            ".",
            "index.html",
            "guests",
            "guests/hd",
        ],
    );
    tool(
        &web,
        "touch",
        ["-d", "2020-02-02 02:02:02", "guests/hd/a picture.gif"],
    );
    web
}

/// Lets skopeo take images from anywhere.
pub(crate) fn policy(directory: &Path) -> &'static str {
    let policy = r#"{"default":[{"type":"insecureAcceptAnything"}]}"#;
    fs::write(directory.join("policy.json"), policy).unwrap();
    "policy.json"
}

/// Unpacks the one layer of an image that skopeo copied to `dir:NAME`, and gives the disk image's path.
#[track_caller]
pub(crate) fn unpack(directory: &Path, name: &str) -> PathBuf {
    let copied = directory.join(name);
    let manifest = fs::read(copied.join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let layers = manifest["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 1);
    let digest = layers[0]["digest"]
        .as_str()
        .unwrap()
        .strip_prefix("sha256:")
        .unwrap();
    // By its bytes: skopeo calls the plain layer of a Docker archive packed.
    let layer = fs::read(copied.join(digest)).unwrap();
    let tar: Box<dyn std::io::Read> = match &layer[..4] {
        [0x28, 0xB5, 0x2F, 0xFD] => Box::new(zstd::Decoder::new(&layer[..]).unwrap()),
        [0x1F, 0x8B, ..] => Box::new(flate2::read::GzDecoder::new(&layer[..])),
        _ => Box::new(&layer[..]),
    };
    let root = directory.join(format!("{name}.unpacked"));
    tar::Archive::new(tar).unpack(&root).unwrap();
    let mut files = fs::read_dir(root.join("base_image")).unwrap();
    let file = files.next().unwrap().unwrap().path();
    assert!(files.next().is_none(), "more than one file in base_image");
    assert_eq!(
        fs::read_dir(&root).unwrap().count(),
        1,
        "more than base_image in the layer"
    );
    file
}
