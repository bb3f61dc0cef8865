//! `dump`: a support bundle. What Kubernetes, the managers and the nodes say, without secrets, in a directory or an
//! archive. What cannot be asked is written down as such: a bundle is made when something is broken.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use types::report;

use crate::error::{Error, Result};
use crate::get::{all_exposed, place, volumes_of};
use crate::kubernetes::{Kubectl, text};
use crate::output::{note, print};
use crate::process::Bounds;
use crate::reach::Reach;
use crate::redact;
use crate::view::{Disk, Image, Volume};

/// Bytes of one file, of all files, and lines of one log.
const FILE_MAX: usize = 8 << 20;
const TOTAL_MAX: usize = 256 << 20;
const LINES: &str = "--tail=5000";
const LOG: Bounds = Bounds {
    bytes: FILE_MAX,
    time: Duration::from_secs(30),
};

/// What is asked of all namespaces or none, and what of that of the programs. Never Secrets.
const CLUSTER: &[&str] = &[
    "nodes",
    "storageclasses",
    "csidrivers",
    "csinodes",
    "volumeattachments",
    "persistentvolumes",
    "persistentvolumeclaims --all-namespaces",
    "csistoragecapacities --all-namespaces",
];
const SYSTEM: &[&str] = &[
    "pods",
    "daemonsets",
    "deployments",
    "services",
    "networkpolicies",
    "events",
    "leases",
    "replicatedvolumes.baseimage.longhorn.io",
];

#[derive(Debug, Args)]
pub(crate) struct DumpArgs {
    /// Directory that is created, or FILE.tar.gz
    to: PathBuf,
}

/// What was gathered: names, and bytes.
#[derive(Debug, Default)]
struct Bundle {
    files: Vec<(String, Vec<u8>)>,
    total: usize,
    problems: Vec<String>,
}

pub(crate) async fn run(reach: &Reach, args: &DumpArgs) -> Result<()> {
    if args.to.exists() {
        let path = args.to.display();
        return Err(Error::Refused(format!(
            "{path} is there already: name another file or directory"
        )));
    }
    let mut bundle = Bundle::default();
    bundle.add_json("version.json", json!({"plugin": env!("CARGO_PKG_VERSION")}));
    if let Some(kubectl) = reach.kubectl() {
        bundle.kubernetes(kubectl).await;
    }
    bundle.managers(reach).await;
    bundle.nodes(reach).await;
    let problems = bundle.problems.join("\n");
    if !problems.is_empty() {
        bundle.add("problems.txt", &format!("{problems}\n"));
        note(&format!(
            "{} things could not be asked: see problems.txt in it",
            bundle.problems.len()
        ));
    }
    bundle.write(&args.to)?;
    let (files, path) = (bundle.files.len(), args.to.display());
    Ok(print(&format!(
        "{path}: {files} files; look through it before you give it away\n"
    ))?)
}

impl Bundle {
    /// Adds a text without its secrets.
    fn add(&mut self, name: &str, said: &str) {
        let mut bytes = redact::text(said).into_bytes();
        let skipped = bytes.len().saturating_sub(FILE_MAX);
        bytes.drain(..skipped);
        if self.total + bytes.len() > TOTAL_MAX {
            self.problems.push(format!(
                "{name}: left out, the bundle has {TOTAL_MAX} bytes already"
            ));
            return;
        }
        self.total += bytes.len();
        self.files.push((name.to_owned(), bytes));
    }

    fn add_json(&mut self, name: &str, mut value: Value) {
        redact::object(&mut value);
        self.add(name, &format!("{value:#}\n"));
    }

