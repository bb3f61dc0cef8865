//! A real container registry (Debian's docker-registry) with TLS by a CA of its own and a password.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::command::{output, run};
use crate::{Process, Sandbox, ports};

/// A user of the registry, and the password.
pub const USER: &str = "wizard";
/// See [`USER`].
pub const PASSWORD: &str = "abracadabra";

/// Another user, with the same rights.
pub const OTHER_USER: &str = "witch";
/// See [`OTHER_USER`].
pub const OTHER_PASSWORD: &str = "hocuspocus";

/// A running registry.
#[derive(Debug)]
pub struct Registry {
    process: Process,
    address: SocketAddr,
    /// The certificate of the CA that vouches for it.
    pub ca: PathBuf,
    /// A Docker config.json with the password.
    pub docker_config: PathBuf,
    /// The manager's registry configuration that trusts the CA for this registry.
    pub registry_config: PathBuf,
}

impl Registry {
    /// Starts one with its blobs below the sandbox.
    pub fn start(sandbox: &Sandbox) -> Self {
        let address = ports::free();
        let dir = sandbox.make_dir("registry");
        let (ca, certificate, key) = certificates(sandbox, "registry/tls");
        let password = sandbox.write(
            "registry/htpasswd",
            [(USER, PASSWORD), (OTHER_USER, OTHER_PASSWORD)]
                .map(|(user, password)| run("htpasswd", ["-Bbn", user, password]))
                .join("\n"),
        );
        let config = sandbox.write(
            "registry/config.yml",
            format!(
                "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {data}\n  \
                 delete:\n    enabled: true\nhttp:\n  addr: {address}\n  tls:\n    certificate: {certificate}\n    \
                 key: {key}\nauth:\n  htpasswd:\n    realm: e2e\n    path: {password}\n",
                data = dir.join("data").display(),
                certificate = certificate.display(),
                key = key.display(),
                password = password.display(),
            ),
        );
        let program = PathBuf::from("docker-registry");
        let program = crate::command::find("docker-registry").unwrap_or(program);
        let arguments = ["serve".as_ref(), config.as_os_str()];
        let mut process = Process::spawn(sandbox, "registry", &program, arguments, &[]);
        process.wait_ready(|| {
            let url = format!("https://{address}/v2/");
            let ca = ca.display().to_string();
            let asked = [
                "--silent",
                "--output",
                "/dev/null",
                "--cacert",
                &ca,
                "--write-out",
                "%{http_code}",
            ];
            output("curl", asked.into_iter().chain([url.as_str()])).stdout == b"401"
        });
        let docker_config = sandbox.write("registry/docker/config.json", docker_config(address));
        let registry_config =
            sandbox.write("registry/registries.toml", registry_config(address, &ca));
        Self {
            process,
            address,
            ca,
            docker_config,
            registry_config,
        }
    }

    /// `host:port`, as the first part of a reference.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A reference to an image of this registry.
    pub fn reference(&self, name_and_tag: &str) -> String {
        format!("{}/{name_and_tag}", self.address)
    }

    /// How often something below `/v2/` was asked for whose line of the access log holds all of
    /// `words`, for example `["GET", "/blobs/"]`.
    pub fn requests(&self, words: &[&str]) -> usize {
        let log = self.process.log();
        // The access log is in Apache's combined format; the other lines are key=value.
        log.lines()
            .filter(|line| {
                line.contains("\"GET /v2/")
                    || line.contains("\"HEAD /v2/")
                    || line.contains("\"PUT /v2/")
            })
            .filter(|line| !line.contains("level="))
            .filter(|line| words.iter().all(|word| line.contains(word)))
            .count()
    }

    /// Ends it, so that it cannot be asked any more.
    pub fn stop(&mut self) {
        self.process.kill_9();
    }
}

fn docker_config(address: SocketAddr) -> String {
    serde_json::json!({
        "auths": { address.to_string(): { "username": USER, "password": PASSWORD } }
    })
    .to_string()
}

fn registry_config(address: SocketAddr, ca: &std::path::Path) -> String {
    format!(
        "[[registry]]\nlocation = \"{address}\"\nca-file = \"{}\"\n",
        ca.display()
    )
}

/// Makes a CA in a folder, and with it a certificate for 127.0.0.1 and localhost: (CA, certificate, key).
pub(crate) fn certificates(sandbox: &Sandbox, folder: &str) -> (PathBuf, PathBuf, PathBuf) {
    let dir = sandbox.make_dir(folder);
    let file = |name: &str| dir.join(name).display().to_string();
    let (ca, ca_key, request) = (file("ca.crt"), file("ca.key"), file("server.csr"));
    let (certificate, key) = (file("server.crt"), file("server.key"));
    let names = sandbox.write(
        format!("{folder}/names"),
        "subjectAltName=IP:127.0.0.1,DNS:localhost\n",
    );
    let new_key = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ];
    let root = [
        "-x509",
        "-days",
        "30",
        "-subj",
        "/CN=e2e-ca",
        "-addext",
        "basicConstraints=critical,CA:TRUE",
    ];
    openssl(
        ["req"]
            .into_iter()
            .chain(new_key)
            .chain(root)
            .chain(["-keyout", &ca_key, "-out", &ca]),
    );
    let subject = ["-subj", "/CN=127.0.0.1", "-keyout", &key, "-out", &request];
    openssl(["req"].into_iter().chain(new_key).chain(subject));
    let names = names.display().to_string();
    openssl([
        "x509",
        "-req",
        "-in",
        &request,
        "-CA",
        &ca,
        "-CAkey",
        &ca_key,
        "-CAcreateserial",
        "-days",
        "30",
        "-extfile",
        &names,
        "-out",
        &certificate,
    ]);
    (
        PathBuf::from(ca),
        PathBuf::from(certificate),
        PathBuf::from(key),
    )
}

fn openssl<'a>(arguments: impl IntoIterator<Item = &'a str>) {
    run("openssl", arguments);
}
