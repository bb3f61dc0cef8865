//! What of the programs' answers is shown, and how: one row for a thing, whatever disks it is on.

use client::{state_name, wire};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::output::{Row, age, size};

/// The heads of volumes; of every table the first nine.
pub(crate) const VOLUME: [&str; 13] = [
    "NAME",
    "BASE IMAGE",
    "SIZE",
    "TAKES",
    "FILE SYSTEM",
    "STATE",
    "NODE",
    "USED BY",
    "AGE",
    "DISK",
    "OWNER",
    "MADE BY",
    "NOTE",
];
/// Of images.
pub(crate) const IMAGE: [&str; 13] = [
    "NAME",
    "STATE",
    "PROGRESS",
    "FORMAT",
    "VIRTUAL SIZE",
    "TAKES",
    "HOLDS",
    "DISKS",
    "VOLUMES",
    "AGE",
    "VERIFIED",
    "SOURCE",
    "NOTE",
];
/// Of snapshots.
pub(crate) const SNAPSHOT: [&str; 8] = [
    "NAME",
    "VOLUME",
    "STATE",
    "SIZE",
    "NODE",
    "AGE",
    "GROUP",
    "BACKUP STORE",
];
/// Of disks.
pub(crate) const DISK: [&str; 13] = [
    "NODE",
    "DISK",
    "FILE SYSTEM",
    "SIZE",
    "AVAILABLE",
    "PROMISED",
    "IMAGES",
    "VOLUMES",
    "READY",
    "PATH",
    "REFLINK",
    "I/O ERRORS",
    "NOTE",
];
/// A volume, with every disk that has it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Volume {
    pub(crate) name: String,
    pub(crate) base_image: String,
    pub(crate) size: u64,
    pub(crate) real_size: u64,
    pub(crate) file_system: String,
    pub(crate) state: &'static str,
    pub(crate) replicas: Vec<Replica>,
    pub(crate) used_by: Vec<User>,
    pub(crate) owner: Owner,
    pub(crate) made_by: String,
    #[serde(rename = "sourceVolume")]
    pub(crate) copied_from: String,
    pub(crate) source_snapshot: String,
    pub(crate) partition: u32,
    pub(crate) created_at: String,
    /// What is wrong; empty: nothing.
    pub(crate) notes: Vec<String>,
}

/// A disk that has something.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Replica {
    pub(crate) node: String,
    pub(crate) disk: String,
}

/// Who uses a volume.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct User {
    pub(crate) node: String,
    pub(crate) kind: &'static str,
    pub(crate) read_only: bool,
}

/// Whose it is.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Owner {
    pub(crate) driver: &'static str,
    pub(crate) namespace: String,
    pub(crate) claim: String,
}

/// An image or snapshot, with every disk that has it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Image {
    pub(crate) name: String,
    pub(crate) uuid: String,
    pub(crate) state: &'static str,
    pub(crate) progress: u32,
    pub(crate) format: String,
    pub(crate) size: u64,
    pub(crate) virtual_size: u64,
    pub(crate) real_size: u64,
    pub(crate) holds: String,
    pub(crate) disks: Vec<Replica>,
    pub(crate) volumes: u32,
    pub(crate) verified: bool,
    pub(crate) checksum: String,
    pub(crate) source: String,
    pub(crate) manifest_digest: String,
    pub(crate) source_volume: String,
    pub(crate) group: String,
    pub(crate) backup_store: String,
    pub(crate) created_at: String,
    pub(crate) message: String,
}

/// A disk.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Disk {
    pub(crate) uuid: String,
    pub(crate) node: String,
    pub(crate) path: String,
    pub(crate) file_system: String,
    pub(crate) reflink: bool,
    pub(crate) size: u64,
    pub(crate) available: u64,
    pub(crate) promised: u64,
    pub(crate) creatable: u64,
    pub(crate) images: u32,
    pub(crate) volumes: u32,
    pub(crate) io_errors: u64,
    pub(crate) not_ready: String,
    pub(crate) warning: String,
}

/// What a disk holds, in words: `ext4, label site`.
pub(crate) fn holds(content: Option<&wire::Content>) -> String {
    use wire::content::Kind;
    let Some(content) = content else {
        return String::new();
    };
    let what = match content.kind() {
        Kind::FileSystem | Kind::PartitionTable | Kind::Other => content.r#type.clone(),
        Kind::Ambiguous => format!("ambiguous: {}", content.r#type),
        Kind::Unknown => "unknown data".to_owned(),
        Kind::Blank => "nothing".to_owned(),
        Kind::Unspecified => String::new(),
    };
    match &*content.label {
        "" => what,
        label => format!("{what}, label {label}"),
    }
}

fn use_name(kind: wire::Use) -> &'static str {
    match kind {
        wire::Use::Pods => "pods",
        wire::Use::Device => "device",
        wire::Use::Target => "target",
    }
}

