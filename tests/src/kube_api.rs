//! The API server of Kubernetes itself with its etcd, and nothing else of a cluster: no kubelet, no controllers. Objects are
//! stored, rights are checked and tokens are issued as in every cluster.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::programs::sources;
use crate::{Process, Sandbox, command, ports};

/// Where the manifests install everything.
pub const NAMESPACE: &str = "longhorn-system";
const ADMIN: &str = "admin-token";

/// A running API server.
#[derive(Debug)]
pub struct KubeApi {
    directory: PathBuf,
    port: u16,
    kubectl: Kubectl,
    _etcd: Process,
    _server: Process,
}

/// kubectl as an administrator in the namespace of the manifests.
#[derive(Debug)]
struct Kubectl {
    program: PathBuf,
    /// `--server=URL`.
    server: String,
}

impl Kubectl {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args([&self.server, "--token", ADMIN, "--insecure-skip-tls-verify"]);
        command.args(["--namespace", NAMESPACE]).args(arguments);
        command
    }
}

/// Where `tests/kubernetes/build` puts its programs.
fn bin() -> PathBuf {
    let tools = std::env::var_os("TOOLS").map_or_else(
        || {
            PathBuf::from(std::env::var_os("HOME").unwrap_or_default())
                .join(".cache/longhorn-base-image/tools")
        },
        PathBuf::from,
    );
    tools.join("k8s/bin")
}

impl KubeApi {
    /// What it lacks on this machine; `None`: nothing.
    pub fn missing() -> Option<String> {
        for program in ["kube-apiserver", "kubectl"] {
            if !bin().join(program).exists() {
                return Some(format!("{program}: run tests/kubernetes/build cluster"));
            }
        }
        let tools = ["etcd", "openssl"];
        let missing = tools.into_iter().find(|tool| !command::on_path(tool));
        missing.map(str::to_owned)
    }

    /// Starts one, with the manifests applied.
    pub fn start(sandbox: &Sandbox) -> Self {
        let directory = sandbox.make_dir("kubernetes");
        let path = |name: &str| directory.join(name).display().to_string();
        let (client, peer, port) = (ports::free(), ports::free(), ports::free().port());
        let url = format!("http://{client}");
        let peer_url = format!("http://{peer}");
        let etcd_flags = [
            "--data-dir",
            &path("etcd"),
            "--unsafe-no-fsync",
            "--listen-client-urls",
            &url,
            "--advertise-client-urls",
            &url,
            "--listen-peer-urls",
            &peer_url,
            "--initial-advertise-peer-urls",
            &peer_url,
            "--initial-cluster",
            &format!("default={peer_url}"),
        ];
        let program = command::find("etcd").unwrap();
        let etcd = Process::spawn(sandbox, "etcd", &program, etcd_flags, &[]);
        let (key, public) = (path("accounts.key"), path("accounts.pub"));
        let curve = [
            "ecparam",
            "-name",
            "prime256v1",
            "-genkey",
            "-noout",
            "-out",
            &key,
        ];
        command::run("openssl", curve);
        command::run("openssl", ["ec", "-in", &key, "-pubout", "-out", &public]);
        let tokens = sandbox.write(
            "kubernetes/tokens.csv",
            format!("{ADMIN},admin,admin,\"system:masters\"\n"),
        );
        let server_flags = [
            format!("--etcd-servers={url}"),
            "--bind-address=127.0.0.1".to_owned(),
            // Of a test's network, which may have no other address (RFC 5737).
            "--advertise-address=192.0.2.1".to_owned(),
            "--endpoint-reconciler-type=none".to_owned(),
            format!("--secure-port={port}"),
            format!("--cert-dir={}", path("certificates")),
            format!("--service-account-key-file={public}"),
            format!("--service-account-signing-key-file={key}"),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            "--service-cluster-ip-range=10.96.0.0/24".to_owned(),
            "--authorization-mode=RBAC".to_owned(),
            "--allow-privileged=true".to_owned(),
            format!("--token-auth-file={}", tokens.display()),
        ];
        let program = bin().join("kube-apiserver");
        let mut server = Process::spawn(sandbox, "kube-apiserver", &program, server_flags, &[]);
        let kubectl = Kubectl {
            program: bin().join("kubectl"),
            server: format!("--server=https://127.0.0.1:{port}"),
        };
        server.wait_ready(|| {
            let ready = kubectl.command(&["get", "--raw", "/readyz"]).output();
            ready.unwrap().status.success()
        });
        let api = Self {
            directory: directory.clone(),
            port,
            kubectl,
            _etcd: etcd,
            _server: server,
        };
        let overlay = sources().join("deploy/kustomize/overlays/default");
        api.kubectl(&["apply", "-k", &overlay.display().to_string()], "");
        api.write_account(sandbox);
        api
    }

