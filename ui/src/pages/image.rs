//! One image or snapshot, on all disks.

use client::wire;
use maud::{Markup, html};

use super::form::{Field, Refusal, whole};
use super::images::verified;
use super::new_volume::holds;
use super::table::{head, live, region};
use super::volume::progress;
use super::words::{moment, size, state};
use super::{Frame, path};
use crate::seen::{Seen, SeenImage, Tone, image_state};

/// What was typed to copy it to disks.
#[derive(Debug, Clone, Default)]
pub struct CopyForm {
    /// Why it was refused.
    pub refused: Option<Refusal>,
}

/// The page.
pub fn image(frame: &Frame, seen: &Seen, image: &SeenImage<'_>, copy: &CopyForm) -> Markup {
    let best = image.best();
    let base = path("images", &best.name);
    let (list, word) = list_of(image);
    let others = seen.disks.iter().filter(|on| {
        let mut copies = image.copies.iter();
        !copies.any(|(disk, _)| disk.uuid == on.disk.uuid)
    });
    let others: Vec<_> = others.map(|on| &on.disk).collect();
    let body = html! {
        (image_facts(frame, seen, image))
        (made_of_it(seen, &best.name))
        section aria-labelledby="actions" {
            h2 #actions { "Actions" }
            div.actions {
                div {
                    h3 { "Create Volume" }
                    p { a.button href={ "/volumes/new?image=" (best.name) } { "Make a volume of it" } }
                }
                @if image.ready() > 0 {
                    div {
                        h3 { "Download" }
                        p { a.button href={ (base) "/download" } download=(file_name(best)) { "Download " (size(best.size)) } }
                    }
                }
                @if image.ready() > 0 && !others.is_empty() {
                    form method="post" action={ (base) "/copy" } {
                        h3 { "Copy to disks" }
                        (whole(copy.refused.as_ref()))
                        fieldset {
                            legend { "Disks without it" }
                            @for (at, disk) in others.iter().take(100).enumerate() {
                                div.choice {
                                    input id={ "copy-" (at) } type="checkbox" name="disk" value=(disk.uuid);
                                    label for={ "copy-" (at) } { (disk.node_id) " " (disk.path) }
                                }
                            }
                        }
                        button type="submit" { "Copy" }
                    }
                }
                div {
                    h3 { "Delete" }
                    p { a.button.danger href={ (path(list, &best.name)) "/delete" } { "Delete this " (word) } }
                }
            }
        }
    };
    let (list, _) = list_of(image);
    let title = match list {
        "snapshots" => format!("Snapshot {}", best.name),
        _ => format!("Image {}", best.name),
    };
    frame.page(&format!("/{list}"), &title, &body)
}

/// The list that it is in, and what it is called there.
fn list_of(image: &SeenImage<'_>) -> (&'static str, &'static str) {
    match image.is_snapshot() {
        true => ("snapshots", "snapshot"),
        false => ("images", "image"),
    }
}

/// The name of its file on the computer of who downloads it.
pub fn file_name(image: &wire::BackingImage) -> String {
    let end = if image.format == "qcow2" {
        "qcow2"
    } else {
        "img"
    };
    format!("{}.{end}", image.name)
}

