//! Deleting: a page of its own, which names what will be lost and what stands against it.

use maud::{Markup, html};

use super::form::{Refusal, whole};
use super::words::{moment, size};
use super::{Frame, path};
use crate::seen::{Seen, SeenImage, SeenVolume, users};

/// What was refused, if it was.
#[derive(Debug, Clone, Copy, Default)]
pub struct Doomed<'a> {
    /// The manager's own sentence.
    pub refused: Option<&'a Refusal>,
}

/// The page that asks before a volume is deleted.
pub fn delete_volume(
    frame: &Frame,
    seen: &Seen,
    one: &SeenVolume<'_>,
    doomed: Doomed<'_>,
) -> Markup {
    let volume = one.volume;
    let against = users(one);
    let base = path("volumes", &volume.name);
    let snapshots = (seen.images().iter())
        .filter(|image| image.best().source_volume == volume.name)
        .count();
    let body = html! {
        (whole(doomed.refused))
        p { "This will be lost, and nobody can bring it back:" }
        ul {
            li {
                "Volume " strong { (volume.name) } ": " (size(volume.size)) ", of which it takes "
                (size(volume.real_size)) ", made " (moment(&volume.created_at, frame.now))
            }
            @for replica in &volume.replicas { li { "Its bytes on " (replica.node_id) ", disk " code { (replica.disk_uuid) } } }
        }
        @if snapshots > 0 { p { "Its " (snapshots) " snapshots stay." } }
        (stands_against(&against))
        (ask(&base, "volume"))
    };
    frame.page("/volumes", &format!("Delete volume {}", volume.name), &body)
}

/// The page that asks before an image or a snapshot is deleted, on all disks.
pub fn delete_image(
    frame: &Frame,
    seen: &Seen,
    image: &SeenImage<'_>,
    doomed: Doomed<'_>,
) -> Markup {
    let best = image.best();
    let volumes = seen.volumes_of(&best.name);
    let (list, word) = if image.is_snapshot() {
        ("snapshots", "snapshot")
    } else {
        ("images", "image")
    };
    // Volumes of a snapshot do not need it.
    let mut against: Vec<String> = Vec::new();
    if !image.is_snapshot() {
        against.extend(
            volumes
                .iter()
                .take(20)
                .map(|one| format!("volume {} was made from it", one.volume.name)),
        );
        if volumes.len() > 20 {
            against.push(format!("and {} more volumes", volumes.len() - 20));
        }
    }
    if !best.backup_store.is_empty() {
        against.push(format!(
            "the next backup to {} needs it to upload only what has changed",
            best.backup_store
        ));
    }
    let base = path(list, &best.name);
    let body = html! {
        (whole(doomed.refused))
        p { "This will be lost:" }
        ul {
            @for (disk, copy) in &image.copies {
                li { "The " (word) " " strong { (copy.name) } " on " (disk.node_id) " " (disk.path) ": " (size(copy.real_size)) }
            }
        }
        @if image.is_snapshot() { p { "Nobody can bring it back. Its volume and the volumes made from it stay." } }
        @else { p { "It can come again from its source: " (best.source) } }
        (stands_against(&against))
        (ask(&base, word))
    };
    frame.page(
        &format!("/{list}"),
        &format!("Delete {word} {}", best.name),
        &body,
    )
}

fn stands_against(against: &[String]) -> Markup {
    html! {
        h2 { "What stands against it" }
        @if against.is_empty() { p { "Nothing that is known." } }
        @else { ul { @for one in against { li { (one) } } } }
    }
}

fn ask(base: &str, word: &str) -> Markup {
    html! {
        form method="post" action={ (base) "/delete" } {
            p {
                button.danger type="submit" { "Delete the " (word) }
                " "
                a href=(base.replace("/snapshots/", "/images/")) { "Keep it" }
            }
        }
    }
}
