//! Writes a container image: an OCI layout, an OCI archive, or an archive for `docker load`.
//!
//! The same image gives the same bytes: names are in order, times are zero, owners are root. Layers
//! are streamed from their files and hashed on the way, so that a file that changed since it was
//! described is noticed. What is written appears under its name only when it is whole: an archive is
//! renamed into place, a layout gets its `index.json` last.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::{Digest, Error, OCI_INDEX, OCI_MANIFEST, Platform};

/// How much is copied at a time.
const COPY_SIZE: usize = 1 << 20;
const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// An image to be written: its documents as they will be, and its layers in files.
#[derive(Debug, Clone, Copy)]
pub struct Contents<'a> {
    /// An OCI manifest that names `config` and `layers`.
    pub manifest: &'a [u8],
    pub config: &'a [u8],
    pub layers: &'a [LayerFile<'a>],
    /// What the image is called: `org.opencontainers.image.ref.name`, or Docker's tag. A whole
    /// reference (`host/name:tag`) is also what containerd calls it.
    pub reference: Option<&'a str>,
    /// For the index of an OCI layout.
    pub platform: Option<&'a Platform>,
}

/// A packed layer in a file.
#[derive(Debug, Clone, Copy)]
pub struct LayerFile<'a> {
    pub path: &'a Path,
    pub digest: &'a Digest,
    /// Its length in bytes.
    pub size: u64,
}

/// One file of an image.
enum Part<'a> {
    Bytes(Vec<u8>),
    Layer(LayerFile<'a>),
}

/// Writes an OCI image layout into `directory`, which must be empty or not there.
pub fn layout(directory: &Path, image: &Contents<'_>) -> Result<(), Error> {
    make_directory(directory)?;
    let mut entries = fs::read_dir(directory).map_err(failed("read", directory))?;
    if entries.next().is_some() {
        let source = io::ErrorKind::DirectoryNotEmpty.into();
        return Err(failed("write an image into", directory)(source));
    }
    let mut directories = Vec::new();
    for (name, part) in oci_parts(image) {
        let path = directory.join(&name);
        let parent = path.parent().expect("a part lies in the directory");
        fs::create_dir_all(parent).map_err(failed("make", parent))?;
        if !directories.iter().any(|known| known == parent) {
            directories.push(parent.to_owned());
        }
        let mut file = File::create_new(&path).map_err(failed("make", &path))?;
        copy_part(&part, &mut file, &path)?;
        file.sync_all().map_err(failed("sync", &path))?;
    }
    for path in directories
        .iter()
        .chain([&directory.join("blobs"), &directory.to_owned()])
    {
        sync_directory(path)?;
    }
    Ok(())
}

/// Writes an OCI archive: the layout as a tar file.
pub fn oci_archive(path: &Path, image: &Contents<'_>) -> Result<(), Error> {
    archive(path, oci_parts(image))
}

/// Writes an archive that `docker load` reads.
pub fn docker_archive(path: &Path, image: &Contents<'_>) -> Result<(), Error> {
    let config = format!("{}.json", Digest::of(image.config).hex());
    let layer_name = |layer: &LayerFile<'_>| format!("{}/layer.tar", layer.digest.hex());
    let layers: Vec<String> = image.layers.iter().map(layer_name).collect();
    let tags: Vec<&str> = image.reference.into_iter().collect();
    let manifest = json!([{ "Config": config, "RepoTags": tags, "Layers": layers }]);
    let mut parts: Vec<(String, Part<'_>)> = Vec::new();
    for layer in image.layers {
        add(&mut parts, layer_name(layer), Part::Layer(*layer));
    }
    parts.push((config, Part::Bytes(image.config.to_vec())));
    parts.sort_by(|a, b| a.0.cmp(&b.0));
    parts.push((
        "manifest.json".to_owned(),
        Part::Bytes(manifest.to_string().into_bytes()),
    ));
    archive(path, parts)
}

/// All files of a layout, `index.json` last: without it, it is none.
fn oci_parts<'a>(image: &Contents<'a>) -> Vec<(String, Part<'a>)> {
    let blob = |digest: &Digest| format!("blobs/{}/{}", digest.algorithm().name(), digest.hex());
    let mut parts = vec![];
    for document in [image.config, image.manifest] {
        add(
            &mut parts,
            blob(&Digest::of(document)),
            Part::Bytes(document.to_vec()),
        );
    }
    for layer in image.layers {
        add(&mut parts, blob(layer.digest), Part::Layer(*layer));
    }
    parts.sort_by(|a, b| a.0.cmp(&b.0));
    let mut entry = json!({
        "mediaType": OCI_MANIFEST,
        "digest": Digest::of(image.manifest),
        "size": image.manifest.len(),
    });
    if let Some(platform) = image.platform {
        entry["platform"] = json!(platform);
    }
    if let Some(reference) = image.reference {
        entry["annotations"] = json!({ "org.opencontainers.image.ref.name": reference });
        if reference.contains('/') {
            // A whole reference, not a tag alone: what containerd calls the image that it imports.
            entry["annotations"]["io.containerd.image.name"] = json!(reference);
        }
    }
    let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry] });
    parts.push(("oci-layout".to_owned(), Part::Bytes(LAYOUT.to_vec())));
    parts.push((
        "index.json".to_owned(),
        Part::Bytes(index.to_string().into_bytes()),
    ));
    parts
}

