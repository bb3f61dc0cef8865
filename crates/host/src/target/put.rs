//! Makes one target what is wanted, whatever it is now, and takes one away.
//!
//! A target that exists is changed in this order, so that a crash between any two steps leaves one that nobody can
//! enter, and never one that asks for no proof or has no disk:
//!
//! 1. No new connections, for all of tgtd: one that is closed at once is tried again by every initiator.
//! 2. Nobody is allowed.
//! 3. Those whose disk, secret or permission changes are disconnected.
//! 4. The disk is made anew, if it is another one or another size: tgtd does not see that a file has grown, and
//!    while a disk is away, commands to it fail.
//! 5. The CHAP user is made anew.
//! 6. The initiators are allowed.
//! 7. New connections. After a crash that is what [`super::Targets::open`] does; see [`super::Targets::is_open`].
//!
//! A new target starts at step 4.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::time::Duration;

use types::VolumeName;

use super::control::Control;
use super::session::Session;
use super::shown::{Shown, Unit, size_text};
use super::wanted::{Chap, SECTOR, Wanted, check_name, path_text, serial, target_name, volume_of};
use crate::{Error, Result, bounded};

/// The steps in which sizes are told apart by what tgtd shows, in bytes.
const MEBIBYTE: u64 = 1 << 20;
/// How long the length of a file may take.
const FILE_WITHIN: Duration = Duration::from_secs(10);

/// What tgtd was told by this process and does not show.
#[derive(Debug, Clone)]
pub(super) struct Told {
    size: u64,
    chap: Option<Chap>,
}

pub(super) fn put(
    control: &Control,
    wanted: &Wanted,
    told: &mut HashMap<VolumeName, Told>,
) -> Result<Vec<Session>> {
    wanted.check()?;
    let size = file_size(wanted)?;
    let name = target_name(&wanted.volume);
    let targets = targets(control)?;
    check_user(wanted, &name, &targets)?;
    let known = told.remove(&wanted.volume);
    let tid = match targets.iter().find(|target| target.name == name) {
        None => {
            let tid = free_number(&targets);
            control.add_target(tid, &name)?;
            make(control, tid, wanted, true, true)?;
            tid
        }
        Some(target) => {
            let disk = is_right(target.unit.as_ref(), wanted, size, known.as_ref());
            change(control, target, wanted, !disk, known.as_ref())?;
            target.tid
        }
    };
    let now = Told {
        size,
        chap: wanted.chap.clone(),
    };
    told.insert(wanted.volume.clone(), now);
    let connections = control.connections(tid)?;
    Ok(connections.into_iter().map(|it| it.who).collect())
}

fn change(
    control: &Control,
    target: &Shown,
    wanted: &Wanted,
    new_disk: bool,
    known: Option<&Told>,
) -> Result<()> {
    let users: Vec<&str> = wanted.chap.iter().map(Chap::user).collect();
    let same_users = target.users == users;
    let known_chap = known.map(|known| &known.chap);
    // After a start of this process the secret is not known. It is told again then, for which nobody needs to go.
    let new_user = !same_users || (known_chap != Some(&wanted.chap) && wanted.chap.is_some());
    let new_secret = !same_users || known_chap.is_some_and(|chap| *chap != wanted.chap);
    let is_wanted = |name: &str| wanted.initiators.iter().any(|one| one.as_str() == name);
    let too_many = target.allowed.iter().any(|name| !is_wanted(name));
    if !(new_disk || new_user || too_many) {
        return make(control, target.tid, wanted, false, false);
    }
    closed(control, || {
        for entry in &target.allowed {
            control.disallow(target.tid, entry)?;
        }
        control.disconnect(target.tid, |connection| {
            new_disk || new_secret || !is_wanted(&connection.who.initiator)
        })?;
        if new_disk && target.unit.is_some() {
            control.remove_unit(target.tid)?;
        }
        if new_user {
            for user in &target.users {
                control.remove_user(user)?;
            }
        }
        make(control, target.tid, wanted, new_disk, new_user)
    })
}

/// Does something while no new connections are taken.
fn closed<T>(control: &Control, work: impl FnOnce() -> Result<T>) -> Result<T> {
    // What an earlier process has closed stays closed until all is there again.
    let was_ready = control.is_ready()?;
    control.set_ready(false)?;
    let done = work();
    // Also after an error: nobody gets into this target, and those of others are not held up.
    let ready = if was_ready {
        control.set_ready(true)
    } else {
        Ok(())
    };
    done.and_then(|done| ready.map(|()| done))
}

