//! Packs a tree into a layer: a tar file with times of zero and root as the owner, so that the same
//! files are the same bytes.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek as _, Write};

use flate2::{Compression, GzBuilder};
use image::oci::{Algorithm, Digest, Hasher};
use tar::{Builder, EntryType, Header};
use tempfile::NamedTempFile;

use crate::error::{Result, io as failed};
use crate::tree::{Node, Tree};

/// A packed layer in a temporary file.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) file: NamedTempFile,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    /// Of the tar file.
    pub(crate) diff_id: Digest,
    pub(crate) media_type: &'static str,
}

/// Hashes and counts what passes through.
struct Meter<W> {
    inner: W,
    hasher: Hasher,
    size: u64,
}

impl<W> Meter<W> {
    fn new(inner: W) -> Self {
        let hasher = Hasher::new(Algorithm::Sha256);
        Self {
            inner,
            hasher,
            size: 0,
        }
    }
}

impl<W: Write> Write for Meter<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buf)?;
        self.hasher.update(&buf[..n]);
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

pub(crate) fn pack(tree: &Tree, gzip: bool) -> Result<Layer> {
    let directory = std::env::temp_dir();
    let write = || failed("write a layer in", &directory);
    let file = NamedTempFile::new().map_err(write())?;
    let out = file.reopen().map_err(write())?;
    let out = Meter::new(BufWriter::with_capacity(1 << 20, out));
    let (diff_id, out, media_type) = if gzip {
        // mtime 0 and no name: gzip(1) -n.
        let packer = GzBuilder::new().mtime(0).write(out, Compression::new(6));
        let inner = entries(tree, Meter::new(packer))?;
        let out = inner.inner.finish().map_err(write())?;
        let media_type = "application/vnd.oci.image.layer.v1.tar+gzip";
        (inner.hasher.finish(), out, media_type)
    } else {
        let inner = entries(tree, Meter::new(out))?;
        let media_type = "application/vnd.oci.image.layer.v1.tar";
        (inner.hasher.finish(), inner.inner, media_type)
    };
    let (digest, size) = (out.hasher.finish(), out.size);
    let mut out = out.inner;
    out.flush().map_err(write())?;
    out.rewind().map_err(write())?;
    Ok(Layer {
        file,
        digest,
        size,
        diff_id,
        media_type,
    })
}

/// Writes all entries of a tree.
fn entries<W: Write>(tree: &Tree, out: W) -> Result<W> {
    let mut tar = Builder::new(out);
    for (path, node) in tree.nodes() {
        let write = failed("pack", path.as_ref());
        let done = match node {
            Node::Directory { mode } => {
                let header = header(EntryType::Directory, *mode, 0);
                append(&mut tar, header, &format!("{path}/"), io::empty())
            }
            Node::Text { text } => {
                let header = header(EntryType::Regular, 0o644, text.len() as u64);
                append(&mut tar, header, path, text.as_bytes())
            }
            Node::Link { to } => {
                let mut header = header(EntryType::Symlink, 0o777, 0);
                tar.append_link(&mut header, path, to)
            }
            Node::File { from, mode } => {
                let file = File::open(from).map_err(failed("open", from))?;
                let size = file.metadata().map_err(failed("inspect", from))?.len();
                let header = header(EntryType::Regular, *mode, size);
                // A file that grows meanwhile must not make a tar file that lies.
                append(&mut tar, header, path, file.take(size))
            }
        };
        done.map_err(write)?;
    }
    tar.into_inner()
        .map_err(failed("pack", "the end of the layer".as_ref()))
}

fn append<W: Write>(
    tar: &mut Builder<W>,
    mut header: Header,
    path: &str,
    content: impl Read,
) -> io::Result<()> {
    tar.append_data(&mut header, path, content)
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_files_are_the_same_bytes() {
        let mut tree = Tree::new();
        let text = "hello".to_owned();
        tree.add("/etc/motd", Node::Text { text }).unwrap();
        tree.add_file("/bin/program", &std::env::current_exe().unwrap())
            .unwrap();
        for gzip in [false, true] {
            let (a, b) = (pack(&tree, gzip).unwrap(), pack(&tree, gzip).unwrap());
            assert_eq!(a.digest, b.digest);
            assert_eq!(a.diff_id, b.diff_id);
            assert_eq!(a.size, std::fs::metadata(a.file.path()).unwrap().len());
            assert_eq!(a.digest == a.diff_id, !gzip);
        }
    }
}
