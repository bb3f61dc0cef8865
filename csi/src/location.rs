//! Where a volume's file is: what the controller tells the node through the contexts, and how the
//! node finds the file from that.
//!
//! A context passes through the hands of others, so a node believes little of it: a disk is found by
//! its uuid among the directories of the command line, and the file by the volume's own name. No
//! path from outside is ever opened.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use client::wire;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use types::{ByteSize, DiskUuid, NodeId, VolumeName};

use crate::error::{Error, Result};

const DISK_UUID: &str = "diskUUID";
const PATH: &str = "path";
const HAS_SOURCE: &str = "hasSource";
const SIZE: &str = "size";
const READONLY: &str = "readonly";

/// The file that makes a directory a disk.
const DISK_CONFIG: &str = "longhorn-disk.cfg";
/// A disk's file holds one uuid; a larger one is something else.
const DISK_CONFIG_BYTES: u64 = 4096;

/// What a node must know of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Location {
    /// The disk of the replica that the node uses.
    pub(crate) disk_uuid: DiskUuid,
    /// Whether the volume came with contents: it is then never formatted.
    pub(crate) has_source: bool,
    /// The size at the time it was published; `None`: not told.
    pub(crate) size: Option<ByteSize>,
    /// Whether the controller published it for reading only.
    pub(crate) readonly: bool,
}

/// The `volume_context`: what never changes of a volume. The last four entries are for people.
pub(crate) fn volume_context(volume: &wire::Volume) -> HashMap<String, String> {
    let mut context = HashMap::new();
    if let Some(replica) = volume.replicas.first() {
        context.insert(DISK_UUID.to_owned(), replica.disk_uuid.clone());
        context.insert(PATH.to_owned(), replica.path.clone());
    }
    context.insert(
        HAS_SOURCE.to_owned(),
        (!volume.image_name.is_empty()).to_string(),
    );
    for (key, value) in [
        (
            crate::request::BASE_IMAGE,
            volume.parameters.get(crate::request::BASE_IMAGE),
        ),
        ("imageName", Some(&volume.image_name)),
        ("imageUUID", Some(&volume.image_uuid)),
        ("imageChecksum", Some(&volume.image_checksum)),
    ] {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            context.insert(key.to_owned(), value.clone());
        }
    }
    context
}

/// The `publish_context`: the replica of this node, as the volume is now. `None`: the node has none.
pub(crate) fn publish_context(
    volume: &wire::Volume,
    node: &NodeId,
    readonly: bool,
) -> Option<HashMap<String, String>> {
    let here = |replica: &&wire::Replica| replica.node_id == node.as_str();
    let replica = volume.replicas.iter().find(here)?;
    let entries = [
        (DISK_UUID, replica.disk_uuid.clone()),
        (PATH, replica.path.clone()),
        (HAS_SOURCE, (!volume.image_name.is_empty()).to_string()),
        (SIZE, volume.size.to_string()),
        (READONLY, readonly.to_string()),
    ];
    Some(
        entries
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect(),
    )
}

impl Location {
    /// Reads the contexts. What was said when the volume was published counts before what was said
    /// when it was made.
    pub(crate) fn parse(
        volume: &VolumeName,
        volume_context: &HashMap<String, String>,
        publish_context: &HashMap<String, String>,
    ) -> Result<Self> {
        let entry = |key| publish_context.get(key).or_else(|| volume_context.get(key));
        let invalid = |why| Error::Invalid {
            field: "publish_context",
            why,
        };
        let disk_uuid = entry(DISK_UUID)
            .and_then(|uuid| DiskUuid::new(uuid).ok())
            .ok_or_else(|| invalid("diskUUID is missing or no uuid; publish the volume first"))?;
        if entry(PATH).map(String::as_str) != relative(volume).to_str() {
            return Err(invalid("path is not volumes/<volume_id>/volume"));
        }
        // Without a word about a source there may be one.
        let has_source = entry(HAS_SOURCE).is_none_or(|text| text != "false");
        let size = match entry(SIZE) {
            None => None,
            Some(text) => Some(text.parse().map_err(|_| invalid("size is no number"))?),
        };
        let readonly = Self::is_readonly(publish_context);
        Ok(Self {
            disk_uuid,
            has_source,
            size: size.map(ByteSize),
            readonly,
        })
    }

