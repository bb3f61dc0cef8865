//! The disks, and what the nodes say of themselves.

use client::wire;
use maud::{Markup, html};

use super::Frame;
use super::table::{By, filter_form, head, live, pager, region};
use super::words::{size, state};
use crate::seen::{Filter, Seen, Tone, room};

/// The page of all disks.
pub fn disks(frame: &Frame, seen: &Seen, filter: &Filter) -> Markup {
    let body = html! {
        (filter_form("/disks", filter, &[By::Text("q", "Node or path")]))
        (region("Disks", &disks_rows(frame, seen, filter)))
        section aria-labelledby="doctor" {
            h2 #doctor { "When something is wrong" }
            p { "Run this on the node; it says what is wrong with a disk and what to do:" }
            pre.copy { code { "backing-image-manager doctor --disk PATH" } }
        }
    };
    frame.page("/disks", "Disks", &body)
}

/// Its table alone.
pub fn disks_rows(_: &Frame, seen: &Seen, filter: &Filter) -> Markup {
    let page = filter.page(seen.disks.iter().collect(), |on| {
        let disk = &on.disk;
        filter.q.is_empty() || disk.node_id.contains(&filter.q) || disk.path.contains(&filter.q)
    });
    let url = format!("/fragments/disks{}", filter.query(page.number));
    live(
        "disks",
        &url,
        false,
        &html! {
            @if page.all == 0 {
                p.empty { "No manager answers. Check that the pods of backing-image-manager run, and --manager of this program." }
            } @else {
                table {
                    caption { "Disks" }
                    (head(&["Node", "Path", "File system", "Reflink", "Size", "Used", "Promised", "Available", "I/O errors", "Ready", "UUID"]))
                    tbody {
                        @for on in &page.rows {
                            @let disk = &on.disk;
                            tr {
                                th scope="row" { (disk.node_id) }
                                td { (disk.path) }
                                td { (disk.file_system) }
                                td { (if disk.reflink { "yes" } else { "no: volumes are copies" }) }
                                td { (size(disk.size)) }
                                td { (size(used(disk))) }
                                td { (size(disk.promised)) }
                                td { (size(room(disk))) }
                                td { (disk.io_errors) }
                                td { (ready(disk)) }
                                td { code { (disk.uuid) } }
                            }
                        }
                    }
                }
            }
            (pager("/disks", filter, &page))
            (nodes(seen))
        },
    )
}

/// Bytes of the disk that are not free.
pub(super) const fn used(disk: &wire::Disk) -> u64 {
    disk.size.saturating_sub(disk.available)
}

fn ready(disk: &wire::Disk) -> Markup {
    html! {
        @if !disk.not_ready.is_empty() { (state(Tone::Bad, "no")) " " (disk.not_ready) }
        @else if !disk.warning.is_empty() { (state(Tone::Warning, "at risk")) " " (disk.warning) }
        @else { (state(Tone::Good, "yes")) }
    }
}

/// The nodes whose services answered.
fn nodes(seen: &Seen) -> Markup {
    html! {
        @if !seen.nodes.is_empty() || !seen.silent_nodes.is_empty() {
            table {
                caption { "Nodes" }
                (head(&["Node", "Kernel", "DRBD", "Exposed volumes", "Lacks"]))
                tbody {
                    @for node in &seen.nodes {
                        @let replication = node.info.replication.clone().unwrap_or_default();
                        tr {
                            th scope="row" { (node.info.node_id) }
                            td { (node.info.kernel) }
                            td { (if replication.version.is_empty() { "no" } else { &replication.version }) }
                            td { (node.exposed.len()) }
                            td {
                                @if node.info.lacks.is_empty() { "nothing" }
                                @for (at, lack) in node.info.lacks.iter().enumerate() {
                                    @if at > 0 { br; }
                                    (lack)
                                }
                            }
                        }
                    }
                }
            }
            @for sentence in seen.silent_nodes.iter().take(10) { p { (state(Tone::Warning, sentence)) } }
        }
    }
}
