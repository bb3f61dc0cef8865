//! The commands of the README and of docs/install.md, run unchanged on a new cluster: without the
//! CRDs of snapshots, without the alias for old classes, and without anything of this project.

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output, Stdio};

use e2e::cluster::Cluster;
use e2e::documents::commands;
use e2e::programs::sources;
use e2e::{Process, Sandbox, wait};
use serde_json::json;

use crate::examples::nothing_is_left;
use crate::install::tools;
use crate::provisioner::the_service_serves_the_wizard;

const INSTALL: &str = "docs/install.md";
/// The section with the command by which a person asks all managers.
const PERSON: &str = "### Certificates";
/// Where the only thing is said that this cluster needs and a stranger's does not: a mirror of the registry.
const MIRROR: &str = "apply -k tests/kubernetes/stranger";

/// A person's shell: `kubectl` and `helm` on the path, the checkout as its directory.
pub(crate) struct Shell {
    sandbox: Sandbox,
}

impl Shell {
    pub(crate) fn new() -> Self {
        let sandbox = Sandbox::new("k8s-stranger");
        let cluster = e2e::cluster::directory();
        let node = std::fs::read_to_string(cluster.join("node1.pid")).unwrap();
        let cluster = cluster.display();
        for program in ["kubectl", "helm"] {
            // The API server's address is in the network of node 1; the files are here.
            let script = format!(
                "#!/bin/sh\nexport KUBECONFIG={cluster}/admin.kubeconfig\n\
                 exec nsenter -t {} -n -- {}/{program} \"$@\"\n",
                node.trim(),
                tools()
            );
            let file = sandbox.write(format!("bin/{program}"), script);
            std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        Self { sandbox }
    }

    /// The same, with our plugin of kubectl.
    pub(crate) fn with_plugin() -> Self {
        let shell = Self::new();
        let plugin = shell.sandbox.path("bin/kubectl-longhorn_image");
        std::os::unix::fs::symlink(e2e::programs::kubectl_plugin(), plugin).unwrap();
        shell
    }

    /// Starts `kubectl` with these words; it ends with what this gives.
    pub(crate) fn start(&self, name: &str, words: &str) -> Process {
        let kubectl = self.sandbox.path("bin/kubectl");
        Process::spawn(&self.sandbox, name, &kubectl, words.split(' '), &[])
    }

    /// Runs a command in the network of node 1, where the ports are that `kubectl` forwards; it must succeed.
    pub(crate) fn in_network(&self, command: &str) -> String {
        let output = self.of_network(command);
        assert!(output.status.success(), "{}", e2e::command::words(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The same, whatever comes of it.
    pub(crate) fn try_in_network(&self, command: &str) -> String {
        String::from_utf8_lossy(&self.of_network(command).stdout).into_owned()
    }

    fn of_network(&self, command: &str) -> Output {
        let node = std::fs::read_to_string(e2e::cluster::directory().join("node1.pid")).unwrap();
        Command::new("nsenter")
            .args(["-t", node.trim(), "-n", "sh", "-ec", command])
            .current_dir(self.sandbox.dir())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Runs a command as it is printed; it must succeed.
    pub(crate) fn run(&self, command: &str) -> String {
        let output = self.try_run(command);
        assert!(output.status.success(), "{}", e2e::command::words(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The same, whatever comes of it.
    pub(crate) fn try_run(&self, command: &str) -> Output {
        println!("  $ {command}");
        let path = std::env::var("PATH").unwrap_or_default();
        Command::new("sh")
            .args(["-ec", command])
            .current_dir(sources())
            .env(
                "PATH",
                format!("{}:{path}", self.sandbox.path("bin").display()),
            )
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn run_all(&self, commands: &[String]) {
        for command in commands {
            self.run(command);
        }
    }
}

/// What a newcomer types, in the order of the documents: install, try the example, take it away; then the
/// same with Helm.
pub(crate) fn row_215_commands_of_the_documents(cluster: &Cluster) {
    assert_eq!(
        crds(cluster),
        0,
        "this cluster has CRDs: nobody's first one has"
    );
    let shell = Shell::new();
    let readme = commands("README.md", "## Use it");
    let (apply, example) = readme.split_first().unwrap();
    shell.run(apply);
    shell.run(&format!("kubectl {MIRROR}"));
    let mut install = commands(INSTALL, "## In five minutes");
    // A section of it is about later: the step person.
    let later = commands(INSTALL, PERSON);
    install.retain(|command| !later.contains(command));
    let (kustomize, helm): (Vec<String>, Vec<String>) = install
        .into_iter()
        .partition(|command| !command.contains("helm install") && !command.contains(" label "));
    shell.run_all(&kustomize);
    shell.run(&format!("kubectl {MIRROR}"));
    shell.run_all(&kustomize[1..]);
    shell.run_all(example);
    for number in 0..2 {
        cluster.wait_pod(&format!("provisioner-baseimage-{number}"));
    }
    the_service_serves_the_wizard(cluster);
    cluster.delete("examples/provisioner_with_baseimage.yaml");
    cluster.kubectl("delete --wait=false pvc -l app=provisioner-baseimage");
    nothing_is_left(cluster);
    let uninstall = commands(INSTALL, "## Uninstall");
    let (by_helm, by_kustomize): (Vec<String>, Vec<String>) = uninstall
        .into_iter()
        .partition(|command| command.starts_with("helm"));
    shell.run_all(&by_kustomize);
    nothing_of_ours(cluster);
    shell.run_all(&helm);
    shell.run_all(&kustomize[1..]);
    shell.run_all(&by_helm);
    cluster.kubectl("delete namespace longhorn-system");
    nothing_of_ours(cluster);
}

/// The command by which a person asks all managers, as it is printed.
pub(crate) fn a_person_asks_all_managers(cluster: &Cluster) {
    for command in commands(INSTALL, PERSON) {
        let said = Shell::new().run(&command);
        let disks: serde_json::Value = serde_json::from_str(&said).unwrap();
        let disks = disks.as_array().unwrap();
        assert_eq!(disks.len(), cluster.nodes(), "{said}");
        assert!(disks.iter().all(|disk| disk["answers"] == true), "{said}");
    }
}

fn crds(cluster: &Cluster) -> usize {
    let crds = cluster.get("customresourcedefinitions");
    crds["items"].as_array().unwrap().len()
}

/// No object of ours is in the API.
pub(crate) fn nothing_of_ours(cluster: &Cluster) {
    wait::until("nothing of ours is left", || {
        let kinds = "namespaces,clusterroles,clusterrolebindings,csidrivers,storageclasses";
        let objects = cluster.kubectl(&format!("get {kinds} -o name"));
        (!objects.contains("longhorn")).then_some(())
    });
}

/// With the component, a class of old is stored as one of ours.
pub(crate) fn row_216_an_old_class(cluster: &Cluster) {
    let file = "examples/old_class.yaml";
    cluster.apply(file);
    let class = cluster.get("storageclass old-class");
    assert_eq!(class["provisioner"], json!("driver.longhorn.io"));
    // The same file again, as `kubectl apply` is meant to be used.
    cluster.apply(file);
    cluster.delete(file);
}
