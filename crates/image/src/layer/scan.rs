//! Walks the layers, interprets each entry, and passes the disk image on.

use std::io::BufRead as _;

use types::Classify;

use super::overlay::{Meaning, Overlay};
use super::tar::{Entry, GARBAGE, Kind, Tar, TarError, begins_tar};
use super::unpack::Unpacked;
use super::{Directory, Error, Found, Input, Limits, Sink};
use crate::format::QCOW_MAGIC;

/// What is said of a layer that is no layer.
const QCOW2: &str = "it is a qcow2 image itself; push it as an artifact (with the media type \
                     application/vnd.kubevirt.disk.qcow2), or put it into a layer as /base_image/NAME";

/// The longest file name of Linux, in bytes (NAME_MAX).
const NAME_MAX: usize = 255;

/// Finds the disk image in `layers`, which come from the top down, and hands it to `sink`.
///
/// Layers are read to their ends, so that their digests are verified, except those that can no longer
/// matter. Blocks; see the module for what is accepted.
pub fn find<S: Sink>(
    layers: impl IntoIterator<Item = Input>,
    limits: Limits,
    sink: &mut S,
) -> Result<Found, Error> {
    let mut search = Search {
        limits,
        sink,
        base: Overlay::new(Directory::BaseImage),
        disk: Overlay::new(Directory::Disk),
        disk_problem: None,
        taken: None,
        unpacked: 0,
    };
    for layer in layers {
        search.layer(layer)?;
        if search.is_settled() {
            break;
        }
    }
    search.result()
}

struct Search<'a, S> {
    limits: Limits,
    sink: &'a mut S,
    base: Overlay,
    disk: Overlay,
    /// What is wrong with `/disk/`: it matters only when there is no `/base_image/`.
    disk_problem: Option<Error>,
    /// What the sink holds.
    taken: Option<Found>,
    /// Bytes of all layers so far.
    unpacked: u64,
}

