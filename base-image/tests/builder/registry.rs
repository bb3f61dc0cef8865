//! Pushes to a real registry with TLS and a password, and inspects the result.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{fails, has, inspect, policy, succeeds, tool, unpack, web};

/// Debian's registry, stopped when dropped.
struct Registry {
    child: Child,
    address: String,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Registry {
    fn start(dir: &Path) -> Self {
        certificates(dir);
        let users = tool(dir, "htpasswd", ["-Bbn", "tester", "s3cret"]);
        fs::write(dir.join("htpasswd"), users).unwrap();
        let address = e2e::ports::free().to_string();
        let at = dir.display();
        let config = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {at}/data}}}}\n\
             http: {{addr: '{address}', tls: {{certificate: {at}/r.crt, key: {at}/r.key}}}}\n\
             auth: {{htpasswd: {{realm: test, path: {at}/htpasswd}}}}\n"
        );
        fs::write(dir.join("config.yml"), config).unwrap();
        let log = fs::File::create(dir.join("registry.log")).unwrap();
        let child = Command::new("docker-registry")
            .args(["serve", "config.yml"])
            .current_dir(dir)
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_mins(5);
        while TcpStream::connect(&address).is_err() {
            assert!(Instant::now() < deadline, "the registry does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { child, address }
    }
}