    fn failed(&mut self, what: &str, error: &(dyn std::error::Error + 'static)) {
        self.problems
            .push(redact::text(&format!("{what}: {}", report(error))));
    }

    async fn kubernetes(&mut self, kubectl: &Kubectl) {
        let system = ["--namespace", &kubectl.system];
        for what in CLUSTER {
            let words: Vec<&str> = what.split(' ').collect();
            self.list(kubectl, words[0], &words).await;
        }
        for what in SYSTEM {
            self.list(
                kubectl,
                &format!("system/{what}"),
                &[&[*what], &system[..]].concat(),
            )
            .await;
        }
        let pods = kubectl
            .list(&[&["pods"], &system[..]].concat())
            .await
            .unwrap_or_default();
        for pod in &pods {
            self.logs(kubectl, pod).await;
        }
    }

    async fn list(&mut self, kubectl: &Kubectl, name: &str, what: &[&str]) {
        match kubectl.list(what).await {
            Ok(items) => self.add_json(&format!("kubernetes/{name}.json"), Value::Array(items)),
            Err(error) => self.failed(name, &error),
        }
    }

    /// The logs of a pod's containers, and those of the containers before them.
    async fn logs(&mut self, kubectl: &Kubectl, pod: &Value) {
        let name = text(pod, "/metadata/name");
        let statuses = pod
            .pointer("/status/containerStatuses")
            .and_then(Value::as_array);
        for status in statuses.into_iter().flatten() {
            let container = text(status, "/name");
            let restarts = status["restartCount"].as_u64().unwrap_or(0);
            for previous in [false, true] {
                if previous && restarts == 0 {
                    continue;
                }
                let limit = format!("--limit-bytes={FILE_MAX}");
                let mut ask = vec![
                    "logs",
                    "--namespace",
                    &kubectl.system,
                    name,
                    "--container",
                    container,
                    LINES,
                    &limit,
                ];
                ask.extend(previous.then_some("--previous"));
                let end = if previous { ".previous" } else { "" };
                match kubectl.bytes(&ask, LOG).await {
                    Ok(log) => {
                        let log = String::from_utf8_lossy(&log);
                        self.add(&format!("logs/{name}/{container}{end}.log"), &log);
                    }
                    Err(error) => self.failed(&format!("log of {name}/{container}{end}"), &error),
                }
            }
        }
    }

    async fn managers(&mut self, reach: &Reach) {
        let asked = async {
            let ask = |client: client::Client| async move {
                let volumes = volumes_of(client.clone()).await?;
                Ok((volumes, client.list_images().await?))
            };
            reach.managers().await?.ask(ask).await
        };
        let answers = match asked.await {
            Ok(answers) => answers,
            Err(error) => return self.failed("managers", &error),
        };
        self.problems.extend(answers.silent);
        for (member, (volumes, images)) in answers.members {
            let at = place(&member);
            let volumes: Vec<_> = volumes
                .into_iter()
                .map(|one| Volume::new(one, at.clone()))
                .collect();
            let images: Vec<_> = images
                .into_iter()
                .map(|one| Image::new(one, at.clone()))
                .collect();
            let value =
                json!({"disk": Disk::from(&member.disk), "volumes": volumes, "images": images});
            self.add_json(&format!("disks/{}.json", plain(&at.disk)), value);
        }
    }

    async fn nodes(&mut self, reach: &Reach) {
        let (services, away) = match reach.services().await {
            Ok(found) => found,
            Err(error) => return self.failed("node services", &error),
        };
        self.problems.extend(away);
        for service in services {
            match service.client.info().await {
                Ok(info) => {
                    let disks: Vec<_> = info
                        .disks
                        .iter()
                        .map(|disk| json!({"path": disk.path, "uuid": disk.uuid, "trouble": disk.trouble}))
                        .collect();
                    let attachments = match service.client.attachments().await {
                        Ok(all) => all
                            .iter()
                            .map(|one| {
                                json!({"volume": one.volume, "device": one.device,
                            "mounts": one.mounts, "troubles": one.troubles})
                            })
                            .collect(),
                        Err(error) => vec![json!(report(&error).to_string())],
                    };
                    let value = json!({"node": info.node_id, "version": info.version, "kernel": info.kernel,
                        "lacks": info.lacks, "disks": disks, "attachments": attachments});
                    self.add_json(&format!("nodes/{}.json", plain(&info.node_id)), value);
                }
                Err(error) => self.failed("node service", &error),
            }
        }
        match all_exposed(reach).await {
            Ok((exposed, silent)) => {
                self.problems.extend(silent);
                self.add_json("exposed.json", json!(exposed));
            }
            Err(error) => self.failed("exposed", &error),
        }
    }

    /// Writes it under a name that says that it is not whole, then gives it its own.
    fn write(&self, to: &Path) -> Result<()> {
        let mut partial = to.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        if to.to_string_lossy().ends_with(".tar.gz") {
            self.archive(&partial)?;
        } else {
            fs::create_dir(&partial).map_err(Error::file("create", &partial))?;
            for (name, bytes) in &self.files {
                let path = partial.join(name);
                let parent = path.parent().unwrap_or(&partial);
                fs::create_dir_all(parent).map_err(Error::file("create", parent))?;
                let mut file = File::create(&path).map_err(Error::file("create", &path))?;
                file.write_all(bytes).map_err(Error::file("write", &path))?;
            }
        }
        fs::rename(&partial, to).map_err(Error::file("rename", partial))
    }

    fn archive(&self, path: &Path) -> Result<()> {
        let failed = |error| Error::file("write", path)(error);
        let file = File::create(path).map_err(Error::file("create", path))?;
        let mut tar = tar::Builder::new(GzEncoder::new(file, Compression::default()));
        for (name, bytes) in &self.files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            tar.append_data(&mut header, format!("longhorn-image-dump/{name}"), &**bytes)
                .map_err(failed)?;
        }
        tar.into_inner().map_err(failed)?.finish().map_err(failed)?;
        Ok(())
    }
}

/// A name from outside as that of a file.
fn plain(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    name.chars()
        .take(100)
        .map(|c| if is_plain(c) { c } else { '_' })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_505_a_bundle_is_bounded_and_whole_or_not_there() {
        let root = tempfile::tempdir().unwrap();
        let mut bundle = Bundle::default();
        bundle.add("logs/a.log", "token=hunter2\nfine\n");
        bundle.add("big.log", &"x\n".repeat(FILE_MAX));
        bundle.total = TOTAL_MAX;
        bundle.add("more.log", "more\n");
        assert_eq!(bundle.files.len(), 2, "what is too much is left out");
        assert!(bundle.problems[0].contains("more.log"));
        assert_eq!(bundle.files[1].1.len(), FILE_MAX);
        let directory = root.path().join("dump");
        bundle.write(&directory).unwrap();
        let log = fs::read_to_string(directory.join("logs/a.log")).unwrap();
        assert_eq!(log, "token=(removed)\nfine\n");
        let archive = root.path().join("dump.tar.gz");
        bundle.write(&archive).unwrap();
        let file = flate2::read::GzDecoder::new(File::open(&archive).unwrap());
        let mut archive = tar::Archive::new(file);
        let names: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        assert_eq!(
            names,
            [
                "longhorn-image-dump/logs/a.log",
                "longhorn-image-dump/big.log"
            ]
        );
        assert!(!root.path().join("dump.partial").exists());
        assert_eq!(plain("../../etc/passwd"), "______etc_passwd");
    }
}
