//! `doctor`: the installation, all its disks and nodes, checked from outside.

use clap::Args;
use serde::Serialize;
use serde_json::Value;
use types::{NodeId, report};

use crate::error::Result;
use crate::kubernetes::{Kubectl, text};
use crate::output::{Form, List, Row, print, written};
use crate::reach::{Reach, Service};

/// A disk with less free than one part in so many is nearly full.
const NEARLY_FULL: u64 = 20;

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Only that node
    #[arg(long, value_name = "NAME")]
    node: Option<NodeId>,
    /// Output format
    #[arg(short, long, value_enum, default_value = "table")]
    output: Form,
}

/// Something that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    node: String,
    check: String,
    ok: bool,
    found: String,
    advice: String,
}

impl Finding {
    fn new(node: &str, check: &str, wrong: &str, advice: &str) -> Self {
        let ok = wrong.is_empty();
        Self {
            node: node.to_owned(),
            check: check.to_owned(),
            ok,
            found: if ok { "well" } else { wrong }.to_owned(),
            advice: if ok { "" } else { advice }.to_owned(),
        }
    }
}

/// Prints what was found; whether something is wrong.
pub(crate) async fn run(reach: &Reach, args: &DoctorArgs) -> Result<bool> {
    let mut findings = Vec::new();
    if let Some(kubectl) = reach.kubectl() {
        findings.extend(pods(kubectl).await?);
        findings.extend(registered(kubectl).await?);
    }
    findings.extend(disks(reach).await);
    if reach.kubectl().is_some()
        || matches!(reach.services().await, Ok((all, _)) if !all.is_empty())
    {
        findings.extend(nodes(reach).await);
    }
    if let Some(node) = &args.node {
        findings.retain(|one| one.node.is_empty() || one.node == node.as_str());
    }
    let wrong = findings.iter().any(|one| !one.ok);
    if matches!(args.output, Form::Json | Form::Yaml) {
        print(&written(&findings, args.output))?;
        return Ok(wrong);
    }
    let rows = findings.into_iter().map(|one| Row {
        name: one.check.clone(),
        cells: vec![
            one.node,
            one.check,
            if one.ok { "ok" } else { "WRONG" }.to_owned(),
            one.found,
            one.advice,
        ],
        value: Value::Null,
    });
    let list = List {
        kind: "finding",
        head: &["NODE", "CHECK", "RESULT", "FOUND", "ADVICE"],
        narrow: 5,
        rows: rows.collect(),
        empty: "Nothing was found to check.",
    };
    list.print(args.output)?;
    Ok(wrong)
}

/// The pods of the programs.
async fn pods(kubectl: &Kubectl) -> Result<Vec<Finding>> {
    let all = kubectl
        .list(&["pods", "--namespace", &kubectl.system])
        .await?;
    let finding = |pod: &Value| {
        let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
        let mut conditions = conditions.into_iter().flatten();
        let ready =
            conditions.any(|one| text(one, "/type") == "Ready" && text(one, "/status") == "True");
        let ended = text(pod, "/status/phase") == "Succeeded";
        let name = text(pod, "/metadata/name");
        let wrong = if ready || ended {
            String::new()
        } else {
            "it is not ready".to_owned()
        };
        let advice = format!("kubectl -n {} describe pod {name}", kubectl.system);
        let check = format!("pod {name}");
        Finding::new(text(pod, "/spec/nodeName"), &check, &wrong, &advice)
    };
    let mut findings: Vec<_> = all.iter().map(finding).collect();
    if findings.is_empty() {
        let wrong = format!("namespace {} has no pods", kubectl.system);
        findings.push(Finding::new(
            "",
            "pod",
            &wrong,
            "install the programs, or name their namespace with --system-namespace",
        ));
    }
    Ok(findings)
}

/// The driver on each node.
async fn registered(kubectl: &Kubectl) -> Result<Vec<Finding>> {
    let nodes = kubectl.list(&["csinodes"]).await?;
    let finding = |node: &Value| {
        let drivers = node.pointer("/spec/drivers").and_then(Value::as_array);
        let mut drivers = drivers.into_iter().flatten();
        let known = drivers.any(|driver| text(driver, "/name") == crate::kubernetes::DRIVER);
        let wrong = if known {
            ""
        } else {
            "the kubelet does not know the driver"
        };
        let advice = "check that the pod longhorn-csi-plugin runs there, and kubeletDir";
        Finding::new(text(node, "/metadata/name"), "registration", wrong, advice)
    };
    Ok(nodes.iter().map(finding).collect())
}

