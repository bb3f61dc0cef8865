//! The options of a build, checked before anything is made.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use image::Format;
use types::{BLOCK, ByteSize};

use super::{BuildArgs, DiskFormat};
use crate::error::{Error, Result, io};
use crate::foreign::{self, Foreign};
use crate::location::Location;
use crate::request::{BuildRequest, FileSystem, Source};

/// The longest name of the file in the image, in bytes: with its directory it fits into the oldest
/// form of a tar header.
const MAX_NAME: usize = 80;

impl BuildArgs {
    /// Checks the options and looks at what `--from` is.
    pub(super) fn check(&self) -> Result<BuildRequest> {
        let args = self;
        let source = source(args)?;
        let own = match &source {
            Source::Disk { format, .. } => *format,
            Source::Directory { .. } | Source::Foreign { .. } | Source::Empty { .. } => {
                Format::Qcow2
            }
        };
        let format = match args.format {
            Some(DiskFormat::Qcow2) => Format::Qcow2,
            Some(DiskFormat::Raw) => Format::Raw,
            None => own,
        };
        if args.compress && format == Format::Raw {
            return Err(option(
                "--compress",
                "is for qcow2; leave it out or give --format qcow2",
            ));
        }
        let outputs: Vec<_> = args
            .output
            .iter()
            .map(|text| Location::parse("--output", text))
            .collect::<Result<_>>()?;
        for place in &outputs {
            check_output(place)?;
        }
        Ok(BuildRequest {
            name: name(args, format)?,
            source,
            format,
            compress: args.compress,
            outputs,
            tag: args.tag.as_deref().map(tag).transpose()?,
            platform: args
                .platform
                .parse()
                .map_err(|error| option("--platform", &format!("is not valid: {error}")))?,
            layer_compression: args.layer_compression,
            chunk_size: args.chunk_size,
            access: args.registry.access()?,
        })
    }
}

fn option(option: &'static str, problem: &str) -> Error {
    Error::Option {
        option,
        problem: problem.to_owned(),
    }
}

fn source(args: &BuildArgs) -> Result<Source> {
    let size = args.size.map(whole_blocks).transpose()?;
    let Some(path) = args.from.clone() else {
        return match (args.fs, size) {
            (Some(FileSystem::None), Some(size)) => {
                refuse_for(args, "an empty disk")?;
                Ok(Source::Empty { size })
            }
            (Some(FileSystem::None), None) => Err(option(
                "--size",
                "is missing: an empty disk has no size of its own",
            )),
            _ => Err(option(
                "--from",
                "is missing: name a directory or a disk image, or give --fs none for an empty disk",
            )),
        };
    };
    let metadata = fs::metadata(&path).map_err(io("open", &path))?;
    if metadata.is_dir() {
        let file_system = args.fs.unwrap_or(FileSystem::Ext4);
        if file_system == FileSystem::None {
            let problem = "none keeps no files of a directory: leave --from out for an empty \
                           disk, or choose ext4, xfs or btrfs";
            return Err(option("--fs", problem));
        }
        let label = args.label.clone().unwrap_or_default();
        check_label(file_system, &label)?;
        let uuid = args.uuid.as_deref().map(parse_uuid).transpose()?;
        return Ok(Source::Directory {
            path,
            file_system,
            size,
            label,
            uuid,
        });
    }
    let device = metadata.file_type().is_block_device();
    if !metadata.is_file() && !device {
        let problem = "is neither a directory nor a regular file nor a block device";
        return Err(option("--from", problem));
    }
    if args.fs.is_some() || args.size.is_some() {
        let problem = "is for directories and empty disks; a disk image is packaged unchanged";
        return Err(option(
            if args.fs.is_some() { "--fs" } else { "--size" },
            problem,
        ));
    }
    refuse_for(args, "a disk image")?;
    let file = fs::File::open(&path).map_err(io("open", &path))?;
    let kind = if device {
        Some(Foreign::Device)
    } else {
        foreign::look(&path, &file)?
    };
    if let Some(kind) = kind {
        return Ok(Source::Foreign { path, kind });
    }
    let told = match args.format {
        Some(DiskFormat::Raw) => Ok(()),
        _ => image::refuse_no_disk(&file),
    };
    let told = told.and_then(|()| Format::detect(&file));
    let format = told.map_err(|source| Error::Image {
        path: path.clone(),
        source,
    })?;
    Ok(Source::Disk { path, format })
}

