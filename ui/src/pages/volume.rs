//! One volume: what it is, how it is used, and what can be done with it.

use client::node_wire::Exposed;
use client::wire;
use maud::{Markup, html};

use super::form::{Field, Refusal, whole};
use super::manifest::manifest;
use super::table::live;
use super::volumes::{file_system, image_link};
use super::words::{moment, or, size, state};
use super::{Frame, path};
use crate::seen::{SeenVolume, Tone, users, volume_state};

/// A volume that is being created, or failed to be.
#[derive(Debug, Clone, Default)]
pub struct Coming {
    /// Its name.
    pub name: String,
    /// The image that it waits for.
    pub image: Option<wire::BackingImage>,
    /// What is being done, for people.
    pub step: String,
    /// Why it ended without a volume, or without the access that was asked for.
    pub failed: Option<Refusal>,
}

/// What the page of a volume shows.
#[derive(Debug, Clone, Copy)]
pub struct VolumePage<'a> {
    /// Its name.
    pub name: &'a str,
    /// The volume; `None`: it is not there yet.
    pub seen: Option<SeenVolume<'a>>,
    /// What is under way for it.
    pub coming: Option<&'a Coming>,
    /// Which form was refused, and why.
    pub refused: Option<(&'a str, &'a Refusal)>,
    /// A secret for a target, made up for this page.
    pub secret: &'a str,
}

/// The page.
pub fn volume(frame: &Frame, page: &VolumePage<'_>) -> Markup {
    let body = html! {
        (volume_facts(frame, page))
        @if let Some(seen) = &page.seen {
            (actions(page, seen))
            section aria-labelledby="use-in-a-pod" {
                h2 #use-in-a-pod { "Use in a pod" }
                @if seen.volume.owner.clone().unwrap_or_default().claim.is_empty() {
                    p { "Apply this with kubectl, and name the claim in the pod. Change the namespace first where it is another." }
                    pre.copy tabindex="0" role="region" aria-label="Manifest" { code { (manifest(seen.volume, &frame.driver)) } }
                } @else {
                    p { "The volume was made for a claim, which pods name." }
                }
            }
        }
    };
    frame.page("/volumes", &format!("Volume {}", page.name), &body)
}

/// What changes of it by itself.
pub fn volume_facts(frame: &Frame, page: &VolumePage<'_>) -> Markup {
    let coming = page.coming.filter(|coming| coming.failed.is_none());
    let url = path("fragments/volumes", page.name);
    live(
        "volume",
        &url,
        coming.is_some(),
        &html! {
            @if let Some(coming) = page.coming { (creation(coming)) }
            @match &page.seen {
                Some(seen) => (facts(frame, seen)),
                None if coming.is_some() => {}
                None => p.empty {
                    "There is no volume " (page.name) ". " a href="/volumes/new" { "Create Volume" } " makes one."
                }
            }
        },
    )
}

/// How far a creation is.
fn creation(coming: &Coming) -> Markup {
    html! {
        section aria-labelledby="creation" {
            h2 #creation { "Creation" }
            @if let Some(refusal) = &coming.failed {
                (whole(Some(&Refusal { field: "", ..refusal.clone() })))
                p { "Repeat the request to go on: what is there is used. " a href="/volumes/new" { "Create Volume" } }
            } @else {
                p { (state(Tone::Busy, &coming.step)) }
                @if let Some(image) = &coming.image {
                    p {
                        "Image " a href=(path("images", &image.name)) { (image.name) } ": "
                        (progress(image))
                    }
                }
                p.help { "It goes on when this page is left." }
            }
        }
    }
}

/// How far an image is.
pub(super) fn progress(image: &wire::BackingImage) -> Markup {
    html! {
        progress max="100" value=(image.progress) aria-label={ "Progress of " (image.name) } {
            (image.progress) " %"
        }
        " " (image.progress) " %, " (size(image.processed_size))
        @if image.total_size > 0 { " of " (size(image.total_size)) }
    }
}

