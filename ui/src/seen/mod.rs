//! What is known of the cluster at one moment: disks with their images and volumes, and what nodes expose.
//!
//! Values alone: it asks nobody. Pages are drawn from it, and [`crate::look`] makes it.

mod filter;

use std::collections::BTreeMap;
use std::sync::Arc;

use client::node_wire::{Exposed, NodeInfo};
use client::wire;

pub use filter::{Filter, PER_PAGE, Page};

/// A look at everything.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// The disks whose managers answered, by node and disk.
    pub disks: Vec<SeenDisk>,
    /// How many managers were asked.
    pub asked: usize,
    /// What those say, or what is said of those, that did not answer.
    pub failed: Vec<String>,
    /// The nodes whose services answered, by name.
    pub nodes: Vec<SeenNode>,
    /// Of those that did not.
    pub silent_nodes: Vec<String>,
}

/// A disk, and what is on it.
#[derive(Debug, Clone, Default)]
pub struct SeenDisk {
    /// The disk.
    pub disk: wire::Disk,
    /// Its images, by name.
    pub images: Arc<Vec<wire::BackingImage>>,
    /// Its volumes, by name.
    pub volumes: Arc<Vec<wire::Volume>>,
}

/// A node.
#[derive(Debug, Clone, Default)]
pub struct SeenNode {
    /// What it is, and what it lacks.
    pub info: NodeInfo,
    /// What it exposes.
    pub exposed: Vec<Exposed>,
}

/// A volume where it is.
#[derive(Debug, Clone, Copy)]
pub struct SeenVolume<'a> {
    /// As its first disk says it.
    pub volume: &'a wire::Volume,
    /// That disk.
    pub disk: &'a wire::Disk,
    /// Its access without a pod, and on which node.
    pub exposed: Option<(&'a str, &'a Exposed)>,
}

/// An image on all disks that have one of its name.
#[derive(Debug, Clone)]
pub struct SeenImage<'a> {
    /// On each disk. Never empty.
    pub copies: Vec<(&'a wire::Disk, &'a wire::BackingImage)>,
}

/// How a thing is, in a word that is shown and filtered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// Well.
    Good,
    /// Well, and nothing happens.
    Idle,
    /// On its way.
    Busy,
    /// Worth a look.
    Warning,
    /// Broken.
    Bad,
}

impl Seen {
    /// All volumes, by name; one with several replicas once.
    pub fn volumes(&self) -> Vec<SeenVolume<'_>> {
        let mut exposed: BTreeMap<&str, (&str, &Exposed)> = BTreeMap::new();
        for node in &self.nodes {
            for one in &node.exposed {
                exposed.insert(&one.volume, (&node.info.node_id, one));
            }
        }
        let mut volumes = BTreeMap::new();
        for on in &self.disks {
            for volume in on.volumes.iter() {
                volumes
                    .entry(volume.name.as_str())
                    .or_insert_with(|| SeenVolume {
                        volume,
                        disk: &on.disk,
                        exposed: exposed.get(volume.name.as_str()).copied(),
                    });
            }
        }
        volumes.into_values().collect()
    }

    /// One volume.
    pub fn volume(&self, name: &str) -> Option<SeenVolume<'_>> {
        let (disk, volume) = self.disks.iter().find_map(|on| {
            // Managers list in the order of names; one that does not is searched all the same.
            let found = on.volumes.iter().find(|volume| volume.name == name)?;
            Some((&on.disk, found))
        })?;
        let exposed = self.nodes.iter().find_map(|node| {
            let found = node.exposed.iter().find(|one| one.volume == name)?;
            Some((node.info.node_id.as_str(), found))
        });
        Some(SeenVolume {
            volume,
            disk,
            exposed,
        })
    }

    /// All images, by name.
    pub fn images(&self) -> Vec<SeenImage<'_>> {
        let mut images: BTreeMap<&str, SeenImage<'_>> = BTreeMap::new();
        for on in &self.disks {
            for image in on.images.iter() {
                let copies = &mut images
                    .entry(&image.name)
                    .or_insert(SeenImage { copies: Vec::new() })
                    .copies;
                copies.push((&on.disk, image));
            }
        }
        images.into_values().collect()
    }

    /// One image.
    pub fn image(&self, name: &str) -> Option<SeenImage<'_>> {
        let copies = self.disks.iter().flat_map(|on| {
            let of_name = on.images.iter().filter(|image| image.name == name);
            of_name.map(|image| (&on.disk, image))
        });
        let copies: Vec<_> = copies.collect();
        (!copies.is_empty()).then_some(SeenImage { copies })
    }

    /// The volumes that were made from an image.
    pub fn volumes_of(&self, image: &str) -> Vec<SeenVolume<'_>> {
        let mut volumes = self.volumes();
        volumes.retain(|seen| seen.volume.image_name == image);
        volumes
    }

    /// On how many disks there is an image of this manifest.
    pub fn disks_with(&self, digest: &str) -> usize {
        let has = |on: &&SeenDisk| {
            let mut images = on.images.iter();
            images
                .any(|image| image.manifest_digest == digest && image.state() == wire::State::Ready)
        };
        match digest {
            "" => 0,
            _ => self.disks.iter().filter(has).count(),
        }
    }

    /// A disk.
    pub fn disk(&self, uuid: &str) -> Option<&SeenDisk> {
        self.disks.iter().find(|on| on.disk.uuid == uuid)
    }

    /// The disks, those with the most room for a volume first.
    pub fn roomy(&self) -> Vec<&wire::Disk> {
        let mut disks: Vec<_> = self.disks.iter().map(|on| &on.disk).collect();
        disks.sort_by_key(|disk| std::cmp::Reverse(room(disk)));
        disks
    }

    /// Whether something is under way that a page should follow.
    pub fn is_busy(&self) -> bool {
        let mut images = self.disks.iter().flat_map(|on| on.images.iter());
        images.any(|image| image_state(image).0 == Tone::Busy)
    }
}

