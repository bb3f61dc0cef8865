//! What the file of a volume holds, and how large it can be.

use std::fs::File;
use std::io;
use std::path::Path;

use types::ByteSize;

use super::record::ImageRef;
use store::Content;
use store::IoContext;

use crate::error::{Error, Result};
use store::SealedImage;

/// The image of a volume, as its record keeps it.
pub(super) fn image_ref(image: &SealedImage) -> Result<ImageRef> {
    Ok(ImageRef {
        id: image.id().clone(),
        checksum: image.summed()?,
        virtual_size: ByteSize(image.sidecar().virtual_size),
        content: image.seal().content.clone(),
    })
}

/// What the file of a new volume holds.
pub(super) fn content_of(file: &File, path: &Path) -> Result<Content> {
    let probed = file
        .try_clone()
        .and_then(probe::FileDisk::new)
        .and_then(|disk| probe::probe(&disk));
    Ok(probed.context("probe", path)?.into())
}

/// Refuses a size that the file system in `file` cannot grow to.
pub(super) fn can_grow(file: &File, size: ByteSize, path: &Path) -> Result<()> {
    let most = file
        .try_clone()
        .and_then(probe::FileDisk::new)
        .and_then(|disk| probe::grows_to(&disk))
        .context("probe", path)?;
    match most {
        Some(most) if size.bytes() > most => Err(Error::Size {
            asked: size,
            why: format!(
                "its file system, with the present block size, cannot grow beyond {most} bytes; \
                 request less, or build the image with larger blocks"
            ),
        }),
        _ => Ok(()),
    }
}

/// Sets the length of a volume's file.
pub(super) fn set_size(file: &File, size: ByteSize, path: &Path) -> Result<()> {
    match file.set_len(size.bytes()) {
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => Err(Error::Size {
            asked: size,
            why: "the disk's file system has no such files".into(),
        }),
        other => Ok(other.context("set the length of", path)?),
    }
}
