//! Checks the structure of the workspace: the edges between crates, the length of files, and that
//! the documents describe both.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};

use e2e::documents::{self, fault_rows, read};
use e2e::modules;
use e2e::programs::sources;

/// The crates that each crate may depend on, of those in this workspace.
const EDGES: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("proto", &[]),
    ("probe", &["types"]),
    ("image", &["types", "probe"]),
    ("chunks", &["types"]),
    ("store", &["types", "probe", "image", "chunks"]),
    ("volume", &["types", "probe", "image", "store"]),
    // Of a store it knows no more than what it asks of its caller.
    ("sync", &["types", "chunks", "trust", "listen"]),
    // Pure: no I/O, and no clock.
    ("replication", &["types"]),
    // Stores of backups: it knows nothing of volumes, disks or gRPC.
    ("backup", &["types", "chunks"]),
    ("host", &["types", "probe", "replication"]),
    ("tree", &["types"]),
    ("mkfs-xfs", &["types", "probe", "tree"]),
    // Bytes in, questions answered: it knows no gRPC, HTTP or Kubernetes.
    ("trust", &["types"]),
    ("kubernetes", &["types"]),
    ("client", &["types", "replication", "proto", "trust"]),
    ("fetch", &["types", "image"]),
    // Both daemons listen by it, so that the bounds of a port are the same on each.
    ("listen", &["client", "trust"]),
    (
        "node",
        &[
            "types",
            "trust",
            "host",
            "replication",
            "proto",
            "client",
            "listen",
        ],
    ),
    // A tool for people: it knows nothing of the daemon, and asks none.
    (
        "base-image",
        &["types", "probe", "image", "fetch", "tree", "mkfs-xfs"],
    ),
    (
        "catalog",
        &[
            "types", "trust", "probe", "image", "fetch", "chunks", "store", "volume", "sync",
        ],
    ),
    // The disk on one side, the store on the other: neither knows of the other without it.
    (
        "backup-jobs",
        &[
            "types", "probe", "image", "store", "volume", "catalog", "backup",
        ],
    ),
    // Longhorn's faces stand on the catalog, and nothing below them knows Longhorn's words.
    (
        "longhorn",
        &[
            "types",
            "trust",
            "probe",
            "image",
            "fetch",
            "proto",
            "client",
            "listen",
            "chunks",
            "store",
            "volume",
            "sync",
            "catalog",
            "backup",
            "backup-jobs",
        ],
    ),
    (
        "manager",
        &[
            "types",
            "trust",
            "image",
            "fetch",
            "proto",
            "client",
            "listen",
            "store",
            "volume",
            "sync",
            "catalog",
            "backup",
            "backup-jobs",
            "longhorn",
        ],
    ),
    (
        "csi",
        &[
            "types",
            "trust",
            "kubernetes",
            "probe",
            "host",
            "replication",
            "proto",
            "client",
            "listen",
            "node",
            // Of it only what the addresses of backups are: managers make and restore them.
            "backup",
        ],
    ),
    (
        "flexvolume",
        &[
            "types", "trust", "probe", "host", "proto", "client", "backup",
        ],
    ),
    // Programs for people: they know the managers and the node services by their client alone.
    ("ui", &["types", "trust", "kubernetes", "client", "listen"]),
    ("kubectl", &["types", "trust", "client"]),
    ("package", &["image"]),
    // Certificates that are wrong in one way are made by the library that makes the right ones.
    ("e2e", &["types", "proto", "trust"]),
];

/// What blocking crates must not pull in: they know nothing of async, gRPC or networks.
const BLOCKING: &[&str] = &[
    "types",
    "probe",
    "image",
    "chunks",
    "store",
    "volume",
    "host",
    "tree",
    "mkfs-xfs",
    "replication",
];
const ASYNC: &[&str] = &[
    "tokio",
    "tonic",
    "prost",
    "hyper",
    "reqwest",
    "futures-util",
    "axum",
    "kube",
];

/// Circles among the top-level modules of a crate that are still to be removed: folder, modules.
const KNOWN_CIRCLES: &[(&str, &[&str])] = &[];

/// Lines of a source file without its tests; a file that needs more has two subjects.
const LINES_MAX: usize = 450;

/// The rows of the list of faults that the project has promised to prove so far.
const PROMISED: &[std::ops::RangeInclusive<u32>] = &[1..=62, 64..=77, 79..=80, 84..=94, 96..=106];

#[derive(Debug)]
struct Dependency {
    name: String,
    /// Not a dev-dependency.
    product: bool,
}

/// The direct dependencies of each crate, as cargo sees them.
fn workspace() -> BTreeMap<String, Vec<Dependency>> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let manifest = sources().join("Cargo.toml").display().to_string();
    let arguments = [
        "metadata",
        "--format-version=1",
        "--no-deps",
        "--manifest-path",
        &manifest,
    ];
    let metadata: serde_json::Value =
        serde_json::from_str(&e2e::command::run(&cargo, arguments)).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    packages
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().unwrap().iter();
            let dependencies = dependencies.map(|dependency| Dependency {
                name: dependency["name"].as_str().unwrap().to_owned(),
                product: dependency["kind"].as_str() != Some("dev"),
            });
            (
                package["name"].as_str().unwrap().to_owned(),
                dependencies.collect(),
            )
        })
        .collect()
}

