//! Archives in the format that the kernel unpacks at boot (Documentation/driver-api/early-userspace/
//! buffer-format.rst: `newc`).

use std::io::{self, Write};

/// What a mode says of the kind of a file (inode(7)).
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;

/// An archive that is being written.
#[derive(Debug)]
pub(super) struct Archive<W> {
    to: W,
    inode: u32,
}

impl<W: Write> Archive<W> {
    pub(super) fn new(to: W) -> Self {
        Self { to, inode: 0 }
    }

    /// A directory, after its parent.
    pub(super) fn directory(&mut self, path: &str) -> io::Result<()> {
        self.entry(path, DIRECTORY | 0o755, &[])
    }

    /// A file that can be run.
    pub(super) fn program(&mut self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.entry(path, REGULAR | 0o755, bytes)
    }

    /// Ends the archive.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.entry("TRAILER!!!", 0, &[])?;
        self.to.flush()
    }

    fn entry(&mut self, path: &str, mode: u32, bytes: &[u8]) -> io::Result<()> {
        self.inode += 1;
        let size = |length: usize| u32::try_from(length).map_err(io::Error::other);
        let (length, name) = (size(bytes.len())?, size(path.len() + 1)?);
        // Magic, inode, mode, uid, gid, links, mtime, length, device and its number (four), name, checksum.
        let fields = [self.inode, mode, 0, 0, 1, 0, length, 0, 0, 0, 0, name, 0];
        let fields = fields.map(|field| format!("{field:08x}")).concat();
        let head = format!("070701{fields}{path}\0");
        self.padded(head.as_bytes())?;
        self.padded(bytes)
    }

    /// Header with name, and contents, each end at a multiple of four.
    fn padded(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.to.write_all(bytes)?;
        let missing = bytes.len().next_multiple_of(4) - bytes.len();
        self.to.write_all(&[0; 3][..missing])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_contents_end_at_multiples_of_four() {
        let mut bytes = Vec::new();
        let mut archive = Archive::new(&mut bytes);
        archive.directory("a").unwrap();
        archive.program("a/b", b"12345").unwrap();
        archive.finish().unwrap();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(text.matches("070701").count(), 3);
        // The head is 110 bytes, the name and its end two, and the next entry begins at the next multiple of four.
        assert!(text[112..].starts_with("070701"), "{text:?}");
    }
}
