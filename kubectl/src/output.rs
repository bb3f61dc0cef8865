//! What is printed: tables, JSON, YAML or names, and how sizes and ages are written in a table.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use clap::ValueEnum;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::error::Result;

/// How an answer is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// Columns for people
    Table,
    /// More of them
    Wide,
    /// JSON, sizes in bytes
    Json,
    /// The same as YAML
    Yaml,
    /// One name a line
    Name,
}

/// One thing of a list.
#[derive(Debug)]
pub(crate) struct Row {
    /// Its name.
    pub(crate) name: String,
    /// Under the heads, first those of every table, then those of a wide one.
    pub(crate) cells: Vec<String>,
    /// All of it.
    pub(crate) value: Value,
}

/// A list of one kind.
#[derive(Debug)]
pub(crate) struct List {
    /// As in `kubectl get`: `volume/NAME`.
    pub(crate) kind: &'static str,
    /// The heads of the columns.
    pub(crate) head: &'static [&'static str],
    /// How many of these every table has.
    pub(crate) narrow: usize,
    /// In order.
    pub(crate) rows: Vec<Row>,
    /// What to do first where there is none.
    pub(crate) empty: &'static str,
}

impl List {
    /// Prints it to standard output; of an empty table, what to do, to standard error.
    pub(crate) fn print(&self, form: Form) -> Result<()> {
        let text = match form {
            Form::Table | Form::Wide if self.rows.is_empty() => {
                note(self.empty);
                return Ok(());
            }
            Form::Table => self.table(self.narrow),
            Form::Wide => self.table(self.head.len()),
            Form::Name => self.rows.iter().fold(String::new(), |mut text, row| {
                let _ = writeln!(text, "{}/{}", self.kind, row.name);
                text
            }),
            Form::Json | Form::Yaml => {
                let values: Vec<&Value> = self.rows.iter().map(|row| &row.value).collect();
                written(&values, form)
            }
        };
        Ok(print(&text)?)
    }

    fn table(&self, columns: usize) -> String {
        let rows: Vec<Vec<String>> = self
            .rows
            .iter()
            .map(|row| {
                row.cells
                    .iter()
                    .take(columns)
                    .map(|cell| tame(cell))
                    .collect()
            })
            .collect();
        client::terminal::table(&self.head[..columns], &rows)
    }
}

/// A text from a cluster in somebody's terminal: control characters would command it.
pub(crate) fn tame(text: &str) -> String {
    let shown = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    match text {
        "" => "-".to_owned(),
        text => text.chars().map(shown).collect(),
    }
}

/// A value as JSON or YAML.
pub(crate) fn written<T: Serialize>(value: &T, form: Form) -> String {
    // Numbers, texts, lists and maps with keys that are texts: nothing of it can fail.
    let value = serde_json::to_value(value).unwrap_or(Value::Null);
    match form {
        Form::Yaml => yaml(&value),
        _ => format!("{value:#}\n"),
    }
}

/// Prints a text to standard output.
pub(crate) fn print(text: &str) -> io::Result<()> {
    io::stdout().lock().write_all(text.as_bytes())
}