/// Options that only a file system has.
fn refuse_for(args: &BuildArgs, what: &str) -> Result<()> {
    let given = if args.label.is_some() {
        "--label"
    } else if args.uuid.is_some() {
        "--uuid"
    } else {
        return Ok(());
    };
    Err(option(
        given,
        &format!("is for a file system that the builder creates, not for {what}"),
    ))
}

/// A size as volumes have it: in whole blocks, and not nothing.
fn whole_blocks(size: ByteSize) -> Result<u64> {
    let size = size.round_up(BLOCK).map_or(0, ByteSize::bytes);
    let max = image::Limits::default().virtual_size_max.bytes();
    if size == 0 || size > max {
        return Err(option(
            "--size",
            &format!("must be between 1 byte and {max} bytes"),
        ));
    }
    Ok(size)
}

fn check_label(file_system: FileSystem, label: &str) -> Result<()> {
    let max = match file_system {
        FileSystem::Ext4 => 16,
        FileSystem::Xfs => 12,
        FileSystem::Btrfs => 255,
        FileSystem::None => 0,
    };
    if label.len() > max {
        let problem = format!(
            "has {} bytes; {} supports {max}",
            label.len(),
            file_system.name()
        );
        return Err(option("--label", &problem));
    }
    let plain = |c: char| !c.is_control() && c != '/';
    if !label.chars().all(plain) || label.starts_with('-') {
        return Err(option(
            "--label",
            "must not hold '/' or control characters, or start with '-'",
        ));
    }
    Ok(())
}

fn parse_uuid(text: &str) -> Result<[u8; 16]> {
    let problem = || {
        option(
            "--uuid",
            "must look like 123e4567-e89b-12d3-a456-426614174000",
        )
    };
    let groups: Vec<usize> = text.split('-').map(str::len).collect();
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    if groups != [8, 4, 4, 4, 12] || digits.len() != 32 || digits.iter().all(|digit| *digit == 0) {
        return Err(problem());
    }
    let mut uuid = [0; 16];
    for (byte, pair) in uuid.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::try_from(pair[0] << 4 | pair[1]).map_err(|_| problem())?;
    }
    Ok(uuid)
}

fn name(args: &BuildArgs, format: Format) -> Result<String> {
    let name = match (&args.name, &args.from) {
        (Some(name), _) => name.clone(),
        (None, Some(from)) => default_name(from, format),
        (None, None) => format!("empty.{format}"),
    };
    let plain = |c: char| c.is_ascii_graphic() && c != '/';
    let hidden = name.starts_with('.');
    if name.is_empty() || name.len() > MAX_NAME || hidden || !name.chars().all(plain) {
        let problem = format!(
            "{name:?} cannot be the file's name: 1 to {MAX_NAME} visible ASCII characters, no '/', \
             not starting with '.'"
        );
        return Err(option("--name", &problem));
    }
    Ok(name)
}

/// The last part of the path, with the format's ending; what cannot be in a name becomes `_`.
fn default_name(from: &Path, format: Format) -> String {
    let full = from.canonicalize().unwrap_or_else(|_| from.to_owned());
    let stem = full
        .file_stem()
        .map_or("disk".into(), std::ffi::OsStr::to_string_lossy);
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || "-_.".contains(c) {
            c
        } else {
            '_'
        }
    };
    let stem: String = stem.chars().map(plain).take(MAX_NAME - 10).collect();
    let stem = stem.trim_start_matches('.');
    format!("{}.{format}", if stem.is_empty() { "disk" } else { stem })
}

/// A name with its tag, as both Docker and OCI layouts take it.
fn tag(text: &str) -> Result<String> {
    let reference: fetch::Reference = text.parse().map_err(|source| Error::Fetch {
        what: "use the name of --tag",
        source,
    })?;
    if reference.digest().is_some() {
        return Err(option("--tag", "is a name and a tag, without a digest"));
    }
    let last = text.rsplit('/').next().unwrap_or(text);
    Ok(if last.contains(':') {
        text.to_owned()
    } else {
        format!("{text}:latest")
    })
}

/// What can be said of an output before the work is done.
fn check_output(place: &Location) -> Result<()> {
    if matches!(place, Location::File(_)) {
        let problem = "file: is a bare disk image; write oci-layout:, oci-archive: or \
                       docker-archive:, or use qemu-img";
        return Err(option("--output", problem));
    }
    let Some(path) = place.path() else {
        return Ok(());
    };
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    if !parent.is_dir() {
        let problem = format!(
            "{} is in a directory that does not exist; make it first",
            path.display()
        );
        return Err(option("--output", &problem));
    }
    Ok(())
}
