//! Bounded reads out of a disk: bytes, integers, texts and UUIDs at fixed places.
//!
//! A place outside the disk is `None`, so that a small disk simply has no such superblock. An error
//! of the disk is an error.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io;

use crate::Disk;

/// Most signatures lie in the first 68 KiB (btrfs at 64 KiB); one read fetches them all.
const HEAD: u64 = 72 << 10;

/// A disk with its head in memory.
pub(crate) struct Window<'a> {
    disk: &'a dyn Disk,
    head: Vec<u8>,
}

impl<'a> Window<'a> {
    /// Reads the head of `disk`.
    pub(crate) fn new(disk: &'a dyn Disk) -> io::Result<Self> {
        let mut head = vec![0; usize::try_from(disk.size().min(HEAD)).unwrap_or(0)];
        disk.read_exact_at(&mut head, 0)?;
        Ok(Self { disk, head })
    }

    /// The size of the disk in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.disk.size()
    }

    /// `len` bytes at `offset`, when the disk has them all.
    pub(crate) fn bytes(&self, offset: u64, len: usize) -> io::Result<Option<Cow<'_, [u8]>>> {
        let Some(end) = offset
            .checked_add(len as u64)
            .filter(|end| *end <= self.size())
        else {
            return Ok(None);
        };
        let in_head = usize::try_from(offset).ok().zip(usize::try_from(end).ok());
        if let Some(slice) = in_head.and_then(|(start, end)| self.head.get(start..end)) {
            return Ok(Some(Cow::Borrowed(slice)));
        }
        let mut bytes = vec![0; len];
        self.disk.read_exact_at(&mut bytes, offset)?;
        Ok(Some(Cow::Owned(bytes)))
    }

    /// Whether `magic` stands at `offset`.
    pub(crate) fn has(&self, offset: u64, magic: &[u8]) -> io::Result<bool> {
        Ok(self
            .bytes(offset, magic.len())?
            .is_some_and(|bytes| *bytes == *magic))
    }
}

macro_rules! integers {
    ($($name:ident $from:ident $type:ty;)*) => { $(
        /// The integer at `offset` of `bytes`.
        ///
        /// # Panics
        /// When `bytes` is too short: offsets are constants inside structures of fixed size.
        pub(crate) fn $name(bytes: &[u8], offset: usize) -> $type {
            let field = &bytes[offset..offset + size_of::<$type>()];
            <$type>::$from(field.try_into().expect("the slice has the integer's size"))
        }
    )* };
}

integers! {
    le16 from_le_bytes u16;
    le32 from_le_bytes u32;
    le64 from_le_bytes u64;
    be16 from_be_bytes u16;
    be32 from_be_bytes u32;
    be64 from_be_bytes u64;
}

/// A label: the bytes before the first NUL, without blanks at its end.
pub(crate) fn text(bytes: &[u8]) -> String {
    let end = bytes
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).trim_end().to_owned()
}

/// A UUID with its dashes; empty when it is all zero.
pub(crate) fn uuid(bytes: &[u8]) -> String {
    if bytes.iter().all(|byte| *byte == 0) {
        return String::new();
    }
    let mut text = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        write!(text, "{byte:02x}").expect("writing to a String cannot fail");
    }
    text
}
