//! The bill of materials of an image, SPDX 2.3 in JSON: the crates of its program and the packages
//! of the distribution that provide its other files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use image::oci::Digest;
use serde_json::{Value, json};

use crate::error::{Error, Result, io};

/// One package in the list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Package {
    name: String,
    version: String,
    licenses: String,
    /// The package URL (purl), which scanners look up.
    purl: String,
}

/// Who is asked what things are made of; answers are kept for the next image.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    cargo: Option<Value>,
    distribution: BTreeMap<PathBuf, Option<Package>>,
}

impl Sources {
    /// The crates that a package of this workspace is built from, itself among them.
    pub(crate) fn crates(&mut self, package: &str) -> Result<BTreeSet<Package>> {
        let metadata = match self.cargo.take() {
            Some(known) => known,
            None => metadata()?,
        };
        let found = reachable(&metadata, package);
        self.cargo = Some(metadata);
        found
    }

    /// The package of the distribution that a file is of, if dpkg knows.
    pub(crate) fn owner(&mut self, file: &Path) -> Option<Package> {
        if let Some(known) = self.distribution.get(file) {
            return known.clone();
        }
        let found = owner(file);
        self.distribution.insert(file.to_owned(), found.clone());
        found
    }
}

/// The document. Equal images have equal ones: it tells no time and no machine.
pub(crate) fn document(image: &str, packages: &BTreeSet<Package>) -> String {
    let entries: Vec<Value> = packages
        .iter()
        .enumerate()
        .map(|(number, package)| {
            json!({
                "SPDXID": format!("SPDXRef-Package-{number}"),
                "name": package.name,
                "versionInfo": package.version,
                "downloadLocation": "NOASSERTION",
                "licenseConcluded": "NOASSERTION",
                "licenseDeclared": package.licenses,
                "copyrightText": "NOASSERTION",
                "externalRefs": [{
                    "referenceCategory": "PACKAGE-MANAGER",
                    "referenceType": "purl",
                    "referenceLocator": package.purl,
                }],
            })
        })
        .collect();
    let describes: Vec<Value> = (0..entries.len())
        .map(|number| {
            json!({
                "spdxElementId": "SPDXRef-DOCUMENT",
                "relationshipType": "DESCRIBES",
                "relatedSpdxElement": format!("SPDXRef-Package-{number}"),
            })
        })
        .collect();
    let content = Digest::of(Value::from(entries.clone()).to_string().as_bytes());
    let document = json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": image,
        "documentNamespace":
            format!("{}/spdx/{}", env!("CARGO_PKG_REPOSITORY"), content.hex()),
        "creationInfo": {
            // SPDX wants a time; the same image must have the same document.
            "created": "1970-01-01T00:00:00Z",
            "creators": [concat!("Tool: package-", env!("CARGO_PKG_VERSION"))],
        },
        "packages": entries,
        "relationships": describes,
    });
    format!("{document:#}\n")
}

fn metadata() -> Result<Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(&cargo)
        .args(["metadata", "--format-version=1", "--locked", "--offline"])
        .args([
            "--manifest-path",
            concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"),
        ])
        .args(["--filter-platform", &target()])
        .stdin(Stdio::null())
        .output()
        .map_err(io("run", cargo.as_ref()))?;
    let parsed = serde_json::from_slice(&output.stdout).ok();
    parsed
        .filter(|_| output.status.success())
        .ok_or_else(|| Error::Tool {
            program: "cargo metadata",
            said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        })
}

fn target() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

/// Everything that `package` depends on for what it does, not for its tests or its build.
fn reachable(metadata: &Value, package: &str) -> Result<BTreeSet<Package>> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let by_id: BTreeMap<String, Value> = list(&metadata["packages"])
        .into_iter()
        .map(|entry| (text(&entry["id"]), entry))
        .collect();
    let nodes: BTreeMap<String, Value> = list(&metadata["resolve"]["nodes"])
        .into_iter()
        .map(|node| (text(&node["id"]), node))
        .collect();
    let root = by_id
        .iter()
        .find(|(_, entry)| entry["name"] == package && entry["source"].is_null())
        .map(|(id, _)| id.clone())
        .ok_or_else(|| Error::Metadata {
            what: package.to_owned(),
        })?;
    let (mut seen, mut open) = (BTreeSet::new(), vec![root]);
    let mut found = BTreeSet::new();
    while let Some(id) = open.pop() {
        if !seen.insert(id.clone()) {
            continue;
        }
        let entry = by_id
            .get(&id)
            .ok_or_else(|| Error::Metadata { what: id.clone() })?;
        let (name, version) = (text(&entry["name"]), text(&entry["version"]));
        found.insert(Package {
            purl: format!("pkg:cargo/{name}@{version}"),
            licenses: entry["license"]
                .as_str()
                .unwrap_or("NOASSERTION")
                .to_owned(),
            name,
            version,
        });
        let used = list(&nodes[&id]["deps"]).into_iter().filter(|dependency| {
            let kinds = list(&dependency["dep_kinds"]);
            kinds.iter().any(|kind| kind["kind"].is_null())
        });
        open.extend(used.map(|dependency| text(&dependency["pkg"])));
    }
    Ok(found)
}

fn owner(file: &Path) -> Option<Package> {
    let real = std::fs::canonicalize(file).ok()?;
    // dpkg knows a file by the name that its package gave it, before /usr was merged or after.
    let old = real
        .strip_prefix("/usr")
        .ok()
        .map(|path| Path::new("/").join(path));
    let name = [Some(real.clone()), old]
        .into_iter()
        .flatten()
        .find_map(|path| dpkg(&["--search", &path.to_string_lossy()]))?;
    let name = name.split(": ").next()?.split(", ").next()?.to_owned();
    let shown = dpkg(&[
        "--show",
        "--showformat=${source:Package} ${Package} ${Version} ${Architecture}",
        &name,
    ])?;
    let mut words = shown.split(' ').skip(1).map(ToOwned::to_owned);
    let (name, version, architecture) = (words.next()?, words.next()?, words.next()?);
    Some(Package {
        purl: format!("pkg:deb/debian/{name}@{version}?arch={architecture}"),
        name,
        version,
        licenses: "NOASSERTION".to_owned(),
    })
}

fn dpkg(arguments: &[&str]) -> Option<String> {
    let output = Command::new("dpkg-query")
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let said = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| said.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crates_of_a_program_are_listed_with_their_licences() {
        let crates = Sources::default().crates("package").unwrap();
        let named = |name: &str| crates.iter().find(|package| package.name == name);
        assert!(named("package").is_some() && named("image").is_some());
        assert!(named("tar").unwrap().licenses.contains("MIT"));
        assert!(named("protox").is_none(), "not of this program");
        assert!(Sources::default().crates("no-such-package").is_err());
    }

    #[test]
    fn the_document_depends_on_what_it_lists_alone() {
        let package = |version: &str| Package {
            name: "a".to_owned(),
            version: version.to_owned(),
            licenses: "MIT".to_owned(),
            purl: format!("pkg:cargo/a@{version}"),
        };
        let one = document("i", &BTreeSet::from([package("1")]));
        assert_eq!(one, document("i", &BTreeSet::from([package("1")])));
        assert_ne!(one, document("i", &BTreeSet::from([package("2")])));
        let parsed: Value = serde_json::from_str(&one).unwrap();
        assert_eq!(parsed["packages"][0]["versionInfo"], "1");
    }
}
