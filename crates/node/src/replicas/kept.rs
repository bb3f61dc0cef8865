//! The layouts that a node keeps, with the secrets: one file for each volume, for root alone. They survive a reboot, so
//! that a node makes its parts again without anybody's help.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use host::paths::create_anew;
use replication::{Layout, Secret};
use serde::{Deserialize, Serialize};
use types::{VolumeName, crash_point};

/// The version of the file that this program writes.
const VERSION: u32 = 1;
/// The longest file read, in bytes: 32 members with names of 253 bytes, and as many readers, are less than a fourth.
const SIZE_MAX: u64 = 128 << 10;
const SUFFIX: &str = ".json";

/// The directory of the layouts. It is made when it is needed.
#[derive(Debug)]
pub(super) struct Kept(PathBuf);

/// A layout that is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    version: u32,
    pub(super) layout: Layout,
    pub(super) secret: Secret,
}

impl Entry {
    pub(super) const fn new(layout: Layout, secret: Secret) -> Self {
        Self {
            version: VERSION,
            layout,
            secret,
        }
    }
}

impl Kept {
    pub(super) const fn new(directory: PathBuf) -> Self {
        Self(directory)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// The layout of a volume; `None`: none is kept.
    ///
    /// # Errors
    /// It cannot be read, or is not one.
    pub(super) fn load(&self, volume: &VolumeName) -> io::Result<Option<Entry>> {
        let file = match File::open(self.file(volume)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut bytes = Vec::new();
        file.take(SIZE_MAX).read_to_end(&mut bytes)?;
        // What is wrong with it is not repeated: the text holds a secret.
        let entry: Entry = serde_json::from_slice(&bytes)
            .map_err(|error| invalid(&format!("line {}", error.line())))?;
        if entry.version != VERSION || entry.layout.volume != *volume {
            return Err(invalid("another version, or another volume"));
        }
        Ok(Some(entry))
    }

    /// All layouts. One that cannot be read is said in the log, and passed over.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub(super) fn list(&self) -> io::Result<Vec<Entry>> {
        let entries = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut all = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            let volume = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
            let Some(volume) = volume.and_then(|name| VolumeName::new(name).ok()) else {
                continue;
            };
            match self.load(&volume) {
                Ok(entry) => all.extend(entry),
                Err(error) => {
                    tracing::error!(%volume, "its layout is not readable; the controller puts it again: {error}");
                }
            }
        }
        all.sort_by(|a, b| a.layout.volume.cmp(&b.layout.volume));
        Ok(all)
    }

    /// Keeps a layout in place of the one before.
    pub(super) fn store(&self, entry: &Entry) -> io::Result<()> {
        self.make_directory()?;
        let path = self.file(&entry.layout.volume);
        let new = path.with_extension("new");
        let mut file = create_anew(&new)?;
        file.write_all(&serde_json::to_vec(entry)?)?;
        file.sync_all()?;
        crash_point!("node.replica.written");
        fs::rename(&new, &path)?;
        self.sync()
    }

    /// Forgets a layout; needs no space.
    pub(super) fn remove(&self, volume: &VolumeName) -> io::Result<()> {
        match fs::remove_file(self.file(volume)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => self.sync(),
        }
    }

    /// The name of the work file beside it ends in `.new`, which none of these does.
    fn file(&self, volume: &VolumeName) -> PathBuf {
        self.0.join(format!("{volume}{SUFFIX}"))
    }

    fn make_directory(&self) -> io::Result<()> {
        if self.0.is_dir() {
            return Ok(());
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0)?;
        let parent = self.0.parent().unwrap_or(Path::new("/"));
        File::open(parent)?.sync_all()
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.0)?.sync_all()
    }
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("no layout of ours: {why}"),
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use replication::{Member, MemberId};
    use types::{ByteSize, NodeId};

    use super::*;

    fn entry(volume: &str, generation: u64) -> Entry {
        let layout = Layout {
            volume: VolumeName::new(volume).unwrap(),
            generation,
            size: ByteSize(1 << 20),
            minor: 1000,
            port: 7000,
            members: vec![Member {
                id: MemberId(0),
                node: NodeId::new("a").unwrap(),
                address: "10.0.0.1".parse().unwrap(),
                disk: None,
                create: false,
                apart: false,
                as_first: false,
            }],
            holder: None,
            readers: Vec::new(),
            tls: false,
            day_zero: None,
            initialized: false,
        };
        Entry::new(layout, Secret::new("geheim".to_owned()).unwrap())
    }

    #[test]
    fn layouts_are_for_root_alone_and_never_shown() {
        let root = tempfile::tempdir().unwrap();
        let kept = Kept::new(root.path().join("state/replicas"));
        assert!(kept.list().unwrap().is_empty());
        let (a, b) = (entry("a.json.new", 1), entry("b", 2));
        for one in [&a, &b, &entry("b", 3)] {
            kept.store(one).unwrap();
        }
        kept.store(&b).unwrap();
        assert_eq!(kept.list().unwrap(), [a.clone(), b.clone()]);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(kept.path()), 0o700);
        assert_eq!(mode(&kept.file(&b.layout.volume)), 0o600);
        assert!(!format!("{a:?}").contains("geheim"));
        for _ in 0..2 {
            kept.remove(&a.layout.volume).unwrap();
        }
        assert_eq!(kept.list().unwrap(), [b]);
    }

    #[test]
    fn a_broken_layout_hides_no_other_and_tells_no_secret() {
        let root = tempfile::tempdir().unwrap();
        let kept = Kept::new(root.path().to_owned());
        let (good, bad) = (entry("good", 1), entry("bad", 1));
        kept.store(&good).unwrap();
        for text in ["", "{", r#"{"version":1,"layout":7,"secret":"geheim"}"#] {
            let mut file = File::create(kept.file(&bad.layout.volume)).unwrap();
            file.write_all(text.as_bytes()).unwrap();
            let error = kept.load(&bad.layout.volume).unwrap_err();
            assert!(!error.to_string().contains("geheim"), "{error}");
            assert_eq!(kept.list().unwrap(), std::slice::from_ref(&good));
        }
    }
}
