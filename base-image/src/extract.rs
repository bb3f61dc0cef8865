//! Brings the disk image out of a base image into a file of our own.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use fetch::{BlockingReader, Reference};
use image::layer::{self, Directory, Input, Limits, Sink};
use image::oci::{Digest, Package, Platform};
use image::packed::{self, Packing, Unpacked};
use types::{Classify, ErrorKind};

use super::error::{Error, Result, io};
use super::progress::Progress;
use super::registry::Registry;

/// Zeros in whole blocks of this many bytes become holes, so that a large raw image takes no more
/// room than what is in it.
const BLOCK: usize = 64 << 10;

/// A disk image that was taken out of a container image.
#[derive(Debug)]
pub(super) struct Extracted {
    /// The container image by its manifest (of `docker save`: by its config).
    pub(super) digest: Digest,
    /// Where the disk image was: `base_image/example.qcow2`.
    pub(super) name: String,
    /// Bytes of all layers, as they are packed.
    pub(super) packed: Option<u64>,
    pub(super) layers: usize,
}

pub(super) fn from_registry(
    registry: &Registry,
    reference: &Reference,
    platform: &Platform,
    out: &File,
    progress: &Progress,
) -> Result<Extracted> {
    let failed = |source| Error::Fetch {
        what: "read the image",
        source,
    };
    let resolving = registry
        .client
        .resolve(reference, platform, &registry.credentials);
    let resolved = registry.wait(resolving).map_err(failed)?;
    progress.say(&format!(
        "reading {} bytes of {reference}",
        resolved.packed_size()
    ));
    let mut pass = 0;
    let found = loop {
        let inputs = resolved.layers.iter().rev().map(|layer| {
            let blob = registry.client.blob(&resolved, layer, pass);
            Input {
                name: layer.digest.to_string(),
                packing: layer.packing,
                digest: Some(layer.digest.clone()),
                diff_id: layer.diff_id.clone(),
                bare: layer.bare,
                reader: Box::new(BlockingReader::spawn(registry.handle(), blob.into_stream())),
            }
        });
        match layer::find(inputs, Limits::default(), &mut Out::new(out)) {
            Ok(found) => break found,
            Err(error) => {
                pass += 1;
                if pass >= fetch::Error::in_chain(&error).map_or(1, fetch::Error::passes) {
                    return Err(Error::Layers { source: error });
                }
            }
        }
    };
    Ok(Extracted {
        digest: resolved.manifest_digest.clone(),
        name: name(&found),
        packed: Some(resolved.packed_size()),
        layers: resolved.layers.len(),
    })
}

/// From a layout or an archive on this machine.
pub(super) fn from_package(
    path: &Path,
    open: impl FnOnce(File, &Path) -> std::result::Result<Package, image::oci::Error>,
    name_and_tag: Option<&str>,
    platform: &Platform,
    out: &File,
) -> Result<Extracted> {
    let failed = |source| Error::Container { source };
    let file = File::open(path).map_err(io("open", path))?;
    let package = open(file, path).map_err(failed)?;
    let image = package.select(name_and_tag, platform).map_err(failed)?;
    let inputs = package.inputs(&image).map_err(failed)?;
    let found = layer::find(inputs, Limits::default(), &mut Out::new(out))
        .map_err(|source| Error::Layers { source })?;
    let sizes = image.layers.iter().map(|layer| layer.size);
    Ok(Extracted {
        name: name(&found),
        packed: sizes.sum(),
        layers: image.layers.len(),
        digest: image.digest,
    })
}

/// A disk image that lies packed in its container image, unpacked into a file without a name, as the
/// daemon does it; any other as it is.
pub(super) fn unpacked(file: File, name: &str) -> Result<File> {
    let failed = |source: std::io::Error| Error::Image {
        path: name.into(),
        source: match source.downcast() {
            Ok(error) => error,
            Err(source) => image::Error::Io {
                operation: "unpack it",
                source,
            },
        },
    };
    let mut head = [0; packed::HEAD];
    let read = file.read_at(&mut head, 0).map_err(failed)?;
    let packing = Packing::of(&head[..read]);
    if packing == Packing::Plain {
        return Ok(file);
    }
    let directory = std::env::temp_dir();
    let out = tempfile::tempfile_in(&directory).map_err(io("make a file in", directory))?;
    (&file).rewind().map_err(failed)?;
    let unpacked = Unpacked::new(file, packing, packed::Limits::default());
    let mut unpacked = unpacked.map_err(|error| failed(error.into()))?;
    let (mut sink, mut buffer) = (Out::new(&out), vec![0; BLOCK]);
    loop {
        let count = unpacked.read(&mut buffer).map_err(failed)?;
        let written = if count > 0 {
            sink.write(&buffer[..count])
        } else {
            sink.end()
        };
        written.map_err(|WriteError(source)| io("write", name)(source))?;
        if count == 0 {
            return Ok(out);
        }
    }
}

fn name(found: &layer::Found) -> String {
    format!("{}/{}", found.directory.name(), found.name)
}

/// The file that the disk image goes into.
struct Out<'a> {
    file: &'a File,
    at: u64,
    /// A whole block, or what will be one.
    block: Vec<u8>,
}

/// Why it cannot go there.
#[derive(Debug, thiserror::Error)]
#[error("cannot write a temporary file; set TMPDIR to a directory with more space")]
struct WriteError(#[source] std::io::Error);

impl Classify for WriteError {
    fn kind(&self) -> ErrorKind {
        Classify::kind(&self.0)
    }
}

impl<'a> Out<'a> {
    fn new(file: &'a File) -> Self {
        Self {
            file,
            at: 0,
            block: Vec::with_capacity(BLOCK),
        }
    }

    fn put_block(&mut self) -> std::result::Result<(), WriteError> {
        if self.block.iter().any(|byte| *byte != 0) {
            self.file
                .write_all_at(&self.block, self.at)
                .map_err(WriteError)?;
        }
        self.at += self.block.len() as u64;
        self.block.clear();
        Ok(())
    }
}

impl Sink for Out<'_> {
    type Error = WriteError;

    fn begin(
        &mut self,
        _: Directory,
        _: &str,
        _: Option<u64>,
    ) -> std::result::Result<(), WriteError> {
        self.discard()
    }

    fn write(&mut self, mut bytes: &[u8]) -> std::result::Result<(), WriteError> {
        while !bytes.is_empty() {
            let count = bytes.len().min(BLOCK - self.block.len());
            self.block.write_all(&bytes[..count]).map_err(WriteError)?;
            bytes = &bytes[count..];
            if self.block.len() == BLOCK {
                self.put_block()?;
            }
        }
        Ok(())
    }

    fn hole(&mut self, length: u64) -> std::result::Result<(), WriteError> {
        self.put_block()?;
        self.at += length;
        Ok(())
    }

    fn end(&mut self) -> std::result::Result<(), WriteError> {
        self.put_block()?;
        // A hole at the end has no block.
        self.file.set_len(self.at).map_err(WriteError)
    }

    fn discard(&mut self) -> std::result::Result<(), WriteError> {
        (self.at, self.block) = (0, Vec::with_capacity(BLOCK));
        self.file.set_len(0).map_err(WriteError)
    }
}
