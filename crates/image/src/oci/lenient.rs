//! Optional fields of foreign documents: `null`, as programs in Go write it, counts as absent, and
//! unreadable values are skipped.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

/// A value, or what stands for none where it is `null`.
pub(super) fn or_none<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Deserialize<'de> + Default,
    D: Deserializer<'de>,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// The texts of an object; other values of it, and other things than an object, are passed over.
pub(super) fn texts<'de, D>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error>
where
    D: Deserializer<'de>,
{
    let serde_json::Value::Object(all) = Deserialize::deserialize(deserializer)? else {
        return Ok(BTreeMap::new());
    };
    let text = |(key, value): (String, serde_json::Value)| Some((key, value.as_str()?.to_owned()));
    Ok(all.into_iter().filter_map(text).collect())
}

/// An entry of a list, of which another one may be meant.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Entry<T> {
    /// One that can be read.
    Readable(T),
    /// One that cannot. Nothing is wrong with that until it is needed.
    Other(IgnoredAny),
}

/// The entries that can be read.
pub(super) fn readable<T>(entries: Vec<Entry<T>>) -> Vec<T> {
    let readable = |entry| match entry {
        Entry::Readable(entry) => Some(entry),
        Entry::Other(_) => None,
    };
    entries.into_iter().filter_map(readable).collect()
}
