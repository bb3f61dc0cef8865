//! What is asked before a sentence is made: the claim, its class, its PersistentVolume and attachments, the pods that
//! use it, their events, the images of the managers, and what nodes lack.

use serde_json::Value;
use types::report;

use super::sentence::{Attachment, Claim, Class, Event, Facts, Image, Phase, Pod, Volume};
use crate::describe::{uses, when};
use crate::error::{Error, Result};
use crate::kubernetes::{Kubectl, text};
use crate::reach::Reach;

/// The label of a claim's annotations.
const SELECTED: &str = "volume.kubernetes.io/selected-node";

/// Asks everybody.
pub(crate) async fn gather(reach: &Reach, claim: &str, driver: &str) -> Result<Facts> {
    let kubectl = reach.kubernetes("why")?;
    let mut ask = vec!["persistentvolumeclaim", claim];
    ask.extend(kubectl.scope());
    let Some(object) = kubectl.find(&ask).await? else {
        let (name, scope) = (
            claim,
            kubectl.namespace.as_deref().unwrap_or("of the context"),
        );
        return Err(Error::NotFound(format!(
            "there is no PersistentVolumeClaim {name} in namespace {scope}; name another one with --namespace"
        )));
    };
    let namespace = text(&object, "/metadata/namespace").to_owned();
    let class = class(kubectl, &object).await?;
    let mut facts = Facts {
        driver: driver.to_owned(),
        claim: claim_of(
            &object,
            events(kubectl, &namespace, "PersistentVolumeClaim", claim).await?,
        ),
        volume: volume(kubectl, &object).await?,
        pods: pods(kubectl, &namespace, claim).await?,
        class,
        ..Default::default()
    };
    facts.attachments = attachments(kubectl, &facts.claim.volume).await?;
    facts.driver_installed = kubectl.find(&["csidriver", driver]).await?.is_some();
    facts.controller_ready = controller(kubectl).await?;
    if facts.needs_managers() {
        managers(reach, &mut facts).await;
    }
    if let Some(node) = facts.node_of_interest() {
        let asked = async { Ok::<_, Error>(reach.service(&node).await?.info().await?) };
        match asked.await {
            Ok(info) => facts.lacks = info.lacks,
            Err(error) => facts.lacks.push(format!(
                "its node service does not answer ({}), so check the pod longhorn-csi-plugin of that node",
                report(&error)
            )),
        }
    }
    Ok(facts)
}

fn claim_of(object: &Value, events: Vec<Event>) -> Claim {
    let conditions = object
        .pointer("/status/conditions")
        .and_then(Value::as_array);
    let conditions = conditions.into_iter().flatten();
    let conditions = conditions.filter(|one| text(one, "/status") == "True");
    let class = object
        .pointer("/spec/storageClassName")
        .and_then(Value::as_str);
    let annotations = object.pointer("/metadata/annotations");
    Claim {
        namespace: text(object, "/metadata/namespace").to_owned(),
        name: text(object, "/metadata/name").to_owned(),
        phase: match text(object, "/status/phase") {
            "Bound" => Phase::Bound,
            "Lost" => Phase::Lost,
            _ => Phase::Pending,
        },
        class: class.map(str::to_owned),
        volume: text(object, "/spec/volumeName").to_owned(),
        deleting: !text(object, "/metadata/deletionTimestamp").is_empty(),
        selected_node: annotations
            .and_then(|all| all.get(SELECTED))
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned(),
        conditions: conditions
            .map(|one| text(one, "/type").to_owned())
            .collect(),
        events,
    }
}

/// The class of a claim; `None`: it names none that exists.
async fn class(kubectl: &Kubectl, claim: &Value) -> Result<Option<Class>> {
    let name = text(claim, "/spec/storageClassName");
    if name.is_empty() {
        return Ok(None);
    }
    let found = kubectl.find(&["storageclass", name]).await?;
    Ok(found.map(|class| Class {
        provisioner: text(&class, "/provisioner").to_owned(),
        waits_for_pod: text(&class, "/volumeBindingMode") == "WaitForFirstConsumer",
        base_image: text(&class, "/parameters/baseImage").to_owned(),
    }))
}

