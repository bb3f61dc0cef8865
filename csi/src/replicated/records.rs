//! The records of replicated volumes as objects of the Kubernetes API, with the secret of each beside it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use kubernetes::{Api, Condition, Conditioned, Created, Kind, Object, Resource, Written};
use replication::{Health, Record, Secret, Status};
use types::VolumeName;

use super::{Error, Result};

/// The kind of the records: `kubectl get replicatedvolumes`.
pub(crate) const RECORDS: Resource<Record, Shown> = Resource::of_cluster(
    "baseimage.longhorn.io",
    "v1alpha1",
    "replicatedvolumes",
    "ReplicatedVolume",
);
/// The entry of a Secret that has the members' shared secret.
const SECRET_KEY: &str = "shared-secret";
/// Bytes of randomness in a secret; as text it has twice as many characters, of the 63 that DRBD takes.
const SECRET_BYTES: usize = 24;

/// What was seen of a volume, as its record shows it.
pub(crate) type Shown = Conditioned<Status>;
/// A record and how it is stored.
pub(crate) type Stored = Object<Record, Shown>;

/// The store of the records. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Records {
    api: Arc<Api>,
}

impl Records {
    pub(crate) fn new(api: Arc<Api>) -> Self {
        Self { api }
    }

    /// The record of a volume, if it has one.
    pub(crate) async fn get(&self, volume: &VolumeName) -> Result<Option<Stored>> {
        if !kubernetes::is_name(volume.as_str()) {
            return Ok(None);
        }
        let stored = self.api.get(&RECORDS, volume.as_str()).await?;
        Ok(stored.map(|stored| named(stored, volume)))
    }

    /// All records. One that is not what its kind says is logged and left alone.
    pub(crate) async fn list(&self) -> Result<Vec<Stored>> {
        let listed = self.api.list(&RECORDS).await?;
        for unreadable in &listed.unreadable {
            let (volume, why) = (&unreadable.name, &unreadable.why);
            tracing::warn!(volume, "its record cannot be read: {why}");
        }
        let name = |stored: Stored| {
            let volume = VolumeName::new(&stored.name).ok()?;
            Some(named(stored, &volume))
        };
        Ok(listed.objects.into_iter().filter_map(name).collect())
    }

    /// Makes a record; the one that is there, if somebody was faster.
    pub(crate) async fn create(&self, record: &Record) -> Result<Stored> {
        let volume = &record.volume;
        if !kubernetes::is_name(volume.as_str()) {
            return Err(Error::Name {
                volume: volume.clone(),
            });
        }
        let none = BTreeMap::new();
        match (self.api.create(&RECORDS, volume.as_str(), &none, record)).await? {
            Created::Done(stored) => Ok(named(stored, volume)),
            Created::Exists => self.get(volume).await?.ok_or_else(|| Error::Changed {
                volume: volume.clone(),
            }),
        }
    }

    /// Replaces a record unless it has changed since it was read.
    pub(crate) async fn replace(&self, stored: &mut Stored) -> Result<()> {
        let volume = stored.spec.volume.clone();
        let written = self.api.replace(&RECORDS, stored).await?;
        stored.spec.volume.clone_from(&volume);
        match written {
            Written::Done => Ok(()),
            Written::Conflict | Written::Missing => Err(Error::Changed { volume }),
        }
    }

    /// Writes what is seen of a volume; what somebody else has changed meanwhile is seen the next time.
    pub(crate) async fn report(&self, stored: &mut Stored) -> Result<()> {
        let volume = stored.spec.volume.clone();
        let _: Written = self.api.replace_status(&RECORDS, stored).await?;
        stored.spec.volume = volume;
        Ok(())
    }

    /// Removes the record and the secret of a volume that is gone.
    pub(crate) async fn remove(&self, stored: &Stored) -> Result<()> {
        let volume = &stored.spec.volume;
        // The secret first: what is left of a crash in between is found by its record.
        self.api.delete_secret(&secret_name(volume)).await?;
        types::crash_point!("csi.replicated.secret_removed");
        match self.api.delete(&RECORDS, stored).await? {
            Written::Done | Written::Missing => Ok(()),
            Written::Conflict => Err(Error::Changed {
                volume: volume.clone(),
            }),
        }
    }

    /// Removes a record alone, to have it made again.
    pub(crate) async fn drop_record(&self, stored: &Stored) -> Result<()> {
        match self.api.delete(&RECORDS, stored).await? {
            Written::Done | Written::Missing => Ok(()),
            Written::Conflict => Err(Error::Changed {
                volume: stored.spec.volume.clone(),
            }),
        }
    }

    /// The secret of a volume's members, made if there is none.
    pub(crate) async fn secret(&self, volume: &VolumeName) -> Result<Secret> {
        let name = secret_name(volume);
        let damaged = || Error::Secret { name: name.clone() };
        if let Some(secret) = self.read_secret(&name).await? {
            return Secret::new(secret).ok_or_else(damaged);
        }
        let new = random()?;
        self.api.create_secret(&name, SECRET_KEY, &new).await?;
        // Somebody may have been faster.
        let secret = self.read_secret(&name).await?.ok_or_else(damaged)?;
        Secret::new(secret).ok_or_else(damaged)
    }

    async fn read_secret(&self, name: &str) -> Result<Option<String>> {
        let stored = self.api.read(Kind::Secret, name).await?;
        Ok(stored.map(|stored| {
            stored
                .entries
                .get(SECRET_KEY)
                .unwrap_or_default()
                .to_owned()
        }))
    }
}

/// What was seen of a volume the last time.
pub(crate) fn seen(stored: &Stored) -> Option<&Status> {
    stored.status.as_ref().map(|shown| &shown.status)
}

/// What `kubectl wait` can wait for: that a volume is as wanted, and that it can be used.
pub(crate) fn conditions(status: &Status) -> Vec<Condition> {
    let (healthy, available) = match status.health {
        Health::Healthy => (Some(true), Some(true)),
        Health::Degraded => (Some(false), Some(true)),
        Health::Stalled | Health::Faulty => (Some(false), Some(false)),
        Health::Pending | Health::Unknown => (None, None),
    };
    let reason = format!("{:?}", status.reason);
    let condition = |kind, holds| Condition::new(kind, holds, &reason, &status.message);
    vec![
        condition("Healthy", healthy),
        condition("Available", available),
    ]
}

fn named(mut stored: Stored, volume: &VolumeName) -> Stored {
    stored.spec.volume.clone_from(volume);
    stored
}

/// What the Secret of a volume is called.
fn secret_name(volume: &VolumeName) -> String {
    format!("replicated-volume-{volume}")
}

fn random() -> Result<String> {
    let mut bytes = [0; SECRET_BYTES];
    fill(&mut bytes)?;
    Ok(bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a text does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    }))
}

/// Fills with random bytes of the kernel.
pub(super) fn fill(bytes: &mut [u8]) -> Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        let rest = &mut bytes[filled..];
        filled += rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty())
            .map_err(|error| Error::Random(error.into()))?;
    }
    Ok(())
}
