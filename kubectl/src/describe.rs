//! `describe volume NAME`: the volume with its disk, image, claim, pods, access and events.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde_json::Value;
use types::{VolumeName, report};

use crate::error::Result;
use crate::exposed::Exposed;
use crate::get::{all_exposed, place};
use crate::kubernetes::{Kubectl, text};
use crate::output::{age, print, size, tame};
use crate::reach::Reach;
use crate::view::Volume;

/// Events that are shown.
const EVENTS: usize = 20;

pub(crate) async fn run(reach: &Reach, name: &VolumeName) -> Result<()> {
    let mut found = reach.managers().await?.having(name).await?.into_iter();
    let mut text = Text::default();
    let Some((member, volume)) = found.next() else {
        return Ok(());
    };
    let parameters = volume.parameters.clone();
    let mut volume = Volume::new(volume, place(&member));
    for (member, other) in found {
        volume.join(Volume::new(other, place(&member)));
    }
    text.volume(&volume);
    if !parameters.is_empty() {
        let mut pairs: Vec<_> = parameters
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        pairs.sort();
        text.line("Parameters", &pairs.join(", "));
    }
    if let Some(kubectl) = reach.kubectl() {
        text.kubernetes(kubectl, name.as_str()).await?;
    }
    match all_exposed(reach).await {
        Ok((all, silent)) => {
            let ours: Vec<_> = all
                .iter()
                .filter(|one| one.volume == name.as_str())
                .collect();
            text.access(&ours, &silent);
        }
        // Without Kubernetes nobody has to name a node service.
        Err(error) => text.line("Access", &format!("not known: {}", report(&error))),
    }
    Ok(print(&text.0)?)
}

/// `Key:   value` lines.
#[derive(Debug, Default)]
struct Text(String);

impl Text {
    fn line(&mut self, key: &str, value: &str) {
        let _ = writeln!(self.0, "{:<16}{}", format!("{key}:"), tame(value));
    }

    fn volume(&mut self, volume: &Volume) {
        let bytes = |bytes: u64| format!("{} ({bytes} bytes)", size(bytes));
        self.line("Name", &volume.name);
        self.line("State", volume.state);
        for note in &volume.notes {
            self.line("Note", note);
        }
        self.line("Base image", &volume.base_image);
        self.line("Size", &bytes(volume.size));
        self.line("Takes", &bytes(volume.real_size));
        self.line("File system", &volume.file_system);
        if volume.partition != 0 {
            self.line("Partition", &volume.partition.to_string());
        }
        for replica in &volume.replicas {
            self.line(
                "On",
                &format!("node {}, disk {}", replica.node, replica.disk),
            );
        }
        self.line("Used by", &volume.used_by());
        self.line("Made by", &volume.made_by);
        for (key, value) in [
            ("Copy of", &volume.copied_from),
            ("From snapshot", &volume.source_snapshot),
        ] {
            if !value.is_empty() {
                self.line(key, value);
            }
        }
        self.line("Owner", volume.owner.driver);
        let created = age(&volume.created_at, Timestamp::now());
        self.line("Created", &format!("{} ({created} ago)", volume.created_at));
    }

    /// What Kubernetes knows of it: the PersistentVolume that names it, the claim, who uses that, and events.
    async fn kubernetes(&mut self, kubectl: &Kubectl, name: &str) -> Result<()> {
        let volumes = kubectl.list(&["persistentvolumes"]).await?;
        let ours = volumes.iter().find(|pv| {
            text(pv, "/spec/csi/volumeHandle") == name
                && text(pv, "/spec/csi/driver") == crate::kubernetes::DRIVER
        });
        let Some(pv) = ours else {
            self.line("Claim", "none: no PersistentVolume names this volume");
            return Ok(());
        };
        let (namespace, claim) = (
            text(pv, "/spec/claimRef/namespace"),
            text(pv, "/spec/claimRef/name"),
        );
        let pv_name = text(pv, "/metadata/name");
        let phase = text(pv, "/status/phase");
        self.line("PersistentVolume", &format!(" {pv_name} ({phase})"));
        self.line("Claim", &format!("{namespace}/{claim}"));
        let pods = kubectl.list(&["pods", "--namespace", namespace]).await?;
        for pod in pods.iter().filter(|pod| uses(pod, claim)) {
            let (pod, node, phase) = (
                text(pod, "/metadata/name"),
                text(pod, "/spec/nodeName"),
                text(pod, "/status/phase"),
            );
            self.line("Pod", &format!("{namespace}/{pod} on {node} ({phase})"));
        }
        let mut events = Vec::new();
        for (kind, object, space) in [
            ("PersistentVolumeClaim", claim, namespace),
            ("PersistentVolume", pv_name, "default"),
        ] {
            let selector = format!("involvedObject.kind={kind},involvedObject.name={object}");
            let list = [
                "events",
                "--namespace",
                space,
                "--field-selector",
                &selector,
            ];
            events.extend(kubectl.list(&list).await?);
        }
        events.sort_by(|a, b| when(a).cmp(when(b)));
        let skipped = events.len().saturating_sub(EVENTS);
        for event in events.iter().skip(skipped) {
            let (kind, reason, said) = (
                text(event, "/type"),
                text(event, "/reason"),
                text(event, "/message"),
            );
            let age = age(when(event), Timestamp::now());
            self.line("Event", &format!("{age} ago, {kind}, {reason}: {said}"));
        }
        Ok(())
    }

    fn access(&mut self, exposed: &[&Exposed], silent: &[String]) {
        for one in exposed {
            self.line("Access", &format!("{} on {}", one.at(), one.node));
            if let Some(target) = &one.target {
                self.line("Initiators", &target.initiators.join(", "));
                self.line("CHAP user", &target.chap_user);
                self.line("Connected", &target.sessions.join(", "));
            }
            for trouble in &one.troubles {
                self.line("Trouble", trouble);
            }
        }
        if exposed.is_empty() {
            self.line("Access", "by pods: it is not exposed");
        }
        for silent in silent {
            self.line("Not known", silent);
        }
    }
}

/// Whether a pod uses a claim.
pub(crate) fn uses(pod: &Value, claim: &str) -> bool {
    let volumes = pod.pointer("/spec/volumes").and_then(Value::as_array);
    let mut volumes = volumes.into_iter().flatten();
    volumes.any(|volume| text(volume, "/persistentVolumeClaim/claimName") == claim)
}

/// When an event was seen last.
pub(crate) fn when(event: &Value) -> &str {
    let times = [
        "/lastTimestamp",
        "/series/lastObservedTime",
        "/eventTime",
        "/metadata/creationTimestamp",
    ];
    let mut times = times.into_iter().map(|pointer| text(event, pointer));
    times.find(|time| !time.is_empty()).unwrap_or_default()
}
