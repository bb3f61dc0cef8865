//! From facts to a sentence. Pure: what is not among the facts is not known.

/// Everything that may say what a claim waits for.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    /// Name of the driver that is asked about.
    pub(super) driver: String,
    pub(super) driver_installed: bool,
    pub(super) controller_ready: bool,
    pub(super) claim: Claim,
    /// `None`: it names none, or one that does not exist.
    pub(super) class: Option<Class>,
    /// Its PersistentVolume.
    pub(super) volume: Option<Volume>,
    /// Those that use it and have not ended.
    pub(super) pods: Vec<Pod>,
    pub(super) attachments: Vec<Attachment>,
    pub(super) images: Vec<Image>,
    /// Managers that do not answer.
    pub(super) silent: Vec<String>,
    /// What [`Facts::node_of_interest`] lacks.
    pub(super) lacks: Vec<String>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Claim {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) phase: Phase,
    /// `None`: the default class is meant, and there was none when it was made.
    pub(super) class: Option<String>,
    pub(super) volume: String,
    pub(super) deleting: bool,
    /// The node that the scheduler chose.
    pub(super) selected_node: String,
    /// Those that are true.
    pub(super) conditions: Vec<String>,
    /// The oldest first.
    pub(super) events: Vec<Event>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Phase {
    #[default]
    Pending,
    Bound,
    Lost,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Event {
    pub(super) reason: String,
    pub(super) message: String,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Class {
    pub(super) provisioner: String,
    /// WaitForFirstConsumer.
    pub(super) waits_for_pod: bool,
    pub(super) base_image: String,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Volume {
    pub(super) driver: String,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Pod {
    pub(super) name: String,
    pub(super) node: String,
    pub(super) running: bool,
    /// Why no node has it.
    pub(super) unscheduled: Option<String>,
    pub(super) events: Vec<Event>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Attachment {
    pub(super) node: String,
    pub(super) attached: bool,
    pub(super) error: String,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Image {
    pub(super) node: String,
    pub(super) name: String,
    pub(super) state: &'static str,
    pub(super) progress: String,
    pub(super) source: String,
    pub(super) message: String,
}

/// What is said.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) waits: bool,
    pub(super) text: String,
}

impl Facts {
    /// Whether the managers may know more: it is not provisioned yet.
    pub(super) fn needs_managers(&self) -> bool {
        self.claim.phase == Phase::Pending
            && self
                .class
                .as_ref()
                .is_some_and(|class| class.provisioner == self.driver)
    }

    /// The node on which a pod does not get on.
    pub(super) fn node_of_interest(&self) -> Option<String> {
        let waiting = self
            .pods
            .iter()
            .find(|pod| !pod.running && !pod.node.is_empty());
        waiting
            .filter(|_| self.claim.phase == Phase::Bound)
            .map(|pod| pod.node.clone())
    }
}

/// What the claim waits for, and what to do.
pub(super) fn verdict(facts: &Facts) -> Verdict {
    let claim = &facts.claim;
    let name = format!("claim {}/{}", claim.namespace, claim.name);
    let waits = waiting(facts);
    Verdict {
        waits: waits.is_some(),
        text: match waits {
            Some(what) => format!("{name} waits for {what}"),
            None => match facts.pods.first() {
                Some(pod) => format!(
                    "{name} waits for nothing: pod {} uses it on node {}",
                    pod.name, pod.node
                ),
                None => format!("{name} waits for nothing: it is bound, and no pod uses it"),
            },
        },
    }
}

/// What completes `waits for …`; `None`: nothing.
fn waiting(facts: &Facts) -> Option<String> {
    let claim = &facts.claim;
    if claim.deleting {
        return Some(match facts.pods.first() {
            Some(pod) => format!(
                "pod {} to end, because it is being deleted: delete that pod too",
                pod.name
            ),
            None => "its end: it is being deleted, and Kubernetes does the rest".to_owned(),
        });
    }
    match claim.phase {
        Phase::Lost => Some(format!(
            "PersistentVolume {}, which is gone with what it named: restore it, or delete the claim",
            claim.volume
        )),
        Phase::Pending => Some(pending(facts)),
        Phase::Bound => bound(facts),
    }
}

fn pending(facts: &Facts) -> String {
    let claim = &facts.claim;
    match (&claim.class, &facts.class) {
        (None, _) => {
            return "a StorageClass: it names none, and the cluster has no default one: set spec.storageClassName"
                .to_owned();
        }
        (Some(name), _) if name.is_empty() && !claim.volume.is_empty() => {
            return format!(
                "PersistentVolume {}, which it names: create that",
                claim.volume
            );
        }
        (Some(name), _) if name.is_empty() => {
            return "a PersistentVolume that somebody creates, because its spec.storageClassName is empty: create \
                    one, or name a class"
                .to_owned();
        }
        (Some(name), None) => {
            return format!(
                "StorageClass {name}, which does not exist: create it, or name another one in a new claim"
            );
        }
        (Some(name), Some(class)) if class.provisioner != facts.driver => {
            let (provisioner, driver) = (&class.provisioner, &facts.driver);
            return if provisioner == "rancher.io/longhorn" {
                format!(
                    "provisioner rancher.io/longhorn of class {name}, whose name no driver has: install the alias \
                     (rancherAlias.enabled) and create the class again"
                )
            } else {
                format!(
                    "{provisioner}, the provisioner of class {name}, which is not {driver}: ask that one"
                )
            };
        }
        (Some(_), Some(class)) => {
            if let Some(text) = consumer(facts, class) {
                return text;
            }
        }
    }
    if !facts.driver_installed {
        return format!(
            "driver {}, which is not installed: install it, docs/install.md",
            facts.driver
        );
    }
    if !facts.controller_ready {
        return "the controller, of which no pod is ready: look at kubectl -n longhorn-system get pods".to_owned();
    }
    provisioner(facts)
}

/// A pod, where the class waits for the first one.
fn consumer(facts: &Facts, class: &Class) -> Option<String> {
    if !class.waits_for_pod || !facts.claim.selected_node.is_empty() {
        return None;
    }
    let Some(pod) = facts.pods.first() else {
        return Some("its first consumer, as its class says: create a pod that uses it".to_owned());
    };
    let why = match &pod.unscheduled {
        Some(why) => scheduling(why),
        None => "the scheduler has not said why; look at kubectl describe pod".to_owned(),
    };
    Some(format!("pod {} to get a node: {why}", pod.name))
}

/// What the scheduler says, with what to do about those of its reasons that are ours.
fn scheduling(why: &str) -> String {
    let why = why.trim_end_matches('.');
    if why.contains("did not have enough free storage") {
        return format!("{why}; free space, or add a disk: kubectl longhorn-image get disks");
    }
    if why.contains("volume node affinity conflict") {
        return format!(
            "{why}; its volume is on one node, so let the pod run there: kubectl longhorn-image get volumes"
        );
    }
    format!("{why}; change what the pod asks for, or add nodes")
}

/// The provisioner: the image that it waits for, or what it said last.
fn provisioner(facts: &Facts) -> String {
    let class = facts.class.as_ref();
    let base_image = class.map_or("", |class| &*class.base_image);
    let ours = |image: &&Image| !base_image.is_empty() && image.source.contains(base_image);
    let coming = facts.images.iter().filter(ours).find(|image| {
        matches!(
            image.state,
            "pending" | "starting" | "in-progress" | "ready-for-transfer" | "unknown"
        )
    });
    if let Some(image) = coming {
        return format!(
            "image {} on node {}, which is {}, {}: it goes on by itself",
            image.name, image.node, image.state, image.progress
        );
    }
    let failed = facts
        .claim
        .events
        .iter()
        .rev()
        .find(|event| event.reason == "ProvisioningFailed");
    if let Some(event) = failed {
        return format!("a volume that cannot be made: {}", refused(&event.message));
    }
    let broken = facts
        .images
        .iter()
        .filter(ours)
        .find(|image| image.state == "failed");
    if let Some(image) = broken {
        let said = image.message.trim_end_matches('.');
        return format!(
            "image {}, which failed on node {}: {said}",
            image.name, image.node
        );
    }
    if let Some(silent) = facts.silent.first() {
        return format!(
            "a manager that does not answer: {silent}; look at kubectl longhorn-image doctor"
        );
    }
    "the provisioner, which has said nothing yet: if that stays, look at kubectl -n longhorn-system logs \
     deployment/longhorn-csi-controller -c provisioner"
        .to_owned()
}

/// What the driver said, out of the words that others wrap it in, with the next step of its code.
fn refused(message: &str) -> String {
    let (before, said) = message.rsplit_once(" desc = ").unwrap_or(("", message));
    let said = said.trim().trim_end_matches('.');
    let code = before
        .rsplit_once("code = ")
        .map_or("", |(_, code)| code.trim());
    let next = match code {
        "InvalidArgument" => "correct its StorageClass, then make the claim anew",
        "NotFound" => "correct the name in its StorageClass, then make the claim anew",
        "OutOfRange" => "make the claim anew with another size",
        "ResourceExhausted" => "free space, or add a disk: kubectl longhorn-image get disks",
        "Unauthenticated" | "PermissionDenied" => "check the pull secret of its StorageClass",
        "Unavailable" | "DeadlineExceeded" | "Aborted" => "it is tried again by itself",
        _ => "it is tried again by itself, after you have changed what the text names",
    };
    format!("{said}; {next}")
}

/// After it is bound: the pod that is to use it.
fn bound(facts: &Facts) -> Option<String> {
    let ours = facts
        .volume
        .as_ref()
        .is_some_and(|volume| volume.driver == facts.driver);
    let waiting = facts.pods.iter().find(|pod| !pod.running);
    let Some(pod) = waiting else {
        return grown(facts);
    };
    if let Some(why) = &pod.unscheduled {
        return Some(format!(
            "pod {} to get a node: {}",
            pod.name,
            scheduling(why)
        ));
    }
    if !ours {
        let driver = facts
            .volume
            .as_ref()
            .map_or("nobody", |volume| &*volume.driver);
        return Some(format!(
            "pod {} and a volume of {driver}: ask that driver",
            pod.name
        ));
    }
    let attachment = facts.attachments.iter().find(|one| one.node == pod.node);
    let elsewhere = facts.attachments.iter().find(|one| one.node != pod.node);
    match (attachment, elsewhere) {
        (Some(one), _) if !one.attached && !one.error.is_empty() => {
            return Some(format!(
                "its attachment to node {}: {}",
                one.node,
                refused(&one.error)
            ));
        }
        (None, Some(other)) => {
            return Some(format!(
                "node {} to let it go before pod {} can have it on node {}: delete the pod there; of a dead node, \
                 taint it with node.kubernetes.io/out-of-service",
                other.node, pod.name, pod.node
            ));
        }
        (Some(one), _) if !one.attached => {
            return Some(format!(
                "its attachment to node {}: the attacher is at it",
                one.node
            ));
        }
        _ => {}
    }
    let mount = |event: &&Event| {
        matches!(
            &*event.reason,
            "FailedMount" | "FailedAttachVolume" | "FailedMapVolume"
        )
    };
    let mount = pod.events.iter().rev().find(mount);
    if let Some(lack) = facts.lacks.first() {
        return Some(format!("node {}, which cannot mount it: {lack}", pod.node));
    }
    if let Some(event) = mount {
        return Some(format!(
            "its mount in pod {} on node {}: {}",
            pod.name,
            pod.node,
            refused(&event.message)
        ));
    }
    Some(format!(
        "pod {} to start on node {}, and nothing says that the volume is in its way: look at kubectl describe pod",
        pod.name, pod.node
    ))
}

/// A size that was asked for later.
fn grown(facts: &Facts) -> Option<String> {
    let has = |kind: &str| facts.claim.conditions.iter().any(|one| one == kind);
    if has("NodeResizeError") || has("ControllerResizeError") {
        let said = facts
            .claim
            .events
            .iter()
            .rev()
            .find(|event| event.reason.contains("ResizeFailed"));
        let said = said.map_or_else(
            || "look at kubectl describe pvc".to_owned(),
            |event| refused(&event.message),
        );
        return Some(format!("its new size: {said}"));
    }
    if has("FileSystemResizePending") {
        return Some(
            "a pod that mounts it, so that its file system grows: start one, or start it anew"
                .to_owned(),
        );
    }
    has("Resizing").then(|| "its new size: the resizer is at it".to_owned())
}

#[cfg(test)]
mod tests;