/// Each disk, as its manager sees it.
async fn disks(reach: &Reach) -> Vec<Finding> {
    let asked = async { reach.managers().await?.disks().await };
    let answers = match asked.await {
        Ok(answers) => answers,
        Err(error) => {
            return vec![Finding::new(
                "",
                "managers",
                &report(&error).to_string(),
                "see the text",
            )];
        }
    };
    let mut findings = Vec::new();
    for silent in &answers.silent {
        let advice =
            "check its pod; if the disk is gone for good: backing-image-manager disk forget";
        findings.push(Finding::new("", "managers", silent, advice));
    }
    for (member, ()) in &answers.members {
        findings.extend(disk(&member.disk));
    }
    findings
}

fn disk(disk: &client::wire::Disk) -> Vec<Finding> {
    let node = &*disk.node_id;
    let full = disk.available < disk.size / NEARLY_FULL;
    let errors = match disk.io_errors {
        0 => String::new(),
        count => format!("{count} I/O errors of disk {}", disk.uuid),
    };
    vec![
        Finding::new(
            node,
            "disk ready",
            &disk.not_ready,
            "kubectl -n longhorn-system logs daemonset/backing-image-manager",
        ),
        Finding::new(
            node,
            "disk at risk",
            &disk.warning,
            "free space, or add a disk",
        ),
        Finding::new(
            node,
            "disk room",
            &if full {
                format!("{} is nearly full", disk.path)
            } else {
                String::new()
            },
            "delete images and volumes that nobody needs, or add a disk",
        ),
        Finding::new(
            node,
            "disk errors",
            &errors,
            "read the kernel's log of that node; replace the disk",
        ),
    ]
}

/// Each node, as its node service sees it.
async fn nodes(reach: &Reach) -> Vec<Finding> {
    let (services, away) = match reach.services().await {
        Ok(found) => found,
        Err(error) => {
            return vec![Finding::new(
                "",
                "node services",
                &report(&error).to_string(),
                "see the text",
            )];
        }
    };
    let mut findings: Vec<Finding> = away
        .iter()
        .map(|one| {
            Finding::new(
                "",
                "node services",
                one,
                "check its pod longhorn-csi-plugin",
            )
        })
        .collect();
    for service in &services {
        match node(service).await {
            Ok(found) => findings.extend(found),
            Err(error) => {
                let wrong = report(&error).to_string();
                let advice = "check its pod longhorn-csi-plugin";
                findings.push(Finding::new(&service.node, "node service", &wrong, advice));
            }
        }
    }
    findings
}

async fn node(service: &Service) -> client::Result<Vec<Finding>> {
    let info = service.client.info().await?;
    let node = &*info.node_id;
    let mut findings = vec![Finding::new(
        node,
        "node",
        &info.lacks.join("; "),
        "install what it lacks",
    )];
    for disk in &info.disks {
        findings.push(Finding::new(
            node,
            "disk directory",
            &disk.trouble,
            "mount the disk",
        ));
    }
    for attachment in service.client.attachments().await? {
        if !attachment.troubles.is_empty() {
            let wrong = format!(
                "volume {}: {}",
                attachment.volume,
                attachment.troubles.join("; ")
            );
            findings.push(Finding::new(
                node,
                "attachment",
                &wrong,
                "docs/troubleshooting.md",
            ));
        }
    }
    // A node plugin of an earlier version exposes nothing.
    for exposed in service.client.exposed().await.unwrap_or_default() {
        if !exposed.troubles.is_empty() {
            let wrong = format!("volume {}: {}", exposed.volume, exposed.troubles.join("; "));
            findings.push(Finding::new(
                node,
                "access",
                &wrong,
                "expose it again, or unexpose it",
            ));
        }
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_well_or_says_what_is_wrong() {
        let well = client::wire::Disk {
            size: 100,
            available: 50,
            ..Default::default()
        };
        assert!(disk(&well).iter().all(|one| one.ok));
        let bad = client::wire::Disk {
            size: 100,
            available: 4,
            io_errors: 3,
            not_ready: "the directory is not mounted".to_owned(),
            ..Default::default()
        };
        let wrong: Vec<_> = disk(&bad)
            .into_iter()
            .filter(|one| !one.ok)
            .map(|one| one.check)
            .collect();
        assert_eq!(wrong, ["disk ready", "disk room", "disk errors"]);
    }
}