impl<S: Sink> Search<'_, S> {
    fn layer(&mut self, input: Input) -> Result<(), Error> {
        let (name, bare) = (input.name.clone(), input.bare);
        let mut tar = Tar::new(Unpacked::start(input, self.limits, self.unpacked)?);
        // What is wrong with the input is seen by who reads it.
        let head = tar.input_mut().fill_buf().unwrap_or_default();
        let (is_tar, is_qcow2) = (begins_tar(head), head.starts_with(&QCOW_MAGIC));
        let read = if bare && !is_tar {
            self.disk(tar.input_mut())
        } else if is_qcow2 {
            Err(Failure::Tar(TarError::Invalid(QCOW2)))
        } else {
            self.entries(&name, &mut tar)
        };
        self.unpacked = self.unpacked.saturating_add(tar.offset());
        let end = read.and_then(|()| tar.finish().map_err(Failure::from));
        end.map_err(|failure| match (failure, tar.input_mut().take_failure()) {
            (_, Some(error)) | (Failure::Known(error), None) => error,
            (Failure::Tar(TarError::Read(source)), None) => Error::Read {
                layer: name.clone(),
                source,
            },
            (Failure::Tar(TarError::Invalid(GARBAGE)), None) => Error::Garbage {
                layer: name.clone(),
            },
            (Failure::Tar(TarError::Invalid(why)), None) => Error::Tar {
                layer: name.clone(),
                why,
            },
        })?;
        self.base.end_layer();
        self.disk.end_layer();
        Ok(())
    }

    /// Gives a blob to the sink that is the disk image itself.
    fn disk(&mut self, blob: &mut Unpacked) -> Result<(), Failure> {
        let (directory, name) = (Directory::BaseImage, "disk".to_owned());
        self.sink.begin(directory, &name, None).map_err(refused)?;
        let (mut size, limit) = (0, self.limits.file);
        loop {
            let bytes = blob.fill_buf().map_err(TarError::Read)?;
            if bytes.is_empty() {
                break;
            }
            size += bytes.len() as u64;
            if size > limit {
                let path = format!("{}/{name}", directory.name());
                return Err(Error::FileTooLarge { path, size, limit }.into());
            }
            self.sink.write(bytes).map_err(refused)?;
            let n = bytes.len();
            blob.consume(n);
        }
        self.sink.end().map_err(refused)?;
        self.base
            .take(&[directory.name().as_bytes(), name.as_bytes()], Kind::File);
        self.taken = Some(Found {
            directory,
            name,
            size,
        });
        Ok(())
    }

    fn entries(&mut self, layer: &str, tar: &mut Tar<Unpacked>) -> Result<(), Failure> {
        while let Some(entry) = tar.next()? {
            self.entry(layer, &entry, tar)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        layer: &str,
        entry: &Entry,
        tar: &mut Tar<Unpacked>,
    ) -> Result<(), Failure> {
        let parts: Vec<&[u8]> = entry
            .path
            .split(|b| *b == b'/')
            .filter(|part| !matches!(*part, b"" | b"."))
            .collect();
        if parts.contains(&b"..".as_slice()) {
            let (layer, path) = (layer.to_owned(), shown(&entry.path));
            return Err(Error::Traversal { layer, path }.into());
        }
        match self.base.take(&parts, entry.kind) {
            Meaning::None => {}
            Meaning::Item(name, Kind::File) => {
                let name = file_name(layer, &entry.path, &name)?;
                if self.base.items().len() > 1 {
                    return Err(several(&self.base, Directory::BaseImage).into());
                }
                return self.hand_over(Directory::BaseImage, name, entry, tar);
            }
            Meaning::NotDirectory(kind) | Meaning::Item(_, kind) => {
                return Err(not_regular(&entry.path, kind).into());
            }
        }
        match self.disk.take(&parts, entry.kind) {
            Meaning::None => Ok(()),
            Meaning::NotDirectory(kind) => {
                self.disk_problem
                    .get_or_insert_with(|| not_regular(&entry.path, kind));
                Ok(())
            }
            Meaning::Item(name, Kind::File) => match file_name(layer, &entry.path, &name) {
                Ok(name) if self.wants_disk(&name) => {
                    self.hand_over(Directory::Disk, name, entry, tar)
                }
                Ok(_) => Ok(()),
                Err(error) => {
                    self.disk_problem.get_or_insert(error);
                    Ok(())
                }
            },
            Meaning::Item(_, kind) => {
                self.disk_problem
                    .get_or_insert_with(|| not_regular(&entry.path, kind));
                Ok(())
            }
        }
    }

    /// Whether a file under `/disk/` may still be the one.
    fn wants_disk(&self, name: &str) -> bool {
        let same = |found: &Found| found.directory == Directory::Disk && found.name == name;
        self.disk_problem.is_none() && self.taken.as_ref().is_none_or(same)
    }

    /// Gives a file to the sink, in place of what it holds.
    fn hand_over(
        &mut self,
        directory: Directory,
        name: String,
        entry: &Entry,
        tar: &mut Tar<Unpacked>,
    ) -> Result<(), Failure> {
        let (size, limit) = (entry.size(), self.limits.file);
        if size > limit {
            let path = format!("{}/{name}", directory.name());
            return Err(Error::FileTooLarge { path, size, limit }.into());
        }
        if self.taken.take().is_some() {
            self.sink.discard().map_err(refused)?;
        }
        self.sink
            .begin(directory, &name, Some(size))
            .map_err(refused)?;
        match &entry.sparse {
            None => self.copy(entry.stored, tar)?,
            Some(map) => {
                let mut at = 0;
                for (offset, length) in &map.segments {
                    self.hole(offset - at)?;
                    self.copy(*length, tar)?;
                    at = offset + length;
                }
                self.hole(map.size - at)?;
            }
        }
        self.sink.end().map_err(refused)?;
        self.taken = Some(Found {
            directory,
            name,
            size,
        });
        Ok(())
    }

    fn hole(&mut self, length: u64) -> Result<(), Failure> {
        if length > 0 {
            self.sink.hole(length).map_err(refused)?;
        }
        Ok(())
    }

    fn copy(&mut self, mut length: u64, tar: &mut Tar<Unpacked>) -> Result<(), Failure> {
        while length > 0 {
            let data = tar.data()?;
            let n = data
                .len()
                .min(usize::try_from(length).unwrap_or(usize::MAX));
            self.sink.write(&data[..n]).map_err(refused)?;
            tar.consume(n);
            length -= n as u64;
        }
        Ok(())
    }

    /// Whether the layers below can change nothing: `/base_image/` has its file and hides the rest.
    fn is_settled(&self) -> bool {
        self.base.is_masked() && self.base.items().len() == 1
    }

    fn result(self) -> Result<Found, Error> {
        for (overlay, directory) in [
            (&self.base, Directory::BaseImage),
            (&self.disk, Directory::Disk),
        ] {
            let counts = directory == Directory::BaseImage || self.base.items().is_empty();
            if counts && (overlay.has_too_many() || overlay.items().len() > 1) {
                return Err(several(overlay, directory));
            }
        }
        match (self.taken, self.disk_problem) {
            (Some(found), None) => Ok(found),
            (Some(found), Some(_)) if found.directory == Directory::BaseImage => Ok(found),
            (_, Some(problem)) => Err(problem),
            (None, None) => Err(Error::Nothing),
        }
    }
}

/// What ends the reading of a layer: known at once, or by the tar.
enum Failure {
    Known(Error),
    Tar(TarError),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Known(error)
    }
}

impl From<TarError> for Failure {
    fn from(error: TarError) -> Self {
        Self::Tar(error)
    }
}

fn refused<E: Classify + Send + Sync + 'static>(error: E) -> Failure {
    Failure::Known(Error::Sink {
        kind: error.kind(),
        source: Box::new(error),
    })
}

fn not_regular(path: &[u8], kind: Kind) -> Error {
    let kind = kind.name();
    Error::NotRegular {
        path: shown(path).trim_matches('/').to_owned(),
        kind,
    }
}

fn several(overlay: &Overlay, directory: Directory) -> Error {
    let names: Vec<_> = overlay
        .items()
        .keys()
        .take(8)
        .map(|name| shown(name))
        .collect();
    let more = overlay.items().len().saturating_sub(names.len());
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    Error::Several {
        directory: directory.name(),
        names: format!("{}{more}", names.join(", ")),
    }
}

/// The name of a disk image as text.
fn file_name(layer: &str, path: &[u8], name: &[u8]) -> Result<String, Error> {
    let refuse = |why| Error::Name {
        layer: layer.to_owned(),
        path: shown(path),
        why,
    };
    if name.len() > NAME_MAX {
        return Err(refuse("it has more than 255 bytes"));
    }
    let name = std::str::from_utf8(name).map_err(|_| refuse("it is not UTF-8"))?;
    if name.chars().any(char::is_control) {
        return Err(refuse("it holds control characters"));
    }
    Ok(name.to_owned())
}

/// A path as a message may hold it.
fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).chars().take(96).collect()
}
