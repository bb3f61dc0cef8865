//! One block of a store, checked: what restoring and verifying have in common.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};

use crate::block::Stored;
use crate::driver::Driver;
use crate::layout::Pool;
use crate::{BlockChecksum, BlockError, Error, Result, block};

/// Where a block is used, for whoever reads of it.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) checksum: BlockChecksum,
    /// Of its use.
    pub(crate) offset: u64,
    /// Bytes that it unpacks to.
    pub(crate) length: u64,
}

/// Most bytes as which a block of `length` bytes can be stored: packed bytes may be longer than the
/// block, by a little.
fn stored_max(length: u64) -> u64 {
    length + length / 64 + (64 << 10)
}

/// What came of asking for a block: the inner error is final, and says what is wrong with the block.
pub(crate) type Fetched = Result<Result<Bytes, BlockError>>;

/// Gets a block and unpacks it. A missing or damaged one is an answer, at once; the driver has tried
/// again whatever is not.
pub(crate) async fn fetch(driver: &Arc<dyn Driver>, pool: &Pool, wanted: &Wanted) -> Fetched {
    let stored = match get(driver, pool, wanted).await? {
        Ok(stored) => stored,
        Err(wrong) => return Ok(Err(wrong)),
    };
    let Stored {
        bytes,
        length,
        checksum,
    } = stored;
    tokio::task::spawn_blocking(move || block::decode(&bytes, length, &checksum))
        .await
        .map_err(|_| Error::Task)
}

/// The same for several blocks, `at_once` of which are asked for at a time: they are hashed together.
pub(crate) async fn fetch_all(
    driver: &Arc<dyn Driver>,
    pool: &Pool,
    wanted: &[Wanted],
    at_once: usize,
) -> Result<Vec<Fetched>> {
    let gets: Vec<_> = wanted
        .iter()
        .map(|wanted| get(driver, pool, wanted).boxed())
        .collect();
    let got = futures_util::stream::iter(gets)
        .buffered(at_once)
        .collect::<Vec<_>>()
        .await;
    // What was not got has no bytes: its place is kept.
    let mut whole = Vec::with_capacity(wanted.len());
    let got: Vec<Result<Result<(), BlockError>>> = got
        .into_iter()
        .map(|got| got.map(|got| got.map(|stored| whole.push(stored))))
        .collect();
    let decode = move || {
        let mut decoded = block::decode_all(whole).into_iter();
        let each = got.into_iter().map(|got| match got? {
            Ok(()) => decoded.next().ok_or(Error::Task),
            Err(wrong) => Ok(Err(wrong)),
        });
        each.collect()
    };
    tokio::task::spawn_blocking(decode)
        .await
        .map_err(|_| Error::Task)
}

/// A block as it is stored.
async fn get(
    driver: &Arc<dyn Driver>,
    pool: &Pool,
    wanted: &Wanted,
) -> Result<Result<Stored, BlockError>> {
    let key = pool.block(&wanted.checksum);
    match driver.get(&key, stored_max(wanted.length)).await {
        Ok(object) => Ok(Ok(Stored {
            bytes: object.bytes,
            length: wanted.length,
            checksum: wanted.checksum,
        })),
        Err(Error::NoObject { .. }) => Ok(Err(BlockError::Missing)),
        Err(Error::TooLarge { .. }) => Ok(Err(BlockError::TooMuch {
            length: wanted.length,
        })),
        Err(error) => Err(error),
    }
}

/// The final error for a block of `item`.
pub(crate) fn unusable(item: &str, pool: &Pool, wanted: &Wanted, source: BlockError) -> Error {
    Error::Block {
        volume: item.to_owned(),
        offset: wanted.offset,
        checksum: wanted.checksum.to_string(),
        key: pool.block(&wanted.checksum),
        source,
    }
}
