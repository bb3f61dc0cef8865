//! Container images as files: OCI layouts, OCI archives and `docker load`-able archives.
//!
//! An archive holds one image. A layout can hold several, so an image is added, or replaces the
//! image with the same name. Everything is written under a temporary name, synced and renamed; the
//! index of a layout is last. A crash leaves the old image or the new one, and possibly a file
//! whose name starts with `.base-image-`.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use image::oci::write::{Contents, LayerFile, docker_archive, oci_archive};
use image::oci::{Digest, OCI_INDEX, OCI_MANIFEST};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use super::error::{Error, Result, io};
use super::location::Location;
use super::manifest::ContainerImage;
use super::progress::Progress;

/// The file that makes a directory an OCI layout, and what is in it.
const LAYOUT_FILE: &str = "oci-layout";
const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
const INDEX_FILE: &str = "index.json";
/// The longest index of a layout that an image is added to, in bytes.
const MAX_INDEX: u64 = 4 << 20;
/// The annotation that names an image in a layout.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Writes `image` to `place`, which is not a registry.
pub(super) fn write(
    place: &Location,
    image: &ContainerImage,
    tag: Option<&str>,
    progress: &Progress,
) -> Result<()> {
    progress.say(&format!("writing {place}"));
    match place {
        Location::OciLayout(path) => write_layout(path, image, tag),
        Location::OciArchive(path) => write_archive(image, tag, |image| oci_archive(path, image)),
        Location::DockerArchive(path) => {
            write_archive(image, tag, |image| docker_archive(path, image))
        }
        Location::Registry(_) | Location::File(_) => {
            let problem = format!("cannot write {place} as a file");
            Err(Error::Option {
                option: "--output",
                problem,
            })
        }
    }
}

/// What a layout's index says of the image.
fn descriptor(image: &ContainerImage, tag: Option<&str>) -> Value {
    let mut descriptor = json!({
        "mediaType": OCI_MANIFEST,
        "digest": image.digest().to_string(),
        "size": image.manifest.len(),
    });
    if let Some(tag) = tag {
        descriptor["annotations"] = json!({ REF_NAME: tag });
    }
    descriptor
}

fn index(manifests: &[Value]) -> Vec<u8> {
    let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests });
    index.to_string().into_bytes()
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

fn write_layout(path: &Path, image: &ContainerImage, tag: Option<&str>) -> Result<()> {
    let mut manifests = existing(path)?;
    let blobs = path.join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(io("make", &blobs))?;
    let layer = &image.layer;
    let contents: [(Digest, &[u8]); 2] = [
        (image.config_digest(), &image.config),
        (image.digest(), &image.manifest),
    ];
    let to = path.join(blob_path(&layer.digest));
    replace(&to, |out| {
        let mut from = File::open(&layer.path).map_err(io("open", &layer.path))?;
        std::io::copy(&mut from, out)
            .map(drop)
            .map_err(io("copy the layer to", &to))
    })?;
    for (digest, bytes) in contents {
        replace_with(&path.join(blob_path(&digest)), bytes)?;
    }
    replace_with(&path.join(LAYOUT_FILE), LAYOUT.as_bytes())?;
    // An image of the same name is replaced, as a tag is in a registry; so is the same image.
    let digest = image.digest().to_string();
    manifests.retain(|other| match tag {
        Some(tag) => other["annotations"][REF_NAME] != tag,
        None => other["digest"] != *digest || !other["annotations"][REF_NAME].is_null(),
    });
    manifests.push(descriptor(image, tag));
    replace_with(&path.join(INDEX_FILE), &index(&manifests))
}

/// The images that are in a layout already; none when there is no layout.
fn existing(path: &Path) -> Result<Vec<Value>> {
    let refused = |why: &str| Error::Option {
        option: "--output",
        problem: format!("{} {why}", path.display()),
    };
    let entries = match fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
        Err(error) => return Err(io("list", path)(error)),
    };
    if !entries {
        return Ok(Vec::new());
    }
    let index = path.join(INDEX_FILE);
    let file = match File::open(&index) {
        Ok(file) if path.join(LAYOUT_FILE).exists() => file,
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(io("open", index)(error));
        }
        _ => {
            return Err(refused(
                "is not empty and not an OCI layout; name another directory",
            ));
        }
    };
    let mut bytes = Vec::new();
    file.take(MAX_INDEX + 1)
        .read_to_end(&mut bytes)
        .map_err(io("read", &index))?;
    let mut value: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    match value["manifests"].take() {
        Value::Array(manifests) if bytes.len() as u64 <= MAX_INDEX => Ok(manifests),
        _ => Err(refused(
            "holds an index.json that is not valid; name another directory",
        )),
    }
}

/// The image as the writers of archives take it.
fn write_archive(
    image: &ContainerImage,
    tag: Option<&str>,
    write: impl FnOnce(&Contents) -> std::result::Result<(), image::oci::Error>,
) -> Result<()> {
    let layer = &image.layer;
    let layers = [LayerFile {
        path: &layer.path,
        digest: &layer.digest,
        size: layer.size,
    }];
    let contents = Contents {
        manifest: &image.manifest,
        config: &image.config,
        layers: &layers,
        reference: tag,
        platform: None,
    };
    write(&contents).map_err(|source| Error::Container { source })
}

fn replace_with(path: &Path, bytes: &[u8]) -> Result<()> {
    replace(path, |out| out.write_all(bytes).map_err(io("write", path)))
}

/// Writes a file beside `path`, syncs it and gives it that name.
fn replace(path: &Path, write: impl FnOnce(&mut File) -> Result<()>) -> Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let mut file = temporary(&directory)?;
    write(file.as_file_mut())?;
    file.as_file().sync_all().map_err(io("sync", path))?;
    file.persist(path)
        .map_err(|error| io("rename a file to", path)(error.error))?;
    let directory_file = File::open(&directory).map_err(io("open", &directory))?;
    directory_file.sync_all().map_err(io("sync", directory))
}

fn temporary(directory: &Path) -> Result<NamedTempFile> {
    use std::os::unix::fs::PermissionsExt;
    tempfile::Builder::new()
        .prefix(".base-image-")
        // As any file that a user makes: the umask decides.
        .permissions(fs::Permissions::from_mode(0o666))
        .tempfile_in(directory)
        .map_err(io("make a file in", directory))
}
