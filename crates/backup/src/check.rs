//! What a store lets its user do: each thing that backups need is tried once, with an object of its own.

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use types::report;

use crate::store::Store;
use crate::{Error, Result, layout};

/// What was tried, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// `put`, `get`, `list`, `delete` or `conditional put`.
    pub step: &'static str,
    /// Whether backups need it: a store that has no conditional put is as good.
    pub needed: bool,
    /// Why it does not work; `None`: it does.
    pub refused: Option<String>,
}

impl Store {
    /// Tries what backups do, in a folder of its own beside them, which is empty afterwards. Each step is
    /// tried whatever came of the one before.
    pub async fn check(&self) -> Vec<Check> {
        let now = jiff::Timestamp::now().as_nanosecond();
        let folder = format!("{}/check-{now:x}-{}", layout::ROOT, std::process::id());
        let key = format!("{folder}/probe");
        let bytes = Bytes::from_static(b"whether this store can be used for backups\n");
        let driver = self.driver();
        let get = async {
            let got = driver.get(&key, 4096).await?;
            (got.bytes == bytes)
                .then_some(())
                .ok_or_else(|| other(&key))
        };
        let list = async {
            let mut entries = driver.list(&folder);
            while let Some(entry) = entries.try_next().await? {
                if entry.key == key {
                    return Ok(());
                }
            }
            Err(other(&key))
        };
        let conditional = async {
            // It is there: one that is written all the same was not asked about.
            if !driver.put_new(&key, Bytes::from_static(b"other\n")).await? {
                return Ok(());
            }
            Err(Error::Answer {
                operation: "put conditionally",
                key: key.clone(),
                why: "the store overwrites what is there".to_owned(),
            })
        };
        let delete = async {
            driver.delete(&key).await?;
            match driver.head(&key).await? {
                None => Ok(()),
                Some(_) => Err(other(&key)),
            }
        };
        vec![
            checked("put", true, driver.put(&key, bytes.clone()).await),
            checked("get", true, get.await),
            checked("list", true, list.await),
            checked("conditional put", false, conditional.await),
            checked("delete", true, delete.await),
        ]
    }
}

fn other(key: &str) -> Error {
    Error::Answer {
        operation: "find what was written at",
        key: key.to_owned(),
        why: "the answer is not what was written or removed before".to_owned(),
    }
}

fn checked(step: &'static str, needed: bool, outcome: Result<()>) -> Check {
    Check {
        step,
        needed,
        refused: outcome.err().map(|error| report(&error).to_string()),
    }
}
