//! A manager with backup targets, a volume that is easy to compare, and the stores that Longhorn's library wrote.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use proto::storage::v1 as pb;
use tonic::Status;

use crate::command::run;
use crate::manager::{Options, from_backup, from_file, init_disk};
use crate::noise::noise;
use crate::programs::sources;
use crate::s3::{self, ObjectStore, QuirkServer, Scheme};
use crate::{Disk, FileSystem, Manager, Sandbox};

/// Bytes of a block.
pub const BLOCK: u64 = 2 << 20;
/// Bytes of a volume of the tests.
pub const SIZE: u64 = 16 << 20;

/// A disk and its manager, which is told of targets.
#[derive(Debug)]
pub struct BackupSite {
    /// Ended first, so that nobody waits for it.
    pub manager: Manager,
    /// Where its images and volumes are.
    pub disk: Disk,
    /// How it is started again.
    pub options: Options,
}

impl BackupSite {
    /// Starts one with a target `default` at this address.
    pub fn start(sandbox: &Sandbox, address: &str, credentials: Option<PathBuf>) -> Self {
        let disk = Disk::new(sandbox, "disk", FileSystem::Xfs, 1 << 30);
        init_disk(disk.dir());
        let mut options = Options::new(disk.dir())
            .with("--import-dir", sandbox.make_dir("import"))
            .with("--backup-target", format!("default={address}"));
        if let Some(credentials) = credentials {
            options = options.with("--backup-credentials", credentials);
        }
        let manager = Manager::start(sandbox, &options);
        Self {
            manager,
            disk,
            options,
        }
    }

    /// Starts one whose target is an object store, as it is asked through the server with quirks.
    pub fn on_objects(sandbox: &Sandbox, server: &QuirkServer) -> Self {
        let mut credentials = s3::credentials(&server.endpoint());
        if let Scheme::Https { ca } = server.scheme() {
            let ca = fs::read_to_string(ca).expect("the certificate of the authority");
            credentials.insert("AWS_CERT".to_owned(), ca);
        }
        let secret = s3::mount_secret(sandbox, "default", &credentials);
        Self::start(sandbox, &s3::address("some/path"), Some(secret))
    }

    /// Ends the manager as a crash would, and starts it again.
    pub fn crash_and_restart(&mut self, sandbox: &Sandbox) {
        self.manager.process.kill_9();
        self.manager = Manager::start(sandbox, &self.options);
    }

    /// A volume of [`SIZE`] whose blocks of these numbers are noise, and the others holes.
    pub fn volume(&self, sandbox: &Sandbox, name: &str, blocks: &[u64]) {
        let raw = sandbox.path(format!("import/{name}"));
        let file = File::create(&raw).expect("make a file of the test");
        file.set_len(SIZE).expect("make a file of the test");
        for block in blocks {
            file.write_all_at(&noise(block + 1, BLOCK), block * BLOCK)
                .expect("write a file of the test");
        }
        let image = self.manager.make_image(from_file(name, &raw));
        assert_eq!(image.expect("the image").progress, 100);
        self.manager
            .create_volume(name, name, 0)
            .expect("the volume");
    }

    /// Where the bytes of a volume are.
    pub fn file(&self, volume: &str) -> PathBuf {
        self.disk.dir().join("volumes").join(volume).join("volume")
    }

    /// Writes noise over a block of a volume.
    pub fn change(&self, volume: &str, block: u64, seed: u64) {
        let file = File::options().write(true).open(self.file(volume));
        let file = file.expect("the file of a volume");
        file.write_all_at(&noise(seed, BLOCK), block * BLOCK)
            .and_then(|()| file.sync_all())
            .expect("write the file of a volume");
    }

    /// The bytes of a volume.
    pub fn bytes(&self, volume: &str) -> Vec<u8> {
        fs::read(self.file(volume)).expect("read the file of a volume")
    }

    /// Restores a backup of the default target under a name, and gives the bytes of a volume of it.
    pub fn restored(&self, name: &str, volume: &str, backup: &str) -> Result<Vec<u8>, String> {
        let image = self.manager.make_image(from_backup(name, volume, backup));
        let image = image.map_err(|status| status.message().to_owned())?;
        if image.progress != 100 {
            return Err(image.message);
        }
        self.manager
            .create_volume(name, name, 0)
            .expect("a volume of what was restored");
        let bytes = self.bytes(name);
        self.manager.delete_volume(name).expect("delete the volume");
        self.manager.delete_image(name).expect("delete the image");
        Ok(bytes)
    }

    /// The names of the complete backups in the default target, and what is wrong there.
    pub fn complete(&self) -> Result<Vec<String>, Status> {
        let listed = self.manager.list_backups()?;
        let complete = listed.backups.into_iter();
        let complete = complete.filter(|backup| backup.state() == pb::BackupState::Complete);
        Ok(complete.map(|backup| backup.name).collect())
    }
}

/// Keys of the blocks in an object store.
pub fn block_keys(store: &ObjectStore) -> Vec<String> {
    let keys = store.keys("some/path/").into_iter();
    keys.filter(|key| key.strip_suffix(".blk").is_some())
        .collect()
}

/// A store of Longhorn's library, what must come out of it, and 21 stores that somebody has spoilt: unpacked below
/// the sandbox.
pub fn longhorn_stores(sandbox: &Sandbox) -> PathBuf {
    let to = sandbox.make_dir("longhorn-stores");
    let archive = sources().join("crates/backup/tests/data/backup-fixtures.tar.gz");
    let arguments = [
        "-xzf".as_ref(),
        archive.as_os_str(),
        "-C".as_ref(),
        to.as_os_str(),
    ];
    run("tar", arguments);
    to
}

/// The names of the spoilt stores, and what must happen with each: the lines of `expected-hostile.txt`.
pub fn hostile_stores(stores: &Path) -> Vec<(String, String)> {
    let text = fs::read_to_string(stores.join("expected-hostile.txt")).expect("what is expected");
    let lines = text
        .lines()
        .skip(1)
        .filter_map(|line| line.split_once("  "));
    lines
        .map(|(name, expected)| (name.to_owned(), expected.trim().to_owned()))
        .collect()
}
