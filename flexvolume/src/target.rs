//! The directory of a call, where the kubelet expects the volume.

use std::path::{Path, PathBuf};

use types::Sha512;

use crate::error::{Error, Result};
use crate::options::{Options, POD_UID, VOLUME_NAME};

/// An absolute path without detours, and the name of its record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    path: PathBuf,
    id: String,
}

impl Target {
    /// Checks the text of the path; the node looks at the place itself.
    pub(crate) fn new(path: &Path) -> Result<Self> {
        host::paths::check(path)?;
        if path.to_str().is_none() {
            // A record is JSON.
            let why = "the directory is not UTF-8".to_owned();
            return Err(Error::Usage { why });
        }
        // One directory has one record, however its path is written.
        let path: PathBuf = path.components().collect();
        let sum = Sha512::of(path.as_os_str().as_encoded_bytes()).to_string();
        let id = sum[..32].to_owned();
        Ok(Self { path, id })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A file name that no other target has.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Holds the options against the path that the kubelet made: the options of a pod are laid over
    /// the kubelet's own, the path is not.
    pub(crate) fn check(&self, options: &Options) -> Result<()> {
        let parts: Vec<&str> = self
            .path
            .components()
            .filter_map(|part| part.as_os_str().to_str())
            .collect();
        let (volume, uid) = match parts[..] {
            [.., "pods", uid, "volumes", _, volume] => (volume, Some(uid)),
            [.., "kubernetes.io", "flexvolume", _, _, "mounts", volume] => (volume, None),
            _ => return Ok(()),
        };
        let overwritten = |key, value: &str, expected: &str| Error::Overwritten {
            key,
            value: value.to_owned(),
            expected: expected.to_owned(),
        };
        if volume != options.volume.as_str() {
            return Err(overwritten(VOLUME_NAME, options.volume.as_str(), volume));
        }
        let told = options.pod.uid.as_str();
        match uid {
            Some(uid) if !told.is_empty() && uid != told => Err(overwritten(POD_UID, told, uid)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIR: &str = "/var/lib/kubelet/pods/uid-1/volumes/rancher.io~longhorn/flexvol";

    fn options(name: &str, uid: &str) -> Options {
        let map = serde_json::json!({ VOLUME_NAME: name, POD_UID: uid });
        Options::parse(&map.to_string()).unwrap()
    }

    #[test]
    fn paths_that_can_lead_elsewhere_are_refused() {
        let long = format!("/{}", "a".repeat(5000));
        for bad in ["", "a/b", "/", "/a/../b", "/a/..", "..", "/a\0b", &long] {
            assert!(Target::new(Path::new(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn one_directory_has_one_record() {
        let id = |path: &str| Target::new(Path::new(path)).unwrap().id().to_owned();
        assert_eq!(id("/a/b"), id("/a//b/"));
        assert_eq!(id("/a/b"), id("/a/./b"));
        assert_ne!(id("/a/b"), id("/a/c"));
    }

    #[test]
    fn options_of_a_pod_cannot_replace_those_of_the_kubelet() {
        let target = Target::new(Path::new(DIR)).unwrap();
        target.check(&options("flexvol", "uid-1")).unwrap();
        target.check(&options("flexvol", "")).unwrap();
        assert!(target.check(&options("somebody-elses", "uid-1")).is_err());
        assert!(target.check(&options("flexvol", "uid-2")).is_err());
        let global =
            "/var/lib/kubelet/plugins/kubernetes.io/flexvolume/rancher.io/longhorn/mounts/v";
        let target = Target::new(Path::new(global)).unwrap();
        target.check(&options("v", "uid-1")).unwrap();
        assert!(target.check(&options("w", "uid-1")).is_err());
    }
}
