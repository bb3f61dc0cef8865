//! `backing-image.cfg`: a backing image and its blocks. Its blocks are always of 2 MiB, the last one
//! ends where the image does.

use std::collections::BTreeMap;
use std::io;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};

use super::document::{self, Rules};
use super::fields::{Fields, SIZE_MAX, invalid, time};
use crate::driver::Reading;
use crate::{BlockChecksum, BlockSize, Compression, Name, Result};

/// A `backing-image.cfg` without its blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BackingImageHead {
    pub(crate) name: Name,
    /// Bytes of the image's file.
    pub(crate) size: u64,
    /// Distinct blocks.
    pub(crate) block_count: u64,
    /// SHA-512 of the file, in hexadecimal digits.
    pub(crate) checksum: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) compression: Compression,
    pub(crate) created_at: Option<Timestamp>,
    /// `None`: in progress, or never finished.
    pub(crate) completed_at: Option<Timestamp>,
    /// The Secret of the keys of an encrypted image.
    pub(crate) secret: String,
    pub(crate) secret_namespace: String,
}

/// The file, with its types and in its order, up to its blocks.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Written<'a> {
    name: &'a str,
    size: String,
    block_count: String,
    checksum: &'a str,
    labels: &'a BTreeMap<String, String>,
    compression_method: String,
    created_time: String,
    complete_time: String,
    secret: &'a str,
    secret_namespace: &'a str,
    processing_blocks: (),
}

/// As [`super::backup::read`], of the backing image `image`, whose cfg is at `key`.
pub(crate) async fn read<F>(
    reading: Reading,
    key: String,
    image: Name,
    push: F,
) -> Result<BackingImageHead>
where
    F: FnMut(u64, BlockChecksum) -> Result<()> + Send + 'static,
{
    document::blocking(reading, move |from| parse(from, &key, &image, push)).await
}

fn parse(
    from: impl io::Read,
    key: &str,
    image: &Name,
    push: impl FnMut(u64, BlockChecksum) -> Result<()>,
) -> Result<BackingImageHead> {
    let mut order = Order {
        key,
        push,
        last: None,
    };
    let values = document::read(from, key, &mut order)?;
    let last = order.last;
    let mut fields = Fields::new(key, values);
    let size = fields.size("Size")?;
    if let Some(offset) = last.filter(|last| *last >= size) {
        let why = format!("offset {offset} is behind the end of the image, {size} bytes");
        return Err(fields.invalid(why));
    }
    let checksum = fields.text("Checksum")?;
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let is_sha512 = checksum.len() == 128 && checksum.bytes().all(is_hex);
    if !is_sha512 && !checksum.is_empty() {
        let why = "Checksum has not 128 lower-case hexadecimal digits".to_owned();
        return Err(fields.invalid(why));
    }
    let compression = fields.text("CompressionMethod")?;
    Ok(BackingImageHead {
        name: fields.name("Name", image)?,
        size,
        block_count: fields.number("BlockCount")?,
        checksum,
        labels: fields.map("Labels")?,
        compression: fields.compression("CompressionMethod", &compression)?,
        created_at: fields.time("CreatedTime")?,
        completed_at: fields.time("CompleteTime")?,
        secret: fields.text("Secret")?,
        secret_namespace: fields.text("SecretNamespace")?,
    })
}

struct Order<'a, F> {
    key: &'a str,
    push: F,
    last: Option<u64>,
}

impl<F: FnMut(u64, BlockChecksum) -> Result<()>> Rules for Order<'_, F> {
    fn block(
        &mut self,
        _: &Map<String, Value>,
        offset: u64,
        checksum: BlockChecksum,
    ) -> Result<()> {
        let bytes = BlockSize::MIB2.bytes();
        let why = if !offset.is_multiple_of(bytes) {
            format!("offset {offset} is not a multiple of the block size {bytes}")
        } else if offset >= SIZE_MAX {
            format!("offset {offset} is behind the end of the largest image")
        } else if self.last.is_some_and(|last| offset <= last) {
            format!("offset {offset} comes after one that is not before it")
        } else {
            self.last = Some(offset);
            return (self.push)(offset, checksum);
        };
        Err(invalid(self.key, why))
    }
}

/// As [`super::backup::write`].
pub(crate) fn write<E: From<io::Error>>(
    to: impl io::Write,
    head: &BackingImageHead,
    blocks: impl Iterator<Item = Result<(u64, BlockChecksum), E>>,
) -> Result<(), E> {
    let written = Written {
        name: head.name.as_str(),
        size: head.size.to_string(),
        block_count: head.block_count.to_string(),
        checksum: &head.checksum,
        labels: &head.labels,
        compression_method: head.compression.to_string(),
        created_time: time(head.created_at),
        complete_time: time(head.completed_at),
        secret: &head.secret,
        secret_namespace: &head.secret_namespace,
        processing_blocks: (),
    };
    document::write(to, &written, blocks, "")
}