    /// Whether the controller published the volume for reading only.
    pub(crate) fn is_readonly(publish_context: &HashMap<String, String>) -> bool {
        publish_context
            .get(READONLY)
            .is_some_and(|text| text != "false")
    }
}

/// The place of a volume's file below its disk.
fn relative(volume: &VolumeName) -> PathBuf {
    ["volumes", volume.as_str(), "volume"].iter().collect()
}

/// The disks of this node.
#[derive(Debug, Clone)]
pub(crate) struct Disks(Vec<PathBuf>);

impl Disks {
    pub(crate) const fn new(directories: Vec<PathBuf>) -> Self {
        Self(directories)
    }

    /// The volume as this node sees it. The disks are looked at each time: one may have been mounted
    /// since the plugin started.
    pub(crate) fn find(
        &self,
        volume: &VolumeName,
        location: &Location,
    ) -> Result<host::staging::NodeVolume> {
        let directory = self.disk(volume, &location.disk_uuid)?;
        let file = directory.join(relative(volume));
        let length = regular_file(&directory, volume)?;
        Ok(host::staging::NodeVolume {
            name: volume.clone(),
            file,
            size: location.size.unwrap_or(length),
            has_source: location.has_source,
        })
    }

    fn disk(&self, volume: &VolumeName, uuid: &DiskUuid) -> Result<PathBuf> {
        for directory in &self.0 {
            match disk_uuid(directory) {
                Ok(found) if found == *uuid => return Ok(directory.clone()),
                Ok(_) => {}
                // One bad disk must not hide the others.
                Err(error) => tracing::warn!("{}", types::report(&error)),
            }
        }
        let disk_uuid = uuid.to_string();
        Err(Error::NoSuchDisk {
            volume: volume.clone(),
            disk_uuid,
        })
    }

    /// The first disk that is not one, for Probe.
    pub(crate) fn check(&self) -> Result<()> {
        self.0
            .iter()
            .try_for_each(|directory| disk_uuid(directory).map(drop))
    }
}

/// The uuid in a disk's own file.
fn disk_uuid(directory: &Path) -> Result<DiskUuid> {
    #[derive(serde::Deserialize)]
    struct DiskConfig {
        #[serde(rename = "diskUUID")]
        disk_uuid: DiskUuid,
    }
    let path = directory.join(DISK_CONFIG);
    let mut text = Vec::new();
    let file = File::open(&path).map_err(Error::io("open", &path))?;
    file.take(DISK_CONFIG_BYTES)
        .read_to_end(&mut text)
        .map_err(Error::io("read", &path))?;
    let why = "it is not a disk's {\"diskUUID\": …}; run `backing-image-manager disk init` first";
    let config: DiskConfig =
        serde_json::from_slice(&text).map_err(|_| Error::Start { path, why })?;
    Ok(config.disk_uuid)
}

