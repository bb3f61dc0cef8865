//! The list of snapshots.

use maud::{Markup, html};

use super::table::{By, filter_form, head, live, pager, region};
use super::words::{age, size, state};
use super::{Frame, path};
use crate::seen::{Filter, Seen, SeenImage, Tone, image_state};

/// The page of all snapshots.
pub fn snapshots(frame: &Frame, seen: &Seen, filter: &Filter) -> Markup {
    let by = [By::Text("q", "Name"), By::Text("image", "Volume")];
    let body = html! {
        (filter_form("/snapshots", filter, &by))
        (region("Snapshots", &snapshots_rows(frame, seen, filter)))
    };
    frame.page("/snapshots", "Snapshots", &body)
}

/// Its table alone.
pub fn snapshots_rows(frame: &Frame, seen: &Seen, filter: &Filter) -> Markup {
    let page = filter.snapshots(seen);
    let busy = page.rows.iter().any(SeenImage::is_busy);
    let url = format!("/fragments/snapshots{}", filter.query(page.number));
    live(
        "snapshots",
        &url,
        busy,
        &html! {
            @if page.all == 0 {
                p.empty { "There are no snapshots. Take one on the page of a " a href="/volumes" { "volume" } "." }
            } @else if page.found == 0 {
                p.empty { "No snapshot passes the filter. " a href="/snapshots" { "Show all" } "." }
            } @else {
                table {
                    caption { "Snapshots" }
                    (head(&["Name", "Volume", "Group", "Size", "State", "Age", "Actions"]))
                    tbody {
                        @for one in &page.rows {
                            @let best = one.best();
                            @let (tone, word) = image_state(best);
                            tr {
                                th scope="row" { a id={ "snapshot-" (best.name) } href=(path("images", &best.name)) { (best.name) } }
                                td { a href=(path("volumes", &best.source_volume)) { (best.source_volume) } }
                                td { (best.snapshot_group) }
                                td { (size(best.virtual_size)) }
                                td { (state(tone, word)) @if tone == Tone::Bad { " " (best.message) } }
                                td { (age(&best.created_at, frame.now)) }
                                td {
                                    a id={ "make-" (best.name) } href={ "/volumes/new?image=" (best.name) } { "Make a volume of it" }
                                    " "
                                    a id={ "delete-" (best.name) } href={ (path("snapshots", &best.name)) "/delete" } { "Delete" }
                                }
                            }
                        }
                    }
                }
            }
            (pager("/snapshots", filter, &page))
        },
    )
}
