//! A real Kubernetes cluster on this machine (tests/kubernetes/cluster), and kubectl on it.

use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Output, Stdio};

use serde_json::Value;

use crate::command::words;
use crate::programs::sources;
use crate::wait;

/// Where the registry is that everybody may use.
pub const OPEN_REGISTRY: &str = "10.99.0.1:5000";
/// Where the one is that wants a password: `registry.example` of the examples.
pub const PRIVATE_REGISTRY: &str = "10.99.0.1:443";

/// A running cluster. Dropping it takes it down with all that it attached, unless it is kept.
#[derive(Debug)]
pub struct Cluster {
    keep: bool,
    nodes: usize,
}

impl Cluster {
    /// Brings one up, in place of one that runs.
    pub fn up(nodes: usize, keep: bool) -> Self {
        let cluster = Self { keep, nodes };
        cluster.script(["up".to_owned(), nodes.to_string()]);
        cluster
    }

    /// The one that runs already; it is kept.
    pub fn running() -> Self {
        let cluster = Self {
            keep: true,
            nodes: 0,
        };
        let nodes = cluster.kubectl("get nodes -o name").lines().count();
        Self { nodes, ..cluster }
    }

    /// How many nodes it has: 1 to this.
    pub const fn nodes(&self) -> usize {
        self.nodes
    }

    /// Imports container images into every node.
    pub fn load(&self, images: &[PathBuf]) {
        let paths = images.iter().map(|path| path.display().to_string());
        self.script(["load".to_owned()].into_iter().chain(paths));
    }

    /// Calls an image of every node by one more name.
    pub fn tag(&self, image: &str, name: &str) {
        self.script(["tag", image, name].map(ToOwned::to_owned));
    }

    /// Runs a command in the namespaces of a node, and gives what it prints.
    #[track_caller]
    pub fn enter(&self, node: usize, command: &[&str]) -> String {
        let words = command.iter().map(|word| (*word).to_owned());
        self.script(
            ["enter".to_owned(), node.to_string()]
                .into_iter()
                .chain(words),
        )
    }

    /// Starts a command in the namespaces of a node. It should end when its standard input does, which is when what comes
    /// back is dropped; what it says goes to a file of that name in the cluster's logs.
    pub fn start(&self, node: usize, name: &str, command: &[&str]) -> ChildStdin {
        let script = sources().join("tests/kubernetes/cluster");
        let log = directory().join("log").join(format!("{name}{node}.log"));
        let log = std::fs::File::create(&log).unwrap();
        let mut child = Command::new(&script)
            .args(["enter", &node.to_string()])
            .args(command)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", script.display()));
        let input = child.stdin.take().expect("it is piped");
        // Whoever started it does not wait for its end.
        std::thread::spawn(move || child.wait());
        input
    }

    /// The same, whatever comes of it.
    pub fn try_enter(&self, node: usize, command: &[&str]) -> Output {
        let words = command.iter().map(|word| (*word).to_owned());
        run(["enter".to_owned(), node.to_string()]
            .into_iter()
            .chain(words))
    }

    /// Pulls the plug of a node, or boots it again.
    #[track_caller]
    pub fn power(&self, node: usize, on: bool) {
        let command = if on { "on" } else { "off" };
        self.script([command.to_owned(), node.to_string()]);
    }

    /// Ends the kubelet of a node, and starts it again.
    #[track_caller]
    pub fn restart_kubelet(&self, node: usize) {
        self.script(["kubelet".to_owned(), node.to_string()]);
    }

    /// From now on, what goes over the networks of the nodes at the ports where our programs speak TLS is written
    /// down.
    pub fn capture(&self) {
        self.script(["capture".to_owned()]);
    }

    /// Ends that, and gives the files of each node in the order in which they were written, and what tcpdump says of
    /// them.
    pub fn captured(&self) -> (Vec<Vec<PathBuf>>, String) {
        let said = self.script(["captured".to_owned()]);
        let directory = directory().join("capture");
        let file = |node, number| directory.join(format!("{node}-{number}.pcap"));
        let files = |node| {
            (0..)
                .map(move |number| file(node, number))
                .take_while(|file| file.exists())
        };
        (
            (1..=self.nodes).map(|node| files(node).collect()).collect(),
            said,
        )
    }

    /// The bytes that an address serves, asked from a node.
    pub fn fetch(&self, node: usize, url: &str) -> Option<Vec<u8>> {
        let node = node.to_string();
        let curl = ["enter", &node, "curl", "-sSf", "--max-time", "5", url];
        let output = run(curl.map(ToOwned::to_owned));
        output.status.success().then_some(output.stdout)
    }

