//! A real registry with TLS and a password: row 11 of the faults, and pushing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test"
)]

mod rig;

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use fetch::registry::Client;
use fetch::{Credentials, Digest, Error};
use rig::tls::Certificates;
use rig::{MANIFEST_TYPE, TestImage, network, read_layer, reference};
use types::{Classify, ErrorKind};

/// Debian's docker-registry; it ends when it is dropped.
struct Registry {
    child: Child,
    host: String,
    certificates: Certificates,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

fn write(path: &Path, text: &str) {
    File::create(path)
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
}

impl Registry {
    async fn start() -> Option<Self> {
        let certificates = Certificates::make()?;
        for tool in ["docker-registry", "htpasswd"] {
            if Command::new(tool)
                .arg("--help")
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_err()
            {
                println!("skipped: needs {tool}");
                return None;
            }
        }
        let htpasswd = Command::new("htpasswd")
            .args(["-Bbn", "tester", "s3cret"])
            .output()
            .unwrap();
        write(
            &certificates.file("htpasswd"),
            std::str::from_utf8(&htpasswd.stdout).unwrap(),
        );
        let host = e2e::ports::free().to_string();
        let directory = certificates.directory.path().display();
        write(
            &certificates.file("config.yml"),
            &format!(
                "version: 0.1\nlog: {{level: error}}\n\
                 storage: {{filesystem: {{rootdirectory: {directory}/data}}}}\n\
                 http: {{addr: '{host}', tls: {{certificate: {directory}/tls.crt, key: {directory}/tls.key}}}}\n\
                 auth: {{htpasswd: {{realm: rig, path: {directory}/htpasswd}}}}\n"
            ),
        );
        let log = File::create(certificates.file("log")).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(certificates.file("config.yml"))
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let registry = Self {
            child,
            host,
            certificates,
        };
        for _ in 0..6000 {
            if tokio::net::TcpStream::connect(&registry.host).await.is_ok() {
                return Some(registry);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!(
            "{}",
            std::fs::read_to_string(registry.certificates.file("log")).unwrap()
        );
    }

    fn client(&self, trust: &str) -> Client {
        Client::new(network(&format!(
            "[[registry]]\nlocation = '{}'\n{trust}\n",
            self.host
        )))
    }

    fn with_ca(&self) -> Client {
        self.client(&format!("ca-file = '{}'", self.certificates.ca().display()))
    }
}

#[tokio::test]
async fn row_11_a_registry_is_believed_by_its_ca_or_by_explicit_distrust_alone() {
    let Some(registry) = Registry::start().await else {
        return;
    };
    let credentials = Credentials::anonymous().with_password(&registry.host, "tester", "s3cret");
    let name = reference(&format!("{}/x/y:1", registry.host));
    let platform = "linux/amd64".parse().unwrap();

    let image = TestImage::new(5_000_000);
    let file = registry.certificates.file("layer");
    File::create(&file)
        .unwrap()
        .write_all(&image.layer)
        .unwrap();
    let client = registry.with_ca();
    let pusher = client.pusher(&name, &credentials);
    let layer = Digest::of(&image.layer);
    pusher
        .blob(&layer, image.layer.len() as u64, &file)
        .await
        .unwrap();
    let config = Bytes::from(image.config.clone());
    pusher
        .blob_bytes(&Digest::of(&config), config)
        .await
        .unwrap();
    let digest = pusher
        .manifest(MANIFEST_TYPE, image.manifest.clone().into())
        .await
        .unwrap();
    assert_eq!(digest, Digest::of(&image.manifest));
    // What is there already is not sent again: the file is not even opened.
    pusher
        .blob(&layer, image.layer.len() as u64, Path::new("/nonexistent"))
        .await
        .unwrap();
    // What does not hash to its name is refused by the registry.
    let wrong = pusher
        .blob(&Digest::of(b"other"), image.layer.len() as u64, &file)
        .await
        .unwrap_err();
    assert!(
        matches!(wrong, Error::Status { status: 400, .. }),
        "{wrong}"
    );

    for (client, why) in [
        (registry.with_ca(), "own CA"),
        (registry.client("insecure = true"), "insecure"),
    ] {
        let resolved = client.resolve(&name, &platform, &credentials).await;
        let resolved = resolved.unwrap_or_else(|error| panic!("{why}: {}", types::report(&error)));
        assert_eq!(resolved.manifest_digest, digest);
        assert!(
            read_layer(&client, &resolved, 0).await.unwrap() == image.layer,
            "{why}"
        );
    }
    let error = registry
        .client("")
        .resolve(&name, &platform, &credentials)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{error}");
    let text = types::report(&error).to_string();
    assert!(
        text.contains("ca-file") && text.contains("UnknownIssuer"),
        "{text}"
    );

    let wrong = Credentials::anonymous().with_password(&registry.host, "tester", "hunter2");
    for credentials in [wrong, Credentials::anonymous()] {
        let error = registry
            .with_ca()
            .resolve(&name, &platform, &credentials)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
    }
    let missing = reference(&format!("{}/x/y:2", registry.host));
    let error = registry
        .with_ca()
        .resolve(&missing, &platform, &credentials)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}