fn certificates(dir: &Path) {
    let openssl = |line: &str| tool(dir, "openssl", line.split('|'));
    openssl(
        "req|-x509|-newkey|rsa:2048|-nodes|-days|2|-subj|/CN=test ca|-keyout|ca.key|-out|ca.crt|\
         -addext|basicConstraints=critical,CA:TRUE",
    );
    openssl("req|-newkey|rsa:2048|-nodes|-subj|/CN=127.0.0.1|-keyout|r.key|-out|r.csr");
    fs::write(dir.join("ext"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    openssl(
        "x509|-req|-in|r.csr|-CA|ca.crt|-CAkey|ca.key|-CAcreateserial|-days|2|-extfile|ext|-out|r.crt",
    );
    fs::create_dir(dir.join("certs.d")).unwrap();
    fs::copy(dir.join("ca.crt"), dir.join("certs.d/ca.crt")).unwrap();
}

/// A Docker config file with the password of `tester`.
fn docker_config(dir: &Path, address: &str, name: &str) -> PathBuf {
    // tester:s3cret
    let text = format!(r#"{{"auths":{{"{address}":{{"auth":"dGVzdGVyOnMzY3JldA=="}}}}}}"#);
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn what_is_pushed_is_what_skopeo_and_inspect_find() {
    if ![
        "docker-registry",
        "skopeo",
        "htpasswd",
        "openssl",
        "qemu-img",
    ]
    .into_iter()
    .all(has)
    {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let registry = Registry::start(dir);
    web(dir);
    let image = format!("docker://{}/test/web:v1", registry.address);
    let build = ["build", "--from", "web", "--fs", "xfs", "--output", &image];
    let no_ca = fails(dir, &build);
    assert!(no_ca.contains("certificate"), "{no_ca}");
    let no_password = fails(dir, &[&build[..], &["--ca-file", "ca.crt"]].concat());
    assert!(no_password.contains("credentials"), "{no_password}");

    // From a file that is named, from where Docker keeps it, with a registries file, without checks.
    docker_config(dir, &registry.address, "auth.json");
    let named = ["--ca-file", "ca.crt", "--auth-file", "auth.json"];
    let said = succeeds(dir, &[&build[..], &named].concat());
    docker_config(dir, &registry.address, ".docker/config.json");
    assert_eq!(
        succeeds(dir, &[&build[..], &["--ca-file", "ca.crt"]].concat()),
        said
    );
    assert_eq!(succeeds(dir, &[&build[..], &["--insecure"]].concat()), said);
    let ca = dir.join("ca.crt");
    let registries = format!(
        "[[registry]]\nlocation = '{}'\nca-file = '{}'\n",
        registry.address,
        ca.display()
    );
    fs::write(dir.join("registries.toml"), registries).unwrap();
    let configured = ["--registry-config", "registries.toml"];
    assert_eq!(succeeds(dir, &[&build[..], &configured].concat()), said);

    let digest = said.split(' ').next().unwrap();
    let skopeo = ["--policy", policy(dir)];
    let login = ["--cert-dir", "certs.d", "--creds", "tester:s3cret"];
    let seen = tool(
        dir,
        "skopeo",
        [&skopeo[..], &["inspect"], &login, &[&image]].concat(),
    );
    let seen: serde_json::Value = serde_json::from_str(&seen).unwrap();
    assert_eq!(seen["Digest"], digest);
    let login = ["--src-cert-dir", "certs.d", "--src-creds", "tester:s3cret"];
    tool(
        dir,
        "skopeo",
        [&skopeo[..], &["copy"], &login, &[&image, "dir:copied"]].concat(),
    );
    let disk = unpack(dir, "copied");
    tool(dir, "qemu-img", ["check".as_ref(), disk.as_os_str()]);

    let seen = inspect(dir, &[&image, "--ca-file", "ca.crt"]);
    assert_eq!(seen["digest"], digest);
    assert_eq!(seen["content"]["fsType"], "xfs");
    let missing = fails(
        dir,
        &["inspect", &format!("{image}x"), "--ca-file", "ca.crt"],
    );
    assert!(missing.contains("check the name and the tag"), "{missing}");
    assert!(!missing.contains("s3cret"), "{missing}");
}

/// nginx before a registry, with the limit on bodies that it has when nobody sets one.
#[test]
fn row_172_a_proxy_with_a_limit_before_a_real_registry() {
    let tools = ["docker-registry", "skopeo", "htpasswd", "openssl", "nginx"];
    if !tools.into_iter().all(has) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let registry = Registry::start(dir);
    let proxy = Proxy::start(dir, &registry.address);
    // Noise, so that no compression makes the layer small.
    let noise = e2e::noise::noise(3, 5 << 20);
    fs::write(dir.join("disk.raw"), noise).unwrap();
    docker_config(dir, &proxy.address, ".docker/config.json");
    let trust = ["--ca-file", "ca.crt"];
    for (tag, more) in [("v1", &[][..]), ("v2", &["--chunk-size", "900Ki"])] {
        let image = format!("docker://{}/test/{tag}:{tag}", proxy.address);
        let build = ["build", "--from", "disk.raw", "--output", &image];
        succeeds(dir, &[&build[..], &trust, more].concat());
        let seen = inspect(dir, &[&[image.as_str()], &trust[..]].concat());
        assert_eq!(seen["virtualSize"], 5 << 20);
        let policy = ["--policy", policy(dir), "copy", "--src-cert-dir", "certs.d"];
        let login = [
            "--src-creds",
            "tester:s3cret",
            &image,
            &format!("dir:{tag}"),
        ];
        tool(dir, "skopeo", [&policy[..], &login].concat());
    }
}

/// nginx that passes everything on to a registry, stopped when dropped.
struct Proxy {
    child: Child,
    address: String,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Proxy {
    fn start(dir: &Path, registry: &str) -> Self {
        let address = e2e::ports::free().to_string();
        let at = dir.display();
        let config = format!(
            "daemon off; master_process off; pid {at}/nginx.pid; error_log stderr;\n\
             events {{}}\n\
             http {{ access_log off; client_body_temp_path {at}/body; proxy_temp_path {at}/proxy;\n\
             fastcgi_temp_path {at}/f; uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;\n\
             server {{ listen {address} ssl; ssl_certificate {at}/r.crt; ssl_certificate_key {at}/r.key;\n\
             client_max_body_size 1m;\n\
             location / {{ proxy_pass https://{registry}; proxy_set_header Host $http_host;\n\
             proxy_set_header X-Forwarded-Proto https; }} }} }}\n"
        );
        fs::write(dir.join("nginx.conf"), config).unwrap();
        let log = fs::File::create(dir.join("nginx.log")).unwrap();
        let child = Command::new(e2e::command::find("nginx").unwrap())
            .arg("-p")
            .arg(dir)
            .arg("-c")
            .arg(dir.join("nginx.conf"))
            .stdout(Stdio::null())
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_mins(5);
        while TcpStream::connect(&address).is_err() {
            assert!(Instant::now() < deadline, "nginx does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { child, address }
    }
}