/// Says something beside the result: to standard error.
pub(crate) fn note(text: &str) {
    // With nowhere to write to, nobody reads it.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Bytes as people write them: `4 GiB`, `1.5 GiB`.
pub(crate) fn size(bytes: u64) -> String {
    let units = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let unit = (bytes.max(1).ilog2() / 10) as usize;
    if unit == 0 {
        return format!("{bytes} {}", units[0]);
    }
    let tenths = (u128::from(bytes) * 10) >> (10 * unit);
    match tenths % 10 {
        _ if tenths >= 1000 => format!("{} {}", tenths / 10, units[unit]),
        0 => format!("{} {}", tenths / 10, units[unit]),
        rest => format!("{}.{rest} {}", tenths / 10, units[unit]),
    }
}

/// How long ago a moment (RFC 3339) was, in kubectl's way: `5m`, `3d4h`.
pub(crate) fn age(moment: &str, now: Timestamp) -> String {
    let Ok(then) = moment.parse::<Timestamp>() else {
        return String::new();
    };
    let seconds = now.as_second().saturating_sub(then.as_second()).max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match (days, hours, minutes) {
        (8.., ..) => format!("{days}d"),
        (2.., ..) => format!("{days}d{}h", hours % 24),
        (_, 8.., _) => format!("{hours}h"),
        (_, 2.., _) => format!("{hours}h{}m", minutes % 60),
        (_, _, 2..) => format!("{minutes}m"),
        _ => format!("{seconds}s"),
    }
}

/// A value as YAML 1.2. Texts that another reader could take for something else are in double quotes, as in JSON,
/// which is YAML too.
fn yaml(value: &Value) -> String {
    let mut text = String::new();
    match value {
        Value::Array(list) if !list.is_empty() => block(&mut text, value, 0),
        Value::Object(map) if !map.is_empty() => block(&mut text, value, 0),
        scalar => {
            let _ = writeln!(text, "{}", scalar_text(scalar));
        }
    }
    text
}

fn block(text: &mut String, value: &Value, depth: usize) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(map) => {
            for (number, (key, value)) in map.iter().enumerate() {
                // The first stands behind the dash of a list.
                let lead = if number == 0 && text.ends_with("- ") {
                    ""
                } else {
                    &indent
                };
                let _ = write!(text, "{lead}{}:", scalar_text(&Value::from(key.as_str())));
                nested(text, value, depth + usize::from(value.is_object()));
            }
        }
        Value::Array(list) => {
            for value in list {
                let _ = write!(text, "{indent}- ");
                match value {
                    Value::Object(map) if !map.is_empty() => block(text, value, depth + 1),
                    Value::Array(list) if !list.is_empty() => {
                        text.truncate(text.len() - 1);
                        nested(text, value, depth + 1);
                    }
                    scalar => {
                        let _ = writeln!(text, "{}", scalar_text(scalar));
                    }
                }
            }
        }
        _ => {}
    }
}

fn nested(text: &mut String, value: &Value, depth: usize) {
    let is_empty = match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => {
            let _ = writeln!(text, " {}", scalar_text(value));
            return;
        }
    };
    if is_empty {
        let _ = writeln!(text, " {value}");
    } else {
        text.push('\n');
        block(text, value, depth);
    }
}

fn scalar_text(value: &Value) -> String {
    let Value::String(text) = value else {
        return value.to_string();
    };
    let mut chars = text.chars();
    let is_plain = chars
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic())
        && chars.all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c));
    let words = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    let is_word = words.iter().any(|word| text.eq_ignore_ascii_case(word));
    if is_plain && !is_word {
        text.clone()
    } else {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sizes_are_those_that_people_write() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            (32 << 20, "32 MiB"),
            ((100 << 20) + (1 << 19), "100 MiB"),
            (4 << 30, "4 GiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(size(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn ages_are_kubectls() {
        let now: Timestamp = "2026-01-10T00:00:00Z".parse().unwrap();
        for (moment, text) in [
            ("2026-01-09T23:59:30Z", "30s"),
            ("2026-01-09T23:55:00Z", "5m"),
            ("2026-01-09T21:30:00Z", "2h30m"),
            ("2026-01-06T20:00:00Z", "3d4h"),
            ("2025-01-10T00:00:00Z", "365d"),
            ("2027-01-10T00:00:00Z", "0s"),
            ("", ""),
        ] {
            assert_eq!(age(moment, now), text, "{moment}");
        }
    }

    #[test]
    fn yaml_keeps_types_apart() {
        let value = json!([{"name": "data", "size": 4096, "tags": ["no", "1e3", "a b", ""], "of": {"node": "n1"},
            "none": [], "empty": {}, "ready": true, "what": null, "lists": [[1, 2], [{"a": 1, "b": 2}]]}]);
        let expected = "\
- empty: {}
  lists:
  -
    - 1
    - 2
  -
    - a: 1
      b: 2
  name: data
  none: []
  of:
    node: n1
  ready: true
  size: 4096
  tags:
  - \"no\"
  - \"1e3\"
  - \"a b\"
  - \"\"
  what: null
";
        assert_eq!(yaml(&value), expected);
    }

    #[test]
    fn row_501_what_comes_from_a_cluster_commands_no_terminal() {
        let row = Row {
            name: "a".to_owned(),
            cells: vec![
                "a".to_owned(),
                "\u{1b}]0;x\u{7}\n".to_owned(),
                String::new(),
            ],
            value: Value::Null,
        };
        let list = List {
            kind: "volume",
            head: &["NAME", "TEXT", "NONE"],
            narrow: 3,
            rows: vec![row],
            empty: "",
        };
        let text = list.table(3);
        assert!(
            !text.contains('\u{1b}') && text.lines().count() == 2,
            "{text:?}"
        );
    }
}
