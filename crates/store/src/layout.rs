//! Every path name on a disk. Nothing else in the program builds one.
//!
//! The names `longhorn-disk.cfg`, `backing-images/<name>-<uuid>/{backing,backing.cfg}` and `tmp/` are
//! Longhorn's; the others are ours. Names that start with a dot are never images or volumes, because
//! the names of those start with a letter or a digit.

use std::path::{Component, Path, PathBuf};

use types::{ImageId, ImageName, ImageUuid, VolumeName};

use crate::error::{Error, Result};

/// The paths below one disk's directory.
#[derive(Debug, Clone)]
pub struct Layout {
    root: PathBuf,
    /// The same directory as it was called when it was opened, for paths that others build.
    called: PathBuf,
}

/// Where on a disk an image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// `backing-images/<name>-<uuid>/`: what the disk serves.
    Images,
    /// `tmp/<name>-<uuid>` and files beside it: what a data source prepares.
    Work,
}

/// The paths of one backing image.
#[derive(Debug, Clone)]
pub struct ImagePaths {
    /// `backing-images/<name>-<uuid>`; for a work file `tmp`, which it shares with others.
    pub dir: PathBuf,
    /// The bytes as they came.
    pub backing: PathBuf,
    /// The same while they come.
    pub backing_tmp: PathBuf,
    /// The same while they come from peers, in any order: survives a restart.
    pub part: PathBuf,
    /// The chunk manifest that [`part`](Self::part) will have.
    pub part_chunks: PathBuf,
    /// The same while a client brings them in pieces: survives a restart.
    pub upload: PathBuf,
    /// What was asked for with [`upload`](Self::upload), and how much of it is surely there.
    pub upload_record: PathBuf,
    pub sidecar: PathBuf,
    pub chunks: PathBuf,
    /// Who has proven to its registry that he may have it.
    pub access: PathBuf,
    /// The raw form of a qcow2 (or badly laid out raw) image.
    pub raw: PathBuf,
    /// The same while it is made.
    pub raw_tmp: PathBuf,
    /// What the raw form looked like when it was sealed.
    pub raw_seal: PathBuf,
}

/// The paths of one volume.
#[derive(Debug, Clone)]
pub struct VolumePaths {
    /// `volumes/<name>`.
    pub dir: PathBuf,
    /// The volume's bytes.
    pub data: PathBuf,
    pub record: PathBuf,
    /// Who may use it; not there when nobody may.
    pub published: PathBuf,
    /// DRBD's metadata; not there unless the volume is a replica.
    pub metadata: PathBuf,
}

/// A directory that an earlier version deleted: what it held is void.
const DELETING: &str = ".deleting-";
/// A volume's directory before it is complete.
const CREATING: &str = ".creating-";
/// A damaged image, set aside for people to look at.
const QUARANTINE: &str = ".quarantine-";

impl Layout {
    /// The layout of the disk at `root`.
    pub fn new(root: &Path) -> Self {
        Self::called(root, root)
    }

    /// The layout of the disk at `root`, which others may know as `called`.
    pub fn called(root: &Path, called: &Path) -> Self {
        Self {
            root: root.to_owned(),
            called: called.to_owned(),
        }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A path below the root as those know it who named the disk.
    pub fn shown(&self, path: &Path) -> PathBuf {
        match path.strip_prefix(&self.root) {
            Ok(below) if self.called.is_absolute() => self.called.join(below),
            _ => path.to_owned(),
        }
    }

    /// `{"diskUUID": …}`; a directory without it is not a disk.
    pub fn disk_config(&self) -> PathBuf {
        self.root.join("longhorn-disk.cfg")
    }

    /// The file whose lock says that the disk is served.
    pub fn lock(&self) -> PathBuf {
        self.root.join(".backing-image-manager.lock")
    }

    /// The other disks of the cluster that this one has been told of.
    pub fn known_disks(&self) -> PathBuf {
        self.root.join("known-disks.cfg")
    }

    /// Where the images are.
    pub fn images(&self) -> PathBuf {
        self.root.join("backing-images")
    }

    /// Where the volumes are.
    pub fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }

