//! The driver's requests to the manager: for an existing volume, and its node.

use std::collections::HashMap;
use std::time::Duration;

use backup::Item;
use client::owner::{self, Asker};
use client::parameters::{BASE_IMAGE, FROM_BACKUP, NUMBER_OF_REPLICAS, STALE_REPLICA_TIMEOUT};
use client::{Client, ImageOutcome, there, wire};
use host::staging::{self, NodeVolume};
use trust::Dialer;
use types::{ByteSize, Classify as _, ErrorKind, NodeId, VolumeName, crash_point};

use wire::source::Source;

use crate::config::Config;
use crate::content;
use crate::error::{Error, Result};
use crate::options::{Options, SHARE, Share};
use crate::process::Stop;

/// How often an image is had anew that is deleted while its volume is made.
const ATTEMPTS: usize = 3;

/// The volumes of one manager.
#[derive(Debug, Clone)]
pub(crate) struct Volumes {
    client: Client,
    image_wait: Duration,
    restore_backups: bool,
    stop: Stop,
}

/// A volume that is there, and whether it was made for this call.
#[derive(Debug)]
pub(crate) struct Ensured {
    pub(crate) volume: wire::Volume,
    pub(crate) is_new: bool,
}

impl Volumes {
    pub(crate) fn new(config: &Config, stop: Stop) -> Result<Self> {
        let client =
            Client::new(config.manager.clone(), &Dialer::Plain)?.with_deadline(config.call_timeout);
        Ok(Self {
            client,
            image_wait: config.image_wait,
            restore_backups: config.restore_backups,
            stop,
        })
    }

    /// The volume, if there is one.
    pub(crate) async fn find(&self, volume: &VolumeName) -> Result<Option<wire::Volume>> {
        Ok(there(self.stop.unless(self.client.volume(volume)).await?)?)
    }

    /// The volume, which must be there.
    pub(crate) async fn get(&self, volume: &VolumeName) -> Result<wire::Volume> {
        Ok(self.stop.unless(self.client.volume(volume)).await??)
    }

    /// The volume of the options: as it is, grown to the size asked for, or made.
    pub(crate) async fn ensure(&self, options: &Options) -> Result<Ensured> {
        let Some(existing) = self.find(&options.volume).await? else {
            // The whole of an image's making is in this future; it lives on the heap.
            let volume = Box::pin(self.create_anew(options)).await?;
            return Ok(Ensured {
                volume,
                is_new: true,
            });
        };
        compare(&existing, options)?;
        let is_new = false;
        let volume = match options.size {
            Some(size) if size.bytes() > existing.size => self.grow(&options.volume, size).await?,
            _ => existing,
        };
        Ok(Ensured { volume, is_new })
    }

    /// Somebody may delete the image of a volume while that is made: it is then had anew.
    async fn create_anew(&self, options: &Options) -> Result<wire::Volume> {
        for _ in 1..ATTEMPTS {
            match self.create(options).await {
                Err(Error::Manager(error))
                    if named_image(options).is_some() && error.kind() == ErrorKind::NotFound => {}
                made => return made,
            }
        }
        self.create(options).await
    }

    async fn create(&self, options: &Options) -> Result<wire::Volume> {
        let mut wanted = wire::CreateVolumeRequest {
            name: options.volume.to_string(),
            required_bytes: options.size.unwrap_or_default().bytes(),
            number_of_replicas: options.number_of_replicas,
            stale_replica_timeout: options.stale_replica_timeout,
            fs_type: options.fs_type.map(|t| t.to_string()).unwrap_or_default(),
            parameters: parameters(options),
            owner: Some(owned_by(&options.pod.namespace)),
            ..Default::default()
        };
        if options.from_backup.is_some() && !self.restore_backups {
            return Err(Error::BackupsNotAllowed);
        }
        if let Some((shown, source)) = named_image(options) {
            let image = self.image(shown, source).await?;
            refuse_unsuitable(&image, options)?;
            wanted.origin = Some(client::origin::image(image.name, image.uuid));
        } else if options.size.is_none() {
            return Err(Error::SizeMissing {
                volume: options.volume.clone(),
            });
        } else {
            wanted.origin = Some(client::origin::blank());
            // One that is too small for its file system gets the least that this takes.
            let fs_type = options.fs_type.unwrap_or(host::FsType::Ext4);
            let least = *host::filesystem::sizes(fs_type).start();
            wanted.required_bytes = wanted.required_bytes.max(least);
        }
        crash_point!("flexvolume.mount.image_ready");
        let made = self.client.create_volume_of_origin(wanted);
        Ok(self.stop.unless(made).await??)
    }

