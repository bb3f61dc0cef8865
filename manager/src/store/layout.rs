//! Every path name on a disk. Nothing else in the program builds one.
//!
//! The names `longhorn-disk.cfg`, `backing-images/<name>-<uuid>/{backing,backing.cfg}` and `tmp/` are
//! Longhorn's; the others are ours. Names that start with a dot are never images or volumes, because
//! the names of those start with a letter or a digit.

use std::path::{Path, PathBuf};

use types::{ImageId, ImageName, ImageUuid, VolumeName};

/// The paths below one disk's directory.
#[derive(Debug, Clone)]
pub struct Layout {
    root: PathBuf,
}

/// The paths of one backing image.
#[derive(Debug, Clone)]
pub struct ImagePaths {
    /// `backing-images/<name>-<uuid>`.
    pub dir: PathBuf,
    /// The bytes as they came.
    pub backing: PathBuf,
    /// The same while they come.
    pub backing_tmp: PathBuf,
    /// The JSON sidecar.
    pub sidecar: PathBuf,
    /// The chunk manifest.
    pub chunks: PathBuf,
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
    /// Its record.
    pub record: PathBuf,
}

/// A directory on its way out: what it held is void once it has this name.
const DELETING: &str = ".deleting-";
/// A volume's directory before it is complete.
const CREATING: &str = ".creating-";
/// A damaged image, set aside for people to look at.
const QUARANTINE: &str = ".quarantine-";

impl Layout {
    /// The layout of the disk at `root`.
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// The disk's directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `{"diskUUID": …}`; a directory without it is not a disk.
    pub fn disk_config(&self) -> PathBuf {
        self.root.join("longhorn-disk.cfg")
    }

    /// The file whose lock says that the disk is served.
    pub fn lock(&self) -> PathBuf {
        self.root.join(".backing-image-manager.lock")
    }

    /// Where the images are.
    pub fn images(&self) -> PathBuf {
        self.root.join("backing-images")
    }

    /// Where the volumes are.
    pub fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }

    /// The paths of an image.
    pub fn image(&self, id: &ImageId) -> ImagePaths {
        let dir = self.images().join(id.to_string());
        ImagePaths {
            backing: dir.join("backing"),
            backing_tmp: dir.join("backing.tmp"),
            sidecar: dir.join("backing.cfg"),
            chunks: dir.join("backing.chunks"),
            raw: dir.join("raw"),
            raw_tmp: dir.join("raw.tmp"),
            raw_seal: dir.join("raw.cfg"),
            dir,
        }
    }

    /// Where an image's directory goes before its files are removed.
    pub fn image_deleting(&self, id: &ImageId) -> PathBuf {
        self.images().join(format!("{DELETING}{id}"))
    }

    /// Where a damaged image's directory is set aside, the `n`th of its name.
    pub fn image_quarantine(&self, id: &ImageId, n: u32) -> PathBuf {
        self.images().join(format!("{QUARANTINE}{id}.{n}"))
    }

    /// The paths of a volume.
    pub fn volume(&self, name: &VolumeName) -> VolumePaths {
        Self::volume_in(self.volumes().join(name.as_str()))
    }

    /// The paths of a volume that is not complete.
    pub fn volume_creating(&self, name: &VolumeName) -> VolumePaths {
        Self::volume_in(self.volumes().join(format!("{CREATING}{name}")))
    }

    /// Where a volume's directory goes before its files are removed.
    pub fn volume_deleting(&self, name: &VolumeName) -> PathBuf {
        self.volumes().join(format!("{DELETING}{name}"))
    }

    fn volume_in(dir: PathBuf) -> VolumePaths {
        VolumePaths {
            data: dir.join("volume"),
            record: dir.join("volume.cfg"),
            dir,
        }
    }

    /// The path of a volume's data relative to the disk: what the node side is told.
    pub fn volume_data_relative(name: &VolumeName) -> String {
        format!("volumes/{name}/volume")
    }
}

/// What the name of an entry in `backing-images/` or `volumes/` says about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryName<'a> {
    /// Something complete.
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
