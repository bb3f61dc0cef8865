//! The life of an image and its volumes as a list of requests, and the required state of the disk
//! after each: the measure of every crash, power cut and full disk.
//!
//! ```text
//! state 0 ──request 1──▶ state 1 ──request 2──▶ state 2 … state 12 = state 0
//! ```
//! Whatever happens after request n was acknowledged and before request n+1 was, the disk holds
//! state n or state n+1, whole.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use proto::storage::v1 as pb;
use tonic::Status;

use crate::manager::{NODE, Options, from_file, from_volume};
use crate::{Manager, Sandbox, command};

const MIB: u64 = 1 << 20;
/// What the guest of the image sees.
const VIRTUAL_SIZE: u64 = 8 * MIB;
const GROWN_SIZE: u64 = 16 * MIB;

/// What the disk holds, as a client sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// The image `base` is ready.
    pub image: bool,
    /// Size of the volume `one`, which is made from it.
    pub one: Option<u64>,
    /// Whether `one` is published to the node.
    pub published: bool,
    /// Size of the blank volume `two`.
    pub two: Option<u64>,
    /// Whether the snapshot `snap` of `one` is ready.
    pub snapshot: bool,
    /// The replicas that `one` shall have.
    pub replicas: u32,
}

/// One request of the life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Import `base` from a qcow2 file.
    Import,
    /// Make `one` from it; the first volume also makes the raw form.
    CreateVolume,
    /// Grow `one`.
    Grow,
    /// Take the snapshot `snap` of `one`.
    Snapshot,
    /// Delete it.
    DeleteSnapshot,
    /// Publish `one`.
    Publish,
    /// Ask for two replicas of `one`.
    Modify,
    /// Unpublish `one`.
    Unpublish,
    /// Make the blank `two`.
    CreateBlank,
    /// Delete `two`.
    DeleteBlank,
    /// Delete `one`.
    DeleteVolume,
    /// Delete `base`.
    DeleteImage,
}

/// The whole life, in order.
pub const LIFE: [Request; 12] = [
    Request::Import,
    Request::CreateVolume,
    Request::Grow,
    Request::Snapshot,
    Request::DeleteSnapshot,
    Request::Publish,
    Request::Modify,
    Request::Unpublish,
    Request::CreateBlank,
    Request::DeleteBlank,
    Request::DeleteVolume,
    Request::DeleteImage,
];

/// The state after the first `count` requests of [`LIFE`].
pub fn state_after(count: usize) -> State {
    let mut state = State::default();
    for request in &LIFE[..count] {
        match request {
            Request::Import => state.image = true,
            Request::CreateVolume => (state.one, state.replicas) = (Some(VIRTUAL_SIZE), 1),
            Request::Snapshot => state.snapshot = true,
            Request::DeleteSnapshot => state.snapshot = false,
            Request::Modify => state.replicas = 2,
            Request::Grow => state.one = Some(GROWN_SIZE),
            Request::Publish => state.published = true,
            Request::Unpublish => state.published = false,
            Request::CreateBlank => state.two = Some(MIB),
            Request::DeleteBlank => state.two = None,
            Request::DeleteVolume => (state.one, state.replicas) = (None, 0),
            Request::DeleteImage => state.image = false,
        }
    }
    state
}

/// The image that lives: a qcow2 file for the import, and the raw bytes that it stands for.
#[derive(Debug)]
pub struct Life {
    import_dir: PathBuf,
    qcow2: PathBuf,
    raw: Vec<u8>,
    checksum: String,
}

impl Life {
    /// Makes the image by qemu-img: about half of it data, in pieces.
    pub fn new(sandbox: &Sandbox) -> Self {
        let import_dir = sandbox.make_dir("import");
        let mut raw = vec![0; usize::try_from(VIRTUAL_SIZE).expect("a few MiB")];
        for (number, piece) in raw
            .chunks_mut(256 << 10)
            .enumerate()
            .filter(|(n, _)| n % 2 == 0)
        {
            for (at, byte) in piece.iter_mut().enumerate() {
                // Differs in every chunk and is never zero, so that a lost piece shows.
                *byte = u8::try_from((at ^ (at >> 8) ^ (number * 37)) & 0x7f).expect("seven bits")
                    | 0x80;
            }
        }
        let file = sandbox.write("import/base.raw", &raw);
        let qcow2 = import_dir.join("base.qcow2");
        let convert = ["convert", "-f", "raw", "-O", "qcow2"].map(AsRef::as_ref);
        command::run(
            "qemu-img",
            convert
                .into_iter()
                .chain([file.as_os_str(), qcow2.as_os_str()]),
        );
        let sum = command::run("sha512sum", [&qcow2]);
        let checksum = sum
            .split(' ')
            .next()
            .expect("sha512sum prints the sum first")
            .to_owned();
        Self {
            import_dir,
            qcow2,
            raw,
            checksum,
        }
    }

    /// The options of a manager that may import it.
    pub fn options(&self, disk: &Path) -> Options {
        Options::new(disk).with("--import-dir", &self.import_dir)
    }

    /// SHA-512 of the qcow2 file.
    pub fn checksum(&self) -> &str {
        &self.checksum
    }

