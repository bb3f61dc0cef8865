//! Volumes attached for the node service: the steps of [`super::attach`], and the list of all that is attached.
//!
//! An attachment is a staged block volume without a place: its record is that of staging, in a directory of the
//! node service, and its device has a mark of its own, by which staging and the node service leave each other's
//! devices alone.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use types::{ByteSize, VolumeName};

use super::inspect::Attached;
use super::locate::Here;
use super::record::{self, SUFFIX};
use super::{Access, Check, NodeVolume, StageRequest, Staged};
use super::{condition, inspect, stage, stats};
use crate::loopdev::{self, LoopDevice, Status};
use crate::mountinfo::{self, Mount};
use crate::{Error, Holder, Result, bounded, drbd};

/// How long a list may look at devices whose disks or file systems hang.
const LOOKING: Duration = Duration::from_secs(10);

/// A volume that is attached on this node, or should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// The name of the volume; where there is no record, one of more than 49 bytes may be cut.
    pub volume: String,
    pub holder: Holder,
    /// `None` for a record without a device.
    pub device: Option<Device>,
    /// Whether nothing may be written through it.
    pub read_only: bool,
    /// Where its file is, or was.
    pub file: PathBuf,
    /// What is wrong with it. Empty: it is well.
    pub troubles: Vec<String>,
}

/// The loop device of an attachment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// `/dev/loopN`.
    pub path: PathBuf,
    pub size: ByteSize,
    pub direct_io: bool,
    /// Where it is mounted, as this process sees it.
    pub mounts: Vec<PathBuf>,
}

pub(super) fn attach(
    records: &Path,
    volume: &NodeVolume,
    read_only: bool,
    holder: Holder,
) -> Result<Staged> {
    stage::stage(&request(records, volume, read_only)?, holder)
}

/// An attachment as a request to stage it. The directory of the records is there afterwards.
pub(super) fn request(
    records: &Path,
    volume: &NodeVolume,
    read_only: bool,
) -> Result<StageRequest> {
    make_directory(records)?;
    Ok(StageRequest {
        staging_path: records.join(volume.name.as_str()),
        volume: volume.clone(),
        access: Access::Block,
        read_only,
        mkfs_options: String::new(),
        check: Check::default(),
    })
}

