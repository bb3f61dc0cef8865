//! A disk that the last release wrote is served as it was: `tests/fixtures/disks/` holds one for each.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::path::Path;

use e2e::manager::{Options, from_file, from_volume};
use e2e::{Manager, Sandbox, command, programs};

/// The sidecar of an image as it is on the disk.
fn seal(disk: &Path, directory: &str) -> serde_json::Value {
    let path = disk.join("backing-images").join(directory);
    let text = fs::read(path.join("backing.cfg")).unwrap();
    let sidecar: serde_json::Value = serde_json::from_slice(&text).unwrap();
    sidecar["seal"].clone()
}

/// 0.1.0 kept the source of an image as a text and compared that. The text is read once, and becomes a value:
/// the same request is the same image, another one is refused, and a snapshot is one of its volume.
#[test]
fn the_sources_of_images_of_0_1_0_are_understood() {
    let sandbox = Sandbox::new("last-release");
    let disk = sandbox.make_dir("disk");
    let archive = programs::sources().join("tests/fixtures/disks/disk-0.1.0.tar.gz");
    let arguments = [
        "-xzf",
        archive.to_str().unwrap(),
        "-C",
        disk.to_str().unwrap(),
    ];
    command::run("tar", arguments);
    assert!(seal(&disk, "from-file-11111111")["provenance"].is_null());

    let manager = Manager::start(&sandbox, &Options::new(&disk));
    let sources = [
        ("from-file", "file:/import/disk.raw"),
        ("from-url", "http://127.0.0.1:18999/disk.raw (#1c5e0ca5)"),
        ("snap", "volume:v1"),
    ];
    for (name, source) in sources {
        // Its files have other inodes than they had: the bytes are read once, and are the same.
        let image = manager.wait_image(name).unwrap();
        assert_eq!(image.source, source);
    }
    assert_eq!(manager.image("snap").unwrap().source_volume, "v1");
    let volume = manager.volume("v1").unwrap();
    assert_eq!(volume.image_name, "from-file");

    // The same request again, and others.
    let file = |name| from_file(name, Path::new("/import/disk.raw"));
    let image = manager.create_image(file("from-file")).unwrap();
    assert_eq!(image.uuid, "11111111");
    manager.create_image(from_volume("snap", "v1")).unwrap();
    for other in [file("from-url"), from_volume("snap", "v2")] {
        let refused = manager.create_image(other).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::AlreadyExists, "{refused}");
    }

    // What was sealed again says both, and reads back.
    drop(manager);
    let manager = Manager::start(&sandbox, &Options::new(&disk));
    for (name, source) in sources {
        assert_eq!(manager.wait_image(name).unwrap().source, source);
    }
    let seal = seal(&disk, "snap-33333333");
    assert_eq!(seal["source"], "volume:v1", "for the last release");
    let kind = seal["provenance"]["type"].as_str();
    assert!(matches!(kind, Some("volume")), "{seal}");
}

/// A manager that is older than the command line does not know what a volume begins with, and would make a blank
/// one. This one knows nothing at all.
#[test]
fn an_older_manager_is_not_asked_for_a_clone() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    listener.set_nonblocking(true).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        axum::serve(
            listener,
            tonic::service::Routes::default().into_axum_router(),
        )
        .await
    });
    let create = |more: &[&str]| {
        std::process::Command::new(programs::manager())
            .args(["volume", "--url", &address, "create", "--name", "v"])
            .args(more)
            .output()
            .unwrap()
    };
    let refused = create(&["--backing-image", "img"]);
    let words = command::words(&refused);
    assert_eq!(refused.status.code(), Some(1), "{words}");
    assert!(words.contains("upgrade the manager first"), "{words}");
    // A blank volume is a blank volume.
    assert!(!command::words(&create(&[])).contains("upgrade the manager first"));
}
