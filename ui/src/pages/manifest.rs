//! The manifest by which a pod uses a volume that was made here.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use client::{has_source, wire};

/// A PersistentVolume for the volume, bound to a claim of its name. What the plugin needs of the volume it asks of the
/// manager when the volume is attached; `claimRef` keeps others from it, and `Retain` keeps the volume when the claim
/// is deleted.
pub(super) fn manifest(volume: &wire::Volume, driver: &str) -> String {
    let name = object_name(&volume.name);
    let mode = if volume.is_replica {
        ""
    } else {
        "nodeAffinity"
    };
    let fs_type = fs_type(volume);
    let mut text = format!(
        "apiVersion: v1\nkind: PersistentVolume\nmetadata:\n  name: {name}\nspec:\n  capacity:\n    \
         storage: \"{size}\"\n  accessModes: [ReadWriteOnce]\n  persistentVolumeReclaimPolicy: Retain\n  \
         storageClassName: \"\"\n  claimRef:\n    namespace: default\n    name: {name}\n  csi:\n    driver: {driver}\n    \
         volumeHandle: {handle}\n",
        size = volume.size,
        driver = quoted(driver),
        handle = quoted(&volume.name),
    );
    if !fs_type.is_empty() {
        let _ = writeln!(text, "    fsType: {}", quoted(fs_type));
    }
    let nodes: BTreeMap<&str, ()> = (volume.replicas.iter())
        .map(|replica| (replica.node_id.as_str(), ()))
        .collect();
    if !mode.is_empty() && !nodes.is_empty() {
        let nodes: Vec<String> = nodes.keys().map(|node| quoted(node)).collect();
        let _ = write!(
            text,
            "  nodeAffinity:\n    required:\n      nodeSelectorTerms:\n        - matchExpressions:\n            \
             - key: {key}\n              operator: In\n              values: [{nodes}]\n",
            key = quoted(&format!("{driver}/node")),
            nodes = nodes.join(", "),
        );
    }
    let _ = write!(
        text,
        "---\napiVersion: v1\nkind: PersistentVolumeClaim\nmetadata:\n  namespace: default\n  name: {name}\nspec:\n  \
         accessModes: [ReadWriteOnce]\n  storageClassName: \"\"\n  volumeName: {name}\n  resources:\n    requests:\n      \
         storage: \"{size}\"\n",
        size = volume.size,
    );
    text
}

/// The file system that the plugin mounts: that of the image is told by the image.
fn fs_type(volume: &wire::Volume) -> &str {
    if has_source(volume) {
        return "";
    }
    match volume.fs_type.as_str() {
        "" => "ext4",
        own => own,
    }
}

/// The name of the objects: names of volumes may have letters that Kubernetes does not take.
fn object_name(volume: &str) -> String {
    let lower = volume.to_lowercase().replace('_', "-");
    let name = lower.trim_end_matches(['-', '.']);
    quoted(name)
}

/// As a text of YAML, which takes those of JSON.
fn quoted(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-/".contains(&byte);
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match u8::try_from(letter) {
            Ok(byte) if plain(byte) => quoted.push(letter),
            _ => {
                let _ = write!(quoted, "\\U{:08x}", u32::from(letter));
            }
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_names_the_volume_its_driver_and_its_node() {
        let volume = wire::Volume {
            name: "Data_1".to_owned(),
            size: 4 << 30,
            fs_type: "xfs".to_owned(),
            replicas: vec![wire::Replica {
                node_id: "n1".to_owned(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let text = manifest(&volume, "driver.longhorn.io");
        for line in [
            "  name: \"data-1\"",
            "    storage: \"4294967296\"",
            "    driver: \"driver.longhorn.io\"",
            "    volumeHandle: \"Data_1\"",
            "    fsType: \"xfs\"",
            "            - key: \"driver.longhorn.io/node\"",
            "              values: [\"n1\"]",
            "  volumeName: \"data-1\"",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
        let replicated = wire::Volume {
            is_replica: true,
            image_name: "base".to_owned(),
            ..volume
        };
        let text = manifest(&replicated, "driver.longhorn.io");
        assert!(
            !text.contains("nodeAffinity") && !text.contains("fsType"),
            "{text}"
        );
    }

    #[test]
    fn no_name_ends_the_text_that_it_is_in() {
        assert_eq!(
            quoted("a\"\n: b"),
            "\"a\\U00000022\\U0000000a\\U0000003a\\U00000020b\""
        );
    }
}