    /// kubectl with the words of one line; panics when it fails.
    #[track_caller]
    pub fn kubectl(&self, line: &str) -> String {
        let words = line.split(' ').map(ToOwned::to_owned);
        self.script(["kubectl".to_owned()].into_iter().chain(words))
    }

    /// kubectl, whatever comes of it.
    pub fn try_kubectl(&self, line: &str) -> Output {
        let words = line.split(' ').map(ToOwned::to_owned);
        run(["kubectl".to_owned()].into_iter().chain(words))
    }

    /// An object, or a list of them, as JSON.
    #[track_caller]
    pub fn get(&self, what: &str) -> Value {
        serde_json::from_str(&self.kubectl(&format!("get {what} -o json"))).unwrap()
    }

    /// `kubectl apply -f` of a file of the sources, exactly as it is.
    #[track_caller]
    pub fn apply(&self, file: &str) {
        self.kubectl(&format!("apply -f {}", sources().join(file).display()));
    }

    /// `kubectl delete -f` of the same file, without waiting.
    #[track_caller]
    pub fn delete(&self, file: &str) {
        let file = sources().join(file);
        self.kubectl(&format!("delete --wait=false -f {}", file.display()));
    }

    /// Runs a shell command in a pod.
    #[track_caller]
    pub fn exec(&self, pod: &str, command: &str) -> String {
        self.exec_in("default", pod, command)
    }

    /// The same in a namespace.
    #[track_caller]
    pub fn exec_in(&self, namespace: &str, pod: &str, command: &str) -> String {
        let words = [
            "kubectl", "-n", namespace, "exec", pod, "--", "sh", "-c", command,
        ];
        self.script(words.map(ToOwned::to_owned))
    }

    /// Waits for a pod to be ready, and says why it is not when it takes too long.
    #[track_caller]
    pub fn wait_pod(&self, pod: &str) {
        let line = format!("wait pod/{pod} --for=condition=Ready --timeout=120s");
        // A controller may not have made it yet.
        wait::until(&format!("pod {pod} is made"), || {
            self.try_kubectl(&format!("get pod {pod}"))
                .status
                .success()
                .then_some(())
        });
        if !self.try_kubectl(&line).status.success() {
            eprintln!("{}", self.kubectl(&format!("describe pod {pod}")));
            eprintln!("{}", self.kubectl("get pvc,pv,volumeattachments -A"));
            eprintln!("{}", self.kubectl("describe pvc"));
            panic!("pod {pod} is not ready");
        }
    }

    /// Waits until an object is gone.
    #[track_caller]
    pub fn wait_gone(&self, what: &str) {
        wait::until(&format!("{what} is gone"), || {
            let output = self.try_kubectl(&format!("get {what} -o name"));
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let none = output.status.success() && output.stdout.is_empty();
            (none || said.contains("NotFound")).then_some(())
        });
    }

    #[track_caller]
    #[expect(clippy::unused_self, reason = "only a cluster that runs has commands")]
    fn script(&self, arguments: impl IntoIterator<Item = String>) -> String {
        let output = run(arguments);
        assert!(output.status.success(), "{}", words(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !self.keep {
            run(["down".to_owned()]);
        }
    }
}

/// Where `tests/kubernetes/cluster` keeps what belongs to the cluster.
pub fn directory() -> PathBuf {
    std::env::var_os("CLUSTER_DIR")
        .map_or_else(|| PathBuf::from("/tmp/longhorn-cluster"), PathBuf::from)
}

fn run(arguments: impl IntoIterator<Item = String>) -> Output {
    let script = sources().join("tests/kubernetes/cluster");
    Command::new(&script)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("cannot start {}: {error}", script.display()))
}

/// Packs the images of every recipe in some folders of the sources, and says where they are.
pub fn pack_images(
    package: &Path,
    recipes: &[&str],
    inputs: &[String],
    output: &Path,
) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = recipes
        .iter()
        .flat_map(|folder| std::fs::read_dir(sources().join(folder)).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .collect();
    files.sort();
    let mut arguments: Vec<String> = ["--compression", "none", "--output"]
        .map(ToOwned::to_owned)
        .to_vec();
    arguments.push(output.display().to_string());
    for input in inputs {
        arguments.extend(["--input".to_owned(), input.clone()]);
    }
    arguments.extend(files.iter().map(|path| path.display().to_string()));
    crate::command::run(&package.display().to_string(), arguments);
    files
        .iter()
        .map(|path| output.join(path.file_stem().unwrap()).with_extension("tar"))
        .collect()
}