    /// Makes one request and waits for its acknowledgement.
    pub fn request(&self, manager: &Manager, request: Request) -> Result<(), Status> {
        match request {
            Request::Import => {
                let image = manager.make_image(from_file("base", &self.qcow2))?;
                if image.state() != pb::State::Ready {
                    return Err(Status::internal(image.message));
                }
            }
            Request::CreateVolume => drop(manager.create_volume("one", "base", 0)?),
            Request::Grow => drop(manager.grow_volume("one", GROWN_SIZE)?),
            Request::Snapshot => {
                let image = manager.make_image(from_volume("snap", "one"))?;
                if image.state() != pb::State::Ready {
                    return Err(Status::internal(image.message));
                }
            }
            Request::DeleteSnapshot => manager.delete_image("snap")?,
            Request::Modify => drop(manager.modify_volume("one", 2)?),
            Request::Publish => drop(manager.publish_volume("one", NODE)?),
            Request::Unpublish => manager.unpublish_volume("one", NODE)?,
            Request::CreateBlank => drop(manager.create_volume("two", "", MIB)?),
            Request::DeleteBlank => manager.delete_volume("two")?,
            Request::DeleteVolume => manager.delete_volume("one")?,
            Request::DeleteImage => manager.delete_image("base")?,
        }
        Ok(())
    }

    /// What the disk holds, every byte of it looked at. Panics on anything that is not whole, and on
    /// anything that nobody asked for.
    #[track_caller]
    pub fn observe(&self, manager: &Manager, disk: &Path) -> State {
        let images = manager.list_images().expect("list the images");
        let volumes = manager.list_volumes().expect("list the volumes");
        let mut state = State::default();
        for image in &images {
            if image.name == "snap" {
                let settled = manager.wait_image("snap").expect("watch the snapshot");
                assert_eq!(settled.state(), pb::State::Ready, "{settled:?}");
                assert_eq!(settled.source_volume, "one");
                let dir = disk.join(format!("backing-images/snap-{}", settled.uuid));
                assert_holds(&dir.join("backing"), GROWN_SIZE, &self.raw);
                state.snapshot = true;
                continue;
            }
            assert_eq!(image.name, "base", "an image that nobody asked for");
            let settled = manager.wait_image("base").expect("watch the image");
            assert_eq!(settled.state(), pb::State::Ready, "{settled:?}");
            assert_eq!(settled.current_checksum, self.checksum);
            let dir = disk
                .join("backing-images")
                .join(format!("base-{}", settled.uuid));
            let backing = fs::read(dir.join("backing")).expect("read the image");
            assert!(
                backing == fs::read(&self.qcow2).expect("read the source"),
                "other bytes"
            );
            state.image = true;
        }
        for volume in &volumes {
            let file = disk.join(&volume.replicas[0].path);
            match volume.name.as_str() {
                "one" => {
                    assert_holds(&file, volume.size, &self.raw);
                    state.one = Some(volume.size);
                    state.published = !volume.published.is_empty();
                    state.replicas = volume.number_of_replicas;
                }
                "two" => {
                    assert_holds(&file, volume.size, &[]);
                    state.two = Some(volume.size);
                }
                other => panic!("a volume that nobody asked for: {other}"),
            }
        }
        assert_no_orphans(disk, images.len(), volumes.len());
        state
    }
}

/// The file has exactly this size and begins with these bytes; the rest is zeros.
#[track_caller]
fn assert_holds(path: &Path, size: u64, begin: &[u8]) {
    let file = File::open(path).unwrap_or_else(|error| panic!("open {}: {error}", path.display()));
    // A crash between growing the file and its record leaves a longer file: that is harmless.
    let length = file.metadata().expect("stat an open file").len();
    assert!(
        length >= size,
        "{} has {length} bytes and offers {size}",
        path.display()
    );
    let mut bytes = vec![0; usize::try_from(length).expect("a few MiB")];
    file.read_exact_at(&mut bytes, 0).expect("read a volume");
    let (image, rest) = bytes.split_at(begin.len());
    assert!(image == begin, "{} does not hold its image", path.display());
    assert!(
        rest.iter().all(|byte| *byte == 0),
        "{} is not zero beyond its image",
        path.display()
    );
}

/// Nothing on the disk but what the lists say.
#[track_caller]
pub fn assert_no_orphans(disk: &Path, images: usize, volumes: usize) {
    let list = |name: &str| -> Vec<PathBuf> {
        let entries = fs::read_dir(disk.join(name))
            .into_iter()
            .flatten()
            .flatten();
        entries.map(|entry| entry.path()).collect()
    };
    let (image_dirs, volume_dirs) = (list("backing-images"), list("volumes"));
    assert_eq!(
        image_dirs.len(),
        images,
        "images of nobody among {image_dirs:?}"
    );
    assert_eq!(
        volume_dirs.len(),
        volumes,
        "volumes of nobody among {volume_dirs:?}"
    );
    let inside = image_dirs.iter().chain(&volume_dirs).flat_map(|dir| {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|entry| entry.path())
    });
    let unfinished = |path: &PathBuf| path.extension().is_some_and(|end| end == "tmp");
    let temporary: Vec<_> = inside.filter(unfinished).chain(list("tmp")).collect();
    assert!(temporary.is_empty(), "half-made files: {temporary:?}");
}