/// What changes of it by itself.
pub fn image_facts(frame: &Frame, seen: &Seen, image: &SeenImage<'_>) -> Markup {
    let best = image.best();
    let (tone, word) = image_state(best);
    let url = path("fragments/images", &best.name);
    live(
        "image",
        &url,
        image.is_busy(),
        &html! {
            dl.facts {
                div { dt { "State" } dd { (state(tone, word)) } }
                @if !best.message.is_empty() { div { dt { "Message" } dd { (best.message) } } }
                div { dt { "Source" } dd { (best.source) } }
                @if !best.source_volume.is_empty() {
                    div { dt { "Volume" } dd { a href=(path("volumes", &best.source_volume)) { (best.source_volume) } } }
                }
                @if !best.snapshot_group.is_empty() { div { dt { "Group" } dd { (best.snapshot_group) } } }
                @if !best.backup_store.is_empty() { div { dt { "Kept for the backups in" } dd { (best.backup_store) } } }
                div { dt { "Format" } dd { (best.format) } }
                div { dt { "Virtual size" } dd { (size(best.virtual_size)) } }
                div { dt { "Size of the file" } dd { (size(best.size)) } }
                div { dt { "Holds" } dd { (holds(best.content.as_ref())) } }
                @if let Some(why) = best.content.as_ref().map(|content| &content.refused).filter(|why| !why.is_empty()) {
                    div { dt { "Not mounted" } dd { (why) } }
                }
                div { dt { "Verified" } dd { (verified(best)) } }
                @if !best.manifest_digest.is_empty() { div { dt { "Digest of the manifest" } dd { code.copy { (best.manifest_digest) } } } }
                @for (label, checksum) in [("Expected checksum", &best.expected_checksum), ("Checksum", &best.current_checksum)] {
                    @if !checksum.is_empty() { div { dt { (label) } dd { code.copy { (checksum) } } } }
                }
                @for checksum in &best.source_checksums { div { dt { "Checksum of its source" } dd { code.copy { (checksum) } } } }
                div { dt { "Raw form" } dd { (if best.has_raw_form { "made" } else { "made for the first volume that needs it" }) } }
                div { dt { "Created" } dd { (moment(&best.created_at, frame.now)) } }
                @if !best.unused_since.is_empty() { div { dt { "Without volumes since" } dd { (moment(&best.unused_since, frame.now)) } } }
            }
            (copies(seen, image))
        },
    )
}

fn copies(seen: &Seen, image: &SeenImage<'_>) -> Markup {
    let table = html! {
        table {
            caption { "On " (image.copies.len()) " of " (seen.disks.len()) " disks" }
            (head(&["Node", "Disk", "UUID of the image", "State", "Progress", "Takes", "Volumes"]))
            tbody {
                @for (disk, copy) in &image.copies {
                    @let (tone, word) = image_state(copy);
                    tr {
                        th scope="row" { (disk.node_id) }
                        td { (disk.path) }
                        td { code { (copy.uuid) } }
                        td { (state(tone, word)) @if !copy.message.is_empty() { " " (copy.message) } }
                        td { @if tone == Tone::Busy { (progress(copy)) } }
                        td { (size(copy.real_size)) }
                        td { (copy.volumes) }
                    }
                }
            }
        }
    };
    region("Disks of the image", &table)
}

/// The volumes that were made from it.
fn made_of_it(seen: &Seen, name: &str) -> Markup {
    let volumes = seen.volumes_of(name);
    html! {
        section aria-labelledby="volumes-of-it" {
            h2 #volumes-of-it { "Volumes made from it" }
            @if volumes.is_empty() { p { "None." } }
            @else {
                ul {
                    @for one in volumes.iter().take(50) {
                        li { a href=(path("volumes", &one.volume.name)) { (one.volume.name) } }
                    }
                }
                @if volumes.len() > 50 {
                    p { a href={ "/volumes?image=" (name) } { "All " (volumes.len()) } }
                }
            }
        }
    }
}

impl CopyForm {
    /// Refused for this reason.
    pub const fn refused(refusal: Refusal) -> Self {
        Self {
            refused: Some(refusal),
        }
    }
}

/// A field that forms about images share: where it goes.
pub(super) fn disk_field<'a>(
    prefix: &'a str,
    refused: Option<&'a Refusal>,
    seen: &Seen,
    chosen: &str,
) -> Markup {
    let disks: Vec<(String, String)> = (seen.roomy().into_iter())
        .map(|disk| {
            (
                disk.uuid.clone(),
                format!("{}, {}", disk.node_id, disk.path),
            )
        })
        .collect();
    Field::new(prefix, "disk", "Disk")
        .refused(refused)
        .select(chosen, &disks, false)
}