#[test]
fn crates_depend_only_downwards() {
    let workspace = workspace();
    let known: BTreeSet<&str> = EDGES.iter().map(|(name, _)| *name).collect();
    let members: BTreeSet<&str> = workspace.keys().map(String::as_str).collect();
    assert_eq!(members, known, "every crate has a line in EDGES");
    for (name, allowed) in EDGES {
        for dependency in &workspace[*name] {
            // Tests of any crate may use the harness, which knows no crate's insides.
            if dependency.name == "e2e" && !dependency.product {
                continue;
            }
            let ours = known.contains(dependency.name.as_str());
            assert!(
                !ours || allowed.contains(&dependency.name.as_str()),
                "{name} must not depend on {}",
                dependency.name
            );
        }
    }
}

#[test]
fn blocking_crates_know_nothing_of_async_or_grpc() {
    let workspace = workspace();
    for name in BLOCKING {
        let product = workspace[*name]
            .iter()
            .filter(|dependency| dependency.product);
        let found: Vec<_> = product
            .filter(|dependency| ASYNC.contains(&dependency.name.as_str()))
            .collect();
        assert!(found.is_empty(), "{name} depends on {found:?}");
    }
}

#[test]
fn the_modules_of_a_crate_use_each_other_in_no_circle() {
    let mut circles = Vec::new();
    for folder in documents::members() {
        let uses = modules::uses(&sources().join(&folder).join("src"));
        for circle in modules::circles(&uses) {
            let edges: Vec<String> = circle
                .iter()
                .map(|module| {
                    let used: Vec<_> = uses[module].intersection(&circle).collect();
                    format!("{module} uses {used:?}")
                })
                .collect();
            circles.push((folder.clone(), circle, edges));
        }
    }
    let is_known = |folder: &str, circle: &BTreeSet<String>| {
        KNOWN_CIRCLES.iter().any(|(known, modules)| {
            *known == folder && circle.iter().all(|name| modules.contains(&name.as_str()))
        })
    };
    let new: Vec<_> = circles
        .iter()
        .filter(|(folder, circle, _)| !is_known(folder, circle))
        .map(|(folder, _, edges)| (folder, edges))
        .collect();
    assert!(
        new.is_empty(),
        "move what both sides need below both: {new:#?}"
    );
    for known in KNOWN_CIRCLES {
        let left = circles.iter().any(|(folder, ..)| folder == known.0);
        assert!(
            left,
            "{known:?} is no circle any more: remove it from the list"
        );
    }
}

#[test]
fn unsafe_code_is_denied_everywhere() {
    let members = documents::members();
    assert!(!members.is_empty(), "Cargo.toml lists the crates");
    for folder in members {
        let manifest = read(&sources().join(&folder).join("Cargo.toml"));
        assert!(
            manifest.contains("[lints]\nworkspace = true"),
            "{folder} has lints of its own"
        );
    }
    assert!(read(&sources().join("Cargo.toml")).contains("unsafe_code = \"deny\""));
}

#[test]
fn no_source_file_has_two_subjects() {
    let long: Vec<String> = documents::rust_sources()
        .into_iter()
        .filter(|path| !documents::is_test(path))
        .filter_map(|path| {
            let lines = documents::product_lines(&read(&path));
            (lines > LINES_MAX).then(|| format!("{}: {lines} lines", path.display()))
        })
        .collect();
    assert!(long.is_empty(), "more than {LINES_MAX} lines: {long:#?}");
}

#[test]
fn every_source_file_says_what_it_owns() {
    let silent: Vec<_> = documents::rust_sources()
        .into_iter()
        .filter(|path| !documents::is_test(path))
        .filter(|path| {
            !read(path)
                .trim_start_matches("#![no_main]\n")
                .starts_with("//!")
        })
        .collect();
    assert!(silent.is_empty(), "no //! at the top: {silent:#?}");
}

/// The stations of CreateVolume: at most 13, and each is a function of the file that the document names.
#[test]
fn the_walk_of_create_volume_is_that_of_the_code() {
    let document = read(&sources().join("docs/architecture.md"));
    let (_, walk) = document
        .split_once("## CreateVolume, step by step")
        .unwrap();
    let walk = walk.split("\n## ").next().unwrap();
    let is_station = |line: &&str| {
        line.split_once(". `")
            .is_some_and(|(n, _)| n.parse::<u32>().is_ok())
    };
    let stations: Vec<&str> = walk.lines().filter(is_station).collect();
    assert!((1..=13).contains(&stations.len()), "{stations:#?}");
    for station in stations {
        let place = station.split('`').nth(1).unwrap();
        let (file, function) = place.split_once("::").unwrap();
        let text = read(&sources().join(file));
        let names = [format!("fn {function}("), format!("fn {function}<")];
        assert!(
            names.iter().any(|name| text.contains(name)),
            "{file} has no function {function}: {station}"
        );
    }
}

