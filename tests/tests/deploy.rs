//! The manifests agree with the programs: flags, versions, names.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::ffi::OsStr;
use std::path::Path;

use e2e::documents::read;
use e2e::programs::{self, sources};
use e2e::{Need, Sandbox, command, needs};

const BASE: &str = "deploy/kustomize/base";
const TEMPLATES: &str = "deploy/helm/longhorn-base-image/templates";

fn text(path: &str) -> String {
    read(&sources().join(path))
}

/// The flags in the `args` of a container, found by the image that it runs: `--name` of
/// `- --name=value`.
fn flags(manifest: &str, image: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut ours = false;
    for line in manifest.lines() {
        let line = line.trim();
        if let Some(name) = line.strip_prefix("image: ") {
            ours = name.contains(image);
        }
        let flag = line.strip_prefix("- --").filter(|_| ours);
        if let Some(flag) = flag {
            let name = flag.split('=').next().unwrap();
            found.push(format!("--{name}"));
        }
    }
    found
}

fn help(program: &Path, arguments: &[&str]) -> String {
    let program = program.display().to_string();
    command::run(&program, arguments.iter().chain(&["--help"]))
}

#[test]
fn every_flag_in_a_manifest_is_one_that_the_program_takes() {
    let daemon = help(&programs::manager(), &["daemon"]);
    let plugin = help(&programs::csi_plugin(), &[]);
    for (file, image, help) in [
        ("manager.yaml", "backing-image-manager", &daemon),
        ("controller.yaml", "longhorn-csi-plugin", &plugin),
        ("node.yaml", "longhorn-csi-plugin", &plugin),
    ] {
        for folder in [BASE, TEMPLATES] {
            let flags = flags(&text(&format!("{folder}/{file}")), image);
            assert!(flags.len() >= 3, "{folder}/{file}: {flags:?}");
            for flag in flags {
                let known = help
                    .split_whitespace()
                    .any(|word| word.trim_end_matches([',', ']']) == flag);
                assert!(known, "{folder}/{file}: {image} takes no {flag}");
            }
        }
    }
}

/// What a container of kustomize is told, that of the chart is told too, with more where a value says it.
#[test]
fn the_chart_and_kustomize_tell_the_programs_the_same() {
    let shared = text(&format!("{TEMPLATES}/_helpers.tpl"));
    for (file, image) in [
        ("manager.yaml", "backing-image-manager"),
        ("controller.yaml", "longhorn-csi-plugin"),
        ("node.yaml", "longhorn-csi-plugin"),
    ] {
        let chart = text(&format!("{TEMPLATES}/{file}"));
        let mut told = flags(&chart, image);
        if chart.contains("include \"certificateArgs\"") {
            let helpers = format!("image: {image}\n{shared}");
            told.extend(flags(&helpers, image));
        }
        for flag in flags(&text(&format!("{BASE}/{file}")), image) {
            assert!(told.contains(&flag), "the chart's {file} has no {flag}");
        }
    }
    // The rights of the controller, word for word.
    let rights = |folder: &str| {
        let manifest = ["certificates", "replication"]
            .map(|file| text(&format!("{folder}/{file}.yaml")))
            .concat();
        let lines = manifest.lines().map(str::trim);
        let lines =
            lines.filter(|line| line.starts_with("resources:") || line.starts_with("verbs:"));
        let own = |line: &str| line.replace("{{ if $own }}", "").replace("{{ end }}", "");
        lines.map(own).collect::<Vec<_>>()
    };
    assert_eq!(rights(TEMPLATES), rights(BASE));
}

#[test]
fn the_chart_has_the_same_kind_of_record_and_keeps_it() {
    let chart = text(&format!("{TEMPLATES}/replicatedvolumes.yaml"));
    let (head, rest) = chart.split_once("  labels:\n").unwrap();
    let (own, spec) = rest.split_once("\nspec:\n").unwrap();
    // With the kind go the records of all volumes.
    assert!(own.contains("helm.sh/resource-policy: keep"), "{own}");
    let base = text(&format!("{BASE}/replicatedvolumes.yaml"));
    assert_eq!(format!("{head}spec:\n{spec}"), base);
}

