//! The disk image: a file system created from a directory, a disk of zeros, or an existing image.

use std::fs::File;
use std::path::{Path, PathBuf};

use image::qcow2::CreateOptions;
use image::{Format, Image};
use tree::Tree;
use types::ByteSize;

use super::error::{Error, Result, io};
use super::foreign;
use super::fs::{self, Request};
use super::progress::Progress;
use super::request::{BuildRequest, FileSystem, Source};

/// How often an estimated size is enlarged before giving up. Each time by a quarter.
const ATTEMPTS: u32 = 8;

/// Makes the disk image that `request` asks for in `directory`; a disk image that is to be wrapped as it
/// is stays where it is.
pub(super) fn make(
    request: &BuildRequest,
    directory: &Path,
    progress: &Progress,
) -> Result<PathBuf> {
    let raw = directory.join("disk.raw");
    let (source, format) = match &request.source {
        Source::Disk { path, format } => (path.clone(), *format),
        Source::Foreign { path, kind } => {
            progress.say(&format!("reading {} by qemu-img", path.display()));
            foreign::to_raw(*kind, path, directory, &raw)?;
            (raw, Format::Raw)
        }
        Source::Empty { size } => {
            make_empty(&raw, *size)?;
            (raw, Format::Raw)
        }
        Source::Directory {
            path,
            file_system,
            size,
            label,
            uuid,
        } => {
            progress.say(&format!("reading {}", path.display()));
            let tree = Tree::scan(path)?;
            let what = Wanted {
                file_system: *file_system,
                label,
                uuid: *uuid,
            };
            let (count, name) = (tree.count(), file_system.name());
            progress.say(&format!("making a file system ({name}) of {count} files"));
            make_file_system(&tree, &what, *size, &raw)?;
            fs::check(*file_system, &raw, progress)?;
            (raw, Format::Raw)
        }
    };
    if format == request.format && !request.compress {
        check(&source, format)?;
        return Ok(source);
    }
    convert(request, &source, format, directory, progress)
}

fn make_empty(path: &Path, size: u64) -> Result<File> {
    let mut options = File::options();
    let options = options.read(true).write(true).create(true).truncate(true);
    let file = options.open(path).map_err(io("make", path))?;
    match file.set_len(size) {
        Err(error) if error.kind() == std::io::ErrorKind::FileTooLarge => {
            Err(Error::ScratchLimit {
                path: path.to_owned(),
                size,
            })
        }
        result => result.map_err(io("enlarge", path)).map(|()| file),
    }
}

/// What kind of file system is wanted.
struct Wanted<'a> {
    file_system: FileSystem,
    label: &'a str,
    uuid: Option<[u8; 16]>,
}

/// Makes the file system, in the size given or the smallest that the estimate finds.
fn make_file_system(tree: &Tree, wanted: &Wanted, size: Option<u64>, path: &Path) -> Result<()> {
    let attempt = |size: u64| {
        let image = make_empty(path, size)?;
        let random = match wanted.file_system {
            FileSystem::Btrfs => fs::random_uuid(),
            _ => None,
        };
        let uuid = wanted.uuid.or(random);
        let uuid = uuid.unwrap_or_else(|| uuid_of(tree, wanted, size));
        let label = wanted.label;
        fs::make(
            wanted.file_system,
            &Request {
                tree,
                size,
                label,
                uuid,
                image: &image,
                path,
            },
        )
    };
    if let Some(size) = size {
        return attempt(size);
    }
    let mut size = fs::needed(wanted.file_system, tree);
    for _ in 1..ATTEMPTS {
        match attempt(size.bytes()) {
            Err(Error::TooSmall { needed, .. }) => {
                let larger = ByteSize(size.bytes().saturating_add(size.bytes() / 4));
                size = larger.max(needed).round_up(1 << 20).unwrap_or(needed);
            }
            result => return result,
        }
    }
    attempt(size.bytes())
}

/// A uuid that follows from what goes in (the contents of files excepted, so that it is known before
/// they are read), and from the kind, size and label of the file system.
fn uuid_of(tree: &Tree, wanted: &Wanted, size: u64) -> [u8; 16] {
    let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
    let (name, label) = (wanted.file_system.name(), wanted.label);
    hash.update(format!("base image uuid 1\0{name}\0{size}\0{label}\0").as_bytes());
    tree.digest(&mut hash);
    fs::uuid_from(hash)
}

/// Whether an image can be opened at all: better told now than by whoever pulls it.
fn check(path: &Path, format: Format) -> Result<()> {
    open(path, format).map(|_| ())
}

fn open(path: &Path, format: Format) -> Result<Image> {
    let file = File::open(path).map_err(io("open", path))?;
    Image::open(file, format).map_err(|source| Error::Image {
        path: path.to_owned(),
        source,
    })
}

/// Makes the image in the format that is wanted from one in another.
fn convert(
    request: &BuildRequest,
    source: &Path,
    format: Format,
    directory: &Path,
    progress: &Progress,
) -> Result<PathBuf> {
    let image = open(source, format)?;
    let path = directory.join("disk.image");
    let mut options = File::options();
    let options = options.read(true).write(true).create_new(true);
    let mut out = options.open(&path).map_err(io("make", &path))?;
    let compressed = if request.compress { "compressed " } else { "" };
    progress.say(&format!("making a {compressed}{} image", request.format));
    let made = match request.format {
        Format::Qcow2 => {
            let compression = request.compress.then_some(image::qcow2::Compression::Zlib);
            let options = CreateOptions {
                compression,
                ..CreateOptions::default()
            };
            image::qcow2::create(&image, &mut out, &options)
        }
        Format::Raw => image::convert::to_raw(&image, &out, &mut |_| {}, &|| false).map(drop),
    };
    made.map_err(|source| Error::Image {
        path: path.clone(),
        source,
    })?;
    Ok(path)
}
