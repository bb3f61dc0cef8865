//! `backup_NAME.cfg`: a backup and its map of blocks, which is streamed in and out.

use std::collections::BTreeMap;
use std::io;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};

use super::document::{self, Rules};
use super::fields::{Fields, SIZE_MAX, decimal, invalid, time};
use crate::driver::Reading;
use crate::{BlockChecksum, BlockSize, Compression, Name, Result};

/// The key of [`BackupHead::parameters`] with the volume's size at the time of the backup: ours, which
/// Longhorn keeps and does not read.
pub(crate) const VOLUME_SIZE: &str = "volume-size";
const BLOCK_SIZE: &str = "backup-block-size";

/// A backup cfg without its blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BackupHead {
    pub(crate) name: Name,
    pub(crate) volume: Name,
    pub(crate) snapshot: String,
    pub(crate) snapshot_created_at: Timestamp,
    /// `None`: in progress, or never finished.
    pub(crate) created_at: Option<Timestamp>,
    /// Bytes of mapped blocks.
    pub(crate) size: u64,
    pub(crate) labels: BTreeMap<String, String>,
    /// `backup-mode`, and what others have written; [`Self::block_size`] is written there too.
    pub(crate) parameters: BTreeMap<String, String>,
    pub(crate) block_size: BlockSize,
    pub(crate) incremental: bool,
    pub(crate) compression: Compression,
    /// Bytes as stored of the blocks that it uploaded, and of those that were there and were uploaded again.
    pub(crate) uploaded: u64,
    pub(crate) reuploaded: u64,
}

impl BackupHead {
    /// The volume's size at the time of the backup, where its writer has said it.
    pub(crate) fn volume_size(&self) -> Option<u64> {
        self.parameters
            .get(VOLUME_SIZE)
            .and_then(|text| decimal(text))
    }
}

/// What a backup cfg is read against.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    pub(crate) key: String,
    pub(crate) volume: Name,
    pub(crate) backup: Name,
    /// Bytes of the volume; `None`: not known, no block may be behind the largest volume.
    pub(crate) volume_size: Option<u64>,
}

/// The file, with its types and in its order, up to its blocks.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Written<'a> {
    name: &'a str,
    volume_name: &'a str,
    snapshot_name: &'a str,
    snapshot_created_at: String,
    created_time: String,
    size: String,
    labels: &'a BTreeMap<String, String>,
    parameters: BTreeMap<&'a str, &'a str>,
    is_incremental: bool,
    compression_method: String,
    newly_uploaded_data_size: String,
    re_uploaded_data_size: String,
    processing_blocks: (),
}

/// Reads a cfg and gives its blocks to `push`, in ascending order. What was pushed counts only if this
/// succeeds. Runs on a blocking thread, in constant memory.
pub(crate) async fn read<F>(reading: Reading, expected: Expected, push: F) -> Result<BackupHead>
where
    F: FnMut(u64, BlockChecksum) -> Result<()> + Send + 'static,
{
    document::blocking(reading, move |from| parse(from, &expected, push)).await
}

fn parse(
    from: impl io::Read,
    expected: &Expected,
    push: impl FnMut(u64, BlockChecksum) -> Result<()>,
) -> Result<BackupHead> {
    let mut order = Order {
        expected,
        push,
        shape: None,
        last: None,
        common: 0,
    };
    let values = document::read(from, &expected.key, &mut order)?;
    let shape = Shape::of(&values, expected)?;
    order.finish(&shape)?;
    head(values, expected, shape.block_size)
}

fn head(
    values: Map<String, Value>,
    expected: &Expected,
    block_size: BlockSize,
) -> Result<BackupHead> {
    let mut fields = Fields::new(&expected.key, values);
    let compression = fields.text("CompressionMethod")?;
    let snapshot_created_at = fields.time("SnapshotCreatedAt")?;
    Ok(BackupHead {
        name: fields.name("Name", &expected.backup)?,
        volume: fields.name("VolumeName", &expected.volume)?,
        snapshot: fields.text("SnapshotName")?,
        snapshot_created_at: snapshot_created_at.unwrap_or(Timestamp::UNIX_EPOCH),
        created_at: fields.time("CreatedTime")?,
        size: fields.number("Size")?,
        labels: fields.map("Labels")?,
        parameters: fields.map("Parameters")?,
        block_size,
        incremental: fields.boolean("IsIncremental")?,
        compression: fields.compression("CompressionMethod", &compression)?,
        uploaded: fields.number("NewlyUploadedDataSize")?,
        reuploaded: fields.number("ReUploadedDataSize")?,
    })
}

/// What the parameters of a backup say of its map.
#[derive(Debug, Clone, Copy)]
struct Shape {
    block_size: BlockSize,
    /// No block ends behind it.
    end: u64,
}

