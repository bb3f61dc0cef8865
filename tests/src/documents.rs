//! Reads the documents and the sources of the project, for the tests that hold them together.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::programs::sources;

/// One row of docs/faults.md.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultRow {
    /// Its number in the list of faults.
    pub number: u32,
    /// What goes wrong.
    pub fault: String,
    /// What we promise then.
    pub promise: String,
    /// `file::test` of each proof; empty: not proven yet.
    pub proofs: Vec<(PathBuf, String)>,
}

/// The rows of docs/faults.md: `| number | fault | promise | file::test, … |`.
///
/// # Panics
/// When a line that looks like a row is none.
pub fn fault_rows() -> Vec<FaultRow> {
    parse_faults(&read(&sources().join("docs/faults.md")))
}

fn parse_faults(text: &str) -> Vec<FaultRow> {
    text.lines().filter_map(parse_row).collect()
}

fn parse_row(line: &str) -> Option<FaultRow> {
    let cells: Vec<&str> = line
        .strip_prefix('|')?
        .strip_suffix('|')?
        .split('|')
        .map(str::trim)
        .collect();
    let number = cells.first()?.parse().ok()?;
    let [_, fault, promise, proofs] = cells[..] else {
        panic!("not number, fault, promise, tests: {line}")
    };
    let proofs = proofs
        .split(',')
        .map(|proof| proof.trim().trim_matches('`'))
        .filter(|proof| !proof.is_empty())
        .map(|proof| {
            let (file, test) = proof
                .rsplit_once("::")
                .unwrap_or_else(|| panic!("not file::test: {proof}"));
            (PathBuf::from(file), test.to_owned())
        })
        .collect();
    Some(FaultRow {
        number,
        fault: fault.into(),
        promise: promise.into(),
        proofs,
    })
}

/// Whether a source file has a test of that name: `fn NAME` right below a test attribute, which may
/// be followed by others.
pub fn has_test(text: &str, name: &str) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let opens = [format!("fn {name}("), format!("async fn {name}(")];
    lines.iter().enumerate().any(|(at, line)| {
        let declared = opens.iter().any(|open| line.starts_with(open.as_str()));
        let mut above = lines[..at]
            .iter()
            .rev()
            .take_while(|line| line.starts_with("#["));
        declared && above.any(|line| *line == "#[test]" || line.starts_with("#[tokio::test"))
    })
}

/// Whether `make e2e` has a step that is function `name` of the file: `("…", file::name),` in the table of
/// steps of its main file.
pub fn has_step(steps: &str, file: &Path, name: &str) -> bool {
    let module = file.file_stem().unwrap_or_default().to_string_lossy();
    let entry = format!(" {module}::{name}),");
    let mut lines = steps.lines().map(str::trim);
    lines.any(|line| line.starts_with("(\"") && line.ends_with(&entry))
}

/// The `parameters:` of a StorageClass in YAML, as one writes them: `  key: 'value'`.
pub fn storage_class_parameters(text: &str) -> Vec<(String, String)> {
    let lines = text
        .lines()
        .skip_while(|line| *line != "parameters:")
        .skip(1);
    lines
        .take_while(|line| line.starts_with("  "))
        .filter_map(|line| line.trim().split_once(": "))
        .map(|(key, value)| (key.to_owned(), value.trim_matches('\'').to_owned()))
        .collect()
}

/// The commands that a document shows below a heading: the lines of its `sh` blocks, those that end in a
/// backslash joined with the next, without comments.
///
/// # Panics
/// When the document has no such heading, or no command below it.
pub fn commands(document: &str, heading: &str) -> Vec<String> {
    let text = read(&sources().join(document));
    let found = shown_commands(&text, heading);
    assert!(
        !found.is_empty(),
        "{document} shows no command below {heading:?}"
    );
    found
}

fn shown_commands(text: &str, heading: &str) -> Vec<String> {
    let level = heading.split(' ').next().unwrap_or_default();
    let below = text.lines().skip_while(|line| *line != heading).skip(1);
    let section = below.take_while(|line| !line.starts_with(&format!("{level} ")));
    let (mut found, mut inside, mut begun) = (Vec::new(), false, String::new());
    for line in section.map(str::trim) {
        if line.starts_with("```") {
            inside = line == "```sh";
            continue;
        }
        let line = line.split("  #").next().unwrap_or_default().trim();
        if !inside || line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(line) = line.strip_suffix('\\') {
            begun += line;
        } else {
            found.push(std::mem::take(&mut begun) + line);
        }
    }
    found
}

/// Whether a file holds nothing but tests: `tests.rs`, `…_tests.rs`, or a file below a folder `tests` of a crate.
pub fn is_test(path: &Path) -> bool {
    let name = path
        .file_stem()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let inside = path.strip_prefix(sources()).unwrap_or(path);
    // The folder at the top that is called so holds the harness and the programs that use it.
    let mut folders = inside.iter().skip(1);
    name == "tests" || name.ends_with("_tests") || folders.any(|folder| folder == "tests")
}

