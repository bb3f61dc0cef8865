//! The one layer of a base image: a tar stream with `base_image/` and the disk image in it, packed
//! and hashed in one pass.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use image::oci::{Algorithm, Digest, Hasher};

use super::error::{Error, Result, io};
use super::progress::Progress;
use super::request::LayerCompression;

/// The compression level of zstd: its own default. Most of a disk image is either data that somebody
/// compressed already or zeros; unpacking is as fast at any level.
const ZSTD_LEVEL: i32 = 3;
/// Where everything is in the image; Longhorn looks there.
const DIRECTORY: &str = "base_image/";

/// A packed layer in a file.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) path: PathBuf,
    /// Of the packed bytes.
    pub(super) digest: Digest,
    pub(super) size: u64,
    /// Of the tar stream.
    pub(super) diff_id: Digest,
    pub(super) compression: LayerCompression,
}

impl LayerCompression {
    /// The media type of a layer that is packed so (OCI image specification 1.1).
    pub(super) fn media_type(self) -> &'static str {
        match self {
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::None => "application/vnd.oci.image.layer.v1.tar",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
            Self::None => "tar",
        }
    }
}

/// Packs the disk image `disk` as `base_image/NAME` into a file in `directory`.
pub(super) fn pack(
    disk: &Path,
    name: &str,
    compression: LayerCompression,
    directory: &Path,
    progress: &Progress,
) -> Result<Layer> {
    let path = directory.join(format!("layer.{}", compression.name()));
    let failed = |source| Error::Io {
        operation: "write",
        path: path.clone(),
        source,
    };
    let out = File::create_new(&path).map_err(io("make", &path))?;
    let packed = Hashing::new(BufWriter::with_capacity(1 << 20, out));
    let (packed, diff_id) = match compression {
        LayerCompression::None => {
            let tar = write_tar(Hashing::new(packed), disk, name, progress)?;
            tar.split()
        }
        LayerCompression::Gzip => {
            // Without a name or a time in its header.
            let level = flate2::Compression::default();
            let gzip = flate2::GzBuilder::new().write(packed, level);
            let (gzip, diff_id) = write_tar(Hashing::new(gzip), disk, name, progress)?.split();
            (gzip.finish().map_err(failed)?, diff_id)
        }
        LayerCompression::Zstd => {
            let zstd = zstd::Encoder::new(packed, ZSTD_LEVEL).map_err(failed)?;
            let (zstd, diff_id) = write_tar(Hashing::new(zstd), disk, name, progress)?.split();
            (zstd.finish().map_err(failed)?, diff_id)
        }
    };
    let size = packed.count;
    let (mut out, digest) = packed.split();
    out.flush().map_err(failed)?;
    Ok(Layer {
        path,
        digest,
        size,
        diff_id,
        compression,
    })
}

fn write_tar<W: Write>(out: W, disk: &Path, name: &str, progress: &Progress) -> Result<W> {
    let file = File::open(disk).map_err(io("open", disk))?;
    let size = file.metadata().map_err(io("open", disk))?.len();
    let part = progress.part("packing the layer", size);
    let mut tar = tar::Builder::new(out);
    let failed = |source| Error::Io {
        operation: "pack",
        path: disk.to_owned(),
        source,
    };
    let mut add = |path: &str, kind, mode, size, contents: &mut dyn Read| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        tar.append_data(&mut header, path, contents)
    };
    add(
        DIRECTORY,
        tar::EntryType::Directory,
        0o755,
        0,
        &mut std::io::empty(),
    )
    .map_err(failed)?;
    let path = format!("{DIRECTORY}{name}");
    // Exactly as long as the header says, or the archive would be broken.
    let mut contents = part.reader(file.take(size));
    add(&path, tar::EntryType::Regular, 0o644, size, &mut contents).map_err(failed)?;
    tar.into_inner().map_err(failed)
}

/// Counts and hashes what goes through.
struct Hashing<W> {
    inner: W,
    hasher: Hasher,
    count: u64,
}

impl<W> Hashing<W> {
    fn new(inner: W) -> Self {
        Self {
            inner,
            hasher: Hasher::new(Algorithm::Sha256),
            count: 0,
        }
    }

    fn split(self) -> (W, Digest) {
        (self.inner, self.hasher.finish())
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.count += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}
