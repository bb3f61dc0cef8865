//! A FlexVolume driver and its caller: how the kubelet calls the executable and reads the answer.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::{Manager, Sandbox, command, programs};

/// An installed driver with a configuration of its own, and the kubelet's directory that it works in.
#[derive(Debug, Clone)]
pub struct Driver {
    executable: PathBuf,
    kubelet: PathBuf,
    state: PathBuf,
    log: PathBuf,
    failpoints: String,
}

/// What a call answered: exactly one JSON object, or the call is not an answer at all.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The object.
    pub json: Value,
    /// The exit code; `None`: a signal.
    pub code: Option<i32>,
}

impl Answer {
    /// Reads what a process left, as the kubelet does, and strictly.
    #[track_caller]
    pub fn of(output: &Output) -> Self {
        let words = command::words(output);
        assert!(
            output.stderr.is_empty(),
            "something on standard error: {words}"
        );
        let text = std::str::from_utf8(&output.stdout).expect("an answer is UTF-8");
        assert_eq!(text.lines().count(), 1, "not one line: {words}");
        let json: Value =
            serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {words}"));
        assert!(json.is_object(), "no object: {words}");
        let answer = Self {
            json,
            code: output.status.code(),
        };
        let agrees = match answer.status() {
            "Success" | "Not supported" => answer.code == Some(0),
            "Failure" => answer.code == Some(1) && !answer.message().is_empty(),
            _ => false,
        };
        assert!(agrees, "status and exit code differ: {words}");
        answer
    }

    /// `Success`, `Failure` or `Not supported`.
    pub fn status(&self) -> &str {
        self.json["status"].as_str().unwrap_or_default()
    }

    /// The message; empty when there is none.
    pub fn message(&self) -> &str {
        self.json["message"].as_str().unwrap_or_default()
    }

    /// Panics unless the call succeeded; gives the object.
    #[track_caller]
    pub fn success(self) -> Value {
        assert_eq!(self.status(), "Success", "{}", self.message());
        self.json
    }

    /// Panics unless the call failed with a message that holds these words; gives the message.
    #[track_caller]
    pub fn failure(self, words: &[&str]) -> String {
        assert_eq!(self.status(), "Failure", "{}", self.json);
        for word in words {
            assert!(
                self.message().contains(word),
                "{word:?} is not in: {}",
                self.message()
            );
        }
        self.message().to_owned()
    }
}

impl Driver {
    /// Installs the driver for a manager and a disk, as its installer does.
    #[track_caller]
    pub fn install(sandbox: &Sandbox, manager: &Manager, disk: &Path) -> Self {
        Self::install_with(sandbox, &manager.address().to_string(), disk, "")
    }

    /// The same with more lines of configuration.
    #[track_caller]
    pub fn install_with(sandbox: &Sandbox, manager: &str, disk: &Path, more: &str) -> Self {
        let plugins = sandbox.make_dir("plugins");
        let (state, log) = (sandbox.path("state"), sandbox.path("logs/flexvolume.log"));
        sandbox.make_dir("logs");
        let config = format!(
            "manager = \"{manager}\"\ndisks = [\"{}\"]\nstate-dir = \"{}\"\nlog = \"{}\"\n\
             log-level = \"debug\"\n{more}\n",
            disk.display(),
            state.display(),
            log.display()
        );
        let config = sandbox.write("flexvolume.toml", config);
        let program = programs::flexvolume();
        let arguments = [
            "install".as_ref(),
            "--plugin-dir".as_ref(),
            plugins.as_os_str(),
            "--config".as_ref(),
            config.as_os_str(),
        ];
        Answer::of(&command::output(&program.display().to_string(), arguments)).success();
        Self {
            executable: plugins.join("rancher.io~longhorn/longhorn"),
            kubelet: sandbox.make_dir("kubelet"),
            state,
            log,
            failpoints: String::new(),
        }
    }

    /// The same driver, killed or held where a failpoint says.
    #[must_use]
    pub fn with_failpoint(&self, failpoint: impl Into<String>) -> Self {
        Self {
            failpoints: failpoint.into(),
            ..self.clone()
        }
    }

