//! The plugin `kubectl longhorn-image` as it is built: over real managers (506, 507), the API server of Kubernetes
//! itself (503, 504), and one that never answers (508).
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use e2e::baseimage::{self, Build};
use e2e::certificates::Authority;
use e2e::kube_api::KubeApi;
use e2e::manager::{Manager, Options};
use e2e::{Registry, Sandbox, block_on, command, programs, wait};
use proto::storage::v1 as pb;
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};

fn plugin(arguments: &[&str]) -> Command {
    let mut command = Command::new(programs::kubectl_plugin());
    command
        .args(arguments)
        .env_remove("KUBECONFIG")
        .stdin(Stdio::null());
    command
}

/// Two managers of two nodes, and how a person reaches them.
struct Site {
    managers: Vec<Manager>,
    registry: Registry,
    sandbox: Sandbox,
    options: Vec<String>,
    authority: Authority,
}

impl Site {
    fn manager(
        sandbox: &Sandbox,
        authority: &Authority,
        registry: &Registry,
        node: &str,
    ) -> Manager {
        let disk = sandbox.path(format!("disk-{node}"));
        let options = Options::new(&disk).trusting(authority, node);
        Manager::start(sandbox, &options.with_registry(registry))
    }

    /// Kills a manager, and starts it again at another port.
    fn restart(&mut self, number: usize) {
        self.managers[number].process.kill_9();
        let node = format!("n{}", number + 1);
        self.managers[number] =
            Self::manager(&self.sandbox, &self.authority, &self.registry, &node);
        let at = self.options.len() - 2 * (self.managers.len() - number) + 1;
        self.options[at] = self.managers[number].address().to_string();
    }

    fn start(name: &str) -> Self {
        let sandbox = Sandbox::new(name);
        let authority = Authority::new(&sandbox, "authority");
        let registry = Registry::start(&sandbox);
        let managers: Vec<_> = ["n1", "n2"]
            .into_iter()
            .map(|node| {
                let disk = sandbox.make_dir(format!("disk-{node}"));
                e2e::manager::init_disk(&disk);
                Self::manager(&sandbox, &authority, &registry, node)
            })
            .collect();
        let mut options = vec![
            "--certificates".to_owned(),
            authority.issue("cli/alice").display().to_string(),
        ];
        for manager in &managers {
            options.extend(["--manager".to_owned(), manager.address().to_string()]);
        }
        Self {
            managers,
            registry,
            sandbox,
            options,
            authority,
        }
    }

    fn try_run(&self, arguments: &[&str]) -> Output {
        plugin(arguments).args(&self.options).output().unwrap()
    }

