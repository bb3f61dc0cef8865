//! A configuration file with a map of blocks, read and written as a stream.
//!
//! A map may be 200 MB of JSON, so the file is never held: its other keys are, as they are few, and each
//! block goes to whoever asked as it is read. Bytes that no block explains are bounded.

use std::cell::Cell;
use std::fmt;
use std::io::{self, BufReader, Read, Write};
use std::rc::Rc;

use futures_util::TryStreamExt;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::fields::{decimal, invalid};
use crate::driver::Reading;
use crate::{BlockChecksum, Error, Result};

/// Bytes that a file may have besides its blocks.
const HEAD_MAX: u64 = 1 << 20;
/// Bytes that a block may take in it, with all white space.
const BLOCK_MAX: u64 = 512;
/// Bytes that are read at once.
const PIECE: usize = 64 << 10;

const BLOCKS: &str = "Blocks";

/// What is asked about each block, with the keys that came before the blocks.
pub(super) trait Rules {
    fn block(
        &mut self,
        head: &Map<String, Value>,
        offset: u64,
        checksum: BlockChecksum,
    ) -> Result<()>;
}

/// Parses `reading` on a blocking thread by `parse`.
pub(super) async fn blocking<T: Send + 'static>(
    reading: Reading,
    parse: impl FnOnce(Box<dyn Read>) -> Result<T> + Send + 'static,
) -> Result<T> {
    let stream = StreamReader::new(reading.bytes.map_err(io::Error::other));
    let bridge = SyncIoBridge::new(stream);
    tokio::task::spawn_blocking(move || parse(Box::new(bridge)))
        .await
        .map_err(|_| Error::Task)?
}

/// Reads the file at `key` and gives its blocks to `rules`. Answers with the other keys.
pub(super) fn read(
    from: impl Read,
    key: &str,
    rules: &mut dyn Rules,
) -> Result<Map<String, Value>> {
    let left = Rc::new(Cell::new(HEAD_MAX));
    let bounded = Bounded {
        from,
        left: Rc::clone(&left),
    };
    let mut json = serde_json::Deserializer::from_reader(BufReader::with_capacity(PIECE, bounded));
    let mut failure = None;
    let document = Document {
        rules,
        failure: &mut failure,
        left: &left,
    };
    let read = document
        .deserialize(&mut json)
        .and_then(|head| json.end().map(|()| head));
    read.map_err(|error| match failure {
        Some(failure) => failure,
        None => not_json(error, key),
    })
}

fn not_json(error: serde_json::Error, key: &str) -> Error {
    let (is_io, is_empty) = (error.is_io(), error.is_eof() && error.column() == 0);
    if is_empty {
        return invalid(key, "it is empty".to_owned());
    }
    if !is_io {
        return invalid(key, format!("it is cut short or not JSON: {error}"));
    }
    // What the store said travels inside.
    let error = io::Error::from(error);
    match error.downcast::<Error>() {
        Ok(error) => error,
        Err(error) => invalid(key, error.to_string()),
    }
}

/// Gives no more bytes than its blocks explain.
struct Bounded<R> {
    from: R,
    left: Rc<Cell<u64>>,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        let left = self.left.get().checked_sub(read as u64);
        let Some(left) = left else {
            return Err(io::Error::other("it is longer than what is in it explains"));
        };
        self.left.set(left);
        Ok(read)
    }
}

struct Document<'a> {
    rules: &'a mut dyn Rules,
    failure: &'a mut Option<Error>,
    left: &'a Cell<u64>,
}

impl<'de> DeserializeSeed<'de> for Document<'_> {
    type Value = Map<String, Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Document<'_> {
    type Value = Map<String, Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut head = Map::new();
        let mut has_blocks = false;
        while let Some(key) = map.next_key::<String>()? {
            // Which of the two would count differs between readers.
            if head.contains_key(&key) || (key == BLOCKS && has_blocks) {
                let key = types::shown(&key);
                return Err(A::Error::custom(format!("{key:?} is there twice")));
            }
            if key == BLOCKS {
                has_blocks = true;
                map.next_value_seed(Blocks {
                    head: &head,
                    rules: self.rules,
                    failure: self.failure,
                    left: self.left,
                })?;
            } else {
                head.insert(key, map.next_value()?);
            }
        }
        Ok(head)
    }
}

struct Blocks<'a> {
    head: &'a Map<String, Value>,
    rules: &'a mut dyn Rules,
    failure: &'a mut Option<Error>,
    left: &'a Cell<u64>,
}

impl<'de> DeserializeSeed<'de> for Blocks<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Blocks<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of blocks")
    }

    /// `null`: none.
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut blocks: A) -> Result<(), A::Error> {
        while let Some(block) = blocks.next_element::<Block>()? {
            self.left.set((self.left.get() + BLOCK_MAX).min(HEAD_MAX));
            let pushed = self
                .rules
                .block(self.head, block.offset.0, block.checksum.0);
            if let Err(failure) = pushed {
                *self.failure = Some(failure);
                return Err(A::Error::custom("a block is refused"));
            }
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct Block {
    #[serde(rename = "Offset")]
    offset: Offset,
    #[serde(rename = "BlockChecksum")]
    checksum: Checksum,
}

struct Offset(u64);

impl<'de> Deserialize<'de> for Offset {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OffsetVisitor)
    }
}

struct OffsetVisitor;

impl Visitor<'_> for OffsetVisitor {
    type Value = Offset;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the offset of a block, in bytes")
    }

    fn visit_u64<E>(self, offset: u64) -> Result<Offset, E> {
        Ok(Offset(offset))
    }

    fn visit_i64<E: serde::de::Error>(self, offset: i64) -> Result<Offset, E> {
        Err(E::custom(format!(
            "the offset {offset} of a block is negative"
        )))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Offset, E> {
        let offset = decimal(text).map(Offset);
        offset.ok_or_else(|| E::custom("the offset of a block is not a number"))
    }
}

struct Checksum(BlockChecksum);

impl<'de> Deserialize<'de> for Checksum {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(ChecksumVisitor)
    }
}

struct ChecksumVisitor;

impl Visitor<'_> for ChecksumVisitor {
    type Value = Checksum;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the checksum of a block, 64 lower-case hexadecimal digits")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Checksum, E> {
        text.parse().map(Checksum).map_err(E::custom)
    }
}

/// Writes a file: the keys of `head`, then the blocks if there are any, then what `tail` says.
pub(super) fn write<E: From<io::Error>>(
    mut to: impl Write,
    head: &impl Serialize,
    blocks: impl Iterator<Item = Result<(u64, BlockChecksum), E>>,
    tail: &str,
) -> Result<(), E> {
    let mut json = serde_json::to_vec(head).map_err(io::Error::from)?;
    // The object goes on.
    json.pop();
    to.write_all(&json)?;
    let mut any = false;
    for block in blocks {
        let (offset, checksum) = block?;
        let before = if any { "," } else { ",\"Blocks\":[" };
        any = true;
        write!(
            to,
            "{before}{{\"Offset\":{offset},\"BlockChecksum\":\"{checksum}\"}}"
        )?;
    }
    let end = if any { "]" } else { "" };
    write!(to, "{end}{tail}}}")?;
    Ok(())
}
