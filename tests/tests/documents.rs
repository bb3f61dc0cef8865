//! Compares the documents with the programs: tables list exactly the parameters, options and metrics that exist,
//! links resolve, and the messages that a document explains occur in a program.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use e2e::documents::{has_step, has_test, read, rust_sources};
use e2e::programs::{self, sources};

/// The documents that users read.
fn documents() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in ["", "docs", "docs/adr", ".github"] {
        for entry in std::fs::read_dir(sources().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    assert!(found.len() > 20, "{found:?}");
    found
}

/// A document without its blocks of code.
fn prose(text: &str) -> String {
    let parts = text.split("```").step_by(2);
    parts.collect::<Vec<_>>().join("\n")
}

/// The anchor that GitHub gives a heading.
fn anchor(heading: &str) -> String {
    let heading = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = heading
        .chars()
        .filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'));
    kept.map(|letter| if letter == ' ' { '-' } else { letter })
        .collect()
}

/// The cells of the tables of a text whose first row is one of these, without headers: each row's first cell.
fn first_cells<'a>(text: &'a str, headers: &'a [&str]) -> Vec<&'a str> {
    let mut cells = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if headers.contains(&line) {
            let rows = lines
                .by_ref()
                .skip(1)
                .take_while(|line| line.starts_with('|'));
            cells.extend(rows.filter_map(|row| row.split('|').nth(1)));
        }
    }
    assert!(!cells.is_empty(), "no table {headers:?}");
    cells
}

/// The texts in backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn names(cells: &[&str]) -> BTreeSet<String> {
    cells
        .iter()
        .flat_map(|cell| quoted(cell))
        .map(str::to_owned)
        .collect()
}

/// The values of the constants in the array `KEYS` of a source, whose texts are in it or in one of the others.
fn keys(source: &str, others: &[&str]) -> BTreeSet<String> {
    let texts: Vec<String> = [source]
        .iter()
        .chain(others)
        .map(|file| read(&sources().join(file)))
        .collect();
    let (_, array) = texts[0].split_once("const KEYS: [&str;").unwrap();
    let (_, array) = array.split_once("= [").unwrap();
    let (array, _) = array.split_once("];").unwrap();
    let code = array.lines().filter(|line| !line.trim().starts_with("//"));
    let entries = code.flat_map(|line| line.split(','));
    let entries = entries.map(str::trim).filter(|entry| !entry.is_empty());
    entries
        .map(|entry| {
            if let Some(text) = entry.strip_prefix('"') {
                return text.trim_end_matches('"').to_owned();
            }
            let constant = format!("const {entry}: &str = \"");
            let found = texts.iter().find_map(|text| text.split_once(&constant));
            let (_, rest) = found.unwrap_or_else(|| panic!("{entry} has no value"));
            rest.split('"').next().unwrap().to_owned()
        })
        .collect()
}

#[test]
fn every_parameter_of_a_class_is_documented_and_no_other() {
    let text = read(&sources().join("docs/parameters.md"));
    let accepted = keys(
        "csi/src/request/parameters.rs",
        &[
            "csi/src/request/backing_image.rs",
            "csi/src/request/backup.rs",
            "crates/client/src/parameters.rs",
        ],
    );
    let documented = names(&first_cells(&text, &["| key | value | default |"]));
    assert_eq!(documented, accepted);
}

#[test]
fn every_option_of_a_flexvolume_is_documented_and_no_other() {
    let text = read(&sources().join("docs/flexvolume.md"));
    let mut accepted = keys(
        "flexvolume/src/options.rs",
        &["crates/client/src/parameters.rs"],
    );
    assert!(accepted.remove("fsType"), "it is known only to be refused");
    let documented = names(&first_cells(&text, &["| option | default | meaning |"]));
    assert_eq!(documented, accepted);
}

#[test]
fn every_option_of_the_daemon_is_documented_and_no_other() {
    let program = programs::manager();
    let help = e2e::command::run(&program.display().to_string(), ["daemon", "--help"]);
    let options = help.lines().filter_map(|line| {
        let line = line.trim_start();
        let line = line.split_once(", ").map_or(
            line,
            |(short, long)| {
                if short.len() == 2 { long } else { line }
            },
        );
        let name = line.strip_prefix("--")?;
        Some(format!("--{}", name.split([' ', '=']).next()?))
    });
    let mut options: BTreeSet<String> = options.collect();
    assert!(options.remove("--help"), "{help}");
    let text = read(&sources().join("docs/operations.md"));
    let documented = names(&first_cells(&text, &["| option | default | subject |"]));
    assert_eq!(documented, options);
}