/// Makes the directory of the records so that it outlives a power cut.
fn make_directory(records: &Path) -> Result<()> {
    if records.is_dir() {
        return Ok(());
    }
    let parent = records.parent().unwrap_or(Path::new("/"));
    if !parent.is_dir() {
        make_directory(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(records) {
        // Another call was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => made.map_err(Error::io("create the directory", records))?,
    }
    File::open(parent)
        .and_then(|parent| parent.sync_all())
        .map_err(Error::io("sync", parent))
}

/// Those of the records in `records`, which are `whose`, and all devices of `shown`.
pub(super) fn list(records: &Path, whose: Holder, shown: &[Holder]) -> Result<Vec<Attachment>> {
    let (mut recorded, unreadable) = read_records(records)?;
    let mounts = mountinfo::read()?;
    let until = Instant::now() + LOOKING;
    let mut all = Vec::new();
    let name_in = |status: &Status| {
        inspect::name_in(&status.mark).filter(|(_, holder)| shown.contains(holder))
    };
    for (device, status) in loopdev::find(|status| name_in(status).is_some())? {
        let Some((name, holder)) = name_in(&status) else {
            continue;
        };
        // The mark may hold a part of the name; the record has all of it.
        let of_record = recorded.iter().position(|record| {
            holder == whose
                && inspect::mark(&record.volume, holder) == status.mark
                && inspect::may_be_of(&status, &record.file)
        });
        let volume = of_record.map_or(name, |at| recorded.swap_remove(at).volume.to_string());
        all.push(look(volume, holder, device, &status, &mounts, until)?);
    }
    for record in recorded {
        let device = match drbd::minor_of(&record.file) {
            Some(minor) => replicated(minor, &record, &mounts)?,
            None => None,
        };
        let troubles = match &device {
            Some(_) => drbd::troubles(&record.volume)?,
            None => vec![NO_DEVICE.to_owned()],
        };
        all.push(Attachment {
            volume: record.volume.to_string(),
            holder: whose,
            device,
            read_only: record.read_only,
            file: record.file,
            troubles,
        });
    }
    for volume in unreadable {
        if all
            .iter()
            .any(|one| one.holder == whose && one.volume == volume.as_str())
        {
            continue;
        }
        all.push(Attachment {
            volume: volume.to_string(),
            holder: whose,
            device: None,
            read_only: false,
            file: PathBuf::new(),
            troubles: vec!["its record is not readable; detach it".to_owned()],
        });
    }
    all.sort_by(|a, b| a.volume.cmp(&b.volume));
    Ok(all)
}

/// What is said of a record without a device.
const NO_DEVICE: &str = "it has a record and no device: the node was restarted, or the call did not end; attach it \
                         again, or detach it";

/// The device of DRBD of an attachment; `None`: it is not attached here.
fn replicated(minor: u32, record: &record::Record, mounts: &[Mount]) -> Result<Option<Device>> {
    if !drbd::is_attached(minor, &record.volume)? {
        return Ok(None);
    }
    let device = drbd::device(minor)?;
    let shown = inspect::mounted_elsewhere(mounts, &device, &[]);
    Ok(Some(Device {
        path: device.path(),
        size: ByteSize(device.size()?),
        direct_io: true,
        mounts: shown.iter().map(|mount| mount.point.clone()).collect(),
    }))
}

/// The records, and the volumes whose records say nothing. An empty record is the lock of a call under way.
fn read_records(records: &Path) -> Result<(Vec<record::Record>, BTreeSet<VolumeName>)> {
    let entries = match fs::read_dir(records) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Default::default()),
        entries => entries.map_err(Error::io("list", records))?,
    };
    let (mut readable, mut unreadable) = (Vec::new(), BTreeSet::new());
    for entry in entries {
        let entry = entry.map_err(Error::io("list", records))?;
        let name = entry.file_name();
        let volume = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
        let Some(volume) = volume.and_then(|volume| VolumeName::new(volume).ok()) else {
            continue;
        };
        let record = record::peek(&records.join(volume.as_str()), &volume);
        match record.filter(|record| record.volume == volume) {
            Some(record) => readable.push(record),
            None if entry.metadata().is_ok_and(|metadata| metadata.len() == 0) => {}
            None => drop(unreadable.insert(volume)),
        }
    }
    Ok((readable, unreadable))
}

fn look(
    volume: String,
    holder: Holder,
    device: LoopDevice,
    status: &Status,
    mounts: &[Mount],
    until: Instant,
) -> Result<Attachment> {
    let path = device.path();
    let size = ByteSize(device.size()?);
    let shown = inspect::mounted_elsewhere(mounts, &device, &[]);
    let points = shown.iter().map(|mount| mount.point.clone()).collect();
    let mounted = shown
        .into_iter()
        .find(|mount| !inspect::is_device_node(mount))
        .cloned();
    let (read_only, file) = (
        device.is_protected()?,
        condition::file_path(&device).unwrap_or_default(),
    );
    let troubles = troubles(device, holder, mounted, mounts, until);
    Ok(Attachment {
        volume,
        holder,
        device: Some(Device {
            path,
            size,
            direct_io: status.direct_io,
            mounts: points,
        }),
        read_only,
        file,
        troubles,
    })
}

/// What is wrong with a device, its file and what is mounted from it.
fn troubles(
    device: LoopDevice,
    holder: Holder,
    mount: Option<Mount>,
    mounts: &[Mount],
    until: Instant,
) -> Vec<String> {
    if Instant::now() > until {
        return vec!["not looked at: others did not answer in time".to_owned()];
    }
    let mut all = match &mount {
        Some(mount) => stats::file_system(mount, &device).1,
        None => Vec::new(),
    };
    let (path, mounts) = (device.path(), mounts.to_vec());
    let here = Here {
        mount,
        device: Attached::Loop(device),
    };
    let asked = bounded::run(&path, inspect::ANSWER_WITHIN, move || {
        let mut all = condition::of_file(&here, &mounts);
        if let (Holder::Node, Attached::Loop(device)) = (holder, &here.device) {
            all.extend(condition::of_growth(device));
        }
        all
    });
    match asked {
        Ok(more) => all.extend(more),
        Err(error) => all.push(types::report(&error).to_string()),
    }
    all
}
