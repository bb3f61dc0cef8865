//! Create Volume: the form, and the card that shows what its base image is.

use client::wire;
use maud::{Markup, html};
use wire::content::Kind;

use super::Frame;
use super::form::{Field, Refusal, about, whole};
use super::volume::{TargetFields, target_fields};
use super::words::{size, size_text, state};
use crate::seen::{Seen, Tone, room};

/// What was typed. Never holds the password of a registry, which is not shown again.
#[derive(Debug, Clone, Default)]
pub struct VolumeForm {
    /// Name of the volume.
    pub name: String,
    /// A Docker image name.
    pub base_image: String,
    /// An image or snapshot that is there, in place of a Docker image name.
    pub image: String,
    /// The user at a private registry.
    pub username: String,
    /// A checksum to be met.
    pub checksum: String,
    /// The number of the size,
    pub size: String,
    /// and its unit: `Gi`.
    pub size_unit: String,
    /// Of a blank volume.
    pub fs_type: String,
    /// The number of a partition.
    pub partition: String,
    /// `pods`, `device` or `target`.
    pub access: String,
    /// Of a target.
    pub initiators: String,
    /// Of a target.
    pub chap_user: String,
    /// Of a target.
    pub chap_secret: String,
    /// The UUID of a disk; empty: where there is room.
    pub disk: String,
}

/// What is known of the base image.
#[derive(Debug, Clone, Default)]
pub enum Card {
    /// Nothing was asked.
    #[default]
    Empty,
    /// It was looked at.
    Found {
        /// What it is,
        found: Box<wire::InspectSourceResponse>,
        /// on how many disks it is already,
        ready: usize,
        /// and of how many.
        disks: usize,
    },
    /// It was not found, or not looked at, for this reason.
    NotFound(Refusal),
}

const FILE_SYSTEMS: &[&str] = &["ext4", "xfs"];

/// The page.
pub fn new_volume(
    frame: &Frame,
    seen: &Seen,
    form: &VolumeForm,
    card: &Card,
    refused: Option<&Refusal>,
) -> Markup {
    let field = |name, label| Field::new("volume", name, label).refused(refused);
    let disks: Vec<(String, String)> =
        std::iter::once((String::new(), "where there is room".to_owned()))
            .chain(seen.roomy().into_iter().map(|disk| {
                let free = size_text(room(disk));
                (
                    disk.uuid.clone(),
                    format!("{}, {}: room for {free}", disk.node_id, disk.path),
                )
            }))
            .collect();
    let body = html! {
        (whole(refused))
        @if let Some(other) = refused.filter(|other| !FIELDS.contains(&other.field)) {
            (whole(Some(&Refusal { field: "", ..other.clone() })))
        }
        form method="post" action="/volumes" {
            (field("name", "Name").help("Lower-case letters, digits, hyphens and dots.").text(&form.name))
            @if form.image.is_empty() {
                (base_image_field(form, card, refused))
                details {
                    summary { "Private registry" }
                    (field("username", "User").text(&form.username))
                    (field("password", "Password").help("For this request only: never kept, never shown again.")
                        .input("password", "", 1024))
                }
                (field("checksum", "Checksum")
                    .help("sha512:…; empty: what comes is recorded and the image is marked as unverified")
                    .text(&form.checksum))
            } @else {
                div.field {
                    label for="volume-image" { "Image" }
                    p.help #volume-image-help { "The volume begins as this image or snapshot." }
                    input #volume-image name="image" value=(form.image) readonly aria-describedby="volume-image-help";
                    @if let Some(refusal) = about(refused, "image") { (whole(Some(&Refusal { field: "", ..refusal.clone() }))) }
                }
            }
            (field("size", "Size").help("Empty: the size of the image, or 1 GiB for a blank volume.")
                .size(&form.size, if form.size_unit.is_empty() { "Gi" } else { &form.size_unit }))
            (content_fields(form, card, refused, false))
            (access_fields(form, refused))
            (field("disk", "Node or disk").select(&form.disk, &disks, false))
            p {
                button type="submit" name="do" value="create" { "Create volume" }
                @if form.image.is_empty() {
                    " "
                    button.plain type="submit" name="do" value="look" { "Look at the base image" }
                }
            }
        }
    };
    frame.page("/volumes", "Create Volume", &body)
}

/// The fields beside which a refusal can be said.
const FIELDS: &[&str] = &[
    "",
    "name",
    "base_image",
    "image",
    "username",
    "password",
    "checksum",
    "size",
    "fs_type",
    "partition",
    "initiators",
    "chap_user",
    "chap_secret",
    "access",
    "disk",
];

fn base_image_field(form: &VolumeForm, card: &Card, refused: Option<&Refusal>) -> Markup {
    let field = Field::new("volume", "base_image", "Base Image")
        .help("A Docker image name. Leave empty for a blank volume.")
        .refused(refused);
    let control = html! {
        input id=(field.id()) name="base_image" type="text" value=(form.base_image) maxlength="1024"
            autocomplete="off" spellcheck="false" autocapitalize="none"
            aria-describedby=[field.described_by()] aria-invalid=[field.invalid()]
            hx-post="/fragments/base-image" hx-trigger="input changed delay:400ms" hx-target="#base-image-card"
            hx-swap="innerHTML" hx-sync="this:replace";
        div #base-image-card aria-live="polite" { (card_of(card)) }
    };
    field.around(&control)
}