/// `upstream_e2e.rs` checks the other direction, against a running manager.
#[test]
fn every_metric_in_the_table_has_a_source() {
    let code: Vec<String> = rust_sources()
        .iter()
        .filter(|path| !e2e::documents::is_test(path))
        .map(|path| read(path))
        .collect();
    let documented = e2e::documents::documented_metrics();
    assert!(documented.len() > 30, "{documented:?}");
    for name in documented {
        let name = name.trim_end_matches("_total");
        let ends = [
            "",
            "longhorn_backing_image_",
            "longhorn_backing_image_disk_",
            "longhorn_base_image_",
        ];
        let mut ends = ends.iter().filter_map(|start| name.strip_prefix(start));
        let known = ends.any(|end| {
            let quoted = format!("\"{end}\"");
            code.iter().any(|text| text.contains(&quoted))
        });
        assert!(known, "no program has the metric {name}");
    }
}

#[test]
fn links_lead_somewhere() {
    let mut wrong = Vec::new();
    for document in documents() {
        let text = prose(&read(&document));
        let links = text.split("](").skip(1);
        for link in links.filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (path, place) = link.split_once('#').unwrap_or((link, ""));
            let target = match path {
                "" => document.clone(),
                path => document.parent().unwrap().join(path),
            };
            if !target.exists() || !(place.is_empty() || has_heading(&target, place)) {
                wrong.push(format!("{}: {link}", document.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn has_heading(document: &Path, place: &str) -> bool {
    let text = prose(&read(document));
    let mut headings = text.lines().filter(|line| line.starts_with('#'));
    headings.any(|heading| anchor(heading) == place)
}

/// What stops an attack is shown by a test: each cell of the last column names at least one, and it exists.
#[test]
fn every_test_that_the_threat_model_names_exists() {
    let text = read(&sources().join("docs/threat-model.md"));
    let rows = text.lines().filter(|line| line.starts_with("| "));
    let rows = rows.filter(|line| !line.ends_with("| test |"));
    let steps = read(&sources().join("tests/src/bin/e2e/main.rs"));
    let (mut wrong, mut named) = (Vec::new(), 0);
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').collect();
        let tests: Vec<&str> = quoted(cells.last().unwrap()).collect();
        if cells.len() != 3 || tests.is_empty() {
            wrong.push(format!("not attack, what stops it, test: {row}"));
        }
        for test in tests {
            let (file, name) = test.rsplit_once("::").unwrap_or((test, ""));
            let path = sources().join(file);
            let exists = path.is_file()
                && if file.starts_with("tests/src/bin/e2e") {
                    has_step(&steps, Path::new(file), name)
                } else {
                    has_test(&read(&path), name)
                };
            if !exists {
                wrong.push(format!("there is no test {test}"));
            }
            named += 1;
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(named > 30, "{named}");
}

/// The messages of Kubernetes and of the kernel that the documents explain as well.
const FOREIGN: &[&str] = &[
    "waiting for first consumer",
    "Waiting for a volume to be created either by the external provisioner 'rancher.io/longhorn' or manually by \
     the system administrator",
    "no matches for kind \"VolumeSnapshotClass\"",
    "driver name driver.longhorn.io not found in the list of registered CSI drivers",
    "didn't match PersistentVolume's node affinity",
    "permission denied",
];

/// The constant parts of a message that are long enough to be distinctive.
fn fixed_parts(message: &str) -> impl Iterator<Item = &str> {
    message
        .split(['…', '%'])
        .flat_map(|part| part.split(|letter: char| letter.is_ascii_digit()))
        .map(|part| part.trim_matches([' ', '(', ')', ':', ',']))
        .filter(|part| part.len() >= 12)
}

#[test]
fn messages_that_the_documents_explain_are_messages_of_the_programs() {
    let code: Vec<String> = rust_sources()
        .iter()
        .map(|path| words(&read(path)))
        .collect();
    let mut text = read(&sources().join("docs/troubleshooting.md"));
    text += &read(&sources().join("docs/certificates.md"));
    text += &read(&sources().join("docs/backup.md"));
    let rows = first_cells(
        &text,
        &[
            "| message | cause | what to do |",
            "| log message | cause | what to do |",
        ],
    );
    let mut unknown = Vec::new();
    for message in rows.iter().flat_map(|cell| quoted(cell)) {
        if FOREIGN.contains(&message) {
            continue;
        }
        let parts: Vec<String> = fixed_parts(message).map(words).collect();
        let known = |part: &String| code.iter().any(|text| text.contains(part.as_str()));
        if !parts.iter().all(known) {
            unknown.push(message);
        }
    }
    assert!(unknown.is_empty(), "no program says {unknown:#?}");
}

/// A text with single spaces, and with the continued lines of strings joined.
fn words(text: &str) -> String {
    let text = text.replace("\\\n", " ");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
