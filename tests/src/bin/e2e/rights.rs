//! Permissions: of the programs on their nodes, of their accounts in the API, and of readers of
//! secrets.

use e2e::cluster::Cluster;
use e2e::programs::sources;
use e2e::wait;

use crate::examples::end;
use crate::registry::{self, PASSWORD, USER};

/// Row 86: the node plugin alone is privileged; the manager is a user without any capability, and starts
/// where the strictest of Kubernetes' standards holds.
pub(crate) fn row_86_the_manager_has_no_privilege(cluster: &Cluster) {
    for pod in items(cluster, "pods -n longhorn-system") {
        let name = pod["metadata"]["name"].as_str().unwrap();
        for container in pod["spec"]["containers"].as_array().unwrap() {
            let context = &container["securityContext"];
            let privileged = context["privileged"] == true;
            assert_eq!(
                privileged,
                name.starts_with("longhorn-csi-plugin"),
                "{name}"
            );
            assert_eq!(context["readOnlyRootFilesystem"], true, "{name}");
        }
    }
    for node in 1..=cluster.nodes() {
        let status = "cat /proc/$(pgrep -x -o backing-image-m)/status";
        let status = cluster.enter(node, &["sh", "-c", status]);
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name));
            let words = line.unwrap_or_default().split_whitespace();
            words.skip(1).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(field("Uid:"), "65532 65532 65532 65532");
        for capabilities in ["CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
            assert_eq!(field(capabilities), "0".repeat(16), "{capabilities}");
        }
        assert_eq!(
            (field("NoNewPrivs:").as_str(), &*field("Seccomp:")),
            ("1", "2")
        );
    }
    let file = "tests/kubernetes/restricted.yaml";
    cluster.apply(file);
    let line = "wait pod/manager -n restricted --for=condition=Ready --timeout=60s";
    cluster.kubectl(line);
    cluster.delete(file);
    cluster.wait_gone("namespace restricted");
}

fn items(cluster: &Cluster, what: &str) -> Vec<serde_json::Value> {
    cluster.get(what)["items"].as_array().unwrap().clone()
}

/// A line with its verbs, the last in brackets, in one order: the server joins the roles of an account in any.
fn in_order(line: &str) -> String {
    let Some((resource, verbs)) = line.rsplit_once('[') else {
        return line.to_owned();
    };
    let mut verbs: Vec<_> = verbs.trim_end_matches(']').split(' ').collect();
    verbs.sort_unstable();
    format!("{resource}[{}]", verbs.join(" "))
}

/// Row 87: accounts may do what `tests/kubernetes/rights.txt` lists, and nothing else.
pub(crate) fn row_87_rights(cluster: &Cluster) {
    let mut found = Vec::new();
    for account in [
        "backing-image-manager",
        "longhorn-csi-plugin",
        "longhorn-csi-controller",
    ] {
        let user = format!("--as=system:serviceaccount:longhorn-system:{account}");
        let line = format!("auth can-i --list --no-headers -n longhorn-system {user}");
        let lines = cluster.kubectl(&line);
        let mut rights: Vec<String> = lines.lines().map(|line| in_order(&words(line))).collect();
        // Everybody may ask what he may do, and for what the server is.
        rights.retain(|right| !right.starts_with('[') && !right.starts_with("self"));
        rights.sort();
        found.push(account.to_owned());
        found.extend(rights.iter().map(|right| format!("  {right}")));
    }
    let listed = sources().join("tests/kubernetes/rights.txt");
    let listed = std::fs::read_to_string(listed).unwrap();
    let listed: Vec<String> = listed.lines().map(in_order).collect();
    assert!(
        found == listed,
        "other rights than listed:\n{}",
        found.join("\n")
    );
}

fn words(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Row 88: a claim's own secret opens a private registry, from when it is there and right; what is wrong
/// with it is an event of the claim, and its content is nowhere.
pub(crate) fn row_88_a_pull_secret_is_the_claims_own(cluster: &Cluster) {
    let file = "examples/private_registry.yaml";
    registry::push_private(cluster);
    cluster.apply(file);
    claim_says(cluster, "\"site-registry\" not found");
    secret(cluster, "guessed");
    claim_says(cluster, "rejects the authentication");
    secret(cluster, PASSWORD);
    cluster.wait_pod("private-site");
    let seen = cluster.exec(
        "private-site",
        "cat /data/guests/hd/party-wizard.gif | wc -c",
    );
    assert_eq!(seen.trim(), e2e::baseimage::PARTY_WIZARD.len().to_string());
    nobody_tells_the_password(cluster);
    cluster.kubectl("delete secret site-registry");
    end(cluster, &[file]);
}

fn secret(cluster: &Cluster, password: &str) {
    cluster.try_kubectl("delete secret site-registry");
    let login = format!("--docker-username={USER} --docker-password={password}");
    let secret = "create secret docker-registry site-registry --docker-server=registry.example";
    cluster.kubectl(&format!("{secret} {login}"));
}

fn claim_says(cluster: &Cluster, words: &str) {
    wait::until(&format!("the claim says: {words}"), || {
        let events = items(
            cluster,
            "events --field-selector involvedObject.name=private-site",
        );
        let said = |event: &serde_json::Value| {
            let message = event["message"].as_str();
            message.is_some_and(|message| message.contains(words))
        };
        events.iter().any(said).then_some(())
    });
}

/// Neither a log nor an event nor a record on a disk has it.
fn nobody_tells_the_password(cluster: &Cluster) {
    let mut told = cluster.kubectl("get events -A -o yaml");
    for pod in cluster
        .kubectl("get pods -n longhorn-system -o name")
        .lines()
    {
        let line = format!("-n longhorn-system logs {pod} --all-containers");
        told += &cluster.kubectl(&line);
    }
    for node in 1..=cluster.nodes() {
        let disk = "/var/lib/longhorn-base-image";
        let records = ["grep", "-r", "--include=*.cfg", "", disk];
        told += &cluster.enter(node, &records);
    }
    assert!(told.len() > 1000, "nothing was looked at");
    // `site:opensesame`, as it goes over the wire.
    for secret in [PASSWORD, "c2l0ZTpvcGVuc2VzYW1l"] {
        assert!(!told.contains(secret), "{secret} is told");
    }
}
