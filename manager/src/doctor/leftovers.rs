//! Files on the disk that are no part of an image or a volume.

use std::fs;
use std::path::Path;

use super::Finding;
use store::layout::{EntryName, Layout};

/// Names that are told of each kind.
const TOLD: usize = 3;

#[derive(Default)]
struct Count {
    leftovers: Vec<String>,
    quarantined: Vec<String>,
    work: usize,
}

pub(super) fn examine(root: &Path) -> Vec<Finding> {
    let layout = Layout::new(root);
    let mut count = Count::default();
    for dir in [layout.images(), layout.volumes()] {
        count.look(&dir);
    }
    count.work = fs::read_dir(root.join("tmp")).map_or(0, Iterator::count);
    let Count {
        leftovers,
        quarantined,
        work,
    } = &count;
    let found = format!(
        "{} interrupted{}, {} quarantined{}, {work} work files",
        leftovers.len(),
        some(leftovers),
        quarantined.len(),
        some(quarantined),
    );
    let clean = leftovers.is_empty() && quarantined.is_empty();
    vec![if clean {
        Finding::ok("leftovers", found)
    } else {
        Finding::warning(
            "leftovers",
            found,
            "the next start of the daemon removes interrupted work; quarantined images are \
             damaged: inspect them, then remove their directories",
        )
    }]
}

impl Count {
    fn look(&mut self, dir: &Path) {
        // A disk that was never served has no such directory.
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            match EntryName::of(&name) {
                EntryName::Leftover => self.leftovers.push(name),
                EntryName::Quarantined(_) => self.quarantined.push(name),
                EntryName::Item(_) | EntryName::Foreign => {}
            }
        }
    }
}

/// The first few names, in brackets.
fn some(names: &[String]) -> String {
    if names.is_empty() {
        return String::new();
    }
    let more = if names.len() > TOLD { ", …" } else { "" };
    let first = names.iter().take(TOLD).cloned().collect::<Vec<_>>();
    format!(" ({}{more})", first.join(", "))
}
