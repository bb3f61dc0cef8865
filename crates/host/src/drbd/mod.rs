//! Replicated volumes on DRBD 9 of this node's kernel: [`replication::Engine`] by `drbdsetup` and `drbdmeta`.
//!
//! What is to be done is decided in `replication`; here each verb is one or two commands, and what the kernel tells
//! becomes a [`Part`]. Nothing is kept in memory: the kernel has the state, the disk the metadata, the node service the
//! layouts. The kernels decide what is acknowledged, who is stale and who may write; the two places that use force are
//! in `force`, each with its argument.
//!
//! It must not know where layouts come from, or the wire.

mod adapt;
mod device;
mod force;
mod metadata;
mod parts;
mod replica;
mod settings;
mod status;
mod tools;
mod version;

use std::fs::File;

use replication::{DiskState, Engine, Layout, MemberId, Part, Secret, Verb, converge};
use types::{ByteSize, DiskUuid, NodeId, VolumeName};

use self::adapt::Adapt;
pub use self::device::device_path;
pub(crate) use self::device::{
    device, is_attached, is_name, minor_of, release, troubles, volume_of,
};
pub(crate) use self::replica::METADATA;
use self::settings::PREFIX;
use crate::disks::Disks;
use crate::{Error, Result};

/// The DRBD of this node.
#[derive(Debug, Clone)]
pub struct Drbd {
    disks: Disks,
    node: NodeId,
}

/// Metadata of a replica on a disk of this node, with a layout or without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnDisk {
    /// The volume whose directory it is in.
    pub volume: VolumeName,
    /// Which disk.
    pub disk: DiskUuid,
    /// The number of the node in it; `None`: it was never attached.
    pub id: Option<u8>,
    /// The generation of its data, in hexadecimal; empty: it has none yet.
    pub data_uuid: String,
}

/// The name of a volume's resource in the kernel, which refuses one that is too long.
fn resource_name(volume: &VolumeName) -> String {
    format!("{PREFIX}{volume}")
}

impl Drbd {
    /// The DRBD of a node with these disks.
    pub const fn new(disks: Disks, node: NodeId) -> Self {
        Self { disks, node }
    }

    pub(crate) const fn node(&self) -> &NodeId {
        &self.node
    }

    /// Whether connections can be encrypted here.
    pub fn has_tls(&self) -> bool {
        version::has_tls()
    }

    /// Volumes of ours whose writes somebody has stopped.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn suspended(&self) -> Result<Vec<VolumeName>> {
        if self.version().is_err() {
            return Ok(Vec::new());
        }
        let resources = status::states(None)?;
        let stopped = resources
            .iter()
            .filter(|(_, resource)| resource.suspended_by_user);
        Ok(stopped
            .filter_map(|(name, _)| parts::volume_of(name))
            .collect())
    }

    /// Connects to a peer anew.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn reconnect(&self, layout: &Layout, peer: MemberId) -> Result<()> {
        let (name, peer) = (resource_name(&layout.volume), peer.to_string());
        self.change(layout, "disconnect", &["disconnect", &name, &peer])?;
        tools::change(&layout.volume, "connect", &["connect", &name, &peer])
    }

    /// The metadata of replicas on the disks of this node. A disk that does not answer has none now, and says so in the
    /// log.
    pub fn on_disks(&self) -> Vec<OnDisk> {
        let shown = |(volume, disk, superblock): parts::OnDisk| {
            let superblock = superblock.unwrap_or_else(|error| {
                tracing::warn!(%volume, %disk, "{}", types::report(&error));
                None
            });
            OnDisk {
                volume,
                disk,
                id: superblock.as_ref().and_then(|one| one.node_id),
                data_uuid: superblock.map_or_else(String::new, |one| one.data_uuid()),
            }
        };
        let found = self.disks.each_volume(replica::beside);
        found.into_iter().map(shown).collect()
    }

    /// The file of this node's replica, while it holds what the device shows: its holes need not be read.
    pub(crate) fn current_file(&self, layout: &Layout) -> Result<Option<File>> {
        let resource = self.resource(layout, "look into")?;
        let is_current = (resource.device).is_some_and(|device| device.disk == DiskState::UpToDate);
        let disk = layout.member(&self.node).and_then(|me| me.disk.as_ref());
        match disk.filter(|_| is_current) {
            Some(disk) => replica::open(&self.disks, &layout.volume, disk).map(Some),
            None => Ok(None),
        }
    }

    /// The device of a volume, which must be prepared here with its present minor number.
    fn resource(&self, layout: &Layout, what: &'static str) -> Result<status::Resource> {
        self.version()?;
        let name = resource_name(&layout.volume);
        let resource = status::states(Some(&name))?.remove(&name);
        resource
            .filter(|resource| resource.device.is_some())
            .ok_or_else(|| status::unknown(&layout.volume, what))
    }

    /// Changes something of a volume that is prepared here.
    fn change(&self, layout: &Layout, what: &'static str, arguments: &[&str]) -> Result<()> {
        self.resource(layout, what)?;
        tools::change(&layout.volume, what, arguments)
    }
}

impl Engine for Drbd {
    type Error = Error;

