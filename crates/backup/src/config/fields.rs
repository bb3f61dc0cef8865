//! The values of a configuration file, each with the type that the format gives it, read tolerantly:
//! what is absent is its default, and what must be quoted may be bare.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::{Compression, Error, Name, Result};

/// The largest volume: 1 PiB.
pub(crate) const SIZE_MAX: u64 = 1 << 50;

/// The keys of a file that have not been looked at yet.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    /// Of the file in the store.
    file: &'a str,
    values: Map<String, Value>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(file: &'a str, values: Map<String, Value>) -> Self {
        Self { file, values }
    }

    pub(super) fn invalid(&self, why: String) -> Error {
        invalid(self.file, why)
    }

    /// `None`: absent or null.
    fn take(&mut self, key: &str) -> Option<Value> {
        self.values.remove(key).filter(|value| !value.is_null())
    }

    pub(super) fn text(&mut self, key: &str) -> Result<String> {
        match self.take(key) {
            None => Ok(String::new()),
            Some(Value::String(text)) => Ok(text),
            Some(_) => Err(self.invalid(format!("{key} is not a text"))),
        }
    }

    /// A name, which must be the one that the file is found by.
    pub(super) fn name(&mut self, key: &str, expected: &Name) -> Result<Name> {
        let text = self.text(key)?;
        if text == expected.as_str() {
            return Ok(expected.clone());
        }
        let text = types::shown(&text);
        Err(self.invalid(format!("{key} is {text:?}, expected {expected}")))
    }

    pub(super) fn number(&mut self, key: &str) -> Result<u64> {
        let value = self.take(key);
        let number = match &value {
            None => Some(0),
            Some(Value::Number(number)) => number.as_u64(),
            Some(Value::String(text)) if text.is_empty() => Some(0),
            Some(Value::String(text)) => decimal(text),
            Some(_) => None,
        };
        number.ok_or_else(|| {
            let value = types::shown(&value.unwrap_or_default().to_string());
            self.invalid(format!("{key} is not a number of bytes or blocks: {value}"))
        })
    }

    /// Bytes of a volume or image: more than none.
    pub(super) fn size(&mut self, key: &str) -> Result<u64> {
        let size = self.number(key)?;
        let why = match size {
            0 => "is 0 or missing",
            1..=SIZE_MAX => return Ok(size),
            _ => "is more than 1 PiB",
        };
        Err(self.invalid(format!("{key} {why}")))
    }

    pub(super) fn boolean(&mut self, key: &str) -> Result<bool> {
        match self.take(key) {
            None => Ok(false),
            Some(Value::Bool(value)) => Ok(value),
            Some(Value::String(text)) if text == "true" => Ok(true),
            Some(Value::String(text)) if text == "false" => Ok(false),
            Some(_) => Err(self.invalid(format!("{key} is neither true nor false"))),
        }
    }

    /// `None`: it has not happened.
    pub(super) fn time(&mut self, key: &str) -> Result<Option<Timestamp>> {
        let text = self.text(key)?;
        if text.is_empty() {
            return Ok(None);
        }
        let time = text.parse().map_err(|_| {
            let text = types::shown(&text);
            self.invalid(format!("{key} {text:?} is not a time as in RFC 3339"))
        });
        time.map(Some)
    }

    pub(super) fn map(&mut self, key: &str) -> Result<BTreeMap<String, String>> {
        let values = match self.take(key) {
            None => return Ok(BTreeMap::new()),
            Some(Value::Object(values)) => values,
            Some(_) => return Err(self.invalid(format!("{key} is not an object of texts"))),
        };
        let pairs = values.into_iter().map(|(name, value)| {
            if let Value::String(text) = value {
                return Ok((name, text));
            }
            let name = types::shown(&name);
            Err(self.invalid(format!("{key} has a value that is no text, of {name:?}")))
        });
        pairs.collect()
    }

    /// A text that is written as JSON inside of a text.
    pub(super) fn nested(&mut self, key: &str) -> Result<String> {
        let text = self.text(key)?;
        if !text.starts_with('"') {
            return Ok(text);
        }
        serde_json::from_str(&text)
            .map_err(|_| self.invalid(format!("{key} is not a text inside of a text")))
    }

    /// What `text` of `key` names; absent: gzip, which was the only one once.
    pub(super) fn compression(&self, key: &str, text: &str) -> Result<Compression> {
        match text {
            "" => Ok(Compression::Gzip),
            text => text.parse().map_err(|_| {
                let text = types::shown(text);
                self.invalid(format!("{key} {text:?} is none that is known here"))
            }),
        }
    }

    /// What is left.
    pub(super) fn rest(self) -> Map<String, Value> {
        self.values
    }
}

pub(super) fn invalid(file: &str, why: String) -> Error {
    Error::Config {
        key: file.to_owned(),
        why,
    }
}

/// Digits alone: no sign, and no more than a u64 holds.
pub(super) fn decimal(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

/// A time as it is written: whole seconds, UTC.
pub(super) fn time(time: Option<Timestamp>) -> String {
    time.map_or_else(String::new, |time| {
        time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    })
}

/// JSON as it is written inside of a text.
pub(super) fn nested(text: &str) -> String {
    Value::from(text).to_string()
}