/// The most that a new volume may have there, in bytes.
pub fn room(disk: &wire::Disk) -> u64 {
    disk.creatable.unwrap_or(disk.available)
}

impl<'a> SeenImage<'a> {
    /// The copy that says the most: a ready one, else the one that has come furthest.
    pub fn best(&self) -> &'a wire::BackingImage {
        let rank = |image: &wire::BackingImage| match image.state() {
            wire::State::Ready => (2, 0),
            wire::State::Failed => (0, 0),
            _ => (1, image.progress),
        };
        let mut best = self.copies[0].1;
        for (_, image) in &self.copies {
            if rank(image) > rank(best) {
                best = image;
            }
        }
        best
    }

    /// On how many disks it is ready.
    pub fn ready(&self) -> usize {
        let ready = |(_, image): &&(_, &wire::BackingImage)| image.state() == wire::State::Ready;
        self.copies.iter().filter(ready).count()
    }

    /// Whether it is a snapshot of a volume.
    pub fn is_snapshot(&self) -> bool {
        !self.best().source_volume.is_empty()
    }

    /// Whether a copy is on its way.
    pub fn is_busy(&self) -> bool {
        let mut copies = self.copies.iter();
        copies.any(|(_, image)| image_state(image).0 == Tone::Busy)
    }
}

/// The state of an image, in the words of its manager.
pub fn image_state(image: &wire::BackingImage) -> (Tone, &'static str) {
    let state = image.state();
    let tone = match state {
        wire::State::Ready => Tone::Good,
        wire::State::Failed => Tone::Bad,
        wire::State::Unknown | wire::State::Unspecified => Tone::Warning,
        wire::State::Pending
        | wire::State::Starting
        | wire::State::InProgress
        | wire::State::ReadyForTransfer => Tone::Busy,
    };
    (tone, client::state_name(state))
}

/// The states that an image can have, for a filter.
pub const IMAGE_STATES: &[&str] = &[
    "ready",
    "in-progress",
    "pending",
    "starting",
    "ready-for-transfer",
    "failed",
    "unknown",
];

/// The state of a volume.
pub fn volume_state(seen: &SeenVolume<'_>) -> (Tone, &'static str) {
    let volume = seen.volume;
    let trouble = seen.exposed.is_some_and(|(_, on)| !on.troubles.is_empty());
    if trouble || !volume.condition.is_empty() {
        return (Tone::Warning, "at risk");
    }
    if !volume.degraded.is_empty() {
        return (Tone::Warning, "degraded");
    }
    if is_in_use(volume) {
        (Tone::Good, "in use")
    } else {
        (Tone::Idle, "not in use")
    }
}

/// The states that a volume can have, for a filter.
pub const VOLUME_STATES: &[&str] = &["in use", "not in use", "degraded", "at risk"];

/// Whether somebody uses a volume: it is published, or a device of its node holds it. Where Kubernetes attaches nothing,
/// nothing is published for pods.
pub fn is_in_use(volume: &wire::Volume) -> bool {
    volume.in_use || !volume.published.is_empty()
}

/// The node of a volume that is in use, and published for nobody.
fn held_on(volume: &wire::Volume) -> Option<&str> {
    let replica = volume.replicas.first()?;
    (volume.in_use && volume.published.is_empty()).then_some(&*replica.node_id)
}

/// Who uses a volume.
pub fn users(seen: &SeenVolume<'_>) -> Vec<String> {
    let owner = seen.volume.owner.clone().unwrap_or_default();
    let claim = match (owner.namespace.as_str(), owner.claim.as_str()) {
        (_, "") => String::new(),
        ("", claim) => format!(" of {claim}"),
        (namespace, claim) => format!(" of {namespace}/{claim}"),
    };
    let published = seen.volume.published.iter();
    published
        .map(|one| match one.r#use() {
            wire::Use::Pods => format!("pods{claim} on {}", one.node_id),
            wire::Use::Device => format!("block device on {}", one.node_id),
            wire::Use::Target => format!("iSCSI target on {}", one.node_id),
        })
        .chain(held_on(seen.volume).map(|node| format!("loop device{claim} on {node}")))
        .collect()
}

#[cfg(test)]
mod tests;