/// The card, and the fields that follow from it: what the form is given while somebody types.
pub fn base_image(form: &VolumeForm, card: &Card) -> Markup {
    html! {
        (card_of(card))
        (content_fields(form, card, None, true))
    }
}

/// What is known of the base image, for people.
fn card_of(card: &Card) -> Markup {
    html! {
        @match card {
            Card::Empty => {}
            Card::NotFound(refusal) => {
                div.card {
                    p { (state(Tone::Bad, "Not found")) }
                    p { (refusal.sentence) " " code { (super::code(refusal.kind)) } }
                }
            }
            Card::Found { found, ready, disks } => {
                div.card {
                    p { (state(Tone::Good, "Found")) }
                    dl.facts {
                        @if !found.source.is_empty() { div { dt { "Source" } dd { (found.source) } } }
                        @if !found.manifest_digest.is_empty() { div { dt { "Digest" } dd { code.copy { (found.manifest_digest) } } } }
                        div {
                            dt { "Disk" }
                            dd {
                                (size(found.virtual_size)) " " (found.format)
                                @if found.transfer_size > 0 { ", " (size(found.transfer_size)) " to pull" }
                            }
                        }
                        div { dt { "Holds" } dd { (holds(found.content.as_ref())) } }
                        @if !found.platform.is_empty() { div { dt { "Platform" } dd { (found.platform) } } }
                        div { dt { "Already on" } dd { (ready) " of " (disks) " disks" } }
                        @for note in &found.notes { div { dt { "Note" } dd { (note) } } }
                    }
                }
            }
        }
    }
}

/// What a disk holds: `ext4, label site`.
pub(super) fn holds(content: Option<&wire::Content>) -> String {
    let Some(content) = content else {
        return "not known".to_owned();
    };
    let kind = match content.kind() {
        Kind::Unspecified | Kind::Unknown if content.r#type.is_empty() => "not known".to_owned(),
        Kind::Blank => "nothing: it is blank".to_owned(),
        Kind::PartitionTable => format!("a partition table ({})", content.r#type),
        _ => content.r#type.clone(),
    };
    match content.label.as_str() {
        "" => kind,
        label => format!("{kind}, label {label}"),
    }
}

/// File system and partition, which follow from what the image holds.
fn content_fields(
    form: &VolumeForm,
    card: &Card,
    refused: Option<&Refusal>,
    replaces: bool,
) -> Markup {
    let found = match card {
        Card::Found { found, .. } => Some(found),
        Card::Empty | Card::NotFound(_) => None,
    };
    let field = |name, label| Field::new("volume", name, label).refused(refused);
    let content = found.and_then(|found| found.content.as_ref());
    let own = content.filter(|content| content.kind() != Kind::Blank && !content.r#type.is_empty());
    let partitions = found.map_or(&[][..], |found| &found.partitions);
    let named = |name: &str| (name.to_owned(), name.to_owned());
    html! {
        div #volume-content hx-swap-oob=[replaces.then_some("true")] {
            @if let Some(own) = own {
                (field("fs_type", "File system").help("A base image is never formatted.")
                    .select(&own.r#type, &[named(&own.r#type)], true))
            } @else {
                @let known: Vec<_> = FILE_SYSTEMS.iter().map(|name| named(name)).collect();
                (field("fs_type", "File system").help("Of a blank volume; it is made when the volume is first used.")
                    .select(&form.fs_type, &known, false))
            }
            @if !partitions.is_empty() {
                @let whole = std::iter::once((String::new(), "the whole disk".to_owned()));
                @let options: Vec<_> = whole.chain(partitions.iter().map(|one| {
                    (one.number.to_string(), format!("{}: {}", one.number, size_text(one.length)))
                })).collect();
                (field("partition", "Partition").help("Which one pods mount.").select(&form.partition, &options, false))
            } @else if !form.partition.is_empty() {
                (field("partition", "Partition").text(&form.partition))
            }
        }
    }
}

fn access_fields(form: &VolumeForm, refused: Option<&Refusal>) -> Markup {
    let choices = [
        ("pods", "Pods (claim it through CSI)"),
        ("device", "Block device on the node"),
        ("target", "iSCSI target"),
    ];
    let chosen = match form.access.as_str() {
        "" => "pods",
        chosen => chosen,
    };
    let target = TargetFields {
        initiators: &form.initiators,
        user: &form.chap_user,
        secret: &form.chap_secret,
    };
    html! {
        fieldset {
            legend { "Access" }
            @for (value, label) in choices {
                div.choice {
                    input id={ "volume-access-" (value) } type="radio" name="access" value=(value)
                        checked[value == chosen];
                    label for={ "volume-access-" (value) } { (label) }
                }
            }
            @if let Some(refusal) = about(refused, "access") {
                (whole(Some(&Refusal { field: "", ..refusal.clone() })))
            }
            (target_fields("volume", refused, &target))
        }
    }
}