    /// The same driver for another manager: its configuration is replaced, as by its installer.
    #[must_use]
    #[track_caller]
    pub fn with_manager(&self, sandbox: &Sandbox, manager: &Manager) -> Self {
        let path = self.executable.with_file_name("longhorn.toml");
        let text = fs::read_to_string(&path).expect("read the configuration");
        let lines = text.lines().map(|line| {
            let is_manager = line.starts_with("manager =");
            if is_manager {
                format!("manager = \"{}\"\n", manager.address())
            } else {
                format!("{line}\n")
            }
        });
        sandbox.write(
            "plugins/rancher.io~longhorn/longhorn.toml",
            lines.collect::<String>(),
        );
        self.clone()
    }

    /// The installed executable.
    pub fn executable(&self) -> &Path {
        &self.executable
    }

    /// The kubelet's directory.
    pub fn kubelet_dir(&self) -> &Path {
        &self.kubelet
    }

    /// The driver's state directory.
    pub fn state_dir(&self) -> &Path {
        &self.state
    }

    /// What the driver has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// A call, ready to be started.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(&self.executable);
        command
            .args(arguments)
            .env("FAILPOINTS", &self.failpoints)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Makes a call and gives whatever comes of it.
    #[track_caller]
    pub fn output<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Output {
        let output = self.command(arguments).output();
        output.unwrap_or_else(|error| panic!("run {}: {error}", self.executable.display()))
    }

    /// Makes a call and reads its answer.
    #[track_caller]
    pub fn call<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Answer {
        Answer::of(&self.output(arguments))
    }

    /// The directory that the kubelet makes for a volume of a pod.
    pub fn target(&self, pod: &str, volume: &str) -> PathBuf {
        let directory = format!("pods/{pod}/volumes/rancher.io~longhorn/{volume}");
        let target = self.kubelet.join(directory);
        fs::create_dir_all(&target)
            .unwrap_or_else(|error| panic!("make {}: {error}", target.display()));
        target
    }

    /// `mount`, and the directory that it was asked for.
    #[track_caller]
    pub fn mount(&self, pod: &str, volume: &str, options: &[(&str, &str)]) -> (PathBuf, Answer) {
        let target = self.target(pod, volume);
        let json = options_of(pod, volume, options);
        let answer = self.call(mount_arguments(&target, &json));
        (target, answer)
    }

    /// `unmount` of what [`Driver::mount`] mounted.
    #[track_caller]
    pub fn unmount(&self, pod: &str, volume: &str) -> Answer {
        let target = self
            .kubelet
            .join(format!("pods/{pod}/volumes/rancher.io~longhorn/{volume}"));
        self.call(["unmount".as_ref(), target.as_os_str()])
    }

    /// Panics unless nothing of any volume is left on this node: no mount, no loop device of the
    /// disk's volumes, no record, no lock.
    #[track_caller]
    pub fn assert_nothing_left(&self, sandbox: &Sandbox, disk: &Path) {
        sandbox.assert_nothing_attached(&self.kubelet);
        sandbox.assert_nothing_attached(&self.state);
        sandbox.assert_nothing_attached(&disk.join("volumes"));
        for name in ["targets", "volumes", "locks"] {
            let entries = fs::read_dir(self.state.join(name))
                .into_iter()
                .flatten()
                .flatten();
            let left: Vec<_> = entries.map(|entry| entry.path()).collect();
            assert!(left.is_empty(), "left behind: {left:?}");
        }
    }
}

/// The arguments of `mount`.
pub fn mount_arguments(target: &Path, json: &str) -> [OsString; 3] {
    ["mount".into(), target.into(), json.into()]
}

/// The options as a kubelet writes them for an inline volume of a pod in the namespace `default`; a
/// later pair counts before an earlier one.
pub fn options_of(pod: &str, volume: &str, options: &[(&str, &str)]) -> String {
    let mut map = serde_json::json!({
        "kubernetes.io/fsType": "",
        "kubernetes.io/pod.name": pod,
        "kubernetes.io/pod.namespace": "default",
        "kubernetes.io/pod.uid": pod,
        "kubernetes.io/pvOrVolumeName": volume,
        "kubernetes.io/readwrite": "rw",
        "kubernetes.io/serviceAccount.name": "default",
    });
    for (key, value) in options {
        map[key] = Value::from(*value);
    }
    map.to_string()
}
