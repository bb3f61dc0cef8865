//! Data that is certainly not a disk image, although any bytes could be a raw disk: archives,
//! compressed files, pages, pointers to other files.
//!
//! A raw disk may start with any bytes, so this check applies only to new images without a declared
//! format, and never to a stored disk. A boot sector, a partition table or a known file system
//! identifies a disk, whatever else it resembles.

use std::fs::File;

use probe::{Content, FileDisk};

use crate::format::{is_vmdk_descriptor, read_at};
use crate::layer::tar::begins_tar;
use crate::{Error, Result};

/// What is looked at of the first bytes.
const HEAD: usize = 4096;
/// Text that is larger is rather a disk that somebody wrote text to.
const TEXT_MAX: u64 = 64 << 10;
const SECTOR: usize = 512;

/// What stands at the start, what it is, and what to do with it.
const MAGICS: &[(&[u8], &str, &str)] = &[
    (b"PK\x03\x04", "a zip archive", UNPACK_ARCHIVE),
    (b"PK\x05\x06", "an empty zip archive", UNPACK_ARCHIVE),
    (b"PK\x07\x08", "a part of a zip archive", UNPACK_ARCHIVE),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK_ARCHIVE),
    (b"Rar!\x1a\x07", "a RAR archive", UNPACK_ARCHIVE),
    (b"070701", "a cpio archive", UNPACK_ARCHIVE),
    (b"070702", "a cpio archive", UNPACK_ARCHIVE),
    (b"070707", "a cpio archive", UNPACK_ARCHIVE),
    (b"!<arch>\n", "an ar archive", UNPACK_ARCHIVE),
    (b"MSCF\0\0\0\0", "a cabinet archive", UNPACK_ARCHIVE),
    (b"MSWIM\0\0\0", "a Windows image file (WIM)", UNPACK_ARCHIVE),
    (
        b"\x1f\x8b\x08",
        "compressed with gzip",
        "unpack it: gzip -d",
    ),
    (b"\xfd7zXZ\0", "compressed with xz", "unpack it: xz -d"),
    (
        b"\x28\xb5\x2f\xfd",
        "compressed with zstd",
        "unpack it: zstd -d",
    ),
    (b"BZh", "compressed with bzip2", "unpack it: bzip2 -d"),
    (
        b"\x04\x22\x4d\x18",
        "compressed with lz4",
        "unpack it: lz4 -d",
    ),
    (
        b"\x02\x21\x4c\x18",
        "compressed with lz4",
        "unpack it: lz4 -d",
    ),
    (
        b"\x5d\0\0",
        "compressed with lzma",
        "unpack it: xz --format=lzma -d",
    ),
    (b"LZIP", "compressed with lzip", "unpack it: lzip -d"),
    (
        b"\x89LZO\0\r\n\x1a\n",
        "compressed with lzop",
        "unpack it: lzop -d",
    ),
    (
        b"\x1f\x9d",
        "compressed with compress",
        "unpack it: gzip -d",
    ),
    (
        b"\x3a\xff\x26\xed",
        "an Android sparse image",
        "make it raw: simg2img",
    ),
    (
        b"version https://git-lfs.github.com/spec/",
        "a pointer of git-lfs to the file that is meant",
        "give the file itself (git lfs pull)",
    ),
];
const UNPACK_ARCHIVE: &str = "extract the disk image first";

/// How pages and documents begin, in lower case, after white space.
const PAGES: &[(&[u8], &str)] = &[
    (b"<!doctype html", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"<?xml", "an XML document"),
    (b"<error>", "an XML document"),
];

/// Refuses `file` if it is surely no disk image.
pub fn refuse_no_disk(file: &File) -> Result<()> {
    let failed = Error::io("read the start of the image");
    let head = read_at(file, 0, HEAD).map_err(failed)?;
    let size = file
        .metadata()
        .map_err(Error::io("inspect the image"))?
        .len();
    // A foreign format of one file of text is refused by its own name.
    let Some((what, next)) = told(&head, size).filter(|_| !is_vmdk_descriptor(&head)) else {
        return Ok(());
    };
    let is_bootable = head.get(510..512).is_some_and(|end| end == [0x55, 0xaa]);
    if is_bootable || holds_a_disk(file)? {
        return Ok(());
    }
    Err(Error::NoDisk { what, next })
}

