//! Reads a tar archive as a stream of entries: POSIX ustar, PAX, GNU, and their sparse files.
//!
//! Reads only the required part of the format (IEEE Std 1003.1 "pax", GNU tar manual "Basic Tar
//! Format"). Checksums of headers are verified, extended headers are limited, and numbers never
//! wrap.

mod header;
mod records;
mod sparse;

use std::io::{self, BufRead, BufReader};

use self::header::{check_sum, numeric, path_of, text_of};
use self::records::{Extended, records};
use self::sparse::{Map, number};

/// The unit of a tar archive, in bytes.
const BLOCK: usize = 512;
/// The most bytes of an extended header: paths have at most some thousand.
const EXTENDED_MAX: u64 = 1 << 20;
/// The most extended headers before an entry; tools write at most three.
const EXTENDED_COUNT_MAX: u32 = 8;

/// A reader that may be able to pass over bytes without reading them.
pub(crate) trait Skip: BufRead {
    /// Passes over `length` bytes.
    fn skip(&mut self, mut length: u64) -> io::Result<()> {
        while length > 0 {
            let there = self.fill_buf()?.len();
            if there == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let n = usize::try_from(length).unwrap_or(usize::MAX).min(there);
            self.consume(n);
            length -= n as u64;
        }
        Ok(())
    }
}

impl Skip for BufReader<std::fs::File> {
    /// Seeks; what is past the end shows at the next read.
    fn skip(&mut self, length: u64) -> io::Result<()> {
        let length = i64::try_from(length).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        self.seek_relative(length)
    }
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
    Other,
}

impl Kind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::File => "regular file",
            Self::HardLink => "hard link",
            Self::Symlink => "symbolic link",
            Self::CharDevice => "character device",
            Self::BlockDevice => "block device",
            Self::Directory => "directory",
            Self::Fifo => "fifo",
            Self::Other => "special file",
        }
    }
}

/// One entry; its data follows in the stream.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) path: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) kind: Kind,
    /// Bytes that are stored.
    pub(crate) stored: u64,
    /// For a sparse file, where they go.
    pub(crate) sparse: Option<Map>,
    /// Where the stored bytes start in the archive.
    pub(crate) offset: u64,
}

impl Entry {
    /// Size of the file, holes included.
    pub(crate) fn size(&self) -> u64 {
        self.sparse.as_ref().map_or(self.stored, |map| map.size)
    }
}

/// What is wrong with an archive.
#[derive(Debug)]
pub(crate) enum TarError {
    Read(io::Error),
    Invalid(&'static str),
}

impl From<io::Error> for TarError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof && error.get_ref().is_none() {
            return Self::Invalid("it ends in the middle of an entry");
        }
        Self::Read(error)
    }
}

impl From<&'static str> for TarError {
    fn from(why: &'static str) -> Self {
        Self::Invalid(why)
    }
}

/// Whether these bytes, the first of something, are those of a tar: a header, or nothing but zeros.
pub(crate) fn begins_tar(head: &[u8]) -> bool {
    let header = head.first_chunk::<BLOCK>();
    head.iter().all(|byte| *byte == 0) || header.is_some_and(|block| check_sum(block).is_ok())
}

/// An archive that is being read.
#[derive(Debug)]
pub(crate) struct Tar<R> {
    input: R,
    /// Bytes of the archive read so far.
    offset: u64,
    /// Data of the current entry still to come, then its padding.
    data: u64,
    padding: u64,
    ended: bool,
}

impl<R: Skip> Tar<R> {
    pub(crate) const fn new(input: R) -> Self {
        Self {
            input,
            offset: 0,
            data: 0,
            padding: 0,
            ended: false,
        }
    }