async fn volume(kubectl: &Kubectl, claim: &Value) -> Result<Option<Volume>> {
    let name = text(claim, "/spec/volumeName");
    if name.is_empty() {
        return Ok(None);
    }
    let found = kubectl.find(&["persistentvolume", name]).await?;
    Ok(found.map(|volume| Volume {
        driver: text(&volume, "/spec/csi/driver").to_owned(),
    }))
}

async fn pods(kubectl: &Kubectl, namespace: &str, claim: &str) -> Result<Vec<Pod>> {
    let all = kubectl.list(&["pods", "--namespace", namespace]).await?;
    let mut pods = Vec::new();
    for pod in all.iter().filter(|pod| uses(pod, claim)) {
        let phase = text(pod, "/status/phase");
        if matches!(phase, "Succeeded" | "Failed") {
            continue;
        }
        let name = text(pod, "/metadata/name");
        let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
        let condition = |kind: &str| {
            let mut all = conditions.into_iter().flatten();
            all.find(|one| text(one, "/type") == kind)
        };
        let unscheduled = condition("PodScheduled").filter(|one| text(one, "/status") == "False");
        pods.push(Pod {
            name: name.to_owned(),
            node: text(pod, "/spec/nodeName").to_owned(),
            running: phase == "Running",
            unscheduled: unscheduled.map(|one| text(one, "/message").to_owned()),
            events: events(kubectl, namespace, "Pod", name).await?,
        });
    }
    Ok(pods)
}

/// The events of an object, the oldest first.
async fn events(kubectl: &Kubectl, namespace: &str, kind: &str, name: &str) -> Result<Vec<Event>> {
    let selector = format!("involvedObject.kind={kind},involvedObject.name={name}");
    let list = [
        "events",
        "--namespace",
        namespace,
        "--field-selector",
        &selector,
    ];
    let mut all = kubectl.list(&list).await?;
    all.sort_by(|a, b| when(a).cmp(when(b)));
    let event = |event: &Value| Event {
        reason: text(event, "/reason").to_owned(),
        message: text(event, "/message").to_owned(),
    };
    Ok(all.iter().map(event).collect())
}

async fn attachments(kubectl: &Kubectl, volume: &str) -> Result<Vec<Attachment>> {
    if volume.is_empty() {
        return Ok(Vec::new());
    }
    let all = kubectl.list(&["volumeattachments"]).await?;
    let ours = all
        .iter()
        .filter(|one| text(one, "/spec/source/persistentVolumeName") == volume);
    let attachment = |one: &Value| Attachment {
        node: text(one, "/spec/nodeName").to_owned(),
        attached: one.pointer("/status/attached") == Some(&Value::Bool(true)),
        error: text(one, "/status/attachError/message").to_owned(),
    };
    Ok(ours.map(attachment).collect())
}

/// Whether a controller runs; also where there are none to be seen, as without the right to look.
async fn controller(kubectl: &Kubectl) -> Result<bool> {
    let list = [
        "--namespace",
        &kubectl.system,
        "deployment",
        "longhorn-csi-controller",
    ];
    let found = match kubectl.find(&list).await {
        Ok(found) => found,
        Err(Error::Kubectl { .. }) => return Ok(true),
        Err(error) => return Err(error),
    };
    let ready = found
        .as_ref()
        .and_then(|one| one.pointer("/status/readyReplicas"));
    Ok(ready.and_then(Value::as_u64).unwrap_or(0) > 0)
}

/// What the managers say of the images of the class. That they do not answer is a fact too.
async fn managers(reach: &Reach, facts: &mut Facts) {
    let asked = async {
        let ask = |client: client::Client| async move { client.list_images().await };
        reach.managers().await?.ask(ask).await
    };
    match asked.await {
        Ok(answers) => {
            facts.silent = answers.silent;
            for (member, images) in answers.members {
                facts.images.extend(images.into_iter().map(|image| Image {
                    node: member.disk.node_id.clone(),
                    state: client::state_name(image.state()),
                    progress: client::progress(&image),
                    name: image.name,
                    source: image.source,
                    message: image.message,
                }));
            }
        }
        Err(error) => facts.silent.push(report(&error).to_string()),
    }
}