    /// The ready image of a source, which is `image` in texts, or how far it has come.
    async fn image(&self, image: String, source: Source) -> Result<wire::BackingImage> {
        let ensured = self.client.ensure_image(source, self.image_wait);
        match self.stop.unless(ensured).await?? {
            ImageOutcome::Ready(ready) => Ok(ready),
            ImageOutcome::InProgress(wire) => Err(Error::ImageInProgress {
                image,
                state: client::state_name(wire.state()),
                progress: client::progress(&wire),
                waited: self.image_wait,
            }),
            ImageOutcome::Failed { kind, message } => Err(Error::ImageFailed {
                image,
                kind,
                message,
            }),
        }
    }

    /// Records that a node uses the volume.
    pub(crate) async fn publish(
        &self,
        volume: &VolumeName,
        node: &NodeId,
        options: &Options,
    ) -> Result<wire::Volume> {
        let request = wire::PublishVolumeRequest {
            name: volume.to_string(),
            node_id: node.to_string(),
            readonly: options.stages_read_only(),
            multi_node: options.share == Share::ReadOnly,
            r#use: wire::Use::Pods.into(),
        };
        Ok(self
            .stop
            .unless(self.client.publish_volume(request))
            .await??)
    }

    /// Takes that back; fine when there is nothing to take back. Part of undoing: never interrupted.
    pub(crate) async fn unpublish(&self, volume: &VolumeName, node: &NodeId) -> Result<()> {
        match self
            .client
            .unpublish_volume(volume, Some(node), wire::Use::Pods)
            .await
        {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => Ok(other?),
        }
    }

    /// Deletes a volume that this call made and could not mount. Never interrupted either.
    pub(crate) async fn delete(&self, volume: &VolumeName) -> Result<()> {
        Ok(self.client.delete_volume(volume).await?)
    }

    /// The volume that a controller made for a pod, now that the pod is known: it must be its
    /// namespace's, and is from now on.
    pub(crate) async fn claim(&self, options: &Options) -> Result<()> {
        let volume = self.get(&options.volume).await?;
        compare(&volume, options)?;
        if !volume.owner.unwrap_or_default().namespace.is_empty() {
            return Ok(());
        }
        let request = wire::ModifyVolumeRequest {
            name: options.volume.to_string(),
            owner: Some(owned_by(&options.pod.namespace)),
            ..Default::default()
        };
        self.stop
            .unless(self.client.modify_volume(request))
            .await??;
        Ok(())
    }

    /// Grows a volume of this driver's for a controller.
    pub(crate) async fn expand(&self, volume: &VolumeName, size: ByteSize) -> Result<wire::Volume> {
        refuse_foreign(&self.get(volume).await?, None)?;
        self.grow(volume, size).await
    }

    async fn grow(&self, volume: &VolumeName, size: ByteSize) -> Result<wire::Volume> {
        Ok(self
            .stop
            .unless(self.client.grow_volume(volume, size, None))
            .await??)
    }
}

