//! `base-image inspect`: the content of a base image, as text or JSON.

use std::fmt::Write as _;
use std::fs::File;

use image::oci::Package;
use image::{Format, Image};
use probe::{Content, Disk};
use serde::Serialize;
use types::ByteSize;

use super::error::{Error, Result, io};
use super::extract::{self, Extracted};
use super::location::Location;
use super::progress::Progress;
use super::registry::Registry;
use super::request::InspectRequest;

/// What is told. Absent is what does not exist: a bare file has no digest.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Inspection {
    reference: String,
    /// Of the manifest; what `docker save` writes has none and is known by its config.
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    layers: Option<usize>,
    /// Bytes of all layers, as they travel.
    #[serde(skip_serializing_if = "Option::is_none")]
    packed_size: Option<u64>,
    file: String,
    format: String,
    /// Bytes of the disk that a guest sees.
    virtual_size: u64,
    /// Bytes of the disk image itself.
    real_size: u64,
    content: Contents,
}

/// What the disk holds.
#[derive(Debug, Serialize)]
#[serde(
    tag = "type",
    rename_all = "kebab-case",
    rename_all_fields = "camelCase"
)]
enum Contents {
    FileSystem {
        fs_type: String,
        label: String,
        uuid: String,
        /// Why no node mounts it.
        #[serde(skip_serializing_if = "Option::is_none")]
        refused: Option<String>,
    },
    PartitionTable {
        table: String,
        partitions: Vec<Partition>,
    },
    Other {
        what: String,
    },
    Ambiguous {
        signatures: Vec<String>,
    },
    Unknown,
    Blank,
}

#[derive(Debug, Serialize)]
struct Partition {
    number: u32,
    /// In bytes.
    start: u64,
    size: u64,
    kind: String,
}

/// Looks into a base image; returns what to print.
pub(super) fn run(request: &InspectRequest) -> Result<String> {
    let (file, name, brought) = if let Location::File(path) = &request.place {
        let name = path
            .file_name()
            .map_or("".into(), std::ffi::OsStr::to_string_lossy);
        (
            File::open(path).map_err(io("open", path))?,
            name.into_owned(),
            None,
        )
    } else {
        let directory = std::env::temp_dir();
        let file = tempfile::tempfile_in(&directory).map_err(io("make a file in", directory))?;
        let brought = bring(request, &file)?;
        let file = extract::unpacked(file, &brought.name)?;
        (file, brought.name.clone(), Some(brought))
    };
    let inspection = look(&request.reference, file, name, brought)?;
    if request.json {
        let json = serde_json::to_string_pretty(&inspection);
        return Ok(json.expect("the structure has string keys only") + "\n");
    }
    Ok(inspection.table())
}

fn bring(request: &InspectRequest, out: &File) -> Result<Extracted> {
    let (tag, platform) = (request.tag.as_deref(), &request.platform);
    match &request.place {
        Location::Registry(reference) => {
            let registry = Registry::new(&request.access, reference)?;
            extract::from_registry(&registry, reference, platform, out, &Progress::new())
        }
        Location::OciLayout(path) => {
            extract::from_package(path, Package::layout, tag, platform, out)
        }
        Location::OciArchive(path) | Location::DockerArchive(path) | Location::File(path) => {
            extract::from_package(path, Package::archive, tag, platform, out)
        }
    }
}

fn look(
    reference: &str,
    file: File,
    name: String,
    brought: Option<Extracted>,
) -> Result<Inspection> {
    let failed = |source| Error::Image {
        path: name.clone().into(),
        source,
    };
    let real_size = file.metadata().map_err(io("open", &name))?.len();
    image::refuse_no_disk(&file).map_err(failed)?;
    let format = Format::detect(&file).map_err(failed)?;
    let disk = Image::open(file, format).map_err(failed)?;
    let content = contents(&disk).map_err(io("read", &name))?;
    Ok(Inspection {
        reference: reference.to_owned(),
        digest: brought.as_ref().map(|brought| brought.digest.to_string()),
        layers: brought.as_ref().map(|brought| brought.layers),
        packed_size: brought.and_then(|brought| brought.packed),
        format: format.to_string(),
        virtual_size: disk.size(),
        real_size,
        content,
        file: name,
    })
}

fn contents(disk: &dyn Disk) -> std::io::Result<Contents> {
    Ok(match probe::probe(disk)? {
        Content::FileSystem {
            fs_type,
            label,
            uuid,
            refused,
        } => Contents::FileSystem {
            fs_type: fs_type.to_string(),
            label,
            uuid,
            refused,
        },
        Content::PartitionTable { table } => {
            let partitions = probe::partitions(disk)?
                .into_iter()
                .map(|partition| Partition {
                    number: partition.number,
                    start: partition.start,
                    size: partition.len,
                    kind: partition.kind,
                });
            Contents::PartitionTable {
                table: table.into(),
                partitions: partitions.collect(),
            }
        }
        Content::Other { what } => Contents::Other { what: what.into() },
        Content::Ambiguous(signatures) => Contents::Ambiguous { signatures },
        Content::Unknown => Contents::Unknown,
        Content::Blank => Contents::Blank,
    })
}

impl Inspection {
    fn table(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: &str| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name:<14} {}", printable(value));
        };
        line("Reference", &self.reference);
        if let Some(digest) = &self.digest {
            line("Digest", digest);
        }
        if let Some(layers) = self.layers {
            let packed = self
                .packed_size
                .map(|size| format!(", {size} bytes packed"));
            line("Layers", &format!("{layers}{}", packed.unwrap_or_default()));
        }
        line("File", &self.file);
        line("Format", &self.format);
        line("Virtual size", &ByteSize(self.virtual_size).to_string());
        line("Real size", &ByteSize(self.real_size).to_string());
        match &self.content {
            Contents::FileSystem {
                fs_type,
                label,
                uuid,
                refused,
            } => {
                line("File system", fs_type);
                if let Some(why) = refused {
                    line("Not mounted", why);
                }
                line("Label", if label.is_empty() { "-" } else { label });
                line("UUID", if uuid.is_empty() { "-" } else { uuid });
            }
            Contents::PartitionTable { table, partitions } => {
                line(
                    "Partitions",
                    &format!("{} in a {table} table", partitions.len()),
                );
                for Partition {
                    number,
                    start,
                    size,
                    kind,
                } in partitions
                {
                    line(
                        "",
                        &format!("{number}: {size} bytes at {start}, type {kind}"),
                    );
                }
            }
            Contents::Other { what } => line("Holds", &format!("{what}, no file system")),
            Contents::Ambiguous { signatures } => {
                line(
                    "Holds",
                    &format!("several signatures: {}", signatures.join(", ")),
                );
            }
            Contents::Unknown => line("Holds", "data that no known file system explains"),
            Contents::Blank => line("Holds", "nothing: it is blank"),
        }
        text
    }
}

/// What somebody else named, safe for a terminal.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{FFFD}' } else { c })
        .collect()
}