impl Volume {
    pub(crate) fn new(volume: wire::Volume, at: Replica) -> Self {
        let owner = volume.owner.clone().unwrap_or_default();
        let published = volume.published.iter().map(|one| User {
            node: one.node_id.clone(),
            kind: use_name(one.r#use()),
            read_only: one.readonly,
        });
        // Where Kubernetes attaches nothing, nothing is published for pods: the kernel knows.
        let is_held = volume.in_use && volume.published.is_empty();
        let held = is_held.then(|| User {
            node: at.node.clone(),
            kind: "loop device",
            read_only: false,
        });
        let used_by: Vec<User> = published.chain(held).collect();
        let notes = [volume.condition.clone(), volume.degraded.clone()];
        Self {
            state: match (&*volume.condition, &*volume.degraded, used_by.is_empty()) {
                ("", "", true) => "free",
                ("", "", false) => "in use",
                ("", ..) => "degraded",
                _ => "at risk",
            },
            notes: notes.into_iter().filter(|note| !note.is_empty()).collect(),
            file_system: match &*volume.fs_type {
                "" => holds(volume.content.as_ref()),
                fs_type => fs_type.to_owned(),
            },
            base_image: volume.image_name,
            name: volume.name,
            size: volume.size,
            real_size: volume.real_size,
            replicas: vec![at],
            used_by,
            owner: Owner {
                driver: match owner.driver() {
                    wire::Driver::Csi => "csi",
                    wire::Driver::Flexvolume => "flexvolume",
                    wire::Driver::Api => "api",
                    wire::Driver::Unspecified => "unknown",
                },
                namespace: owner.namespace,
                claim: owner.claim,
            },
            made_by: volume.made_by,
            copied_from: volume.source_volume,
            source_snapshot: volume.source_snapshot,
            partition: volume.partition.unwrap_or_default().number,
            created_at: volume.created_at,
        }
    }

    /// Another disk has it too: it is a replica.
    pub(crate) fn join(&mut self, other: Self) {
        self.real_size = self.real_size.max(other.real_size);
        self.replicas.extend(other.replicas);
        self.notes.extend(other.notes);
    }

    pub(crate) fn used_by(&self) -> String {
        let users = self.used_by.iter();
        let users: Vec<_> = users
            .map(|user| format!("{} on {}", user.kind, user.node))
            .collect();
        users.join(", ")
    }

    pub(crate) fn row(&self, now: Timestamp) -> Row {
        let owner = [self.owner.driver, &self.owner.namespace, &self.owner.claim];
        let owner: Vec<_> = owner.into_iter().filter(|part| !part.is_empty()).collect();
        Row {
            name: self.name.clone(),
            cells: vec![
                self.name.clone(),
                self.base_image.clone(),
                size(self.size),
                size(self.real_size),
                self.file_system.clone(),
                self.state.to_owned(),
                nodes(&self.replicas),
                self.used_by(),
                age(&self.created_at, now),
                disks(&self.replicas),
                owner.join("/"),
                self.made_by.clone(),
                self.notes.join("; "),
            ],
            value: value(self),
        }
    }
}

impl Image {
    pub(crate) fn new(image: wire::BackingImage, at: Replica) -> Self {
        Self {
            state: state_name(image.state()),
            holds: holds(image.content.as_ref()),
            name: image.name,
            uuid: image.uuid,
            progress: image.progress,
            format: image.format,
            size: image.size,
            virtual_size: image.virtual_size,
            real_size: image.real_size,
            disks: vec![at],
            volumes: image.volumes,
            verified: !image.unverified,
            checksum: image.current_checksum,
            source: image.source,
            manifest_digest: image.manifest_digest,
            source_volume: image.source_volume,
            group: image.snapshot_group,
            backup_store: image.backup_store,
            created_at: image.created_at,
            message: image.message,
        }
    }

    /// Another disk has it too. Where it is ready is what counts; else where it is furthest.
    pub(crate) fn join(&mut self, mut other: Self) {
        let volumes = self.volumes + other.volumes;
        let rank = |image: &Self| {
            (
                image.state == "ready",
                image.state != "failed",
                image.progress,
            )
        };
        if rank(&other) > rank(self) {
            std::mem::swap(self, &mut other);
        }
        self.disks.append(&mut other.disks);
        self.volumes = volumes;
    }

    pub(crate) fn row(&self, now: Timestamp, known: usize) -> Row {
        Row {
            name: self.name.clone(),
            cells: vec![
                self.name.clone(),
                self.state.to_owned(),
                format!("{} %", self.progress),
                self.format.clone(),
                size(self.virtual_size),
                size(self.real_size),
                self.holds.clone(),
                format!("{} of {known}", self.disks.len()),
                self.volumes.to_string(),
                age(&self.created_at, now),
                if self.verified { "yes" } else { "no" }.to_owned(),
                self.source.clone(),
                self.message.clone(),
            ],
            value: value(self),
        }
    }