/// Steps 4 to 6, of a target without what is to be made.
fn make(control: &Control, tid: i32, wanted: &Wanted, disk: bool, user: bool) -> Result<()> {
    if disk {
        let serial = serial(&wanted.volume);
        control.add_unit(tid, &wanted.file, &serial, wanted.read_only)?;
    }
    if let Some(chap) = wanted.chap.as_ref().filter(|_| user) {
        // One that a crash left behind, of no target.
        control.remove_user(chap.user())?;
        control.add_user(tid, chap)?;
    }
    for initiator in &wanted.initiators {
        control.allow(tid, initiator)?;
    }
    Ok(())
}

/// Whether the disk is the wanted one, in every respect that tgtd shows, and in its exact size.
fn is_right(unit: Option<&Unit>, wanted: &Wanted, size: u64, known: Option<&Told>) -> bool {
    let Some(unit) = unit else { return false };
    // Volumes never shrink, and tgtd shows whole megabytes: of what this process has not told, it tells only
    // whole mebibytes apart.
    let exact = known.map_or(size.is_multiple_of(MEBIBYTE), |known| known.size == size);
    let serial = serial(&wanted.volume);
    let expected = Unit {
        id: serial.clone(),
        serial,
        size: size_text(size),
        online: true,
        read_only: wanted.read_only,
        thin: true,
        store: "rdwr".to_owned(),
        path: path_text(&wanted.file).to_owned(),
    };
    exact && *unit == expected
}

pub(super) fn remove(control: &Control, volume: &VolumeName, disconnect: bool) -> Result<()> {
    let name = target_name(volume);
    // A target with such a name was never made.
    if check_name(volume).is_err() {
        return Ok(());
    }
    let Some((tid, _)) = control.names()?.into_iter().find(|(_, it)| *it == name) else {
        return Ok(());
    };
    let in_use = || -> Result<Error> {
        let by = control.connections(tid)?;
        let by: Vec<_> = by.iter().map(|it| it.who.to_string()).collect();
        Ok(Error::TargetInUse {
            volume: volume.clone(),
            by: by.join(", "),
        })
    };
    if !disconnect && !control.connections(tid)?.is_empty() {
        return Err(in_use()?);
    }
    let targets = targets(control)?;
    let target = targets.into_iter().find(|target| target.tid == tid);
    let target = target.unwrap_or_default();
    if disconnect {
        for entry in &target.allowed {
            control.disallow(tid, entry)?;
        }
        control.disconnect(tid, |_| true)?;
    }
    if !control.remove_target(tid)? {
        return Err(in_use()?);
    }
    for user in &target.users {
        control.remove_user(user)?;
    }
    Ok(())
}

/// All targets. If an initiator's alias makes the list unreadable, all are disconnected for a moment: without
/// sessions there is no alias in it.
fn targets(control: &Control) -> Result<Vec<Shown>> {
    if let Some(targets) = control.targets()? {
        return Ok(targets);
    }
    let read = closed(control, || {
        for (tid, _) in control.names()? {
            control.disconnect(tid, |_| true)?;
        }
        control.targets()
    })?;
    read.ok_or(Error::TargetRefused {
        what: "show its targets",
        why: "its answer is not what tgtd 1.0.85 writes",
    })
}

/// A user is one of the whole of tgtd, with one secret.
fn check_user(wanted: &Wanted, name: &str, targets: &[Shown]) -> Result<()> {
    let Some(chap) = &wanted.chap else {
        return Ok(());
    };
    let has = |target: &&Shown| target.users.iter().any(|user| user == chap.user());
    let other = targets.iter().filter(|it| it.name != name).find(has);
    other.map_or(Ok(()), |other| {
        Err(Error::TargetUser {
            user: chap.user().to_owned(),
            other: volume_of(&other.name).map_or_else(|| other.name.clone(), |it| it.to_string()),
        })
    })
}

/// The lowest that no target has.
fn free_number(targets: &[Shown]) -> i32 {
    let is_free = |tid: &i32| targets.iter().all(|target| target.tid != *tid);
    (1..i32::MAX).find(is_free).unwrap_or(i32::MAX)
}

/// The length of the file, which tgtd takes for the size of the disk when it opens it.
fn file_size(wanted: &Wanted) -> Result<u64> {
    let file = wanted.file.clone();
    let seen = bounded::run(&wanted.file, FILE_WITHIN, move || fs::metadata(file))?;
    let damaged = |why| Error::VolumeDamaged {
        volume: wanted.volume.clone(),
        file: wanted.file.clone(),
        why,
    };
    match seen {
        Ok(seen) if !seen.is_file() => Err(damaged("it is no file".to_owned())),
        Ok(seen) if seen.len() < wanted.size => Err(damaged(format!(
            "it has {} bytes, and the volume {}",
            seen.len(),
            wanted.size
        ))),
        Ok(seen) => Ok(seen.len() - seen.len() % SECTOR),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::VolumeMissing {
            volume: wanted.volume.clone(),
            file: wanted.file.clone(),
        }),
        Err(error) => Err(Error::io("look at", &wanted.file)(error)),
    }
}
