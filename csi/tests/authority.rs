//! The plugin as the certificate authority of a cluster: the built program, asked as pods ask it.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use e2e::{AddressFile, ApiServer, KubeApi, PodToken, Process, Sandbox, block_on, programs, wait};
use trust::Source;

const MANAGER: &str = "backing-image-manager";

/// A controller that is the authority.
struct Controller {
    process: Process,
    addresses: AddressFile,
}

impl Controller {
    fn start(
        sandbox: &Sandbox,
        name: &str,
        account: &Path,
        environment: &[(&'static str, String); 2],
    ) -> Self {
        let addresses = AddressFile::new(sandbox);
        let socket = sandbox.make_dir(name).join("csi.sock");
        let mut arguments: Vec<OsString> = [
            "--mode=controller",
            "--manager=127.0.0.1:1",
            "--ca-secret=longhorn-base-image-ca",
            "--ca-configmap=longhorn-base-image-ca",
            "--authority-listen=127.0.0.1:0",
            "--http-listen=127.0.0.1:0",
            "--log-level=trace",
        ]
        .map(OsString::from)
        .to_vec();
        arguments.push(format!("--endpoint=unix://{}", socket.display()).into());
        for (flag, path) in [
            ("--account-dir", account),
            ("--address-file", addresses.path()),
        ] {
            arguments.extend([flag.into(), path.into()]);
        }
        let environment: Vec<_> = environment.iter().map(|(k, v)| (*k, v.as_str())).collect();
        let program = programs::csi_plugin();
        let mut process = Process::spawn(sandbox, name, &program, arguments, &environment);
        process.wait_ready(|| addresses.written());
        Self { process, addresses }
    }

    fn address(&self) -> SocketAddr {
        self.addresses.get("authority")
    }

    /// What `/readyz` says.
    fn readiness(&self) -> String {
        let url = format!("http://{}/readyz", self.addresses.get("http"));
        String::from_utf8(e2e::web::get(&url).unwrap().1).unwrap()
    }

    /// A certificate for the pod of a token in a file: the identity in it.
    async fn certify(&self, token: PathBuf, roots: &Path) -> trust::Result<String> {
        certify(self.address(), token, roots).await
    }
}

/// As every program of ours does it; `roots` is the file with the published authorities.
async fn certify(address: SocketAddr, token: PathBuf, roots: &Path) -> trust::Result<String> {
    let held = client::hold_once(Source::Authority {
        address: address.to_string(),
        bundle: roots.to_owned(),
        token,
    });
    let credential = held.await?.credential().unwrap();
    assert!(credential.not_after() > SystemTime::now() + Duration::from_hours(23));
    Ok(credential.identity().to_string())
}

/// A cluster with the two empty objects of the manifests.
fn small_cluster(sandbox: &Sandbox) -> ApiServer {
    let server = ApiServer::start(sandbox);
    for kind in ["secrets", "configmaps"] {
        server.put(&format!("{kind}/longhorn-base-image-ca"), &[]);
    }
    server
}

/// How often Kubernetes has been asked for a token.
fn reviews(server: &ApiServer) -> usize {
    let asked = server.asked();
    asked
        .iter()
        .filter(|line| line.ends_with("/tokenreviews"))
        .count()
}

/// The file with the published authorities, as a pod has it mounted.
fn published(sandbox: &Sandbox, server: &ApiServer) -> PathBuf {
    let bundle = wait::until("the authority is published", || {
        let mut entries = server.entries("configmaps/longhorn-base-image-ca");
        entries.remove("ca.crt")
    });
    sandbox.write("ca.crt", bundle)
}

#[test]
fn row_235_pods_are_certified_and_nothing_secret_is_in_a_log_of_any_level() {
    let sandbox = Sandbox::new("authority");
    let server = small_cluster(&sandbox);
    let controller = Controller::start(
        &sandbox,
        "controller",
        server.account(),
        &server.environment(),
    );
    let roots = published(&sandbox, &server);
    let token = server.token(&PodToken::of(MANAGER, "pod-1", "n1"));
    let file = sandbox.write("token", &token);
    let identity = block_on(controller.certify(file, &roots)).unwrap();
    assert_eq!(identity, "spiffe://base-image.longhorn.io/manager/n1/pod-1");
    let wrong = PodToken {
        audience: "vault",
        ..PodToken::of(MANAGER, "pod-2", "n1")
    };
    let refused = sandbox.write("wrong", server.token(&wrong));
    let error = block_on(controller.certify(refused, &roots)).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("controller at 127.0.0.1") && text.contains("\"vault\""),
        "{text}"
    );
    // Of another cluster: nothing is said to a controller that is not the one that is meant.
    let other = trust::Authority::create(SystemTime::now()).unwrap();
    let file = sandbox.path("token");
    let asked = reviews(&server);
    let other = sandbox.write("other.crt", other.certificate_pem());
    block_on(controller.certify(file.clone(), &other)).unwrap_err();
    let empty = sandbox.write("empty.crt", "");
    let error = block_on(controller.certify(file, &empty)).unwrap_err();
    assert!(error.to_string().contains("not been published"), "{error}");
    assert_eq!(reviews(&server), asked);

    let log = controller.process.log();
    assert!(
        log.contains("certified a pod") && log.contains("DEBUG"),
        "{log}"
    );
    let key = server
        .entries("secrets/longhorn-base-image-ca")
        .remove("tls.key");
    let key = key.unwrap();
    let secrets = [token.as_str(), e2e::api_server::ITS_TOKEN]
        .into_iter()
        .chain(key.lines().filter(|line| line.len() > 40));
    for secret in secrets.chain(token.split('.').skip(1)) {
        assert!(!log.contains(secret), "a secret is in the log");
    }
}

#[test]
fn row_231_a_controller_without_its_secret_says_so_and_goes_on_when_it_is_there() {
    let sandbox = Sandbox::new("authority-waits");
    let server = small_cluster(&sandbox);
    server.remove("secrets/longhorn-base-image-ca");
    let controller = Controller::start(
        &sandbox,
        "controller",
        server.account(),
        &server.environment(),
    );
    wait::until("it says what it waits for", || {
        let said = controller.readiness();
        let expected = "waiting for a certificate: the Secret longhorn-system/longhorn-base-image-ca does not exist";
        said.contains(expected).then_some(())
    });
    server.put("secrets/longhorn-base-image-ca", &[]);
    let roots = published(&sandbox, &server);
    let token = server.token(&PodToken::of("longhorn-csi-plugin", "pod-1", "n1"));
    let token = sandbox.write("token", token);
    let certified = || block_on(controller.certify(token.clone(), &roots)).ok();
    let identity = wait::until("a pod is certified", certified);
    assert_eq!(identity, "spiffe://base-image.longhorn.io/node/n1/pod-1");
    // All that is missing now is a manager.
    let said = controller.readiness();
    assert!(!said.contains("certificate"), "{said}");
}

/// The real API server: what the small one above is a copy of. Its rights are those of the manifests.
#[test]
fn row_235_a_hundred_managers_at_once_are_certified() {
    if let Some(missing) = KubeApi::missing() {
        e2e::needs::skip(&missing);
        return;
    }
    let sandbox = Sandbox::new("authority-kubernetes");
    let api = KubeApi::start(&sandbox);
    let (account, environment) = (api.account(), api.environment());
    let start = |name: &str| Controller::start(&sandbox, name, &account, &environment);
    // Both want to be the first.
    let controllers = [start("controller-1"), start("controller-2")];
    let roots = wait::until("the authority is published", || {
        let path = "-o=jsonpath={.data.ca\\.crt}";
        let text = api.kubectl(&["get", "configmap", "longhorn-base-image-ca", path], "");
        (!text.is_empty()).then_some(text)
    });
    assert_eq!(roots.matches("BEGIN").count(), 1, "one authority: {roots}");
    let roots = sandbox.write("ca.crt", roots);
    let names: Vec<String> = (0..100).map(|n| format!("manager-{n}")).collect();
    api.make_pods(MANAGER, &names);
    let ours = "longhorn-base-image";
    let tokens: Vec<PathBuf> = names
        .iter()
        .map(|name| api.token(MANAGER, Some(name), ours))
        .collect();
    let begun = Instant::now();
    let certified = block_on(async {
        let mut asking = tokio::task::JoinSet::new();
        for (n, token) in tokens.iter().cloned().enumerate() {
            let (address, roots) = (controllers[n % 2].address(), roots.clone());
            asking.spawn(async move { certify(address, token, &roots).await.unwrap() });
        }
        asking.join_all().await
    });
    let took = begun.elapsed();
    println!("100 managers certified in {took:?}");
    for (n, name) in names.iter().enumerate() {
        let identity = format!("spiffe://base-image.longhorn.io/manager/n{n}/{name}");
        assert!(certified.contains(&identity), "{identity}");
    }
    what_is_not_right_is_refused(&api, &controllers[0], &tokens[1], &roots);
    what_is_stored_survives_an_upgrade(&api);
}

/// By the real server as by the small one.
fn what_is_not_right_is_refused(api: &KubeApi, controller: &Controller, gone: &Path, roots: &Path) {
    let ours = "longhorn-base-image";
    api.kubectl(&["create", "serviceaccount", "guest"], "");
    api.make_pods("guest", &["guest".to_owned()]);
    for (token, words) in [
        (api.token(MANAGER, None, ours), "of no pod"),
        (api.token(MANAGER, Some("manager-0"), "vault"), "vault"),
        (api.token("guest", Some("guest"), ours), "guest has no role"),
    ] {
        let error = block_on(controller.certify(token, roots)).unwrap_err();
        assert!(error.to_string().contains(words), "{words}: {error}");
    }
    // For some seconds the API server goes on accepting the token of a pod that is gone.
    api.kubectl(
        &["delete", "pod", "manager-1", "--force", "--grace-period=0"],
        "",
    );
    let error = block_on(controller.certify(gone.to_owned(), roots)).unwrap_err();
    assert!(error.to_string().contains("manager-1"), "{error}");
}

/// Applied again, the authority is left as it is; emptied, it is written back.
fn what_is_stored_survives_an_upgrade(api: &KubeApi) {
    let key = || {
        let path = "-o=jsonpath={.data.tls\\.key}";
        api.kubectl(&["get", "secret", "longhorn-base-image-ca", path], "")
    };
    let stored = key();
    assert!(!stored.is_empty());
    let overlay = programs::sources().join("deploy/kustomize/overlays/default");
    let overlay = overlay.display().to_string();
    api.kubectl(&["apply", "-k", &overlay], "");
    api.kubectl(
        &[
            "apply",
            "--server-side",
            "--force-conflicts",
            "-k",
            &overlay,
        ],
        "",
    );
    assert_eq!(key(), stored);
    api.kubectl(
        &[
            "patch",
            "secret",
            "longhorn-base-image-ca",
            "--type=json",
            "-p",
            r#"[{"op": "remove", "path": "/data"}]"#,
        ],
        "",
    );
    wait::until("the authority is written back", || {
        (key() == stored).then_some(())
    });
}
