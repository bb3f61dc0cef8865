//! What people watch: each metric of the alerts and the dashboard is one that running programs serve, the alerts fire when
//! they must and not otherwise, and each has a section that says what to do.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;
use std::path::Path;

use e2e::documents::read;
use e2e::manager::{Options, init_disk};
use e2e::programs::{self, sources};
use e2e::{AddressFile, Manager, Need, Process, Sandbox, command, needs, wait, web};
use serde_json::Value;

const FILES: &str = "deploy/helm/longhorn-base-image/files";
const COMPONENT: &str = "deploy/kustomize/components/monitoring";

/// The metrics that have series only after something that does not happen here: their names are in docs.
const LATER: [&str; 7] = [
    "longhorn_backing_image_failures_total",
    "longhorn_backup_failures_total",
    "longhorn_backup_last_success_timestamp_seconds",
    "longhorn_backing_image_actual_size_bytes",
    "longhorn_base_image_volume_actual_size_bytes",
    "longhorn_certificate_expiration_timestamp_seconds",
    "longhorn_replicated_volumes",
];

fn text(path: &str) -> String {
    read(&sources().join(path))
}

/// The names of our metrics in an expression.
fn metrics(expressions: &str) -> BTreeSet<String> {
    let words =
        expressions.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
    let ours = [
        "longhorn_backing_",
        "longhorn_base_image_",
        "longhorn_backup_",
    ];
    let others = [
        "longhorn_replicated_",
        "longhorn_certificate_",
        "csi_plugin_",
        "process_",
    ];
    words
        .filter(|word| {
            ours.iter()
                .chain(&others)
                .any(|start| word.starts_with(start))
        })
        .map(str::to_owned)
        .collect()
}

/// The expressions of the alerts, and of the panels.
fn expressions() -> (String, String) {
    let rules = text(&format!("{FILES}/rules.yaml"));
    let mut inside = false;
    let lines = rules.lines().filter(|line| {
        let line = line.trim();
        inside = line.starts_with("expr:") || (inside && !line.starts_with("for:"));
        inside
    });
    let dashboard: Value = serde_json::from_str(&text(&format!("{FILES}/dashboard.json"))).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels
        .iter()
        .filter_map(|panel| panel["targets"].as_array());
    let panels = targets
        .flatten()
        .map(|target| target["expr"].as_str().unwrap());
    (
        lines.collect::<Vec<_>>().join("\n"),
        panels.collect::<Vec<_>>().join("\n"),
    )
}

/// What a manager and a controller serve, as Prometheus stores it: counters end in `_total`.
fn scrape(sandbox: &Sandbox) -> String {
    let disk = sandbox.make_dir("disk");
    init_disk(&disk);
    let options = Options::new(&disk).with("--metrics-listen", "127.0.0.1:0");
    let manager = Manager::start(sandbox, &options);
    let (addresses, socket) = (
        AddressFile::new(sandbox),
        sandbox.make_dir("csi").join("csi.sock"),
    );
    let arguments = [
        "--mode=controller".to_owned(),
        format!("--endpoint=unix://{}", socket.display()),
        format!("--manager={}", manager.address()),
        "--http-listen=127.0.0.1:0".to_owned(),
        format!("--address-file={}", addresses.path().display()),
    ];
    let plugin = Process::spawn(sandbox, "csi", &programs::csi_plugin(), arguments, &[]);
    wait::until("the plugin listens", || addresses.written().then_some(()));
    let get = |address| {
        let (status, body) = web::get(&format!("http://{address}/metrics")).unwrap();
        assert_eq!(status, 200);
        String::from_utf8(body).unwrap()
    };
    let served = get(manager.metrics_address()) + &get(addresses.get("http"));
    drop(plugin);
    served
}

/// The series of a scrape, by name.
fn series(served: &str) -> BTreeSet<String> {
    let lines = served.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| Some(line.split(['{', ' ']).next()?.to_owned()))
        .collect()
}

#[test]
fn row_521_rules_and_dashboard_use_metrics_that_exist() {
    let sandbox = Sandbox::new("monitoring");
    let served = scrape(&sandbox);
    let series = series(&served);
    let types: BTreeSet<&str> = served
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    let (rules, panels) = expressions();
    let used: BTreeSet<String> = metrics(&rules).union(&metrics(&panels)).cloned().collect();
    assert!(used.len() > 35, "{used:?}");
    for name in used {
        let stem = ["_total", "_count", "_bucket"]
            .iter()
            .find_map(|end| name.strip_suffix(end))
            .unwrap_or(&name);
        // Without a series, a family is declared all the same, or the table has it.
        let is_later = LATER.contains(&name.as_str()) || stem == "csi_plugin_operations_seconds";
        let known = series.contains(&name) || (is_later && is_documented(&name, stem));
        assert!(known || types.contains(stem), "no program serves {name}");
    }
    for name in types.iter().filter(|name| name.starts_with("csi_")) {
        assert!(is_documented(name, name), "docs/monitoring.md lacks {name}");
    }
}