fn facts(frame: &Frame, seen: &SeenVolume<'_>) -> Markup {
    let volume = seen.volume;
    let (tone, word) = volume_state(seen);
    let owner = volume.owner.clone().unwrap_or_default();
    html! {
        dl.facts {
            div { dt { "State" } dd { (state(tone, word)) } }
            @for sentence in [&volume.condition, &volume.degraded] {
                @if !sentence.is_empty() { div { dt { "Trouble" } dd { (sentence) } } }
            }
            div { dt { "Base image" } dd { (image_link(volume)) } }
            div { dt { "Size" } dd { (size(volume.size)) } }
            div { dt { "Takes" } dd { (size(volume.real_size)) } }
            div { dt { "File system" } dd { (file_system(volume)) } }
            @if let Some(reason) = volume.content.as_ref().map(|content| &content.refused).filter(|why| !why.is_empty()) {
                div { dt { "Not mounted" } dd { (reason) } }
            }
            div { dt { "Made by" } dd { (volume.made_by) } }
            @if !volume.source_snapshot.is_empty() {
                div { dt { "Source snapshot" } dd { a href=(path("images", &volume.source_snapshot)) { (volume.source_snapshot) } } }
            }
            @if !volume.source_volume.is_empty() {
                div { dt { "Source volume" } dd { a href=(path("volumes", &volume.source_volume)) { (volume.source_volume) } } }
            }
            @if let Some(partition) = &volume.partition {
                div { dt { "Partition" } dd { (partition.number) ", " (size(partition.length)) " from " (size(partition.offset)) } }
            }
            @for replica in &volume.replicas {
                div {
                    dt { "Node and disk" }
                    dd { (replica.node_id) " " code { (replica.disk_uuid) } " " code { (replica.path) } }
                }
            }
            div { dt { "Replicas" } dd { (volume.number_of_replicas.max(1)) @if !volume.is_replica { " (a file on one disk)" } } }
            div { dt { "Used by" } dd { (or(&users(seen).join(", "), "nobody")) } }
            @if !owner.claim.is_empty() {
                div { dt { "Claim" } dd { (owner.namespace) "/" (owner.claim) } }
            }
            @for (key, value) in sorted(volume) {
                div { dt { (key) } dd { (value) } }
            }
            div { dt { "Created" } dd { (moment(&volume.created_at, frame.now)) } }
        }
        @if let Some((node, exposed)) = seen.exposed { (access(node, exposed)) }
    }
}

fn sorted(volume: &wire::Volume) -> Vec<(&String, &String)> {
    let mut parameters: Vec<_> = volume.parameters.iter().take(50).collect();
    parameters.sort();
    parameters
}

/// How it is used without a pod.
fn access(node: &str, exposed: &Exposed) -> Markup {
    html! {
        section aria-labelledby="access" {
            h2 #access { "Access" }
            dl.facts {
                div { dt { "Node" } dd { (node) } }
                @if exposed.read_only { div { dt { "Writing" } dd { "not possible: read only" } } }
                @if !exposed.path.is_empty() {
                    div { dt { "Device" } dd { code.copy { (exposed.path) } " (" (exposed.device) ")" } }
                }
                @if let Some(target) = &exposed.target {
                    div { dt { "Target address" } dd { code.copy { (target.portal) } } }
                    div { dt { "IQN" } dd { code.copy { (target.name) } } }
                    div { dt { "LUN" } dd { (target.lun) } }
                    div { dt { "CHAP user" } dd { (or(&target.chap_user, "none: initiators connect by their name alone")) } }
                    div { dt { "May connect" } dd { (target.initiator_names.join(", ")) } }
                    div {
                        dt { "Connected" }
                        dd {
                            @if target.sessions.is_empty() { "nobody" }
                            @for (at, session) in target.sessions.iter().enumerate() {
                                @if at > 0 { br; }
                                (session.initiator_name) " from " (session.address)
                            }
                        }
                    }
                }
                @for trouble in &exposed.troubles {
                    div { dt { "Trouble" } dd { (state(Tone::Warning, trouble)) } }
                }
            }
            @if exposed.target.is_some() {
                p.help {
                    "The bytes of a target pass through a program on the node, which pods do not use."
                }
            }
        }
    }
}

