//! Writes past the kernel's cache (open(2), `O_DIRECT`), and the memory that they want.
//!
//! The page cache costs a large image more time than the copy itself, and costs the node memory.
//! Nobody reads the bytes soon, because volumes use direct I/O too. Such writes do not become
//! durable sooner: the file still has to be synced.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::OnceLock;

use super::manifest::CHUNK;

/// What the place of direct writes in memory is a multiple of, in bytes, wherever the disk is.
const PAGE: usize = 4096;

/// Bytes that begin at a page. Appending more than its capacity loses that, and nothing else.
#[derive(Debug, Default)]
pub struct PageBuffer {
    bytes: Vec<u8>,
    start: usize,
}

impl PageBuffer {
    /// For so many bytes. Takes memory only when it is used.
    pub fn with_capacity(capacity: usize) -> Self {
        let mut buffer = Self {
            bytes: Vec::with_capacity(PAGE + capacity),
            start: 0,
        };
        buffer.clear();
        buffer
    }

    /// Forgets what it holds, and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.start = self.bytes.as_ptr().align_offset(PAGE).min(PAGE);
        self.bytes.resize(self.start, 0);
    }

    /// For appending to what it holds.
    pub fn end(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Holds so many bytes: fewer, or more zeros.
    pub fn resize(&mut self, length: usize) {
        self.bytes.resize(self.start + length, 0);
    }

    /// Holds this, and nothing else.
    pub fn replace(&mut self, bytes: &[u8]) {
        self.clear();
        self.bytes.extend_from_slice(bytes);
    }
}

impl Deref for PageBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }
}

impl DerefMut for PageBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.start..).unwrap_or_default()
    }
}

impl AsRef<[u8]> for PageBuffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// Whether bytes lie in memory where direct reads and writes take them.
pub fn begins_at_a_page(bytes: &[u8]) -> bool {
    bytes.as_ptr().align_offset(PAGE) == 0
}

/// A file's second descriptor, for direct writes. Opened with the first of them.
#[derive(Debug, Default)]
pub struct Direct(OnceLock<Option<File>>);

impl Direct {
    /// Writes a whole chunk to `file`, which is at `path`: past the cache where that works, and through it
    /// otherwise.
    pub fn write_chunk(&self, file: &File, path: &Path, bytes: &[u8], at: u64) -> io::Result<()> {
        let open = || {
            let direct = OpenOptions::new()
                .write(true)
                .custom_flags(libc::O_DIRECT)
                .open(path);
            direct.ok()
        };
        let aligned = bytes.len() == CHUNK && begins_at_a_page(bytes);
        if aligned
            && let Some(direct) = self.0.get_or_init(open)
            && direct.write_all_at(bytes, at).is_ok()
        {
            return Ok(());
        }
        // An error of the disk comes again here, and one of alignment does not.
        file.write_all_at(bytes, at)
    }
}

impl Direct {
    /// Whether a chunk was to go past the cache; whether one did is the file system's affair. For tests.
    pub fn was_asked(&self) -> bool {
        self.0.get().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_buffer_holds_begins_at_a_page() {
        let mut buffer = PageBuffer::with_capacity(100);
        for round in 0..3_u8 {
            assert!(buffer.is_empty());
            buffer.end().extend([round; 60]);
            buffer.resize(100);
            assert_eq!((buffer[59], buffer[60], buffer.len()), (round, 0, 100));
            assert_eq!(buffer.as_ptr().align_offset(PAGE), 0);
            buffer.clear();
        }
        buffer.replace(&[7; 9000]);
        assert_eq!(*buffer, [7; 9000], "more than it has room for");
    }

    #[test]
    fn chunks_are_written_whether_or_not_past_the_cache() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let file = File::create_new(&path).unwrap();
        let direct = Direct::default();
        let mut aligned = PageBuffer::with_capacity(CHUNK);
        let (ones, threes) = (vec![1; CHUNK], vec![3; CHUNK]);
        aligned.replace(&ones);
        let write = |bytes: &[u8], at| direct.write_chunk(&file, &path, bytes, at).unwrap();
        write(&aligned, 0);
        write(&[2; 5], CHUNK as u64);
        write(&threes, CHUNK as u64 + 5);
        // At a place that no disk takes.
        write(&aligned, 2 * CHUNK as u64 + 5);
        let expected = [&ones[..], &[2; 5], &threes, &ones].concat();
        assert!(std::fs::read(&path).unwrap() == expected);
    }
}
