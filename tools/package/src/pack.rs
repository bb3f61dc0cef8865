//! Makes an image of a recipe: gathers its files, packs them, writes the archive.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use image::oci::write::{Contents, LayerFile};
use image::oci::{Digest, OCI_CONFIG, OCI_MANIFEST, Platform};
use serde_json::{Value, json};

use crate::error::{Error, Result, io};
use crate::layer::{self, Layer};
use crate::libraries;
use crate::recipe::{Input, Recipe, locate};
use crate::sbom::{self, Package};
use crate::tree::{Node, Tree};

/// What an image is called.
#[derive(Debug)]
pub(crate) struct Name {
    /// The last part of its path.
    short: String,
    pub(crate) reference: String,
}

impl Name {
    pub(crate) fn new(recipe: &Recipe, path: &Path, prefix: &str, tag: &str) -> Self {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let reference = recipe
            .reference
            .clone()
            .unwrap_or_else(|| format!("{prefix}/{stem}:{tag}"));
        Self {
            short: stem.into_owned(),
            reference,
        }
    }

    fn tag(&self) -> &str {
        self.reference.rsplit_once(':').map_or("", |(_, tag)| tag)
    }
}

/// What is the same for all images of a run.
#[derive(Debug)]
pub(crate) struct Options<'a> {
    pub(crate) inputs: &'a [Input],
    pub(crate) output: &'a Path,
    pub(crate) revision: &'a str,
    pub(crate) gzip: bool,
}

/// An image that was written.
#[derive(Debug)]
pub(crate) struct Packed {
    /// Of its manifest: what a pod may pin.
    pub(crate) digest: Digest,
    /// Of its layer, in bytes.
    pub(crate) size: u64,
}

pub(crate) fn image(
    recipe: &Recipe,
    name: &Name,
    options: &Options<'_>,
    sources: &mut sbom::Sources,
) -> Result<Packed> {
    let mut gathered = Gathered {
        tree: Tree::new(),
        packages: BTreeSet::new(),
        sources,
    };
    gathered.files(recipe, options.inputs)?;
    std::fs::create_dir_all(options.output).map_err(io("make", options.output))?;
    let mut tree = gathered.tree;
    if !gathered.packages.is_empty() {
        let text = sbom::document(&name.short, &gathered.packages);
        let path = options.output.join(format!("{}.spdx.json", name.short));
        write(&path, text.as_bytes())?;
        let inside = format!("/usr/share/sbom/{}.spdx.json", name.short);
        tree.add(&inside, Node::Text { text })?;
    }
    let layer = layer::pack(&tree, options.gzip)?;
    save(recipe, name, options, &layer)
}

/// The files of an image, and what they are of.
struct Gathered<'a> {
    tree: Tree,
    packages: BTreeSet<Package>,
    sources: &'a mut sbom::Sources,
}

impl Gathered<'_> {
    fn files(&mut self, recipe: &Recipe, inputs: &[Input]) -> Result<()> {
        if let Some(package) = &recipe.cargo_package {
            self.packages.extend(self.sources.crates(package)?);
        }
        for (path, mode) in &recipe.directories {
            let invalid = |_| Error::Path {
                path: format!("{path} with mode {mode}"),
            };
            let mode = u32::from_str_radix(mode, 8).map_err(invalid)?;
            self.tree.add(path, Node::Directory { mode })?;
        }
        for (path, from) in &recipe.copy {
            let from = locate(inputs, from)?;
            self.tree.add_file(path, &from)?;
            self.libraries(&from)?;
        }
        for program in &recipe.programs {
            let from = libraries::find(program)?;
            self.distribution(&from)?;
            self.libraries(&from)?;
        }
        for file in &recipe.files {
            self.distribution(Path::new(file))?;
        }
        for (path, text) in &recipe.write {
            let text = text.clone();
            self.tree.add(path, Node::Text { text })?;
        }
        for (path, to) in &recipe.links {
            let to = to.clone();
            self.tree.add(path, Node::Link { to })?;
        }
        Ok(())
    }

    fn libraries(&mut self, program: &Path) -> Result<()> {
        libraries::of(program)?
            .iter()
            .try_for_each(|library| self.distribution(library))
    }

    /// A file of the distribution, at the same path in the image.
    fn distribution(&mut self, file: &Path) -> Result<()> {
        self.tree.add_file(&file.to_string_lossy(), file)?;
        self.packages.extend(self.sources.owner(file));
        Ok(())
    }
}