    /// Runs kubectl as an administrator in the namespace of the manifests, with `input`.
    #[track_caller]
    pub fn kubectl(&self, arguments: &[&str], input: &str) -> String {
        use std::io::Write as _;
        let mut child = self
            .kubectl
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        let words = command::words(&output);
        assert!(output.status.success(), "kubectl {arguments:?}: {words}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The files of the controller's account, with a token that is good for an hour.
    fn write_account(&self, sandbox: &Sandbox) {
        let token = self.kubectl(&["create", "token", "longhorn-csi-controller"], "");
        let authority = std::fs::read(self.directory.join("certificates/apiserver.crt")).unwrap();
        sandbox.write("kubernetes/account/token", token);
        sandbox.write("kubernetes/account/namespace", NAMESPACE);
        sandbox.write("kubernetes/account/ca.crt", authority);
    }

    /// The directory with the account of the controller.
    pub fn account(&self) -> PathBuf {
        self.directory.join("account")
    }

    /// kubectl itself.
    pub fn kubectl_program() -> PathBuf {
        bin().join("kubectl")
    }

    /// A kubeconfig of an administrator, whose namespace is `default`.
    pub fn kubeconfig(&self, sandbox: &Sandbox) -> PathBuf {
        let url = self.url();
        let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": url, "insecure-skip-tls-verify": true}}],
            "users": [{"name": "admin", "user": {"token": ADMIN}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}]});
        sandbox.write("kubernetes/kubeconfig", config.to_string())
    }

    /// `https://HOST:PORT`.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// The environment of a pod.
    pub fn environment(&self) -> [(&'static str, String); 2] {
        [
            ("KUBERNETES_SERVICE_HOST", "127.0.0.1".to_owned()),
            ("KUBERNETES_SERVICE_PORT", self.port.to_string()),
        ]
    }

    /// Makes pods of an account, on nodes n0, n1, …, that nothing runs.
    pub fn make_pods(&self, account: &str, names: &[String]) {
        let pods = names.iter().enumerate().map(|(n, name)| {
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
                "spec": {"serviceAccountName": account, "nodeName": format!("n{n}"),
                    "containers": [{"name": "c", "image": "none"}]}})
        });
        let list =
            json!({"apiVersion": "v1", "kind": "List", "items": pods.collect::<Vec<Value>>()});
        self.kubectl(&["create", "-f", "-"], &list.to_string());
    }

    /// The token of a pod, or of the account alone, for an audience, in a file.
    pub fn token(&self, account: &str, pod: Option<&str>, audience: &str) -> PathBuf {
        let audience = format!("--audience={audience}");
        let mut arguments = vec!["create", "token", account, &audience];
        if let Some(pod) = pod {
            arguments.extend(["--bound-object-kind=Pod", "--bound-object-name", pod]);
        }
        let token = self.kubectl(&arguments, "");
        let name = format!(
            "token-{account}-{}-{}",
            pod.unwrap_or("none"),
            audience.len()
        );
        let path = self.directory.join(name);
        write(&path, &token);
        path
    }
}

fn write(path: &Path, text: &str) {
    use std::io::Write as _;
    let mut file = std::fs::File::create(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}