fn actions(page: &VolumePage<'_>, seen: &SeenVolume<'_>) -> Markup {
    let base = path("volumes", page.name);
    let refused = |form: &str| {
        page.refused
            .filter(|(of, _)| *of == form)
            .map(|(_, why)| why)
    };
    html! {
        section aria-labelledby="actions" {
            h2 #actions { "Actions" }
            div.actions {
                form method="post" action={ (base) "/snapshot" } {
                    h3 { "Snapshot" }
                    (whole(refused("snapshot")))
                    (Field::new("snapshot", "name", "Name of the snapshot").refused(refused("snapshot")).text(""))
                    button type="submit" { "Snapshot" }
                }
                form method="post" action={ (base) "/clone" } {
                    h3 { "Clone" }
                    (whole(refused("clone")))
                    (Field::new("clone", "name", "Name of the new volume").refused(refused("clone")).text(""))
                    button type="submit" { "Clone" }
                }
                form method="post" action={ (base) "/grow" } {
                    h3 { "Grow" }
                    (whole(refused("grow")))
                    (Field::new("grow", "size", "New size").help("Volumes never shrink.")
                        .refused(refused("grow")).size("", "Gi"))
                    button type="submit" { "Grow" }
                }
                @if seen.exposed.is_some() {
                    form method="post" action={ (base) "/take-back" } {
                        h3 { "Take back" }
                        p.help { "Ends the access without a pod." }
                        (whole(refused("take-back")))
                        div.choice {
                            input #take-back-disconnect type="checkbox" name="disconnect" value="yes";
                            label for="take-back-disconnect" { "Disconnect initiators that are connected" }
                        }
                        button type="submit" { "Take back" }
                    }
                } @else {
                    form method="post" action={ (base) "/expose" } {
                        h3 { "Expose" }
                        p.help { "Makes it usable without a pod, on its node." }
                        (whole(refused("expose")))
                        fieldset {
                            legend { "Access" }
                            div.choice {
                                input #expose-access-device type="radio" name="access" value="device" checked;
                                label for="expose-access-device" { "Block device on the node" }
                            }
                            div.choice {
                                input #expose-access-target type="radio" name="access" value="target";
                                label for="expose-access-target" { "iSCSI target" }
                            }
                        }
                        (target_fields("expose", refused("expose"), &TargetFields { secret: page.secret, ..Default::default() }))
                        div.choice {
                            input #expose-read-only type="checkbox" name="read_only" value="yes";
                            label for="expose-read-only" { "Read only" }
                        }
                        button type="submit" { "Expose" }
                    }
                }
                div {
                    h3 { "Delete" }
                    p { a.button.danger href={ (base) "/delete" } { "Delete this volume" } }
                }
            }
        }
    }
}

/// What is typed of a target.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct TargetFields<'a> {
    pub(super) initiators: &'a str,
    pub(super) user: &'a str,
    pub(super) secret: &'a str,
}

/// The fields of an iSCSI target.
pub(super) fn target_fields(
    prefix: &str,
    refused: Option<&Refusal>,
    values: &TargetFields<'_>,
) -> Markup {
    let user = if values.user.is_empty() {
        "longhorn"
    } else {
        values.user
    };
    html! {
        details open[refused.is_some_and(|why| ["initiators", "chap_user", "chap_secret"].contains(&why.field))] {
            summary { "iSCSI" }
            (Field::new(prefix, "initiators", "Initiator names")
                .help("Required: who may connect, separated by spaces. iqn.…, eui.… or naa.…")
                .refused(refused).text(values.initiators))
            (Field::new(prefix, "chap_user", "CHAP user").refused(refused).text(user))
            (Field::new(prefix, "chap_secret", "CHAP secret")
                .help("12 to 16 characters. Copy it now: it is not shown again.")
                .refused(refused).input("text", values.secret, 16))
        }
    }
}