/// Whether a partition table, a file system or the like is on it.
fn holds_a_disk(file: &File) -> Result<bool> {
    let failed = || Error::io("look for a file system in the image");
    let file = file.try_clone().map_err(failed())?;
    let disk = FileDisk::new(file).map_err(failed())?;
    let content = probe::probe(&disk).map_err(failed())?;
    Ok(!matches!(content, Content::Unknown | Content::Blank))
}

/// What the first bytes of a file of `size` bytes say, and what to do.
fn told(head: &[u8], size: u64) -> Option<(&'static str, &'static str)> {
    if let Some(&(_, what, next)) = MAGICS.iter().find(|(magic, ..)| head.starts_with(magic)) {
        return Some((what, next));
    }
    let is_zero = head.iter().take(SECTOR).all(|byte| *byte == 0);
    if !is_zero && begins_tar(head) {
        let next = "extract the disk image first (tar -xf); from an OVA with one disk, \
                    'base-image build --from FILE --output PLACE' builds a base image";
        return Some(("a tar archive", next));
    }
    let is_framed = head.iter().take(100).position(|byte| *byte == b';');
    if is_framed.is_some_and(|at| head[at..].starts_with(b";chunk-signature=")) {
        return Some((
            "still in the frames of an upload (aws-chunked)",
            "upload it again with a client that the store understands",
        ));
    }
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    let lower = text
        .trim_ascii_start()
        .get(..16)
        .map(<[u8]>::to_ascii_lowercase);
    let lower = lower.unwrap_or_else(|| text.trim_ascii().to_ascii_lowercase());
    let page = PAGES.iter().find(|(start, _)| lower.starts_with(start));
    let what = match page {
        Some(&(_, what)) => what,
        None if size <= TEXT_MAX && is_text(text) && lower.starts_with(b"{") => "a JSON document",
        None if size <= TEXT_MAX && is_text(text) => "a short text",
        None => return None,
    };
    Some((
        what,
        "check the file and its source: it may be an error page",
    ))
}

/// Whether these are lines of text, but for the zeros that fill its last sector.
fn is_text(bytes: &[u8]) -> bool {
    let zeros = bytes.iter().rev().take_while(|byte| **byte == 0).count();
    let bytes = &bytes[..bytes.len() - zeros];
    let printable =
        |byte: &u8| matches!(byte, b'\t' | b'\n' | b'\r' | 0x0c | 0x1b | 0x20..=0x7e | 0x80..);
    zeros < SECTOR && !bytes.is_empty() && bytes.iter().all(printable) && is_utf8(bytes)
}

/// Whether it is UTF-8; the last letter may be cut.
fn is_utf8(bytes: &[u8]) -> bool {
    match std::str::from_utf8(bytes) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn what(head: &[u8], size: u64) -> &'static str {
        told(head, size).map_or("", |(what, _)| what)
    }

    #[test]
    fn row_174_what_is_no_disk_is_told() {
        assert_eq!(what(b"PK\x03\x04rest", 1 << 30), "a zip archive");
        assert_eq!(what(b"\n <!DOCTYPE HTML>\0", 1 << 30), "an HTML page");
        assert_eq!(what(b"<html><p>", 9), "an HTML page");
        assert_eq!(what(b"{\"errors\":[]}\n", 14), "a JSON document");
        assert_eq!(what(&b"root:x:0:0\n".repeat(300), 5632), "a short text");
        assert_eq!(what("grüße".as_bytes(), 7), "a short text");
        // The zeros that fill a sector do not make it a disk.
        let mut padded = b"hello".to_vec();
        padded.resize(512, 0);
        assert_eq!(what(&padded, 512), "a short text");
        for disk in [
            // Text that was written to a disk.
            &[b"hello".as_slice(), &[0; 4000]].concat()[..],
            &[0; 4096],
            &[0xeb, 0x63, 0x90],
            b"",
            b"\x7fELF\x02\x01\x01\0",
        ] {
            assert_eq!(what(disk, disk.len() as u64), "", "{disk:?}");
        }
        assert_eq!(what(&b"log line\n".repeat(500), 1 << 30), "");
    }
}