/// The length of a volume's file, provided that it is one: the directory belongs to a manager that
/// has fewer rights than we do, so nothing on the way may be a link.
fn regular_file(directory: &Path, volume: &VolumeName) -> Result<ByteSize> {
    let path = directory.join(relative(volume));
    let open = |what: &Path, flags| {
        let no_links = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let below = rustix::fs::open(
            directory,
            OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        rustix::fs::openat2(
            below,
            what,
            flags | OFlags::CLOEXEC,
            Mode::empty(),
            no_links,
        )
    };
    let opened = open(&relative(volume), OFlags::PATH);
    let file = match opened {
        Ok(file) => file,
        Err(rustix::io::Errno::NOENT) => {
            return Err(Error::NoSuchVolume {
                volume_id: volume.to_string(),
            });
        }
        Err(source) => return Err(Error::io("open", &path)(source)),
    };
    let stat = rustix::fs::fstat(&file).map_err(Error::io("look at", &path))?;
    if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::RegularFile {
        return Err(Error::Start {
            path,
            why: "a volume's file must be a regular file",
        });
    }
    Ok(ByteSize(u64::try_from(stat.st_size).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use types::{Classify as _, ErrorKind};

    use super::*;

    fn volume(name: &str) -> VolumeName {
        VolumeName::new(name).unwrap()
    }

    fn wire() -> wire::Volume {
        wire::Volume {
            name: "v".to_owned(),
            size: 4096,
            image_name: "image".to_owned(),
            replicas: vec![wire::Replica {
                node_id: "node-a".to_owned(),
                disk_uuid: "disk-a".to_owned(),
                path: "volumes/v/volume".to_owned(),
            }],
            ..Default::default()
        }
    }

    #[test]
    fn what_the_controller_says_the_node_understands() {
        let static_context = volume_context(&wire());
        let context = publish_context(&wire(), &NodeId::new("node-a").unwrap(), true).unwrap();
        let location = Location::parse(&volume("v"), &static_context, &context).unwrap();
        let expected = Location {
            disk_uuid: DiskUuid::new("disk-a").unwrap(),
            has_source: true,
            size: Some(ByteSize(4096)),
            readonly: true,
        };
        assert_eq!(location, expected);
        // Without attaching (CSIDriver attachRequired: false) the volume's own context is enough.
        let location = Location::parse(&volume("v"), &static_context, &HashMap::new()).unwrap();
        assert_eq!(
            location,
            Location {
                size: None,
                readonly: false,
                ..expected
            }
        );
        assert!(publish_context(&wire(), &NodeId::new("node-b").unwrap(), false).is_none());
    }

    #[test]
    fn no_path_from_outside_is_followed() {
        for path in [
            "/dev/sda",
            "volumes/../../etc/passwd",
            "volumes/other/volume",
            "",
            "volumes/v",
        ] {
            let mut context = volume_context(&wire());
            context.insert(PATH.to_owned(), path.to_owned());
            let error = Location::parse(&volume("v"), &context, &HashMap::new()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{path:?}");
        }
    }

    fn write(path: &Path, bytes: &[u8]) {
        use std::io::Write as _;
        File::create(path).unwrap().write_all(bytes).unwrap();
    }

    #[test]
    fn the_disk_is_found_by_its_uuid_and_links_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let (a, b) = (root.path().join("a"), root.path().join("b"));
        for (directory, uuid) in [(&a, "disk-a"), (&b, "disk-b")] {
            std::fs::create_dir_all(directory.join("volumes/v")).unwrap();
            let text = format!("{{\"diskUUID\":\"{uuid}\"}}");
            write(&directory.join(DISK_CONFIG), text.as_bytes());
        }
        write(&b.join("volumes/v/volume"), &[0; 512]);
        let disks = Disks::new(vec![root.path().join("missing"), a.clone(), b.clone()]);
        let at = |uuid| Location {
            disk_uuid: DiskUuid::new(uuid).unwrap(),
            has_source: false,
            size: None,
            readonly: false,
        };
        let found = disks.find(&volume("v"), &at("disk-b")).unwrap();
        assert_eq!(found.file, b.join("volumes/v/volume"));
        assert_eq!(found.size, ByteSize(512));
        let kind = |uuid| disks.find(&volume("v"), &at(uuid)).unwrap_err().kind();
        assert_eq!(kind("disk-a"), ErrorKind::NotFound);
        assert_eq!(kind("disk-c"), ErrorKind::FailedPrecondition);
        std::os::unix::fs::symlink("/etc/passwd", a.join("volumes/v/volume")).unwrap();
        assert!(disks.find(&volume("v"), &at("disk-a")).is_err());
        assert!(disks.check().is_err());
    }
}