fn save(recipe: &Recipe, name: &Name, options: &Options<'_>, layer: &Layer) -> Result<Packed> {
    let platform = Platform::host();
    let config = config(recipe, name, options.revision, &platform, layer);
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {
            "mediaType": OCI_CONFIG,
            "digest": Digest::of(config.as_bytes()),
            "size": config.len(),
        },
        "layers": [{
            "mediaType": layer.media_type,
            "digest": layer.digest,
            "size": layer.size,
        }],
        "annotations": labels(recipe, name, options.revision),
    })
    .to_string();
    let layers = [LayerFile {
        path: layer.file.path(),
        digest: &layer.digest,
        size: layer.size,
    }];
    let path: PathBuf = options.output.join(format!("{}.tar", name.short));
    let contents = Contents {
        manifest: manifest.as_bytes(),
        config: config.as_bytes(),
        layers: &layers,
        reference: Some(&name.reference),
        platform: Some(&platform),
    };
    image::oci::write::oci_archive(&path, &contents).map_err(|source| Error::Write {
        path: path.clone(),
        source,
    })?;
    Ok(Packed {
        digest: Digest::of(manifest.as_bytes()),
        size: layer.size,
    })
}

fn config(
    recipe: &Recipe,
    name: &Name,
    revision: &str,
    platform: &Platform,
    layer: &Layer,
) -> String {
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let environment: Vec<&str> = std::iter::once(path)
        .chain(recipe.environment.iter().map(String::as_str))
        .collect();
    let mut run = json!({
        "User": recipe.user,
        "Env": environment,
        "WorkingDir": "/",
        "Labels": labels(recipe, name, revision),
    });
    if !recipe.entrypoint.is_empty() {
        run["Entrypoint"] = json!(recipe.entrypoint);
    }
    if !recipe.command.is_empty() {
        run["Cmd"] = json!(recipe.command);
    }
    json!({
        "architecture": platform.architecture(),
        "os": platform.os(),
        "config": run,
        "rootfs": { "type": "layers", "diff_ids": [layer.diff_id] },
        "history": [{ "created": "1970-01-01T00:00:00Z", "created_by": "package" }],
    })
    .to_string()
}

/// The annotations that the OCI image specification names, as far as there is something to say.
fn labels(recipe: &Recipe, name: &Name, revision: &str) -> Value {
    let mut labels = json!({
        "org.opencontainers.image.title": recipe.title,
        "org.opencontainers.image.description": recipe.description,
        "org.opencontainers.image.licenses": recipe.licenses,
        "org.opencontainers.image.source": env!("CARGO_PKG_REPOSITORY"),
        "org.opencontainers.image.version": name.tag(),
    });
    if !revision.is_empty() {
        labels["org.opencontainers.image.revision"] = json!(revision);
    }
    labels
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = File::create(path).map_err(io("make", path))?;
    file.write_all(bytes).map_err(io("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(more: &str) -> Recipe {
        let text = format!(
            "title = 'a program'\ndescription = 'does something'\nlicenses = 'Apache-2.0'\n\
             entrypoint = ['/bin/program']\nuser = '65532:65532'\n{more}"
        );
        toml::from_str(&text).unwrap()
    }

    fn packed(recipe: &Recipe, output: &Path) -> Digest {
        let executable = std::env::current_exe().unwrap();
        let input = format!("target={}", executable.parent().unwrap().display());
        let name = Name::new(recipe, Path::new("x/program.toml"), "example", "v1");
        assert_eq!(name.reference, "example/program:v1");
        let options = Options {
            inputs: &[input.parse().unwrap()],
            output,
            revision: "0123",
            gzip: false,
        };
        image(recipe, &name, &options, &mut sbom::Sources::default())
            .unwrap()
            .digest
    }

    #[test]
    fn an_image_is_the_same_each_time_and_reads_back() {
        let executable = std::env::current_exe().unwrap();
        let file = executable.file_name().unwrap().to_string_lossy();
        let recipe = recipe(&format!(
            "cargo-package = 'package'\n[copy]\n'/bin/program' = 'target/{file}'\n"
        ));
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        assert_eq!(packed(&recipe, a.path()), packed(&recipe, b.path()));
        let bytes = |dir: &Path| std::fs::read(dir.join("program.tar")).unwrap();
        assert!(bytes(a.path()) == bytes(b.path()), "archives differ");
        let list = std::fs::read_to_string(a.path().join("program.spdx.json")).unwrap();
        assert!(list.contains("pkg:cargo/package@"));
    }

    #[test]
    fn what_is_not_there_is_said() {
        let output = tempfile::tempdir().unwrap();
        for (more, said) in [
            ("[copy]\n'/bin/a' = 'nowhere/a'", "--input nowhere=DIR"),
            ("programs = ['no-such-program']", "no-such-program"),
            ("files = ['/no/such/file']", "/no/such/file"),
        ] {
            let recipe = recipe(more);
            let name = Name::new(&recipe, Path::new("a.toml"), "e", "v1");
            let options = Options {
                inputs: &[],
                output: output.path(),
                revision: "",
                gzip: true,
            };
            let error = image(&recipe, &name, &options, &mut sbom::Sources::default());
            let error = error.unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
