//! The examples on a real Kubernetes: `e2e [--one-node] [--keep] [--running] [STEP…]`.
//!
//! It starts a cluster, installs `deploy/` with images that it builds itself, runs every example
//! exactly as printed, and checks what a user would see. `--running` uses the cluster that a run
//! with `--keep` left.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test: what it prints is its result"
)]

mod backup;
mod capture;
mod examples;
mod faults;
mod hundred;
mod install;
mod plugin;
mod provisioner;
mod registry;
mod release;
mod replicas;
mod rights;
mod stolen;
mod stranger;
mod suite;
mod ui;

use std::collections::BTreeSet;
use std::time::Instant;

use e2e::cluster::Cluster;

/// A step: its name, and what it does. Each leaves the cluster as it found it.
type Step = (&'static str, fn(&Cluster));

const STEPS: &[Step] = &[
    ("helm-upgrade", release::row_271_helm_upgrade),
    ("stranger", stranger::row_215_commands_of_the_documents),
    (
        "manifests",
        install::manifests_are_what_the_api_server_takes,
    ),
    ("chart", install::row_219_the_chart_is_checked),
    ("provisioner", provisioner::provisioner),
    ("attached", provisioner::row_561_attached_and_back),
    ("alias", stranger::row_216_an_old_class),
    ("blank", examples::blank_expands),
    ("block", examples::block),
    ("snapshot", examples::snapshot_and_restore),
    ("clone", examples::clone),
    ("shared", examples::shared_dataset),
    ("vm", examples::vm_disk),
    ("flexvolume", examples::flexvolume),
    ("backup", backup::row_389_a_namespace_comes_back),
    ("replicas", replicas::row_300_without_drbd_a_volume_says_why),
    ("private", rights::row_88_a_pull_secret_is_the_claims_own),
    ("privilege", rights::row_86_the_manager_has_no_privilege),
    ("rights", rights::row_87_rights),
    ("person", stranger::a_person_asks_all_managers),
    ("kubectl-plugin", plugin::row_503_the_plugin_of_kubectl),
    ("ui", ui::row_519_a_person_with_a_token_and_a_browser),
    ("ports", capture::row_270_there_are_no_other_ports),
    ("stolen", stolen::row_272_a_node_is_broken_into),
    ("claims", faults::row_100_claims_come_and_go),
    ("leaders", faults::row_99_leaders_change),
    ("replaced", faults::row_155_managers_replaced),
    ("upgrade", faults::row_101_upgrade),
    ("kubelet", faults::row_101_kubelet_and_drain),
    ("gone", faults::row_101_everything_gone),
    ("api-server", faults::row_98_api_server_gone),
    ("power", faults::row_94_power_cut),
    ("hundred", hundred::claims_at_once),
    ("quarter", suite::quarter),
    ("suite", suite::all),
    ("uninstall", install::uninstall),
    ("capture", capture::row_270_nothing_in_the_clear),
];

/// The steps that take minutes or an hour: only when they are named.
const ON_REQUEST: [&str; 2] = ["hundred", "suite"];
/// The steps that want a cluster on which nothing is installed, and leave it so.
const UNINSTALLED: [&str; 2] = [RELEASE, "stranger"];
/// The step that comes before the capture: the release before speaks plain.
const RELEASE: &str = "helm-upgrade";

fn main() {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut flag = |name: &str| {
        let before = arguments.len();
        arguments.retain(|argument| argument != name);
        arguments.len() < before
    };
    let (keep, running, one) = (flag("--keep"), flag("--running"), flag("--one-node"));
    let known: BTreeSet<&str> = STEPS.iter().map(|(name, _)| *name).collect();
    if let Some(unknown) = arguments.iter().find(|name| !known.contains(name.as_str())) {
        eprintln!("e2e: no step is called {unknown}; there are: {known:?}");
        std::process::exit(2);
    }
    let start = Instant::now();
    let cluster = if running {
        Cluster::running()
    } else {
        let images = install::pack();
        let cluster = Cluster::up(if one { 1 } else { 2 }, keep);
        println!("up: {:.1?}", start.elapsed());
        install::prepare(&cluster, &images);
        cluster
    };
    let (mut captured, mut installed) = (running, running);
    for (name, step) in STEPS {
        let named = arguments.iter().any(|wanted| wanted == name);
        let by_default = !(ON_REQUEST.contains(name) || running && UNINSTALLED.contains(name));
        if named || (arguments.is_empty() && by_default) {
            if !captured && *name != RELEASE {
                cluster.capture();
                captured = true;
            }
            if !installed && !UNINSTALLED.contains(name) {
                install::install(&cluster);
                println!("installed: {:.1?}", start.elapsed());
                installed = true;
            }
            let start = Instant::now();
            step(&cluster);
            println!("{name}: ok, {:.1?}", start.elapsed());
        }
    }
    println!("e2e: all passed in {:.1?}", start.elapsed());
}
