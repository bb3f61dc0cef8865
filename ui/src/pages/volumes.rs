//! The list of volumes.

use maud::{Markup, html};

use super::table::{By, filter_form, head, live, pager, region};
use super::words::{age, size, state};
use super::{Frame, path};
use crate::seen::{Filter, Page, Seen, SeenVolume, VOLUME_STATES, users, volume_state};

/// The page of all volumes; `coming` are names of volumes that are being created.
pub fn volumes(frame: &Frame, seen: &Seen, filter: &Filter, coming: &[String]) -> Markup {
    let mut nodes: Vec<&str> = seen
        .disks
        .iter()
        .map(|on| on.disk.node_id.as_str())
        .collect();
    nodes.dedup();
    let by = [
        By::Text("q", "Name"),
        By::Text("image", "Base image"),
        By::OneOf("node", "Node", &nodes),
        By::OneOf("state", "State", VOLUME_STATES),
    ];
    let body = html! {
        p { a.button href="/volumes/new" { "Create Volume" } }
        (filter_form("/volumes", filter, &by))
        (region("Volumes", &volumes_rows(frame, seen, filter, coming)))
    };
    frame.page("/volumes", "Volumes", &body)
}

/// Its table alone.
pub fn volumes_rows(frame: &Frame, seen: &Seen, filter: &Filter, coming: &[String]) -> Markup {
    let page = filter.volumes(seen);
    let busy = !coming.is_empty();
    let url = format!("/fragments/volumes{}", filter.query(page.number));
    live(
        "volumes",
        &url,
        busy,
        &html! {
            @if busy {
                p {
                    "Being created: "
                    @for (at, name) in coming.iter().enumerate() {
                        @if at > 0 { ", " }
                        a href=(path("volumes", name)) { (name) }
                    }
                }
            }
            @if page.all == 0 {
                p.empty {
                    "There are no volumes. "
                    a href="/volumes/new" { "Create Volume" }
                    " makes one of a Docker image, or a blank one."
                }
            } @else if page.found == 0 {
                p.empty { "No volume passes the filter. " a href="/volumes" { "Show all" } "." }
            } @else {
                (rows(frame, &page))
            }
            (pager("/volumes", filter, &page))
        },
    )
}

fn rows(frame: &Frame, page: &Page<SeenVolume<'_>>) -> Markup {
    let columns = [
        "Name",
        "Base image",
        "Size",
        "Takes",
        "File system",
        "State",
        "Node and disk",
        "Used by",
        "Age",
    ];
    html! {
        table {
            caption { "Volumes" }
            (head(&columns))
            tbody {
                @for seen in &page.rows {
                    (row(frame, seen))
                }
            }
        }
    }
}

fn row(frame: &Frame, seen: &SeenVolume<'_>) -> Markup {
    let volume = seen.volume;
    let (tone, word) = volume_state(seen);
    html! {
        tr {
            th scope="row" {
                a id={ "volume-" (volume.name) } href=(path("volumes", &volume.name)) { (volume.name) }
            }
            td { (image_link(volume)) }
            td { (size(volume.size)) }
            td { (size(volume.real_size)) }
            td { (file_system(volume)) }
            td { (state(tone, word)) }
            td { (places(volume)) }
            td {
                @for (at, user) in users(seen).iter().enumerate() {
                    @if at > 0 { br; }
                    (user)
                }
            }
            td { (age(&volume.created_at, frame.now)) }
        }
    }
}

/// What the volume was made from.
pub(super) fn image_link(volume: &client::wire::Volume) -> Markup {
    html! {
        @match volume.image_name.as_str() {
            "" if volume.source_volume.is_empty() => "blank",
            "" => { "volume " a href=(path("volumes", &volume.source_volume)) { (volume.source_volume) } }
            name => a href=(path("images", name)) { (name) },
        }
    }
}

/// The file system, as far as it is known.
pub(super) fn file_system(volume: &client::wire::Volume) -> String {
    let content = volume.content.as_ref();
    match content.map(|content| content.r#type.as_str()) {
        Some(kind) if !kind.is_empty() => kind.to_owned(),
        _ if !volume.fs_type.is_empty() => format!("{} when it is first used", volume.fs_type),
        _ => "none yet".to_owned(),
    }
}

/// Where it is.
fn places(volume: &client::wire::Volume) -> Markup {
    html! {
        @for (at, replica) in volume.replicas.iter().enumerate() {
            @if at > 0 { br; }
            (replica.node_id) " " code { (replica.disk_uuid) }
        }
    }
}