    #[track_caller]
    fn run(&self, arguments: &[&str]) -> String {
        let output = self.try_run(arguments);
        let words = command::words(&output);
        assert!(output.status.success(), "{arguments:?}: {words}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.run(&[arguments, &["-o", "json"]].concat())).unwrap()
    }
}

/// It fails with this exit code and says that.
#[track_caller]
fn assert_fails(output: &Output, code: i32, says: &str) {
    let words = command::words(output);
    assert_eq!(output.status.code(), Some(code), "{words}");
    assert!(words.contains(says), "{words}");
}

#[test]
fn row_506_images_and_volumes_of_all_disks_are_made_shown_and_deleted() {
    let site = Site::start("kubectl-all");
    let page = baseimage::web_page(&site.sandbox);
    let build = Build {
        from: Some(&page),
        fs: Some("ext4"),
        size: None,
        options: &[],
    };
    let reference = build.push(&site.registry, "site:1");
    let disks = site.json(&["get", "disks"]);
    let nodes: Vec<_> = disks
        .as_array()
        .unwrap()
        .iter()
        .map(|disk| disk["node"].clone())
        .collect();
    assert_eq!(nodes, ["n1", "n2"]);
    assert!(
        site.try_run(&["get", "images"]).status.success(),
        "an empty list is no failure"
    );

    let pulled = site.run(&[
        "pull", &reference, "--name", "site", "--node", "n2", "--wait",
    ]);
    assert_eq!(pulled, "image/site ready on node n2\n");
    let image = &site.json(&["get", "images", "site"])[0];
    assert_eq!(
        (&image["state"], &image["disks"][0]["node"]),
        (&json!("ready"), &json!("n2"))
    );
    let table = site.run(&["get", "images"]);
    assert!(
        table.contains("1 of 2") && table.contains("ext4"),
        "{table}"
    );
    assert_eq!(site.run(&["get", "images", "-o", "name"]), "image/site\n");
    let yaml = site.run(&["get", "images", "-o", "yaml"]);
    assert!(
        yaml.contains("\n  name: site\n") && yaml.contains("\n  state: ready\n"),
        "{yaml}"
    );

    // On the disk that has the image, although the other may have more room.
    site.run(&[
        "create", "volume", "data", "--image", "site", "--size", "64Mi",
    ]);
    site.run(&[
        "create", "volume", "blank", "--node", "n1", "--size", "16Mi",
    ]);
    let volumes = site.json(&["get", "volumes"]);
    let of = |name: &str| {
        volumes
            .as_array()
            .unwrap()
            .iter()
            .find(|one| one["name"] == name)
            .unwrap()
    };
    assert_eq!(of("data")["replicas"][0]["node"], "n2");
    assert_eq!(of("blank")["replicas"][0]["node"], "n1");
    assert_eq!(
        site.run(&["grow", "blank", "--size", "32Mi"]),
        "volume/blank has 32 MiB\n"
    );
    let described = site.run(&["describe", "volume", "data"]);
    assert!(described.contains("node n2, disk "), "{described}");

    assert_fails(&site.try_run(&["delete", "volume", "data"]), 1, "add --yes");
    assert_fails(
        &site.try_run(&["delete", "image", "site", "--yes"]),
        1,
        "data",
    );
    assert_fails(
        &site.try_run(&["delete", "snapshot", "site", "--yes"]),
        1,
        "delete image site",
    );
    site.run(&["delete", "volume", "data", "--yes"]);
    site.run(&["delete", "volume", "blank", "--yes"]);
    site.run(&["delete", "image", "site", "--yes"]);
    assert_eq!(site.json(&["get", "volumes"]), json!([]));
    assert_eq!(site.json(&["get", "images"]), json!([]));
}

#[test]
fn row_507_who_does_not_answer_is_said_and_nothing_is_taken_for_absent() {
    let mut site = Site::start("kubectl-silent");
    site.run(&["create", "volume", "one", "--node", "n1", "--size", "16Mi"]);
    assert_fails(
        &site.try_run(&["describe", "volume", "other"]),
        1,
        "there is no volume other",
    );
    site.managers.pop().unwrap().process.kill_9();
    let listed = site.try_run(&["get", "volumes"]);
    assert!(listed.status.success(), "a list shows what the others have");
    let said = String::from_utf8_lossy(&listed.stderr).into_owned();
    assert!(
        said.contains("1 of 2 backing image managers answered"),
        "{said}"
    );
    assert!(String::from_utf8_lossy(&listed.stdout).contains("one"));
    assert_fails(
        &site.try_run(&["describe", "volume", "other"]),
        1,
        "may have it",
    );
    assert_fails(&site.try_run(&["doctor"]), 3, "does not answer");
    assert_fails(&site.try_run(&["why", "claim"]), 1, "needs Kubernetes");
    assert_fails(
        &plugin(&["get", "nonsense"]).output().unwrap(),
        2,
        "possible values",
    );
}

#[test]
fn row_509_an_upload_goes_on_after_a_break() {
    const SIZE: usize = 5 << 20;
    let mut site = Site::start("kubectl-upload");
    let bytes: Vec<u8> = (0..SIZE)
        .map(|at| (at * 31 % 251).to_le_bytes()[0])
        .collect();
    let file = site.sandbox.write("guest.raw", &bytes);
    let path = file.display().to_string();
    // What a plugin leaves that was killed after its first piece, on a disk that it would not choose today.
    let begin = |site: &Site, name: &str| {
        let request = pb::CreateBackingImageRequest {
            name: name.to_owned(),
            source: Some(pb::Source {
                source: Some(pb::source::Source::Upload(pb::UploadSource {
                    size: SIZE as u64,
                    file_name: "guest.raw".to_owned(),
                })),
            }),
            ..Default::default()
        };
        let begun = site.managers[1].create_image(request).unwrap();
        let piece = pb::WriteUploadRequest {
            name: name.to_owned(),
            uuid: begun.uuid.clone(),
            offset: 0,
            data: bytes[..2 << 20].to_vec().into(),
        };
        block_on(site.managers[1].images().write_upload(piece)).unwrap();
        begun.uuid
    };
    let sum = command::run("sha512sum", [&path]);
    let sum = sum.split(' ').next().unwrap();
    for (name, killed) in [("guest", false), ("killed", true)] {
        let uuid = begin(&site, name);
        if killed {
            site.restart(1);
        }
        let said = site.try_run(&["upload", &path, "--name", name]);
        let words = command::words(&said);
        assert!(said.status.success(), "{words}");
        let ready = format!("image/{name} ready on node n2");
        assert!(words.contains(&ready), "{words}");
        // A manager that is killed may have lost what it had not synced.
        assert!(
            killed || words.contains(" 40%") && !words.contains(" 0%"),
            "it went on where it was: {words}"
        );
        site.managers[1].summed_image(name);
        let image = &site.json(&["get", "images", name])[0];
        assert_eq!(image["uuid"], uuid.as_str());
        assert_eq!(
            image["checksum"]
                .as_str()
                .unwrap()
                .trim_start_matches("sha512:"),
            sum
        );
    }
    // The same again finds it there, after a power cut of its manager as well.
    site.restart(1);
    site.run(&["upload", &path, "--name", "guest"]);
}

/// A claim of a class.
fn claim(name: &str, class: &str) -> String {
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
        "spec": {"storageClassName": class, "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "64Mi"}}}})
    .to_string()
}

#[test]
fn row_503_a_claim_says_what_it_waits_for() {
    if let Some(missing) = KubeApi::missing() {
        println!("skipped: needs {missing}");
        return;
    }
    let sandbox = Sandbox::new("kubectl-why");
    let api = KubeApi::start(&sandbox);
    let config = api.kubeconfig(&sandbox).display().to_string();
    let kubectl = KubeApi::kubectl_program().display().to_string();
    let create =
        |object: &str| api.kubectl(&["--namespace", "default", "apply", "-f", "-"], object);
    let other = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "other"},
        "provisioner": "other.example"});
    create(&other.to_string());
    create(&claim("nowhere", "absent"));
    create(&claim("others", "other"));
    create(&claim("waits", "longhorn-base-image"));
    let why = |claim: &str| {
        let arguments = ["why", claim, "--kubeconfig", &config, "--kubectl", &kubectl];
        plugin(&arguments).output().unwrap()
    };
    assert_fails(
        &why("nowhere"),
        3,
        "StorageClass absent, which does not exist",
    );
    assert_fails(
        &why("others"),
        3,
        "other.example, the provisioner of class other",
    );
    assert_fails(
        &why("waits"),
        3,
        "claim default/waits waits for its first consumer",
    );
    assert_fails(
        &why("missing"),
        1,
        "there is no PersistentVolumeClaim missing",
    );
}