/// The image that a new volume begins with: what it is called in texts, and its source.
fn named_image(options: &Options) -> Option<(String, Source)> {
    if let Some(reference) = &options.base_image {
        let source = Source::Registry(wire::RegistrySource {
            reference: reference.clone(),
            platform: String::new(),
            docker_config_json: options.pull_secret.clone().into_bytes(),
        });
        return Some((reference.clone(), source));
    }
    let address = options.from_backup.as_ref()?;
    // Without credentials: the manager takes those of the target that it has at the address.
    let target = Some(wire::BackupTarget {
        address: address.store.to_string(),
        ..Default::default()
    });
    let mut source = wire::BackupSource {
        target,
        ..Default::default()
    };
    match address.item.as_ref()? {
        Item::Backup { volume, backup } => {
            source.volume = volume.to_string();
            source.backup = backup.to_string();
        }
        Item::Volume(volume) => source.volume = volume.to_string(),
        Item::BackingImage(name) => source.backing_image = name.to_string(),
    }
    Some((address.to_string(), Source::Backup(source)))
}

/// What is recorded with a new volume: what it was asked for, and for whom.
fn parameters(options: &Options) -> HashMap<String, String> {
    let mut parameters = HashMap::from([
        (
            NUMBER_OF_REPLICAS.to_owned(),
            options.number_of_replicas.to_string(),
        ),
        (
            STALE_REPLICA_TIMEOUT.to_owned(),
            options.stale_replica_timeout.to_string(),
        ),
    ]);
    if let Some(image) = &options.base_image {
        parameters.insert(BASE_IMAGE.to_owned(), image.clone());
    }
    if let Some(backup) = &options.from_backup {
        parameters.insert(FROM_BACKUP.to_owned(), backup.to_string());
    }
    if options.share != Share::None {
        parameters.insert(SHARE.to_owned(), options.share.as_str().to_owned());
    }
    parameters
}

/// Whose the volumes of a namespace's pods are; empty: a controller makes it for a pod that it is not
/// told.
fn owned_by(namespace: &str) -> wire::Owner {
    wire::Owner {
        driver: wire::Driver::Flexvolume.into(),
        namespace: namespace.to_owned(),
        claim: String::new(),
    }
}

/// Whether a volume that exists is the one that is meant. Only what decides about its contents and
/// its owner counts; the rest was settled when it was made.
fn compare(existing: &wire::Volume, options: &Options) -> Result<()> {
    let recorded = |key: &str| {
        existing
            .parameters
            .get(key)
            .map(String::as_str)
            .unwrap_or_default()
    };
    let from_backup = options.from_backup.as_ref().map(ToString::to_string);
    for (what, asked) in [
        (BASE_IMAGE, &options.base_image),
        (FROM_BACKUP, &from_backup),
    ] {
        if let Some(asked) = asked.as_ref().filter(|asked| recorded(what) != *asked) {
            return Err(Error::Differs {
                volume: options.volume.clone(),
                what,
                existing: recorded(what).to_owned(),
                asked: asked.clone(),
            });
        }
    }
    let shared = options.share == Share::ReadOnly && recorded(SHARE) == Share::ReadOnly.as_str();
    let namespace = Some(options.pod.namespace.as_str());
    let namespace = namespace.filter(|namespace| !namespace.is_empty() && !shared);
    refuse_foreign(existing, namespace)
}

/// Refuses a volume that is not this driver's, or not of the pod's namespace.
fn refuse_foreign(volume: &wire::Volume, namespace: Option<&str>) -> Result<()> {
    let refusal = owner::refusal(volume, Asker::FlexVolume { namespace });
    refusal.map_or(Ok(()), |why| {
        let volume = volume.name.clone();
        Err(Error::NotOurs { volume, why })
    })
}

