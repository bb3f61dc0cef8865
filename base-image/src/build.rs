//! `base-image build`: from the options to every output.

use std::path::{Path, PathBuf};

use super::error::{Result, io};
use super::location::Location;
use super::manifest::ContainerImage;
use super::progress::Progress;
use super::registry::Registry;
use super::request::{BuildRequest, LayerCompression};
use super::{disk, layer, output};

/// Builds the image and puts it everywhere it shall go. Returns the digest and place of each.
pub(super) fn run(request: &BuildRequest) -> Result<Vec<(Location, image::oci::Digest)>> {
    // Credentials are read before the work, not after it.
    let registries = request
        .outputs
        .iter()
        .map(|place| match place {
            Location::Registry(reference) => Registry::new(&request.access, reference).map(Some),
            _ => Ok(None),
        })
        .collect::<Result<Vec<_>>>()?;
    let progress = Progress::new();
    let work = work_directory(&request.outputs)?;
    let disk = disk::make(request, work.path(), &progress)?;
    let mut images = Images {
        request,
        disk: &disk,
        work: work.path(),
        made: Vec::new(),
    };
    let mut done = Vec::new();
    for (place, registry) in request.outputs.iter().zip(&registries) {
        let image = images.get(compression(request, place), &progress)?;
        match (place, registry) {
            (Location::Registry(reference), Some(registry)) => {
                registry.push(reference, image, request.chunk_size, &progress)?;
            }
            _ => output::write(place, image, request.tag.as_deref(), &progress)?,
        }
        let digest = match place {
            // An archive for Docker has no manifest: the image is known by its config.
            Location::DockerArchive(_) => image.config_digest(),
            _ => image.digest(),
        };
        done.push((place.clone(), digest));
    }
    Ok(done)
}

/// Old Docker loads plain layers only, and unpacks them again when it pushes them.
fn compression(request: &BuildRequest, place: &Location) -> LayerCompression {
    match place {
        Location::DockerArchive(_) => LayerCompression::None,
        _ => request.layer_compression,
    }
}

/// A directory for what is in the making, beside the first output: on the disk that has to have room
/// for it anyway. After a crash its name, `.base-image-…`, says what it is; it can be removed.
fn work_directory(outputs: &[Location]) -> Result<tempfile::TempDir> {
    let beside = outputs
        .iter()
        .find_map(Location::path)
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
    request: &'a BuildRequest,
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
        let name = &self.request.name;
        let layer = layer::pack(self.disk, name, compression, self.work, progress)?;
        self.made
            .push(ContainerImage::new(layer, &self.request.platform));
        Ok(&self.made[self.made.len() - 1])
    }
}