    pub(crate) fn snapshot_row(&self, now: Timestamp) -> Row {
        Row {
            name: self.name.clone(),
            cells: vec![
                self.name.clone(),
                self.source_volume.clone(),
                self.state.to_owned(),
                size(self.virtual_size),
                nodes(&self.disks),
                age(&self.created_at, now),
                self.group.clone(),
                self.backup_store.clone(),
            ],
            value: value(self),
        }
    }
}

impl From<&wire::Disk> for Disk {
    fn from(disk: &wire::Disk) -> Self {
        Self {
            uuid: disk.uuid.clone(),
            node: disk.node_id.clone(),
            path: disk.path.clone(),
            file_system: disk.file_system.clone(),
            reflink: disk.reflink,
            size: disk.size,
            available: disk.available,
            promised: disk.promised,
            creatable: disk.creatable.unwrap_or(disk.available),
            images: disk.images,
            volumes: disk.volumes,
            io_errors: disk.io_errors,
            not_ready: disk.not_ready.clone(),
            warning: disk.warning.clone(),
        }
    }
}

impl Disk {
    pub(crate) fn row(&self) -> Row {
        let notes = [&*self.not_ready, &*self.warning];
        let notes: Vec<_> = notes.into_iter().filter(|note| !note.is_empty()).collect();
        Row {
            name: self.uuid.clone(),
            cells: vec![
                self.node.clone(),
                self.uuid.clone(),
                self.file_system.clone(),
                size(self.size),
                size(self.available),
                size(self.promised),
                self.images.to_string(),
                self.volumes.to_string(),
                if self.not_ready.is_empty() {
                    "yes"
                } else {
                    "no"
                }
                .to_owned(),
                self.path.clone(),
                if self.reflink { "yes" } else { "no" }.to_owned(),
                self.io_errors.to_string(),
                notes.join("; "),
            ],
            value: value(self),
        }
    }
}

pub(crate) fn value<T: Serialize>(view: &T) -> Value {
    // Texts, numbers and lists of them: it cannot fail.
    serde_json::to_value(view).unwrap_or_default()
}

fn nodes(replicas: &[Replica]) -> String {
    let nodes: Vec<_> = replicas.iter().map(|replica| &*replica.node).collect();
    nodes.join(", ")
}

fn disks(replicas: &[Replica]) -> String {
    let disks: Vec<_> = replicas.iter().map(|replica| &*replica.disk).collect();
    disks.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(node: &str) -> Replica {
        Replica {
            node: node.to_owned(),
            disk: format!("disk-of-{node}"),
        }
    }

    fn image(state: wire::State, progress: u32) -> wire::BackingImage {
        wire::BackingImage {
            name: "guest".to_owned(),
            state: state.into(),
            progress,
            volumes: 1,
            ..Default::default()
        }
    }

    #[test]
    fn an_image_is_as_ready_as_on_its_best_disk() {
        let mut one = Image::new(image(wire::State::Failed, 90), at("n1"));
        one.join(Image::new(image(wire::State::InProgress, 10), at("n2")));
        assert_eq!((one.state, one.disks.len()), ("in-progress", 2));
        one.join(Image::new(image(wire::State::Ready, 100), at("n3")));
        one.join(Image::new(image(wire::State::InProgress, 99), at("n4")));
        assert_eq!((one.state, one.disks.len(), one.volumes), ("ready", 4, 4));
        assert_eq!(one.row(Timestamp::UNIX_EPOCH, 6).cells[7], "4 of 6");
    }

    #[test]
    fn the_state_of_a_volume_is_the_worst_that_is_known() {
        let state = |condition: &str, degraded: &str, used: bool| {
            let publication = wire::Publication {
                node_id: "n1".to_owned(),
                r#use: wire::Use::Target.into(),
                ..Default::default()
            };
            let volume = wire::Volume {
                condition: condition.to_owned(),
                degraded: degraded.to_owned(),
                published: used.then_some(publication).into_iter().collect(),
                ..Default::default()
            };
            let volume = Volume::new(volume, at("n1"));
            (volume.state, volume.used_by())
        };
        assert_eq!(state("", "", false), ("free", String::new()));
        assert_eq!(state("", "", true), ("in use", "target on n1".to_owned()));
        assert_eq!(state("", "one replica", true).0, "degraded");
        assert_eq!(state("disk full", "one replica", true).0, "at risk");
        // Nothing is published for pods where nothing is attached.
        let volume = wire::Volume {
            in_use: true,
            ..Default::default()
        };
        let volume = Volume::new(volume, at("n1"));
        assert_eq!(volume.state, "in use");
        assert_eq!(volume.used_by(), "loop device on n1");
    }

    #[test]
    fn as_many_cells_as_heads() {
        let now = Timestamp::UNIX_EPOCH;
        let volume = Volume::new(wire::Volume::default(), at("n"));
        assert_eq!(volume.row(now).cells.len(), VOLUME.len());
        let image = Image::new(wire::BackingImage::default(), at("n"));
        assert_eq!(image.row(now, 1).cells.len(), IMAGE.len());
        assert_eq!(image.snapshot_row(now).cells.len(), SNAPSHOT.len());
        let disk = Disk::from(&wire::Disk::default());
        assert_eq!(disk.row().cells.len(), DISK.len());
    }
}