fn is_documented(name: &str, stem: &str) -> bool {
    let tables = text("docs/operations.md") + &text("docs/monitoring.md");
    [name, stem].iter().any(|name| {
        [format!("`{name}`"), format!("`{name}{{")]
            .iter()
            .any(|quoted| tables.contains(quoted))
    })
}

/// The names of the alerts.
fn alerts(rules: &str) -> Vec<&str> {
    let lines = rules.lines().map(str::trim);
    lines
        .filter_map(|line| line.strip_prefix("- alert: "))
        .collect()
}

#[test]
fn row_521_every_alert_has_a_section_that_says_what_to_do() {
    let rules = text(&format!("{FILES}/rules.yaml"));
    let sections = text("docs/troubleshooting.md");
    let table = text("docs/monitoring.md");
    let alerts = alerts(&rules);
    assert!(alerts.len() >= 15, "{alerts:?}");
    for alert in alerts {
        let rule = rules.split_once(&format!("- alert: {alert}\n")).unwrap().1;
        let rule = rule.split("- alert: ").next().unwrap();
        let place = format!("#{}", alert.to_lowercase());
        let url = rule.split_once("runbook_url: ").unwrap().1.trim();
        assert!(
            url.ends_with(&format!("docs/troubleshooting.md{place}")),
            "{url}"
        );
        for needed in ["severity: ", "summary: ", "description: "] {
            assert!(rule.contains(needed), "{alert} has no {needed}");
        }
        let section = sections.split_once(&format!("\n### {alert}\n"));
        let section = section.unwrap_or_else(|| panic!("no section {alert}")).1;
        let section = section.split("\n### ").next().unwrap();
        for part in ["What it means: ", "What to look at:", "What to do: "] {
            assert!(section.contains(part), "{alert}: no {part}");
        }
        assert!(table.contains(&place), "the table of alerts lacks {alert}");
    }
}

#[test]
fn row_522_every_alert_fires_and_does_not_fire() {
    let cases = text("tests/monitoring/rules_test.yaml");
    let rules = text(&format!("{FILES}/rules.yaml"));
    for alert in alerts(&rules) {
        let quoted = format!("alertname=\"{alert}\", alertstate=\"firing\"}}");
        let tries: Vec<&str> = cases.split("  - name: ").collect();
        let has = |empty: bool| {
            let of = |case: &&&str| case.contains(&quoted);
            let is = |case: &&str| case.contains("exp_samples: []") == empty;
            tries.iter().filter(of).any(is)
        };
        assert!(has(false) && has(true), "{alert} is not tried");
    }
    needs!(Need::Tool("promtool"));
    let promtool = |arguments: &[&str], path: &Path| {
        let path = path.display().to_string();
        let arguments = arguments.iter().copied().chain([path.as_str()]);
        command::run("promtool", arguments)
    };
    promtool(
        &["check", "rules"],
        &sources().join(format!("{FILES}/rules.yaml")),
    );
    promtool(
        &["test", "rules"],
        &sources().join("tests/monitoring/rules_test.yaml"),
    );
}

#[test]
fn the_chart_and_the_component_have_the_same_alerts_and_dashboard() {
    let chart = text(&format!("{FILES}/rules.yaml"));
    let component = text(&format!("{COMPONENT}/prometheusrule.yaml"));
    let (_, chart) = chart.split_once('\n').unwrap();
    let (_, component) = component.split_once("\nspec:\n").unwrap();
    let unindented: Vec<&str> = component
        .lines()
        .map(|line| line.strip_prefix("  ").unwrap_or(line))
        .collect();
    assert_eq!(unindented.join("\n").trim(), chart.trim());
    let [chart, component] = [FILES, COMPONENT].map(|dir| text(&format!("{dir}/dashboard.json")));
    assert_eq!(chart, component);
}

#[test]
fn the_dashboard_is_one_that_grafana_can_draw() {
    let dashboard: Value = serde_json::from_str(&text(&format!("{FILES}/dashboard.json"))).unwrap();
    for key in ["uid", "title", "schemaVersion", "templating", "time"] {
        assert!(!dashboard[key].is_null(), "{key}");
    }
    let (mut ids, mut cells) = (BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        assert!(
            ids.insert(panel["id"].as_u64().unwrap()),
            "{title}: its id is taken"
        );
        let place = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(place("x") + place("w") <= 24, "{title} is too wide");
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                assert!(cells.insert((x, y)), "{title} covers another panel");
            }
        }
        if panel["type"] == "row" {
            continue;
        }
        let unit = panel["fieldConfig"]["defaults"]["unit"].as_str().unwrap();
        assert!(!unit.is_empty(), "{title} has no unit");
        let targets = panel["targets"].as_array().unwrap();
        let refs: BTreeSet<&str> = targets
            .iter()
            .map(|one| one["refId"].as_str().unwrap())
            .collect();
        assert!(
            !targets.is_empty() && refs.len() == targets.len(),
            "{title}"
        );
    }
}