impl Shape {
    fn of(values: &Map<String, Value>, expected: &Expected) -> Result<Self> {
        let refuse = |why: String| invalid(&expected.key, why);
        let parameter = |name: &str| values.get("Parameters")?.get(name);
        let block_size = match parameter(BLOCK_SIZE) {
            None | Some(Value::Null) => BlockSize::MIB2,
            Some(Value::String(text)) if text.is_empty() => BlockSize::MIB2,
            Some(value) => {
                let text = value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned);
                // Digits, or a quantity as in Kubernetes.
                let bytes = types::parse_quantity(&text).map(|size| size.0);
                match bytes {
                    Ok(0) => BlockSize::MIB2,
                    Ok(bytes) => {
                        BlockSize::new(bytes).map_err(|error| refuse(error.to_string()))?
                    }
                    Err(error) => return Err(refuse(format!("{BLOCK_SIZE}: {error}"))),
                }
            }
        };
        let own = match parameter(VOLUME_SIZE) {
            Some(Value::String(text)) => {
                let size = decimal(text).filter(|size| (1..=SIZE_MAX).contains(size));
                Some(size.ok_or_else(|| refuse(format!("{VOLUME_SIZE} is not a size")))?)
            }
            _ => None,
        };
        let bytes = block_size.bytes();
        // A size that is exact need not be a multiple; those in volume.cfg are.
        let end = own.map(|own| own.next_multiple_of(bytes));
        let end = end.or(expected.volume_size).unwrap_or(SIZE_MAX);
        if own.is_none() && end % bytes != 0 {
            let why =
                format!("its blocks of {bytes} bytes do not divide the volume's size of {end}");
            return Err(refuse(why));
        }
        Ok(Self { block_size, end })
    }

    fn allows(&self, offset: u64) -> Result<(), String> {
        let bytes = self.block_size.bytes();
        if !offset.is_multiple_of(bytes) {
            return Err(format!(
                "offset {offset} is not a multiple of the block size {bytes}"
            ));
        }
        if offset >= self.end {
            let end = self.end;
            return Err(format!(
                "offset {offset} is behind the end of the volume, {end} bytes"
            ));
        }
        Ok(())
    }
}

/// The rules for the blocks of a map, each checked as it comes: the file may be long.
struct Order<'a, F> {
    expected: &'a Expected,
    push: F,
    /// Known where the parameters come first, as everybody writes them.
    shape: Option<Shape>,
    last: Option<u64>,
    /// The greatest common divisor of all offsets, for a file with the blocks first.
    common: u64,
}

impl<F> Order<'_, F> {
    fn finish(&self, shape: &Shape) -> Result<()> {
        let Some(last) = self.last else {
            return Ok(());
        };
        // A divisor of all of them is a multiple only if each of them is.
        let allowed = shape.allows(self.common).and_then(|()| shape.allows(last));
        allowed.map_err(|why| invalid(&self.expected.key, why))
    }
}

impl<F: FnMut(u64, BlockChecksum) -> Result<()>> Rules for Order<'_, F> {
    fn block(
        &mut self,
        head: &Map<String, Value>,
        offset: u64,
        checksum: BlockChecksum,
    ) -> Result<()> {
        let refuse = |why| invalid(&self.expected.key, why);
        if self.last.is_none() && head.contains_key("Parameters") {
            self.shape = Some(Shape::of(head, self.expected)?);
        }
        let allowed = self.shape.map_or(Ok(()), |shape| shape.allows(offset));
        allowed.map_err(refuse)?;
        if offset >= SIZE_MAX {
            return Err(refuse(format!(
                "offset {offset} is behind the end of the largest volume"
            )));
        }
        if let Some(last) = self.last.filter(|last| offset <= *last) {
            return Err(refuse(format!("offset {offset} comes after offset {last}")));
        }
        self.last = Some(offset);
        self.common = greatest_common_divisor(self.common, offset);
        (self.push)(offset, checksum)
    }
}

fn greatest_common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Writes a cfg. The blocks must be in ascending order.
pub(crate) fn write<E: From<io::Error>>(
    to: impl io::Write,
    head: &BackupHead,
    blocks: impl Iterator<Item = Result<(u64, BlockChecksum), E>>,
) -> Result<(), E> {
    let block_size = head.block_size.bytes().to_string();
    let parameters = head.parameters.iter();
    let mut parameters: BTreeMap<_, _> = parameters
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    parameters.insert(BLOCK_SIZE, &block_size);
    let written = Written {
        name: head.name.as_str(),
        volume_name: head.volume.as_str(),
        snapshot_name: &head.snapshot,
        snapshot_created_at: time(Some(head.snapshot_created_at)),
        created_time: time(head.created_at),
        size: head.size.to_string(),
        labels: &head.labels,
        parameters,
        is_incremental: head.incremental,
        compression_method: head.compression.to_string(),
        newly_uploaded_data_size: head.uploaded.to_string(),
        re_uploaded_data_size: head.reuploaded.to_string(),
        processing_blocks: (),
    };
    document::write(to, &written, blocks, ",\"SingleFile\":{\"FilePath\":\"\"}")
}
