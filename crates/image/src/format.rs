//! The formats that are taken, and telling them by their first bytes.
//!
//! The format is detected once, when an image is imported without a declared format, and the result
//! is recorded. It is never detected again: a guest can write any bytes to the start of its own raw
//! disk, and repeated detection would obey the guest (CVE-2015-1850, CVE-2026-24708).

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The format of a disk image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The bytes are the disk.
    Raw,
    /// QEMU's qcow2, version 2 or 3.
    Qcow2,
}

/// A text that is not the name of a format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "image format {0:?} is not supported; use raw or qcow2. Convert other formats first: build a base image \
     with 'base-image build --from FILE --output PLACE', or a file with 'qemu-img convert -O qcow2 FILE NEW'"
)]
pub struct UnknownFormat(String);

/// What every qcow image starts with, of any version.
pub(crate) const QCOW_MAGIC: [u8; 4] = *b"QFI\xfb";

/// What to do with a format that the builder reads, and with others.
const BUILD: &str = "build a base image from it with 'base-image build --from FILE --output PLACE', or convert \
                     it with 'qemu-img convert -O qcow2 FILE NEW'";
const CONVERT: &str = "convert it with 'qemu-img convert -O qcow2 FILE NEW'";
const DECOMPRESS: &str = "decompress it";

/// Formats that hold a disk and are not taken: what stands where, and what to do. QEMU would open each of them by
/// itself, and some of them name other files to open.
const FOREIGN: &[(&str, u64, &[u8], &str)] = &[
    ("a VMDK image", 0, b"KDMV", BUILD),
    ("a VMDK image", 0, b"COWD", CONVERT),
    ("a VHDX image", 0, b"vhdxfile", BUILD),
    ("a VHD image", 0, b"conectix", BUILD),
    ("a QED image", 0, b"QED\0", CONVERT),
    ("a VDI image", 0x40, b"\x7f\x10\xda\xbe", BUILD),
    ("a Parallels image", 0, b"WithoutFreeSpace", CONVERT),
    ("a Parallels image", 0, b"WithouFreSpacExt", CONVERT),
    ("a Bochs image", 0, b"Bochs Virtual HD Image", CONVERT),
    ("a cloop image", 0, b"#!/bin/sh\n#V2.0 Format\n", CONVERT),
    ("compressed with gzip", 0, b"\x1f\x8b\x08", DECOMPRESS),
    ("compressed with xz", 0, b"\xfd7zXZ\0", DECOMPRESS),
    ("compressed with zstd", 0, b"\x28\xb5\x2f\xfd", DECOMPRESS),
    ("compressed with bzip2", 0, b"BZh", DECOMPRESS),
];

/// Formats told by their last 512 bytes.
const FOREIGN_FOOTERS: &[(&str, &[u8], &str)] = &[
    ("a VHD image", b"conectix", BUILD),
    ("an Apple disk image", b"koly", CONVERT),
];

/// A VMDK descriptor is text; its comments are skipped up to here, as QEMU does.
const DESCRIPTOR: usize = 2048;

impl Format {
    /// Tells the format of `file` by its bytes. Everything that is not qcow2 and no other known
    /// format of disk images is raw (an ISO image too). A foreign format is an error with its name.
    pub fn detect(file: &File) -> Result<Self> {
        const READ: &str = "read the start of the image";
        let size = (&*file).seek(SeekFrom::End(0)).map_err(Error::io(READ))?;
        let head = read_at(file, 0, DESCRIPTOR).map_err(Error::io(READ))?;
        let has = |offset: u64, magic: &[u8]| {
            usize::try_from(offset).is_ok_and(|start| {
                head.get(start..)
                    .is_some_and(|bytes| bytes.starts_with(magic))
            })
        };
        if has(0, &QCOW_MAGIC) {
            // Which versions are read is the reader's to say: raw it is not.
            return Ok(Self::Qcow2);
        }
        let found = FOREIGN
            .iter()
            .find(|(_, offset, magic, _)| has(*offset, magic));
        if let Some((format, .., next)) = found {
            return Err(Error::ForeignFormat { format, next });
        }
        if is_vmdk_descriptor(&head) {
            return Err(Error::ForeignFormat {
                format: "a VMDK descriptor",
                next: CONVERT,
            });
        }
        if let Some(offset) = size.checked_sub(512) {
            let footer = read_at(file, offset, 512).map_err(Error::io("read the image's end"))?;
            let found = FOREIGN_FOOTERS
                .iter()
                .find(|(_, magic, _)| footer.starts_with(magic));
            if let Some((format, _, next)) = found {
                return Err(Error::ForeignFormat { format, next });
            }
        }
        Ok(Self::Raw)
    }

    /// The name in requests, records and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }
}

/// Up to `len` bytes at `offset`.
pub(crate) fn read_at(file: &File, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    struct At<'a>(&'a File, u64);
    impl io::Read for At<'_> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            let count = self.0.read_at(buf, self.1)?;
            self.1 += count as u64;
            Ok(count)
        }
    }
    let mut bytes = Vec::with_capacity(len);
    At(file, offset).take(len as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A VMDK descriptor: a first comment that says so, or comments and then `version=`.
pub(crate) fn is_vmdk_descriptor(head: &[u8]) -> bool {
    let mut lines = head.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let says_so = head
        .get(..21)
        .is_some_and(|start| start.eq_ignore_ascii_case(b"# Disk DescriptorFile"));
    let first = lines.find(|line| !line.is_empty() && line[0] != b'#');
    says_so
        || first.is_some_and(|line| {
            let version = line.strip_prefix(b"version").map(<[u8]>::trim_ascii);
            version.is_some_and(|rest| rest.starts_with(b"="))
        })
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> std::result::Result<Self, UnknownFormat> {
        match text {
            "raw" => Ok(Self::Raw),
            "qcow2" => Ok(Self::Qcow2),
            _ => Err(UnknownFormat(text.chars().take(64).collect())),
        }
    }
}
