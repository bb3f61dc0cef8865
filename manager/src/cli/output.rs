//! Answers on standard output: JSON as Longhorn prints it, or a table.

use std::io::{self, Write};

use clap::ValueEnum;
use serde::Serialize;

/// How an answer is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Form {
    /// Indented with tabs, as Longhorn's command prints it
    Json,
    /// The same with all that only this program knows: format, source, content, …
    JsonFull,
    /// Columns for people
    Table,
}

/// Prints a value as JSON, indented with tabs.
pub(super) fn json<T: Serialize>(value: &T) -> io::Result<()> {
    let mut text = Vec::new();
    let indented = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    value.serialize(&mut serde_json::Serializer::with_formatter(
        &mut text, indented,
    ))?;
    text.push(b'\n');
    io::stdout().lock().write_all(&text)
}

/// Prints names and values, one a line.
pub(super) fn lines(rows: &[[String; 2]]) -> io::Result<()> {
    let width = rows.iter().map(|[name, _]| name.len()).max().unwrap_or(0);
    let lines = rows
        .iter()
        .map(|[name, value]| format!("{name:width$}  {value}\n"));
    io::stdout()
        .lock()
        .write_all(lines.collect::<String>().as_bytes())
}

/// Prints rows under a head, in columns as wide as they need to be.
pub(super) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> io::Result<()> {
    let text = client::terminal::table(&head, rows);
    io::stdout().lock().write_all(text.as_bytes())
}