#[test]
fn row_504_a_bundle_has_no_secret() {
    const SECRET: &str = "hunter2-hunter2";
    if let Some(missing) = KubeApi::missing() {
        println!("skipped: needs {missing}");
        return;
    }
    let sandbox = Sandbox::new("kubectl-dump");
    let api = KubeApi::start(&sandbox);
    let config = api.kubeconfig(&sandbox).display().to_string();
    let kubectl = KubeApi::kubectl_program().display().to_string();
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"},
        "stringData": {"password": SECRET}});
    api.kubectl(&["apply", "-f", "-"], &secret.to_string());
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"serviceAccountName": "backing-image-manager", "containers": [{"name": "c", "image": "none",
            "env": [{"name": "HTTPS_PROXY", "value": format!("http://u:{SECRET}@proxy.example:3128")},
                {"name": "AWS_SECRET_ACCESS_KEY", "value": SECRET}], "args": [format!("--token={SECRET}")]}]}});
    api.kubectl(&["apply", "-f", "-"], &pod.to_string());
    let to = sandbox.path("bundle").display().to_string();
    let arguments = ["dump", &to, "--kubeconfig", &config, "--kubectl", &kubectl];
    let output = plugin(&arguments).output().unwrap();
    assert!(output.status.success(), "{}", command::words(&output));
    let mut texts = String::new();
    read_all(Path::new(&to), &mut texts);
    assert!(
        texts.contains("proxy.example:3128"),
        "what is no secret is there"
    );
    assert!(
        !texts.contains(SECRET) && !texts.contains("aHVudGVyMi"),
        "a secret is in the bundle"
    );
    assert_fails(&plugin(&arguments).output().unwrap(), 1, "is there already");
}

fn read_all(directory: &Path, texts: &mut String) {
    for entry in fs::read_dir(directory).unwrap().flatten() {
        if entry.path().is_dir() {
            read_all(&entry.path(), texts);
        } else {
            texts.push_str(&fs::read_to_string(entry.path()).unwrap());
        }
    }
}

/// The children of a process.
fn children(pid: u32) -> Vec<u32> {
    let file = format!("/proc/{pid}/task/{pid}/children");
    let list = fs::read_to_string(file).unwrap_or_default();
    list.split_whitespace()
        .map(|pid| pid.parse().unwrap())
        .collect()
}

fn runs(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Killed and not waited for yet is dead.
    stat.rsplit_once(')')
        .is_some_and(|(_, rest)| !rest.starts_with(" Z"))
}

#[test]
fn row_508_children_end_with_the_plugin_whatever_ends_it() {
    if let Some(missing) = KubeApi::missing() {
        println!("skipped: needs {missing}");
        return;
    }
    // An API server that takes connections and says nothing: kubectl waits for it.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("http://{}", silent.local_addr().unwrap());
    let sandbox = Sandbox::new("kubectl-children");
    let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": server}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": ""}}]});
    let config = sandbox
        .write("kubeconfig", config.to_string())
        .display()
        .to_string();
    let kubectl = KubeApi::kubectl_program().display().to_string();
    for signal in [Signal::KILL, Signal::TERM, Signal::INT] {
        let mut started = plugin(&[
            "get",
            "volumes",
            "--kubeconfig",
            &config,
            "--kubectl",
            &kubectl,
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
        let child = wait::until("the plugin runs kubectl", || {
            children(started.id()).first().copied()
        });
        let id = Pid::from_raw(started.id().try_into().unwrap()).unwrap();
        rustix::process::kill_process(id, signal).unwrap();
        assert!(!started.wait().unwrap().success());
        wait::until("kubectl has ended", || (!runs(child)).then_some(()));
    }
}