    fn version(&self) -> Result<String> {
        version::version()
    }

    fn apply(&self, layout: &Layout, node: &NodeId, secret: &Secret) -> Result<()> {
        self.version()?;
        let name = resource_name(&layout.volume);
        let resource = status::ask(Some(&name))?.remove(&name);
        let part = parts::part(&self.disks, layout, node, resource.as_ref())?;
        let adapt = Adapt {
            disks: &self.disks,
            layout,
            node,
            secret,
            seen: resource.as_ref(),
        };
        let mut unattached = Ok(());
        for verb in converge(layout, node, Some(&part)) {
            match verb {
                // Without its disk the node uses the replicas of the others.
                Verb::AttachDisk { .. } => unattached = adapt.execute(&verb),
                verb => adapt.execute(&verb)?,
            }
        }
        adapt.forget_strangers()?;
        adapt.move_peers()?;
        unattached
    }

    fn observe(&self, known: &[Layout], node: &NodeId) -> Result<Vec<Part>> {
        let resources = match self.version() {
            Ok(_) => status::ask(None)?,
            // Without the module the kernel has nothing.
            Err(_) => status::Resources::new(),
        };
        parts::all(
            &self.disks.each_volume(replica::beside),
            &resources,
            known,
            node,
        )
    }

    fn initialize(&self, layout: &Layout) -> Result<()> {
        let what = "declare the replicas equal of";
        let resource = self.resource(layout, what)?;
        let part = parts::part(&self.disks, layout, &self.node, Some(&resource))?;
        if !part.fresh {
            return Err(Error::Drbd {
                volume: layout.volume.clone(),
                what,
                said: "something was written through the replica of this node, or it has none"
                    .to_owned(),
            });
        }
        let minor = layout.minor.to_string();
        tools::change(
            &layout.volume,
            what,
            &["new-current-uuid", "--clear-bitmap", &minor],
        )
    }

    fn attach(&self, layout: &Layout) -> Result<()> {
        let (what, name) = ("attach", resource_name(&layout.volume));
        if layout.holder.as_ref() == Some(&self.node) {
            return self.change(layout, what, &["primary", &name]);
        }
        if layout.admits(&self.node) {
            // Only so does DRBD let anybody read on a Secondary. The device is opened for reading alone, and
            // opening it for writing would fail where another node writes.
            return self.change(
                layout,
                what,
                &["resource-options", &name, "--auto-promote=yes"],
            );
        }
        Err(Error::Drbd {
            volume: layout.volume.clone(),
            what,
            said: "its layout does not admit this node; publish it to this node first".to_owned(),
        })
    }

    fn detach(&self, layout: &Layout) -> Result<()> {
        release(&layout.volume)
    }

    fn grow(&self, layout: &Layout) -> Result<()> {
        let minor = layout.minor.to_string();
        // What is new is a hole in the file of each replica: they are equal without a look.
        self.change(layout, "grow", &["resize", &minor, "--assume-clean"])?;
        // While a file is still small it succeeds and does nothing.
        let resource = self.resource(layout, "grow")?;
        let size = resource.device.map_or(ByteSize(0), |device| device.size);
        if size >= layout.size {
            return Ok(());
        }
        Err(Error::Drbd {
            volume: layout.volume.clone(),
            what: "grow",
            said: format!(
                "it has {size} bytes of {}; the file of a replica has not grown, or one is away",
                layout.size
            ),
        })
    }

    fn suspend(&self, layout: &Layout) -> Result<()> {
        let minor = layout.minor.to_string();
        self.change(layout, "stop the writes of", &["suspend-io", &minor])
    }

    fn resume(&self, layout: &Layout) -> Result<()> {
        let what = "let the writes go on of";
        if !self.resource(layout, what)?.suspended_by_user {
            return Ok(());
        }
        tools::change(
            &layout.volume,
            what,
            &["resume-io", &layout.minor.to_string()],
        )
    }

    fn rejoin(&self, layout: &Layout, node: &NodeId) -> Result<()> {
        let resource = self.resource(layout, "join the replicas of")?;
        force::rejoin(layout, node, &resource)
    }

    fn remove(&self, volume: &VolumeName) -> Result<()> {
        if self.version().is_err() {
            return Ok(());
        }
        tools::change(volume, "take down", &["down", &resource_name(volume)])
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn force_stands_in_two_functions() {
        let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/drbd");
        let mut found = Vec::new();
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            let product = text.split("#[cfg(test)]").next().unwrap();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            for (word, line) in ["\"--force\"", "--discard-my-data"]
                .iter()
                .flat_map(|word| product.lines().map(move |line| (word, line)))
            {
                if line.contains(word) && !line.trim_start().starts_with("//") {
                    found.push((name.clone(), *word));
                }
            }
        }
        found.sort_unstable();
        assert_eq!(
            found,
            [
                ("force.rs".to_owned(), "\"--force\""),
                ("force.rs".to_owned(), "--discard-my-data"),
                // Of drbdmeta, which asks a question else; only where there is no metadata, or it is as new.
                ("replica.rs".to_owned(), "\"--force\""),
            ]
        );
    }
}