/// What is off by default is not tried by the cluster of the tests.
#[test]
fn the_component_and_the_value_of_replication_do_the_same() {
    let component = text("deploy/kustomize/components/replication/kustomization.yaml");
    let chart = text(&format!("{TEMPLATES}/node.yaml"));
    for both in [
        "ClusterFirstWithHostNet",
        "--replication-address=",
        "$(HOST_IP)",
        "{name: tmp, mountPath: /var/lock, subPath: lock}",
    ] {
        assert!(component.contains(both), "the component has no {both}");
        assert!(chart.contains(both), "the chart has no {both}");
    }
    let loader = text("deploy/kustomize/components/drbd-module-loader/kustomization.yaml");
    let settings = |text: &str| {
        let lines = text.lines().map(str::trim);
        let lines = lines.filter(|line| line.starts_with("- {name: LB_"));
        let lines = lines.filter(|line| !line.contains("LB_HOW"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(settings(&loader).len(), 3);
    assert_eq!(settings(&loader), settings(&chart));
}

/// Nothing is attached where nothing needs it, and replication does. What the chart makes of its value, a cluster tries.
#[test]
fn attachments_are_where_they_are_needed() {
    assert!(text(&format!("{BASE}/csidriver.yaml")).contains("\n  attachRequired: false\n"));
    for (component, attached) in [
        ("attached", true),
        ("replication", true),
        ("unattached", false),
    ] {
        let path = format!("deploy/kustomize/components/{component}/kustomization.yaml");
        let line = format!("attachRequired: {attached}\n");
        assert!(text(&path).contains(&line), "{path} lacks {line}");
    }
    let values = text("deploy/helm/longhorn-base-image/values.yaml");
    assert!(values.contains("\nattachRequired:\n"));
    let chart = text(&format!("{TEMPLATES}/csidriver.yaml"));
    let there = r#"lookup "storage.k8s.io/v1" "CSIDriver" "" $name"#;
    assert!(
        chart.contains(there),
        "the chart does not look at what is there"
    );
}

/// Nor is this.
#[test]
fn the_component_and_the_value_of_snapshot_metadata_do_the_same() {
    let folder = "deploy/kustomize/components/snapshot-metadata";
    let component = text(&format!("{folder}/kustomization.yaml"));
    let chart = text(&format!("{TEMPLATES}/controller.yaml"));
    let image = "/csi-snapshot-metadata:";
    let told = flags(&component, image);
    assert!(told.len() >= 3, "{told:?}");
    assert_eq!(told, flags(&chart, image));
    let values = text("deploy/helm/longhorn-base-image/values.yaml");
    let version = component.split_once(image).unwrap().1;
    let version = version.split_whitespace().next().unwrap();
    assert!(values.contains(&format!("snapshotMetadata: {version}\n")));
    // Rights, Service and policy, but for the labels and what else a chart knows.
    let said = |manifest: &str| {
        let lines = manifest.lines().map(str::trim);
        let lines = lines.filter(|line| {
            [
                "- apiGroups:",
                "resources:",
                "verbs:",
                "- {name: blocks,",
                "- port:",
            ]
            .iter()
            .any(|start| line.starts_with(start))
        });
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let of_component = ["rbac", "service"].map(|file| text(&format!("{folder}/{file}.yaml")));
    let of_component = said(&of_component.concat());
    assert!(of_component.len() >= 14, "{of_component:?}");
    let of_chart = text(&format!("{TEMPLATES}/snapshot-metadata.yaml"));
    assert_eq!(of_component, said(&of_chart));
}

/// Nor are iSCSI targets.
#[test]
fn the_component_and_the_value_of_iscsi_do_the_same() {
    let folder = "deploy/kustomize/components/iscsi";
    let component = text(&format!("{folder}/kustomization.yaml"));
    let chart = text(&format!("{TEMPLATES}/node.yaml"));
    for both in [
        "--target-socket=/run/longhorn-target/ctl",
        "--target-portal=$(TARGET_ADDRESS)",
        "{name: TARGET_ADDRESS, valueFrom: {fieldRef: {fieldPath: status.hostIP}}}",
        "{name: target, mountPath: /run/longhorn-target}",
        "{name: target, hostPath: {path: /run/longhorn-target, type: DirectoryOrCreate}}",
    ] {
        assert!(component.contains(both), "the component has no {both}");
        assert!(chart.contains(both), "the chart has no {both}");
    }
    // The pod, but for what a chart knows: names, labels, images, where it runs, disks, levels of logs.
    let said = |manifest: &str| {
        let lines = manifest.lines().map(str::trim);
        let lines = lines.filter(|line| {
            let own = [
                "{{",
                "image",
                "namespace:",
                "tolerations:",
                "- operator:",
                "path: ",
                "mountPath: ",
                "- name: disk-",
            ];
            !own.iter().any(|start| line.starts_with(start)) && !line.contains("{{")
        });
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let pod = said(&text(&format!("{folder}/iscsi.yaml")));
    assert!(pod.len() > 60, "{pod:?}");
    assert_eq!(pod, said(&text(&format!("{TEMPLATES}/iscsi.yaml"))));
    let help = help(&programs::csi_plugin(), &["target", "prepare"]);
    assert!(
        help.contains("--owner") && help.contains("/run/longhorn-target/ctl"),
        "{help}"
    );
}

/// Of the chart's targets the cluster of the tests has none: it is installed by kustomize.
#[test]
fn the_component_and_the_values_of_backups_do_the_same() {
    let component = text("deploy/kustomize/components/backup/kustomization.yaml");
    let class = text("deploy/kustomize/components/backup/volumesnapshotclass.yaml");
    let chart = ["_helpers.tpl", "manager.yaml", "node.yaml", "classes.yaml"]
        .map(|file| text(&format!("{TEMPLATES}/{file}")))
        .concat();
    for both in [
        "name: BACKUP_TARGETS",
        "mountPath: /etc/longhorn-base-image/backup/",
        "mountPath: /var/lib/longhorn-backupstore-mounts",
        "HostToContainer",
        "Bidirectional",
        "hostPath: {path: /var/lib/longhorn-backupstore-mounts, type: DirectoryOrCreate}",
        "deletionPolicy: Retain",
        "type: bak",
    ] {
        let in_component = component.contains(both) || class.contains(both);
        assert!(in_component, "the component has no {both}");
        assert!(chart.contains(both), "the chart has no {both}");
    }
    // Where both daemons look for it unless they are told otherwise.
    for help in [
        help(&programs::manager(), &["daemon"]),
        help(&programs::csi_plugin(), &[]),
    ] {
        assert!(help.contains("BACKUP_TARGETS"), "{help}");
        assert!(help.contains("/etc/longhorn-base-image/backup"), "{help}");
    }
}

/// The examples of backups name the class that the component makes, and an image that the tests pack.
#[test]
fn the_examples_of_backups_name_what_there_is() {
    let class = text("deploy/kustomize/components/backup/volumesnapshotclass.yaml");
    assert!(class.contains("name: longhorn-base-image-backup\n"));
    let named = "volumeSnapshotClassName: longhorn-base-image-backup\n";
    let (schedule, restore) = (
        text("examples/scheduled_backup.yaml"),
        text("examples/restore_backup.yaml"),
    );
    for example in [&schedule, &restore] {
        assert!(example.contains(named), "{example}");
    }
    let recipe = text("tests/kubernetes/images/kubectl.toml");
    let image = schedule.split("image: ").nth(1).unwrap();
    let image = image.split_whitespace().next().unwrap();
    assert!(recipe.contains(&format!("docker.io/{image}\"")), "{image}");
}

/// Nor is the UI, but for the step that opens it.
#[test]
fn the_component_and_the_value_of_the_ui_do_the_same() {
    let folder = "deploy/kustomize/components/ui";
    let files = ["ui", "rbac", "people", "networkpolicy"];
    let component = files
        .map(|file| text(&format!("{folder}/{file}.yaml")))
        .concat();
    let chart = text(&format!("{TEMPLATES}/ui.yaml"));
    let shared = text(&format!("{TEMPLATES}/_helpers.tpl"));
    let program = help(&programs::ui(), &[]);
    let takes = |flag: &str| {
        let mut words = program.split_whitespace();
        words.any(|word| word.trim_end_matches([',', ']']) == flag)
    };
    let mut told = flags(&chart, "longhorn-ui");
    told.extend(flags(
        &format!("image: longhorn-ui\n{shared}"),
        "longhorn-ui",
    ));
    let flags = flags(&component, "longhorn-ui");
    assert!(flags.len() >= 7, "{flags:?}");
    for flag in &flags {
        assert!(told.contains(flag), "the chart has no {flag}");
    }
    for flag in &told {
        assert!(takes(flag), "longhorn-ui takes no {flag}");
    }
    let said = |manifest: &str| {
        let lines = manifest.lines().map(str::trim);
        let lines = lines.filter(|line| {
            [
                "- apiGroups:",
                "resources: [",
                "verbs:",
                "allowPrivilege",
                "readOnlyRoot",
                "drop:",
                "runAs",
            ]
            .iter()
            .any(|start| line.starts_with(start))
        });
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(said(&component).len() >= 17, "{:?}", said(&component));
    assert_eq!(said(&component), said(&chart));
    // Whom the UI may ask about anything, and nothing else.
    let (own, _) = chart.split_once("longhorn-base-image-viewer").unwrap();
    let rights: Vec<&str> = own.lines().filter(|line| line.contains("verbs:")).collect();
    assert!(
        rights.iter().all(|line| line.trim() == "verbs: [create]"),
        "{rights:?}"
    );
    for manifest in [&component, &chart] {
        let version = format!("longhornio/longhorn-ui:v{}", env!("CARGO_PKG_VERSION"));
        assert!(manifest.contains(&version) || manifest.contains("\"longhorn-ui\""));
        assert!(manifest.contains("readOnlyRootFilesystem: true"));
    }
}

/// Every verb and resource of the table of routes is in the roles for people, and readers only look.
#[test]
fn the_roles_of_people_are_those_that_the_ui_asks_about() {
    let people = text("deploy/kustomize/components/ui/people.yaml");
    let table = text("ui/src/access.rs");
    let (_, words) = table.split_once("pub const API_GROUP: &str = \"").unwrap();
    let group = words.split('"').next().unwrap();
    assert_eq!(people.matches(&format!("apiGroups: [{group}]")).count(), 2);
    let words = table.lines().filter_map(|line| {
        let word = line.trim().strip_prefix("Self::")?.split_once(" => \"")?.1;
        word.strip_suffix("\",").map(str::to_owned)
    });
    let words: Vec<String> = words.collect();
    assert!(words.len() >= 12, "{words:?}");
    let (_, editor) = people.split_once("longhorn-base-image-editor").unwrap();
    let listed: Vec<&str> = editor.split(['[', ']', ',', ' ', '\n']).collect();
    for word in words {
        assert!(
            listed.contains(&word.as_str()),
            "the role of editors lacks {word}"
        );
    }
    assert!(people.contains("verbs: [get, list]\n"));
}

#[test]
fn sidecars_are_those_that_the_tests_run() {
    let values = text("deploy/helm/longhorn-base-image/values.yaml");
    // The snapshotter is a part that not every cluster has.
    let manifest = text(&format!("{BASE}/controller.yaml"))
        + &text("deploy/kustomize/components/snapshots/kustomization.yaml");
    for (name, module) in [
        ("provisioner", "sidecars"),
        ("attacher", "sidecars"),
        ("snapshotter", "sidecars"),
        ("resizer", "resizer"),
    ] {
        let go = text(&format!("tests/kubernetes/go/{module}/go.mod"));
        let line = go
            .lines()
            .filter(|line| line.contains(&format!("kubernetes-csi/external-{name}/v")))
            .find(|line| !line.contains("/cmd/"))
            .unwrap();
        let version = line
            .split_whitespace()
            .find(|word| word.starts_with('v'))
            .unwrap();
        let image = format!("registry.k8s.io/sig-storage/csi-{name}:{version}");
        assert!(manifest.contains(&image), "{image} is not in the manifest");
        assert!(
            values.contains(&format!("{name}: {version}")),
            "{name} {version}"
        );
        let recipe = text(&format!("tests/kubernetes/images/csi-{name}.toml"));
        assert!(
            recipe.contains(&image),
            "{image} is not what the tests pack"
        );
    }
}

#[test]
fn the_version_is_the_same_everywhere() {
    let version = env!("CARGO_PKG_VERSION");
    let chart = text("deploy/helm/longhorn-base-image/Chart.yaml");
    assert!(chart.contains(&format!("appVersion: {version}\n")));
    for file in ["manager.yaml", "node.yaml", "controller.yaml"] {
        let manifest = text(&format!("{BASE}/{file}"));
        for line in manifest
            .lines()
            .filter(|line| line.contains("image: longhornio/"))
        {
            assert!(line.ends_with(&format!(":v{version}")), "{file}: {line}");
        }
    }
}

#[test]
fn nothing_but_the_node_plugin_is_privileged() {
    for entry in std::fs::read_dir(sources().join(BASE)).unwrap() {
        let path = entry.unwrap().path();
        let manifest = read(&path);
        let privileged = manifest.matches("privileged: true").count();
        let node = path.ends_with("node.yaml");
        assert_eq!(privileged, usize::from(node), "{}", path.display());
        // Every container has its root file system read-only.
        let containers = manifest.matches(" image: ").count();
        let read_only = manifest.matches("readOnlyRootFilesystem: true").count();
        let shared = manifest.matches("securityContext: *confined").count();
        assert_eq!(read_only + shared, containers, "{}", path.display());
    }
}

/// The base has one namespace for all that it holds; a component is added after that, and none may set another's.
#[test]
fn all_of_a_component_is_in_a_namespace() {
    // https://kubernetes.io/docs/concepts/overview/working-with-objects/namespaces/#not-all-objects-are-in-a-namespace
    let elsewhere = [
        "ClusterRole",
        "ClusterRoleBinding",
        "CustomResourceDefinition",
    ];
    let mut looked_at = 0;
    for component in std::fs::read_dir(sources().join("deploy/kustomize/components")).unwrap() {
        for entry in std::fs::read_dir(component.unwrap().path()).unwrap() {
            let path = entry.unwrap().path();
            if path.ends_with("kustomization.yaml") || path.extension() != Some(OsStr::new("yaml"))
            {
                continue;
            }
            for object in read(&path).split("\n---\n") {
                let (_, kind) = object.split_once("\nkind: ").unwrap();
                let kind = kind.lines().next().unwrap();
                if elsewhere.contains(&kind)
                    || kind.ends_with("Class")
                    || kind.contains("AdmissionPolicy")
                {
                    continue;
                }
                assert!(
                    object.contains("\n  namespace: "),
                    "{kind} of {}",
                    path.display()
                );
                looked_at += 1;
            }
        }
    }
    assert!(looked_at > 5, "{looked_at}");
}

#[test]
fn row_248_the_apparmor_profile_is_valid_and_knows_every_tool() {
    let profile = sources().join("deploy/apparmor/longhorn-csi-plugin");
    let written = read(&profile);
    let recipe = text("deploy/images/longhorn-csi-plugin.toml");
    let list = recipe.split_once("programs = [").unwrap().1;
    let list = list.split_once(']').unwrap().0;
    let tools: Vec<_> = list.split('"').skip(1).step_by(2).collect();
    assert!(tools.contains(&"mkfs.xfs"), "{tools:?}");
    for tool in tools {
        let rule = format!("bin/{tool} mrix,");
        assert!(written.contains(&rule), "{tool} may not run");
    }
    needs!(Need::Tool("apparmor_parser"));
    // Compiled, and not given to the kernel, which may have no AppArmor.
    let parse = |path: &Path| {
        let options = ["--skip-kernel-load", "--skip-cache", "--skip-read-cache"].map(OsStr::new);
        command::output(
            "apparmor_parser",
            options.into_iter().chain([path.as_os_str()]),
        )
    };
    let parsed = parse(&profile);
    assert!(parsed.status.success(), "{}", command::words(&parsed));
    // The check would see a mistake.
    let sandbox = Sandbox::new("apparmor");
    let broken = sandbox.write(
        "broken",
        written.replace("capability chown,", "capability chownn,"),
    );
    assert!(!parse(&broken).status.success());
}

#[test]
fn row_218_whatever_packs_images_fetches_every_crate_first() {
    // The packer asks cargo for the metadata of every crate, without a network.
    for (file, packs) in [
        ("Makefile", "dist/package"),
        ("tests/kubernetes/run", "debug/e2e"),
    ] {
        let text = text(file);
        let fetched = text.rfind("cargo fetch --locked").unwrap();
        assert!(fetched < text.rfind(packs).unwrap(), "{file}");
    }
}
