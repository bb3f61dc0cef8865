//! Keeps the shares mounted on which backups are (NFS, CIFS), for the manager of this node, which mounts nothing.
//!
//! Each share has a task of its own: one whose server is gone holds up no other, and no call. What can hang is done
//! by processes with a deadline ([`host::shares`]).

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use backup::Credentials;
use host::mountinfo;
use host::shares::{Mounter, State};
use tokio::task::JoinSet;
use types::report;

use crate::config::{BackupsConfig, ShareTarget};
use crate::error::{Error, Result};
use crate::metrics;

/// Between two looks at a share that answers.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// After the first failure; twice as long after each further one.
const AGAIN_AFTER: Duration = Duration::from_secs(5);
/// The longest pause after failures.
const AGAIN_MOST: Duration = Duration::from_mins(5);

/// One share, and what came of it so far.
#[derive(Debug)]
struct Keeper {
    target: ShareTarget,
    /// The directory below which shares are mounted.
    mounts: PathBuf,
    /// The directory of the keys of its Secret.
    secret: PathBuf,
    /// Where the file is that mount.cifs reads.
    file: PathBuf,
    mounter: Mounter,
    /// Since it answered.
    failures: u32,
}

/// Keeps the shares of the targets, in tasks of `beside`. `state`: a directory of this program for files that nobody
/// else may read.
pub(crate) fn keep(config: BackupsConfig, state: &Path, beside: &mut JoinSet<()>) {
    let BackupsConfig {
        targets,
        credentials,
        mounts,
    } = config;
    if !targets.is_empty() {
        let private = mountinfo::read().is_ok_and(|seen| {
            let on = mountinfo::containing(&seen, &mounts);
            on.is_some_and(|on| on.point.starts_with(&mounts) && on.shared.is_none())
        });
        if private {
            let mounts = mounts.display();
            tracing::warn!(
                "{mounts} is mounted without propagation, so that the manager would not see the targets of backups; \
                 set mountPropagation: Bidirectional"
            );
        }
    }
    for target in targets {
        metrics::backup_target(&target.name, false);
        let mounter = match Mounter::new() {
            Ok(mounter) => mounter,
            Err(error) => {
                tracing::error!(
                    target = target.name,
                    "backups are not possible: {}",
                    report(&error)
                );
                continue;
            }
        };
        let keeper = Keeper {
            secret: credentials.join(&target.name),
            file: state.join(format!("backup-{}.credentials", target.name)),
            mounts: mounts.clone(),
            target,
            mounter,
            failures: 0,
        };
        beside.spawn(keeper.run());
    }
}

impl Keeper {
    /// Looks and mounts for as long as the process runs.
    async fn run(mut self) {
        loop {
            let round = move || {
                let pause = self.round();
                (self, pause)
            };
            let Ok((keeper, pause)) = tokio::task::spawn_blocking(round).await else {
                return;
            };
            self = keeper;
            tokio::time::sleep(pause).await;
        }
    }

    /// Sees to it that the share is mounted and answers. How long to wait until the next time.
    fn round(&mut self) -> Duration {
        let before = self.failures;
        let (target, share) = (self.target.name.clone(), self.target.share.source.clone());
        match self.ensure() {
            Ok(mounted) => {
                self.failures = 0;
                metrics::backup_target(&target, true);
                if mounted || before > 0 {
                    tracing::info!(target, share, "the target of backups answers");
                }
                LOOK_EVERY
            }
            Err(error) => {
                self.failures = before.saturating_add(1);
                metrics::backup_target(&target, false);
                let pause = pause(self.failures);
                let seconds = pause.as_secs();
                tracing::warn!(
                    target,
                    share,
                    "the target of backups is not to be had, tried again in {seconds} s: {}",
                    report(&error)
                );
                pause
            }
        }
    }

    /// Whether it was mounted just now.
    fn ensure(&mut self) -> Result<bool> {
        // As the kernel shows it: without links.
        fs::create_dir_all(&self.mounts).map_err(Error::io("make the directory", &self.mounts))?;
        let mounts = fs::canonicalize(&self.mounts);
        let mounts = mounts.map_err(Error::io("find the directory", &self.mounts))?;
        let mut share = self.target.share.clone();
        if let Ok(below) = share.point.strip_prefix(&self.mounts) {
            share.point = mounts.join(below);
        }
        match self.mounter.look(&share.point)? {
            State::Alive => return Ok(false),
            State::Dead(why) => {
                let (target, point) = (&self.target.name, share.point.display());
                tracing::warn!(target, "{point} does not answer and is mounted anew: {why}");
                self.mounter.detach(&share.point)?;
            }
            State::NotMounted => {}
        }
        if !self.target.is_cifs() {
            self.mounter.mount(&share, None)?;
            return Ok(true);
        }
        let Some(lines) = credentials(&self.secret)? else {
            self.mounter.mount(&share, None)?;
            return Ok(true);
        };
        // For as long as the attempt takes.
        write_secret(&self.file, &lines)?;
        let mounted = self.mounter.mount(&share, Some(&self.file));
        fs::remove_file(&self.file).map_err(Error::io("remove", &self.file))?;
        mounted?;
        Ok(true)
    }
}

/// After so many failures.
fn pause(failures: u32) -> Duration {
    let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
    AGAIN_AFTER.saturating_mul(doubled).min(AGAIN_MOST)
}

/// The lines that mount.cifs reads; `None`: there are no credentials.
fn credentials(secret: &Path) -> Result<Option<String>> {
    let (credentials, said) = Credentials::from_directory(secret).map_err(Error::BackupSecret)?;
    for said in said {
        tracing::info!("the credentials in {}: {said}", secret.display());
    }
    let lines = |(user, password)| format!("username={user}\npassword={password}\n");
    Ok(credentials.cifs().map(lines))
}

/// Writes a file that only this user can read, also while it is written.
fn write_secret(path: &Path, text: &str) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(Error::io("make the directory", parent))?;
    }
    // One of a process that was killed; its rights may be others.
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::io("remove", path)(error));
        }
        _ => {}
    }
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(Error::io("write", path))
}

#[cfg(test)]
mod tests;
