//! Mounting: `mount` and `mountdevice`.
//!
//! The steps of `mount`, in order, each with a crash point after it: 1 the image, then the volume ·
//! 2 the record · 3 the publication · 4 staging · 5 the bind mount at the target. A failure undoes
//! them in reverse order. A crash leaves the record, with which the next `mount` continues and
//! `unmount` undoes.

use client::wire;
use host::staging::{self, Access, Check, NodeVolume, PublishRequest, StageRequest};
use types::{VolumeName, crash_point};

use super::Driver;
use crate::error::{Error, Result};
use crate::options::{Options, POD_NAMESPACE, Share};
use crate::process::blocking;
use crate::records::{Kind, Record};
use crate::reply::Reply;
use crate::target::Target;

impl Driver {
    /// `mount`: the volume of the options, for one pod.
    pub(super) async fn mount(&self, target: Target, options: Options) -> Result<Reply> {
        if options.pod.namespace.is_empty() {
            return Err(Error::NoNamespace {
                option: POD_NAMESPACE,
            });
        }
        let _target = self.lock_target(&target).await?;
        let _volume = self.lock_volume(&options.volume).await?;
        let mut record = Record::new(&target, Kind::Pod, &options);
        if self.is_done(&target, &record).await? {
            return Ok(Reply::success("it is mounted already"));
        }
        self.refuse_other_pods(&record).await?;
        if self.config.attach {
            // Staged by `mountdevice`, published by `attach`, which are told of no pod.
            self.volumes.claim(&options).await?;
            self.state.store(&target, &record)?;
            let mounted = self.bind(&record).await;
            return self.undone(mounted, &target, &record, None).await;
        }
        let ensured = self.volumes.ensure(&options).await?;
        crash_point!("flexvolume.mount.ensured");
        let new = ensured.is_new.then_some(&options.volume);
        let mounted = self
            .mount_volume(&target, &mut record, &options, &ensured.volume)
            .await;
        self.undone(mounted, &target, &record, new).await
    }

    async fn mount_volume(
        &self,
        target: &Target,
        record: &mut Record,
        options: &Options,
        volume: &wire::Volume,
    ) -> Result<Reply> {
        let (node, here) = self.replica_here(volume).await?;
        record.published_to = Some(node.clone());
        self.state.store(target, record)?; // 2
        self.state.forgive(&record.volume)?;
        crash_point!("flexvolume.mount.recorded");
        self.volumes
            .publish(&options.volume, &node, options)
            .await?; // 3
        crash_point!("flexvolume.mount.published");
        self.stage(here, options).await?; // 4
        crash_point!("flexvolume.mount.staged");
        self.bind(record).await // 5
    }

    /// `mountdevice`: an attached volume, for all pods of the node.
    pub(super) async fn mount_device(
        &self,
        target: Target,
        device: &str,
        options: Options,
    ) -> Result<Reply> {
        super::attach::check_device(device, &options.volume)?;
        let _target = self.lock_target(&target).await?;
        let _volume = self.lock_volume(&options.volume).await?;
        let record = Record::new(&target, Kind::Device, &options);
        if self.is_done(&target, &record).await? {
            return Ok(Reply::success("it is mounted already"));
        }
        let here = self.attached_here(&options.volume).await?;
        let mounted = async {
            self.state.store(&target, &record)?;
            crash_point!("flexvolume.mountdevice.recorded");
            self.stage(here, &options).await?;
            crash_point!("flexvolume.mountdevice.staged");
            self.bind(&record).await
        };
        let mounted = mounted.await;
        self.undone(mounted, &target, &record, None).await
    }

    /// Whether the target is mounted as asked, so that nothing is left to do. What another call left
    /// half done there is taken away first, if it was for another volume.
    async fn is_done(&self, target: &Target, wanted: &Record) -> Result<bool> {
        let Some(present) = self.state.load(target)? else {
            return Ok(false);
        };
        let is_mounted = {
            let present = present.clone();
            blocking(move || Ok(staging::is_at(&present.volume, &present.target)?)).await?
        };
        if !is_mounted {
            if present.volume != wanted.volume {
                let _volume = self.lock_volume(&present.volume).await?;
                self.take_down(target, &present).await?;
            }
            return Ok(false);
        }
        if !present.is_same_use(wanted) {
            return Err(Error::Taken {
                target: present.target.clone(),
                present: present.describe(),
                asked: wanted.describe(),
            });
        }
        let stats = blocking(move || Ok(staging::stats(&present.volume, &present.target)?)).await?;
        // One that is dead, and has no figures, is mounted anew. What else its condition says that would not help.
        Ok(stats.usage.is_some())
    }

    /// Refuses a volume that another pod has mounted, unless both said that they share it.
    async fn refuse_other_pods(&self, wanted: &Record) -> Result<()> {
        let (state, wanted) = (self.state.clone(), wanted.clone());
        blocking(move || {
            for other in state.others(&wanted)? {
                let shares = other.share == wanted.share && wanted.share != Share::None;
                let uses = other.kind == Kind::Pod && !shares;
                // A record without its mount is that of a pod that went with a reboot or a crash.
                if uses && staging::is_at(&other.volume, &other.target)? {
                    return Err(Error::InUse {
                        volume: other.volume,
                        pod: other.pod.to_string(),
                        target: other.target,
                    });
                }
            }
            Ok(())
        })
        .await
    }

    async fn stage(&self, volume: NodeVolume, options: &Options) -> Result<()> {
        let state = self.state.clone();
        let request = StageRequest {
            staging_path: state.staging_path(&volume.name),
            volume,
            access: access(options),
            read_only: options.stages_read_only(),
            mkfs_options: String::new(),
            check: Check::default(),
        };
        blocking(move || {
            state.make_volume_dir(&request.volume.name)?;
            let staged = staging::stage(&request)?;
            let fs_type = staged.fs_type.map_or("none", host::FsType::as_str);
            let device = staged.device.display();
            tracing::debug!(%device, fs_type, direct_io = staged.direct_io, "staged");
            Ok(())
        })
        .await
    }

    /// Binds the staged volume to the target.
    async fn bind(&self, record: &Record) -> Result<Reply> {
        let (state, record) = (self.state.clone(), record.clone());
        blocking(move || {
            let request = PublishRequest {
                staging_path: state.staging_path(&record.volume),
                target_path: record.target.clone(),
                // The type was settled by staging.
                access: Access::Mount {
                    fs_type: None,
                    flags: Vec::new(),
                },
                read_only: record.read_only,
                // Who shares was settled by the records, which know devices from pods.
                single_writer: false,
                volume: record.volume,
            };
            staging::publish(&request)?;
            crash_point!("flexvolume.mount.bound");
            Ok(Reply::success(""))
        })
        .await
    }

    /// Passes the outcome of a mount on; a failed one is undone first, with the volume `new` that was
    /// made for it.
    async fn undone(
        &self,
        mounted: Result<Reply>,
        target: &Target,
        record: &Record,
        new: Option<&VolumeName>,
    ) -> Result<Reply> {
        let Err(error) = mounted else {
            return mounted;
        };
        self.undo(target, record).await;
        if let Some(volume) = new
            && let Err(failure) = self.volumes.delete(volume).await
        {
            tracing::warn!(%volume, "a failed mount leaves its volume: {}", types::report(&failure));
        }
        Err(error)
    }
}

fn access(options: &Options) -> Access {
    Access::Mount {
        fs_type: options.fs_type,
        flags: Vec::new(),
    }
}
