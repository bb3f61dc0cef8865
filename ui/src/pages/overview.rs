//! The first page: how the disks are, and what is wrong.

use maud::{Markup, html};

use super::disks::used;
use super::table::{head, live, region};
use super::words::{size, state};
use super::{Frame, path};
use crate::seen::{Filter, IMAGE_STATES, Seen, Tone, image_state, is_in_use, room, volume_state};

/// Lines of what is wrong; the rest is counted.
const WRONG_MAX: usize = 50;

/// The page.
pub fn overview(frame: &Frame, seen: &Seen) -> Markup {
    let body = html! {
        p { a.button href="/volumes/new" { "Create Volume" } }
        (overview_facts(frame, seen))
    };
    frame.page("/", "Overview", &body)
}

/// All but its buttons.
pub fn overview_facts(_: &Frame, seen: &Seen) -> Markup {
    let volumes = seen.volumes();
    let in_use = volumes.iter().filter(|one| is_in_use(one.volume)).count();
    let images = seen.images();
    let wrong = wrong(seen);
    live(
        "overview",
        "/fragments/overview",
        seen.is_busy(),
        &html! {
            section aria-labelledby="wrong" {
                h2 #wrong { "What is wrong now" }
                @if wrong.is_empty() { p { (state(Tone::Good, "Nothing that is known.")) } }
                @else {
                    ul {
                        @for (tone, word, href, name, why) in wrong.iter().take(WRONG_MAX) {
                            li { (state(*tone, word)) " " a href=(href) { (name) } @if !why.is_empty() { ": " (why) } }
                        }
                    }
                    @if wrong.len() > WRONG_MAX { p { "and " (wrong.len() - WRONG_MAX) " more." } }
                }
            }
            section aria-labelledby="volumes-in-short" {
                h2 #volumes-in-short { "Volumes" }
                p {
                    a href="/volumes" { (volumes.len()) " in all" } ", "
                    a href="/volumes?state=in+use" { (in_use) " in use" } "."
                }
            }
            section aria-labelledby="images-in-short" {
                h2 #images-in-short { "Images" }
                @if images.is_empty() {
                    p.empty { "There are no images. " a href="/images/new#pull" { "Pull one" } ", or create a volume of a Docker image." }
                } @else {
                    ul {
                        @for word in IMAGE_STATES {
                            @let count = images.iter().filter(|one| image_state(one.best()).1 == *word).count();
                            @if count > 0 {
                                @let filter = Filter { state: (*word).to_owned(), ..Filter::default() };
                                li { a href={ "/images" (filter.query(1)) } { (count) " " (word) } }
                            }
                        }
                    }
                }
            }
            section aria-labelledby="disks-in-short" {
                h2 #disks-in-short { "Disks" }
                @if seen.disks.is_empty() { p.empty { "No manager answers. Check that the pods of backing-image-manager run." } }
                @else { (region("Disks", &disks(seen))) }
            }
        },
    )
}

fn disks(seen: &Seen) -> Markup {
    html! {
        table {
            caption { "How full each disk is" }
            (head(&["Node", "Path", "Size", "Used", "Promised", "Available"]))
            tbody {
                @for on in seen.disks.iter().take(100) {
                    tr {
                        th scope="row" { (on.disk.node_id) }
                        td { (on.disk.path) }
                        td { (size(on.disk.size)) }
                        td { (size(used(&on.disk))) }
                        td { (size(on.disk.promised)) }
                        td { (size(room(&on.disk))) }
                    }
                }
            }
        }
    }
}

type Line<'a> = (Tone, &'a str, String, &'a str, &'a str);

/// What should be looked at, each with where.
fn wrong(seen: &Seen) -> Vec<Line<'_>> {
    let mut lines = Vec::new();
    for on in &seen.disks {
        let href = || {
            format!(
                "/disks?q={}",
                url::form_urlencoded::byte_serialize(on.disk.path.as_bytes()).collect::<String>()
            )
        };
        for (tone, word, why) in [
            (Tone::Bad, "disk not ready", &on.disk.not_ready),
            (Tone::Warning, "disk at risk", &on.disk.warning),
        ] {
            if !why.is_empty() {
                lines.push((tone, word, href(), on.disk.node_id.as_str(), why.as_str()));
            }
        }
        for image in on.images.iter() {
            let (tone, word) = image_state(image);
            if matches!(tone, Tone::Bad | Tone::Warning) {
                let href = path("images", &image.name);
                lines.push((
                    tone,
                    word,
                    href,
                    image.name.as_str(),
                    image.message.as_str(),
                ));
            }
        }
    }
    for one in seen.volumes() {
        let (tone, word) = volume_state(&one);
        if matches!(tone, Tone::Bad | Tone::Warning) {
            let troubles = one.exposed.and_then(|(_, on)| on.troubles.first());
            let why = match (one.volume.condition.as_str(), troubles) {
                ("", Some(trouble)) => trouble,
                ("", None) => &one.volume.degraded,
                (condition, _) => condition,
            };
            lines.push((
                tone,
                word,
                path("volumes", &one.volume.name),
                one.volume.name.as_str(),
                why,
            ));
        }
    }
    lines
}