/// All Rust sources of the workspace, without what cargo builds.
pub fn rust_sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    collect(&sources(), &mut found);
    found.sort();
    found
}

fn collect(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir)
        .unwrap_or_else(|error| panic!("read {}: {error}", dir.display()))
        .flatten()
    {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() {
            if name != "target" && name != ".git" {
                collect(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Lines of a source file above its tests: up to the `#[cfg(test)]` of a module with a body.
pub fn product_lines(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    let tests = lines
        .windows(2)
        .position(|pair| pair[0].trim() == "#[cfg(test)]" && pair[1].trim_end().ends_with('{'));
    tests.unwrap_or(lines.len())
}

/// Every `crash_point!("…")` in the sources below these folders of the workspace.
pub fn crash_points(folders: &[&str]) -> BTreeSet<String> {
    for folder in folders {
        let folder = sources().join(folder);
        assert!(folder.is_dir(), "there is no {}", folder.display());
    }
    let mut points = BTreeSet::new();
    for path in rust_sources() {
        if folders
            .iter()
            .any(|folder| path.starts_with(sources().join(folder)))
        {
            let text = read(&path);
            let names = text.split("crash_point!(\"").skip(1);
            points.extend(names.filter_map(|rest| rest.split('"').next().map(str::to_owned)));
        }
    }
    points
}

/// The directories of the workspace's crates, as Cargo.toml lists them.
pub fn members() -> Vec<String> {
    let manifest = read(&sources().join("Cargo.toml"));
    manifest
        .lines()
        .skip_while(|line| !line.starts_with("members = ["))
        .skip(1)
        .take_while(|line| !line.starts_with(']'))
        .map(|line| line.trim().trim_matches([',', '"']).to_owned())
        .collect()
}

/// The metrics that docs/operations.md lists, as Prometheus stores them, without their labels.
pub fn documented_metrics() -> BTreeSet<String> {
    let text = read(&sources().join("docs/operations.md"));
    let rows = text
        .lines()
        .skip_while(|line| !line.starts_with("| metric |"));
    let rows = rows.skip(2).take_while(|line| line.starts_with('|'));
    let cells = rows.filter_map(|row| row.split('|').nth(1));
    let names = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    names
        .filter_map(|name| Some(name.split('{').next()?.to_owned()))
        .collect()
}

/// The text of a file that must be there.
pub fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_number_fault_promise_and_tests() {
        let rows = parse_faults(
            "# title\n| # | fault | promise | test |\n|--|--|--|--|\n| 7 | f | p | `a/b.rs::row_07`, c.rs::d |\n",
        );
        let proofs = vec![
            ("a/b.rs".into(), "row_07".into()),
            ("c.rs".into(), "d".into()),
        ];
        let row = FaultRow {
            number: 7,
            fault: "f".into(),
            promise: "p".into(),
            proofs,
        };
        assert_eq!(rows, vec![row]);
    }

    #[test]
    fn only_a_function_below_a_test_attribute_is_a_test() {
        let text = "#[test]\n#[cfg(unix)]\nfn real() {}\n#[tokio::test]\nasync fn later() {}\nfn helper() {}\n// fn said() {}\n";
        let found = ["real", "later", "helper", "said", "rea"].map(|name| has_test(text, name));
        assert_eq!(found, [true, true, false, false, false]);
    }

    #[test]
    fn only_what_the_table_names_is_a_step() {
        let steps = "const STEPS: &[Step] = &[\n    (\"power\", faults::power_cut),\n    // (\"x\", faults::x),\n];\n";
        let has = |file: &str, name: &str| has_step(steps, Path::new(file), name);
        assert!(has("a/faults.rs", "power_cut"));
        assert!(!has("a/other.rs", "power_cut"));
        assert!(!has("a/faults.rs", "cut") && !has("a/faults.rs", "x"));
    }

    #[test]
    fn commands_are_those_of_the_section_alone() {
        let text = "## A\n```sh\nzero\n```\n## Use it\ntext\n```sh\n# first\nkubectl a \\\n  -b   # why\n```\n\
                    ```yaml\nkind: X\n```\n### More\n```sh\nhelm c\n```\n## B\n```sh\nlast\n```\n";
        let found = shown_commands(text, "## Use it");
        assert_eq!(found, ["kubectl a -b", "helm c"]);
    }

    #[test]
    fn lines_of_tests_do_not_count() {
        assert_eq!(product_lines("a\nb\n#[cfg(test)]\nmod tests {\n}\n"), 2);
        assert_eq!(product_lines("a\n#[cfg(test)]\nmod tests;\nb\n"), 4);
    }
}
