//! The options about targets of backups: which shares the node mounts for its manager.

use std::collections::BTreeSet;
use std::path::PathBuf;

use backup::{StoreAddress, is_target_name};
use host::shares::Share;

use super::checks::absolute;
use crate::error::{Error, Result};

const TARGET: &str = "--backup-target";

/// Targets of backups.
#[derive(Debug, clap::Args)]
pub(crate) struct BackupArgs {
    /// A target of backups, as in the option of the manager; may be given several times. The node service mounts
    /// those on NFS (nfs://…) and CIFS (cifs://…) and leaves the others alone [default: none; $BACKUP_TARGETS:
    /// several, separated by spaces].
    #[arg(
        long = "backup-target",
        env = "BACKUP_TARGETS",
        hide_env_values = true,
        value_delimiter = ' ',
        value_name = "NAME=ADDRESS"
    )]
    targets: Vec<String>,

    /// The directory with the credentials of targets: in a directory of the name of each, one file for each key of
    /// its Secret. Read again before each mount.
    #[arg(
        long = "backup-credentials",
        env = "BACKUP_CREDENTIALS",
        default_value = "/etc/longhorn-base-image/backup",
        value_name = "DIR"
    )]
    credentials: PathBuf,

    /// The directory below which targets are mounted. The manager must see the mounts: it needs the directory with
    /// mountPropagation HostToContainer, and the plugin with Bidirectional.
    #[arg(
        long = "backup-mounts",
        default_value = "/var/lib/longhorn-backupstore-mounts",
        value_name = "DIR"
    )]
    mounts: PathBuf,
}

/// The shares that the node mounts.
#[derive(Debug, Default)]
pub(crate) struct BackupsConfig {
    pub(crate) targets: Vec<ShareTarget>,
    /// With a directory of each target.
    pub(crate) credentials: PathBuf,
    pub(crate) mounts: PathBuf,
}

/// A target on a share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ShareTarget {
    pub(crate) name: String,
    pub(crate) share: Share,
}

impl ShareTarget {
    pub(crate) fn is_cifs(&self) -> bool {
        self.share.fs_type == "cifs"
    }
}

impl BackupsConfig {
    pub(crate) fn has_cifs(&self) -> bool {
        self.targets.iter().any(ShareTarget::is_cifs)
    }
}

impl BackupArgs {
    /// Checks what was typed.
    pub(super) fn check(self) -> Result<BackupsConfig> {
        let mounts = absolute("--backup-mounts", self.mounts)?;
        let credentials = absolute("--backup-credentials", self.credentials)?;
        let refuse = |why| Err(Error::Flag { flag: TARGET, why });
        let (mut names, mut points) = (BTreeSet::new(), BTreeSet::new());
        let mut targets = Vec::new();
        // A variable that is set to nothing is not set.
        for text in self
            .targets
            .iter()
            .map(|text| text.trim())
            .filter(|text| !text.is_empty())
        {
            let Some((name, address)) = text.split_once('=') else {
                return refuse("must be NAME=ADDRESS, for example default=nfs://server:/backups/");
            };
            if !is_target_name(name) {
                return refuse("needs a name of letters, digits, '-', '_' and '.' before the '='");
            }
            if !names.insert(name.to_owned()) {
                return refuse("has one name twice");
            }
            let address: StoreAddress = address.parse().map_err(Error::BackupTarget)?;
            let Some(mount) = address.mount() else {
                continue;
            };
            let share = Share {
                source: mount.source.clone(),
                fs_type: mount.fs_type.to_owned(),
                attempts: mount.attempts.clone(),
                point: mounts.join(&mount.point),
            };
            // Two targets may lie on one share.
            if points.insert(share.point.clone()) {
                let name = name.to_owned();
                targets.push(ShareTarget { name, share });
            }
        }
        Ok(BackupsConfig {
            targets,
            credentials,
            mounts,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn check(targets: &[&str]) -> Result<BackupsConfig> {
        let args = BackupArgs {
            targets: targets.iter().map(ToString::to_string).collect(),
            credentials: "/etc/credentials".into(),
            mounts: "/var/lib/mounts".into(),
        };
        args.check()
    }

    #[test]
    fn only_shares_are_mounted_and_each_once() {
        let config = check(&[
            "default=s3://bucket@region/path/",
            "nightly=nfs://server:/export/dir",
            "again=nfs://server:/export/dir",
            "office=cifs://server/share/dir",
            "",
        ]);
        let config = config.unwrap();
        let names: Vec<_> = config
            .targets
            .iter()
            .map(|target| target.name.as_str())
            .collect();
        assert_eq!(names, ["nightly", "office"]);
        assert!(config.has_cifs());
        let nfs = &config.targets[0].share;
        assert_eq!(
            (nfs.source.as_str(), nfs.fs_type.as_str()),
            ("server:/export/dir", "nfs4")
        );
        assert_eq!(nfs.attempts.len(), 3, "{nfs:?}");
        assert!(nfs.point.starts_with("/var/lib/mounts"), "{nfs:?}");
        assert_ne!(nfs.point, Path::new("/var/lib/mounts"));
        let cifs = &config.targets[1].share;
        assert_eq!(
            (cifs.source.as_str(), cifs.fs_type.as_str()),
            ("//server/share/dir", "cifs")
        );
        assert!(check(&[]).unwrap().targets.is_empty());
    }

    #[test]
    fn what_cannot_be_a_target_is_refused() {
        for bad in [
            &["nfs://server:/export"][..],
            &["=nfs://server:/export"],
            &["../x=nfs://server:/export"],
            &["a/b=nfs://server:/export"],
            &["a=nfs://server:/export", "a=nfs://server:/other"],
            &["a=ftp://server/x"],
        ] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
    }
}
