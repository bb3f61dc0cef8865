//! What a node keeps of its volumes, secrets included: one file for each, for root alone. It survives a reboot, so that
//! a node makes its devices again without anybody's help.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::marker::PhantomData;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use host::paths::create_anew;
use serde::Serialize;
use serde::de::DeserializeOwned;
use types::{VolumeName, crash_point};

/// The longest file read, in bytes: 32 members with names of 253 bytes, and as many readers, are less than a fourth.
const SIZE_MAX: u64 = 128 << 10;
const SUFFIX: &str = ".json";
/// What follows the name in place of that when the file says what is to be taken back.
const OWED: &str = ".owed";

/// The same of the work file beside them.
const WORK: &str = ".new";

/// What is kept of a volume.
pub(crate) trait Entry: Serialize + DeserializeOwned {
    /// Whose it is.
    fn volume(&self) -> &VolumeName;
    /// Whether this program understands it.
    fn is_known(&self) -> bool;
}

/// A directory of entries. It is made when it is needed.
#[derive(Debug)]
pub(crate) struct Kept<T> {
    directory: PathBuf,
    of: PhantomData<fn() -> T>,
}

impl<T: Entry> Kept<T> {
    pub(crate) const fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            of: PhantomData,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.directory
    }

    /// What is kept of a volume; `None`: nothing.
    ///
    /// # Errors
    /// It cannot be read, or is not one.
    pub(crate) fn load(&self, volume: &VolumeName) -> io::Result<Option<T>> {
        Self::read(&self.file(volume, SUFFIX), volume)
    }

    /// What was kept of a volume, and is to be taken back; `None`: nothing.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub(crate) fn owed(&self, volume: &VolumeName) -> io::Result<Option<T>> {
        Self::read(&self.file(volume, OWED), volume)
    }

    fn read(path: &Path, volume: &VolumeName) -> io::Result<Option<T>> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut bytes = Vec::new();
        file.take(SIZE_MAX).read_to_end(&mut bytes)?;
        // What is wrong with it is not repeated: the text holds a secret.
        let entry: T = serde_json::from_slice(&bytes)
            .map_err(|error| invalid(&format!("line {}", error.line())))?;
        if !entry.is_known() || entry.volume() != volume {
            return Err(invalid("another version, or another volume"));
        }
        Ok(Some(entry))
    }

    /// All entries. One that cannot be read is said in the log, and passed over.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub(crate) fn list(&self) -> io::Result<Vec<T>> {
        let mut all = Vec::new();
        for volume in self.names()? {
            match self.load(&volume) {
                Ok(entry) => all.extend(entry),
                Err(error) => {
                    let directory = self.directory.display();
                    tracing::error!(%volume, %directory, "what is kept of it is not readable: {error}");
                }
            }
        }
        Ok(all)
    }

    /// The volumes that something is kept of, in their order.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub(crate) fn names(&self) -> io::Result<Vec<VolumeName>> {
        self.named(SUFFIX)
    }

    /// The volumes of which something is to be taken back.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub(crate) fn debtors(&self) -> io::Result<Vec<VolumeName>> {
        self.named(OWED)
    }

    fn named(&self, suffix: &str) -> io::Result<Vec<VolumeName>> {
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut all = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            let volume = name.to_str().and_then(|name| name.strip_suffix(suffix));
            all.extend(volume.and_then(|name| VolumeName::new(name).ok()));
        }
        all.sort();
        Ok(all)
    }

    /// Keeps an entry in place of the one before.
    pub(crate) fn store(&self, entry: &T) -> io::Result<()> {
        self.make_directory()?;
        let path = self.file(entry.volume(), SUFFIX);
        let new = self.file(entry.volume(), WORK);
        let mut file = create_anew(&new)?;
        file.write_all(&serde_json::to_vec(entry)?)?;
        file.sync_all()?;
        crash_point!("node.kept.written");
        fs::rename(&new, &path)?;
        self.sync()
    }

    /// Forgets an entry; needs no space.
    pub(crate) fn remove(&self, volume: &VolumeName) -> io::Result<()> {
        self.remove_work(volume)?;
        self.remove_file(&self.file(volume, SUFFIX))
    }

    /// Makes of an entry, readable or not, one that is to be taken back; needs no space. Fine when there is none.
    pub(crate) fn owe(&self, volume: &VolumeName) -> io::Result<()> {
        self.remove_work(volume)?;
        match fs::rename(self.file(volume, SUFFIX), self.file(volume, OWED)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => self.sync(),
        }
    }

    /// What was owed is taken back; needs no space.
    pub(crate) fn forgive(&self, volume: &VolumeName) -> io::Result<()> {
        self.remove_file(&self.file(volume, OWED))
    }

    /// A kill in the middle of [`Self::store`] leaves it, with all that it would have kept.
    fn remove_work(&self, volume: &VolumeName) -> io::Result<()> {
        self.remove_file(&self.file(volume, WORK))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => self.sync(),
        }
    }

    fn file(&self, volume: &VolumeName, suffix: &str) -> PathBuf {
        self.directory.join(format!("{volume}{suffix}"))
    }

    fn make_directory(&self) -> io::Result<()> {
        if self.directory.is_dir() {
            return Ok(());
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.directory)?;
        let parent = self.directory.parent().unwrap_or(Path::new("/"));
        File::open(parent)?.sync_all()
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.directory)?.sync_all()
    }
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("no record of ours: {why}"),
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use replication::{Layout, Member, MemberId, Secret};
    use types::{ByteSize, NodeId};

    use super::*;
    use crate::replicas::Prepared;

    fn entry(volume: &str, generation: u64) -> Prepared {
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
        Prepared::new(layout, Secret::new("geheim".to_owned()).unwrap())
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
        assert_eq!(mode(&kept.file(&b.layout.volume, SUFFIX)), 0o600);
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
            let mut file = File::create(kept.file(&bad.layout.volume, SUFFIX)).unwrap();
            file.write_all(text.as_bytes()).unwrap();
            let error = kept.load(&bad.layout.volume).unwrap_err();
            assert!(!error.to_string().contains("geheim"), "{error}");
            assert_eq!(kept.list().unwrap(), std::slice::from_ref(&good));
        }
    }
}
