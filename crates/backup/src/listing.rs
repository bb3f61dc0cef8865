//! What a store has. A name that cannot be one and a file that cannot be read become problems that
//! are said; they never hide the rest.

use std::sync::Arc;

use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use types::report;

use crate::config::volume::VolumeConfig;
use crate::info::{BackingImageInfo, BackupInfo, Listed, VolumeInfo};
use crate::lock::{self, LockInfo};
use crate::store::Store;
use crate::{Error, Name, Result, layout};

/// Names of backups of one volume that are looked at.
const BACKUPS_MAX: usize = 100_000;

impl Store {
    /// All volumes of which there are backups.
    pub async fn volumes(&self) -> Result<Listed<VolumeInfo>> {
        let mut listed = Listed::<VolumeInfo>::default();
        let names = self.volume_names(&mut listed.problems).await?;
        let read = names.into_iter().map(|name| {
            let store = self.clone();
            async move { (store.volume_config(&name).await, name) }.boxed()
        });
        let mut read = futures_util::stream::iter(read).buffered(self.threads());
        while let Some((config, name)) = read.next().await {
            match config {
                Ok(config) => listed.items.push(config.into()),
                // A backing image's locks stand in the place of a volume that has nothing else.
                Err(Error::NoObject { .. }) if self.is_only_locks(&name).await? => {}
                Err(error) => listed.add_problem(error)?,
            }
        }
        listed.items.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(listed)
    }

    /// The backups of a volume, complete or not.
    pub async fn backups(&self, volume: &Name) -> Result<Listed<BackupInfo>> {
        let mut listed = Listed::default();
        let config = match self.volume_config(volume).await {
            Ok(config) => Some(config),
            Err(error) => {
                listed.add_problem(error)?;
                None
            }
        };
        let names = self.backup_names(volume, &mut listed.problems).await?;
        if names.is_empty() && config.is_none() {
            let key = layout::volume_config(volume);
            return Err(Error::NoObject { key });
        }
        let size = config.as_ref().map(|config: &VolumeConfig| config.size);
        let read = names.into_iter().map(|name| {
            let (store, volume) = (self.clone(), volume.clone());
            async move { store.backup_head(&volume, &name, size).await }.boxed()
        });
        let mut read = futures_util::stream::iter(read).buffered(self.threads());
        while let Some(head) = read.next().await {
            match head {
                Ok(head) => listed.items.push(BackupInfo::new(head, config.as_ref())),
                // It was deleted since it was listed.
                Err(Error::NoObject { .. }) => {}
                Err(error) => listed.add_problem(error)?,
            }
        }
        Ok(listed)
    }

    /// The backing images.
    pub async fn backing_images(&self) -> Result<Listed<BackingImageInfo>> {
        let mut listed = Listed::default();
        let folders = self.driver().folders(layout::BACKING_IMAGES).await?;
        let names = valid(folders, "backing image", &mut listed.problems);
        let read = names.into_iter().map(|name| {
            let store = self.clone();
            async move { store.backing_image_map(&name).await }.boxed()
        });
        let mut read = futures_util::stream::iter(read).buffered(self.threads());
        while let Some(image) = read.next().await {
            match image {
                Ok((head, _)) => listed.items.push(head.into()),
                Err(Error::NoObject { .. }) => {}
                Err(error) => listed.add_problem(error)?,
            }
        }
        Ok(listed)
    }

    /// Who has locks on a volume or backing image, or has left some.
    pub async fn locks(&self, volume: &Name) -> Result<Vec<LockInfo>> {
        lock::list(self.driver().as_ref(), volume).await
    }

    /// The names of volumes, whatever is in their folders.
    async fn volume_names(&self, problems: &mut Vec<String>) -> Result<Vec<Name>> {
        let mut names = Vec::new();
        let digits = |folders: Vec<String>| {
            let two = |name: &String| name.len() == 2 && name.bytes().all(is_digit);
            folders.into_iter().filter(two).collect::<Vec<_>>()
        };
        let driver = Arc::clone(self.driver());
        for first in digits(driver.folders(layout::VOLUMES).await?) {
            let prefix = format!("{}/{first}", layout::VOLUMES);
            let seconds = digits(driver.folders(&prefix).await?);
            let asked = seconds.into_iter().map(|second| {
                let prefix = format!("{prefix}/{second}");
                let driver = Arc::clone(&driver);
                async move { (driver.folders(&prefix).await, prefix) }.boxed()
            });
            let mut answers = futures_util::stream::iter(asked).buffered(2 * self.threads());
            while let Some((folders, prefix)) = answers.next().await {
                for name in valid(folders?, "volume", problems) {
                    let place = layout::volume(&name);
                    if place == format!("{prefix}/{name}") {
                        names.push(name);
                    } else {
                        problems.push(format!(
                            "volume {name} is in {prefix}, where nothing looks for it; it belongs to {place}"
                        ));
                    }
                }
            }
        }
        Ok(names)
    }

    /// The names of the backups of a volume.
    pub(crate) async fn backup_names(
        &self,
        volume: &Name,
        problems: &mut Vec<String>,
    ) -> Result<Vec<Name>> {
        let folder = layout::backups(volume);
        let mut names = Vec::new();
        let mut entries = self.driver().list(&folder);
        while let Some(entry) = entries.try_next().await? {
            let file = entry.key[folder.len()..].trim_start_matches('/');
            match layout::backup_of(&entry.key) {
                Some(name) if layout::backup_config(volume, &name) == entry.key => names.push(name),
                // Half-written files of a mounted store are named so, and nobody else's.
                _ if file.contains(".tmp.") => {}
                _ => problems.push(format!(
                    "{:?} in {folder} is no backup: its name is not valid",
                    types::shown(file)
                )),
            }
            if names.len() > BACKUPS_MAX || problems.len() > BACKUPS_MAX {
                return Err(Error::Config {
                    key: folder.clone(),
                    why: format!("more than {BACKUPS_MAX} files"),
                });
            }
        }
        names.sort();
        Ok(names)
    }

    async fn is_only_locks(&self, volume: &Name) -> Result<bool> {
        let folders = self.driver().folders(&layout::volume(volume)).await?;
        Ok(folders.iter().all(|folder| folder == "locks"))
    }
}

impl<T> Listed<T> {
    /// Says what is wrong with one file; an error again if it is the store that does not work.
    fn add_problem(&mut self, error: Error) -> Result<()> {
        match error {
            Error::NoObject { .. }
            | Error::TooLarge { .. }
            | Error::Config { .. }
            | Error::Incomplete { .. }
            | Error::Name { .. } => {
                self.problems.push(report(&error).to_string());
                Ok(())
            }
            error => Err(error),
        }
    }
}

fn is_digit(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
}

/// The names that can be some; the others are problems.
fn valid(folders: Vec<String>, kind: &str, problems: &mut Vec<String>) -> Vec<Name> {
    let mut names = Vec::new();
    for folder in folders {
        match folder.parse() {
            Ok(name) => names.push(name),
            Err(error) => problems.push(format!("no {kind}: {error}")),
        }
    }
    names
}
