//! Packs programs into container images: from recipes, without a container engine, and the same bytes
//! from the same files.
//!
//! An image is one layer with exactly the contents of its recipe: programs of this project, files
//! and programs of the distribution with the libraries that they load, and a bill of materials
//! (SPDX). It knows nothing of Kubernetes, and never runs what it packages.

mod error;
mod layer;
mod libraries;
mod pack;
mod recipe;
mod sbom;
mod tree;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use crate::error::Report;
use crate::recipe::{Input, Recipe};

/// Packages programs as container images, one per recipe.
#[derive(Debug, Parser)]
#[command(name = "package", version, after_help = AFTER_HELP)]
struct Args {
    /// Recipes (TOML); the name of the file is the name of the image
    #[arg(required = true, value_name = "RECIPE")]
    recipes: Vec<PathBuf>,
    /// A directory and the name that recipes use for it; may be given several times
    #[arg(long = "input", value_name = "NAME=DIR")]
    inputs: Vec<Input>,
    /// Output directory: OUTPUT/NAME.tar and OUTPUT/NAME.spdx.json are written
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Prefix of the image names: host/path
    #[arg(long, default_value = "docker.io/longhornio", value_name = "PREFIX")]
    prefix: String,
    /// Tag for images whose recipe has none
    #[arg(long, default_value = concat!("v", env!("CARGO_PKG_VERSION")), value_name = "TAG")]
    tag: String,
    /// Revision of the sources, for the labels
    #[arg(long, default_value = "", value_name = "COMMIT")]
    revision: String,
    /// Compression of the layer
    #[arg(long, value_enum, default_value_t = Compression::Gzip)]
    compression: Compression,
}

const AFTER_HELP: &str = "\
EXAMPLE
  package --input target=target/dist --output target/images deploy/images/longhorn-csi-plugin.toml
  ctr -n k8s.io images import target/images/longhorn-csi-plugin.tar
  docker load and skopeo (oci-archive:FILE) take the same files.";

/// How the layer of an image is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Compression {
    /// What every registry and engine takes.
    Gzip,
    /// For images that stay on this machine.
    None,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let line = format!("package: {}\n", Report(&error));
            // With nowhere to write to, the exit code is all there is to say.
            let _ = std::io::stderr().write_all(line.as_bytes());
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> error::Result<()> {
    let mut packages = sbom::Sources::default();
    for path in &args.recipes {
        let recipe = Recipe::read(path)?;
        let name = pack::Name::new(&recipe, path, &args.prefix, &args.tag);
        let packed = pack::image(
            &recipe,
            &name,
            &pack::Options {
                inputs: &args.inputs,
                output: &args.output,
                revision: &args.revision,
                gzip: args.compression == Compression::Gzip,
            },
            &mut packages,
        )?;
        let line = format!("{}  {}  {}\n", packed.digest, packed.size, name.reference);
        // As above: a closed pipe is no failure of the image.
        let _ = std::io::stdout().write_all(line.as_bytes());
    }
    Ok(())
}