#[test]
fn every_proof_in_the_list_of_faults_is_a_test_that_exists() {
    let rows = fault_rows();
    let proofs: Vec<_> = rows
        .iter()
        .flat_map(|row| row.proofs.iter().map(move |proof| (row.number, proof)))
        .collect();
    assert!(!proofs.is_empty(), "docs/faults.md has rows with tests");
    for (number, (file, test)) in proofs {
        let path = sources().join(file);
        assert!(
            path.is_file(),
            "row {number}: there is no {}",
            file.display()
        );
        let proven = if file.starts_with("tests/src/bin/e2e") {
            let steps = read(&sources().join("tests/src/bin/e2e/main.rs"));
            documents::has_step(&steps, file, test)
        } else {
            documents::has_test(&read(&path), test)
        };
        assert!(
            proven,
            "row {number}: {} has no test {test}",
            file.display()
        );
    }
}

#[test]
fn the_list_of_faults_has_every_promised_row_once_and_says_the_promise() {
    let rows = fault_rows();
    let numbers: Vec<u32> = rows.iter().map(|row| row.number).collect();
    assert!(
        numbers.windows(2).all(|pair| pair[0] < pair[1]),
        "in order, each once: {numbers:?}"
    );
    for number in PROMISED.iter().cloned().flatten() {
        assert!(
            numbers.contains(&number),
            "row {number} is missing from docs/faults.md"
        );
    }
    for row in rows {
        assert!(
            !row.fault.is_empty() && !row.promise.is_empty(),
            "row {} is empty",
            row.number
        );
    }
}

/// The edges of the graph in docs/architecture.md: `a --> b & c`.
fn drawn_edges(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let (_, graph) = text.split_once("## Crates").unwrap();
    let (_, graph) = graph.split_once("```mermaid").unwrap();
    let (graph, _) = graph.split_once("```").unwrap();
    let edges = graph.lines().filter_map(|line| line.split_once("-->"));
    edges
        .map(|(from, to)| {
            let to = to.split('&').map(|name| name.trim().to_owned());
            (from.trim().to_owned(), to.collect())
        })
        .collect()
}

#[test]
fn the_graph_and_the_table_of_crates_are_what_is_allowed() {
    let text = read(&sources().join("docs/architecture.md"));
    let allowed: BTreeMap<String, BTreeSet<String>> = EDGES
        .iter()
        .filter(|(_, to)| !to.is_empty())
        .map(|(from, to)| {
            let to = to.iter().map(|name| (*name).to_owned());
            ((*from).to_owned(), to.collect())
        })
        .collect();
    assert_eq!(drawn_edges(&text), allowed);
    let rows = text
        .lines()
        .skip_while(|line| !line.starts_with("| crate |"));
    let rows = rows.skip(2).take_while(|line| line.starts_with('|'));
    let listed = rows.filter_map(|line| Some(line.split('`').nth(1)?.to_owned()));
    let crates = EDGES.iter().map(|(name, _)| (*name).to_owned());
    assert_eq!(
        listed.collect::<BTreeSet<_>>(),
        crates.collect::<BTreeSet<_>>()
    );
}

/// Rows `| kind | code | …` of docs/errors.md.
fn error_table() -> BTreeMap<String, String> {
    read(&sources().join("docs/errors.md"))
        .lines()
        .filter_map(|line| {
            let mut cells = line
                .strip_prefix("| `")?
                .split('|')
                .map(|cell| cell.trim().trim_matches('`'));
            Some((cells.next()?.to_owned(), cells.next()?.to_owned()))
        })
        .collect()
}

#[test]
fn the_table_of_errors_is_what_the_programs_answer() {
    let table = error_table();
    let kinds = read(&sources().join("crates/types/src/kind.rs"));
    let (_, body) = kinds.split_once("pub enum ErrorKind {").unwrap();
    let (body, _) = body.split_once("\n}").unwrap();
    let declared = body
        .lines()
        .map(str::trim)
        .filter_map(|line| line.strip_suffix(','));
    let declared: BTreeSet<String> = declared.map(str::to_owned).collect();
    assert_eq!(table.keys().cloned().collect::<BTreeSet<_>>(), declared);
    let text = read(&sources().join("crates/client/src/code.rs"));
    for (kind, code) in &table {
        let arm = format!("ErrorKind::{kind} => Code::{code},");
        assert!(
            text.contains(&arm),
            "crates/client/src/code.rs has no arm {arm}"
        );
    }
    let elsewhere: Vec<_> = documents::rust_sources()
        .into_iter()
        .filter(|path| !path.ends_with("crates/client/src/code.rs") && !documents::is_test(path))
        .filter(|path| read(path).contains("=> Code::InvalidArgument"))
        .collect();
    assert!(elsewhere.is_empty(), "a second table: {elsewhere:?}");
}
