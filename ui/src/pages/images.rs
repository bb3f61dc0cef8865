//! The list of images.

use maud::{Markup, html};

use super::new_volume::holds;
use super::table::{By, filter_form, head, live, pager, region};
use super::volume::progress;
use super::words::{age, size, state};
use super::{Frame, path};
use crate::seen::{Filter, IMAGE_STATES, Page, Seen, SeenImage, image_state};

/// The page of all images that are no snapshots.
pub fn images(frame: &Frame, seen: &Seen, filter: &Filter) -> Markup {
    let mut nodes: Vec<&str> = seen
        .disks
        .iter()
        .map(|on| on.disk.node_id.as_str())
        .collect();
    nodes.dedup();
    let by = [
        By::Text("q", "Name or source"),
        By::OneOf("node", "Node", &nodes),
        By::OneOf("state", "State", IMAGE_STATES),
    ];
    let body = html! {
        p {
            a.button href="/images/new#pull" { "Pull" } " "
            a.button href="/images/new#upload" { "Upload" } " "
            a.button href="/images/new#from-url" { "From URL" }
        }
        (filter_form("/images", filter, &by))
        (region("Images", &images_rows(frame, seen, filter)))
    };
    frame.page("/images", "Images", &body)
}

/// Its table alone.
pub fn images_rows(frame: &Frame, seen: &Seen, filter: &Filter) -> Markup {
    let page = filter.images(seen);
    let busy = page.rows.iter().any(SeenImage::is_busy);
    let url = format!("/fragments/images{}", filter.query(page.number));
    live(
        "images",
        &url,
        busy,
        &html! {
            @if page.all == 0 {
                p.empty {
                    "There are no images. " a href="/images/new#pull" { "Pull one" }
                    " from a registry, or " a href="/volumes/new" { "create a volume" } " of a Docker image."
                }
            } @else if page.found == 0 {
                p.empty { "No image passes the filter. " a href="/images" { "Show all" } "." }
            } @else {
                (rows(frame, seen, &page))
            }
            (pager("/images", filter, &page))
        },
    )
}

fn rows(frame: &Frame, seen: &Seen, page: &Page<SeenImage<'_>>) -> Markup {
    let columns = [
        "Name",
        "State",
        "Progress",
        "Format",
        "Virtual size",
        "Takes",
        "Holds",
        "Verified",
        "Disks",
        "Source",
        "Age",
    ];
    html! {
        table {
            caption { "Images" }
            (head(&columns))
            tbody {
                @for one in &page.rows {
                    @let best = one.best();
                    @let (tone, word) = image_state(best);
                    tr {
                        th scope="row" { a id={ "image-" (best.name) } href=(path("images", &best.name)) { (best.name) } }
                        td { (state(tone, word)) @if !best.message.is_empty() { " " (best.message) } }
                        td { @if one.is_busy() { (progress(busiest(one))) } }
                        td { (best.format) }
                        td { (size(best.virtual_size)) }
                        td { (size(one.copies.iter().map(|(_, copy)| copy.real_size).sum())) }
                        td { (holds(best.content.as_ref())) }
                        td { (verified(best)) }
                        td { (one.ready()) " of " (seen.disks.len()) }
                        td { (best.source) }
                        td { (age(&best.created_at, frame.now)) }
                    }
                }
            }
        }
    }
}

/// A copy that is on its way.
fn busiest<'a>(image: &SeenImage<'a>) -> &'a client::wire::BackingImage {
    let busy = image.copies.iter().map(|(_, copy)| *copy);
    let mut busy = busy.filter(|copy| image_state(copy).0 == crate::seen::Tone::Busy);
    busy.next().unwrap_or_else(|| image.best())
}

/// Whether anybody vouches for its bytes.
pub(super) fn verified(image: &client::wire::BackingImage) -> &'static str {
    match (image.state(), image.unverified) {
        (client::wire::State::Ready, true) => "no",
        (client::wire::State::Ready, false) => "yes",
        _ => "not yet",
    }
}