/// Refuses an image that could not be mounted as asked before a volume is made of it.
fn refuse_unsuitable(image: &wire::BackingImage, options: &Options) -> Result<()> {
    let Some(content) = content::of(image.content.as_ref()) else {
        return Ok(());
    };
    let volume = NodeVolume {
        name: options.volume.clone(),
        file: std::path::PathBuf::new(),
        size: ByteSize(image.virtual_size),
        has_source: true,
        part: None,
    };
    let read_only = options.stages_read_only();
    Ok(staging::check_content(
        &volume,
        &content,
        options.fs_type,
        read_only,
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::POD_NAMESPACE;

    fn options(pairs: &[(&str, &str)]) -> Options {
        let mut map = serde_json::json!({ "kubernetes.io/pvOrVolumeName": "v" });
        for (key, value) in pairs {
            map[key] = serde_json::Value::from(*value);
        }
        Options::parse(&map.to_string()).unwrap()
    }

    /// A volume of the namespace `default`.
    fn volume(pairs: &[(&str, &str)]) -> wire::Volume {
        let pairs = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        wire::Volume {
            name: "v".to_owned(),
            parameters: pairs.collect(),
            owner: Some(owned_by("default")),
            ..Default::default()
        }
    }

    #[test]
    fn a_volume_is_reused_by_those_it_was_made_for() {
        let (image, namespace) = ((BASE_IMAGE, "a:1"), (POD_NAMESPACE, "default"));
        let made = volume(&[image]);
        compare(&made, &options(&[image, namespace])).unwrap();
        compare(&made, &options(&[namespace])).unwrap();
        compare(&made, &options(&[image, ("numberOfReplicas", "1")])).unwrap();
        compare(&volume(&[]), &options(&[namespace])).unwrap();
    }

    #[test]
    fn another_image_and_another_namespace_are_refused_by_name() {
        let made = volume(&[(BASE_IMAGE, "a:1")]);
        let error = compare(&made, &options(&[(BASE_IMAGE, "a:2")]))
            .unwrap_err()
            .to_string();
        assert!(error.contains("a:1") && error.contains("a:2"), "{error}");
        let error = compare(&made, &options(&[(POD_NAMESPACE, "other")]))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("default") && error.contains("other"),
            "{error}"
        );
        assert!(compare(&volume(&[]), &options(&[(BASE_IMAGE, "a:1")])).is_err());
        let share = [
            ("share", "read-only"),
            ("kubernetes.io/readwrite", "ro"),
            (POD_NAMESPACE, "other"),
        ];
        assert!(
            compare(&made, &options(&share)).is_err(),
            "one side asks for sharing only"
        );
        let made = volume(&[(SHARE, "read-only")]);
        compare(&made, &options(&share)).unwrap();
    }

    #[test]
    fn a_backup_is_asked_for_without_credentials_and_compared() {
        let at = "s3://bucket@region/path/?backup=back&volume=vol";
        let asked = options(&[(FROM_BACKUP, at), (POD_NAMESPACE, "default")]);
        let (_, source) = named_image(&asked).unwrap();
        let Source::Backup(source) = source else {
            panic!("{source:?}");
        };
        assert_eq!(
            (source.volume.as_str(), source.backup.as_str()),
            ("vol", "back")
        );
        let target = source.target.unwrap();
        assert!(target.address.starts_with("s3://bucket@region/path"));
        assert!(target.credentials.is_empty() && target.name.is_empty());
        let made = wire::Volume {
            parameters: parameters(&asked),
            owner: Some(owned_by("default")),
            ..Default::default()
        };
        compare(&made, &asked).unwrap();
        let other = at.replace("back&", "other&");
        assert!(compare(&made, &options(&[(FROM_BACKUP, &other)])).is_err());
        assert!(compare(&volume(&[]), &asked).is_err());
    }

    #[test]
    fn what_is_recorded_is_what_is_compared() {
        let asked = options(&[
            (BASE_IMAGE, "a:1"),
            (POD_NAMESPACE, "default"),
            ("size", "1Gi"),
        ]);
        let made = wire::Volume {
            parameters: parameters(&asked),
            owner: Some(owned_by(&asked.pod.namespace)),
            ..Default::default()
        };
        compare(&made, &asked).unwrap();
    }
}
