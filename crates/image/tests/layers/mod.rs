//! Handmade layers, and a sink that records its input.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

use std::convert::Infallible;
use std::fmt;
use std::io::{Cursor, Write};

use image::layer::{Directory, Error, Found, Input, Limits, Sink, find};
use image::oci::{Digest, Packing};
use types::{Classify, ErrorKind};

/// One entry of a layer: path, type flag, content or link target.
pub(crate) type Entry<'a> = (&'a [u8], u8, &'a [u8]);

/// A regular file.
pub(crate) fn file<'a>(path: &'a str, content: &'a [u8]) -> Entry<'a> {
    (path.as_bytes(), b'0', content)
}

/// A directory.
pub(crate) fn dir(path: &str) -> Entry<'_> {
    (path.as_bytes(), b'5', b"")
}

/// A header with a right checksum; long names go into a PAX record.
pub(crate) fn header(path: &[u8], flag: u8, link: &[u8], size: u64) -> Vec<u8> {
    let mut out = Vec::new();
    if path.len() > 100 {
        out.extend(pax(&[("path", path)]));
    }
    let mut block = [0u8; 512];
    let n = path.len().min(100);
    block[..n].copy_from_slice(&path[..n]);
    block[100..107].copy_from_slice(b"0000644");
    block[108..115].copy_from_slice(b"0000000");
    block[116..123].copy_from_slice(b"0000000");
    block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    block[136..147].copy_from_slice(b"00000000000");
    block[156] = flag;
    block[157..157 + link.len()].copy_from_slice(link);
    block[257..265].copy_from_slice(b"ustar\x0000");
    seal(&mut block);
    out.extend(block);
    out
}

/// Sets the checksum.
pub(crate) fn seal(block: &mut [u8; 512]) {
    block[148..156].copy_from_slice(b"        ");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
}

/// A PAX header with these records.
pub(crate) fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut content = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length += 1;
        }
        content.extend(format!("{length} {key}=").bytes());
        content.extend(*value);
        content.push(b'\n');
    }
    let mut out = header(b"PaxHeader", b'x', b"", content.len() as u64);
    out.extend(padded(&content));
    out
}

/// Content up to a whole block.
pub(crate) fn padded(content: &[u8]) -> Vec<u8> {
    let mut out = content.to_vec();
    out.resize(content.len().next_multiple_of(512), 0);
    out
}

/// A tar archive.
pub(crate) fn tar(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for (path, flag, content) in entries {
        let is_file = matches!(flag, b'0' | b'7');
        let (link, content): (&[u8], &[u8]) = if is_file {
            (b"", content)
        } else {
            (content, b"")
        };
        out.extend(header(path, *flag, link, content.len() as u64));
        out.extend(padded(content));
    }
    out.extend([0; 1024]);
    out
}

/// Packs with gzip, one member.
pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

/// Packs with zstd.
pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

/// A layer of these bytes, its packing told by its first bytes alone.
pub(crate) fn input(bytes: Vec<u8>) -> Input {
    Input {
        name: "layer".to_owned(),
        packing: Packing::Unknown,
        digest: None,
        diff_id: None,
        bare: false,
        reader: Box::new(Cursor::new(bytes)),
    }
}

/// A layer that says how it is packed and what it unpacks to.
pub(crate) fn described(bytes: Vec<u8>, packing: Packing, diff_id: Digest) -> Input {
    Input {
        packing,
        diff_id: Some(diff_id),
        ..input(bytes)
    }
}

/// Keeps the bytes of the last file, and what was thrown away.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) path: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) size: u64,
    pub(crate) discarded: Vec<String>,
    pub(crate) holes: u64,
    pub(crate) open: bool,
}

impl Sink for Kept {
    type Error = Never;

    fn begin(&mut self, directory: Directory, name: &str, size: Option<u64>) -> Result<(), Never> {
        assert!(
            !self.open && self.path.is_empty(),
            "a file begins in the middle of another"
        );
        *self = Self {
            path: format!("{}/{name}", directory.name()),
            size: size.unwrap_or(u64::MAX),
            discarded: std::mem::take(&mut self.discarded),
            open: true,
            ..Self::default()
        };
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Never> {
        assert!(self.open && !bytes.is_empty());
        self.bytes.extend(bytes);
        Ok(())
    }

    fn hole(&mut self, length: u64) -> Result<(), Never> {
        assert!(self.open && length > 0);
        self.holes += length;
        self.bytes
            .resize(self.bytes.len() + usize::try_from(length).unwrap(), 0);
        Ok(())
    }

    fn end(&mut self) -> Result<(), Never> {
        if self.size == u64::MAX {
            self.size = self.bytes.len() as u64;
        }
        assert_eq!(self.bytes.len() as u64, self.size, "{}", self.path);
        self.open = false;
        Ok(())
    }

    fn discard(&mut self) -> Result<(), Never> {
        self.discarded.push(std::mem::take(&mut self.path));
        self.open = false;
        Ok(())
    }
}

/// The error of a sink that has none.
#[derive(Debug)]
pub(crate) struct Never(Infallible);

impl fmt::Display for Never {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {}
    }
}

impl std::error::Error for Never {}

impl Classify for Never {
    fn kind(&self) -> ErrorKind {
        match self.0 {}
    }
}

/// Searches layers, which come from the top down.
pub(crate) fn search(layers: Vec<Input>) -> (Result<Found, Error>, Kept) {
    search_within(layers, Limits::default())
}

/// The same within limits.
pub(crate) fn search_within(layers: Vec<Input>, limits: Limits) -> (Result<Found, Error>, Kept) {
    let mut kept = Kept::default();
    let found = find(layers, limits, &mut kept);
    (found, kept)
}

/// Searches plain layers of these entries, from the top down.
pub(crate) fn search_plain(layers: &[&[Entry<'_>]]) -> (Result<Found, Error>, Kept) {
    search(layers.iter().map(|entries| input(tar(entries))).collect())
}