    /// The next entry; what is left of the one before is passed over. `None` at the end of the
    /// archive, marked or not.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, TarError> {
        self.skip_rest()?;
        let mut extended = Extended::default();
        for _ in 0..=EXTENDED_COUNT_MAX {
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            let size = numeric(&header[124..136])?;
            match header[156] {
                b'L' => extended.path = Some(text_of(&self.extended(size)?)),
                b'K' => extended.link = Some(text_of(&self.extended(size)?)),
                b'x' | b'X' => records(&self.extended(size)?, &mut extended)?,
                b'g' => {
                    let mut global = Extended::default();
                    records(&self.extended(size)?, &mut global)?;
                    if global.path.is_some() || global.size.is_some() || global.link.is_some() {
                        return Err("a global header names or sizes all files".into());
                    }
                }
                _ => return self.entry(&header, size, extended).map(Some),
            }
        }
        Err("it has too many extended headers in a row".into())
    }

    /// The next bytes of the current entry's data, as many as lie ready; empty at its end.
    pub(crate) fn data(&mut self) -> Result<&[u8], TarError> {
        if self.data == 0 {
            return Ok(&[]);
        }
        let ready = self.input.fill_buf()?;
        if ready.is_empty() {
            return Err("it ends in the middle of a file".into());
        }
        let n = usize::try_from(self.data)
            .unwrap_or(usize::MAX)
            .min(ready.len());
        Ok(&ready[..n])
    }

    /// Marks bytes that [`Tar::data`] gave as taken.
    pub(crate) fn consume(&mut self, n: usize) {
        self.input.consume(n);
        self.data -= n as u64;
        self.offset += n as u64;
    }

    /// Bytes of the archive read so far.
    pub(crate) const fn offset(&self) -> u64 {
        self.offset
    }

    /// What the archive is read from.
    pub(crate) const fn input_mut(&mut self) -> &mut R {
        &mut self.input
    }

    /// Reads to the end of the input: after the archive's end only zeros may follow.
    pub(crate) fn finish(&mut self) -> Result<(), TarError> {
        loop {
            let rest = self.input.fill_buf()?;
            if rest.is_empty() {
                return Ok(());
            }
            if rest.iter().any(|byte| *byte != 0) {
                return Err(TarError::Invalid(GARBAGE));
            }
            let n = rest.len();
            self.input.consume(n);
        }
    }

    fn skip_rest(&mut self) -> Result<(), TarError> {
        let rest = self.data + self.padding;
        self.input.skip(rest)?;
        self.offset += rest;
        (self.data, self.padding) = (0, 0);
        Ok(())
    }

    /// The next header; `None` at a zero block or at the end of the input.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        if self.ended || self.input.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let block = self.block()?;
        if block.iter().all(|byte| *byte == 0) {
            self.ended = true;
            return Ok(None);
        }
        check_sum(&block)?;
        Ok(Some(block))
    }

    fn block(&mut self) -> Result<[u8; BLOCK], TarError> {
        let mut block = [0; BLOCK];
        self.input
            .read_exact(&mut block)
            .map_err(|error| match error.get_ref() {
                Some(_) => TarError::Read(error),
                None => TarError::from(error),
            })?;
        self.offset += BLOCK as u64;
        Ok(block)
    }

    fn set_data(&mut self, size: u64) -> Result<(), TarError> {
        self.data = size;
        self.padding = size
            .next_multiple_of(BLOCK as u64)
            .checked_sub(size)
            .ok_or(TOO_LARGE)?;
        Ok(())
    }

    /// The content of an extended header.
    fn extended(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        if size > EXTENDED_MAX {
            return Err("it has an extended header of more than 1 MiB".into());
        }
        self.set_data(size)?;
        let mut content = Vec::new();
        while self.data > 0 {
            let n = {
                let data = self.data()?;
                content.extend_from_slice(data);
                data.len()
            };
            self.consume(n);
        }
        self.skip_rest()?;
        Ok(content)
    }

    fn entry(
        &mut self,
        header: &[u8; BLOCK],
        size: u64,
        extended: Extended,
    ) -> Result<Entry, TarError> {
        let records = extended.sparse;
        let path = records
            .name
            .or(extended.path)
            .unwrap_or_else(|| path_of(header));
        let mut kind = match header[156] {
            b'0' | 0 | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::CharDevice,
            b'4' => Kind::BlockDevice,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            _ => Kind::Other,
        };
        // Archives older than POSIX mark a directory by its name alone.
        if kind == Kind::File && header[156] == 0 && path.ends_with(b"/") {
            kind = Kind::Directory;
        }
        // Only files have data; others may tell a size all the same.
        let size = extended.size.unwrap_or(size);
        let size = if matches!(kind, Kind::File | Kind::Other) {
            size
        } else {
            0
        };
        if size > i64::MAX.unsigned_abs() {
            return Err(TOO_LARGE.into());
        }
        let mut sparse = match (records.map, records.size) {
            (map, Some(size)) => Some(Map {
                size,
                ..map.unwrap_or_default()
            }),
            (Some(_), None) => return Err("a sparse file has no size".into()),
            (None, None) => None,
        };
        if header[156] == b'S' {
            sparse = Some(self.gnu_map(header)?);
        }
        self.set_data(size)?;
        if kind == Kind::File && records.major == Some(1) {
            let map = sparse.as_mut().ok_or("a sparse file has no size")?;
            self.leading_map(map)?;
        }
        if let Some(map) = &sparse {
            map.check(self.data)?;
        }
        let link = extended.link.unwrap_or_else(|| text_of(&header[157..257]));
        Ok(Entry {
            path,
            link,
            kind,
            stored: self.data,
            sparse,
            offset: self.offset,
        })
    }

    /// The map in an old GNU header and in the blocks that follow it.
    fn gnu_map(&mut self, header: &[u8; BLOCK]) -> Result<Map, TarError> {
        let mut map = Map {
            size: numeric(&header[483..495])?,
            segments: Vec::new(),
        };
        let mut pieces = |bytes: &[u8]| -> Result<(), TarError> {
            // An empty field ends the map.
            for piece in bytes.chunks_exact(24).take_while(|piece| piece[0] != 0) {
                map.push(numeric(&piece[..12])?, numeric(&piece[12..])?)?;
            }
            Ok(())
        };
        pieces(&header[386..482])?;
        let mut more = header[482] != 0;
        while more {
            let block = self.block()?;
            pieces(&block[..504])?;
            more = block[504] != 0;
        }
        Ok(map)
    }

    /// The map of PAX 1.0: lines of decimal numbers at the start of the data, padded to a block.
    fn leading_map(&mut self, map: &mut Map) -> Result<(), TarError> {
        let start = self.data;
        let count = self.line()?;
        for _ in 0..count {
            let offset = self.line()?;
            map.push(offset, self.line()?)?;
        }
        let used = start - self.data;
        let mut rest = used.next_multiple_of(BLOCK as u64) - used;
        while rest > 0 {
            let n = self
                .data()?
                .len()
                .min(usize::try_from(rest).unwrap_or(usize::MAX));
            if n == 0 {
                return Err(BAD_MAP.into());
            }
            self.consume(n);
            rest -= n as u64;
        }
        Ok(())
    }

    fn line(&mut self) -> Result<u64, TarError> {
        let mut text = String::new();
        loop {
            let byte = *self.data()?.first().ok_or(BAD_MAP)?;
            self.consume(1);
            if byte == b'\n' {
                return number(&text).ok_or(TarError::Invalid(BAD_MAP));
            }
            if text.len() == 20 {
                return Err(BAD_MAP.into());
            }
            text.push(char::from(byte));
        }
    }
}

/// After the end of the archive.
pub(crate) const GARBAGE: &str = "other bytes follow its end";
const TOO_LARGE: &str = "a file is larger than 8 EiB";
const BAD_MAP: &str = "the map of a sparse file is not valid";
