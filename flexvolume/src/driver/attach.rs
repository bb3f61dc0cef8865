//! The calls of deployments in which a controller attaches volumes to nodes (`attach = true`).
//!
//! Attaching creates the volume and records its node; `mountdevice` on the node creates the device.
//! The device in the answers is therefore only a name, `/dev/longhorn/VOLUME` as in the first
//! driver, and not a device of the host.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use client::wire;
use host::staging::NodeVolume;
use types::{Classify as _, ErrorKind, NodeId, VolumeName};

use super::Driver;
use crate::error::{Error, Result, shown};
use crate::options::Options;
use crate::records::{Kind, Record};
use crate::reply::Reply;
use crate::target::Target;

/// What the name of every device begins with.
const DEVICES: &str = "/dev/longhorn/";
/// How often an attachment that is waited for is looked for.
const INTERVAL: Duration = Duration::from_millis(500);

fn device_of(volume: &VolumeName) -> String {
    format!("{DEVICES}{volume}")
}

/// Whether a device that the kubelet passes on is the one that `attach` gave it.
pub(super) fn check_device(device: &str, volume: &VolumeName) -> Result<()> {
    if device.is_empty() || device == device_of(volume) {
        return Ok(());
    }
    Err(Error::OtherDevice {
        volume: volume.clone(),
        device: shown(device),
    })
}

/// Whether pods on the node may use the volume; others that do are none of the kubelet's.
fn is_published_to(volume: &wire::Volume, node: &NodeId) -> bool {
    let mut all = volume.published.iter();
    all.any(|one| one.node_id == node.as_str() && one.r#use() == wire::Use::Pods)
}

impl Driver {
    pub(super) async fn attach(&self, options: Options, node: NodeId) -> Result<Reply> {
        let _volume = self.lock_volume(&options.volume).await?;
        let ensured = self.volumes.ensure(&options).await?;
        self.state.forgive(&options.volume)?;
        if let Err(error) = self.volumes.publish(&options.volume, &node, &options).await {
            if ensured.is_new
                && let Err(failure) = self.volumes.delete(&options.volume).await
            {
                let failure = types::report(&failure);
                tracing::warn!(volume = %options.volume, "a failed attach leaves its volume: {failure}");
            }
            return Err(error);
        }
        Ok(Reply::success("").with_device(device_of(&options.volume)))
    }

    pub(super) async fn detach(&self, volume: &VolumeName, node: &NodeId) -> Result<Reply> {
        let _volume = self.lock_volume(volume).await?;
        let Err(error) = self.volumes.unpublish(volume, node).await else {
            return Ok(Reply::success(""));
        };
        if !matches!(
            error.kind(),
            ErrorKind::Unavailable | ErrorKind::DeadlineExceeded
        ) {
            return Err(error);
        }
        // Nothing of a detached volume is on this node: what is left is to tell the manager.
        let device = Target::new(Path::new(&device_of(volume)))?;
        let mut record = Record::found(&device, Kind::Device, volume.clone());
        record.published_to = Some(node.clone());
        self.state.owe(&record)?;
        self.owes.store(true, Ordering::Relaxed);
        let error = types::report(&error);
        tracing::warn!(%volume, "detached, and to be unpublished later: {error}");
        Ok(Reply::success(
            "it is detached; the manager will be informed later",
        ))
    }

    pub(super) async fn is_attached(&self, options: &Options, node: &NodeId) -> Result<Reply> {
        let volume = self.volumes.find(&options.volume).await?;
        let attached = volume.is_some_and(|volume| is_published_to(&volume, node));
        Ok(Reply::success("").with_attached(attached))
    }

    /// Waits until the volume is attached to this node.
    pub(super) async fn wait_for_attach(&self, device: &str, options: &Options) -> Result<Reply> {
        check_device(device, &options.volume)?;
        let until = Instant::now() + self.config.image_wait;
        loop {
            match self.attached_here(&options.volume).await {
                Ok(_) => break,
                Err(Error::NotAttached { .. }) if Instant::now() < until => {}
                Err(error) => return Err(error),
            }
            self.stop.unless(tokio::time::sleep(INTERVAL)).await?;
        }
        Ok(Reply::success("").with_device(device_of(&options.volume)))
    }

    /// The volume, if it is attached to this node.
    pub(super) async fn attached_here(&self, name: &VolumeName) -> Result<NodeVolume> {
        let volume = self.volumes.get(name).await?;
        let (node, here) = self.replica_here(&volume).await?;
        if is_published_to(&volume, &node) {
            return Ok(here);
        }
        let nodes: Vec<_> = volume
            .published
            .iter()
            .map(|p| p.node_id.as_str())
            .collect();
        let nodes = if nodes.is_empty() {
            "none".to_owned()
        } else {
            nodes.join(", ")
        };
        Err(Error::NotAttached {
            volume: name.clone(),
            nodes,
        })
    }
}