/// Adds a part unless the same content is there: two equal layers are one file.
fn add<'a>(parts: &mut Vec<(String, Part<'a>)>, name: String, part: Part<'a>) {
    if !parts.iter().any(|(known, _)| *known == name) {
        parts.push((name, part));
    }
}

/// Writes a tar beside `path` and renames it into place.
fn archive(path: &Path, parts: Vec<(String, Part<'_>)>) -> Result<(), Error> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = Temporary(PathBuf::from(temporary));
    let out = File::create(&temporary.0).map_err(failed("make", &temporary.0))?;
    let mut tar = tar::Builder::new(BufWriter::with_capacity(COPY_SIZE, out));
    let mut directories: Vec<String> = Vec::new();
    for (name, part) in parts {
        for (at, _) in name.match_indices('/') {
            let directory = &name[..=at];
            if !directories.iter().any(|known| known == directory) {
                directories.push(directory.to_owned());
                let header = header(tar::EntryType::Directory, 0o755, 0);
                append(&mut tar, header, directory, io::empty(), path)?;
            }
        }
        match part {
            Part::Bytes(bytes) => {
                let header = header(tar::EntryType::Regular, 0o644, bytes.len() as u64);
                append(&mut tar, header, &name, bytes.as_slice(), path)?;
            }
            Part::Layer(layer) => {
                let header = header(tar::EntryType::Regular, 0o644, layer.size);
                let mut reader = open_layer(layer)?;
                append(&mut tar, header, &name, &mut reader, path)?;
                reader.check(layer)?;
            }
        }
    }
    let write = failed("write", path);
    let out = tar
        .into_inner()
        .and_then(|out| out.into_inner().map_err(io::IntoInnerError::into_error));
    out.and_then(|file| file.sync_all()).map_err(write)?;
    fs::rename(&temporary.0, path).map_err(failed("rename the archive to", path))?;
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    sync_directory(parent.unwrap_or(Path::new(".")))
}

fn append(
    tar: &mut tar::Builder<BufWriter<File>>,
    mut header: tar::Header,
    name: &str,
    content: impl Read,
    path: &Path,
) -> Result<(), Error> {
    tar.append_data(&mut header, name, content)
        .map_err(failed("write", path))
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn copy_part(part: &Part<'_>, out: &mut File, path: &Path) -> Result<(), Error> {
    match part {
        Part::Bytes(bytes) => out.write_all(bytes).map_err(failed("write", path)),
        Part::Layer(layer) => {
            let mut reader = open_layer(*layer)?;
            let mut buffer = vec![0; COPY_SIZE];
            loop {
                let n = reader
                    .read(&mut buffer)
                    .map_err(failed("read", layer.path))?;
                if n == 0 {
                    return reader.check(*layer);
                }
                out.write_all(&buffer[..n]).map_err(failed("write", path))?;
            }
        }
    }
}

/// The bytes of a layer's file, hashed as they are read, never more than were promised.
struct LayerReader {
    file: io::Take<File>,
    hasher: super::Hasher,
    read: u64,
}

fn open_layer(layer: LayerFile<'_>) -> Result<LayerReader, Error> {
    let file = File::open(layer.path).map_err(failed("open", layer.path))?;
    let actual = file.metadata().map_err(failed("open", layer.path))?.len();
    if actual != layer.size {
        let (digest, expected) = (layer.digest.clone(), layer.size);
        return Err(Error::SizeMismatch {
            digest,
            expected,
            actual,
        });
    }
    Ok(LayerReader {
        file: file.take(layer.size),
        hasher: layer.digest.hasher(),
        read: 0,
    })
}

impl Read for LayerReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buf)?;
        self.hasher.update(&buf[..n]);
        self.read += n as u64;
        Ok(n)
    }
}

impl LayerReader {
    fn check(self, layer: LayerFile<'_>) -> Result<(), Error> {
        let expected = layer.digest.clone();
        if self.read != layer.size {
            let (expected_size, actual) = (layer.size, self.read);
            return Err(Error::SizeMismatch {
                digest: expected,
                expected: expected_size,
                actual,
            });
        }
        let actual = self.hasher.finish();
        if actual == expected {
            Ok(())
        } else {
            Err(Error::DigestMismatch { expected, actual })
        }
    }
}

/// Removes what was begun, unless it was renamed away.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _renamed = fs::remove_file(&self.0);
    }
}

fn make_directory(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(failed("make", path))
}

fn sync_directory(path: &Path) -> Result<(), Error> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(failed("sync", path))
}

fn failed(operation: &'static str, path: &Path) -> impl Fn(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io {
        operation,
        path: path.clone(),
        source,
    }
}
