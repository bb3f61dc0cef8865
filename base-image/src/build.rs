//! `base-image build`: from the options to every output.

use std::path::{Path, PathBuf};

use super::cli::{BuildArgs, LayerCompression};
use super::error::{Result, io};
use super::manifest::ContainerImage;
use super::place::Place;
use super::plan::Plan;
use super::progress::Progress;
use super::registry::Registry;
use super::{disk, layer, output};

/// Builds the image and puts it everywhere it shall go. Returns the digest and place of each.
pub(super) fn run(args: &BuildArgs) -> Result<Vec<(Place, image::oci::Digest)>> {
    let plan = Plan::new(args)?;
    // Credentials are read before the work, not after it.
    let registries = plan
        .outputs
        .iter()
        .map(|place| match place {
            Place::Registry(reference) => Registry::new(&args.registry, reference).map(Some),
            _ => Ok(None),
        })
        .collect::<Result<Vec<_>>>()?;
    let progress = Progress::new();
    let work = work_directory(&plan.outputs)?;
    let disk = disk::make(&plan, work.path(), &progress)?;
    let mut images = Images {
        plan: &plan,
        disk: &disk,
        work: work.path(),
        made: Vec::new(),
    };
    let mut done = Vec::new();
    for (place, registry) in plan.outputs.iter().zip(&registries) {
        let image = images.get(compression(&plan, place), &progress)?;
        match (place, registry) {
            (Place::Registry(reference), Some(registry)) => {
                registry.push(reference, image, args.chunk_size, &progress)?;
            }
            _ => output::write(place, image, plan.tag.as_deref(), &progress)?,
        }
        let digest = match place {
            // An archive for Docker has no manifest: the image is known by its config.
            Place::DockerArchive(_) => image.config_digest(),
            _ => image.digest(),
        };
        done.push((place.clone(), digest));
    }
    Ok(done)
}

/// Old Docker loads plain layers only, and unpacks them again when it pushes them.
fn compression(plan: &Plan, place: &Place) -> LayerCompression {
    match place {
        Place::DockerArchive(_) => LayerCompression::None,
        _ => plan.layer_compression,
    }
}

/// A directory for what is in the making, beside the first output: on the disk that has to have room
/// for it anyway. After a crash its name, `.base-image-…`, says what it is; it can be removed.
fn work_directory(outputs: &[Place]) -> Result<tempfile::TempDir> {
    let beside = outputs
        .iter()
        .find_map(Place::path)
        .map(|path| match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        });
    let directory = beside.unwrap_or_else(std::env::temp_dir);
    tempfile::Builder::new()
        .prefix(".base-image-")
        .tempdir_in(&directory)
        .map_err(io("make a directory in", directory))
}

/// The container images of one disk, one for each compression.
struct Images<'a> {
    plan: &'a Plan,
    disk: &'a Path,
    work: &'a Path,
    made: Vec<ContainerImage>,
}

impl Images<'_> {
    fn get(
        &mut self,
        compression: LayerCompression,
        progress: &Progress,
    ) -> Result<&ContainerImage> {
        let made = self
            .made
            .iter()
            .position(|image| image.layer.compression == compression);
        if let Some(index) = made {
            return Ok(&self.made[index]);
        }
        let name = &self.plan.name;
        let layer = layer::pack(self.disk, name, compression, self.work, progress)?;
        self.made
            .push(ContainerImage::new(layer, &self.plan.platform));
        Ok(&self.made[self.made.len() - 1])
    }
}