    /// Where data sources work.
    pub fn work(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// The directory of a place.
    pub fn place(&self, place: Place) -> PathBuf {
        match place {
            Place::Images => self.images(),
            Place::Work => self.work(),
        }
    }

    /// The paths of an image.
    pub fn image(&self, place: Place, id: &ImageId) -> ImagePaths {
        self.entry(place, &id.to_string())
    }

    /// The paths of what has this name in a place.
    pub(super) fn entry(&self, place: Place, name: &str) -> ImagePaths {
        let (dir, stem, raw) = match place {
            Place::Images => (self.images().join(name), "backing", "raw".to_owned()),
            Place::Work => (self.work(), name, format!("{name}.raw")),
        };
        let named = |end: &str| dir.join(format!("{stem}{end}"));
        ImagePaths {
            backing: named(""),
            backing_tmp: named(".tmp"),
            part: named(".part"),
            part_chunks: named(".part.chunks"),
            upload: named(".upload"),
            upload_record: named(".upload.cfg"),
            sidecar: named(".cfg"),
            chunks: named(".chunks"),
            access: named(".access"),
            raw_tmp: dir.join(format!("{raw}.tmp")),
            raw_seal: dir.join(format!("{raw}.cfg")),
            raw: dir.join(raw),
            dir,
        }
    }

    /// The file whose lock says that somebody works on a work file.
    pub(super) fn work_lock(&self, name: &str) -> PathBuf {
        self.work().join(format!("{name}.lock"))
    }

    /// Where a damaged image's files are set aside, the `n`th of its name.
    pub(super) fn quarantine(&self, place: Place, name: &str, n: u32) -> PathBuf {
        self.place(place).join(format!("{QUARANTINE}{name}.{n}"))
    }

    /// Reads a path of one of the two shapes that images have; anything else is refused, and so is
    /// whatever would leave the disk.
    pub fn parse_file_path(&self, path: &Path, uuid: &ImageUuid) -> Result<(Place, ImageId)> {
        let (place, name) = self.parse_path(path)?;
        let id = split_image_dir(&name, Some(uuid)).ok_or_else(|| Error::InvalidField {
            field: "file-path",
            why: format!(
                "{} is not a file of an image with uuid {uuid}",
                path.display()
            ),
        })?;
        Ok((place, id))
    }

    /// The same for a path whose uuid is not known: the place, and the name of the entry there.
    pub fn parse_path(&self, path: &Path) -> Result<(Place, String)> {
        let refused = || Error::InvalidField {
            field: "file-path",
            why: format!(
                "{} is neither {root}/backing-images/<name>-<uuid>/backing nor {root}/tmp/<name>-<uuid>",
                path.display(),
                root = self.root.display()
            ),
        };
        let below = path
            .strip_prefix(&self.root)
            .or_else(|_| path.strip_prefix(&self.called));
        let parts: Option<Vec<_>> = below
            .map_err(|_| refused())?
            .components()
            .map(|part| match part {
                Component::Normal(part) => part.to_str(),
                _ => None,
            })
            .collect();
        let (place, name) = match parts.as_deref() {
            Some(["backing-images", name, "backing"]) => (Place::Images, *name),
            Some(["tmp", name]) => (Place::Work, *name),
            _ => return Err(refused()),
        };
        if split_image_dir(name, None).is_none() || (place == Place::Work && !is_work_file(name)) {
            return Err(refused());
        }
        Ok((place, name.to_owned()))
    }

    /// The paths of a volume.
    pub fn volume(&self, name: &VolumeName) -> VolumePaths {
        Self::volume_in(self.volumes().join(name.as_str()))
    }

    /// The paths of a volume that is not complete.
    pub fn volume_creating(&self, name: &VolumeName) -> VolumePaths {
        Self::volume_in(self.volumes().join(format!("{CREATING}{name}")))
    }

    fn volume_in(dir: PathBuf) -> VolumePaths {
        VolumePaths {
            data: dir.join("volume"),
            record: dir.join("volume.cfg"),
            published: dir.join("published.cfg"),
            metadata: dir.join("drbd"),
            dir,
        }
    }

    /// The path of a volume's data relative to the disk: what the node side is told.
    pub fn volume_data_relative(name: &VolumeName) -> String {
        format!("volumes/{name}/volume")
    }
}

/// What is appended to the name of a work file for the files beside it; the longest first.
pub(super) const WORK_SUFFIXES: [&str; 11] = [
    ".tmp.qcow2tmp",
    ".tmp-raw.tmp",
    ".part.chunks.tmp",
    ".part.chunks",
    ".chunks.tmp",
    ".cfg.tmp",
    ".chunks",
    ".part",
    ".lock",
    ".tmp",
    ".cfg",
];

/// Whether this can be the name of a work file itself, and not of a file beside another one.
pub(super) fn is_work_file(name: &str) -> bool {
    !WORK_SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
}

/// What the name of an entry in `backing-images/` or `volumes/` says about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryName<'a> {
    Item(&'a str),
    /// Left behind by an interrupted create or delete: remove it.
    Leftover,
    /// Set aside: keep it.
    Quarantined(&'a str),
    /// Not ours: leave it alone.
    Foreign,
}

impl<'a> EntryName<'a> {
    /// Reads a directory entry's name.
    pub fn of(name: &'a str) -> Self {
        if name.starts_with(DELETING) || name.starts_with(CREATING) {
            Self::Leftover
        } else if let Some(rest) = name.strip_prefix(QUARANTINE) {
            Self::Quarantined(rest)
        } else if name.starts_with('.') {
            Self::Foreign
        } else {
            Self::Item(name)
        }
    }
}

/// Splits `<name>-<uuid>`. With `uuid` known (from the sidecar) that is the suffix; otherwise the
/// part after the last dash, which is right for every uuid that Longhorn or this program makes.
pub fn split_image_dir(dir: &str, uuid: Option<&ImageUuid>) -> Option<ImageId> {
    let (name, uuid) = if let Some(uuid) = uuid {
        (
            dir.strip_suffix(uuid.as_str())?.strip_suffix('-')?,
            uuid.clone(),
        )
    } else {
        let (name, uuid) = dir.rsplit_once('-')?;
        (name, ImageUuid::new(uuid).ok()?)
    };
    Some(ImageId {
        name: ImageName::new(name).ok()?,
        uuid,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_name_gives_back_its_image() {
        let id = ImageId::new("default-image-7b2wq", "a93b9a55").unwrap();
        assert_eq!(
            split_image_dir("default-image-7b2wq-a93b9a55", None),
            Some(id.clone())
        );
        assert_eq!(
            split_image_dir("default-image-7b2wq-a93b9a55", Some(&id.uuid)),
            Some(id)
        );
        let dashed = ImageId::new("img", "uuid-img").unwrap();
        assert_eq!(
            split_image_dir("img-uuid-img", Some(&dashed.uuid)),
            Some(dashed)
        );
        assert_eq!(split_image_dir("nodash", None), None);
    }

    #[test]
    fn only_paths_of_the_two_shapes_are_taken() {
        let layout = Layout::called(Path::new("/mnt/disk"), Path::new("/data"));
        let uuid = ImageUuid::new("a93b9a55").unwrap();
        let id = ImageId::new("img", "a93b9a55").unwrap();
        for (path, place) in [
            ("/data/backing-images/img-a93b9a55/backing", Place::Images),
            (
                "/mnt/disk/backing-images/img-a93b9a55/backing",
                Place::Images,
            ),
            ("/data/tmp/img-a93b9a55", Place::Work),
        ] {
            let parsed = layout.parse_file_path(Path::new(path), &uuid).unwrap();
            assert_eq!(parsed, (place, id.clone()), "{path}");
        }
        let images = layout.image(Place::Images, &id);
        assert_eq!(
            images.backing,
            Path::new("/mnt/disk/backing-images/img-a93b9a55/backing")
        );
        assert_eq!(
            images.raw_seal,
            Path::new("/mnt/disk/backing-images/img-a93b9a55/raw.cfg")
        );
        let work = layout.image(Place::Work, &id);
        assert_eq!(work.backing, Path::new("/mnt/disk/tmp/img-a93b9a55"));
        assert_eq!(work.sidecar, Path::new("/mnt/disk/tmp/img-a93b9a55.cfg"));
        for path in [
            "/data/backing-images/img-a93b9a55",
            "/data/backing-images/img-a93b9a55/backing.cfg",
            "/data/backing-images/img-ffffffff/backing",
            "/data/backing-images/../img-a93b9a55/backing",
            "/data/../data/tmp/img-a93b9a55",
            "/data/tmp/../img-a93b9a55",
            "/data/tmp/x/img-a93b9a55",
            "/data/tmp/.deleting-img-a93b9a55",
            "/data/tmp/img-a93b9a55.cfg",
            "tmp/img-a93b9a55",
            "/etc/img-a93b9a55",
            "/database/tmp/img-a93b9a55",
            "",
        ] {
            let refused = layout.parse_file_path(Path::new(path), &uuid);
            assert!(matches!(refused, Err(Error::InvalidField { .. })), "{path}");
        }
    }

    #[test]
    fn names_of_leftovers_are_never_names_of_things() {
        assert_eq!(EntryName::of(".creating-x"), EntryName::Leftover);
        assert_eq!(EntryName::of(".deleting-x"), EntryName::Leftover);
        assert_eq!(
            EntryName::of(".quarantine-x.1"),
            EntryName::Quarantined("x.1")
        );
        assert_eq!(EntryName::of(".snapshot"), EntryName::Foreign);
        assert_eq!(EntryName::of("x"), EntryName::Item("x"));
    }
}
