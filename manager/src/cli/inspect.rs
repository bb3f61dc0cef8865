//! `backing-image inspect`: what an image from a source would be.

use clap::{Args, ValueEnum};
use client::{Client, wire};
use serde::Serialize;
use types::ByteSize;

use super::images::{ContentView, content_view};
use super::source::FromArgs;
use super::{Failure, output};

#[derive(Debug, Args)]
pub(super) struct InspectArgs {
    #[command(flatten)]
    from: FromArgs,
    /// Output format
    #[arg(short, long, value_enum, default_value = "table")]
    output: Form,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Form {
    /// Lines for people
    Table,
    Json,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct InspectView {
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    source: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    manifest_digest: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    platform: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    format: String,
    size: u64,
    virtual_size: u64,
    transfer_size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<ContentView>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    partitions: Vec<PartitionView>,
    /// Of the image here; empty: there is none.
    state: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PartitionView {
    number: u32,
    offset: u64,
    length: u64,
}

pub(super) async fn run(client: &Client, args: &InspectArgs) -> Result<(), Failure> {
    let source = args.from.source()?.ok_or("name a source")?;
    let seen = client.inspect_source(source).await?;
    match args.output {
        Form::Json => output::json(&view(seen))?,
        Form::Table => {
            let rows = lines(&seen);
            let rows: Vec<_> = rows
                .into_iter()
                .map(|(name, value)| [name.to_owned(), printable(&value)])
                .collect();
            output::lines(&rows)?;
        }
    }
    Ok(())
}

/// What somebody else named, safe for a terminal.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{FFFD}' } else { c })
        .collect()
}

fn state_of(seen: &wire::InspectSourceResponse) -> &'static str {
    match seen.state() {
        wire::State::Unspecified => "",
        state => client::state_name(state),
    }
}

fn view(seen: wire::InspectSourceResponse) -> InspectView {
    let state = state_of(&seen);
    let partition = |partition: wire::Partition| PartitionView {
        number: partition.number,
        offset: partition.offset,
        length: partition.length,
    };
    InspectView {
        state,
        content: seen.content.as_ref().map(content_view),
        name: seen.name,
        source: seen.source,
        manifest_digest: seen.manifest_digest,
        platform: seen.platform,
        format: seen.format,
        size: seen.size,
        virtual_size: seen.virtual_size,
        transfer_size: seen.transfer_size,
        partitions: seen.partitions.into_iter().map(partition).collect(),
        notes: seen.notes,
    }
}

/// What is known, one fact a line.
fn lines(seen: &wire::InspectSourceResponse) -> Vec<(&'static str, String)> {
    let bytes = |size: u64| match size {
        0 => String::new(),
        size => ByteSize(size).to_string(),
    };
    let state = match state_of(seen) {
        "" => "not on this disk".to_owned(),
        state => format!("{state} as {}", seen.name),
    };
    let mut lines = vec![
        ("Source", seen.source.clone()),
        ("Digest", seen.manifest_digest.clone()),
        ("Platform", seen.platform.clone()),
        ("Format", seen.format.clone()),
        ("Virtual size", bytes(seen.virtual_size)),
        ("Image size", bytes(seen.size)),
        ("To transfer", bytes(seen.transfer_size)),
    ];
    if let Some(content) = &seen.content {
        let view = content_view(content);
        let mut holds = match view.what.as_str() {
            "" => view.kind,
            what => what.to_owned(),
        };
        for (name, value) in [("label", view.label), ("UUID", view.uuid)] {
            if !value.is_empty() {
                holds = format!("{holds}, {name} {value}");
            }
        }
        lines.push(("Holds", holds));
    }
    for partition in &seen.partitions {
        let text = format!(
            "{}: {} at byte {}",
            partition.number,
            ByteSize(partition.length),
            partition.offset
        );
        lines.push(("Partition", text));
    }
    lines.push(("Here", state));
    lines.extend(seen.notes.iter().map(|note| ("Note", note.clone())));
    lines.retain(|(_, value)| !value.is_empty());
    lines
}
